"""What a site of so many GPUs asks of Kafka, ingest and ClickHouse: measured unit costs times its size.

The costs are those of a simulated site of NVL72 racks (`python -m benchmarks.unit_costs --write`). What a real site's
readings compress to, what its disks and network do, and points of its building are not in them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from catalogue import TABLES, Table
from stream.topics import FRAME_TOPICS

UNIT_COSTS_FILE = Path(__file__).parent / "unit_costs.json"
# Of a core each in steady state: a backlog then drains in about the time in which it grew.
CORES_PER_INGEST = 0.5
BOOKS_DAYS = 400  # how long the table `frames` is kept (storage/migrations/0002_frames.sql)
_HOUR_S, _DAY_S = 3_600, 86_400
_MEGABYTE, _GIGABYTE = 1e6, 1e9
_TIERS = ("raw", "minute", "hour")
_HEADS = ("rows/s", "frames/s", "Kafka MB/s", "Kafka GB", "raw GB", "minute GB", "hour GB")


class TableCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one row of a table, in bytes of one copy; a tier that had too few rows to tell is None."""

    rows_per_frame: float
    kafka_bytes_per_row: float
    raw_bytes_per_row: float | None = None
    minute_bytes_per_row: float | None = None
    hour_bytes_per_row: float | None = None


class MeasuredSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured on: rows by table, in so many hours."""

    gpus: int
    hours: int
    rows: dict[str, int]


class UnitCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The measurement; processor time is of ingest with the store's engine in it."""

    note: str
    site: MeasuredSite
    ingest_processor_us_per_row: float
    books_bytes_per_frame: float
    tables: dict[str, TableCosts]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table of a site in steady state; bytes are of one copy, once the tier's retention is full."""

    name: str
    rows_per_second: float
    frames_per_second: float
    kafka_bytes_per_second: float
    kafka_bytes: float
    raw_bytes: float | None
    minute_bytes: float | None
    hour_bytes: float | None

    @property
    def store_bytes(self) -> float:
        """Of all tiers that were measured."""
        return sum(size for size in (self.raw_bytes, self.minute_bytes, self.hour_bytes) if size is not None)


@dataclass(frozen=True, slots=True)
class SitePlan:
    """A site in steady state."""

    gpus: int
    kafka_copies: int
    brokers: int
    store_copies: int
    tables: tuple[TablePlan, ...]
    ingest_cores: float  # of ingest and ClickHouse's inserts together
    books_bytes: float  # of one copy of the table `frames`

    @property
    def rows_per_second(self) -> float:
        return sum(table.rows_per_second for table in self.tables)

    @property
    def frames_per_second(self) -> float:
        return sum(table.frames_per_second for table in self.tables)

    @property
    def kafka_bytes_per_second(self) -> float:
        """As the agents send it, before Kafka copies it."""
        return sum(table.kafka_bytes_per_second for table in self.tables)

    @property
    def broker_in_bytes_per_second(self) -> float:
        """Into each broker: from agents and from other brokers."""
        return self.kafka_bytes_per_second * self.kafka_copies / self.brokers

    @property
    def broker_out_bytes_per_second(self) -> float:
        """Out of each broker: to the other copies, and once to ingest."""
        return self.kafka_bytes_per_second * self.kafka_copies / self.brokers

    @property
    def broker_disk_bytes(self) -> float:
        return sum(table.kafka_bytes for table in self.tables) * self.kafka_copies / self.brokers

    @property
    def store_bytes(self) -> float:
        """On all copies together."""
        return (sum(table.store_bytes for table in self.tables) + self.books_bytes) * self.store_copies

    @property
    def ingest_processes(self) -> int:
        """Also the fewest partitions of the largest topic that let them all work."""
        return max(1, math.ceil(self.ingest_cores / CORES_PER_INGEST))

    @property
    def not_measured(self) -> list[str]:
        """The tiers whose size is not in the sum."""
        return [
            f"{table.name} ({tier})"
            for table in self.tables
            for tier in _TIERS
            if getattr(table, f"{tier}_bytes") is None
        ]


def load_unit_costs(file: Path = UNIT_COSTS_FILE) -> UnitCosts:
    """What was measured last; OSError or msgspec.ValidationError when the file is not one of ours."""
    return msgspec.json.decode(file.read_bytes(), type=UnitCosts)


def plan_site(
    costs: UnitCosts, *, gpus: int, brokers: int = 3, kafka_copies: int = 3, store_copies: int = 2
) -> SitePlan:
    """The site's load and sizes. ValueError where there are more copies than brokers."""
    if kafka_copies > brokers:
        raise ValueError(f"{kafka_copies} copies need as many brokers, and there are {brokers}; change one of them")
    tables = tuple(_plan_table(table, costs, gpus) for table in TABLES if table.name in costs.tables)
    cores = sum(table.rows_per_second for table in tables) * costs.ingest_processor_us_per_row / 1e6
    books = sum(table.frames_per_second for table in tables) * costs.books_bytes_per_frame * BOOKS_DAYS * _DAY_S
    return SitePlan(gpus, kafka_copies, brokers, store_copies, tables, cores, books)


