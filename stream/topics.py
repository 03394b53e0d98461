"""The topics: one per table of frames, and those of JSON messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from catalogue import TABLES
from catalogue.tables import TOPIC_PREFIX


class Content(StrEnum):
    FRAMES = "frames"
    INVENTORY = "inventory"
    EVENTS = "events"
    JOBS = "jobs"
    DEAD_LETTERS = "dead letters"


_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS

# What is produced must be able to wait for ClickHouse: a week covers a long outage with its holidays.
_FRAME_SETTINGS = {"retention.ms": str(7 * _DAY_MS), "compression.type": "producer"}
_MESSAGE_SETTINGS = {"retention.ms": str(30 * _DAY_MS), "compression.type": "producer"}
# The latest message about each resource stays for ever: a new reader learns the whole site.
_COMPACTED = {"cleanup.policy": "compact", "compression.type": "producer"}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, the table that its content goes to, and the settings it is created with."""

    name: str
    table: str
    content: Content
    partitions: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


# GPU frames are nearly all of the traffic: eight partitions let as many ingest processes share it.
_PARTITIONS = {"gpu": 8, "tray": 2}

FRAME_TOPICS: Final = tuple(
    Topic(table.topic, table.name, Content.FRAMES, _PARTITIONS.get(table.name, 1), _FRAME_SETTINGS) for table in TABLES
)
INVENTORY: Final = Topic(f"{TOPIC_PREFIX}inventory", "inventory", Content.INVENTORY, 1, _COMPACTED)
EVENTS: Final = Topic(f"{TOPIC_PREFIX}events", "events", Content.EVENTS, 1, _MESSAGE_SETTINGS)
JOBS: Final = Topic(f"{TOPIC_PREFIX}jobs", "jobs", Content.JOBS, 1, _MESSAGE_SETTINGS)
DEAD_LETTERS: Final = Topic(f"{TOPIC_PREFIX}deadletter", "", Content.DEAD_LETTERS, 1, _MESSAGE_SETTINGS)

INGESTED: Final = (*FRAME_TOPICS, INVENTORY, EVENTS, JOBS)
ALL_TOPICS: Final = (*INGESTED, DEAD_LETTERS)


def topic(name: str) -> Topic:
    """The topic of that name; KeyError lists those that exist."""
    for candidate in ALL_TOPICS:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no topic {name}; there are {', '.join(t.name for t in ALL_TOPICS)}")
