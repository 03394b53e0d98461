/*
 * A stand-in for libnvidia-ml.so.1: the NVML calls that collectors/nvml*.py make, answered from formulas.
 *
 * Every value is a function of the GPU's index and of a clock that the test sets; tests/servers/nvml_stub.py states
 * the same formulas and expects them. Clock and faults stand in a small file that the test and this library both map
 * into memory: environment variable KVANDAL_NVML_STUB names it, nvmlInit maps it, and a test's change is seen by the
 * very next call. Without the variable nvmlInit reports that no driver is loaded.
 *
 * Structure layouts and codes are those of the public NVML interface, as nvidia-ml-py declares them.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25,
    UNKNOWN_ERROR = 999,
};

enum { TYPE_DOUBLE = 0, TYPE_UNSIGNED_INT = 1, TYPE_UNSIGNED_LONG_LONG = 3, TYPE_SIGNED_INT = 5 };
enum { H100 = 0, B200 = 1, GB300 = 2 };
enum { MAX_GPUS = 16, NAMES_BYTES = 248, LINKS = 18, EVENTS = 256, NO_INSTANCE = 0xFFFFFFFFu };

/* The control file; struct.Struct in nvml_stub.py has the same layout. */
struct gpu_control {
    uint32_t lost;
    uint32_t hang;     /* calls block while it is not 0 */
    uint32_t sentinel; /* every number is one of the driver's blank values */
    uint32_t mig;
    uint64_t restarted_at_ms; /* 0: the counters never restarted */
    int64_t energy_mj;        /* what the energy counter reads instead; -1: the formula */
    uint32_t links_down;      /* one bit for each NVLink that is inactive */
    uint32_t links_mute;      /* one bit for each NVLink whose fields cannot be read */
    uint32_t recovery_action;
    uint32_t fabric_state;
    uint32_t fabric_status;
    uint32_t fabric_mask;
    uint32_t fabric_summary;
    uint32_t reserved;
    char unsupported[NAMES_BYTES]; /* ",name,name,": calls, field:ID:SCOPE, gpm:ID */
    char refused[NAMES_BYTES];     /* the same, answered with NO_PERMISSION */
};

/* An event that waits for whoever has an event set. */
struct event {
    uint32_t gpu, gpu_instance;
    uint64_t type, data;
};

struct control {
    uint32_t profile;
    uint32_t gpu_count;
    uint32_t driver_loaded;
    uint32_t calls;   /* how many calls were made for a GPU, so that a test can see what is not asked again */
    uint32_t blocked; /* how many of them hang now */
    uint32_t misused; /* nvmlShutdown was called under one that hangs */
    uint32_t stale;   /* calls for a GPU fail until NVML is started anew, though GPUs are still counted */
    uint32_t sets; /* event sets that exist */
    uint64_t clock_ms;
    uint32_t events_told, events_taken; /* how many so far: a ring */
    uint32_t changes, reserved;         /* what those who wait for an event sleep on */
    struct event events[EVENTS];
    struct gpu_control gpus[MAX_GPUS];
};

struct profile {
    const char *model;
    uint32_t limit_mw;
    uint64_t memory_bytes;
    int has_module;       /* Grace on the module: module power, C2C, platform information */
    int has_memory_power; /* Blackwell and later */
    int average_type;     /* differs by profile, to prove that the reader honours valueType */
    int is_blackwell;     /* NVLink 5, power smoothing, more events */
    int margin_type;      /* of negative fields: a type without a sign is one to see through */
    int slowdown_margin;
    uint32_t pcie_generation;
    uint32_t fabric_version; /* the newest structure that its driver knows */
};

static const struct profile PROFILES[] = {
    {"NVIDIA H100 80GB HBM3", 700000, 81559ull << 20, 0, 0, TYPE_UNSIGNED_INT, 0, TYPE_SIGNED_INT, -2, 5, 2},
    {"NVIDIA B200", 1000000, 183359ull << 20, 0, 1, TYPE_UNSIGNED_LONG_LONG, 1, TYPE_UNSIGNED_INT, -3, 5, 3},
    {"NVIDIA GB300", 1400000, 284208ull << 20, 1, 1, TYPE_DOUBLE, 1, TYPE_SIGNED_INT, -2, 6, 3},
};

