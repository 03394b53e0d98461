"""What was agreed: the terms of a contract as the register has them, and the credit that follows from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl

from catalogue import ResourceKind
from reports.ledger import TIME
from storage.reader import Schema
from storage.registers import FOREVER


class UnitKind(StrEnum):
    """What has an availability: a GPU, a node (the tray that runs an operating system), a rack of one NVLink domain."""

    GPU = "gpu"
    NODE = "node"
    RACK = "rack"

    @property
    def resource_kind(self) -> ResourceKind:
        return ResourceKind.TRAY if self is UnitKind.NODE else ResourceKind(self.value)


class UnknownCounts(StrEnum):
    """What time without telemetry is by contract."""

    UP = "up"
    DOWN = "down"
    EXCLUDED = "excluded"


class Cause(StrEnum):
    """Why time may be left out."""

    MAINTENANCE = "maintenance"
    CUSTOMER = "customer"
    FORCE_MAJEURE = "force_majeure"
    UPSTREAM = "upstream"
    SUSPENSION = "suspension"


# Excluded time: of any resource, with where it is registered.
EXCLUDED: Schema = {
    "resource": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "cause": pl.String(),
    "reference": pl.String(),
}


@dataclass(frozen=True, slots=True)
class Tier:
    """Below this availability the credit is this share of the price; both of 1, exact."""

    below: Fraction
    credit: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One contract's terms over the days for which they hold; `start` and `end` in UTC. Shares are of 1, exact."""

    contract: str
    party: str
    unit: UnitKind
    start: datetime
    end: datetime
    target: Fraction
    minimum_outage: timedelta
    tiers: tuple[Tier, ...]
    credit_cap: Fraction
    exclusions: frozenset[Cause]
    notice: timedelta
    maintenance_cap: timedelta | None
    unknown: UnknownCounts
    minimum_trays: int | None
    unit_price: float | None
    currency: str
    registered: str

    def credit(self, up_ms: int, down_ms: int) -> Fraction:
        """The share of a unit's price that is credited; of a unit whose whole time was left out nothing is."""
        total_ms = up_ms + down_ms
        if total_ms == 0:
            return Fraction(0)
        available = Fraction(up_ms, total_ms)
        reached = [tier.credit for tier in self.tiers if available < tier.below]
        return min(max(reached, default=Fraction(0)), self.credit_cap)


def terms_of(contracts: pl.DataFrame, zone: str) -> tuple[Terms, ...]:
    """The SLA contracts of the register, in order of party, contract and day; ValueError names what cannot be used."""
    ours = contracts.filter(pl.col("contract_kind") == "sla").sort("party", "contract", "first_day")
    return tuple(_terms(row, ZoneInfo(zone)) for row in ours.iter_rows(named=True))


def _terms(row: dict[str, object], zone: ZoneInfo) -> Terms:
    where = f"contract {row['contract']!r} ({row['import_version']}, line {row['import_line']})"
    return Terms(
        contract=str(row["contract"]),
        party=str(row["party"]),
        unit=UnitKind(str(row["unit"])),
        start=_midnight(row["first_day"], zone),
        end=FOREVER if row["last_day"] is None else _midnight(row["last_day"], zone, days=1),
        target=_share(row["target_percent"]),
        minimum_outage=timedelta(seconds=_number(row["minimum_outage_s"])),
        tiers=_tiers(str(row["credit_tiers"]), where),
        credit_cap=_share(100 if row["credit_cap_percent"] is None else row["credit_cap_percent"]),
        exclusions=frozenset(Cause(word) for word in str(row["exclusions"] or "").split(";") if word),
        notice=timedelta(hours=_number(row["notice_hours"])),
        maintenance_cap=None
        if row["exclusion_cap_hours"] is None
        else timedelta(hours=_number(row["exclusion_cap_hours"])),
        unknown=UnknownCounts(str(row["unknown_counts_as"])),
        minimum_trays=None if row["rack_minimum_trays"] is None else int(_number(row["rack_minimum_trays"])),
        unit_price=None if row["price_per_unit_month"] is None else _number(row["price_per_unit_month"]),
        currency=str(row["currency"] or ""),
        registered=f"{row['import_version']} line {row['import_line']}",
    )


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) else 0.0


def _share(percent: object) -> Fraction:
    # By its decimal text: 99.9 is meant, not the binary number next to it.
    return Fraction(str(percent)) / 100


def _midnight(day: object, zone: ZoneInfo, days: int = 0) -> datetime:
    if not isinstance(day, date):
        raise TypeError(f"{day!r} is no day")
    return datetime.combine(day + timedelta(days=days), time(), zone)


def _tiers(text: str, where: str) -> tuple[Tier, ...]:
    tiers = tuple(_read_tiers(text, where))
    falling = all(one.below > two.below and one.credit <= two.credit for one, two in pairwise(tiers))
    if not falling:
        raise ValueError(f"{where}: credit_tiers is {text!r}; give tiers from best to worst, credits that do not fall")
    return tiers


def _read_tiers(text: str, where: str) -> Iterator[Tier]:
    for part in text.split(";"):
        below, _, credit = part.partition(":")
        try:
            yield Tier(_share(below), _share(credit))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{where}: credit_tiers has {part!r}; give such as 99.5:10, both in percent") from error


def excluded_by(terms: Terms, maintenance: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """EXCLUDED: what these terms leave out of the registers maintenance and exclusions, both with `resource` as an id.

    Maintenance counts if its row says so and it was announced in time; what the customer asked for is the customer's.
    """
    asked_for = pl.col("maintenance_kind") == "customer_request"
    in_time = pl.col("announced_at") <= pl.col("start") - pl.lit(terms.notice)
    told = pl.lit(terms.notice == timedelta(0)) | in_time.fill_null(value=False)
    planned = maintenance.filter("counts_as_exclusion", asked_for | told).select(
        "resource",
        "start",
        "end",
        cause=pl.when(asked_for).then(pl.lit(Cause.CUSTOMER.value)).otherwise(pl.lit(Cause.MAINTENANCE.value)),
        reference=pl.lit("maintenance ") + _registered(),
    )
    happened = others.select("resource", "start", "end", "cause", reference="reference")
    found = pl.concat([_typed(planned), _typed(happened)])
    return found.filter(pl.col("cause").is_in([cause.value for cause in terms.exclusions])).unique()


def _registered() -> pl.Expr:
    return pl.col("import_version") + pl.lit(" line ") + pl.col("import_line").cast(pl.String)


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in EXCLUDED.items())
