"""Events and inventory from Kafka for incidents: the inventory from its beginning, events from where they were left."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
from kafka import TopicPartition  # type: ignore[import-untyped]

from alerts.memory import Position
from stream.batch import Record
from stream.client import KafkaAddress, kafka_errors
from stream.clock import Clock
from stream.consume import KafkaLog
from stream.log import Partition
from stream.messages import EventMessage, InventoryMessage
from stream.topics import EVENTS, INVENTORY

logger = logging.getLogger(__name__)

GROUP = "kvandal-incidents"  # of no group: the positions are in the memory file; the name is for the broker's log
_KNOWN = (EVENTS.name, INVENTORY.name)

_events = msgspec.json.Decoder(EventMessage)
_inventory = msgspec.json.Decoder(InventoryMessage)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is no message; ingest keeps it among the dead letters."""

    why: str


Read = EventMessage | InventoryMessage | Refused


class EventReader:
    """Reads the whole inventory first, so that the first event finds the tree, then both.

    `positions` is how far events were read. Events of the last `lookback_s` are read where that is not known. Raises
    LogUnavailableError when the brokers are away.
    """

    def __init__(
        self, address: KafkaAddress, positions: Mapping[tuple[str, int], Position], *, clock: Clock, lookback_s: float
    ) -> None:
        self._clock = clock
        self._lookback_s = lookback_s
        self.positions = dict(positions)
        self._log = KafkaLog(address, _KNOWN, group=GROUP, clock=clock, owned=True)
        self._inventory_ends: dict[Partition, int] = {}
        self._waiting: set[Partition] = set()  # events, until the inventory is read
        self.is_ready = False

    def poll(self, timeout_s: float) -> Iterator[Read]:
        """What has come; `positions` is past it once the iterator is used up."""
        self._open_gained()
        for partition, records in self._log.poll(timeout_s).items():
            for record in records:
                yield _decoded(partition.topic, record)
            self._note(partition, records[-1].offset + 1)
        self._release_events()

    def close(self) -> None:
        self._log.close()

    def _open_gained(self) -> None:
        _, gained = self._log.take_changes()
        for partition in gained:
            if partition.topic == INVENTORY.name:
                bounds = self._log.bounds(partition)
                self._log.seek(partition, bounds.first if bounds else 0)
                self._inventory_ends[partition] = bounds.end if bounds else 0
            else:
                self._waiting.add(partition)
        if gained:
            self._release_events()

    def _release_events(self) -> None:
        if not self._waiting or any(
            self._log.consumer.position(_key(p)) < end for p, end in self._inventory_ends.items()
        ):
            return
        for partition in self._waiting:
            self._log.seek(partition, self._start(partition))
        self._waiting = set()
        self.is_ready = True

    def _start(self, partition: Partition) -> int:
        topic_id = str(self._log.topic_id(partition.topic))
        bounds = self._log.bounds(partition)
        known = self.positions.get((partition.topic, partition.number))
        first, end = (bounds.first, bounds.end) if bounds else (0, 0)
        if known is None:
            start = self._offset_at(partition, self._clock.utc_ms() - round(self._lookback_s * 1000), end)
        elif known.topic_id != topic_id or known.next_offset > end:
            logger.error("topic was made anew: reading it from its beginning", extra={"topic": partition.topic})
            start = first
        else:
            if known.next_offset < first:
                missed = first - known.next_offset
                logger.error("events expired before they were read", extra={"count": missed})
            start = max(known.next_offset, first)
        self.positions[partition.topic, partition.number] = Position(topic_id, start)
        return start

    def _offset_at(self, partition: Partition, time_ms: int, end: int) -> int:
        key = _key(partition)
        with kafka_errors("asking where to begin"):
            found = self._log.consumer.offsets_for_times({key: time_ms})[key]
        return end if found is None else int(found.offset)

    def _note(self, partition: Partition, next_offset: int) -> None:
        if partition.topic == EVENTS.name:
            before = self.positions[partition.topic, partition.number]
            self.positions[partition.topic, partition.number] = Position(before.topic_id, next_offset)


def _key(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _decoded(topic: str, record: Record) -> Read:
    decoder = _inventory if topic == INVENTORY.name else _events
    try:
        return decoder.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Refused(str(error))