struct device {
    uint32_t index;
};

static struct device devices[MAX_GPUS];
static volatile struct control *control;
static int references;
static int waiting; /* threads that wait for events */

static const struct profile *profile(void) { return &PROFILES[control->profile]; }

static volatile struct gpu_control *gpu(const struct device *device) { return &control->gpus[device->index]; }

static int listed(volatile char *names, const char *name) {
    char entry[80];
    snprintf(entry, sizeof entry, ",%s,", name);
    return strstr((char *)names, entry) != NULL;
}

static int permitted(const struct device *device, const char *name) {
    if (listed(gpu(device)->unsupported, name)) return NOT_SUPPORTED;
    if (listed(gpu(device)->refused, name)) return NO_PERMISSION;
    return SUCCESS;
}

/* A driver that was unloaded takes everybody's initialisation with it. */
static int running(void) {
    if (references && !control->driver_loaded) references = 0;
    return references != 0;
}

static int enter(const struct device *device, const char *name) {
    const struct timespec pause = {0, 2000000};
    volatile struct control *asked = control; /* while this call hangs, the next test may map its own */
    if (!running()) return UNINITIALIZED;
    __atomic_add_fetch(&asked->calls, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&asked->blocked, 1, __ATOMIC_RELAXED);
    while (asked->gpus[device->index].hang) nanosleep(&pause, NULL);
    __atomic_sub_fetch(&asked->blocked, 1, __ATOMIC_RELAXED);
    if (!running() || control->stale) return UNINITIALIZED;
    if (gpu(device)->lost) return GPU_IS_LOST;
    return permitted(device, name);
}

#define ENTER(device)                           \
    do {                                        \
        int entered = enter(device, __func__);  \
        if (entered != SUCCESS) return entered; \
    } while (0)

#define VERSIONED(structure, number) ((uint32_t)sizeof(structure) | ((uint32_t)(number) << 24))

static uint32_t number(const struct device *device, uint32_t value) {
    return gpu(device)->sentinel ? 0xFFFFFFFFu : value;
}

static uint64_t wide_number(const struct device *device, uint64_t value) {
    return gpu(device)->sentinel ? 0xFFFFFFFFFFFFFFFFull : value;
}

static uint64_t counting_ms(const struct device *device) {
    return control->clock_ms - gpu(device)->restarted_at_ms;
}

static uint64_t energy_mj(const struct device *device) {
    uint64_t before = gpu(device)->restarted_at_ms ? 0 : 1000000000ull * (device->index + 1);
    if (gpu(device)->sentinel) return 0x7ffffffffffffff2ull; /* "not supported" of the data centre manager */
    if (gpu(device)->energy_mj >= 0) return (uint64_t)gpu(device)->energy_mj;
    return before + counting_ms(device) * (401 + device->index);
}

static uint64_t throttled_ns(const struct device *device, uint32_t field) {
    uint64_t before = gpu(device)->restarted_at_ms ? 0 : 1234567ull * field;
    return before + counting_ms(device) * (field % 7 + 1) * 1001 * (device->index + 1);
}

static int copy_text(char *target, uint32_t size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return SUCCESS;
}

/* Library ------------------------------------------------------------------------------------------------------- */

static int map_control(void) {
    const char *path = getenv("KVANDAL_NVML_STUB");
    int file = path ? open(path, O_RDWR) : -1;
    if (file < 0) return DRIVER_NOT_LOADED;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return DRIVER_NOT_LOADED;
    control = mapped; /* an earlier file stays mapped: a call that hangs may still look at it */
    return control->driver_loaded ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    int mapped = map_control();
    if (mapped != SUCCESS) return mapped;
    for (uint32_t i = 0; i < MAX_GPUS; i++) devices[i].index = i;
    references++;
    control->stale = 0;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    if (!running()) return UNINITIALIZED;
    if (control->blocked || waiting) control->misused = 1;
    references--;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) { return copy_text(version, length, "580.95.05"); }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    if (!running()) return UNINITIALIZED;
    *count = control->gpu_count;
    return SUCCESS;
}

