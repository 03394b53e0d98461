"""The embedded stack killed at every step of an insert: log, store process and agents all end at once.

The log forgets everything, agents keep what was not confirmed to them, the store keeps what it has, and the journal of
plans is the real one, in a folder. docs/adr/0003-exactly-once.md goes through the steps one by one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from kvandal.plans import TablePlans
from storage.books import PlanLine
from stream.batch import Record
from stream.health import SourceHealth
from stream.ingest import Ingest
from stream.metrics import IngestMetrics
from stream.plan import Plan, PlanStore, Save, Standing
from tests.servers.ingest_plant import (
    PATIENT,
    RUBBISH,
    RULES,
    TOPIC,
    Crash,
    FakeBroker,
    FakeClock,
    FakeLog,
    FakeStore,
    Faults,
    frame,
    row_keys,
)

# In the order in which an insert takes them.
STEPS = ("journal", "table", "letters", "rows", "frames", "done")


@dataclass(slots=True)
class PlanLines:
    """The table `ingest_plan`."""

    faults: Faults
    lines: dict[UUID, list[PlanLine]] = field(default_factory=dict)

    def read(self, topic_id: UUID) -> list[PlanLine]:
        return self.lines.get(topic_id, [])

    def write(self, topic_id: UUID, lines: list[PlanLine]) -> None:
        self.faults.around("table", lambda: self.lines.setdefault(topic_id, []).extend(lines))


@dataclass(slots=True)
class ConfirmedPlans:
    """Plans of the single owner whose end is told to the agents, which then let go of the frames."""

    plans: PlanStore
    log: FakeLog
    stack: "EmbeddedStack"

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:
        return self.plans.standing(topic, topic_id, partitions)

    def orphan(self, topic: str, topic_id: UUID) -> tuple[Plan, Sequence[Record]] | None:
        return self.plans.orphan(topic, topic_id)

    def draft(self, plan: Plan, records: Sequence[Record]) -> Save:
        save = self.plans.draft(plan, records)
        return lambda: self.stack.faults.around("journal", save)

    def done(self, plan: Plan) -> None:
        self.plans.done(plan)
        self.stack.faults.around("done", lambda: self.stack.confirm(plan))


@dataclass(slots=True)
class EmbeddedStack:
    """What outlives a kill of everything: the journal, the store, and the spool of the agents."""

    journal: Path
    spool: list[bytes]
    faults: Faults
    clock: FakeClock = field(default_factory=FakeClock)
    starts: int = 0
    sent: list[bytes] = field(default_factory=list)  # into today's log, in its order
    store: FakeStore = field(init=False)
    lines: PlanLines = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.lines = FakeStore(self.faults), PlanLines(self.faults)

    @property
    def topic_id(self) -> UUID:
        return UUID(int=100 + self.starts)

    def confirm(self, plan: Plan) -> None:
        assert plan.topic_id == self.topic_id, "a commit into a log that began anew"
        self.spool = self.sent[plan.ranges[0].end :]

    def run_to_the_end(self) -> None:
        """Start everything again after each kill, until all is stored and confirmed."""
        while self.spool:
            assert self.starts < 200, "it crashes for ever"
            try:
                self._start()
            except Crash:
                continue

    def _start(self) -> None:
        self.starts += 1
        self.sent = list(self.spool)
        broker, stop = FakeBroker(self.topic_id, logs={0: self.sent}), Event()
        log = FakeLog(broker, self.clock, self.faults, stop=stop, until=lambda: not self.spool, most=5)
        plans = ConfirmedPlans(TablePlans(self.lines, self.journal), log, self)
        ingest = Ingest(
            log,
            plans,
            self.store,
            self.store,
            self.store,
            rules=replace(RULES, joined=True),
            clock=self.clock,
            metrics=IngestMetrics(CollectorRegistry()),
            health=SourceHealth(PATIENT),
        )
        ingest.run(stop)


def stored_once(stack: EmbeddedStack, *numbers: int) -> bool:
    return stack.store.row_counts == Counter(row_keys(1, *numbers))


@pytest.mark.parametrize("when", ["crash", "crash after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("good", [0, 1])
def test_a_kill_of_everything_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, step: str, when: str, good: int
) -> None:
    """At the first or at the second insert, before or after the step had its effect."""
    frames = [frame(1, 0), RUBBISH, *(frame(1, number) for number in range(1, 12))]
    stack = EmbeddedStack(tmp_path, frames, Faults({step: [""] * good + [when]}))
    stack.run_to_the_end()
    assert stored_once(stack, *range(12))
    assert stack.starts == 1 + (stack.faults.calls[step] > good)
    assert {letter.record.value for letter in stack.store.letters} == {RUBBISH}


@pytest.mark.parametrize("step", ["letters", "rows", "frames"])
def test_a_kill_while_the_plan_of_the_lost_log_is_finished_changes_nothing(tmp_path: Path, step: str) -> None:
    """Each of three starts comes one step further with the same plan."""
    frames = [RUBBISH, *(frame(1, number) for number in range(12))]
    stack = EmbeddedStack(tmp_path, frames, Faults({step: ["crash", "crash after", "crash"]}))
    stack.run_to_the_end()
    assert stored_once(stack, *range(12))
    assert stack.starts == 4


@st.composite
def troubles(draw: st.DrawFn) -> dict[str, list[str]]:
    fault = st.sampled_from(["", "", "away", "away after", "crash", "crash after"])
    script = {step: draw(st.lists(fault, max_size=8)) for step in STEPS}
    reading = st.sampled_from(["", "", "away", "crash"])
    return script | {kind: draw(st.lists(reading, max_size=6)) for kind in ("seen", "bounds", "seek", "poll")}


@given(st.lists(st.one_of(st.integers(0, 9), st.none()), min_size=1, max_size=25), troubles())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_killed_when_every_row_is_stored_once(
    numbers: list[int | None], script: dict[str, list[str]]
) -> None:
    """Frames come twice, rubbish lies among them, and everything is killed again and again."""
    frames = [RUBBISH if number is None else frame(1, number) for number in numbers]
    with TemporaryDirectory() as folder:
        stack = EmbeddedStack(Path(folder), frames, Faults(script))
        stack.run_to_the_end()
    assert stored_once(stack, *(number for number in numbers if number is not None))


# What tokens no longer tell, the books still do


def test_a_plan_that_was_done_is_not_inserted_again_though_its_token_is_forgotten(tmp_path: Path) -> None:
    """A topic that was quiet while `frames`, which is every topic's, took 50,000 inserts of others."""
    stack = EmbeddedStack(tmp_path, [frame(1, number) for number in range(3)], Faults())
    stack.run_to_the_end()
    for held in (stack.store.rows, stack.store.frames):
        blocks = list(held.values())
        held.clear()
        held.update({f"forgotten {number}": block for number, block in enumerate(blocks)})

    stack.spool = [frame(1, 3)]
    stack.run_to_the_end()

    assert stored_once(stack, *range(4))
    assert sum(len(block) for block in stack.store.frames.values()) == 4


def test_a_journal_that_a_power_cut_left_empty_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stack = EmbeddedStack(tmp_path, [frame(1, 0)], Faults())
    (tmp_path / f"{TOPIC}.plan").write_bytes(b"")
    stack.run_to_the_end()
    assert stored_once(stack, 0)
    assert (tmp_path / f"{TOPIC}.unreadable").exists()
    assert "a plan in the journal cannot be read" in caplog.text
