"""Do reports hold? Many simulated sites with faulty meters, each report's figures against what really happened.

Of every site the simulation knows the truth. Its meters get errors drawn from their class, and what befalls meters:
resets, roll-overs, gaps (also across the period's bound), late and repeated rows, a change of the clocks, driver
reloads, leaks and other faults, and a rack that is fed from another meter from some time on. A figure is right if the
truth lies within its k = 2 interval.

Errors: normal, with the standard deviation that a class stands for, g / sqrt(3) (JCGM 100:2008, 4.3.7), so that k = 2
should hold in 95 % of the cases; `Errors.RECTANGULAR` draws evenly from within the limit instead, of which a single
meter's interval of 2 g / sqrt(3) holds all. Meters of one role have one error, as the reports assume.

Straight into the reports' frames, without Kafka and the store; tests/integration/test_report_heat.py goes through it.
Run: `python -m benchmarks.report_truth [sites]`.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reports import figures, heat_queries, ledger
from reports.accuracy import Accuracy, HeatConditions, expanded
from reports.capacity_queries import FEEDS, PLACES, RATINGS
from reports.conservation import Verdict
from reports.definitions import definitions
from reports.figures import JOULES_PER_MWH, Kpi, Quality, Role
from reports.heat_account import HeatAccount, heat_account, key_figures
from reports.heat_balances import Level
from reports.heat_queries import LOOP_FACTS, MEMBERS, METER_FACTS
from reports.heat_report import (
    HeatData,
    HeatReportSettings,
    all_balances,
    loop_heat,
    meter_steps,
    rack_quarters,
)
from reports.ledger import Flag
from reports.period import Period, Span
from reports.readings import SERIALS, TIME
from simulation import Facility, Simulation, Site, cooling_columns

Floats = NDArray[np.float64]

METER_TICK_S, GPU_TICK_S = 60, 300
BEFORE_S, AFTER_S = 6 * 3600, 6 * 3600
WATT_HOUR = 3600.0
FAULT_RATE = 40.0  # of a fleet's usual: so that a small site of few days has some
# Every eighth site falls apart, since leaks are rare: 0.1 per 100 racks and month.
BAD_FAULT_RATE, BAD_EVERY = 1500.0, 8
DISTRIBUTION_LOSS = 0.012  # what the simulation loses between IT meter and racks
# Around both changes of the clocks in Europe/Oslo, and where there is none.
DAYS = ("2026-10-25", "2026-03-29", "2026-06-10")
DAYS_LONG = 2

SITE, COOLING, OTHER, IT_ONE, IT_TWO, HANDED, REJECTED, LOOP = range(1, 9)
FIRST_RACK = 100
HALL = 50
ROLES = {
    SITE: Role.SITE,
    COOLING: Role.COOLING,
    OTHER: Role.OTHER,
    IT_ONE: Role.IT,
    IT_TWO: Role.IT,
    HANDED: Role.HEAT_HANDED_OVER,
    REJECTED: Role.HEAT_REJECTED,
}
CLASSES = {Role.SITE: "0.5S", Role.COOLING: "1", Role.OTHER: "1", Role.IT: "0.5S"}
HEAT_CLASS = "EN 1434 class 2"


class Errors(StrEnum):
    """How a meter's error is drawn from its limit of error."""

    NORMAL = "normal"
    RECTANGULAR = "rectangular"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure of one site against the truth, in the figure's unit."""

    site: int
    figure: str
    truth: float
    value: float
    plus_minus: float
    quality: Quality
    coverage: float

    @property
    def holds(self) -> bool:
        return abs(self.value - self.truth) <= self.plus_minus * (1 + 1e-9)

    @property
    def width(self) -> float:
        """The interval's half width, relative to the truth."""
        return self.plus_minus / abs(self.truth) if self.truth else math.inf


@dataclass(frozen=True, slots=True)
class Energy:
    """A meter's energy in the report against the difference of its register without injuries."""

    site: int
    role: Role
    relative: float
    share_estimated: float

    @property
    def is_estimated(self) -> bool:
        return self.share_estimated > 0

    @property
    def holds(self) -> bool:
        """Within a thousandth, or within what the part that was estimated may be off."""
        return abs(self.relative) <= max(1e-3, expanded(Accuracy().estimate_limit) * self.share_estimated)