/* Identity ------------------------------------------------------------------------------------------------------ */

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct device **device) {
    if (!running()) return UNINITIALIZED;
    if (index >= control->gpu_count) return INVALID_ARGUMENT;
    *device = &devices[index];
    return enter(*device, __func__);
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned int length) {
    char text[96];
    ENTER(device);
    snprintf(text, sizeof text, "GPU-%08x-0000-4000-8000-%012x", control->profile + 1, device->index + 1);
    return copy_text(uuid, length, text);
}

int nvmlDeviceGetName(struct device *device, char *name, unsigned int length) {
    ENTER(device);
    return copy_text(name, length, profile()->model);
}

int nvmlDeviceGetSerial(struct device *device, char *serial, unsigned int length) {
    char text[30];
    ENTER(device);
    snprintf(text, sizeof text, "16500%08u", device->index + 1);
    return copy_text(serial, length, text);
}

struct pci_info {
    char bus_id_legacy[16];
    uint32_t domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci_info *info) {
    ENTER(device);
    memset(info, 0, sizeof *info);
    info->bus = 0x10 + device->index;
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    return SUCCESS;
}

struct platform_info {
    uint32_t version;
    uint8_t ib_guid[16];
    uint8_t chassis_serial[16];
    uint8_t slot, tray, host, peer_type, module;
};

int nvmlDeviceGetPlatformInfo(struct device *device, struct platform_info *info) {
    ENTER(device);
    if (!profile()->has_module) return NOT_SUPPORTED;
    if (info->version != VERSIONED(struct platform_info, 2)) return VERSION_MISMATCH;
    memcpy(info->chassis_serial, "1821525190042\0\0\0", 16);
    info->slot = 17;
    info->tray = 200; /* not a character: whoever decodes it as text fails */
    info->host = 1;
    info->module = (uint8_t)(device->index + 1);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned int *current, unsigned int *pending) {
    ENTER(device);
    *current = *pending = gpu(device)->mig;
    return SUCCESS;
}

/* Field values -------------------------------------------------------------------------------------------------- */

union value {
    double d;
    uint32_t ui;
    int32_t si;
    unsigned long long ull;
};

struct field_value {
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    uint32_t type;
    int32_t status;
    union value value;
};

static void set_value(struct field_value *field, uint32_t type, uint64_t value) {
    memset(&field->value, 0xA5, sizeof field->value); /* what a reader of the wrong member would see */
    field->type = type;
    if (type == TYPE_DOUBLE) field->value.d = (double)value;
    if (type == TYPE_UNSIGNED_INT) field->value.ui = (uint32_t)value;
    if (type == TYPE_SIGNED_INT) field->value.si = (int32_t)value;
    if (type == TYPE_UNSIGNED_LONG_LONG) field->value.ull = value;
}

static int has_power_scope(uint32_t scope) {
    return scope == 0 || (scope == 1 && profile()->has_module) || (scope == 2 && profile()->has_memory_power);
}

static uint64_t instant_power_mw(const struct device *device, uint32_t scope) {
    if (scope == 1) return 1000000 + 20000ull * device->index;
    if (scope == 2) return 90000 + 1000ull * device->index;
    return 400000 + 10000ull * device->index + control->clock_ms / 1000 % 10 * 1000;
}

/* Counts of one link: more on higher links, and more of fields with higher rates. */
static uint64_t link_errors(const struct device *device, uint32_t field, uint32_t link) {
    return 1000 * link + counting_ms(device) / 1000 * (link + 1) * (field % 7 + 1);
}

