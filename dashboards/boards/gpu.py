"""GPU and node: everything about one GPU, beside its neighbours."""

from dataclasses import replace

from catalogue import GPU, GPU_HEALTH, TRAY, ResourceKind
from dashboards import event_queries as events
from dashboards.board import HALL, ONE_GPU, RACK, Board, Page
from dashboards.board import NODE as NODE_CHOICE
from dashboards.boards.shared import TO_CUSTOMER, TO_JOB, TO_RACK, Row, event_looks, job_mark, marks
from dashboards.looks import (
    ANY_IS_BAD,
    COUNTED,
    INSTANT,
    MARGIN_STEPS,
    MEMORY_TEMPERATURE_STEPS,
    SHARE,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    GPU_DRAM_ACTIVE,
    GPU_MARGIN,
    GPU_MEMORY_CLOCK,
    GPU_MEMORY_SIZE,
    GPU_MEMORY_TEMPERATURE,
    GPU_MEMORY_USED,
    GPU_NVLINK_RECEIVE,
    GPU_NVLINK_TRANSMIT,
    GPU_PCIE_RECEIVE,
    GPU_PCIE_TRANSMIT,
    GPU_POWER,
    GPU_POWER_LIMIT,
    GPU_SM_ACTIVE,
    GPU_SM_CLOCK,
    GPU_STATE,
    GPU_TEMPERATURE,
    GPU_TENSOR_ACTIVE,
    HEALTH_ECC_CORRECTABLE,
    HEALTH_ECC_UNCORRECTABLE,
    HEALTH_NVLINK_INACTIVE,
    HEALTH_PCIE_REPLAYS,
    HEALTH_RECOVERY_ACTION,
    HEALTH_REMAP_FAILURE,
    HEALTH_REMAP_PENDING,
    TRAY_GPUS,
    TRAY_MEMORY_USED,
    TRAY_POWER,
    TRAY_PROCESSOR,
)
from dashboards.panels import NOTHING_HAPPENED, About, Placed, figure, lines, rows, state_lines
from dashboards.queries import (
    Place,
    Reading,
    Scope,
    Shown,
    beside,
    highest,
    latest,
    listing,
    mean,
    rise,
    series,
    series_by,
    total,
    worst,
)

# Everything follows from the GPU: a link to this page knows nothing but its name. The places before it narrow the list.
THE_GPU = Scope((ResourceKind.GPU,), (ONE_GPU,))
NODE_GPUS = beside(THE_GPU, ResourceKind.GPU, Place.TRAY)
NODE = beside(THE_GPU, ResourceKind.TRAY, Place.TRAY)
_THIS = THE_GPU.condition


def board() -> Board:
    return Board(
        page=Page.GPU,
        title="Kvandal / GPU and node",
        question="What does this GPU do, and is it well?",
        answer=(
            "Compare it with its neighbours in the node: what they share is the node's or the rack's, what it has "
            "alone is its own."
        ),
        choices=(HALL, RACK, NODE_CHOICE, ONE_GPU),
        marks=(*marks(conditions=NODE_GPUS.conditions), job_mark(_THIS, shown=True)),
        rows=(_figures(), _node(), _this_gpu(), _links(), _health(), _told(), _host()),
        since="now-3h",
    )


def _one(title: str, why: str, reading: Reading, look: Look) -> Placed:
    return figure(
        About(title=title, why=why, of=(reading.metric,)),
        latest(GPU, [reading], THE_GPU, [Shown(title, f"max({reading})")]),
        {title: look},
    )


def _figures() -> Row:
    return (
        _one("Power", "Against its limit beside it.", mean(GPU_POWER), look_of(GPU_POWER)),
        _one("Power limit", "What the driver allows.", mean(GPU_POWER_LIMIT), look_of(GPU_POWER_LIMIT)),
        _one(
            "Margin",
            "How far it is from slowing down.",
            mean(GPU_MARGIN),
            look_of(GPU_MARGIN, decimals=0, steps=MARGIN_STEPS),
        ),
        _one(
            "Memory temperature",
            "The hottest part of a GPU at work.",
            mean(GPU_MEMORY_TEMPERATURE),
            look_of(GPU_MEMORY_TEMPERATURE, decimals=0, steps=MEMORY_TEMPERATURE_STEPS),
        ),
        _one("SM active", "Whether it works at all.", mean(GPU_SM_ACTIVE), SHARE),
        _one("State", "Whether the agent can read it.", worst(GPU_STATE), look_of(GPU_STATE)),
    )


