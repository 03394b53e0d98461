"""The single owner's plans: its journal survives the log that it was made from."""

from pathlib import Path
from uuid import UUID

from kvandal.plans import TablePlans
from storage.books import PlanLine
from stream.batch import Record
from stream.plan import Plan, Range

OLD, NEW = UUID(int=1), UUID(int=2)


class MemoryTable:
    """The table `ingest_plan`, as a list."""

    def __init__(self) -> None:
        self.lines: dict[UUID, list[PlanLine]] = {}

    def read(self, topic_id: UUID) -> list[PlanLine]:
        return self.lines.get(topic_id, [])

    def write(self, topic_id: UUID, lines: list[PlanLine]) -> None:
        self.lines.setdefault(topic_id, []).extend(lines)


PLAN = Plan("kvandal.gpu", OLD, (Range(0, 5, 7), Range(1, 0, 1)), checked_at_ms=9, layouts=1, log_epoch=2)
RECORDS = [Record(0, 5, b"\x00frame"), Record(0, 6, b""), Record(1, 0, b"other")]


def test_a_plan_whose_log_is_gone_comes_back_with_its_records(tmp_path: Path) -> None:
    TablePlans(MemoryTable(), tmp_path).draft(PLAN, RECORDS)()
    assert TablePlans(MemoryTable(), tmp_path).orphan("kvandal.gpu", NEW) == (PLAN, RECORDS)


def test_a_plan_whose_log_is_there_is_no_orphan(tmp_path: Path) -> None:
    plans = TablePlans(MemoryTable(), tmp_path)
    plans.draft(PLAN, RECORDS)()
    assert plans.orphan("kvandal.gpu", OLD) is None
    assert plans.orphan("kvandal.tray", NEW) is None


def test_the_table_tells_the_pending_plan_and_where_to_read_on(tmp_path: Path) -> None:
    table = MemoryTable()
    TablePlans(table, tmp_path).draft(PLAN, RECORDS)()
    standing = TablePlans(table, tmp_path).standing("kvandal.gpu", OLD, frozenset({0, 1}))
    assert standing.pending == PLAN
    assert standing.positions == {0: 5, 1: 0}
