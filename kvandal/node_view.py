"""What this node gives, as a table for people: every source read once, with what is absent and why."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event

from catalogue import Kind, Metric
from catalogue.units import RATIO
from collectors.agent import ScheduledSource
from collectors.source import ExplainingSource, Reading, Source, SourceUnavailableError
from stream.rows import Rows, in_base_unit

_WAIT_S = 1.0  # between the two reads: what is counted has a difference only then
_COLUMNS = 4  # resources side by side on a terminal of usual width
_NAME_WIDTH, _VALUE_WIDTH, _UNIT_WIDTH = 38, 16, 6
_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class SourceView:
    """What one source gave: its readings, or why there are none."""

    name: str
    lines: Sequence[str]
    works: bool


def view_node(scheduled: Sequence[ScheduledSource], *, stop: Event) -> Iterator[SourceView]:
    """Read each source twice, a second apart, and close it. What a source raises is its view."""
    for entry in scheduled:
        try:
            yield _view(entry.source, stop)
        finally:
            entry.source.close()


def _view(source: Source, stop: Event) -> SourceView:
    try:
        first = {reading.table.name: reading for reading in source.read(int(time.time()))}
        stop.wait(_WAIT_S)
        started_s = time.perf_counter()
        latest = source.read(int(time.time()))
        took_ms = (time.perf_counter() - started_s) * 1000
    except SourceUnavailableError as error:
        return SourceView(source.name, [f"gives nothing: {error}"], works=False)
    except Exception as error:  # what breaks a source belongs into its view: that is what one looks for here
        logging.getLogger(__name__).debug("source failed", exc_info=True)
        return SourceView(source.name, [f"fails: {error or type(error).__name__}"], works=False)
    twice = {reading.table.name: reading for reading in latest}
    lines = [f"answered in {took_ms:.0f} ms", *(source.remarks() if isinstance(source, ExplainingSource) else ())]
    for name, reading in (first | twice).items():
        lines += ["", *_table_lines(source, reading, counted=name in twice)]
    return SourceView(source.name, lines, works=bool(first or twice))


def _table_lines(source: Source, reading: Reading, *, counted: bool) -> Iterator[str]:
    """A line per metric; `counted` says that the table was read a second time, so that counters have differences."""
    names = {message.resource: message.name for message in source.inventory()}
    rows = reading.rows[reading.rows["time"] == reading.rows["time"][-1]]
    for start in range(0, len(rows), _COLUMNS):
        some = rows[start : start + _COLUMNS]
        titles = [names.get(resource, f"{resource:016x}") for resource in some["resource"].tolist()]
        yield f"{'table ' + reading.table.name:<{_NAME_WIDTH}}{'':<{_UNIT_WIDTH}}" + _cells(titles)
        yield from (_metric_line(source, metric, some, counted=counted) for metric in reading.table.metrics)


def _metric_line(source: Source, metric: Metric, rows: Rows, *, counted: bool) -> str:
    values = in_base_unit(metric, rows).tolist()
    cells = [_shown(metric, value) for value in values]
    reasons = {
        _reason(source, metric, resource, counted=counted)
        for resource, value in zip(rows["resource"].tolist(), values, strict=True)
        if value != value
    }
    symbol = "" if metric.unit is RATIO or metric.states else metric.unit.symbol
    head = f"  {metric.name:<{_NAME_WIDTH - 2}}{symbol:<{_UNIT_WIDTH}}"
    return (head + _cells(cells) + ("  " + "; ".join(sorted(reasons)) if reasons else "")).rstrip()


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"{text[: _VALUE_WIDTH - 1]:>{_VALUE_WIDTH}}" for text in texts)


def _shown(metric: Metric, value: float) -> str:
    if value != value:
        return _ABSENT
    if metric.kind is Kind.BITS:
        return f"{int(value):#x}"
    if metric.states:
        return dict(metric.states).get(int(value), str(int(value)))
    if metric.unit is RATIO:
        return f"{value:.1%}" if value >= 1e-3 or not value else f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.6g}"


def _reason(source: Source, metric: Metric, resource: int, *, counted: bool) -> str:
    told = source.why_absent(resource, metric) if isinstance(source, ExplainingSource) else ""
    if told:
        return told
    if metric.kind is Kind.DELTA and not counted:
        return "first reading: it counts from here on"
    return "not told"
