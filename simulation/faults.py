"""Faults: how often each class strikes, what it does, which XID it leaves, how long repair takes.

Rates per GPU are those of Llama 3's training on 16,384 H100 for 54 days: 419 unexpected
interruptions in 884,700 GPU-days. Rates per rack have no public source and are named placeholders.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from simulation.truth import GpuCondition

OBSERVED_GPU_DAYS = 884_700.0
DAY_S = 86_400.0
MONTH_S = 30.4375 * DAY_S

LEMON_SHARE = 0.015  # 1 to 2 % of trays
LEMON_FACTOR = 4.0  # fail 3 to 5 times as often


class Effect(IntEnum):
    """What an outage does while it lasts; rows of the count array."""

    DOWN = 0  # not usable, still readable
    MAINTENANCE = 1
    DEGRADED = 2
    DARK = 3  # cannot be read and draws nothing
    OFF = 4  # the tray has no power but standby
    POOR_CONTACT = 5  # software thermal slowdown
    TRIPPED = 6  # hardware thermal slowdown
    BRAKE = 7  # hardware power brake


class Scope(StrEnum):
    GPU = "gpu"
    TRAY = "tray"
    RACK = "rack"
    CDU = "cdu"


@dataclass(frozen=True, slots=True)
class Repair:
    """A lognormal repair time, given by its 5 % and 95 % points in seconds."""

    fast_s: float
    slow_s: float

    def draw(self, rng: np.random.Generator) -> float:
        median = np.sqrt(self.fast_s * self.slow_s)
        spread = np.log(self.slow_s / self.fast_s) / (2 * 1.645)
        return float(median * rng.lognormal(0.0, spread))


RESET = Repair(5 * 60, 15 * 60)
REBOOT = Repair(20 * 60, 40 * 60)
RECABLE = Repair(1 * 3600, 8 * 3600)  # placeholder
SWAP = Repair(4 * 3600, 48 * 3600)
CDU_RESTART = Repair(8 * 60, 60 * 60)  # placeholder

XID_TEXTS = {
    13: "Graphics engine exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing, channel reset",
    46: "GPU stopped processing, timeout",
    48: "Double-bit ECC error",
    64: "Row-remap failure",
    79: "GPU has fallen off the bus",
    94: "Contained memory error",
    95: "Uncontained memory error",
    109: "Context-switch timeout",
    119: "GSP RPC timeout",
    120: "GSP error",
    140: "Unrecovered ECC error",
    145: "NVLink RLW error",
    149: "NVLink NETIR error, link down",
    158: "GPU fatal timeout",
}
OFF_THE_BUS = 79

Weighted = tuple[tuple[float, int], ...]
Repairs = tuple[tuple[float, Repair], ...]


@dataclass(frozen=True, slots=True)
class FaultClass:
    """A class that strikes one GPU or its tray; `count` is the number in OBSERVED_GPU_DAYS.

    `xids` and `repairs` are alternatives with their shares. A class without repairs is over at once.
    """

    name: str
    count: int
    text: str
    scope: Scope = Scope.GPU
    effects: tuple[Effect, ...] = ()
    xids: Weighted = ()
    repairs: Repairs = ()

    @property
    def rate_per_gpu_day(self) -> float:
        return self.count / OBSERVED_GPU_DAYS


@dataclass(frozen=True, slots=True)
class RackFault:
    """A class that strikes a whole rack, or the CDU of a rack; a placeholder rate per 100 racks and month."""

    name: str
    per_100_rack_months: float
    text: str
    scope: Scope
    effects: tuple[Effect, ...]
    repair: Repair

    @property
    def rate_per_rack_s(self) -> float:
        return self.per_100_rack_months / 100 / MONTH_S


_TRAY_SWAP: Repairs = ((1.0, SWAP),)
_TRAY_LOST = (Effect.DOWN, Effect.OFF)


def _host(name: str, count: int, text: str) -> FaultClass:
    return FaultClass(name, count, text, Scope.TRAY, _TRAY_LOST, (), _TRAY_SWAP)


# The shares of XIDs and repairs within a class are this project's guesses.
FAULT_CLASSES = (
    FaultClass(
        "faulty_gpu",
        148,
        "GPU or its NVLink failed",
        effects=(Effect.DOWN,),
        xids=((0.4, 79), (0.2, 149), (0.1, 145), (0.1, 46), (0.1, 158), (0.1, 109)),
        repairs=((0.5, RESET), (0.25, REBOOT), (0.25, SWAP)),
    ),
    FaultClass(
        "gpu_memory",
        72,
        "High-bandwidth memory failed",
        effects=(Effect.DOWN,),
        xids=((0.35, 94), (0.25, 95), (0.3, 48), (0.1, 64)),
        repairs=((0.8, RESET), (0.2, SWAP)),
    ),
    FaultClass("software", 54, "The job's software failed", xids=((0.5, 31), (0.3, 13), (0.2, 43))),
    FaultClass("network", 35, "Network switch or cable failed", effects=(Effect.DEGRADED,), repairs=((1.0, RECABLE),)),
    FaultClass(
        "host_maintenance",
        32,
        "Unplanned host maintenance",
        Scope.TRAY,
        (Effect.MAINTENANCE, Effect.OFF),
        (),
        ((1.0, REBOOT),),
    ),
    FaultClass(
        "gpu_sram",
        19,
        "GPU cache memory failed",
        effects=(Effect.DOWN,),
        xids=((0.5, 140), (0.5, 48)),
        repairs=((0.9, RESET), (0.1, SWAP)),
    ),
    FaultClass(
        "gpu_system_processor",
        17,
        "GPU system processor stopped",
        effects=(Effect.DOWN,),
        xids=((0.7, 119), (0.3, 120)),
        repairs=((0.7, RESET), (0.3, REBOOT)),
    ),
    FaultClass("nic", 7, "Network adapter failed", effects=(Effect.DEGRADED,), repairs=((1.0, SWAP),)),
    FaultClass("nccl_watchdog", 7, "Collective communication timed out"),
    FaultClass(
        "silent_data_corruption", 6, "Wrong results without an error", effects=(Effect.DEGRADED,), repairs=_TRAY_SWAP
    ),
    FaultClass(
        "thermal_interface",
        6,
        "Thermal interface or its sensor failed",
        effects=(Effect.DEGRADED, Effect.POOR_CONTACT),
        repairs=_TRAY_SWAP,
    ),
    _host("ssd", 3, "Drive failed"),
    _host("power_supply", 3, "Power supply of the tray failed"),
    _host("chassis", 2, "Chassis failed"),
    _host("io_board", 2, "I/O board failed"),
    _host("processor", 2, "Processor failed"),
    _host("memory", 2, "System memory failed"),
    FaultClass("dependency", 2, "A service that the job needs failed"),
)

RACK_FAULTS = (
    RackFault(
        "cdu",
        0.3,
        "Cooling distribution unit tripped",
        Scope.CDU,
        (Effect.DEGRADED, Effect.TRIPPED),
        CDU_RESTART,
    ),
    RackFault("power_shelf", 1.0, "Power shelf failed", Scope.RACK, (Effect.DEGRADED, Effect.BRAKE), SWAP),
    RackFault("leak", 0.1, "Coolant leak, rack isolated", Scope.RACK, _TRAY_LOST, SWAP),
)


@dataclass(frozen=True, slots=True)
class SiteEvent:
    """Something that happened to a resource at an instant."""

    resource: int
    time_s: float
    kind: str
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault as drawn: its class by name, XID (0 for none), effects and length."""

    name: str
    kind: str
    text: str
    scope: Scope
    xid: int
    effects: tuple[Effect, ...]
    repair_s: float

    @property
    def condition(self) -> GpuCondition:
        if Effect.DOWN in self.effects:
            return GpuCondition.DOWN
        if Effect.MAINTENANCE in self.effects:
            return GpuCondition.MAINTENANCE
        return GpuCondition.DEGRADED