/* A link that has seen no error says 15e-255, others up to 9e-12. */
static uint64_t bit_error_ratio(uint32_t link) {
    return link == 0 ? 15u << 8 | 255u : (link % 9 + 1) << 8 | (12 + link % 4);
}

static int is_link_field(uint32_t field) { return (field >= 161 && field <= 165) || (field >= 201 && field <= 222); }

static int is_error_field(uint32_t field) { return field >= 3 && field <= 6; }

static int answer_link_field(const struct device *device, struct field_value *field) {
    uint32_t link = field->scope;
    int fifth = field->field != 165 && field->field >= 201;
    if (link >= LINKS) return INVALID_ARGUMENT;
    if (gpu(device)->links_mute >> link & 1) return UNKNOWN_ERROR;
    switch (field->field) {
    case 165:
        set_value(field, TYPE_UNSIGNED_INT, gpu(device)->links_down >> link & 1 ? 0 : link == 5 ? 2 : 1);
        return SUCCESS;
    case 161:
    case 162:
    case 163:
    case 206:
    case 207:
    case 213:
    case 214:
        if (fifth != profile()->is_blackwell) return NOT_SUPPORTED;
        set_value(field, TYPE_UNSIGNED_LONG_LONG, link_errors(device, field->field, link));
        return SUCCESS;
    case 220:
    case 222:
        if (!profile()->is_blackwell) return NOT_SUPPORTED;
        set_value(field, TYPE_UNSIGNED_LONG_LONG, bit_error_ratio(field->field == 220 ? link / 3 : link));
        return SUCCESS;
    default:
        return NOT_SUPPORTED;
    }
}

static int answer_field(const struct device *device, struct field_value *field) {
    uint32_t i = device->index;
    if (is_link_field(field->field)) return answer_link_field(device, field);
    switch (field->field) {
    case 3:
        set_value(field, TYPE_UNSIGNED_LONG_LONG, 5000000000ull + i);
        return SUCCESS;
    case 4:
        set_value(field, TYPE_UNSIGNED_LONG_LONG, i % 3);
        return SUCCESS;
    case 5:
        set_value(field, TYPE_UNSIGNED_LONG_LONG, 7000000000ull + i);
        return SUCCESS;
    case 6:
        set_value(field, TYPE_UNSIGNED_LONG_LONG, 10 + i);
        return SUCCESS;
    case 91:
        set_value(field, TYPE_UNSIGNED_INT, LINKS);
        return SUCCESS;
    case 94:
        set_value(field, TYPE_UNSIGNED_INT, counting_ms(device) / 1000 * (i + 1));
        return SUCCESS;
    case 142:
        set_value(field, TYPE_UNSIGNED_INT, 20 + i);
        return SUCCESS;
    case 143:
        set_value(field, TYPE_UNSIGNED_INT, 510 + i);
        return SUCCESS;
    case 144:
        set_value(field, TYPE_UNSIGNED_INT, i % 2);
        return SUCCESS;
    case 145:
        set_value(field, TYPE_UNSIGNED_INT, i == 3);
        return SUCCESS;
    case 193:
        set_value(field, (uint32_t)profile()->margin_type, (uint64_t)(int64_t)-7);
        return SUCCESS;
    case 194:
        set_value(field, (uint32_t)profile()->margin_type, (uint64_t)(int64_t)profile()->slowdown_margin);
        return SUCCESS;
    case 195:
        set_value(field, (uint32_t)profile()->margin_type, (uint64_t)(int64_t)-1);
        return SUCCESS;
    case 196:
        set_value(field, (uint32_t)profile()->margin_type, i);
        return SUCCESS;
    case 230:
        set_value(field, TYPE_UNSIGNED_INT, gpu(device)->recovery_action);
        return SUCCESS;
    case 258:
        if (!profile()->is_blackwell) return NOT_SUPPORTED;
        set_value(field, TYPE_UNSIGNED_INT, 97 - i);
        return SUCCESS;
    case 82:
        set_value(field, TYPE_UNSIGNED_INT, 50 + device->index);
        return SUCCESS;
    case 185:
        if (field->scope != 0) return NOT_SUPPORTED;
        set_value(field, (uint32_t)profile()->average_type, 390000 + 10000ull * device->index);
        return SUCCESS;
    case 186:
        if (!has_power_scope(field->scope)) return NOT_SUPPORTED;
        set_value(field, TYPE_UNSIGNED_INT, instant_power_mw(device, field->scope));
        return SUCCESS;
    case 74:
    case 76:
    case 269:
    case 270:
    case 271:
        set_value(field, TYPE_UNSIGNED_LONG_LONG, throttled_ns(device, field->field));
        return SUCCESS;
    default:
        return NOT_SUPPORTED;
    }
}

