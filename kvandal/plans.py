"""Joins stream's plans to storage's table: neither knows the other."""

from uuid import UUID

from storage.books import PlanLine, PlanTable
from stream.plan import Plan, Range, Standing


class TablePlans:
    """A stream.plan.PlanStore in the table `ingest_plan`, for the single owner of a store.

    Nothing fences a second owner: the engine's lock on its data directory keeps it out.
    """

    def __init__(self, table: PlanTable) -> None:
        self._table = table
        self._numbers: dict[UUID, int] = {}

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:  # noqa: ARG002 - all of them
        lines = self._table.read(topic_id)
        if not lines:
            return Standing({})
        newest = max(line.plan for line in lines)
        self._numbers[topic_id] = newest
        pending = [line for line in lines if line.plan == newest]
        positions = {line.partition: line.end for line in lines}
        positions |= {line.partition: line.first for line in pending}
        ranges = tuple(Range(line.partition, line.first, line.end) for line in pending)
        head = pending[0]
        plan = Plan(topic, topic_id, ranges, head.checked_at_ms, head.layouts, head.log_epoch)
        return Standing(positions, plan, head.log_epoch)

    def save(self, plan: Plan) -> None:
        number = self._numbers.get(plan.topic_id, 0) + 1
        lines = [
            PlanLine(number, r.partition, r.first, r.end, plan.checked_at_ms, plan.layouts, plan.log_epoch)
            for r in plan.ranges
        ]
        self._table.write(plan.topic_id, lines)
        self._numbers[plan.topic_id] = number

    def done(self, plan: Plan) -> None:
        """Nothing to note: the next plan says that this one was done."""
