"""Metrics of trays, racks, cooling equipment and electrical meters."""

from enum import IntEnum
from fractions import Fraction

from catalogue import units
from catalogue.metrics import Codec, Kind, Metric, States
from catalogue.origins import DcgmField, DsxPoint, HostValue, MeterPoint, NvmlCall, Origin, RedfishProperty
from catalogue.types import I16, I32, U8, U16, U32, U64, StoredType
from catalogue.units import Unit

CENTIKELVIN = Fraction(1, 100)
WATT_HOUR = Fraction(3600)  # in joules
LITRE = Fraction(1, 1000)  # in cubic metres
CENTILITRE_PER_MINUTE = Fraction(1, 100 * 1000 * 60)  # 0.01 L/min in cubic metres per second
PERMILLE = Fraction(1, 1000)
MEBIBYTE = Fraction(1 << 20)
HECTOPASCAL = Fraction(100)


class LeakState(IntEnum):
    """What a leak detector says: in rows, and as the code of every event `leak`, whichever source tells it."""

    DRY = 1
    WARNING = 2
    CRITICAL = 3
    SENSOR_FAULT = 4


QUALITY_STATES = ((1, "good"), (2, "held"), (3, "estimated"), (4, "bad"))
LEAK_STATES = tuple((int(state), state.name.lower().replace("_", " ")) for state in LeakState)
BREAKER_STATES = ((1, "closed"), (2, "open"), (3, "tripped"))
EQUIPMENT_STATES = ((1, "running"), (2, "standby"), (3, "degraded"), (4, "failed"))


def _gauge(
    name: str,
    unit: Unit,
    stored: StoredType,
    resolution: Fraction | int,
    brief: str,
    *origins: Origin,
    codec: Codec = Codec.NOISY,
    extremes: bool = False,
    exported: bool = False,
) -> Metric:
    return Metric(
        name=f"{name}_{unit.suffix}",
        unit=unit,
        kind=Kind.GAUGE,
        stored=stored,
        resolution=Fraction(resolution),
        brief=brief,
        origins=origins,
        codec=codec,
        extremes=extremes,
        exported=exported,
    )


def _temperature(name: str, brief: str, *origins: Origin, extremes: bool = False, exported: bool = False) -> Metric:
    return _gauge(
        f"{name}_temperature", units.CELSIUS, I16, CENTIKELVIN, brief, *origins, codec=Codec.SLOW, extremes=extremes,
        exported=exported,
    )  # fmt: skip


def _flow(name: str, brief: str, *origins: Origin, exported: bool = False) -> Metric:
    return _gauge(
        name, units.CUBIC_METRES_PER_SECOND, U32, CENTILITRE_PER_MINUTE, brief, *origins, extremes=True,
        exported=exported,
    )  # fmt: skip


def _amount(
    name: str, unit: Unit, stored: StoredType, resolution: Fraction | int, brief: str, *origins: Origin
) -> Metric:
    return Metric(
        name=f"{name}_{unit.suffix}",
        unit=unit,
        kind=Kind.DELTA,
        stored=stored,
        resolution=Fraction(resolution),
        brief=brief,
        origins=origins,
    )


def _register(name: str, unit: Unit, resolution: Fraction, brief: str, *origins: Origin) -> Metric:
    return Metric(
        name=f"{name}_{unit.suffix}",
        unit=unit,
        kind=Kind.REGISTER,
        stored=U64,
        resolution=resolution,
        brief=brief,
        origins=origins,
        codec=Codec.SLOW,
    )


def _state(name: str, brief: str, states: States, *origins: Origin) -> Metric:
    return Metric(
        name=f"{name}_state",
        unit=units.STATE,
        kind=Kind.STATE,
        stored=U8,
        brief=brief,
        origins=origins,
        codec=Codec.STEPPED,
        states=states,
        exported=True,
    )


QUALITY = _state(
    "quality",
    "Quality of the row as its source reported it, the worst of its points",
    QUALITY_STATES,
    DsxPoint("*/quality"),
)

