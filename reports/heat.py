"""Heat from flow and temperatures of a loop: Q computed moment by moment, then integrated.

Flow and temperature difference move together, so mean flow times mean difference is not the mean of
their product. Everything is therefore brought onto one grid first, with the last known value of each.

Units: Q in W, energy in J, flow in m³/s, temperature in °C; `time` is UTC.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from enum import StrEnum

import polars as pl

from reports.accuracy import EN_1434_FLOW_SLOPES
from reports.fluids import FluidTable
from reports.period import QUARTER_S, Period
from reports.readings import QUALITY, TIME, Schema, expect, moment

LOOP_READINGS: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,
    "flow_cubic_metres_per_second": pl.Float64(),  # each of the three may be absent in a row
    "supply_celsius": pl.Float64(),
    "return_celsius": pl.Float64(),
    "quality_state": pl.UInt8(),
}
LOOPS: Schema = {
    "resource": pl.UInt64(),
    "fluid": pl.String(),  # a key of the tables that are given
    "flow_meter_at": pl.String(),  # a Pipe; absent to take the density at the mean temperature
    "hot_pipe": pl.String(),  # a Pipe: the supply where heat is delivered, the return (also if absent) where taken up
}

GRID_S = 10  # at which loops are read; their thermal lag is longer
OLDEST_S = 30  # a value that is older is not known any more

# Differences of sums of seconds carry this much rounding.
_ROUNDING_S = 1e-3
_SIGNALS = ("flow_cubic_metres_per_second", "supply_celsius", "return_celsius")
_TOTALS = (
    "joules",
    "exported_joules",
    "clipped_joules",
    "throughput_joules",
    "joules_per_kelvin",
    "joule_seconds_per_cubic_metre",
    "supply_weight",
    "return_weight",
)


class Pipe(StrEnum):
    """One of the two pipes of a loop."""

    SUPPLY = "supply"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Error:
    """A standard uncertainty (k = 1) of a reading: `relative` to it, plus `absolute` in its unit."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True, slots=True)
class HeatAccuracy:
    """Standard uncertainties (k = 1) of what heat is computed from; each is configuration, and these are defaults.

    `flow` in m³/s; `difference` and `calculator` in K of the temperature difference; `fluid` of
    density times heat capacity. The defaults: 1 % of flow, 0.1 K for each probe, 0.5 % of the fluid.
    """

    flow: Error = field(default_factory=lambda: Error(relative=0.01))
    difference: Error = field(default_factory=lambda: Error(absolute=0.1 * math.sqrt(2)))
    calculator: Error = field(default_factory=Error)
    fluid: Error = field(default_factory=lambda: Error(relative=0.005))

    @classmethod
    def en_1434(
        cls, flow_class: int, *, permanent_flow: float, least_difference_kelvin: float, fluid: float = 0.0
    ) -> "HeatAccuracy":
        """From a heat meter's limits of error, each taken as a rectangle: limit / sqrt(3).

        `permanent_flow` qp in m³/s. In percent of heat, with q the flow and dT the difference:
          flow sensor class 1: 1 + 0.01 qp/q; class 2: 2 + 0.02 qp/q; class 3: 3 + 0.05 qp/q
          pair of probes: 0.5 + 3 dTmin/dT;  calculator: 0.5 + dTmin/dT
        EN 1434-1, maximum permissible errors; the cap of 5 % on the flow sensor is left out, so that
        little flow counts as less certain than the standard would have it. Figures of the standard
        were not read at its source. ValueError for another class. JCGM 100:2008, clause 4.3.7.
        """
        if flow_class not in EN_1434_FLOW_SLOPES:
            raise ValueError(f"flow class is {flow_class}; EN 1434 has 1, 2 and 3")
        rectangle = 0.01 / math.sqrt(3)  # of one percent
        return cls(
            flow=Error(flow_class * rectangle, EN_1434_FLOW_SLOPES[flow_class] * rectangle * permanent_flow),
            difference=Error(0.5 * rectangle, 3 * rectangle * least_difference_kelvin),
            calculator=Error(0.5 * rectangle, rectangle * least_difference_kelvin),
            fluid=Error(fluid),
        )


