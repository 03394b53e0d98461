"""Ingest's books in ClickHouse: what was seen, and the single owner's plans."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from clickhouse_connect.driver.client import Client

from storage.client import store_errors


@dataclass(frozen=True, slots=True)
class StoredTicks:
    """Ticks [start, end) of one epoch of one source that are in the store."""

    source: int
    epoch_ms: int
    start: int
    end: int


# Frames of another topic id are of a log that was made anew: sources may send them again.
_SEEN = """
SELECT source, epoch_ms, min(sequence), max(sequence + ticks) AS end, sum(ticks) = end - min(sequence)
FROM frames
WHERE table_raw = toFixedString({table:String}, 16) AND outcome = 'stored'
  AND checked_at >= fromUnixTimestamp64Milli({since_ms:Int64})
  AND (topic_id != {topic_id:UUID} OR log_epoch != {log_epoch:UInt32}
       OR offset < mapFromArrays({partitions:Array(UInt32)}, {offsets:Array(UInt64)})[partition])
GROUP BY source, epoch_ms
"""

_SEEN_PIECES = """
SELECT DISTINCT sequence, sequence + ticks AS end
FROM frames
WHERE table_raw = toFixedString({table:String}, 16) AND outcome = 'stored'
  AND checked_at >= fromUnixTimestamp64Milli({since_ms:Int64})
  AND (topic_id != {topic_id:UUID} OR log_epoch != {log_epoch:UInt32}
       OR offset < mapFromArrays({partitions:Array(UInt32)}, {offsets:Array(UInt64)})[partition])
  AND source = {source:UInt64} AND epoch_ms = {epoch_ms:UInt64}
ORDER BY sequence
"""


_LINES_WITHIN = """
WITH {ranges:Array(Tuple(UInt32, UInt64, UInt64))} AS ranges
SELECT uniqExact(partition, offset)
FROM frames
WHERE topic_id = {topic_id:UUID} AND log_epoch = {log_epoch:UInt32}
  AND partition IN arrayMap(r -> r.1, ranges)
  AND offset BETWEEN arrayMin(r -> r.2, ranges) AND arrayMax(r -> r.3, ranges)
  AND arrayExists(r -> partition = r.1 AND offset >= r.2 AND offset < r.3, ranges)
"""


class OffsetRange(Protocol):
    """Offsets [first, end) of one partition."""

    @property
    def partition(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def end(self) -> int: ...


class FrameBooks:
    """Reads the table `frames`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def seen_before(
        self, table: str, topic_id: UUID, log_epoch: int, positions: Mapping[int, int], since_ms: int
    ) -> Iterator[StoredTicks]:
        """Ticks of `table` stored since `since_ms`, from other logs or epochs, or from this one below `positions`.

        Raises StoreUnavailableError. One interval per epoch of a source, more where there are gaps.
        """
        parameters = {
            "table": table,
            "since_ms": since_ms,
            "topic_id": str(topic_id),
            "log_epoch": log_epoch,
            "partitions": list(positions),
            "offsets": list(positions.values()),
        }
        with store_errors("reading which frames are stored"):
            rows = self._client.query(_SEEN, parameters=parameters).result_rows
        for source, epoch_ms, start, end, whole in rows:
            if whole:
                yield StoredTicks(source, epoch_ms, start, end)
            else:
                yield from self._pieces(parameters, source, epoch_ms)

    def last_log_epoch(self, topic_id: UUID, partitions: frozenset[int]) -> int | None:
        """The newest log epoch of which frames of these partitions are known; None when there are none."""
        with store_errors("reading which frames are known"):
            rows = self._client.query(
                "SELECT max(log_epoch) FROM frames "
                "WHERE topic_id = {topic_id:UUID} AND has({partitions:Array(UInt32)}, partition) HAVING count() > 0",
                parameters={"topic_id": str(topic_id), "partitions": sorted(partitions)},
            ).result_rows
        return int(rows[0][0]) if rows else None

    def lines_within(self, topic_id: UUID, log_epoch: int, ranges: Iterable[OffsetRange]) -> int:
        """How many records of these ranges of one log have a line."""
        parameters = {
            "topic_id": str(topic_id),
            "log_epoch": log_epoch,
            "ranges": [(found.partition, found.first, found.end) for found in ranges],
        }
        with store_errors("reading which records are known"):
            rows = self._client.query(_LINES_WITHIN, parameters=parameters).result_rows
        return int(rows[0][0])

    def stored_end(self, topic_id: UUID) -> tuple[int, dict[int, int]]:
        """The newest log epoch of the topic's frames, and the offset after the last one by partition.

        Where a partition has frames of several log epochs, its newest one tells.
        """
        with store_errors("reading how far frames are stored"):
            rows = self._client.query(
                "SELECT partition, log_epoch, max(offset) + 1 FROM frames WHERE topic_id = {topic_id:UUID} "
                "GROUP BY partition, log_epoch ORDER BY log_epoch DESC LIMIT 1 BY partition",
                parameters={"topic_id": str(topic_id)},
            ).result_rows
        return max((epoch for _, epoch, _ in rows), default=0), {partition: end for partition, _, end in rows}

    def _pieces(self, parameters: Mapping[str, object], source: int, epoch_ms: int) -> Iterator[StoredTicks]:
        with store_errors("reading which frames are stored"):
            rows = self._client.query(
                _SEEN_PIECES, parameters={**parameters, "source": source, "epoch_ms": epoch_ms}
            ).result_rows
        for start, end in rows:
            yield StoredTicks(source, epoch_ms, start, end)


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One range of a plan as it stands in the table `ingest_plan`."""

    plan: int
    partition: int
    first: int
    end: int
    checked_at_ms: int
    layouts: int
    log_epoch: int


class PlanTable:
    """The table `ingest_plan`: plans of the single owner, the last one possibly not yet inserted."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self, topic_id: UUID) -> list[PlanLine]:
        """The newest range of every partition of the topic, and all ranges of its newest plan."""
        with store_errors("reading the plans"):
            rows = self._client.query(
                "WITH (SELECT max(plan) FROM ingest_plan WHERE topic_id = {topic_id:UUID}) AS newest "
                "SELECT plan, partition, first, end, checked_at_ms, layouts, log_epoch FROM ingest_plan "
                "WHERE topic_id = {topic_id:UUID} ORDER BY plan = newest DESC, plan DESC "
                "LIMIT 1 BY partition",
                parameters={"topic_id": str(topic_id)},
            ).result_rows
        return [PlanLine(*row) for row in rows]

    def write(self, topic_id: UUID, lines: list[PlanLine]) -> None:
        """Make a plan durable: returns when ClickHouse has it."""
        names = ["topic_id", "plan", "partition", "first", "end", "checked_at_ms", "layouts", "log_epoch"]
        data = [
            [topic_id, li.plan, li.partition, li.first, li.end, li.checked_at_ms, li.layouts, li.log_epoch]
            for li in lines
        ]
        with store_errors("writing the plan"):
            self._client.insert("ingest_plan", data, column_names=names)