TRAY = (
    _gauge(
        "power",
        units.WATTS,
        U32,
        Fraction(1, 10),
        "Power draw of the whole tray",
        RedfishProperty("EnvironmentMetrics.PowerWatts.Reading"),
        extremes=True,
        exported=True,
    ),
    _gauge(
        "processor_power",
        units.WATTS,
        U32,
        Fraction(1, 10),
        "Power draw of the processors",
        DcgmField(1130, "DCGM_FI_DEV_CPU_POWER_UTIL_CURRENT", "DCGM_FI_DEV_CPU_POWER_WATTS"),
    ),
    _amount(
        "energy",
        units.JOULES,
        U32,
        Fraction(1),
        "Energy drawn by the tray since the previous spooled tick",
        RedfishProperty("EnvironmentMetrics.EnergykWh.Reading"),
    ),
    _gauge(
        "processor_utilization",
        units.RATIO,
        U16,
        PERMILLE,
        "Share of processor time spent working",
        HostValue("cpu_times"),
        extremes=True,
        exported=True,
    ),
    _gauge(
        "load",
        units.COUNT,
        U32,
        Fraction(1, 100),
        "Runnable tasks averaged over one minute",
        HostValue("getloadavg"),
    ),
    _gauge(
        "memory_used",
        units.BYTES,
        U32,
        MEBIBYTE,
        "Memory that is not available to new work",
        HostValue("virtual_memory"),
        extremes=True,
        exported=True,
    ),
    _gauge(
        "memory_size", units.BYTES, U32, MEBIBYTE, "Memory in all", HostValue("virtual_memory"), codec=Codec.STEPPED
    ),
    _gauge(
        "disk_used",
        units.BYTES,
        U32,
        MEBIBYTE,
        "Space in use on the file system of the spool",
        HostValue("disk_usage"),
        codec=Codec.SLOW,
        exported=True,
    ),
    _gauge(
        "disk_size",
        units.BYTES,
        U32,
        MEBIBYTE,
        "Size of the file system of the spool",
        HostValue("disk_usage"),
        codec=Codec.STEPPED,
    ),
    _amount(
        "disk_read", units.BYTES, U64, 1, "Bytes read from disks since the previous tick", HostValue("disk_io_counters")
    ),
    _amount(
        "disk_written",
        units.BYTES,
        U64,
        1,
        "Bytes written to disks since the previous tick",
        HostValue("disk_io_counters"),
    ),
    _amount(
        "network_received",
        units.BYTES,
        U64,
        1,
        "Bytes received by network interfaces since the previous tick",
        HostValue("net_io_counters"),
    ),
    _amount(
        "network_sent",
        units.BYTES,
        U64,
        1,
        "Bytes sent by network interfaces since the previous tick",
        HostValue("net_io_counters"),
    ),
    _amount(
        "network_errors",
        units.COUNT,
        U32,
        1,
        "Network packets lost or damaged since the previous tick",
        HostValue("net_io_counters"),
    ),
    _temperature("processor", "Temperature of the hottest processor", HostValue("sensors_temperatures"), extremes=True),
    _temperature(
        "inlet",
        "Temperature of the air that enters the tray",
        RedfishProperty("ThermalMetrics.TemperatureSummaryCelsius.Intake"),
        extremes=True,
    ),
    _gauge("process", units.COUNT, U32, 1, "Processes that exist", HostValue("pids"), codec=Codec.SLOW),
    _gauge(
        "uptime",
        units.SECONDS,
        U32,
        1,
        "Time since the operating system started",
        HostValue("boot_time"),
        codec=Codec.SLOW,
    ),
    _gauge(
        "gpu",
        units.COUNT,
        U8,
        1,
        "GPUs that answer",
        NvmlCall("nvmlDeviceGetCount_v2"),
        codec=Codec.STEPPED,
        exported=True,
    ),
)

