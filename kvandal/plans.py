"""Joins stream's plans to storage's table: neither knows the other."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import UUID

import msgspec

from storage.books import PlanLine
from stream.batch import Record
from stream.plan import Plan, Range, Save, Standing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _JournalEntry:
    """A plan and the records that it will insert."""

    plan: Plan
    records: Sequence[Record]


class PlanLines(Protocol):
    """What is needed of storage.books.PlanTable."""

    def read(self, topic_id: UUID) -> list[PlanLine]: ...

    def write(self, topic_id: UUID, lines: list[PlanLine]) -> None: ...


class TablePlans:
    """A stream.plan.PlanStore in the table `ingest_plan`, for the single owner of a store.

    Nothing fences a second owner: the engine's lock on its data directory keeps it out. The embedded
    broker forgets its log when it ends, so a plan's records are also kept in a file, one a topic, in
    the folder `journal`: after a crash the plan can be finished without its log.
    """

    def __init__(self, table: PlanLines, journal: Path) -> None:
        self._table = table
        self._journal = journal
        journal.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._numbers: dict[UUID, int] = {}

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:  # noqa: ARG002 - all of them
        lines = self._table.read(topic_id)
        if not lines:
            return Standing({}, known=False)
        newest = max(line.plan for line in lines)
        self._numbers[topic_id] = newest
        pending = [line for line in lines if line.plan == newest]
        positions = {line.partition: line.end for line in lines}
        positions |= {line.partition: line.first for line in pending}
        ranges = tuple(Range(line.partition, line.first, line.end) for line in pending)
        head = pending[0]
        plan = Plan(topic, topic_id, ranges, head.checked_at_ms, head.layouts, head.log_epoch)
        return Standing(positions, plan, head.log_epoch)

    def orphan(self, topic: str, topic_id: UUID) -> tuple[Plan, Sequence[Record]] | None:
        path = self._journal_of(topic)
        if not path.exists():
            return None
        try:
            entry = msgspec.msgpack.decode(path.read_bytes(), type=_JournalEntry)
        except msgspec.DecodeError as error:
            self._set_aside(path, error)
            return None
        if entry.plan.topic_id == topic_id:
            return None  # the log is still there: the plan is replayed from it
        return entry.plan, entry.records

    def draft(self, plan: Plan, records: Sequence[Record]) -> Save:
        path = self._journal_of(plan.topic).with_suffix(".part")
        with _journal_errors(path):
            path.write_bytes(msgspec.msgpack.encode(_JournalEntry(plan, records)))
        return partial(self._save, plan, path)

    def _save(self, plan: Plan, draft: Path) -> None:
        if draft.exists():  # else an earlier call got as far as the table
            with _journal_errors(draft):
                draft.replace(self._journal_of(plan.topic))
        number = self._numbers.get(plan.topic_id, 0) + 1
        lines = [
            PlanLine(number, r.partition, r.first, r.end, plan.checked_at_ms, plan.layouts, plan.log_epoch)
            for r in plan.ranges
        ]
        self._table.write(plan.topic_id, lines)
        self._numbers[plan.topic_id] = number

    def _set_aside(self, path: Path, error: msgspec.DecodeError) -> None:
        """A machine that lost its power can leave anything in a file. What the plan held is with its agents still."""
        kept = path.with_suffix(".unreadable")
        path.replace(kept)
        logger.error("a plan in the journal cannot be read", extra={"file": str(kept), "reason": str(error)})

    def _journal_of(self, topic: str) -> Path:
        return self._journal / f"{topic}.plan"

    def done(self, plan: Plan) -> None:
        """Nothing to note: the next plan says that this one was done."""


@contextmanager
def _journal_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConnectionError(f"journal {path} cannot be written: {error.strerror}; free some space") from error
