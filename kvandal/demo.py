"""`kvandal demo` and `kvandal up`: the whole pipeline on one machine, and the account of what it did."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from kvandal.fault import Fault
from kvandal.simulating import SimulatedSite
from kvandal.stack import Stack, StackOptions
from kvandal.tally import ProducedCount, TableCount, count_tables
from reports.period import Period
from storage.client import connect
from storage.reader import Reader
from storage.roles import RoleName

if TYPE_CHECKING:
    from dashboards.preview_server import PreviewServer

_MARKER = "kvandal.json"
# A short demo should have something break; the site's own rates give 512 GPUs a fault every few days.
_DEMO_FAULT_RATE = 3.0
# A node's own 10 s would show little in a demo of seconds, or nothing.
_HOST_INTERVAL_S = 1


class SourceChoice(StrEnum):
    AUTO = "auto"  # the GPUs of this machine where NVML finds some, else a simulated site
    SIMULATOR = "simulator"
    NVML = "nvml"
    HOST = "host"


class FolderError(OSError):
    """The folder is not one of ours; it is left alone."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo is to do."""

    out: Path
    gpus: int = 512
    seconds: int = 60
    seed: int = 1
    days: int | None = None  # of history, the whole month unless given
    source: SourceChoice = SourceChoice.AUTO
    door_port: int = 0
    fault: Fault | None = None


@dataclass(slots=True)
class DemoResult:
    """What was counted, and where things are."""

    tables: list[TableCount] = field(default_factory=list)
    phases_s: dict[str, float] = field(default_factory=dict)
    produced_by_source: dict[str, dict[str, int]] = field(default_factory=dict)
    report: Path | None = None
    door_url: str = ""
    metrics_url: str = ""
    previews_url: str = ""

    def total(self, part: str) -> int:
        return sum(getattr(count, part) for count in self.tables)

    @property
    def holds(self) -> bool:
        """Whether every row that was produced is stored, once."""
        produced, stored = self.total("produced"), self.total("stored")
        return 0 < produced == stored and not self.total("lost") and not self.total("duplicated")

    @property
    def rows_per_second(self) -> float:
        """Rows stored over the time in which they were produced."""
        return self.total("stored") / max(self.phases_s.get("month", 0.0) + self.phases_s.get("live", 0.0), 1e-9)

    def summary(self) -> dict[str, Any]:
        """The content of --summary FILE."""
        return {
            **{part: self.total(part) for part in ("produced", "stored", "lost", "duplicated")},
            "rows_per_second": round(self.rows_per_second),
            "seconds": {phase: round(seconds, 2) for phase, seconds in self.phases_s.items()},
            "tables": {
                c.table: {"produced": c.produced, "stored": c.stored, "lost": c.lost, "duplicated": c.duplicated}
                for c in self.tables
            },
            "produced_by_source": self.produced_by_source,
            "report": str(self.report) if self.report else None,
            "clickhouse": self.door_url,
            "dashboards": self.previews_url,
        }


class Screen(Protocol):
    """Where progress is shown."""

    def phase(self, text: str) -> None: ...

    def progress(self, done: float, total: float) -> None: ...


class Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions, screen: Screen, stop: Event) -> None:
        self._options = options
        self._screen = screen
        self._stop = stop
        self._result = DemoResult()

    @contextmanager
    def run(self) -> Iterator[DemoResult]:
        """Do everything, and hand out the result while the store can still be asked."""
        options = self._options
        claim_folder(options.out, fresh=True)
        with self._phase("start"):
            stack = Stack(StackOptions(options.out, door_port=options.door_port, fault=options.fault)).__enter__()
        try:
            self._result.door_url, self._result.metrics_url = stack.door_url, stack.metrics_url
            simulated = choose_source(options.source) is SourceChoice.SIMULATOR
            self._produce(stack, self._agent_arguments(simulated=simulated))
            self._count(stack)
            if simulated and not self._stop.is_set():
                self._report(stack)
            with self._serve_previews(stack, simulated=simulated) as previews:
                self._result.previews_url = previews.url
                yield self._result
        finally:
            stack.__exit__(None, None, None)

    def _serve_previews(self, stack: Stack, *, simulated: bool) -> "PreviewServer":
        """Ranges end with the simulated month, or with the live readings: no agent runs any more."""
        from dashboards.preview_server import Moments, PreviewServer

        live = datetime.now(UTC)
        moments = Moments.of(end_of_the_live_readings=live)
        if simulated:
            moments = Moments.of(end_of_the_simulated_month=previous_month().end, end_of_the_live_readings=live)
        return PreviewServer(stack.address(RoleName.REPORTS), moments)

    def _agent_arguments(self, *, simulated: bool) -> list[str]:
        options, counts = self._options, str(self._options.out / "produced.json")
        if not simulated:
            source = choose_source(options.source)
            spool = str(options.out / "spool.db")
            reading = ["agent", "--source", source, "--host-interval", str(_HOST_INTERVAL_S), "--port", "0"]
            return [*reading, "--spool", spool, "--until-stored", "--counts", counts]
        site = previous_month_site(options.gpus, options.seed, options.days)
        return simulate_arguments(options.out, site, counts)

    def _produce(self, stack: Stack, arguments: Sequence[str]) -> None:
        """Run the agents through their month, if they have one, and then live for the time asked for."""
        started_s = time.monotonic()
        live_since_s: list[float] = []

        def on_facts(facts: dict[str, Any]) -> None:
            if facts["phase"] == "month":
                self._screen.progress(facts["done"], facts["total"])
            elif facts["phase"] == "live":
                live_since_s.append(time.monotonic())
                self._screen.phase(f"live for {self._options.seconds} s")

        stack.start_agents(arguments)
        self._screen.phase("simulating a month" if arguments[0] == "simulate" else "reading this machine")
        stack.watch(on_facts, until=lambda: self._is_over(live_since_s))
        live_s = live_since_s[0] if live_since_s else time.monotonic()
        self._result.phases_s["month"] = live_s - started_s
        self._screen.phase("waiting until everything is stored")
        stack.stop_agents()
        self._result.phases_s["live"] = time.monotonic() - live_s

    def _is_over(self, live_since_s: Sequence[float]) -> bool:
        """Whether we are told to stop, or the live part has lasted as long as it should."""
        if self._stop.is_set() or not live_since_s:
            return self._stop.is_set()
        elapsed_s = time.monotonic() - live_since_s[0]
        self._screen.progress(min(elapsed_s, self._options.seconds), self._options.seconds)
        return elapsed_s >= self._options.seconds

    def _count(self, stack: Stack) -> None:
        with self._phase("count"):
            self._screen.phase("counting")
            path = self._options.out / "produced.json"
            produced = msgspec.json.decode(path.read_bytes(), type=ProducedCount)
            self._result.produced_by_source = produced.sources
            self._result.tables = count_tables(connect(stack.address(RoleName.REPORTS)), produced)

    def _report(self, stack: Stack) -> None:
        from reports.render import PipelineCounts
        from reports.site import write_site_report

        with self._phase("report"):
            self._screen.phase("writing the report")
            counts = PipelineCounts(
                **{part: self._result.total(part) for part in ("produced", "stored", "lost", "duplicated")}
            )
            self._result.report = write_site_report(
                Reader(connect(stack.address(RoleName.REPORTS))),
                previous_month(),
                self._options.out / "report",
                now=datetime.now(UTC),
                counts=counts,
            )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started_s = time.monotonic()
        yield
        self._result.phases_s[name] = time.monotonic() - started_s


def choose_source(choice: SourceChoice) -> SourceChoice:
    """AUTO becomes NVML where the library finds a GPU, else the simulator."""
    if choice is not SourceChoice.AUTO:
        return choice
    from collectors.nvml.source import NvmlSource

    source = NvmlSource()
    try:
        return SourceChoice.NVML if source.inventory() else SourceChoice.SIMULATOR
    finally:
        source.close()


def previous_month_site(gpus: int, seed: int, days: int | None = None) -> SimulatedSite:
    """A site whose history is the calendar month before this one, in the site's time zone, or its last `days`."""
    period = previous_month()
    start = period.start if days is None else max(period.start, period.end - timedelta(days=days))
    return SimulatedSite(
        gpus=gpus,
        seed=seed,
        month_start_s=int(start.timestamp()),
        month_end_s=int(period.end.timestamp()),
        fault_rate=_DEMO_FAULT_RATE,
    )


def simulate_arguments(out: Path, site: SimulatedSite, counts: str = "") -> list[str]:
    """The verb and options of the child process that simulates `site`."""
    arguments = ["simulate", "--data", str(out), "--site", msgspec.json.encode(site).decode(), "--until-stored"]
    return arguments + (["--counts", counts] if counts else [])


def claim_folder(path: Path, *, fresh: bool) -> None:
    """Make `path` ours. FolderError when it holds something that is not; with `fresh`, ours is emptied."""
    if path.exists() and any(path.iterdir()) and not (path / _MARKER).exists():
        raise FolderError(f"{path} holds other files; give an empty or a new folder with --out")
    if fresh and path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / _MARKER).write_text(json.dumps({"made_by": "kvandal"}) + "\n")


def previous_month() -> Period:
    """The calendar month before this one, in the site's time zone: the one that is simulated."""
    return Period.last_month(datetime.now(UTC))