@dataclass(slots=True)
class Injuries:
    """How often each thing befell a meter or site."""

    counts: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, times: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + times


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What came of one site."""

    outcomes: Sequence[Outcome]
    energies: Sequence[Energy]
    verdicts: Sequence[str]  # of its balances
    flags: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What happened at a site, exactly: cumulative joules of each meter and rack at each tick."""

    times: NDArray[np.int64]
    energy: dict[int, Floats]
    watts: dict[int, Floats]
    facility: Facility
    loop: dict[str, Floats]
    gpu_times: NDArray[np.int64]
    tray: Floats  # J since the tick before, shape (ticks, racks); what agents would add up
    gpu: Floats  # the same of GPUs
    gpus: int
    racks: int
    moved_at: int  # UTC seconds; the second rack is fed from IT_TWO from here on


def periods() -> Sequence[Period]:
    """One of two days around each of DAYS."""
    days = [Period.parse(day) for day in DAYS]
    ends = [Period.parse(f"{day.local(day.end) + timedelta(days=DAYS_LONG - 1):%Y-%m-%d}").start for day in days]
    return [Period(day.text, Span.MONTH, day.zone, day.start, end) for day, end in zip(days, ends, strict=True)]


def simulate(seed: int, period: Period, rng: np.random.Generator, injuries: Injuries) -> Past:
    """Run a site of 112 to 128 GPUs, a full rack and another, through the period and some hours around it."""
    first, last = int(period.start.timestamp()) - BEFORE_S, int(period.end.timestamp()) + AFTER_S
    site = Site.build(int(rng.integers(28, 33)) * 4, seed)
    rate = FAULT_RATE if seed % BAD_EVERY else BAD_FAULT_RATE
    simulation = Simulation(site, first, fault_rate=rate)
    times = np.arange(first, last + 1, METER_TICK_S)
    states, trays, gpus = [], [], []
    for tick in times.tolist():
        simulation.step(float(tick))
        states.append(simulation.facility())
        if tick % GPU_TICK_S == 0:
            simulation.read_gpus()
            spent = _reloaded(simulation.gpu_joules_spent(), rng, injuries).sum(1)
            gpus.append(np.add.reduceat(spent, site.rack_tray))
            trays.append(np.add.reduceat(simulation.read_trays()["energy_joules"], site.rack_tray))
    injuries.note("outages", len(simulation.truth.outages))
    injuries.note("leaks", sum("leak" in outage.fault for outage in simulation.truth.outages))
    facility = Facility.stack(states)
    moved_at = int(period.start.timestamp()) + int(rng.integers(6, 42)) * 3600
    columns = cooling_columns(site, simulation.instruments, facility)
    return _past(site, facility, columns, times, (np.array(trays), np.array(gpus)), moved_at)


def _reloaded(spent: Floats, rng: np.random.Generator, injuries: Injuries) -> Floats:
    """Energy since the last tick; a driver that was reloaded has counted from 0 since somewhere in between."""
    reloaded = rng.random(spent.shape) < 2e-5
    injuries.note("driver reloads", int(reloaded.sum()))
    return np.where(reloaded, spent * rng.random(spent.shape), spent)


def _past(
    site: Site,
    facility: Facility,
    cooling: dict[str, Floats],
    times: NDArray[np.int64],
    fleet: tuple[Floats, Floats],
    moved_at: int,
) -> Past:
    meters, racks = facility.meter_j, facility.rack_j * (1 + DISTRIBUTION_LOSS)
    watts = facility.rack_w * (1 + DISTRIBUTION_LOSS)
    away = np.diff(racks[:, -1], prepend=racks[0, -1]) * (times > moved_at)
    second = np.cumsum(away) if site.racks > 1 else np.zeros(len(times))
    moved_w = watts[:, -1] * (times > moved_at) if site.racks > 1 else second
    energy = dict(zip((SITE, COOLING, OTHER), meters.T, strict=False)) | {
        IT_ONE: racks.sum(1) - second,
        IT_TWO: second,
        HANDED: facility.heat_j[:, 0],
        REJECTED: facility.heat_j[:, 1],
    }
    energy |= {FIRST_RACK + rack: facility.rack_j[:, rack] for rack in range(site.racks)}
    power = dict(zip((SITE, COOLING, OTHER), facility.meter_w.T, strict=False)) | {
        IT_ONE: watts.sum(1) - moved_w,
        IT_TWO: moved_w,
        HANDED: facility.heat_w[:, 0],
        REJECTED: facility.heat_w[:, 1],
    }
    place = site.cdus  # the first loop
    names = ("flow_cubic_metres_per_second", "supply_temperature_celsius", "return_temperature_celsius")
    loop = {name: cooling[f"secondary_{name}"][:, place] for name in names}
    return Past(
        times,
        energy,
        power,
        facility,
        loop,
        times[times % GPU_TICK_S == 0],
        *fleet,
        site.gpu_count,
        site.racks,
        moved_at,
    )