def heat_flow(
    readings: pl.LazyFrame,
    loops: pl.LazyFrame,
    fluids: Mapping[str, FluidTable],
    period: Period,
    *,
    grid_s: int = GRID_S,
    oldest_s: int = OLDEST_S,
) -> pl.LazyFrame:
    """The heat that each loop carries at every point of the grid, both ends of the period included.

    Input LOOP_READINGS and LOOPS, in any order, repeats allowed; readings up to `oldest_s` before the
    period belong to it. Output, sorted by resource and time: resource, time, supply_celsius,
    return_celsius, watts, watts_per_kelvin, joules_per_cubic_metre.

      Q = rho(T_m) · V · cp((T_sup + T_ret) / 2) · (T_hot - T_cold)
      watts_per_kelvin = rho · |V| · cp;  joules_per_cubic_metre = rho · cp · |T_hot - T_cold|
    T_m is the temperature at the flow meter. Each value is the last that was known, at most
    `oldest_s` old; Q keeps its sign; it is absent while one of the three is, where the loop's fluid
    is not among the tables, and outside the fluid's table. Energy balance of a steady flow, EN 1434-1.

    ValueError unless the grid divides a quarter hour.
    """
    if QUARTER_S % grid_s:
        raise ValueError(f"a grid of {grid_s} s does not divide a quarter hour; give 5, 10, 15, 30 or 60")
    readings, loops = expect(readings, LOOP_READINGS), expect(loops, LOOPS)
    points = _grid(loops.group_by("resource").agg(pl.all().max()), period, grid_s)
    on_grid = points
    for signal in _SIGNALS:
        known = _known(readings, signal)
        on_grid = on_grid.join_asof(
            known, on="time", by="resource", tolerance=timedelta(seconds=oldest_s), check_sortedness=False
        )
    return _with_heat(on_grid, fluids).select(
        "resource",
        "time",
        "supply_celsius",
        "return_celsius",
        "watts",
        "watts_per_kelvin",
        "joules_per_cubic_metre",
    )


def heat_quarters(
    readings: pl.LazyFrame,
    loops: pl.LazyFrame,
    fluids: Mapping[str, FluidTable],
    period: Period,
    *,
    grid_s: int = GRID_S,
    oldest_s: int = OLDEST_S,
) -> pl.LazyFrame:
    """Heat of each loop in each quarter hour of the period; call it by day, since the grid has 8,640 points a day.

    Input as `heat_flow`. Output, sorted by resource and time (start of the quarter hour): joules
    (signed, absent where nothing is known), exported_joules (Q below 0 counted as 0), clipped_joules
    (exported_joules - joules), whole, observed_s, supply_celsius and return_celsius (weighted by
    exported energy, absent without any), and what `uncertainty_joules` takes: throughput_joules,
    joules_per_kelvin, joule_seconds_per_cubic_metre.

    joules = sum of (Q_i + Q_i+1) / 2 · grid_s over the parts of the grid of which both ends are known;
    the rest is missing, and neither filled nor estimated. T = sum(T Q dt) / sum(Q dt).
    """
    flow = heat_flow(readings, loops, fluids, period, grid_s=grid_s, oldest_s=oldest_s)
    quarter = pl.col("time").dt.truncate("15m")
    sums = {name: pl.col(name).sum() for name in _TOTALS}
    some = pl.col("observed_s") > 0
    warm = pl.col("exported_joules") > 0
    return (
        _cells(flow, period, grid_s)
        .group_by("resource", time=quarter)
        .agg(**sums, observed_s=pl.col("joules").count() * float(grid_s))
        .select(
            "resource",
            "time",
            joules=pl.when(some).then("joules"),
            exported_joules=pl.when(some).then("exported_joules"),
            clipped_joules=pl.when(some).then("clipped_joules"),
            whole=pl.col("observed_s") > QUARTER_S - _ROUNDING_S,
            observed_s="observed_s",
            supply_celsius=pl.when(warm).then(pl.col("supply_weight") / pl.col("exported_joules")),
            return_celsius=pl.when(warm).then(pl.col("return_weight") / pl.col("exported_joules")),
            throughput_joules="throughput_joules",
            joules_per_kelvin="joules_per_kelvin",
            joule_seconds_per_cubic_metre="joule_seconds_per_cubic_metre",
        )
        .sort("resource", "time")
    )


def uncertainty_joules(accuracy: HeatAccuracy) -> pl.Expr:
    """Standard uncertainty (k = 1) of heat in J; of a quarter hour's columns, or of their sums over any time.

      u = sqrt(u_flow² + u_difference² + u_calculator² + u_fluid²), for errors that last:
      u_flow = relative · ∫|Q| dt + absolute · ∫ rho cp |dT| dt
      u_difference, u_calculator = relative · ∫|Q| dt + absolute · ∫ rho |V| cp dt;  u_fluid = relative · ∫|Q| dt
    It is u_Q/Q = sqrt((u_V/V)² + (u_dT/dT)² + (u_rho_cp/rho_cp)²) for a steady flow, and stays finite
    where dT is 0. One instrument errs the same way all the time, so its errors add up over time and do
    not shrink (JCGM 100:2008, clauses 5.1.2 and 5.2.2).
    """
    heat, per_kelvin = pl.col("throughput_joules"), pl.col("joules_per_kelvin")
    by_flow = pl.col("joule_seconds_per_cubic_metre")
    parts = (
        accuracy.flow.relative * heat + accuracy.flow.absolute * by_flow,
        accuracy.difference.relative * heat + accuracy.difference.absolute * per_kelvin,
        accuracy.calculator.relative * heat + accuracy.calculator.absolute * per_kelvin,
        accuracy.fluid.relative * heat,
    )
    return pl.sum_horizontal(part**2 for part in parts).sqrt()


