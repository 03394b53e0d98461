"""Any exporter of Prometheus text as a source: what its numbers mean stands in a mapping file, not in code.

An exporter is somebody else's program: its text is bounded in size and time, a line that cannot be read costs that line
only, and what is odd about it is logged once. Nothing is stored that the text does not say: a sentinel, a stale sample,
a family of another type or repeats that contradict each other are absent.
"""

import http.client
import logging
import math
import re
import socket
import ssl
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from threading import Event, Timer
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from catalogue import ResourceKind, Table, resource_id
from collectors.counters import Counters, CounterStore
from collectors.mapping import MAX_IDENTITY_CHARACTERS, ExporterMapping, Labels, MetricRule, Number, Repeats
from collectors.source import Reading, SourceUnavailableError
from collectors.told import ToldBefore
from collectors.tray import TrayPlace, this_machine
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import pack

TIMEOUT_S = 3.0
# Several times what an exporter of a node with eight GPUs in MIG mode and pod labels sends.
MAX_PAGE_BYTES = 8 << 20
MAX_LINE_CHARACTERS = 4096  # the parser's time grows with the square of a line's length
MAX_POINTS = 100_000
MAX_TURNOVER = 16  # times as many resources as there may be at once, in the life of a source: each leaves a memory
MAX_COMPLAINTS = 100  # different ones, in the life of a source
EXCERPT_CHARACTERS = 120
CHUNK_BYTES = 1 << 16

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)[{ \t]")  # prometheus.io, "Text-based format"
_TOTAL = "_total"  # what OpenMetrics adds to a counter's name
_ANY = "*"
_UNTYPED = frozenset({"", "untyped", "unknown"})

Part = tuple[str, ...]  # the values of a mapping's part labels

_log = logging.getLogger(__name__)


# Text ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """One sample: a whole number stays one, since a float does not hold the counters of a year."""

    labels: Labels
    value: Number
    time_s: float | None


@dataclass(frozen=True, slots=True)
class Exposition:
    """What a text says about the families that were asked for; `bad_line` is the first that could not be read."""

    points: Mapping[str, Sequence[Point]]
    types: Mapping[str, str]
    bad_lines: int = 0
    bad_line: str = ""

    def declared(self, family: str) -> str:
        """The type that the text gives a family, empty when it gives none."""
        return self.types.get(family) or self.types.get(family.removesuffix(_TOTAL), "")


def parse_text(text: str, families: Collection[str], *, openmetrics: bool = False) -> Exposition:
    """The samples of `families`; other lines are only looked at as far as to see that they are samples at all.

    A last line without its line feed was cut off, and does not count.
    """
    points: defaultdict[str, list[Point]] = defaultdict(list)
    types: dict[str, str] = {}
    bad: list[str] = []
    *lines, cut = text.split("\n")
    if cut:
        bad.append(cut)
    for line in map(str.strip, lines):
        if line.startswith("#"):
            _note_type(line, families, types)
        elif line:
            family = _family_of(line, families)
            if family is None:
                bad.append(line)
            elif family:
                _note_point(line, points[family], bad, openmetrics=openmetrics)
    found = {family: samples for family, samples in points.items() if samples}
    return Exposition(found, types, len(bad), bad[0][:EXCERPT_CHARACTERS] if bad else "")


def _note_type(line: str, families: Collection[str], types: dict[str, str]) -> None:
    words = line[:MAX_LINE_CHARACTERS].split()
    if len(words) == 4 and words[1] == "TYPE" and (words[2] in families or words[2] + _TOTAL in families):
        types[words[2]] = words[3]


def _family_of(line: str, families: Collection[str]) -> str | None:
    """The family of a sample, empty when it is none of ours; None when the line is no sample."""
    start = _SAMPLE.match(line)
    if start is None:
        return "" if line.startswith('{"') else None  # a name in quotes is legal, and never ours
    name = start[1]
    if name in families:
        return name
    return name.removesuffix(_TOTAL) if name.removesuffix(_TOTAL) in families else ""


def _note_point(line: str, points: list[Point], bad: list[str], *, openmetrics: bool) -> None:
    try:
        points.append(_parse_line(line, openmetrics=openmetrics))
    except (ValueError, IndexError, OverflowError):  # the parser's own: on blank names, on a time stamp of 300 digits
        bad.append(line)


def _parse_line(line: str, *, openmetrics: bool) -> Point:
    if len(line) > MAX_LINE_CHARACTERS:
        raise ValueError("the line is too long")
    if openmetrics:
        line = re.sub(r" # \{[^{}]*\} \S+( \S+)?$", "", line)  # an exemplar
    (family,) = text_string_to_metric_families(line)
    (sample,) = family.samples
    stamp = None if sample.timestamp is None else float(sample.timestamp)
    if stamp is not None and openmetrics:
        stamp *= 1000  # seconds there, and milliseconds in the format that the parser has in mind
    return Point(sample.labels, sample.value, stamp)


def is_number(value: Number) -> bool:
    """Whether a sample's value is finite: NaN is how an exporter says that it has none."""
    return abs(value) < 1 << 1000 if isinstance(value, int) else math.isfinite(value)


# HTTP ----------------------------------------------------------------------------------------------------------------


class ExporterPage:
    """An exporter's page. One GET per call, without redirects, with a limit on its time and size.

    `headers` go with each request, such as an Authorization. Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        limit_bytes: int = MAX_PAGE_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(
                f"{parts.scheme}://{parts.hostname or ''} is not an exporter's address; give one such as "
                "http://127.0.0.1:9400/metrics, and secrets by headers"
            )
        self.url = url
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes
        self._headers = {
            "Accept": "text/plain;version=0.0.4",
            "Accept-Encoding": "gzip",
            "Connection": "close",
            "User-Agent": "kvandal",
            **(headers or {}),
        }

    def read(self, families: Collection[str]) -> Exposition:
        """What the page says about `families`. SourceUnavailableError says why there is no page, and what to do."""
        body, kind = self._get()
        exposition = parse_text(
            body.decode("utf-8", "replace"), families, openmetrics=kind.startswith("application/openmetrics-text")
        )
        count = sum(map(len, exposition.points.values()))
        if count > MAX_POINTS:
            raise self._unavailable(f"has {count} samples, more than {MAX_POINTS}", "let it export less")
        return exposition

    def _get(self) -> tuple[bytes, str]:
        """The page's bytes and content type."""
        late = Event()
        try:
            with closing(self._connection()) as connection:
                connection.connect()
                # The socket's own timeout starts anew with every byte: this one does not.
                timer = Timer(self._timeout_s, partial(_cut_off, connection.sock, late))
                timer.daemon = True
                timer.start()
                try:
                    answer = self._ask(connection)
                finally:
                    timer.cancel()
        except TimeoutError as error:
            raise self._too_slow() from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set():
                raise self._too_slow() from error
            why = str(error) or type(error).__name__
            raise self._unavailable(f"does not answer ({why})", "see whether the exporter runs there") from error
        if late.is_set():
            raise self._too_slow()
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        if self._https:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _ask(self, connection: http.client.HTTPConnection) -> tuple[bytes, str]:
        connection.request("GET", self._target, headers=self._headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise self._unavailable(f"answers {response.status}", "check the address, its path and its access rights")
        encoding = response.getheader("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise self._unavailable(f"sends {encoding[:40]}", "let it send plain text or gzip")
        body = self._body(response, zlib.decompressobj(31) if encoding == "gzip" else None)
        return body, response.getheader("Content-Type", "")

    def _body(self, response: http.client.HTTPResponse, gzip: "zlib._Decompress | None") -> bytes:
        parts = []
        size = 0
        while chunk := response.read(CHUNK_BYTES):
            if gzip is not None:
                try:
                    chunk = gzip.decompress(chunk, self._limit_bytes + 1 - size)
                except zlib.error as error:
                    raise self._unavailable(f"sends broken gzip ({error})", "see its log") from error
            parts.append(chunk)
            size += len(chunk)
            if size > self._limit_bytes:
                raise self._unavailable(f"sends more than {self._limit_bytes} bytes", "let it export less")
        if response.length or (gzip is not None and not gzip.eof):
            raise self._unavailable("breaks off in the middle of its page", "see its log")
        return b"".join(parts)

    def _too_slow(self) -> SourceUnavailableError:
        return self._unavailable(
            f"has not sent its page within {self._timeout_s:g} s", "see whether it hangs, or give it more time"
        )

    def _unavailable(self, what: str, advice: str) -> SourceUnavailableError:
        return SourceUnavailableError(f"exporter {self.url} {what}: {advice}")


def _cut_off(connected: socket.socket, late: Event) -> None:
    late.set()
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # past TLS, which must not wait for its own farewell


# Meaning -------------------------------------------------------------------------------------------------------------


class Complaints:
    """Says what is odd about a source, each oddity once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._said: set[tuple[str, str]] = set()

    def say(self, sentence: str, about: str = "", **fields: object) -> None:
        """Log a fixed sentence, once for each thing that it is about."""
        if (sentence, about) in self._said or len(self._said) >= MAX_COMPLAINTS:
            return
        self._said.add((sentence, about))
        extra = {"source": self._source, **({"about": about} if about else {}), **fields}
        _log.warning(sentence, extra=extra)


@dataclass(slots=True)
class Mapped:
    """What one page said, in base units.

    `rows` holds the values by table, resource and metric, of the tables that were due. `labels` are those of some
    sample of each resource, of the whole where there is one.
    """

    rows: dict[Table, dict[str, dict[str, float]]] = field(default_factory=dict)
    labels: dict[str, Labels] = field(default_factory=dict)

    def readings(self, source: int, kind: ResourceKind, time_s: int) -> list[Reading]:
        """A reading for each table with rows; what a resource has no value for is absent."""
        return [
            Reading(source, target, pack(target, [resource_id(kind, name) for name in rows], time_s, _columns(rows)))
            for target, rows in self.rows.items()
            if rows
        ]


def _columns(rows: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    names = set().union(*rows.values())
    return {name: [values.get(name, math.nan) for values in rows.values()] for name in names}


class ExporterReader:
    """Turns pages of one exporter into values, with the memory that counters need.

    `booted` names the life of the machine that the exporter's counters run on, where it is this one.
    """

    def __init__(
        self,
        mapping: ExporterMapping,
        *,
        name: str,
        counters: CounterStore | None = None,
        booted: Callable[[], str] = lambda: "",
    ) -> None:
        self._mapping = mapping
        self._name = name
        self._counters = Counters(counters)
        self._booted = booted
        self._complaints = Complaints(name)
        self._ticks: dict[Table, int] = {}
        self._terms: dict[Table, dict[str, list[MetricRule]]] = {}
        for rule in mapping.rules:
            self._terms.setdefault(rule.table, {}).setdefault(rule.metric.name, []).append(rule)
        self._seen: set[str] = set()
        self.bad_lines = 0  # of all pages so far

    def read(self, exposition: Exposition, time_s: int) -> Mapped:
        """The values at `time_s`; a table with a longer cadence than the ticks has rows once in each cadence."""
        self._judge(exposition)
        mapped = Mapped(labels=self._resources(exposition))
        for target, terms in self._terms.items():
            tick = time_s // target.cadence_s
            if self._ticks.get(target) != tick:
                self._ticks[target] = tick
                mapped.rows[target] = self._rows(exposition, mapped.labels, terms, time_s)
        self._counters.keep()
        return mapped

    def _judge(self, exposition: Exposition) -> None:
        if exposition.bad_lines:
            self.bad_lines += exposition.bad_lines
            self._complaints.say(
                "an exporter's text has lines that cannot be read",
                lines=exposition.bad_lines,
                first=exposition.bad_line,
            )
        if not exposition.points:
            raise SourceUnavailableError(
                f"exporter {self._name} sends none of the {len(self._mapping.families)} families that its mapping "
                "knows: check that the address is that exporter's, and what it is told to export"
            )

    def _resources(self, exposition: Exposition) -> dict[str, Labels]:
        found: dict[str, Labels] = {}
        for family, points in exposition.points.items():
            for point in points:
                identity = self._mapping.identity_of(point.labels)
                if _is_dropped(point.labels, self._mapping.drop):
                    continue
                if not identity:
                    self._complaints.say("an exporter's family lacks the label that tells the resource", family)
                elif identity not in found or not any(self._mapping.part_of(point.labels)):
                    found.setdefault(identity, point.labels)
        self._seen |= found.keys()
        limit = self._mapping.max_resources
        if len(found) > limit or len(self._seen) > limit * MAX_TURNOVER:
            raise SourceUnavailableError(
                f"exporter {self._name} has {len(found)} resources and has had {len(self._seen)}, where {limit} are "
                "expected: see whether they are real, then raise max_resources in its mapping"
            )
        return found

    def _rows(
        self, exposition: Exposition, labels: Mapping[str, Labels], terms: Mapping[str, list[MetricRule]], time_s: int
    ) -> dict[str, dict[str, float]]:
        rows: dict[str, dict[str, float]] = {identity: {} for identity in labels}
        for metric, rules in terms.items():
            found = [self._values(rule, exposition, time_s) for rule in rules]
            for identity in set(found[0]).intersection(*found):  # a sum with a term unknown is unknown
                rows[identity][metric] = sum(values[identity] for values in found)
        return rows

    def _values(self, rule: MetricRule, exposition: Exposition, time_s: int) -> dict[str, float]:
        """The metric's value for each resource that has one, from the first family that has a number for it."""
        found: dict[str, tuple[Mapping[Part, Number], Labels]] = {}
        for family in rule.families:
            points = exposition.points.get(family)
            if points and self._has_type(rule, family, exposition):
                for identity, group in self._grouped(rule, points, time_s).items():
                    numbers = {} if identity in found else self._numbers(rule, family, group)
                    if numbers:
                        found[identity] = numbers, group[0].labels
        values = {
            identity: self._total(rule, identity, numbers, labels, time_s)
            for identity, (numbers, labels) in found.items()
        }
        return {identity: value for identity, value in values.items() if value is not None}

    def _has_type(self, rule: MetricRule, family: str, exposition: Exposition) -> bool:
        declared = exposition.declared(family)
        if not self._mapping.trust_types or declared in _UNTYPED or declared == rule.type:
            return True
        self._complaints.say(
            "an exporter's family is of another type than its mapping says", family, type=declared, wanted=rule.type
        )
        return False

    def _grouped(self, rule: MetricRule, points: Iterable[Point], time_s: int) -> dict[str, list[Point]]:
        grouped: dict[str, list[Point]] = {}
        for point in points:
            if _is_dropped(point.labels, self._mapping.drop) or _is_dropped(point.labels, rule.drop):
                continue
            if point.time_s is not None and abs(time_s - point.time_s) > self._mapping.max_age_s:
                self._complaints.say("an exporter's samples are too old, or from the future", rule.families[0])
                continue
            identity = self._mapping.identity_of(point.labels)
            if identity:
                grouped.setdefault(identity, []).append(point)
        return grouped

    def _numbers(self, rule: MetricRule, family: str, points: Sequence[Point]) -> dict[Part, Number]:
        """What the samples of one resource amount to, by the parts that are to be added; empty when nobody knows."""
        parts: dict[Part, list[Number]] = {}
        for point in points:
            numbers = parts.setdefault(self._mapping.part_of(point.labels), [])
            if is_number(point.value) and not any(sentinel.covers(point.value) for sentinel in rule.blank):
                numbers.append(point.value)
        whole = ("",) * len(self._mapping.part)
        if whole in parts:
            parts = {whole: parts[whole]}
        elif rule.repeats is Repeats.WHOLE:
            return {}
        elif rule.repeats is not Repeats.SUM:
            parts = {whole: list(chain.from_iterable(parts.values()))}
        if rule.repeats is Repeats.SAME and len(set(parts[whole])) > 1:
            self._complaints.say("an exporter's repeats of one resource contradict each other", family)
            return {}
        # A sum with a part unknown is unknown.
        return {part: max(numbers) for part, numbers in parts.items()} if all(parts.values()) else {}

    def _total(
        self, rule: MetricRule, identity: str, numbers: Mapping[Part, Number], labels: Labels, time_s: int
    ) -> float | None:
        """In the base unit. Counters are added as differences: a part that appears brings its past with it."""
        values = [
            self._in_base_unit(rule, "/".join((identity, *filter(None, part))), number, labels, time_s)
            for part, number in numbers.items()
        ]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    def _in_base_unit(self, rule: MetricRule, key: str, number: Number, labels: Labels, time_s: int) -> float | None:
        if rule.counter is None:
            value = rule.value(number)
            if value is None and rule.code(number):  # 0 is how most enumerations say "nothing"
                self._complaints.say("an exporter's state is not in its mapping", f"{rule.families[0]} {number}")
            return value
        count = number if isinstance(number, int) and rule.step == 1 else round(number / float(rule.step))
        epoch = f"{self._booted()} {self._mapping.epoch_of(labels)}".strip()
        where = f"{self._name}/{key}/{rule.families[0]}"
        return self._counters.delta(where, rule.counter, count, time_s=time_s, epoch=epoch) if count >= 0 else None


def _is_dropped(labels: Labels, drop: Mapping[str, Collection[str]]) -> bool:
    return any(labels.get(label) and (_ANY in values or labels[label] in values) for label, values in drop.items())


# Source --------------------------------------------------------------------------------------------------------------


class Known:
    """The resources that an exporter has shown, and what was last published about each."""

    def __init__(self, mapping: ExporterMapping, *, source: int) -> None:
        self._mapping = mapping
        self._source = source
        self._told = ToldBefore()
        self.labels: dict[str, Labels] = {}

    def see(self, labels: Mapping[str, Labels]) -> None:
        """Take in who is on the page. Those that are not are remembered as long as there is room."""
        self.labels = {**self.labels, **labels}
        if len(self.labels) > self._mapping.max_resources:
            self.labels = dict(labels)

    def messages(
        self, *, parent: int, time_ms: int, facts: Callable[[str], dict[str, str]] = lambda _: {}
    ) -> list[InventoryMessage]:
        """An inventory message for each resource, with the time since when it has said the same."""
        return [self._message(identity, parent, time_ms, facts(identity)) for identity in self.labels]

    def _message(self, identity: str, parent: int, time_ms: int, facts: Mapping[str, str]) -> InventoryMessage:
        known = self._mapping.facts_of(identity, self.labels[identity])
        words = dict.fromkeys(self._mapping.attributes, "") | known
        message = InventoryMessage(
            resource=resource_id(self._mapping.resource, identity),
            kind=self._mapping.resource,
            identity=identity,
            name=self._mapping.title.format_map(words).strip()[:MAX_IDENTITY_CHARACTERS] or identity,
            valid_from_ms=time_ms,
            parent=parent,
            source=self._source,
            attributes={**{name: fact for name, fact in known.items() if name != "identity"}, **facts},
        )
        return self._told.dated(message)


class PrometheusTextSource:
    """An exporter whose mapping file says it all.

    `name` tells several exporters of one mapping apart. `parent` is the resource that the exporter's belong to.
    `counters` keeps counters across restarts of the agent; without it the first tick has no deltas.
    """

    def __init__(
        self,
        page: ExporterPage,
        mapping: ExporterMapping,
        *,
        name: str = "",
        parent: int = 0,
        source: int | None = None,
        machine: TrayPlace | None = None,
        counters: CounterStore | None = None,
        booted: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._page = page
        self._mapping = mapping
        self._name = name or mapping.name
        self._parent = parent
        machine = machine or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{machine.identity}/{self._name}")
        self._reader = ExporterReader(mapping, name=self._name, counters=counters, booted=booted)
        self._known = Known(mapping, source=self._source)
        self._clock = clock

    @property
    def name(self) -> str:
        return self._name

    @property
    def bad_lines(self) -> int:
        """Lines of the exporter's text that could not be read, since the start."""
        return self._reader.bad_lines

    def inventory(self) -> Sequence[InventoryMessage]:
        """What the exporter has shown so far: nothing before the first read."""
        return self._known.messages(parent=self._parent, time_ms=int(self._clock() * 1000))

    def read(self, time_s: int) -> Sequence[Reading]:
        mapped = self._reader.read(self._page.read(self._mapping.families), time_s)
        self._known.see(mapped.labels)
        return mapped.readings(self._source, self._mapping.resource, time_s)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        return ()

    def close(self) -> None:
        pass