class Hazard:
    """Draws when and where faults strike: Poisson in time, lemons more often, the fleet's mean as published."""

    def __init__(self, trays: int, racks: int, rate: float, rng: np.random.Generator) -> None:
        self._rng = rng
        self._racks = racks
        weights = np.where(rng.random(trays) < LEMON_SHARE, LEMON_FACTOR, 1.0)
        self._shares = np.cumsum(weights) / weights.sum()
        gpu_rates = [c.rate_per_gpu_day * trays * 4 / DAY_S for c in FAULT_CLASSES]
        rack_rates = [c.rate_per_rack_s * racks for c in RACK_FAULTS]
        self._rates = rate * np.array(gpu_rates + rack_rates)

    @property
    def rng(self) -> np.random.Generator:
        return self._rng

    def wait_s(self) -> float:
        """Time to the next fault of any class."""
        total = float(self._rates.sum())
        return float(self._rng.exponential(1 / total)) if total > 0 else np.inf

    def draw(self) -> tuple[Strike, int, int]:
        """What strikes, and which tray and GPU (or rack, and 0)."""
        kind = int(np.searchsorted(np.cumsum(self._rates), self._rng.random() * self._rates.sum(), side="right"))
        if kind >= len(FAULT_CLASSES):
            return self._rack_strike(RACK_FAULTS[kind - len(FAULT_CLASSES)]), int(self._rng.integers(self._racks)), 0
        tray = int(np.searchsorted(self._shares, self._rng.random(), side="right"))
        return self._strike(FAULT_CLASSES[kind]), tray, int(self._rng.integers(4))

    def _strike(self, fault: FaultClass) -> Strike:
        xid = fault.xids[self._pick([share for share, _ in fault.xids])][1] if fault.xids else 0
        repair = fault.repairs[self._pick([share for share, _ in fault.repairs])][1] if fault.repairs else None
        dark = (Effect.DARK,) if xid == OFF_THE_BUS or Effect.OFF in fault.effects else ()
        return Strike(
            name=fault.name,
            kind="xid" if xid else fault.name,
            text=XID_TEXTS[xid] if xid else fault.text,
            scope=fault.scope,
            xid=xid,
            effects=fault.effects + dark,
            repair_s=repair.draw(self._rng) if repair else 0.0,
        )

    def _rack_strike(self, fault: RackFault) -> Strike:
        dark = (Effect.DARK,) if Effect.OFF in fault.effects else ()
        repair_s = fault.repair.draw(self._rng)
        return Strike(fault.name, fault.name, fault.text, fault.scope, 0, fault.effects + dark, repair_s)

    def _pick(self, shares: list[float]) -> int:
        return int(self._rng.choice(len(shares), p=shares))
