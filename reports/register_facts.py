"""What the registers of the store say about one period: calibrations, contracts, prices, commissioning and the like.

Read as they were known at a report's cut-off, so that a report can be made again as it was. Registers name things by
their identity; here they become the resources that the rest of a report speaks of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from reports.capacity import Commissioning, Phase
from reports.heat_account import HeatContract
from reports.period import Period
from reports.register_names import (
    METER_KINDS,
    known_rows,
    placed,
    resolved_rows,
    resource_ids,
    shortened,
    unknown_parties,
)
from storage.reader import TIME, Reader, Schema
from storage.register_kinds import RegisterKind
from storage.registers import read_register

WATTS_PER_MEGAWATT = 1e6

CALIBRATIONS: Schema = {
    "resource": pl.UInt64(),
    "accuracy_class": pl.String(),
    "calibrated_at": pl.String(),
    "calibration_due": pl.String(),
    "calibration_certificate": pl.String(),
}
MAINTENANCE: Schema = {"resource": pl.UInt64(), "start": TIME, "end": TIME}
_OF_PLACES = (RegisterKind.COMMISSIONING, RegisterKind.MAINTENANCE)


def _no_calibrations() -> pl.DataFrame:
    return pl.DataFrame(schema=dict(CALIBRATIONS))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RegisterFacts:
    """`calibrations`: CALIBRATIONS, of each meter the latest one of the period; `maintenance`: MAINTENANCE.

    `prices` and `tokens` are the registers power_prices and job_tokens; they and `maintenance` are absent where nothing
    was imported, which is something else than nothing having happened. `phases` is empty without a contract with the
    grid company. `problems`: sentences about rows that name what is not there.
    """

    calibrations: pl.DataFrame = field(default_factory=_no_calibrations)
    phases: tuple[Phase, ...] = ()
    heat_contracts: tuple[HeatContract, ...] = ()
    commissioning: tuple[Commissioning, ...] = ()
    maintenance: pl.DataFrame | None = None
    prices: pl.DataFrame | None = None
    tokens: pl.DataFrame | None = None
    problems: tuple[str, ...] = ()


def read_register_facts(reader: Reader, period: Period, now: datetime) -> RegisterFacts:
    """What was imported until `now`, the cut-off, about the period. StoreUnavailableError, StoreRefusedError."""
    within = (period.start, period.end)

    def of_period(kind: RegisterKind) -> pl.DataFrame:
        return read_register(reader, kind, now, within=within)

    contracts = of_period(RegisterKind.CONTRACTS)
    resolved, not_placed = resolved_rows(reader, {kind: of_period(kind) for kind in _OF_PLACES})
    calibrations, not_calibrated = known_rows(
        reader, RegisterKind.METER_CALIBRATIONS, of_period(RegisterKind.METER_CALIBRATIONS)
    )
    of_nobody = unknown_parties(reader, placed(_in_force(contracts, "heat", period)))
    return RegisterFacts(
        calibrations=latest_calibrations(calibrations, resource_ids(reader, _meters(calibrations)), period),
        phases=tuple(grid_phases(contracts, period)),
        heat_contracts=tuple(heat_contracts(contracts, period)),
        commissioning=tuple(_commissioned(resolved[RegisterKind.COMMISSIONING], period)),
        maintenance=_maintained(resolved[RegisterKind.MAINTENANCE]),
        prices=_told(of_period(RegisterKind.POWER_PRICES)),
        tokens=_told(of_period(RegisterKind.JOB_TOKENS)),
        problems=shortened([*not_placed, *not_calibrated, *of_nobody]),
    )


def calibrated(meters: pl.DataFrame, calibrations: pl.DataFrame) -> pl.DataFrame:
    """Meters with what their calibration says: it goes before the inventory, which is written once and then ages.

    Of the columns of CALIBRATIONS only those are changed that `meters` has.
    """
    said = [name for name in CALIBRATIONS if name != "resource" and name in meters.columns]
    joined = meters.join(calibrations.select("resource", *said), on="resource", how="left", suffix="_said")
    return joined.with_columns(pl.coalesce(f"{name}_said", name).alias(name) for name in said).select(meters.columns)


def overdue(meters: pl.DataFrame, period: Period) -> list[str]:
    """Names of meters whose next calibration was due before the period's end. `meters`: name, calibration_due."""
    last = _last_day(period)
    due = meters.filter(pl.col("calibration_due") != "").select(
        "name", due=pl.col("calibration_due").str.to_date("%Y-%m-%d", strict=False)
    )
    return due.filter(pl.col("due") < last)["name"].sort().to_list()