static void spoil_field(struct field_value *field) {
    if (field->type == TYPE_DOUBLE) field->value.d = 140737488355330.0;
    if (field->type == TYPE_UNSIGNED_INT) field->value.ui = 0x7ffffff2u;
    if (field->type == TYPE_SIGNED_INT) field->value.si = 0x7ffffff2;
    if (field->type == TYPE_UNSIGNED_LONG_LONG) field->value.ull = 0x7ffffffffffffff2ull;
}

int nvmlDeviceGetFieldValues(struct device *device, int count, struct field_value *fields) {
    char name[40];
    int links = 0, errors = 0;
    ENTER(device);
    for (int i = 0; i < count; i++) {
        links |= is_link_field(fields[i].field);
        errors |= is_error_field(fields[i].field);
    }
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "field:%u:%u", fields[i].field, fields[i].scope);
        fields[i].timestamp_us = (int64_t)control->clock_ms * 1000;
        fields[i].latency_us = 25;
        fields[i].status = permitted(device, name);
        /* On GB200 and GB300 memory errors and NVLink fields together make all of them unreadable. */
        if (links && errors && profile()->has_module) fields[i].status = NOT_SUPPORTED;
        if (fields[i].status == SUCCESS) fields[i].status = answer_field(device, &fields[i]);
        if (fields[i].status == SUCCESS && gpu(device)->sentinel) spoil_field(&fields[i]);
    }
    return SUCCESS;
}