def _plan_table(table: Table, costs: UnitCosts, gpus: int) -> TablePlan:
    own, site = costs.tables[table.name], costs.site
    rows_per_second = site.rows[table.name] / (site.gpus * site.hours * _HOUR_S) * gpus
    resources = rows_per_second * table.cadence_s
    (topic,) = [topic for topic in FRAME_TOPICS if topic.table == table.name]
    kept = table.retention
    per_second = rows_per_second * own.kafka_bytes_per_row
    return TablePlan(
        name=table.name,
        rows_per_second=rows_per_second,
        frames_per_second=rows_per_second / own.rows_per_frame,
        kafka_bytes_per_second=per_second,
        kafka_bytes=per_second * int(topic.settings["retention.ms"]) / 1000,
        raw_bytes=_size(rows_per_second * kept.raw.total_seconds(), own.raw_bytes_per_row),
        minute_bytes=_size(resources * kept.minute.total_seconds() / 60, own.minute_bytes_per_row),
        hour_bytes=_size(resources * kept.hour.total_seconds() / _HOUR_S, own.hour_bytes_per_row),
    )


def _size(rows: float, bytes_per_row: float | None) -> float | None:
    return None if bytes_per_row is None else rows * bytes_per_row


def plan_lines(plan: SitePlan, costs: UnitCosts) -> Iterator[str]:
    """The plan as a person reads it; megabytes and gigabytes are decimal."""
    yield f"{plan.gpus:,} GPUs; sizes of one copy, when retention is full"
    yield ""
    yield f"{'table':<12}" + "".join(f"{head:>12}" for head in _HEADS)
    yield from map(_table_line, plan.tables)
    yield ""
    yield from _kafka_lines(plan)
    yield (
        f"ingest      {plan.ingest_cores:,.2f} cores with ClickHouse's inserts: at {CORES_PER_INGEST:g} core a process "
        f"{plan.ingest_processes}, and as many partitions of kvandal.gpu at least"
    )
    yield (
        f"ClickHouse  {plan.store_bytes / _GIGABYTE:,.0f} GB on {plan.store_copies} copies together, "
        f"{plan.books_bytes / _GIGABYTE:,.0f} GB of each, at least, the books of frames"
    )
    if plan.not_measured:
        yield f"not in it   {', '.join(plan.not_measured)}: too few rows were measured; points: none were"
    site = costs.site
    yield f"measured    on {site.gpus:,} simulated GPUs over {site.hours} h: python -m benchmarks.unit_costs"


def _table_line(table: TablePlan) -> str:
    rates = f"{table.rows_per_second:>12,.0f}{table.frames_per_second:>12,.0f}"
    sizes = (table.kafka_bytes, table.raw_bytes, table.minute_bytes, table.hour_bytes)
    return f"{table.name:<12}{rates}{_megabytes(table.kafka_bytes_per_second):>12}" + "".join(map(_gigabytes, sizes))


def _kafka_lines(plan: SitePlan) -> Iterator[str]:
    sent = _megabytes(plan.kafka_bytes_per_second)
    yield f"Kafka       {plan.frames_per_second:,.0f} messages/s, {sent} MB/s from agents"
    yield (
        f"            each of {plan.brokers} brokers, {plan.kafka_copies} copies: "
        f"{_megabytes(plan.broker_in_bytes_per_second)} MB/s in, "
        f"{_megabytes(plan.broker_out_bytes_per_second)} MB/s out, {plan.broker_disk_bytes / _GIGABYTE:,.0f} GB of disk"
    )


def _megabytes(size: float) -> str:
    return f"{size / _MEGABYTE:,.2f}"


def _gigabytes(size: float | None) -> str:
    return f"{'' if size is None else f'{size / _GIGABYTE:,.1f}':>12}"


def plan_document(plan: SitePlan) -> dict[str, object]:
    """The plan as JSON has it: base units, bytes and seconds."""
    return {
        "gpus": plan.gpus,
        "brokers": plan.brokers,
        "kafka_copies": plan.kafka_copies,
        "store_copies": plan.store_copies,
        "rows_per_second": plan.rows_per_second,
        "frames_per_second": plan.frames_per_second,
        "kafka_bytes_per_second": plan.kafka_bytes_per_second,
        "broker_in_bytes_per_second": plan.broker_in_bytes_per_second,
        "broker_out_bytes_per_second": plan.broker_out_bytes_per_second,
        "broker_disk_bytes": plan.broker_disk_bytes,
        "ingest_cores": plan.ingest_cores,
        "ingest_processes": plan.ingest_processes,
        "books_bytes": plan.books_bytes,
        "store_bytes": plan.store_bytes,
        "not_measured": plan.not_measured,
        "tables": [msgspec.to_builtins(table) for table in plan.tables],
    }