def _node() -> Row:
    state, power = worst(GPU_STATE), mean(GPU_POWER)
    return (
        state_lines(
            About(
                title="Can the node's GPUs be read?",
                why="Dark is lost; partly readable is about to be.",
                of=(GPU_STATE,),
            ),
            series_by(GPU, [state], NODE_GPUS, Place.NAME, f"max({state})"),
            look_of(GPU_STATE),
            width=12,
        ),
        lines(
            About(
                title="Power of the node's GPUs",
                why="In one job all swing together: one that does not is slow, or makes others wait.",
                of=(GPU_POWER,),
            ),
            series_by(GPU, [power], NODE_GPUS, Place.NAME, f"avg({power})"),
            look_of(GPU_POWER),
            named=True,
            height=7,
        ),
    )


def _this_gpu() -> Row:
    clock, memory = mean(GPU_SM_CLOCK), mean(GPU_MEMORY_CLOCK)
    die, stack = highest(GPU_TEMPERATURE), highest(GPU_MEMORY_TEMPERATURE)
    activities = (mean(GPU_SM_ACTIVE), mean(GPU_TENSOR_ACTIVE), mean(GPU_DRAM_ACTIVE))
    return (
        lines(
            About(
                title="Clocks",
                why="A clock that sags at constant activity is power or heat.",
                of=(GPU_SM_CLOCK, GPU_MEMORY_CLOCK),
            ),
            series(GPU, [clock, memory], THE_GPU, [Shown("SM", f"max({clock})"), Shown("Memory", f"max({memory})")]),
            look_of(GPU_SM_CLOCK),
            width=8,
        ),
        lines(
            About(
                title="Temperatures, highest",
                why="Die and memory; beyond the lines it is a ticket, then a page.",
                of=(GPU_TEMPERATURE, GPU_MEMORY_TEMPERATURE),
            ),
            series(GPU, [die, stack], THE_GPU, [Shown("Die", f"max({die})"), Shown("Memory", f"max({stack})")]),
            look_of(GPU_TEMPERATURE, steps=MEMORY_TEMPERATURE_STEPS),
            width=8,
        ),
        lines(
            About(
                title="Activity",
                why="What it is busy with: matrix work, other work, or waiting for memory.",
                of=(GPU_SM_ACTIVE, GPU_TENSOR_ACTIVE, GPU_DRAM_ACTIVE),
            ),
            series(
                GPU,
                activities,
                THE_GPU,
                [Shown(name, f"max({one})") for name, one in zip(("SM", "Tensor", "Memory"), activities, strict=True)],
            ),
            SHARE,
            width=8,
        ),
    )


def _links() -> Row:
    used, size = mean(GPU_MEMORY_USED), mean(GPU_MEMORY_SIZE)
    sent, received = mean(GPU_NVLINK_TRANSMIT), mean(GPU_NVLINK_RECEIVE)
    out, into = mean(GPU_PCIE_TRANSMIT), mean(GPU_PCIE_RECEIVE)
    return (
        lines(
            About(
                title="NVLink traffic",
                why="A GPU that waits for others sends little while its neighbours send much.",
                of=(GPU_NVLINK_TRANSMIT, GPU_NVLINK_RECEIVE),
            ),
            series(
                GPU, [sent, received], THE_GPU, [Shown("Sent", f"sum({sent})"), Shown("Received", f"sum({received})")]
            ),
            look_of(GPU_NVLINK_TRANSMIT),
            width=8,
        ),
        lines(
            About(
                title="PCIe traffic",
                why="Data loading and checkpoints go this way.",
                of=(GPU_PCIE_TRANSMIT, GPU_PCIE_RECEIVE),
            ),
            series(GPU, [out, into], THE_GPU, [Shown("Sent", f"sum({out})"), Shown("Received", f"sum({into})")]),
            look_of(GPU_PCIE_TRANSMIT),
            width=8,
        ),
        lines(
            About(title="Device memory", why="Full memory ends jobs.", of=(GPU_MEMORY_USED, GPU_MEMORY_SIZE)),
            series(GPU, [used, size], THE_GPU, [Shown("Used", f"max({used})"), Shown("Size", f"max({size})")]),
            look_of(GPU_MEMORY_USED),
            width=8,
        ),
    )