# Injuries ------------------------------------------------------------------------------------------------------------


class Harm:
    """Draws errors and injuries of one site's meters."""

    def __init__(
        self, past: Past, period: Period, rng: np.random.Generator, errors: Errors, injuries: Injuries
    ) -> None:
        self._past, self._period, self._rng = past, period, rng
        self._errors, self._injuries = errors, injuries
        self._error_of_role: dict[str, float] = {}

    def error(self, limit: float) -> float:
        """A relative error that a limit stands for."""
        if self._errors is Errors.RECTANGULAR:
            return float(self._rng.uniform(-limit, limit))
        return float(self._rng.normal(0.0, limit / math.sqrt(3)))

    def error_of(self, role: Role) -> float:
        if role not in self._error_of_role:
            accuracy = Accuracy(heat=self._conditions(role))
            self._error_of_role[role] = self.error(accuracy.limit(role, CLASSES.get(role, HEAT_CLASS)))
        return self._error_of_role[role]

    def _conditions(self, role: Role) -> HeatConditions:
        """The temperature difference that the heat meter really had, weighted by energy."""
        if role not in (Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED):
            return HeatConditions()
        column = 0 if role is Role.HEAT_HANDED_OVER else 1
        weights = np.clip(self._past.facility.heat_w[:, column], 1.0, None)
        difference = self._past.facility.heat_hot_c[:, column] - self._past.facility.heat_cold_c[:, column]
        return HeatConditions(difference_kelvin=float(np.average(difference, weights=weights)))

    def register(self, meter: int) -> tuple[Floats, Floats, float | None]:
        """What the register shows, what it would show uninjured, and its modulus."""
        counted = self._past.energy[meter] * (1 + (self.error_of(ROLES[meter]) if meter in ROLES else 0.0))
        ideal = counted - counted[0] + self._rng.uniform(1e11, 1e12)
        shown, modulus = np.floor(ideal / WATT_HOUR) * WATT_HOUR, None
        place = int(self._rng.integers(BEFORE_S // METER_TICK_S + 60, len(ideal) - AFTER_S // METER_TICK_S - 60))
        fate = self._rng.random()
        if counted[-1] == counted[0]:
            return shown, ideal, modulus
        if fate < 0.25:
            since = ideal[place] - self._rng.random() * (ideal[place] - ideal[place - 1])
            after = np.floor((ideal - since) / WATT_HOUR) * WATT_HOUR
            shown = np.where(np.arange(len(ideal)) >= place, after, shown)
            self._injuries.note("resets")
        elif fate < 0.5:
            modulus = float(np.floor(ideal[place] / WATT_HOUR) * WATT_HOUR)
            shown = shown % modulus
            self._injuries.note("roll-overs")
        return shown, ideal, modulus

    def watts(self, meter: int) -> Floats:
        """What the meter says flows: it has the register's error, since both come from the same sensors."""
        watts: Floats = self._past.watts[meter] * (1 + self.error_of(ROLES[meter]))
        return watts

    def kept(self, shown: Floats) -> NDArray[np.bool_]:
        """Which rows there are: gaps of up to 3 hours, some across the period's bound; never over a reset."""
        times, kept = self._past.times, np.ones(len(shown), dtype=np.bool_)
        if self._rng.random() < 0.3:
            self._injuries.note("gaps")
            kept &= self._outside(int(self._rng.integers(times[0], times[-1])))
        if self._rng.random() < 0.05:
            self._injuries.note("gaps across the period's bound")
            bound = self._period.start if self._rng.random() < 0.5 else self._period.end
            kept &= self._outside(int(bound.timestamp()) - int(self._rng.integers(300, 5000)))
        falls = np.flatnonzero(np.diff(shown) < 0)
        for fall in falls.tolist():  # what a reset within a gap loses, no reader can know
            kept[max(fall - 1, 0) : fall + 3] = True
        return kept

    def _outside(self, start: int) -> NDArray[np.bool_]:
        times = self._past.times
        outside: NDArray[np.bool_] = (times < start) | (times > start + int(self._rng.integers(600, 10_800)))
        return outside

    def shuffled(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows as they come late and twice."""
        seed = int(self._rng.integers(1 << 31))
        again = frame.sample(fraction=0.02, seed=seed)
        self._injuries.note("rows repeated", again.height)
        return pl.concat([frame, again]).sample(fraction=1.0, shuffle=True, seed=seed)


# Frames --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What the reports are given, and the ideal registers."""

    data: HeatData
    ideal: dict[int, Floats]


def read(past: Past, period: Period, harm: Harm) -> Readings:
    """What the store would answer for the period."""
    registers, ideal, facts = [], {}, []
    for meter, role in ROLES.items():
        shown, ideal[meter], modulus = harm.register(meter)
        kept = harm.kept(shown)
        registers.append(_register_rows(meter, past.times[kept], shown[kept], harm.watts(meter)[kept]))
        facts.append(_facts(meter, role, modulus))
    racks = [FIRST_RACK + rack for rack in range(past.racks)]
    quarter = past.times % 900 == 0
    rack_error = harm.error(HeatReportSettings().rack_limit)
    of_racks = [
        _register_rows(rack, past.times[quarter], _counted(past.energy[rack][quarter] * (1 + rack_error)), None)
        for rack in racks
    ]
    loops = _loops()
    loop_readings = _loop_rows(past, harm)
    loop_days = ((day, loop_readings) for day in heat_queries.days_of(period))
    loop_quarters, reason = loop_heat(loop_days, loops)
    data = HeatData(
        site_name="simulated",
        meters=pl.DataFrame(facts, schema=dict(METER_FACTS), orient="row"),
        registers=harm.shuffled(pl.concat(registers)),
        serials=pl.DataFrame(schema=dict(SERIALS)),
        warmth=_warmth(past, harm),
        loops=loops,
        loop_quarters=loop_quarters,
        loops_reason=reason,
        places=_places(racks),
        feeds=_feeds(past, racks),
        ratings=pl.DataFrame(schema=dict(RATINGS)),
        rack_registers=harm.shuffled(pl.concat(of_racks)),
        trays=_fleet_rows(past, past.tray, harm.error(HeatReportSettings().fleet_limit)),
        tray_members=_members(past),
        gpus=_fleet_rows(past, past.gpu, harm.error(HeatReportSettings().fleet_limit)),
        gpu_members=_members(past),
    )
    return Readings(data, ideal)


def _counted(joules: Floats) -> Floats:
    counted: Floats = np.floor(joules / WATT_HOUR) * WATT_HOUR
    return counted


def _time(seconds: NDArray[np.int64]) -> pl.Series:
    return pl.Series("time", seconds * 1000).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


def _register_rows(resource: int, times: NDArray[np.int64], shown: Floats, watts: Floats | None) -> pl.DataFrame:
    return pl.DataFrame({"time": _time(times), "register_joules": shown}).select(
        pl.lit(resource, pl.UInt64).alias("resource"),
        "time",
        "register_joules",
        pl.lit(1, pl.UInt8).alias("quality_state"),
        pl.lit(None, pl.Float64).alias("power_watts") if watts is None else pl.Series("power_watts", watts),
    )


def _facts(meter: int, role: Role, modulus: float | None) -> tuple[object, ...]:
    name = f"{role} {meter}"
    texts = (role.value, CLASSES.get(role, HEAT_CLASS), "UPS output", "off-taker", "S1", "2026-01-01", "", "C1")
    kind = "meter" if role in CLASSES else "heat_meter"
    return (meter, kind, name, name, *texts, modulus, 400e3, float(METER_TICK_S), WATT_HOUR)


def _loops() -> pl.DataFrame:
    return pl.DataFrame(
        [(LOOP, "loop", "loop", "MPG 25 % by mass", "supply", "TCS")], schema=dict(LOOP_FACTS), orient="row"
    )


def _loop_rows(past: Past, harm: Harm) -> pl.DataFrame:
    """A loop's sensors: 1 % of flow, 0.5 % of fluid and 0.1 K for each probe are standard deviations."""
    limit = math.sqrt(3)
    flow = past.loop["flow_cubic_metres_per_second"] * (1 + harm.error(0.01 * limit)) * (1 + harm.error(0.005 * limit))
    supply = past.loop["supply_temperature_celsius"] + harm.error(0.1 * limit)
    back = past.loop["return_temperature_celsius"] + harm.error(0.1 * limit)
    frame = pl.DataFrame(
        {
            "time": _time(past.times),
            "flow_cubic_metres_per_second": np.round(flow * 6e6) / 6e6,  # 0.01 L/min
            "supply_celsius": np.round(supply, 2),
            "return_celsius": np.round(back, 2),
        }
    ).select(pl.lit(LOOP, pl.UInt64).alias("resource"), pl.all(), pl.lit(1, pl.UInt8).alias("quality_state"))
    return harm.shuffled(frame.filter(pl.Series(harm.kept(np.arange(len(flow), dtype=np.float64)))))


def _warmth(past: Past, harm: Harm) -> pl.DataFrame:
    """Mean temperatures of each quarter hour, both pipes with an error of their own."""
    limit, frames = math.sqrt(3), []
    for meter, column in ((HANDED, 0), (REJECTED, 1)):
        frame = pl.DataFrame(
            {
                "time": _time(past.times),
                "supply_celsius": past.facility.heat_hot_c[:, column] + harm.error(0.1 * limit),
                "return_celsius": past.facility.heat_cold_c[:, column] + harm.error(0.1 * limit),
            }
        )
        quarters = frame.group_by(pl.col("time").dt.truncate("15m")).agg(pl.all().mean())
        frames.append(quarters.select(pl.lit(meter, pl.UInt64).alias("resource"), pl.all()))
    return pl.concat(frames)


def _fleet_rows(past: Past, fleet: Floats, error: float) -> pl.DataFrame:
    """What all trays, or GPUs, of each rack counted in each quarter hour, by the time that its readings cover."""
    each = past.gpus // past.racks
    parts = [
        pl.DataFrame({"time": _time(past.gpu_times - 60).dt.truncate("15m"), "joules": fleet[:, rack] * (1 + error)})
        .group_by("time")
        .agg(pl.col("joules").sum(), ticks=pl.len())
        .select(
            pl.lit(FIRST_RACK + rack, pl.UInt64).alias("rack"),
            "time",
            "joules",
            pl.lit(each, pl.UInt64).alias("members"),
            (pl.col("ticks") * each).cast(pl.UInt64).alias("readings"),
            pl.col("ticks").cast(pl.UInt64).alias("most"),
        )
        for rack in range(past.racks)
    ]
    return pl.concat(parts)


def _members(past: Past) -> pl.DataFrame:
    rows = [(FIRST_RACK + rack, past.gpus // past.racks) for rack in range(past.racks)]
    return pl.DataFrame(rows, schema=dict(MEMBERS), orient="row")


_EVER, _FOREVER = datetime(1970, 1, 1), datetime(2299, 12, 31)  # noqa: DTZ001 - Polars adds the zone


def _in_time(rows: Sequence[tuple[object, ...]], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    plain = {name: pl.Datetime("ms") if kind == TIME else kind for name, kind in schema.items()}
    frame = pl.DataFrame(list(rows), schema=plain, orient="row")
    return frame.with_columns(pl.col("start", "end").dt.replace_time_zone("UTC"))


def _places(racks: Sequence[int]) -> pl.DataFrame:
    rows = [(rack, "rack", f"rack {rack}", HALL, HALL, "hall", _EVER, _FOREVER) for rack in racks]
    return _in_time([*rows, (LOOP, "loop", "loop", HALL, HALL, "hall", _EVER, _FOREVER)], dict(PLACES))


def _feeds(past: Past, racks: Sequence[int]) -> pl.DataFrame:
    moved = datetime.fromtimestamp(past.moved_at, UTC).replace(tzinfo=None)
    if len(racks) == 1:
        return _in_time([(IT_ONE, racks[0], _EVER, _FOREVER)], dict(FEEDS))
    stayed = [(IT_ONE, rack, _EVER, _FOREVER) for rack in racks[:-1]]
    return _in_time([*stayed, (IT_ONE, racks[-1], _EVER, moved), (IT_TWO, racks[-1], moved, _FOREVER)], dict(FEEDS))


# Judgement -----------------------------------------------------------------------------------------------------------


def judge(seed: int, *, errors: Errors = Errors.NORMAL, injuries: Injuries | None = None) -> Judged:
    """One site: simulate, injure, report, compare."""
    injuries = injuries or Injuries()
    rng = np.random.default_rng([20_261_025, seed])
    known = periods()
    period = known[seed % len(known)]
    past = simulate(seed, period, rng, injuries)
    readings = read(past, period, Harm(past, period, rng, errors, injuries))
    data, settings = readings.data, HeatReportSettings()
    steps = meter_steps(data.meters, data.registers, data.serials, period)
    quarters = ledger.quarters(steps.lazy(), data.meters.lazy(), period).collect()
    heat = heat_account(data.meters, quarters, data.loop_quarters, data.warmth, period, settings.heat)
    flags = ledger.flags(steps.lazy(), period).collect()["flag"].unique().to_list()
    balances = all_balances(data, heat, rack_quarters(data, period), settings, period)
    truth = _truth(past, period)
    kpis = [*key_figures(heat), *_site_figures(heat)]
    outcomes = [*_compare(seed, kpis, truth), *_compare_balances(seed, balances, past, period)]
    return Judged(
        outcomes, list(_energies(seed, heat, readings.ideal, past, period)), balances["verdict"].to_list(),
        frozenset(flags),
    )  # fmt: skip


def _site_figures(heat: HeatAccount) -> Iterator[Kpi]:
    """The site report's figures of energy, from the same account."""
    none = pl.DataFrame(schema={"time": TIME, "joules": pl.Float64(), "gpu_hours": pl.UInt64()})
    account = replace(heat.account, gpus=none)
    wanted = ("site_energy", "it_energy", "ipue", "peak_power")
    for kpi in figures.key_figures(account, definitions(category="", part_name="day")):
        if kpi.definition.key in wanted:
            yield kpi


def _at(past: Past, period: Period) -> tuple[int, int]:
    start, end = (int(bound.timestamp()) for bound in (period.start, period.end))
    return int(np.searchsorted(past.times, start)), int(np.searchsorted(past.times, end))


def _truth(past: Past, period: Period) -> dict[str, float]:
    """The figures in their units, from what really happened."""
    first, last = _at(past, period)
    spent = {meter: float(values[last] - values[first]) for meter, values in past.energy.items()}
    it = spent[IT_ONE] + spent[IT_TWO]
    ticks = 900 // METER_TICK_S
    site = past.energy[SITE][first : last + 1 : ticks]
    heat = np.diff(past.energy[HANDED][first : last + 1])
    hot, cold = (values[first : last + 1, 0] for values in (past.facility.heat_hot_c, past.facility.heat_cold_c))
    return {
        "heat_available": (spent[HANDED] + spent[REJECTED]) / JOULES_PER_MWH,
        "heat_handed_over": spent[HANDED] / JOULES_PER_MWH,
        "heat_rejected": spent[REJECTED] / JOULES_PER_MWH,
        "heat_residual": 0.0,
        "erf": spent[HANDED] / spent[SITE],
        "ere": (spent[SITE] - spent[HANDED]) / it,
        "supply_temperature": float(np.average((hot[1:] + hot[:-1]) / 2, weights=heat)),
        "return_temperature": float(np.average((cold[1:] + cold[:-1]) / 2, weights=heat)),
        "site_energy": spent[SITE] / JOULES_PER_MWH,
        "it_energy": it / JOULES_PER_MWH,
        "ipue": spent[SITE] / it,
        "peak_power": float(np.diff(site).max()) / 900 / 1e3,
    }


def _compare(seed: int, kpis: Sequence[Kpi], truth: dict[str, float]) -> Iterator[Outcome]:
    for kpi in kpis:
        key = kpi.definition.key
        if key not in truth or kpi.value is None or kpi.evidence is None:
            continue
        # What was not seen may have been higher: a peak is then a lower bound, and no interval is claimed.
        if key == "peak_power" and kpi.evidence.coverage < ledger.PEAK_COVERAGE:
            continue
        if kpi.plus_minus is not None:
            yield Outcome(seed, key, truth[key], kpi.value, kpi.plus_minus, kpi.quality, kpi.evidence.coverage)


def _compare_balances(seed: int, balances: pl.DataFrame, past: Past, period: Period) -> Iterator[Outcome]:
    """Residual of IT meters and racks: the busbars' loss, in MWh, where the whole period could be compared."""
    # Of one of both meters: they have the same error.
    own = balances.filter(pl.col("level") == Level.FEEDER.value, pl.col("balance") == IT_TWO)
    for row in own.iter_rows(named=True):
        if row["verdict"] == Verdict.NOT_COMPARABLE or row["coverage"] < 1.0:
            continue
        fed, moved = past.energy[IT_TWO], int(np.searchsorted(past.times, past.moved_at))
        entered = float(fed[_at(past, period)[1]] - fed[moved])
        truth = entered * DISTRIBUTION_LOSS / (1 + DISTRIBUTION_LOSS)
        value, margin = row["residual_joules"], row["uncertainty_joules"]
        yield Outcome(
            seed, "feeder_residual", truth / JOULES_PER_MWH, value / JOULES_PER_MWH, margin / JOULES_PER_MWH,
            figures.quality_of(row["coverage"]), row["coverage"],
        )  # fmt: skip


def _energies(seed: int, heat: HeatAccount, ideal: dict[int, Floats], past: Past, period: Period) -> Iterator[Energy]:
    first, last = _at(past, period)
    for row in heat.meters.iter_rows(named=True):
        register = ideal[row["resource"]]
        wanted = float(register[last] - register[first])
        if wanted > 0 and row["joules"] is not None:
            relative = row["joules"] / wanted - 1
            yield Energy(seed, Role(row["role"]), relative, row["share_estimated"] or 0.0)


# All sites -----------------------------------------------------------------------------------------------------------


def run(sites: int = 200, *, first_seed: int = 1, errors: Errors = Errors.NORMAL) -> dict[str, object]:
    """All sites as a document: shares that hold, widths, energies, injuries."""
    began, injuries = time.monotonic(), Injuries()
    judged = [judge(seed, errors=errors, injuries=injuries) for seed in range(first_seed, first_seed + sites)]
    outcomes = [outcome for one in judged for outcome in one.outcomes]
    energies = [energy for one in judged for energy in one.energies]
    names = list(dict.fromkeys(outcome.figure for outcome in outcomes))
    plain = [abs(energy.relative) for energy in energies if not energy.is_estimated]
    estimated = [abs(energy.relative) for energy in energies if energy.is_estimated]
    verdicts = [verdict for one in judged for verdict in one.verdicts]
    return {
        "sites": sites,
        "errors": errors.value,
        "seconds": round(time.monotonic() - began, 1),
        "figures_compared": len(outcomes),
        "share_that_holds": sum(outcome.holds for outcome in outcomes) / len(outcomes),
        "by_figure": {name: _summary([o for o in outcomes if o.figure == name]) for name in names},
        "measured_below_99_percent": sum(o.quality is Quality.MEASURED and o.coverage < 0.99 for o in outcomes),
        "energy_off_at_most": max(plain),
        "energy_off_at_most_where_estimated": max(estimated, default=0.0),
        "energies": len(energies),
        "energies_beyond_what_is_estimated": sum(not energy.holds for energy in energies),
        "energies_off_over_one_in_a_thousand": sum(off > 1e-3 for off in plain + estimated),
        "verdicts": {verdict.value: verdicts.count(verdict.value) for verdict in Verdict},
        "injuries": injuries.counts,
        "flags_seen": {flag.value: sum(flag in one.flags for one in judged) for flag in Flag},
    }


def _summary(outcomes: Sequence[Outcome]) -> dict[str, float | int]:
    finite = [outcome.width for outcome in outcomes if math.isfinite(outcome.width)]
    measured = [o.width for o in outcomes if math.isfinite(o.width) and o.quality is Quality.MEASURED]
    return {
        "compared": len(outcomes),
        "holds": sum(outcome.holds for outcome in outcomes) / len(outcomes),
        "widest": max(finite, default=math.nan),
        "widest_measured": max(measured, default=math.nan),
    }


def main() -> None:
    sites = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    documents = [run(sites, errors=errors) for errors in Errors]
    sys.stdout.write(json.dumps(documents, indent=1) + "\n")


if __name__ == "__main__":
    main()
