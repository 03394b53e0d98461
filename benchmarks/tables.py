"""What docs/performance.md says of choices, growth and hot spots: a few words and a table of each measurement."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.goals import Json

Lines = Iterator[str]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; `words` say what was measured and how to read it."""

    title: str
    words: str
    tables: Callable[[Json], Lines]


def sections(measurements: Mapping[str, Json]) -> Lines:
    """The sections of all that was measured, in order."""
    for name, section in SECTIONS.items():
        document = measurements.get(name, {}).get("document")
        if document is not None:
            yield f"## {section.title}\n"
            yield f"{section.words} `python -m benchmarks.{name}`\n"
            yield from section.tables(document)


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Lines:
    """Words in the first column, figures in the others."""
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(_cell(value) for value in row)} |"
    yield ""


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _rows(documents: Sequence[Json], *fields: str) -> list[list[object]]:
    return [_row(document, *fields) for document in documents]


def _row(document: Json, *fields: str) -> list[object]:
    return [document[field] for field in fields]


def _codecs(document: Json) -> Lines:
    for name, sample in document.items():
        yield f"Of {name}, {sample['rows']:,} rows, {sample['readings']:,} readings:\n"
        timed = [what for what in _CODEC_TIMES if f"{what}_processor_ns_per_reading" in sample["candidates"][0]]
        heads = ("codec of every metric", "bytes a reading", *(f"{what}, ns a reading" for what in timed))
        costs = (f"{what}_processor_ns_per_reading" for what in timed)
        yield from _table(heads, _rows(sample["candidates"], "codec", "bytes_per_reading", *costs))
        yield (
            f"The smallest codec of each column would take {sample['smallest_of_each_column_bytes_per_reading']} bytes "
            f"a reading; the catalogue's take {sample['catalogue_beside_smallest']} times that. Where it loses most:\n"
        )
        fields = ("metric", "catalogue", "smallest", "saves_bytes_per_reading_of_all")
        lost = ("metric", "catalogue", "smallest", "bytes a reading of all metrics that it would save")
        yield from _table(lost, _rows(sample["columns_that_lose_most"], *fields))


_CODEC_TIMES = ("insert", "merge", "read")


def _sort_order(document: Json) -> Lines:
    candidates = document["candidates"]
    yield from _table(
        (
            "order; partitions", "bytes a reading", "insert, µs a row", "merge, µs a row", "parts of a late insert",
            "its µs a row",
        ),
        [
            [
                one["order"], one["bytes_per_reading"], one["insert_processor_us_per_row"],
                one["merge_processor_us_per_row"], one["late_insert"]["parts"],
                one["late_insert"]["processor_us_per_row"],
            ]
            for one in candidates
        ],
    )  # fmt: skip
    questions = list(candidates[0]["questions"])
    yield f"Rows that the engine picks of {document['rows']:,}, and processor milliseconds:\n"
    yield from _table(
        ("order; partitions", *questions),
        [
            [one["order"], *(_picked(one["questions"][question]) for question in questions)]
            for one in candidates
        ],
    )  # fmt: skip


def _picked(question: Json) -> str:
    return f"{question['rows_picked']:,}; {question['processor_ms']} ms"


def _insert_size(document: Json) -> Lines:
    yield f"The default is {document['default']:,}.\n"
    fields = (
        "rows_per_insert", "ms_per_insert", "processor_us_per_row", "parts_left", "bytes_per_row",
        "bytes_per_row_merged",
    )  # fmt: skip
    heads = ("rows an insert", "ms an insert", "processor, µs a row", "parts left", "bytes a row", "merged")
    yield from _table(heads, _rows(document["sizes"], *fields))


def _wire_compression(document: Json) -> Lines:
    for name, sample in document["frames"].items():
        yield f"Frames of {name}, {sample['bytes_per_frame']} bytes each; the default is {document['default']}:\n"
        rows = [
            [f"{one['compression']}, {batch}", *_row(one, *_WIRE)]
            for batch in ("alone", "together")
            for one in sample[batch]
        ]
        yield from _table(("compression, frames in a batch", "frames", "bytes a frame", "write, µs", "read, µs"), rows)


_WIRE = ("frames_per_batch", "bytes_per_frame", "write_processor_us_per_frame", "read_processor_us_per_frame")


def _ingest_processes(document: Json) -> Lines:
    fields = (
        "ingest_processes", "rows_per_second", "ingest_processor_us_per_row", "all_processor_us_per_row",
        "machine_busy_percent",
    )  # fmt: skip
    heads = (
        "ingest processes",
        "rows a second",
        "ingest, µs a row",
        "with broker and store, µs a row",
        "machine busy, %",
    )
    yield from _table(heads, _rows(document["runs"], *fields))


def _kafka_clients(document: Json) -> Lines:
    fields = ("frames_per_second", "processor_us_per_frame", "broker_processor_us_per_frame")
    ways = {"publish": "publish", "read": "read", "read_alone": "read, each frame a batch of its own"}
    rows = [
        [f"{client}: {words}", *_row(told[way], *fields)]
        for way, words in ways.items()
        for client, told in document["clients"].items()
    ]
    yield from _table(("", "frames a second", "processor of the client, µs a frame", "of the broker, µs a frame"), rows)
    shares = " and ".join(
        f"{told['reads_100_000_gpus_percent_of_a_core']} % of a core with {client}"
        for client, told in document["clients"].items()
    )
    yield f"Reading the frames of 100,000 GPUs, each a batch of its own, would take {shares}.\n"