/* Single calls -------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetPowerUsage(struct device *device, unsigned int *milliwatts) {
    ENTER(device);
    *milliwatts = number(device, 380000 + 10000 * device->index);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(struct device *device, unsigned long long *millijoules) {
    ENTER(device);
    *millijoules = energy_mj(device);
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(struct device *device, unsigned int *milliwatts) {
    ENTER(device);
    *milliwatts = number(device, profile()->limit_mw);
    return SUCCESS;
}

struct temperature {
    uint32_t version, sensor;
    int32_t celsius;
};

int nvmlDeviceGetTemperatureV(struct device *device, struct temperature *temperature) {
    ENTER(device);
    if (temperature->version != VERSIONED(struct temperature, 1)) return VERSION_MISMATCH;
    if (temperature->sensor != 0) return INVALID_ARGUMENT;
    temperature->celsius = gpu(device)->sentinel ? 0x7fffffff : 40 + (int32_t)device->index;
    return SUCCESS;
}

struct margin {
    uint32_t version;
    int32_t kelvin;
};

int nvmlDeviceGetMarginTemperature(struct device *device, struct margin *margin) {
    ENTER(device);
    if (margin->version != VERSIONED(struct margin, 1)) return VERSION_MISMATCH;
    margin->kelvin = gpu(device)->sentinel ? 0x7ffffff1 : 3 - 2 * (int32_t)device->index;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(struct device *device, unsigned int domain, unsigned int *megahertz) {
    const uint32_t clocks[] = {1500 + device->index, 1980 - 15 * device->index, 2619 + device->index};
    ENTER(device);
    if (domain > 2) return INVALID_ARGUMENT;
    *megahertz = number(device, clocks[domain]);
    return SUCCESS;
}

struct utilization {
    uint32_t gpu, memory;
};

int nvmlDeviceGetUtilizationRates(struct device *device, struct utilization *percent) {
    ENTER(device);
    if (gpu(device)->mig) return NOT_SUPPORTED;
    percent->gpu = number(device, 90 + device->index);
    percent->memory = number(device, 30 + device->index);
    return SUCCESS;
}

int nvmlDeviceGetEncoderUtilization(struct device *device, unsigned int *percent, unsigned int *period_us) {
    ENTER(device);
    *percent = number(device, 5 + device->index);
    *period_us = 166667;
    return SUCCESS;
}

int nvmlDeviceGetDecoderUtilization(struct device *device, unsigned int *percent, unsigned int *period_us) {
    ENTER(device);
    *percent = number(device, 7 + device->index);
    *period_us = 166667;
    return SUCCESS;
}

struct memory {
    uint32_t version;
    unsigned long long total, reserved, free, used;
};

int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory *memory) {
    ENTER(device);
    if (memory->version != VERSIONED(struct memory, 2)) return VERSION_MISMATCH;
    memory->total = wide_number(device, profile()->memory_bytes);
    memory->reserved = wide_number(device, (512ull + device->index) << 20);
    memory->used = wide_number(device, (10000ull + 100 * device->index) << 20);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(struct device *device, unsigned long long *reasons) {
    ENTER(device);
    *reasons = wide_number(device, device->index % 2 ? 0x24 : 0x04);
    return SUCCESS;
}

int nvmlDeviceGetPerformanceState(struct device *device, unsigned int *state) {
    ENTER(device);
    *state = gpu(device)->sentinel ? 32 : device->index % 2 * 2;
    return SUCCESS;
}

struct process {
    uint32_t pid;
    unsigned long long used_bytes;
    uint32_t gpu_instance, compute_instance;
};

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned int *count, struct process *processes) {
    uint32_t room = *count;
    ENTER(device);
    *count = device->index;
    if (room < device->index) return INSUFFICIENT_SIZE;
    for (uint32_t i = 0; i < device->index; i++) {
        processes[i] = (struct process){1000 + i, 1ull << 30, 0xFFFFFFFFu, 0xFFFFFFFFu};
    }
    return SUCCESS;
}

/* Health -------------------------------------------------------------------------------------------------------- */

struct static_memory {
    uint32_t version;
    unsigned long long counts[11];
    uint32_t threshold_exceeded;
};

int nvmlDeviceGetSramEccErrorStatus(struct device *device, struct static_memory *status) {
    ENTER(device);
    if (status->version != VERSIONED(struct static_memory, 1)) return VERSION_MISMATCH;
    status->threshold_exceeded = number(device, device->index == 2);
    return SUCCESS;
}

struct spare_rows {
    uint32_t max, high, partial, low, none;
};

int nvmlDeviceGetRowRemapperHistogram(struct device *device, struct spare_rows *banks) {
    ENTER(device);
    banks->max = number(device, 640 - device->index);
    banks->high = banks->partial = number(device, 1);
    banks->low = number(device, 3 + device->index);
    banks->none = number(device, device->index % 2);
    return SUCCESS;
}

struct repair {
    uint32_t version, channel_pending, cluster_pending;
};

int nvmlDeviceGetRepairStatus(struct device *device, struct repair *repair) {
    ENTER(device);
    if (!profile()->is_blackwell) return NOT_SUPPORTED;
    if (repair->version != VERSIONED(struct repair, 1)) return VERSION_MISMATCH;
    repair->channel_pending = number(device, device->index % 2);
    repair->cluster_pending = number(device, device->index / 2 % 2);
    return SUCCESS;
}

struct unrepairable {
    uint32_t version, memory;
};

