"""What every query of every dashboard costs over 24 hours of a site of 10,000 GPUs.

The minutes are filled directly: every fifth minute of one hour of the simulated site goes through the schema's own
views, and all others are copies of these, as are ingest's own lines about the frames that its agents would have sent.
Hours are computed from them, all but the last, as they are within five minutes of a full hour.
Every query then runs as Grafana sends it, macros expanded, over the embedded engine's door as the role `grafana`; and,
beside it in the same run, on the bare engine. Processor time counts both cores: on a machine that does other things,
too, it is what holds.

Run: `python -m benchmarks.dashboards [gpus]`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from uuid import UUID

import numpy as np
from clickhouse_connect.driver.client import Client

from catalogue import GPU, GPU_HEALTH, PORT, TABLES, TRAY, Table
from collectors.simulator import SimulatorSource
from collectors.source import Reading
from dashboards.answers import Asker, Json, asked_variables, marks, questions
from dashboards.preview import every_dashboard
from simulation import Simulation, Site
from storage import schema
from storage.client import StoreAddress, connect
from storage.door import Door
from storage.engine import Engine, Handle
from storage.hours import COMPUTED, hour_inserts
from storage.roles import RoleName, make_role
from storage.topology import recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import JobMessage, Message, encode_message
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic

GPUS, HOURS = 10_000, 24
HOUR = timedelta(hours=1)
FILLED_TICK_S = 300  # of the hour that is simulated
SEED = 7
REPEATS = 3  # of which the median counts; one more goes before them
REACH_P95_MS = 200.0
DATABASE = "kvandal"
_PASSWORD = "benchmark"  # noqa: S105 - of a door on loopback that lives as long as this run
_TOPIC_ID = UUID(int=1)
# Seconds that a frame of ten ticks spans, by the tables that every node's agent sends.
FRAME_SPANS_S = {GPU: 10, TRAY: 100, GPU_HEALTH: 300, PORT: 100}
GPUS_PER_NODE = 4
PARTITIONS = 8


@dataclass(frozen=True, slots=True)
class QueryCost:
    """One query: medians in milliseconds, over the door and on the bare engine, and what it read and answered.

    `processor_ms` is that of the bare engine, of all its threads.
    """

    page: str
    name: str
    door_ms: float
    bare_ms: float
    processor_ms: float
    read_rows: int
    rows: int
    sql: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DashboardsCost:
    """All queries of one run."""

    gpus: int
    hours: int
    filled_s: float
    queries: Sequence[QueryCost]

    def percentile_ms(self, share: float, of: Callable[[QueryCost], float]) -> float:
        return float(np.percentile([of(query) for query in self.queries], 100 * share))

    def document(self) -> dict[str, object]:
        ways: dict[str, Callable[[QueryCost], float]] = {
            "over_the_door": lambda query: query.door_ms,
            "bare_engine": lambda query: query.bare_ms,
            "bare_engine_processor": lambda query: query.processor_ms,
        }
        slowest = sorted(self.queries, key=lambda query: -query.door_ms)[:10]
        return {
            "gpus": self.gpus,
            "hours": self.hours,
            "queries": len(self.queries),
            "filled_s": round(self.filled_s, 1),
            **{
                way: {
                    "p50_ms": round(self.percentile_ms(0.5, of), 1),
                    "p95_ms": round(self.percentile_ms(0.95, of), 1),
                    "max_ms": round(self.percentile_ms(1.0, of), 1),
                }
                for way, of in ways.items()
            },
            "reached": self.percentile_ms(0.95, lambda query: query.door_ms) < REACH_P95_MS,
            "pages": self._pages(),
            "slowest": [
                {
                    "query": f"{query.page}: {query.name}",
                    "door_ms": round(query.door_ms, 1),
                    "bare_ms": round(query.bare_ms, 1),
                    "processor_ms": round(query.processor_ms, 1),
                    "read_rows": query.read_rows,
                    "rows": query.rows,
                }
                for query in slowest
            ],
        }

    def _pages(self) -> list[dict[str, object]]:
        found = []
        for page in dict.fromkeys(query.page for query in self.queries):
            door_ms = [query.door_ms for query in self.queries if query.page == page]
            found.append({
                "page": page,
                "queries": len(door_ms),
                "p50_ms": round(median(door_ms), 1),
                "max_ms": round(max(door_ms), 1),
                "all_ms": round(sum(door_ms), 1),
            })  # fmt: skip
        return found


def run(*, gpus: int = GPUS, hours: int = HOURS, repeats: int = REPEATS) -> DashboardsCost:
    """Fill a store, ask everything."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        engine = opened.enter_context(Engine.open(folder / "store", memory_limit_bytes=None))
        roles = [make_role(name, _PASSWORD) for name in (RoleName.ADMIN, RoleName.GRAFANA)]
        door = opened.enter_context(Door.open(engine, roles, database=DATABASE))
        started = time.perf_counter()
        with closing(connect(StoreAddress(door.url, RoleName.ADMIN, _PASSWORD, DATABASE))) as admin:
            end = fill(admin, gpus, hours)
        filled_s = time.perf_counter() - started
        handle = engine.open_handle(roles[1].handle_settings, DATABASE)
        opened.callback(handle.close)
        address = StoreAddress(door.url, RoleName.GRAFANA, _PASSWORD, DATABASE)
        client = opened.enter_context(closing(connect(address)))
        asker = Asker(client, end - hours * HOUR, end)
        costs = [cost for page in every_dashboard().values() for cost in ask_page(page, asker, handle, repeats)]
    return DashboardsCost(gpus, hours, filled_s, costs)


