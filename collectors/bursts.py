"""Equal events in a row become one event with a count: at once when the first comes, again while the count grows.

A GPU in trouble repeats itself hundreds of thousands of times. Each burst is one row: its updates keep id and time, by
which the table of events replaces what it had. The counts of the last update of every burst add up to everything that
was seen.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from stream.messages import EventMessage

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})
OTHERS = "(others)"  # the detail of those that are too many to be told apart
_DETAIL_CHARACTERS = 256  # what an attribute of a message may hold


@dataclass(frozen=True, slots=True)
class BurstRule:
    """When a burst ends, how often its count is told, and how many are kept apart.

    Details come from a log that anything may write to: of one kind and code of a resource, `max_details` are told
    apart, and beyond `max_open` bursts the oldest is closed for the newest. Neither loses a count.
    """

    silence_s: float = 180.0
    update_s: float = 10.0
    max_details: int = 64
    max_open: int = 4096


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One event as it was seen. `detail` tells apart what `kind` and `code` do not, `witness` names who saw it."""

    resource: int
    time_ms: int
    kind: str
    code: int = 0
    text: str = ""
    detail: str = ""
    witness: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: NO_ATTRIBUTES)


_Subject = tuple[int, str, int]  # resource, kind, code
_Key = tuple[_Subject, str]  # and detail


@dataclass(slots=True, eq=False)
class Burst:
    """Equal occurrences without a silence between them."""

    id: str
    first: Occurrence
    subject: _Subject
    details: list[str]  # under which it is found; an occurrence without detail may get one later
    last_ms: int
    count: int = 0
    told_ms: int | None = None
    witnesses: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def message(self, source: int) -> EventMessage:
        attributes = dict(self.attributes)
        if any(self.details):
            attributes["detail"] = next(filter(None, self.details))
        if any(self.witnesses):
            attributes["witnesses"] = ",".join(filter(None, self.witnesses))
        if self.count > 1:
            attributes["last_time_ms"] = str(self.last_ms)
        return EventMessage(
            id=self.id,
            resource=self.first.resource,
            time_ms=self.first.time_ms,
            kind=self.first.kind,
            code=self.first.code,
            count=self.count,
            text=self.first.text,
            source=source,
            attributes=attributes,
        )


class Bursts:
    """The bursts of one source. Times are of the occurrences, in UTC milliseconds."""

    def __init__(self, source: int, rule: BurstRule | None = None) -> None:
        self._source = source
        self._rule = rule or BurstRule()
        self._open: dict[_Key, Burst] = {}
        self._apart: Counter[_Subject] = Counter()  # how many details of a subject are open
        self._changed: dict[Burst, None] = {}  # has something to tell; in order
        self._over: list[Burst] = []
        self._serial = 0

    def add(self, seen: Occurrence) -> Burst:
        """Count an occurrence; `take` gives the burst that it belongs to."""
        subject = (seen.resource, seen.kind, seen.code)
        detail = seen.detail[:_DETAIL_CHARACTERS]
        burst = self._open.get((subject, detail))
        if burst is not None and seen.time_ms - burst.last_ms > self._rule.silence_s * 1000:
            self._close(burst)
            burst = None
        if burst is None:
            burst = self._begin(subject, detail, seen)
        burst.count += 1
        burst.last_ms = max(burst.last_ms, seen.time_ms)
        self._note(burst, seen)
        self._changed[burst] = None
        return burst

    def confirm(self, burst: Burst, seen: Occurrence) -> None:
        """Note that somebody else saw what `burst` counted already, perhaps in more detail."""
        self._note(burst, seen)
        detail = seen.detail[:_DETAIL_CHARACTERS]
        if detail and not any(burst.details) and (burst.subject, detail) not in self._open:
            burst.details.append(detail)
            if self._open.get((burst.subject, "")) is burst:
                self._open[burst.subject, detail] = burst
        self._changed[burst] = None

    def take(self, now_ms: int) -> list[EventMessage]:
        """What is to be told now: new bursts at once, the counts of others now and then and when they are over."""
        for burst in [b for b in self._open.values() if now_ms - b.last_ms > self._rule.silence_s * 1000]:
            self._close(burst)
        told = dict.fromkeys(burst for burst in self._over if burst in self._changed)
        self._over = []
        told |= dict.fromkeys(burst for burst in self._changed if self._is_due(burst, now_ms))
        for burst in told:
            burst.told_ms = now_ms
            del self._changed[burst]
        return [burst.message(self._source) for burst in told]

    def close(self) -> None:
        """End all bursts: the next `take` tells every count that has not been told."""
        for burst in list(self._open.values()):
            self._close(burst)

    def _begin(self, subject: _Subject, detail: str, seen: Occurrence) -> Burst:
        if self._apart[subject] >= self._rule.max_details:
            detail = OTHERS
            if (known := self._open.get((subject, detail))) is not None:
                return known
        if len(self._open) >= self._rule.max_open:
            self._close(next(iter(self._open.values())))
        self._serial += 1
        burst = Burst(
            id=f"{seen.kind}-{seen.code}-{seen.resource:016x}-{seen.time_ms}-{self._serial}",
            first=seen,
            subject=subject,
            details=[detail],
            last_ms=seen.time_ms,
        )
        self._open[subject, detail] = burst
        self._apart[subject] += 1
        return burst

    def _note(self, burst: Burst, seen: Occurrence) -> None:
        # Whoever saw more detail judged better.
        facts = (burst.attributes, seen.attributes) if seen.detail else (seen.attributes, burst.attributes)
        burst.attributes = {**facts[0], **facts[1]}
        if seen.witness not in burst.witnesses:
            burst.witnesses.append(seen.witness)

    def _close(self, burst: Burst) -> None:
        for detail in burst.details:
            if self._open.pop((burst.subject, detail), None) is not burst:
                return  # closed before
        self._apart[burst.subject] -= 1
        if not self._apart[burst.subject]:
            del self._apart[burst.subject]
        self._over.append(burst)

    def _is_due(self, burst: Burst, now_ms: int) -> bool:
        return burst.told_ms is None or now_ms - burst.told_ms >= self._rule.update_s * 1000
