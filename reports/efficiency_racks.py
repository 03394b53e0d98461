"""How well each rack uses its coolant: over-flow and approach temperature; pure functions.

  over-flow = V / V_needed - 1,  V_needed = Q / (rho cp dT_design)
with V and Q the mean flow (m³/s) and heat (W) over the minutes in which coolant flowed, rho at the supply
temperature and cp at the mean one (kg/m³, J/(kg K)). Means are enough: both are linear in what is averaged.
  approach = mean GPU temperature while working - mean supply temperature of the rack's coolant, K
"""

from collections.abc import Mapping

import polars as pl

from reports.fluids import Fluid, FluidsUnavailableError, FluidTable, tabulate
from storage.reader import Schema

RACKS: Schema = {
    "rack": pl.UInt64(),
    "name": pl.String(),
    "overflow_ratio": pl.Float64(),
    "approach_kelvin": pl.Float64(),
    "rise_kelvin": pl.Float64(),
    "flow_litres_per_minute": pl.Float64(),
    "supply_celsius": pl.Float64(),
    "heat_kilowatts": pl.Float64(),
    "heat_assumed": pl.Boolean(),
    "coverage": pl.Float64(),
}
LITRES_PER_MINUTE = 60_000.0  # in 1 m³/s


def fluid_tables(texts: list[str]) -> Mapping[str, FluidTable]:
    """The tables of those texts that name a fluid; none where CoolProp is not installed."""
    tables = {}
    for text in sorted(set(texts)):
        try:
            tables[text] = tabulate(Fluid.parse(text))
        except (ValueError, FluidsUnavailableError):
            continue
    return tables


def rack_cooling(
    coolant: pl.DataFrame,
    temperatures: pl.DataFrame,
    racks: pl.DataFrame,
    tables: Mapping[str, FluidTable],
    *,
    design_rise_kelvin: float,
    liquid_share: float,
    seconds: float,
) -> pl.DataFrame:
    """RACKS of COOLANT, the racks with most over-flow first.

    `temperatures`: rack, celsius_sum, celsius_count of working GPUs; `racks`: resource, name, fluid.
    Heat that no sensor tells is `liquid_share` of the rack's power, marked as assumed. over-flow is
    absent where neither is known, where no heat flows, or where the rack's fluid has no table.
    """
    told = pl.col("heat_watts")
    heat = pl.coalesce(told, pl.col("power_watts") * liquid_share)
    die = pl.col("celsius_sum") / pl.col("celsius_count")
    supply, back = pl.col("supply_celsius"), pl.col("return_celsius")
    joined = coolant.join(racks, on="resource", how="left").join(
        temperatures, left_on="resource", right_on="rack", how="left"
    )
    needed = pl.col("heat") / (_capacity(tables, supply, back) * design_rise_kelvin)
    return (
        joined.with_columns(heat=pl.when(heat > 0).then(heat))
        .select(
            rack="resource",
            name=pl.col("name").fill_null(""),
            overflow_ratio=pl.col("flow") / needed - 1,
            approach_kelvin=pl.when(pl.col("celsius_count") > 0).then(die - supply),
            rise_kelvin=back - supply,
            flow_litres_per_minute=pl.col("flow") * LITRES_PER_MINUTE,
            supply_celsius=supply,
            heat_kilowatts=pl.col("heat") / 1e3,
            heat_assumed=told.is_null(),
            coverage=(pl.col("observed_s") / seconds).clip(0, 1),
        )
        .select(pl.col(name).cast(kind) for name, kind in RACKS.items())
        .sort(["overflow_ratio", "rack"], descending=[True, False], nulls_last=True)
    )


def _capacity(tables: Mapping[str, FluidTable], supply: pl.Expr, back: pl.Expr) -> pl.Expr:
    """rho cp in J/(m³ K) of each rack's own fluid; absent where there is no table of it."""
    capacity = pl.lit(None, pl.Float64)
    for text, table in tables.items():
        own = table.density_at(supply) * table.heat_capacity_at((supply + back) / 2)
        capacity = pl.when(pl.col("fluid") == text).then(own).otherwise(capacity)
    return capacity
