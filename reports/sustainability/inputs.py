"""What a sustainability report reads: meters over 13 months, and the registers of what no sensor gives.

The month itself is read whole where its raw readings are still kept; the months before it by quarter hour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

import polars as pl

from catalogue import COOLING, POWER
from reports import heat_queries, ledger, queries
from reports.figures import HEAT, Role
from reports.heat_account import HeatAccount, HeatSettings, heat_account
from reports.heat_report import meter_steps
from reports.period import Period, Span
from reports.readings import TIME, moment
from reports.register_facts import calibrated, read_register_facts
from reports.sustainability.calendar import months_before
from storage.reader import Reader
from storage.register_kinds import RegisterKind
from storage.registers import read_register, read_versions

USED_REGISTERS = (
    RegisterKind.GUARANTEES_OF_ORIGIN,
    RegisterKind.EMISSION_FACTORS,
    RegisterKind.WATER,
    RegisterKind.REFRIGERANTS,
    RegisterKind.FUELS,
    RegisterKind.WEATHER,
    RegisterKind.SITE_FACTS,
)
_NO_LOOPS = pl.DataFrame(
    schema={"resource": pl.UInt64(), "time": TIME, "whole": pl.Boolean()}
    | {
        name: pl.Float64()
        for name in (
            "joules", "observed_s", "throughput_joules", "joules_per_kelvin", "joule_seconds_per_cubic_metre",
        )
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SustainabilityData:
    """What was read. `registers` and `history` are READINGS: of the period, and by quarter hour of 13 months.

    `books`: each register as its declaration's schema; `versions`: see `storage.registers.read_versions`; `problems`:
    sentences about rows that name what is not there.
    """

    site_name: str | None
    meters: pl.DataFrame
    registers: pl.DataFrame
    history: pl.DataFrame
    serials: pl.DataFrame
    warmth: pl.DataFrame
    installed_it_watts: float | None
    books: Mapping[RegisterKind, pl.DataFrame]
    versions: pl.DataFrame
    problems: tuple[str, ...] = ()

    def is_imported(self, kind: RegisterKind) -> bool:
        """Whether anything was ever imported into a register: an empty book is something else than none."""
        return not self.versions.filter(pl.col("kind") == kind.value).is_empty()


@dataclass(frozen=True, slots=True, eq=False)
class Energies:
    """The ledger's account of one window of time, and its flags."""

    heat: HeatAccount
    flags: pl.DataFrame

    @property
    def period(self) -> Period:
        return self.heat.period


def read_sustainability(reader: Reader, period: Period, now: datetime) -> SustainabilityData:
    """Everything as it was known at `now`. StoreUnavailableError, StoreRefusedError."""
    facts = read_register_facts(reader, period, now)
    meters = calibrated(heat_queries.read_meters(reader, period), facts.calibrations)
    thermal = pl.col("role").is_in([*HEAT, Role.HEAT_OWN_USE])
    electrical, heat = meters.filter(~thermal)["resource"].to_list(), meters.filter(thermal)["resource"].to_list()
    exact = all(queries.holds_raw(table, period, now) for table in (POWER, COOLING))
    year = trailing(period, months=13)

    def readings(window: Period, *, whole: bool) -> pl.DataFrame:
        return pl.concat([
            queries.read_registers(reader, POWER, queries.ENERGY_REGISTER, electrical, window, exact=whole),
            queries.read_registers(reader, COOLING, queries.HEAT_REGISTER, heat, window, exact=whole),
        ])  # fmt: skip

    return SustainabilityData(
        site_name=heat_queries.read_site_name(reader, period),
        meters=meters if exact else meters.with_columns(interval_s=pl.lit(None, pl.Float64)),
        registers=readings(period, whole=exact),
        history=readings(year, whole=False),
        serials=queries.read_serials(reader, [*electrical, *heat], year),
        warmth=queries.read_heat_temperatures(reader, heat, year),
        installed_it_watts=queries.read_stock(reader, period).installed_watts,
        books=MappingProxyType({kind: read_register(reader, kind, now) for kind in USED_REGISTERS}),
        versions=known_versions(reader, now),
        problems=facts.problems,
    )


def known_versions(reader: Reader, now: datetime) -> pl.DataFrame:
    return read_versions(reader, USED_REGISTERS).filter(pl.col("imported_at") <= now)


def trailing(period: Period, *, months: int = 12) -> Period:
    """The months that end with the period, as one period that is divided by months."""
    start = months_before(period.end, months, period.zone)
    return replace(period, text=f"{months} months to {period.text}", span=Span.YEAR, start=min(start, period.start))


def energies(data: SustainabilityData, window: Period, *, of_period: bool) -> Energies:
    """The ledger over a window, from the period's own readings or from those by quarter hour; pure."""
    readings = data.registers if of_period else data.history
    meters = data.meters if of_period else data.meters.with_columns(interval_s=pl.lit(None, pl.Float64))
    steps = meter_steps(meters, readings, data.serials, window)
    quarters = ledger.quarters(steps.lazy(), meters.lazy(), window).collect()
    flags = ledger.flags(steps.lazy(), window).collect()
    bounds = pl.col("time").is_between(moment(window.start), moment(window.end), closed="left")
    warmth = data.warmth.filter(bounds)
    return Energies(heat_account(meters, quarters, _NO_LOOPS, warmth, window, HeatSettings()), flags)