RACK = (
    _gauge(
        "power",
        units.WATTS,
        U32,
        1,
        "Power draw of the rack at its power shelves",
        RedfishProperty("PowerShelf.Metrics.PowerWatts"),
        DsxPoint("Rack/RackPower"),
        extremes=True,
        exported=True,
    ),
    _register(
        "energy_register",
        units.JOULES,
        WATT_HOUR,
        "Energy that the rack's power shelves have counted",
        RedfishProperty("PowerShelf.Metrics.EnergykWh"),
        MeterPoint("energy_import"),
    ),
    _gauge(
        "liquid_heat",
        units.WATTS,
        I32,
        1,
        "Heat that the rack's coolant carries away, as the rack reports it",
        RedfishProperty("CoolantConnector.HeatRemovedkW"),
        exported=True,
    ),
    _temperature(
        "liquid_supply",
        "Temperature of the coolant that enters the rack",
        RedfishProperty("CoolantConnector.SupplyTemperatureCelsius"),
        DsxPoint("Rack/RackLiquidSupplyTemperature"),
        extremes=True,
    ),
    _temperature(
        "liquid_return",
        "Temperature of the coolant that leaves the rack",
        RedfishProperty("CoolantConnector.ReturnTemperatureCelsius"),
        DsxPoint("Rack/RackLiquidReturnTemperature"),
        extremes=True,
    ),
    _flow(
        "liquid_flow",
        "Flow of coolant through the rack",
        RedfishProperty("CoolantConnector.FlowLitersPerMinute"),
        DsxPoint("Rack/RackLiquidFlow"),
        exported=True,
    ),
    _gauge(
        "liquid_differential_pressure",
        units.PASCALS,
        I32,
        HECTOPASCAL,
        "Pressure drop of the coolant across the rack",
        RedfishProperty("CoolantConnector.DeltaPressurekPa"),
        DsxPoint("Rack/RackLiquidDifferentialPressure"),
    ),
    _gauge(
        "valve_position",
        units.RATIO,
        U16,
        PERMILLE,
        "Opening of the rack's control valve",
        RedfishProperty("CoolantConnector.ValvePositionPercent"),
        DsxPoint("Rack/RackControlValvePosition"),
        codec=Codec.SLOW,
    ),
    _temperature(
        "air_inlet",
        "Temperature of the air that enters the rack",
        RedfishProperty("ThermalMetrics.TemperatureSummaryCelsius.Intake"),
    ),
    _gauge(
        "power_supply",
        units.COUNT,
        U8,
        1,
        "Power supplies that are healthy",
        RedfishProperty("PowerShelf.PowerSupplies"),
        codec=Codec.STEPPED,
        exported=True,
    ),
    _state(
        "leak",
        "Worst state of the rack's leak detectors",
        LEAK_STATES,
        RedfishProperty("LeakDetector.DetectorState"),
        DsxPoint("Rack/RackLeakDetect"),
    ),
    QUALITY,
)

COOLING = (
    _temperature(
        "primary_supply",
        "Temperature of the coolant that enters on the facility side",
        RedfishProperty("CoolingUnit.PrimaryCoolantConnectors.SupplyTemperatureCelsius"),
        DsxPoint("CDU/LiquidTemperature [Primary, Supply]"),
        extremes=True,
    ),
    _temperature(
        "primary_return",
        "Temperature of the coolant that leaves on the facility side",
        RedfishProperty("CoolingUnit.PrimaryCoolantConnectors.ReturnTemperatureCelsius"),
        DsxPoint("CDU/LiquidTemperature [Primary, Return]"),
        extremes=True,
    ),
    _flow(
        "primary_flow",
        "Flow on the facility side",
        RedfishProperty("CoolingUnit.PrimaryCoolantConnectors.FlowLitersPerMinute"),
        DsxPoint("CDU/LiquidFlow [Primary]"),
    ),
    _temperature(
        "secondary_supply",
        "Temperature of the coolant sent to the racks",
        RedfishProperty("CoolingUnit.SecondaryCoolantConnectors.SupplyTemperatureCelsius"),
        DsxPoint("CDU/LiquidTemperature [Secondary, Supply]"),
        extremes=True,
        exported=True,
    ),
    _temperature(
        "secondary_return",
        "Temperature of the coolant that comes back from the racks",
        RedfishProperty("CoolingUnit.SecondaryCoolantConnectors.ReturnTemperatureCelsius"),
        DsxPoint("CDU/LiquidTemperature [Secondary, Return]"),
        extremes=True,
    ),
    _flow(
        "secondary_flow",
        "Flow on the rack side",
        RedfishProperty("CoolingUnit.SecondaryCoolantConnectors.FlowLitersPerMinute"),
        DsxPoint("CDU/LiquidFlow [Secondary]"),
    ),
    _gauge(
        "secondary_pressure",
        units.PASCALS,
        I32,
        HECTOPASCAL,
        "Static pressure on the rack side",
        RedfishProperty("CoolantConnector.SupplyPressurekPa"),
        DsxPoint("CDU/LiquidPressure"),
        codec=Codec.SLOW,
        extremes=True,
        exported=True,
    ),
    _gauge(
        "differential_pressure",
        units.PASCALS,
        I32,
        HECTOPASCAL,
        "Pressure that the pumps add",
        RedfishProperty("CoolantConnector.DeltaPressurekPa"),
        DsxPoint("CDU/LiquidDifferentialPressure"),
    ),
    _gauge(
        "heat_flow",
        units.WATTS,
        I32,
        10,
        "Heat carried, as the device reports it",
        RedfishProperty("CoolantConnector.HeatRemovedkW"),
        MeterPoint("heat_power"),
        extremes=True,
        exported=True,
    ),
    _register(
        "heat_register", units.JOULES, WATT_HOUR, "Heat that the heat meter has counted", MeterPoint("heat_energy")
    ),
    _register(
        "volume_register", units.CUBIC_METRES, LITRE, "Volume that the heat meter has counted", MeterPoint("volume")
    ),
    _gauge(
        "pump_speed",
        units.RATIO,
        U16,
        PERMILLE,
        "Speed of the fastest pump",
        RedfishProperty("Pump.PumpSpeedPercent"),
        DsxPoint("CDU/PumpSpeed"),
        codec=Codec.SLOW,
    ),
    _gauge(
        "pump_power",
        units.WATTS,
        U32,
        1,
        "Power draw of the pumps and their controls",
        RedfishProperty("CoolingUnit.EnvironmentMetrics.PowerWatts"),
    ),
    _gauge(
        "valve_position",
        units.RATIO,
        U16,
        PERMILLE,
        "Opening of the control valve",
        RedfishProperty("CoolantConnector.ValvePositionPercent"),
        DsxPoint("CDU/ValvePosition"),
        codec=Codec.SLOW,
    ),
    _gauge(
        "reservoir_level",
        units.RATIO,
        U16,
        PERMILLE,
        "Filling of the reservoir",
        RedfishProperty("Reservoir.FluidLevelPercent"),
        codec=Codec.SLOW,
        exported=True,
    ),
    _temperature("dew_point", "Dew point of the room air", DsxPoint("Hall/DewPoint"), exported=True),
    _state(
        "leak",
        "Worst state of the leak detectors",
        LEAK_STATES,
        RedfishProperty("LeakDetector.DetectorState"),
        DsxPoint("CDU/LeakDetect"),
    ),
    _state(
        "equipment",
        "State of the equipment",
        EQUIPMENT_STATES,
        RedfishProperty("CoolingUnit.Status"),
        DsxPoint("CDU/Status"),
    ),
    QUALITY,
)