def _health() -> Row:
    ecc, corrected, replays = rise(HEALTH_ECC_UNCORRECTABLE), rise(HEALTH_ECC_CORRECTABLE), total(HEALTH_PCIE_REPLAYS)
    pending, failure, action = worst(HEALTH_REMAP_PENDING), worst(HEALTH_REMAP_FAILURE), worst(HEALTH_RECOVERY_ACTION)
    inactive = mean(HEALTH_NVLINK_INACTIVE)
    return (
        rows(
            About(
                title="Health of the node's GPUs",
                why="What decides whether a GPU is reset, watched or replaced.",
                of=(
                    HEALTH_RECOVERY_ACTION,
                    HEALTH_REMAP_PENDING,
                    HEALTH_REMAP_FAILURE,
                    HEALTH_ECC_UNCORRECTABLE,
                    HEALTH_NVLINK_INACTIVE,
                ),
            ),
            listing(
                GPU_HEALTH,
                [action, pending, failure, ecc, corrected, inactive, replays],
                NODE_GPUS,
                [
                    Shown("GPU", "place.name"),
                    Shown("Action", f"toUInt8({action})"),
                    Shown("Remap pending", f"toUInt8({pending})"),
                    Shown("Remap failed", f"toUInt8({failure})"),
                    Shown("Uncorrectable", str(ecc)),
                    Shown("Corrected", str(corrected)),
                    Shown("NVLinks down", str(inactive)),
                    Shown("PCIe replays", str(replays)),
                ],
                order='"GPU"',
            ),
            {
                "Action": tinted(look_of(HEALTH_RECOVERY_ACTION)),
                "Remap pending": tinted(look_of(HEALTH_REMAP_PENDING)),
                "Remap failed": tinted(look_of(HEALTH_REMAP_FAILURE)),
                "Uncorrectable": replace(COUNTED, steps=ANY_IS_BAD),
                "Corrected": COUNTED,
                "NVLinks down": replace(COUNTED, steps=ANY_IS_BAD),
                "PCIe replays": COUNTED,
            },
            width=15,
        ),
        rows(
            About(
                title="Jobs that held this GPU",
                why="From the GPU to the job: what it was doing when something happened.",
            ),
            events.holds_of(_THIS),
            {"Job": Look(link=TO_JOB), "Customer": Look(link=TO_CUSTOMER), "Since": INSTANT, "Until": INSTANT},
            width=9,
        ),
    )


def _told() -> Row:
    return (
        rows(
            About(title="What happened in this node", why="The newest first: from each event to what is to be done."),
            events.event_list("1", conditions=NODE_GPUS.conditions),
            event_looks(),
            empty=NOTHING_HAPPENED,
            width=24,
            height=7,
        ),
    )


def _host() -> Row:
    power, busy, memory, gpus = mean(TRAY_POWER), mean(TRAY_PROCESSOR), mean(TRAY_MEMORY_USED), mean(TRAY_GPUS)
    return (
        rows(
            About(
                title="The node",
                why="The operating system's side: a full processor starves GPUs.",
                of=(TRAY_POWER, TRAY_PROCESSOR, TRAY_MEMORY_USED, TRAY_GPUS),
            ),
            listing(
                TRAY,
                [power, busy, memory, gpus],
                NODE,
                [
                    Shown("Node", "place.name"),
                    Shown("Rack", "place.rack_name"),
                    Shown("Power", str(power)),
                    Shown("Processors", str(busy)),
                    Shown("Memory used", str(memory)),
                    Shown("GPUs that answer", str(gpus)),
                ],
                order='"Node"',
                now=True,
            ),
            {
                "Rack": Look(link=TO_RACK),
                "Power": look_of(TRAY_POWER, decimals=0),
                "Processors": SHARE,
                "Memory used": look_of(TRAY_MEMORY_USED),
                "GPUs that answer": COUNTED,
            },
            width=24,
            height=4,
        ),
    )