def ask_page(dashboard: Json, asker: Asker, handle: Handle, repeats: int) -> Iterator[QueryCost]:
    """Every query that Grafana sends when the page is opened: variables, marks and panels."""
    values = asker.choose(dashboard)
    asked = [(f"variable {one['name']}", one["query"]["rawSql"], 12) for one in asked_variables(dashboard)]
    asked += [(f"marks {one['name']}", one["target"]["rawSql"], 12) for one in marks(dashboard)]
    asked += [(question.name, question.sql, question.width) for question in questions(dashboard)]
    for name, sql, width in asked:
        statement = asker.expanded(sql, values, width)
        answer = handle.query(statement, "Native")
        door_ms, _ = _median_ms(partial(asker.run, sql, values, width), repeats)
        bare_ms, processor_ms = _median_ms(partial(handle.query, statement, "Native"), repeats)
        yield QueryCost(
            page=str(dashboard["uid"]),
            name=name,
            door_ms=door_ms,
            bare_ms=bare_ms,
            processor_ms=processor_ms,
            read_rows=answer.read_rows or 0,
            rows=answer.result_rows or 0,
            sql=statement,
        )


def _median_ms(ask: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Of the time on the wall, and of the processor time of this process, which is that of the engine, too."""
    took, worked = [], []
    for _ in range(repeats):
        started, before = time.perf_counter(), time.process_time()
        ask()
        took.append((time.perf_counter() - started) * 1000)
        worked.append((time.process_time() - before) * 1000)
    return median(took), median(worked)


# Filling


def fill(client: Client, gpus: int, hours: int) -> datetime:
    """A store that holds `hours` of minutes; the end of the last one."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    schema.apply(client)
    first_s, last_s = int((end - hours * HOUR).timestamp()), int((end - HOUR).timestamp())
    site = Site.build(gpus // GPUS_PER_NODE * GPUS_PER_NODE, SEED)
    source = SimulatorSource(Simulation(site, first_s))
    tell = _Telling(client)
    tell.messages(INVENTORY, source.inventory())
    recompute_places(client)
    for _ in source.backfill(first_s, last_s, 3600, 3600, 1, 3600):
        tell.events(source)
    for chunk in source.backfill(last_s, last_s + 3600, FILLED_TICK_S, FILLED_TICK_S, 12, FILLED_TICK_S):
        tell.rows(chunk)
        tell.events(source)
    for table in TABLES:
        _repeat_ticks(client, table, hours)
    _fill_frames(client, end, hours, nodes=site.gpu_count // GPUS_PER_NODE)
    for name in COMPUTED:
        _compute_hours(client, name, end, hours)
    return end


class _Telling:
    """Puts readings and messages into the store, as ingest does it."""

    def __init__(self, client: Client) -> None:
        self._writer = Writer(client)
        self._batches = 0

    def rows(self, chunk: Sequence[Reading]) -> None:
        for table in {reading.table.name: reading.table for reading in chunk}.values():
            self._batches += 1
            rows = np.concatenate([reading.rows for reading in chunk if reading.table is table])
            self._writer.insert_rows(table.name, rows, token=f"{table.name} {self._batches}")

    def events(self, source: SimulatorSource) -> None:
        messages = source.events()
        self.messages(JOBS, [message for message in messages if isinstance(message, JobMessage)])
        self.messages(EVENTS, [message for message in messages if not isinstance(message, JobMessage)])

    def messages(self, topic: Topic, messages: Sequence[Message]) -> None:
        if not messages:
            return
        self._batches += 1
        values = [encode_message(message) for message in messages]
        plan = Plan(topic.name, _TOPIC_ID, (Range(0, 0, len(values)),), int(time.time() * 1000), 0)
        records = [Record(0, offset, value) for offset, value in enumerate(values)]
        batch = MessageBatcher(topic).build(plan, records, SeenFrames())
        self._writer.insert_messages(batch.table, batch.messages, token=f"{batch.table} {self._batches}")


def _repeat_ticks(client: Client, table: Table, hours: int) -> None:
    """Make of the stored ticks every minute of all hours, oldest first as they would have come, with 60 readings each.

    Sketches stay empty: no dashboard reads them.
    """
    minutes, kept = f"{table.name}_1m", f"{table.name}_one_hour"
    described = client.query(f"DESCRIBE TABLE {minutes}").result_rows
    names = [name for name, _, kind, *_ in described if kind != "ALIAS" and not name.endswith("_sketch")]
    listed, shifted = ", ".join(names), ", ".join(_of_sixty(name) for name in names)
    client.command(f"CREATE TABLE {kept} AS {minutes}")
    client.command(f"INSERT INTO {kept} ({listed}) SELECT {listed} FROM {minutes}")  # noqa: S608 - the schema's names
    client.command(f"TRUNCATE TABLE {minutes}")
    for back in reversed(range(hours)):
        of_hour = shifted.replace("{back}", str(back))
        client.command(
            f"INSERT INTO {minutes} ({listed}) SELECT {of_hour} FROM {kept} "  # noqa: S608
            f"ARRAY JOIN range({FILLED_TICK_S // 60}) AS minute"
        )
    client.command(f"DROP TABLE {kept} SYNC")
    client.command(f"TRUNCATE TABLE {table.name}")  # raw rows of an hour: no range of a day reads them


def _compute_hours(client: Client, name: str, end: datetime, hours: int) -> None:
    """As the hour keeper does, but for the last hour: it closes five minutes after its end."""
    at = datetime.now(UTC)
    computed = [end - back * HOUR for back in range(hours, 1, -1)]
    for hour in computed:
        for statement in hour_inserts(name):
            client.command(statement, parameters={"first": hour, "last": hour, "computed_at": at})
    kept = [[name, hour, at] for hour in computed]
    client.insert("hours_computed", kept, column_names=["table_name", "hour", "computed_at"])


def _of_sixty(name: str) -> str:
    if name == "time":
        return "time - INTERVAL {back} HOUR + INTERVAL minute MINUTE"
    counted = name == "row_count" or name.endswith(("_sum_raw", "_count"))
    return f"{name} * 60" if counted else name


def _fill_frames(client: Client, end: datetime, hours: int, *, nodes: int) -> None:
    """Ingest's lines about the frames of every node, an hour an insert."""
    last_s = int(end.timestamp())
    offset = 0
    for begin_s in range(last_s - hours * 3600, last_s, 3600):
        for table, span_s in FRAME_SPANS_S.items():
            frames = nodes * 3600 // span_s
            client.command(f"""
INSERT INTO frames (topic_id, partition, offset, log_epoch, table_raw, source, epoch_ms, sequence, ticks, rows, layout,
    first_time, last_time, sent_at, checked_at, outcome, stored_at)
SELECT '{_TOPIC_ID}', number % {PARTITIONS}, {offset} + intDiv(number, {PARTITIONS}), 1, '{table.name}',
    cityHash64(number % {nodes}), {begin_s} * 1000, intDiv(number, {nodes}) * 10, 10, 10 * {GPUS_PER_NODE}, 1,
    toDateTime({begin_s} + intDiv(number, {nodes}) * {span_s}) AS first, first + {span_s} AS last,
    addMilliseconds(toDateTime64(last, 3), cityHash64(number) % 900) AS sent,
    addMilliseconds(sent, 900 + cityHash64(number, 1) % 2000) AS checked, 'stored',
    addMilliseconds(checked, 300 + cityHash64(number, 2) % 700)
FROM numbers({frames})
""")  # noqa: S608 - a benchmark's own names and numbers
            offset += frames // PARTITIONS + 1


def main() -> None:
    gpus = int(sys.argv[1]) if len(sys.argv) > 1 else GPUS
    sys.stdout.write(json.dumps(run(gpus=gpus).document(), indent=1) + "\n")


if __name__ == "__main__":
    main()