POWER = (
    _gauge(
        "active_power",
        units.WATTS,
        I32,
        1,
        "Active power, positive towards the load",
        RedfishProperty("Circuit.PowerWatts"),
        DsxPoint("PowerMeter/ActivePower"),
        MeterPoint("active_power"),
        extremes=True,
        exported=True,
    ),
    _gauge(
        "reactive_power", units.VARS, I32, 1, "Reactive power, positive when inductive", MeterPoint("reactive_power")
    ),
    _register(
        "energy_import",
        units.JOULES,
        WATT_HOUR,
        "Energy that the meter has counted towards the load",
        RedfishProperty("Circuit.EnergykWh"),
        MeterPoint("energy_import"),
    ),
    _register(
        "energy_export",
        units.JOULES,
        WATT_HOUR,
        "Energy that the meter has counted away from the load",
        MeterPoint("energy_export"),
    ),
    _gauge(
        "voltage",
        units.VOLTS,
        U32,
        Fraction(1, 10),
        "Line-to-line voltage, mean of the phases",
        RedfishProperty("Circuit.Voltage"),
        DsxPoint("PowerMeter/Voltage"),
        MeterPoint("voltage"),
        extremes=True,
    ),
    _gauge(
        "current",
        units.AMPERES,
        U32,
        Fraction(1, 10),
        "Current, mean of the phases",
        RedfishProperty("Circuit.CurrentAmps"),
        DsxPoint("PowerMeter/Current"),
        MeterPoint("current"),
        extremes=True,
    ),
    _gauge(
        "frequency",
        units.HERTZ,
        U16,
        PERMILLE,
        "Frequency of the grid",
        DsxPoint("PowerMeter/Frequency"),
        MeterPoint("frequency"),
        extremes=True,
    ),
    _gauge(
        "power_factor",
        units.RATIO,
        I16,
        PERMILLE,
        "Active power over apparent power",
        DsxPoint("PowerMeter/PowerFactor"),
        MeterPoint("power_factor"),
        codec=Codec.SLOW,
    ),
    _state("breaker", "State of the breaker", BREAKER_STATES, RedfishProperty("Circuit.BreakerState")),
    QUALITY,
)