def heat_by_loop(quarters: pl.LazyFrame, accuracy: HeatAccuracy) -> pl.LazyFrame:
    """Each loop over all the quarter hours.

    Output: resource, joules, exported_joules, clipped_joules, coverage (observed seconds / seconds),
    uncertainty_joules (expanded, k = 2), supply_celsius, return_celsius (weighted by exported energy).
    """
    exported = pl.col("exported_joules")
    means = {
        name: (pl.col(name) * exported).sum() / exported.filter(pl.col(name).is_not_null()).sum()
        for name in ("supply_celsius", "return_celsius")
    }
    kept = ("throughput_joules", "joules_per_kelvin", "joule_seconds_per_cubic_metre")
    known = pl.col("joules").count() > 0
    return (
        quarters.group_by("resource")
        .agg(
            *(pl.when(known).then(pl.col(name).sum()) for name in ("joules", "exported_joules", "clipped_joules")),
            *(pl.col(name).sum() for name in kept),
            coverage=pl.col("observed_s").sum() / (pl.len() * QUARTER_S),
            **means,
        )
        .select(
            "resource",
            "joules",
            "exported_joules",
            "clipped_joules",
            "coverage",
            uncertainty_joules=pl.when(pl.col("joules").is_not_null()).then(2 * uncertainty_joules(accuracy)),
            supply_celsius=pl.col("supply_celsius").fill_nan(None),
            return_celsius=pl.col("return_celsius").fill_nan(None),
        )
        .sort("resource")
    )


def _grid(loops: pl.LazyFrame, period: Period, grid_s: int) -> pl.LazyFrame:
    """Every loop at every point of the grid, in order of time."""
    first, last = (bound.astimezone(UTC).replace(tzinfo=None) for bound in (period.start, period.end))
    points = pl.datetime_range(first, last, timedelta(seconds=grid_s), time_unit="ms", eager=True)
    times = points.dt.replace_time_zone("UTC").alias("time").to_frame().lazy()
    return times.join(loops, how="cross").sort("time", "resource")


def _known(readings: pl.LazyFrame, signal: str) -> pl.LazyFrame:
    """One signal's readings that are there and not bad, one for each loop and time."""
    quality = pl.col("quality_state")
    return (
        readings.filter(pl.col(signal).is_finite(), quality.is_null() | (quality != QUALITY["bad"]))
        .group_by("resource", "time")
        .agg(pl.col(signal).max())
        .sort("time", "resource")
    )


def _with_heat(on_grid: pl.LazyFrame, fluids: Mapping[str, FluidTable]) -> pl.LazyFrame:
    supply, returned, flow = pl.col("supply_celsius"), pl.col("return_celsius"), pl.col("flow_cubic_metres_per_second")
    mean = (supply + returned) / 2
    at_meter = (
        pl.when(pl.col("flow_meter_at") == Pipe.SUPPLY.value)
        .then(supply)
        .when(pl.col("flow_meter_at") == Pipe.RETURN.value)
        .then(returned)
        .otherwise(mean)
    )
    rise = pl.when(pl.col("hot_pipe") == Pipe.SUPPLY.value).then(supply - returned).otherwise(returned - supply)
    volumetric = pl.coalesce(
        pl.lit(None, pl.Float64),
        *(
            pl.when(pl.col("fluid") == name).then(table.density_at(at_meter) * table.heat_capacity_at(mean))
            for name, table in fluids.items()
        ),
    )
    return on_grid.with_columns(volumetric=volumetric, rise=rise).with_columns(
        watts=pl.col("volumetric") * flow * pl.col("rise"),
        watts_per_kelvin=pl.col("volumetric") * flow.abs(),
        joules_per_cubic_metre=pl.when(flow.is_not_null()).then(pl.col("volumetric") * pl.col("rise").abs()),
    )


def _cells(flow: pl.LazyFrame, period: Period, grid_s: int) -> pl.LazyFrame:
    """What each part of the grid holds: the mean of its two ends times its length; absent unless both are known."""
    exported = pl.col("watts").clip(lower_bound=0.0)
    integrands = {
        "joules": pl.col("watts"),
        "exported_joules": exported,
        "clipped_joules": exported - pl.col("watts"),
        "throughput_joules": pl.col("watts").abs(),
        "joules_per_kelvin": pl.col("watts_per_kelvin"),
        "joule_seconds_per_cubic_metre": pl.col("joules_per_cubic_metre"),
        "supply_weight": exported * pl.col("supply_celsius"),
        "return_weight": exported * pl.col("return_celsius"),
    }
    halves = {name: (value + value.shift(-1).over("resource")) / 2 * grid_s for name, value in integrands.items()}
    ordered = flow.sort("resource", "time")
    return ordered.select("resource", "time", **halves).filter(pl.col("time") < moment(period.end))
