"""The agent's /metrics: its own health, and the catalogue's alerting subset of the latest readings."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from catalogue import GPU, TABLES, Kind, Metric, Table
from collectors.crosscheck import EnergyCheck
from collectors.devices import DeviceReport, DeviceState
from collectors.kernel_clock import ClockState, read_clock_state
from collectors.source import Reading
from collectors.spool import Evicted, Outgoing, Spool
from stream.clock import Clock
from stream.rows import Rows, in_base_unit, join_rows

_READ_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STALE_INTERVALS = 3  # a reading that was missed so often is not shown as if it were still so
_SHOWN_DEVICES = 1000  # of one source: a page of some hundred kilobytes
_STALE_S = 15.0  # at least: a frame more or less is nothing to an alert

Family = GaugeMetricFamily | CounterMetricFamily


@dataclass(slots=True)
class SourceState:
    """How a source does. Written by its own thread, read by any: a thread that hangs cannot hide it."""

    name: str
    answered_at_s: float  # monotonic; of the start before the first answer
    deadline_s: float
    asked_at_s: float | None = None  # while a read is under way
    up: bool | None = None
    why: str = ""

    def asked(self, now_s: float) -> None:
        self.asked_at_s = now_s

    def returned(self) -> None:
        self.asked_at_s = None

    def answered(self, now_s: float) -> None:
        self.up, self.why, self.answered_at_s, self.asked_at_s = True, "", now_s, None

    def failed(self, why: str) -> None:
        self.up, self.why, self.asked_at_s = False, why, None

    def verdict(self, now_s: float) -> tuple[bool | None, str]:
        """Whether the source works, None before its first tick; and why not."""
        asked_at_s = self.asked_at_s
        if asked_at_s is not None and now_s - asked_at_s > self.deadline_s:
            return False, f"its read has not returned for {now_s - asked_at_s:.0f} s"
        return self.up, self.why


class AgentMetrics:
    """The agent's own figures, in one registry of the process."""

    def __init__(
        self,
        registry: CollectorRegistry,
        spool: Spool,
        *,
        clock: Clock,
        readings: bool = True,
        clock_state: Callable[[], ClockState | None] = read_clock_state,
    ) -> None:
        self._latest = _LatestReadings(clock) if readings else None
        if self._latest is not None:
            registry.register(self._latest)
        self._health = _AgentHealth(clock, clock_state)
        registry.register(self._health)
        self._read_seconds = Histogram(
            "kvandal_agent_read_seconds", "Time that one read of a source took.", ["source"],
            buckets=_READ_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._missed = Counter(
            "kvandal_agent_missed_ticks_total",
            "Ticks that were not read: the source was still busy, or the machine's clock was set.",
            ["source", "reason"], registry=registry,
        )  # fmt: skip
        self._produced = Counter(
            "kvandal_agent_rows_total", "Rows that the broker has acknowledged.", ["topic"], registry=registry
        )
        self._lost = Counter(
            "kvandal_agent_lost_rows_total", "Rows that were lost, by reason.", ["topic", "reason"], registry=registry
        )
        self._broker_up = Gauge(
            "kvandal_agent_broker_up", "Whether the broker took what was last sent to it.", registry=registry
        )
        self._topic_blocked = Gauge(
            "kvandal_agent_topic_blocked",
            "Whether the topic is set aside because it takes no values, while others do.",
            ["topic"], registry=registry,
        )  # fmt: skip
        spool_bytes = Gauge("kvandal_agent_spool_bytes", "Bytes that wait in the spool.", registry=registry)
        spool_bytes.set_function(lambda: spool.size_bytes)
        limit_bytes = Gauge(
            "kvandal_agent_spool_limit_bytes", "Bytes beyond which the oldest readings make room.", registry=registry
        )
        limit_bytes.set(spool.limit_bytes)

    def watch(self, state: SourceState) -> None:
        """Show this source's state from now on."""
        self._health.states = [*self._health.states, state]

    def forget(self, state: SourceState) -> None:
        """Show it no longer."""
        self._health.states = [kept for kept in self._health.states if kept is not state]
        self._health.timings.pop(state.name, None)
        self._health.devices.pop(state.name, None)

    def read_took(self, source: str, seconds: float) -> None:
        self._read_seconds.labels(source).observe(seconds)

    def timings(self, source: str, timings: Mapping[tuple[str, str], float]) -> None:
        self._health.timings[source] = timings

    def devices(self, source: str, reports: Sequence[DeviceReport]) -> None:
        """How the devices of a source do, as of its last tick."""
        self._health.devices[source] = reports

    def missed_ticks(self, source: str, *, busy: int, clock: int) -> None:
        for reason, count in (("busy", busy), ("clock", clock)):
            self._missed.labels(source, reason).inc(count)

    def produced(self, topic: str, rows: int) -> None:
        self._produced.labels(topic).inc(rows)

    def broker_answers(self, *, up: bool) -> None:
        self._broker_up.set(up)

    def topic_blocked(self, topic: str, *, blocked: bool) -> None:
        self._topic_blocked.labels(topic).set(blocked)

    def lost(self, frames: Iterable[Outgoing]) -> None:
        """Frames that the spool could not take."""
        for frame in frames:
            self._lost.labels(frame.topic, "spool refused").inc(frame.rows)

    def evicted(self, evicted: Iterable[Evicted]) -> None:
        for account in evicted:
            reason = "evicted, perhaps sent" if account.sent else "evicted"
            self._lost.labels(account.topic, reason).inc(account.rows)

    def latest(self, readings: Sequence[Reading], *, interval_s: float) -> None:
        if self._latest is not None:
            self._latest.update(readings, interval_s)


class _AgentHealth(Collector):
    """What is judged when Prometheus asks, not when a source answers: one that hangs would never be judged."""

    def __init__(self, clock: Clock, clock_state: Callable[[], ClockState | None]) -> None:
        self.states: list[SourceState] = []
        self.timings: dict[str, Mapping[tuple[str, str], float]] = {}
        self.devices: dict[str, Sequence[DeviceReport]] = {}
        self._clock = clock
        self._clock_state = clock_state

    def collect(self) -> Iterator[Family]:
        now_s = self._clock.monotonic_s()
        up = GaugeMetricFamily("kvandal_agent_source_up", "Whether the source answers at its ticks.", labels=["source"])
        age = GaugeMetricFamily(
            "kvandal_agent_source_age_seconds", "Time since the source last answered, or since the start.",
            labels=["source"],
        )  # fmt: skip
        for state in self.states:
            works, _ = state.verdict(now_s)
            if works is not None:
                up.add_metric([state.name], works)
            age.add_metric([state.name], max(now_s - state.answered_at_s, 0.0))
        yield up
        yield age
        yield from self._device_families()
        yield from self._clock_families()

    def _device_families(self) -> Iterator[Family]:
        up = GaugeMetricFamily(
            "kvandal_agent_device_up", "Whether the device answers as it should.",
            labels=["source", "device"],
        )  # fmt: skip
        doing = GaugeMetricFamily(
            "kvandal_agent_device_state", "How the device does: 1 for the state that it is in.",
            labels=["source", "device", "state"],
        )  # fmt: skip
        left_out = GaugeMetricFamily(
            "kvandal_agent_devices_left_out", "Devices of the source that are too many to be shown one by one.",
            labels=["source"],
        )  # fmt: skip
        seconds = GaugeMetricFamily(
            "kvandal_agent_device_seconds", "Time that a device took at the last tick, by what was asked of it.",
            labels=["source", "device", "asked"],
        )  # fmt: skip
        took: dict[tuple[str, str, str], float] = {}
        for source, reports in list(self.devices.items()):
            shown, hidden = _shown(reports)
            left_out.add_metric([source], hidden)
            for report in shown:
                if report.state is not DeviceState.UNKNOWN:
                    up.add_metric([source, report.device], report.state is DeviceState.OK)
                doing.add_metric([source, report.device, report.state.value], 1)
                if report.took_s is not None:
                    took[(source, report.device, "read")] = report.took_s
        for source, timings in list(self.timings.items()):
            took |= {(source, device, asked): took_s for (device, asked), took_s in timings.items()}
        for labels, took_s in took.items():
            seconds.add_metric(list(labels), took_s)
        yield from (up, doing, left_out, seconds)

    def _clock_families(self) -> Iterator[Family]:
        state = self._clock_state()
        if state is None:
            return
        synchronised = GaugeMetricFamily(
            "kvandal_agent_clock_synchronised", "Whether the kernel says that something keeps its clock in step."
        )
        synchronised.add_metric([], state.synchronised)
        yield synchronised
        error = GaugeMetricFamily(
            "kvandal_agent_clock_error_seconds",
            "How wrong the clock may be at most, by the kernel's account.",
        )
        error.add_metric([], state.max_error_s)
        yield error


def _shown(reports: Sequence[DeviceReport]) -> tuple[Sequence[DeviceReport], int]:
    """The reports to show, those of devices that fail first; and how many are left out."""
    by_device = {report.device: report for report in reports}  # two lines of one name would void the page
    ordered = sorted(by_device.values(), key=lambda report: report.state is DeviceState.OK)
    return ordered[:_SHOWN_DEVICES], max(len(ordered) - _SHOWN_DEVICES, 0)


class _LatestReadings(Collector):
    """The exported metrics of the latest tick of every source, made when Prometheus asks.

    A delta is exposed as the counter that it adds up to since the agent started. What has not been read for a while is
    not shown: a GPU that hangs must not look as it did before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._rows: dict[tuple[int, str], tuple[Rows, float]] = {}  # and until when they are shown
        self._sums: defaultdict[tuple[str, str, int], float] = defaultdict(float)
        self._energy = EnergyCheck()

    def update(self, readings: Sequence[Reading], interval_s: float) -> None:
        with self._lock:
            for reading in readings:
                last_s = int(reading.rows["time"][-1])
                until_s = last_s + max(_STALE_INTERVALS * max(interval_s, reading.table.cadence_s), _STALE_S)
                last_tick = reading.rows[reading.rows["time"] == last_s]
                self._rows[(reading.source, reading.table.name)] = last_tick, until_s
                for metric in reading.table.of_kind(Kind.DELTA):
                    if metric.exported:
                        self._add(reading.table, metric, reading.rows)
                if reading.table is GPU:
                    self._check_energy(reading.rows)

    def _add(self, table: Table, metric: Metric, rows: Rows) -> None:
        for resource, value in zip(rows["resource"].tolist(), in_base_unit(metric, rows).tolist(), strict=True):
            if value == value:  # NaN is no reading
                self._sums[(table.name, metric.name, resource)] += value

    def _check_energy(self, rows: Rows) -> None:
        columns = (
            rows["resource"].tolist(),
            rows["time"].tolist(),
            in_base_unit(GPU.metric("energy_joules"), rows).tolist(),
            in_base_unit(GPU.metric("power_watts"), rows).tolist(),
        )
        for resource, time_s, energy_joules, power_watts in zip(*columns, strict=True):
            self._energy.add(resource, time_s, energy_joules, power_watts)

    def collect(self) -> Iterator[Family]:
        with self._lock:
            for table in TABLES:
                rows = self._fresh(table)
                if rows:
                    joined = join_rows(rows)
                    yield from (self._family(table, metric, joined) for metric in table.metrics if metric.exported)
            yield self._energy_family()

    def _fresh(self, table: Table) -> list[Rows]:
        now_s = self._clock.utc_ms() / 1000
        return [rows for (_, name), (rows, until_s) in self._rows.items() if name == table.name and now_s <= until_s]

    def _family(self, table: Table, metric: Metric, rows: Rows) -> Family:
        adds_up = metric.kind is Kind.DELTA
        make = CounterMetricFamily if metric.kind in (Kind.DELTA, Kind.REGISTER) else GaugeMetricFamily
        family = make(table.prometheus_name(metric), metric.help, labels=["resource"])
        for resource, value in zip(rows["resource"].tolist(), in_base_unit(metric, rows).tolist(), strict=True):
            shown = self._sums.get((table.name, metric.name, resource)) if adds_up else value
            if shown is not None and shown == shown:
                family.add_metric([f"{resource:016x}"], shown)
        return family

    def _energy_family(self) -> Family:
        family = GaugeMetricFamily(
            "kvandal_agent_energy_ratio",
            "Energy by the GPU's counter over its power integrated, in the last full five minutes.",
            labels=["resource"],
        )
        for resource, ratio in self._energy.ratios.items():
            family.add_metric([f"{resource:016x}"], ratio)
        return family
