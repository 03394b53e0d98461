"""What Kvandal is to reach on two cores: each goal is a figure of one benchmark, held against its bound."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Documents come from JSON, whose shape each benchmark describes.
Json = Any


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that should be at least, or at most, its bound. `against` is what stands beside it in the same run.

    `is_ratio`: it is held against a limit of the same run, so that another machine's figure can be compared with it.
    `why` says why it is not reached, where that is known.
    """

    key: str
    what: str
    against: str
    benchmark: str
    value: Callable[[Json], float]
    bound: float
    unit: str = ""
    at_least: bool = False
    is_ratio: bool = False
    why: str = ""

    @property
    def bound_text(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"

    def text(self, value: float) -> str:
        return f"{value:.3g}{self.unit}" if abs(value) < 1000 else f"{value:,.0f}{self.unit}"

    def is_reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def has_regressed(self, value: float, before: float) -> bool:
        """Worse than before by more than a third."""
        return value < before * 2 / 3 if self.at_least else value > before * 4 / 3


def _drain(ticks: int, broker: str) -> Callable[[Json], float]:
    def ratio(document: Json) -> float:
        (run,) = (one for one in document if one["rows_per_message"] == ticks * 4)
        (drained,) = (one for one in run["drained"] if one["what"] == broker)
        return float(drained["ratio_to_ready_blocks"])

    return ratio


def _dearest_report(field: str) -> Callable[[Json], float]:
    return lambda document: max(float(one[field]) for one in document if one["gpus"] == 100_000)


def _against_victoria_metrics(goal: str) -> Callable[[Json], float]:
    return lambda document: float(document["goals"][goal]["measured"])


def _reading_to_queryable(document: Json) -> float:
    """Of the oldest reading of a frame. KeyError where the site did not keep up: then no figure counts."""
    return float(document["reading_to_queryable_s"]["gpu"]["oldest_tick"]["p99"])


def _rows_off(document: Json) -> float:
    return float(sum(rows["lost"] + rows["duplicated"] for rows in document["rows"].values()))


def _drained_after(document: Json) -> float:
    """Infinite where it did not."""
    seconds = document["drained_s_after_last_frame"]
    return float("inf") if seconds is None else float(seconds)


def _more_instructions(document: Json) -> float:
    """By how many interpreter instructions the largest frame takes more than the smallest."""
    first, last = document["frames"][0], document["frames"][-1]
    return float(sum(last[way]["instructions"] - first[way]["instructions"] for way in ("encode", "decode")))


def _beside_bare_reads(document: Json) -> float:
    bare = document["bare_loop_of_the_same_reads"]
    return float(document["agent"]["processor_ms_per_tick"] / bare["processor_ms_per_tick"])


def _of_sizes(document: Json) -> float:
    """Processor time of a row in inserts of the default size, beside the cheapest size."""
    costs = {one["rows_per_insert"]: float(one["processor_us_per_row"]) for one in document["sizes"]}
    return costs[document["default"]] / min(costs.values())


def _last_beside_first(part: str, field: str) -> Callable[[Json], float]:
    """Of a growing series: `part` of the document, or the document itself."""

    def ratio(document: Json) -> float:
        series = document[part] if part else document
        return float(series[-1][field] / series[0][field])

    return ratio


def _most_memory_grew(document: Json) -> float:
    return max(float(document[f"{name}_resident_mb"]["grew_percent"]) for name in ("ingest", "store"))


def _more_of_a_core(document: Json) -> float:
    ours, other = (
        float(document["clients"][client]["reads_100_000_gpus_percent_of_a_core"])
        for client in ("kafka-python", "confluent-kafka")
    )
    return ours - other


def _codecs(sample: str) -> Callable[[Json], float]:
    return lambda document: float(document[sample]["catalogue_beside_smallest"])


_DRAIN_WHY = (
    "with ready blocks the engine has both cores to itself, and the next block at once; in a drain it shares them with "
    "the broker, the client and the building of rows: some 1 µs of processor a row beside its own 3"
)

GOALS = (
    Goal(
        "drain_40", "ingest drains Apache Kafka, 40 rows a message, exactly once", "inserting ready-made Native blocks",
        "ingest_drain", _drain(10, "Apache Kafka"), 0.60, at_least=True, is_ratio=True, why=_DRAIN_WHY,
    ),
    Goal(
        "drain_40_embedded", "ingest drains the embedded broker, 40 rows a message", "the same",
        "ingest_drain", _drain(10, "embedded broker"), 0.60, at_least=True, is_ratio=True, why=_DRAIN_WHY,
    ),
    Goal(
        "drain_80", "ingest drains Apache Kafka, 80 rows a message", "the same",
        "ingest_drain", _drain(20, "Apache Kafka"), 0.80, at_least=True, is_ratio=True, why=_DRAIN_WHY,
    ),
    Goal(
        "drain_80_embedded", "ingest drains the embedded broker, 80 rows a message", "the same",
        "ingest_drain", _drain(20, "embedded broker"), 0.80, at_least=True, is_ratio=True, why=_DRAIN_WHY,
    ),
    Goal(
        "site_drained", "100,000 GPUs at 1 Hz for 10 minutes, all on two cores: all stored after the last frame",
        "real time", "whole_site", _drained_after, 10.0, " s",
    ),
    Goal(
        "site_late", "the same site: reading to queryable, 99 %, the oldest of a frame's ten ticks", "real time",
        "whole_site", _reading_to_queryable, 20.0, " s",
        why="the load generator was late, as the next line says",
    ),
    Goal(
        "site_load", "the same site: how late the load generator was, 99 %", "real time",
        "whole_site", lambda document: float(document["load"]["late_s"]["p99"]), 1.0, " s",
        why="it fell behind on the cores that it shares with all others; the times above hold that delay, since "
        "readings carry the second at which they were due. Ingest kept up with what was sent",
    ),
    Goal(
        "site_rows", "the same site: rows lost or duplicated", "what the load generator sent",
        "whole_site", _rows_off, 0.0,
    ),
    Goal(
        "bytes", "bytes on disk per present reading, the 24 noisiest columns", "the same readings in the others",
        "rivals", _against_victoria_metrics("bytes_per_reading"), 0.60, " B",
    ),
    Goal(
        "bytes_victoria", "the same beside VictoriaMetrics", "the same readings in VictoriaMetrics",
        "rivals", _against_victoria_metrics("bytes_to_victoria_metrics"), 0.75, is_ratio=True,
        why="what is left is noise: the smallest of ten codecs for each column would take some 7 % less (see Codecs) "
        "and cost more to write",
    ),
    Goal(
        "processor_victoria", "processor time per reading stored, beside VictoriaMetrics",
        "its cheapest import format that others can write", "rivals",
        _against_victoria_metrics("processor_to_victoria_metrics"), 0.125, is_ratio=True,
        why="ours holds the client, the minute rollup and 18 columns of nothing; theirs only the server",
    ),
    Goal(
        "processor_victoria_full", "the same, with rows of all metrics as a site writes them",
        "its cheapest import format that others can write", "rivals",
        _against_victoria_metrics("processor_full_rows_to_victoria_metrics"), 0.125, is_ratio=True,
        why="ours holds the client and the minute rollup, theirs only the server",
    ),
    Goal(
        "agent_share", "agent at 1 Hz, 8 GPUs: share of a core", "a bare loop of the same NVML reads",
        "agent", lambda document: float(document["agent"]["processor_percent_of_a_core"]), 0.5, " %",
        why="the reads alone take most of it in the same run",
    ),
    Goal(
        "agent_memory", "agent: resident memory", "a bare loop of the same NVML reads",
        "agent", lambda document: float(document["agent"]["resident_mb"]), 60.0, " MB",
        why="it is libraries: numpy takes 11 MB, kafka-python 7 to 9, our own modules 3.3; with only `kvandal[agent]` "
        "installed it is about 1 MB less",
    ),
    Goal(
        "agent_tick", "agent: processor time of a tick", "a bare loop of the same NVML reads",
        "agent", lambda document: float(document["agent"]["processor_ms_per_tick"]), 5.0, " ms",
        why="the reads alone take most of it in the same run",
    ),
    Goal(
        "agent_beside", "agent: processor time beside the reads alone", "a bare loop of the same NVML reads",
        "agent", _beside_bare_reads, 2.0, is_ratio=True,
    ),
    Goal(
        "codec", "frames: interpreter instructions that 4,000 rows take more than 4", "numpy's copy of the bytes: none",
        "frame_codec", _more_instructions, 0.0,
    ),
    Goal(
        "gateway", "a gateway with 350 racks, 50 CDUs, 500 meters every 10 s: share of a core", "half a core",
        "gateway", lambda document: float(document["processor_percent_of_a_core"]), 50.0, " %",
    ),
    Goal(
        "dashboards", "all 194 queries of the dashboards, 10,000 GPUs, 24 h: 95 %", "the bare query in the engine",
        "dashboards", lambda document: float(document["over_the_door"]["p95_ms"]), 200.0, " ms",
        why="the bare engine takes nine tenths of it, most for lines of a job that is scattered over the whole site; "
        "the same machine answered within 192 ms when ready-made blocks took it a fifth less time",
    ),
    Goal(
        "dashboards_door", "these queries over the door, beside the bare engine: median", "the bare query",
        "dashboards", lambda document: float(document["over_the_door"]["p50_ms"] / document["bare_engine"]["p50_ms"]),
        3.0, is_ratio=True,
    ),
    Goal(
        "report_seconds", "month report, 100,000 GPUs, the slower of heat and efficiency",
        "reading the same aggregates into Polars",
        "report_cost", _dearest_report("seconds"), 120.0, " s",
    ),
    Goal(
        "report_memory", "month report, 100,000 GPUs: memory at its peak, engine included", "4 GB",
        "report_cost", _dearest_report("peak_mb"), 4_000.0, " MB",
    ),
    Goal(
        "sla_seconds", "SLA report of a month of 10,000 GPUs", "the clock",
        "sla_month", lambda document: float(document["all_s"]), 30.0, " s",
    ),
    Goal(
        "sustainability_seconds", "sustainability report of a month of 10,000 GPUs, five formats, two languages",
        "the clock", "report_sustainability", lambda document: float(document["seconds"]), 30.0, " s",
    ),
    Goal(
        "event", "event to Alertmanager: 99 %", "the broker's round trip",
        "event_page", lambda document: float(document["event_to_alertmanager_s"]["p99"]), 2.0, " s",
    ),
    Goal(
        "codecs_simulated", "bytes by the catalogue's codecs, simulated GPUs", "the smallest codec of each column",
        "codecs", _codecs("simulated gpu"), 1.1, is_ratio=True,
    ),
    Goal(
        "codecs_host", "the same on this machine's own readings", "the same",
        "codecs", _codecs("host"), 1.1, is_ratio=True,
        why="half of it is one column, `memory_used_bytes`, in two minutes of one machine: too little to choose by",
    ),
    Goal(
        "insert_size", "processor time of a row by the default size of an insert", "the cheapest size measured",
        "insert_size", _of_sizes, 1.5, is_ratio=True,
    ),
    Goal(
        "two_processes", "two ingest processes on two cores: rows a second", "one process",
        "ingest_processes", lambda document: float(document["two_beside_one"]), 0.9, at_least=True, is_ratio=True,
    ),
    Goal(
        "client", "kafka-python reads the frames of 100,000 GPUs: more of a core than the other", "confluent-kafka",
        "kafka_clients", _more_of_a_core, 25.0, " %",
        why="a fifth of a core in one run, three tenths in another; the decision record says why it does not decide",
    ),
    Goal(
        "columns", "processor time of inserting a reading, 140 columns", "40 columns",
        "growth", _last_beside_first("columns", "insert_processor_ns_per_reading"), 1.25, is_ratio=True,
    ),
    Goal(
        "gpus", "processor time of draining a row, 100,000 GPUs", "1,000 GPUs",
        "growth", _last_beside_first("gpus", "processor_us_per_row"), 1.25, is_ratio=True,
        why="an insert of 120,000 rows is two minutes of 1,000 GPUs, but ten seconds of 12,000: more rows for "
        "the minute table",
    ),
    Goal(
        "held_rows", "processor time of inserting a row, fifty million rows held", "none held",
        "held_rows", _last_beside_first("", "insert_processor_us_per_row"), 1.25, is_ratio=True,
    ),
    Goal(
        "soak_memory", "hours in ten minutes: rise of ingest's and the store's memory", "its mean",
        "soak", _most_memory_grew, 10.0, " %",
    ),
    Goal(
        "soak_parts", "the same: rise of the number of active parts", "its mean",
        "soak", lambda document: float(document["active_parts"]["grew_percent"]), 25.0, " %",
        why="the day that it fills begins empty, and its large parts are merged ever less often (A soak, below)",
    ),
)  # fmt: skip


def reached(measurements: Mapping[str, Json]) -> Iterator[tuple[Goal, float | None]]:
    """Each goal with its figure, or None where that was not measured."""
    for goal in GOALS:
        document = measurements.get(goal.benchmark, {}).get("document")
        yield goal, None if document is None else _value(goal, document)


def _value(goal: Goal, document: Json) -> float | None:
    try:
        return goal.value(document)
    except (KeyError, ValueError):  # a smaller run measures less
        return None