int nvmlDeviceGetUnrepairableMemoryFlag_v1(struct device *device, struct unrepairable *flag) {
    ENTER(device);
    if (!profile()->is_blackwell) return NOT_SUPPORTED;
    if (flag->version != VERSIONED(struct unrepairable, 1)) return VERSION_MISMATCH;
    flag->memory = number(device, device->index == 1);
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkGeneration(struct device *device, unsigned int *generation) {
    ENTER(device);
    *generation = number(device, profile()->pcie_generation);
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkWidth(struct device *device, unsigned int *lanes) {
    ENTER(device);
    *lanes = number(device, device->index == 2 ? 8 : 16);
    return SUCCESS;
}

struct fabric {
    uint32_t version;
    uint8_t cluster[16];
    int32_t status;
    uint32_t clique, state, mask;
    uint8_t summary; /* since version 3 */
};

enum { FABRIC_V2_BYTES = offsetof(struct fabric, summary) };

int nvmlDeviceGetGpuFabricInfoV(struct device *device, struct fabric *fabric) {
    ENTER(device);
    int third = fabric->version == VERSIONED(struct fabric, 3) && profile()->fabric_version >= 3;
    if (!third && fabric->version != ((uint32_t)FABRIC_V2_BYTES | 2u << 24)) return VERSION_MISMATCH;
    for (uint32_t i = 0; i < sizeof fabric->cluster; i++) fabric->cluster[i] = (uint8_t)(i + 1);
    fabric->status = (int32_t)gpu(device)->fabric_status;
    fabric->clique = number(device, 32766 + device->index / 2);
    fabric->state = number(device, gpu(device)->fabric_state);
    fabric->mask = number(device, gpu(device)->fabric_mask);
    if (third) fabric->summary = (uint8_t)number(device, gpu(device)->fabric_summary);
    return SUCCESS;
}

/* Events -------------------------------------------------------------------------------------------------------- */

struct event_set {
    uint64_t types[MAX_GPUS];
};

struct event_data {
    struct device *device;
    unsigned long long type, data;
    uint32_t gpu_instance, compute_instance;
};

int nvmlEventSetCreate(struct event_set **set) {
    if (!running()) return UNINITIALIZED;
    *set = calloc(1, sizeof **set);
    control->sets++;
    return SUCCESS;
}

int nvmlEventSetFree(struct event_set *set) {
    if (!running()) return UNINITIALIZED;
    if (waiting) control->misused = 1;
    else free(set);
    control->sets--;
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(struct device *device, unsigned long long *types) {
    ENTER(device);
    *types = profile()->is_blackwell ? 0xFF9Full : 0x39Full;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, struct event_set *set) {
    unsigned long long supported;
    ENTER(device);
    nvmlDeviceGetSupportedEventTypes(device, &supported);
    if (types & ~supported) return NOT_SUPPORTED;
    set->types[device->index] |= types;
    return SUCCESS;
}

static int take_event(const struct event_set *set, struct event_data *data) {
    if (control->events_taken == control->events_told) return TIMEOUT;
    volatile struct event *next = &control->events[control->events_taken % EVENTS];
    if (!(set->types[next->gpu] & next->type)) return TIMEOUT; /* waits for a set that asks for it */
    *data = (struct event_data){&devices[next->gpu], next->type, next->data, next->gpu_instance, NO_INSTANCE};
    control->events_taken++;
    return SUCCESS;
}

static int look_for_event(const struct event_set *set, struct event_data *data) {
    if (!running() || control->stale) return UNINITIALIZED;
    for (uint32_t i = 0; i < MAX_GPUS; i++) {
        if (set->types[i] && control->gpus[i].lost) return GPU_IS_LOST;
    }
    return take_event(set, data);
}

/* Sleeps until the control file changes, as a driver does until it is interrupted: to look now and then costs. */
int nvmlEventSetWait_v2(struct event_set *set, struct event_data *data, unsigned int timeout_ms) {
    const struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
    volatile uint32_t *changes = &control->changes;
    uint32_t seen;
    int found;
    __atomic_add_fetch(&waiting, 1, __ATOMIC_RELAXED);
    do {
        seen = *changes;
        found = look_for_event(set, data);
    } while (found == TIMEOUT && (!syscall(SYS_futex, changes, FUTEX_WAIT, seen, &timeout) || errno != ETIMEDOUT));
    __atomic_sub_fetch(&waiting, 1, __ATOMIC_RELAXED);
    return found;
}

/* For whoever changes the control file: wakes all that wait for an event. */
void kvandal_stub_changed(uint32_t *changes) {
    __atomic_add_fetch(changes, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, changes, FUTEX_WAKE, INT_MAX);
}

/* GPU performance monitoring ------------------------------------------------------------------------------------- */

struct gpm_sample {
    const struct device *device;
    uint64_t taken_ms;
};

struct gpm_metric {
    uint32_t id;
    int32_t status;
    double value;
    const char *short_name, *long_name, *unit;
};

struct gpm_metrics {
    uint32_t version, count;
    struct gpm_sample *first, *second;
    struct gpm_metric metrics[];
};

struct gpm_support {
    uint32_t version, supported;
};

int nvmlGpmQueryDeviceSupport(struct device *device, struct gpm_support *support) {
    ENTER(device);
    if (support->version != 1) return VERSION_MISMATCH;
    support->supported = 1;
    return SUCCESS;
}

int nvmlGpmSampleAlloc(struct gpm_sample **sample) {
    *sample = calloc(1, sizeof **sample);
    return SUCCESS;
}

int nvmlGpmSampleFree(struct gpm_sample *sample) {
    free(sample);
    return SUCCESS;
}

int nvmlGpmSampleGet(struct device *device, struct gpm_sample *sample) {
    ENTER(device);
    *sample = (struct gpm_sample){device, control->clock_ms};
    return SUCCESS;
}

static int has_gpm_metric(uint32_t id) {
    if (id == 100 || id == 101) return profile()->has_module;
    return (id >= 1 && id <= 13) || id == 20 || id == 21 || id == 60 || id == 61;
}

static void answer_metric(const struct gpm_metrics *asked, struct gpm_metric *metric) {
    const struct device *device = asked->second->device;
    uint64_t seconds = (asked->second->taken_ms - asked->first->taken_ms) / 1000;
    char name[40];
    snprintf(name, sizeof name, "gpm:%u", metric->id);
    metric->status = has_gpm_metric(metric->id) ? permitted(device, name) : NOT_SUPPORTED;
    metric->value = -1.0;
    if (metric->status != SUCCESS) return;
    if (metric->id < 20) metric->value = (double)((metric->id * 3 + device->index * 2 + seconds) % 100) + 0.2;
    else metric->value = (double)(metric->id * 100 + device->index * 10 + seconds);
    if (gpu(device)->sentinel) metric->value = 140737488355328.0;
}

int nvmlGpmMetricsGet(struct gpm_metrics *asked) {
    if (!running()) return UNINITIALIZED;
    if (asked->version != 1) return VERSION_MISMATCH;
    if (!asked->first->device || asked->first->taken_ms >= asked->second->taken_ms) return INVALID_ARGUMENT;
    if (gpu(asked->second->device)->lost) return GPU_IS_LOST;
    for (uint32_t i = 0; i < asked->count; i++) answer_metric(asked, &asked->metrics[i]);
    return SUCCESS;
}

/* Sizes, for the test that compares them with nvidia-ml-py's. */
const uint32_t kvandal_stub_sizes[] = {
    sizeof(struct field_value), sizeof(struct pci_info), sizeof(struct platform_info), sizeof(struct temperature),
    sizeof(struct margin),      sizeof(struct memory),   sizeof(struct process),       sizeof(struct gpm_metric),
    sizeof(struct gpm_metrics), sizeof(struct static_memory), sizeof(struct spare_rows), sizeof(struct repair),
    sizeof(struct unrepairable), FABRIC_V2_BYTES, sizeof(struct fabric), sizeof(struct event_data),
    sizeof(struct control),
};
