"""Counts what was produced and what is stored, each by its own means, and compares."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from clickhouse_connect.driver.client import Client

from catalogue import TABLES, known_layouts
from catalogue.tables import TOPIC_PREFIX
from collectors.spool import Spooled
from storage.client import store_errors
from stream.frame import decode_frame

_LAYOUTS = {layout.fingerprint: layout for layouts in known_layouts().values() for layout in layouts}


class ProducedCount(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that the broker acknowledged, by table: in all by source, and by resource."""

    sources: dict[str, dict[str, int]]
    resources: dict[str, dict[int, int]]


class ProducedTally:
    """Counts acknowledged frames, each once, by what is in them."""

    def __init__(self) -> None:
        self._sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._resources: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def add(self, sent: Spooled) -> None:
        if not sent.rows:
            return
        table = sent.topic.removeprefix(TOPIC_PREFIX)
        _, rows = decode_frame(sent.value, _LAYOUTS)
        resources, counts = np.unique(rows["resource"], return_counts=True)
        self._resources[table].update(dict(zip(resources.tolist(), counts.tolist(), strict=True)))
        self._sources[table][f"{sent.source:016x}"] += sent.rows

    def count(self) -> ProducedCount:
        return ProducedCount(
            sources={table: dict(counts) for table, counts in self._sources.items()},
            resources={table: dict(counts) for table, counts in self._resources.items()},
        )


@dataclass(frozen=True, slots=True)
class TableCount:
    """One table's account: stored = produced - lost + duplicated."""

    table: str
    produced: int
    stored: int
    lost: int
    duplicated: int


def count_tables(client: Client, produced: ProducedCount) -> list[TableCount]:
    """Compare what was produced with what SQL finds, resource by resource.

    Duplicated is rows minus distinct (resource, time); lost is keys that were produced and are not there.
    """
    return [
        _count_table(client, table.name, produced.resources[table.name])
        for table in TABLES
        if table.name in produced.resources
    ]


def _count_table(client: Client, table: str, produced: Mapping[int, int]) -> TableCount:
    with store_errors(f"counting {table}"):
        rows = client.query(f"SELECT resource, count(), uniqExact(time) FROM {table} GROUP BY resource").result_rows  # noqa: S608 - a name of the catalogue
    distinct = {resource: keys for resource, _, keys in rows}
    stored = sum(count for _, count, _ in rows)
    return TableCount(
        table=table,
        produced=sum(produced.values()),
        stored=stored,
        lost=sum(max(count - distinct.get(resource, 0), 0) for resource, count in produced.items()),
        duplicated=stored - sum(distinct.values()),
    )
