"""Frames and messages as people read them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event

from kafka import TopicPartition  # type: ignore[import-untyped]

from catalogue import Metric, known_layouts, layout_of, table
from catalogue.tables import TOPIC_PREFIX
from stream.batch import upgrade
from stream.client import KafkaAddress, kafka_errors, make_consumer
from stream.frame import BadFrameError, FrameHeader, decode_frame
from stream.rows import Rows, in_base_unit
from stream.topics import Content, topic

_LAYOUTS = {layout.fingerprint: layout for layouts in known_layouts().values() for layout in layouts}


def tail_topic(address: KafkaAddress, name: str, *, from_start: bool, limit: int | None, stop: Event) -> Iterator[str]:
    """Text of one record after another, until `stop` or `limit`. LogUnavailableError; KeyError for an unknown topic."""
    spec = topic(name if name.startswith(TOPIC_PREFIX) else TOPIC_PREFIX + name)
    consumer = make_consumer(address, group="kvandal-tail")
    try:
        with kafka_errors(f"reading {spec.name}"):
            partitions = consumer.partitions_for_topic(spec.name)
            if not partitions:
                raise KeyError(f"topic {spec.name} does not exist; run `kvandal topics apply`")
            places = [TopicPartition(spec.name, number) for number in partitions]
            consumer.assign(places)
            consumer.seek_to_beginning(*places) if from_start else consumer.seek_to_end(*places)
        shown = 0
        while not stop.is_set() and (limit is None or shown < limit):
            with kafka_errors(f"reading {spec.name}"):
                polled = consumer.poll(timeout_ms=500, max_records=limit)
            for record in (r for records in polled.values() for r in records):
                yield describe(spec.content, record.value or b"", f"{record.partition}:{record.offset}")
                shown += 1
                if limit is not None and shown >= limit:
                    break
    finally:
        consumer.close(autocommit=False)


def describe(content: Content, value: bytes, place: str) -> str:
    """One record as text; `place` is its partition and offset. What cannot be read is shown as what it is."""
    if content is not Content.FRAMES:
        text = value.decode(errors="backslashreplace").replace("\n", "\\n")  # a message is one line, whatever is in it
        return f"{place}  {text}"
    try:
        header, rows = decode_frame(value, _LAYOUTS)
    except BadFrameError as error:
        return f"{place}  not readable: {error}"
    return "\n".join([_headline(header, place), *_row_lines(header, rows)])


def _headline(header: FrameHeader, place: str) -> str:
    sent = datetime.fromtimestamp(header.sent_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    return (
        f"{place}  source {header.source:016x}  sequence {header.sequence}  {header.ticks} ticks  "
        f"{header.rows} rows  sent {sent}Z"
    )


def _row_lines(header: FrameHeader, rows: Rows) -> Iterator[str]:
    layout = _LAYOUTS[header.layout]
    spec = table(layout.table)
    current = rows if layout == layout_of(spec) else upgrade(rows, layout, spec)
    columns = [(metric, in_base_unit(metric, current)) for metric in spec.metrics]
    for index, row in enumerate(current):
        time = datetime.fromtimestamp(int(row["time"]), UTC).strftime("%Y-%m-%d %H:%M:%S")
        present = [show_value(m, values[index]) for m, values in columns if values[index] == values[index]]
        yield f"    {time}Z  {int(row['resource']):016x}  " + "  ".join(present)


def show_value(metric: Metric, value: float) -> str:
    """A reading with its name and unit; a state by its name."""
    states = dict(metric.states)
    text = states.get(int(value), "") if states else f"{value:.6g} {metric.unit.symbol}".rstrip()
    return f"{metric.name.removesuffix('_' + metric.unit.suffix)}={text or int(value)}"