def latest_calibrations(
    register: pl.DataFrame, resources: Mapping[tuple[str, str], int], period: Period
) -> pl.DataFrame:
    """CALIBRATIONS: of each meter the latest one until the period's last day; later ones say nothing about it."""
    rows = [
        (resources[kind.value, row["meter"]], row["accuracy_class"], row["calibrated_on"].isoformat(),
         row["next_due"].isoformat() if row["next_due"] else "", row["certificate"])
        for row in register.filter(pl.col("calibrated_on") <= _last_day(period)).iter_rows(named=True)
        for kind in METER_KINDS
    ]  # fmt: skip
    found = pl.DataFrame(rows, schema=dict(CALIBRATIONS), orient="row")
    return found.sort("resource", "calibrated_at").unique("resource", keep="last", maintain_order=True)


def heat_contracts(contracts: pl.DataFrame, period: Period) -> Iterator[HeatContract]:
    """What was agreed with heat off-takers for a part of the period at least, in the order of the register."""
    for row in _in_force(contracts, "heat", period).iter_rows(named=True):
        agreed = row["agreed_megawatts"]
        yield HeatContract(row["party"], row["agreed_celsius"], None if agreed is None else agreed * WATTS_PER_MEGAWATT)


def grid_phases(contracts: pl.DataFrame, period: Period) -> Iterator[Phase]:
    """Power contracted with the grid company, by phase; a phase that begins after the period is planned."""
    grid = contracts.filter(
        pl.col("contract_kind") == "grid", pl.col("last_day").is_null() | (pl.col("last_day") >= _first_day(period))
    )
    for row in grid.sort("first_day", "phase").iter_rows(named=True):
        watts = row["contracted_megawatts"] * WATTS_PER_MEGAWATT
        yield Phase(row["phase"], watts, _midnight(row["first_day"], period))


def _in_force(contracts: pl.DataFrame, kind: str, period: Period) -> pl.DataFrame:
    return contracts.filter(
        pl.col("contract_kind") == kind,
        pl.col("first_day") <= _last_day(period),
        pl.col("last_day").is_null() | (pl.col("last_day") >= _first_day(period)),
    )


def _commissioned(register: pl.DataFrame, period: Period) -> Iterator[Commissioning]:
    for row in register.iter_rows(named=True):
        end = row["end"] or period.end
        if row["start"] < min(end, period.end):
            yield Commissioning(row["resource"], row["start"], end, row["boundary_version"])


def _maintained(register: pl.DataFrame) -> pl.DataFrame | None:
    return None if register.is_empty() else register.select(*MAINTENANCE).unique().sort("resource", "start")


def _meters(register: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """A calibration names a meter, and not of which kind it is: its identity belongs to one of these at most."""
    for (meter,) in register.select("meter").unique().iter_rows():
        yield from ((kind.value, meter) for kind in METER_KINDS)


def _told(register: pl.DataFrame) -> pl.DataFrame | None:
    return None if register.is_empty() else register


def _first_day(period: Period) -> date:
    return period.local(period.start).date()


def _last_day(period: Period) -> date:
    return (period.local(period.end) - timedelta(microseconds=1)).date()


def _midnight(day: date, period: Period) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(period.zone)).astimezone(UTC)
