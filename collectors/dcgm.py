"""The GPUs of this node through NVIDIA's dcgm-exporter: its mapping file, dark GPUs, and XIDs as events.

For nodes where an exporter runs already and NVML is not to be asked a second time. Its text is no fresher than its own
collection interval, 30 s by default, and nothing in it says how old a number is.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from catalogue import GPU, GPU_HEALTH, ResourceKind, resource_id
from catalogue.gpu import GPU_STATES
from catalogue.xid import judge
from catalogue.xid import xid as known_xid
from collectors.counters import CounterStore, ForgetfulStore, KeptCounter
from collectors.exporter_page import TIMEOUT_S, ExporterPage
from collectors.exporter_reader import ExporterReader, Known
from collectors.mapping import ExporterMapping, parse_mapping
from collectors.prometheus_text import Exposition, Point
from collectors.source import Reading
from collectors.tray import TrayPlace, boot_id, this_machine
from stream.messages import EventMessage, InventoryMessage, JobMessage

URL = "http://127.0.0.1:9400/metrics"  # where dcgm-exporter listens unless it is told otherwise
READABLE, _, DARK = (state for state, _ in GPU_STATES)
# Where the agent says whether it could read a GPU.
STATES = {GPU: "gpu_state", GPU_HEALTH: "health_state"}

XID_TOTAL = "DCGM_EXP_XID_ERRORS_TOTAL"  # a counter by code, since the exporter's start
XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"  # how many of a code in the last minutes; 0 without a code when there are none
XID_LAST = ("DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR")  # field 230: the last code, for ever
XID_FAMILIES = frozenset({XID_TOTAL, XID_COUNT, *XID_LAST})
XID_LABEL = "xid"
MAX_CODE = 1023  # several times the highest XID that there is, and below every blank


_KEY = "dcgm/xid/"  # in the counter store


def dcgm_mapping() -> ExporterMapping:
    """The mapping of dcgm-exporter that comes with the collectors."""
    file = files("collectors") / "mappings" / "dcgm.toml"
    return parse_mapping(file.read_text(encoding="utf-8"), where="collectors/mappings/dcgm.toml")


@dataclass(frozen=True, slots=True)
class Xid:
    """`count` XIDs of one code that a GPU has had since the page before; `family` is what told it."""

    gpu: str
    code: int
    count: int
    family: str
    detail: str = ""


class XidWatch:
    """Finds new XIDs in an exporter's pages, from the best of the three ways in which it may tell them.

    The last code is sticky: a repeat of it is invisible, so is all but the last of several between two pages. The
    windowed count hides an XID that comes while another one leaves the window. The total is exact, but for what
    happened while the exporter was down, or between its start and our first look. A code that is there at the very
    first look is old, as far as anybody knows. `store` keeps what was seen across restarts of the agent.
    """

    def __init__(self, mapping: ExporterMapping, store: CounterStore | None = None) -> None:
        self._mapping = mapping
        self._store = store or ForgetfulStore()
        self._kept: dict[str, int] = {}
        self._seen: set[str] = set()

    def look(self, exposition: Exposition, gpus: Iterable[str], time_s: int) -> list[Xid]:
        """The XIDs of each of `gpus` that the page before did not have."""
        before = dict(self._kept)
        total = self._counted(exposition, XID_TOTAL)
        count = self._counted(exposition, XID_COUNT)
        last = self._last(exposition)
        found = []
        for gpu in gpus:
            by_total = self._increments(gpu, XID_TOTAL, total.get(gpu, {}))
            by_count = self._increments(gpu, XID_COUNT, count.get(gpu, {}))
            by_last = self._changes(gpu, last.get(gpu, []))
            # A total shows up with its first XID only.
            if XID_TOTAL in exposition.types or gpu in total:
                found += by_total
            else:
                found += by_count if gpu in count else by_last
            self._seen.add(gpu)
        changed = {key: value for key, value in self._kept.items() if before.get(key) != value}
        if changed:
            self._store.put({key: KeptCounter(value, 0, time_s) for key, value in changed.items()})
        return found

    def _counted(self, exposition: Exposition, family: str) -> dict[str, dict[int, int]]:
        """How many of each code, by GPU; a GPU without XIDs has none of any. Instances repeat their GPU's."""
        counted: dict[str, dict[int, int]] = {}
        for point in exposition.points.get(family, ()):
            codes = counted.setdefault(self._mapping.identity_of(point.labels), {})
            code = point.labels.get(XID_LABEL, "")
            number = _whole(point)
            if code.isascii() and code.isdecimal() and 0 < int(code) <= MAX_CODE and number is not None:
                codes[int(code)] = max(number, codes.get(int(code), 0))
        return counted

    def _last(self, exposition: Exposition) -> dict[str, list[Point]]:
        points: dict[str, list[Point]] = {}
        for family in XID_LAST:
            for point in exposition.points.get(family, ()):
                points.setdefault(self._mapping.identity_of(point.labels), []).append(point)
        return points

    def _increments(self, gpu: str, family: str, counts: Mapping[int, int]) -> list[Xid]:
        """What was added. A lower number is a window that moved on or an exporter that started again, and is no XID."""
        found = []
        for code in counts.keys() | self._codes(gpu, family):
            now = counts.get(code, 0)
            before = self._remember(gpu, f"{family}/{code}", now)
            if before is not None and now > before:
                found.append(Xid(gpu, code, now - before, family))
        return sorted(found, key=lambda xid: xid.code)

    def _codes(self, gpu: str, family: str) -> set[int]:
        """The codes that the GPU has had before in this family."""
        head = f"{_KEY}{gpu}/{family}/"
        return {int(key.removeprefix(head)) for key in self._kept if key.startswith(head)}

    def _changes(self, gpu: str, points: Iterable[Point]) -> list[Xid]:
        """The codes that are last now and were not before; no code at all is not a change."""
        found: dict[int, Xid] = {}
        for point in points:
            code = _whole(point)
            if code is None or code > MAX_CODE:
                continue
            key = "/".join(("last", *filter(None, self._mapping.part_of(point.labels))))
            if self._remember(gpu, key, code) not in (None, code) and code:
                detail = point.labels.get("err_msg", "")[:256]
                found[code] = Xid(gpu, code, 1, XID_LAST[0], detail)
        return list(found.values())

    def _remember(self, gpu: str, what: str, now: int) -> int | None:
        """What it was on the page before: 0 for a GPU that was there without it, None at the very first look."""
        key = f"{_KEY}{gpu}/{what}"
        before = self._kept.get(key)
        if before is None:
            kept = self._store.get(key)
            first = 0 if gpu in self._seen else None
            before = kept.raw if kept is not None else first
        self._kept[key] = now
        return before