def _growth(document: Json) -> Lines:
    fields = (
        "columns", "bytes_per_row_in_a_frame", "encode_us_per_frame", "decode_us_per_frame",
        "build_processor_us_per_row", "insert_processor_us_per_row", "insert_processor_ns_per_reading", "bytes_per_row",
    )  # fmt: skip
    heads = (
        "metrics", "bytes a row in a frame", "encode, µs a frame", "decode, µs a frame", "build a batch, µs a row",
        "insert, µs a row", "insert, ns a reading", "bytes a row on disk",
    )  # fmt: skip
    yield from _table(heads, _rows(document["columns"], *fields))
    yield from _table(
        ("GPUs", "rows", "million readings a second", "processor, µs a row", "beside ready blocks"),
        _rows(
            document["gpus"],
            "gpus", "rows", "million_readings_per_second", "processor_us_per_row", "ratio_to_ready_blocks",
        ),
    )  # fmt: skip


def _report_cost(document: Json) -> Lines:
    fields = ("gpus", "report", "seconds", "of_which_reading_s", "processor_s", "peak_mb")
    yield from _table(("GPUs", "report", "s", "of which reading", "processor, s", "peak, MB"), _rows(document, *fields))


def _held_rows(document: Json) -> Lines:
    fields = ("held_rows", "held_bytes", "insert_processor_us_per_row", "newest_minute_ms", "active_parts")
    heads = ("rows held", "bytes held", "insert, µs a row", "newest minute, ms", "active parts")
    yield from _table(heads, _rows(document, *fields))


def _soak(document: Json) -> Lines:
    yield (
        f"{document['gpus']:,} GPUs at {document['times_real_time']} times real time: {document['site_hours']} h of "
        f"a site in {document['seconds']:g} s, {document['rows_stored']:,} rows of {document['rows_sent']:,} sent, "
        f"{document['hours_computed']} hours computed.\n"
    )
    watched = ("ingest_resident_mb", "store_resident_mb", "active_parts")
    rows = [
        [
            name.replace("_", " "),
            *_row(document[name], "most", "grew_percent"),
            "yes" if document[name]["flat"] else "**no**",
        ]
        for name in watched
    ]
    yield from _table(("", "most", "rise over the last two thirds, %", "flat"), rows)


def _hot_spots(document: Json) -> Lines:
    yield _bottleneck(document["ingest_drain"])
    for name, told in document.items():
        yield (
            f"The {name.replace('_', ' ')}: {told['processor_s']} s of processor in {told['seconds']} s, "
            f"{told['samples']:,} samples of work in Python.\n"
        )
        yield from _table(("function", "% of work in Python"), list(told["percent_in_function"].items()))
        yield from _table(("function of ours", "% in it and below"), list(told["percent_in_ours_and_below"].items()))
        yield "Processor time of all threads, by their names; the engine's change theirs with their work:\n"
        yield from _table(("thread", "%"), list(told["processor_percent_by_thread"].items()))


def _bottleneck(drain: Json) -> str:
    threads, ours = drain["processor_percent_by_thread"], drain["percent_in_ours_and_below"]
    python = threads.get("python", 0.0)
    return (
        f"Of a drain's processor time the threads in Python take {python:g} %, the engine {100 - python:.3g} %, and "
        f"its merges alone (MergeMutate) {threads.get('MergeMutate', 0.0):g} %. Of the work in Python, reading records "
        f"from the client is {ours.get('KafkaLog.poll (stream/consume.py)', 0.0):g} % and making batches of them "
        f"{ours.get('FrameBatcher.build (stream/batch.py)', 0.0):g} %. So the next bottleneck is "
        f"{'the engine: its inserts and merges' if python < 50 else 'Python'}.\n"
    )


SECTIONS: Mapping[str, Section] = {
    "codecs": Section(
        "Codecs",
        "Bytes and processor time of the raw table under one codec for all metrics, and under the catalogue's choice.",
        _codecs,
    ),
    "sort_order": Section(
        "Sort order and partitions",
        "The raw table under other orders and partitions: what it costs to write, and what a question reads. By "
        "resource first, a short time of all GPUs reads the whole day; by time first, one GPU does. A quarter hour "
        "before the resource serves both.",
        _sort_order,
    ),
    "insert_size": Section(
        "Rows per insert", "What a row costs by the size of its insert, with minutes and all merges.", _insert_size
    ),
    "wire_compression": Section(
        "Compression on the wire",
        "What a frame takes in record batches of Kafka's: alone, as an agent sends it, and together with others.",
        _wire_compression,
    ),
    "ingest_processes": Section(
        "Two ingest processes against one",
        "One backlog in Apache Kafka; broker and ClickHouse in processes of their own on the same two cores, so that a "
        "second process can only help where the first one waits.",
        _ingest_processes,
    ),
    "kafka_clients": Section(
        "kafka-python against confluent-kafka",
        "The same frames through both clients; [a decision record](adr/0012-kafka-python.md) says what follows.",
        _kafka_clients,
    ),
    "growth": Section(
        "Growth with columns and GPUs", "Tables cut and widened, and the same rows from more GPUs.", _growth
    ),
    "report_cost": Section(
        "A month's report",
        "Beside the time in which the same aggregates are read into Polars, which is the least that a report could "
        "take. Report and engine are one process.",
        _report_cost,
    ),
    "held_rows": Section(
        "Growth with retention", "The same inserts into a raw table that holds more and more.", _held_rows
    ),
    "soak": Section("A soak in fast motion", "Hours of a site in minutes.", _soak),
    "hot_spots": Section(
        "Where the time goes",
        "Under a sampling profiler. With a folder as its argument it draws flame graphs there.",
        _hot_spots,
    ),
}