def _whole(point: Point) -> int | None:
    """A sample's number where it can be a count or a code."""
    return int(point.value) if 0 <= point.value < 1 << 31 and point.value == int(point.value) else None


class DcgmSource:
    """The GPUs that a dcgm-exporter shows, as rows of tables `gpu` and `gpu_health`.

    A GPU that was on a page and is not any more is dark: its row says so and nothing else. `tray` is the tray that the
    GPUs belong to. `counters` keeps counters and XIDs seen across restarts of the agent; without it the first tick has
    no deltas. It writes the same rows as NvmlSource: an agent has one of the two.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        mapping: ExporterMapping | None = None,
        tray: TrayPlace | None = None,
        source: int | None = None,
        counters: CounterStore | None = None,
        timeout_s: float = TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        booted: Callable[[], str] = boot_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._mapping = mapping or dcgm_mapping()
        self._page = ExporterPage(url, timeout_s=timeout_s, headers=headers)
        self._tray = tray or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{self._tray.identity}/{self.name}")
        self._reader = ExporterReader(self._mapping, name=self.name, counters=counters, booted=booted)
        self._known = Known(self._mapping, source=self._source)
        self._xids = XidWatch(self._mapping, counters)
        self._events: list[EventMessage] = []
        self._split: Collection[str] = ()  # GPUs in MIG mode
        self._clock = clock

    @property
    def name(self) -> str:
        return "dcgm"

    @property
    def bad_lines(self) -> int:
        """Lines of the exporter's text that could not be read, since the start."""
        return self._reader.bad_lines

    def inventory(self) -> Sequence[InventoryMessage]:
        """The GPUs that the exporter has shown so far: none before the first read."""
        return self._known.messages(parent=self._tray.resource, time_ms=int(self._clock() * 1000), facts=self._facts)

    def read(self, time_s: int) -> Sequence[Reading]:
        exposition = self._page.read(self._mapping.families | XID_FAMILIES)
        mapped = self._reader.read(exposition, time_s)
        self._known.see(mapped.labels)
        self._split = {
            self._mapping.identity_of(point.labels)
            for points in exposition.points.values()
            for point in points
            if any(self._mapping.part_of(point.labels))
        }
        self._events += [self._event(xid, time_s) for xid in self._xids.look(exposition, mapped.labels, time_s)]
        for table, state in STATES.items():
            if table in mapped.rows:
                read = mapped.rows[table]
                mapped.rows[table] = {gpu: _judged(read.get(gpu, {}), state) for gpu in self._known.labels}
        return mapped.readings(self._source, ResourceKind.GPU, time_s)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """New XIDs, with the time of the page that showed them first: when they happened it does not say."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        pass

    def _event(self, xid: Xid, time_s: int) -> EventMessage:
        resource, entry = resource_id(ResourceKind.GPU, xid.gpu), known_xid(xid.code)
        facts = {
            "class": str(judge(xid.code, xid.detail)),
            "action": str(entry.action),
            "detail": xid.detail,
            "source": "dcgm",
            "family": xid.family,
            "witnesses": "dcgm",
        }
        return EventMessage(
            id=f"xid-{xid.code}-{resource:016x}-{time_s * 1000}-dcgm",
            resource=resource,
            time_ms=time_s * 1000,
            kind="xid",
            code=xid.code,
            count=xid.count,
            text=entry.meaning,
            source=self._source,
            attributes={name: fact for name, fact in facts.items() if fact},
        )

    def _facts(self, gpu: str) -> dict[str, str]:
        return {"mig": "enabled"} if gpu in self._split else {}


def _judged(values: Mapping[str, float], state: str) -> dict[str, float]:
    return {**values, state: READABLE if values else DARK}
