"""What a month's heat and efficiency report costs at 1,000, 10,000 and 100,000 GPUs: seconds, and memory at its peak.

The tiers that such a report reads are filled directly: the days of the fleet as `kvandal keep` computes them, racks'
registers by quarter hour, meters, loops and heat meters by minute, jobs that hold three quarters of the fleet, a fault
for each GPU in ten, prices by the hour. Values are plain; only their number matters here. Report and engine run in one
process, whose peak is that of both, and which is a new one for each report.

Run: `python -m benchmarks.report_cost [gpus ...]`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from uuid import UUID

import numpy as np
import polars as pl
from clickhouse_connect.driver.client import Client

from catalogue import COOLING, POWER, Table
from collectors.simulator import SimulatorSource
from reports import efficiency_queries, fleet_days
from reports.period import Period
from simulation import Simulation, Site
from storage import schema
from storage.client import StoreAddress, connect
from storage.reader import Parameter, Reader, Schema
from storage.register_kinds import RegisterKind
from storage.registers import RegisterRow, RegisterVersion, row_text, write_version
from storage.topology import recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import encode_message
from stream.plan import Plan, Range
from stream.rows import pack
from stream.seen import SeenFrames
from stream.topics import INVENTORY

SIZES = (1_000, 10_000, 100_000)
REPORTS = ("heat", "efficiency")
MINUTE_S, QUARTER_S = 60, 900
GPU_WATTS, TRAY_WATTS, RACK_WATTS_PER_GPU = 900.0, 4_200.0, 1_150.0
WATT_HOUR = 3600
# Twice a day a GPU is idle, busy and idle again: five rows of segments a day.
SEGMENTS_A_DAY = 5
JOBS_IN_THE_MONTH, JOB_DAYS = 10, 3


def month() -> Period:
    """The last whole month: every tier still has it."""
    now = datetime.now(UTC)
    return Period.parse(f"{now.replace(day=1) - timedelta(days=1):%Y-%m}")


def run(sizes: tuple[int, ...] = SIZES) -> list[dict[str, float | str]]:
    """One document for each size and report."""
    return [measured for gpus in sizes for measured in _run(gpus)]


def _run(gpus: int) -> Iterator[dict[str, float | str]]:
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process("fill", folder, str(gpus))
        for kind in REPORTS:
            yield {"gpus": gpus, "report": kind, **json.loads(_in_a_process("report", folder, kind))}


def _in_a_process(*arguments: str) -> str:
    """One engine a process: what the fill allocated is not the report's."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report_cost", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


class _TimedReader(Reader):
    """The limit beside which a report stands: the same aggregates read into Polars."""

    seconds = 0.0

    def query(self, sql: str, parameters: Mapping[str, Parameter], schema: Schema) -> pl.DataFrame:
        started_s = time.perf_counter()
        try:
            return super().query(sql, parameters, schema)
        finally:
            self.seconds += time.perf_counter() - started_s


def write_report(folder: Path, kind: str) -> dict[str, float]:
    """Write a report; its wall and processor seconds, how long it read, and the process's peak memory."""
    from reports.efficiency import write_efficiency_report
    from reports.heat_report import write_heat_report

    writers: dict[str, Callable[..., Path]] = {"heat": write_heat_report, "efficiency": write_efficiency_report}
    with closing(connect(_address(folder))) as client:
        reader, started, worked = _TimedReader(client), time.perf_counter(), time.process_time()
        writers[kind](reader, month(), folder / "out", now=datetime.now(UTC))
        seconds, processor_s = time.perf_counter() - started, time.process_time() - worked
    peak_mb = getrusage(RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": round(seconds, 1), "of_which_reading_s": round(reader.seconds, 1),
        "processor_s": round(processor_s, 1), "peak_mb": round(peak_mb),
    }  # fmt: skip


# Filling


def fill(folder: Path, gpus: int) -> None:
    """A store of a site of about so many GPUs, whole trays."""
    period = month()
    site = Site.build(gpus // 4 * 4, seed=1)
    with closing(connect(_address(folder))) as client:
        schema.apply(client)
        _tell_inventory(client, site, period)
        _fill_meters(client, site, period)
        _fill_fleet(client, period)
        _fill_racks(client, period)
        _fill_jobs(client, period)
        _fill_prices(client, period)


def _address(folder: Path) -> StoreAddress:
    return StoreAddress(f"chdb://{folder / 'store'}")


def _tell_inventory(client: Client, site: Site, period: Period) -> None:
    source = SimulatorSource(Simulation(site, int(period.start.timestamp()) - 86_400))
    messages = source.inventory()
    plan = Plan(INVENTORY.name, UUID(int=1), (Range(0, 0, len(messages)),), int(time.time() * 1000), 0)
    records = [Record(0, place, encode_message(message)) for place, message in enumerate(messages)]
    batch = MessageBatcher(INVENTORY).build(plan, records, SeenFrames())
    Writer(client).insert_messages("inventory", batch.messages, token=plan.token)
    recompute_places(client)


def _fill_meters(client: Client, site: Site, period: Period) -> None:
    """Meters, heat meters and loops by minute, a day more on both sides."""
    first, last = int(period.start.timestamp()) - 86_400, int(period.end.timestamp()) + 86_400
    times = np.arange(first, last, MINUTE_S)
    watts = site.gpu_count * RACK_WATTS_PER_GPU
    site_meter, cooling, other, *halls = site.meter_ids.tolist()
    shares = {site_meter: 1.06, cooling: 0.03, other: 0.01} | {hall: 1 / len(halls) for hall in halls}
    for meter, share in shares.items():
        joules = share * watts * (times - first)
        _store(client, POWER, meter, times, {"active_power_watts": share * watts, "energy_import_joules": joules})
    for meter, share in zip(site.heat_meter_ids.tolist(), (0.7, 0.2), strict=True):
        temperatures = {"primary_supply_temperature_celsius": 52.0, "primary_return_temperature_celsius": 42.0}
        told = {"heat_register_joules": share * watts * (times - first), "heat_flow_watts": share * watts}
        _store(client, COOLING, meter, times, told | temperatures)
    for loop in site.loop_ids.tolist():
        flow = 0.9 * watts / len(site.loop_ids) / (1000 * 4000 * 10)
        _store(client, COOLING, loop, times, {
            "secondary_flow_cubic_metres_per_second": flow, "secondary_supply_temperature_celsius": 42.0,
            "secondary_return_temperature_celsius": 52.0,
        })  # fmt: skip


def _store(
    client: Client, table: Table, resource: int, times: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    values: Mapping[str, object],
) -> None:  # fmt: skip
    columns = {name: np.broadcast_to(np.asarray(value, float), times.shape) for name, value in values.items()}
    rows = pack(table, [resource] * len(times), times.tolist(), columns)
    Writer(client).insert_rows(table.name, rows, token=f"{table.name} {resource}")


def _fill_fleet(client: Client, period: Period) -> None:
    """The days of the fleet, as `kvandal keep` writes them."""
    for number, day in enumerate(efficiency_queries.windows_of(period)):
        stamp = f"toDateTime({int(day.start.timestamp())}, 'UTC') AS day, {_computed(day.end)} AS computed_at"
        seconds = (day.end - day.start).total_seconds()
        part_s = round(seconds / SEGMENTS_A_DAY)
        client.command(f"""
INSERT INTO gpu_segments (day, computed_at, {", ".join(fleet_days.SEGMENTS.columns)})
SELECT {stamp}, resource, day + number * {part_s} AS start,
    if(number = {SEGMENTS_A_DAY - 1}, day + toUInt32({seconds}), start + {part_s}) AS end,
    0, 0, 1 + number % 2, {part_s}, {GPU_WATTS} * {part_s} + resource % 1000, resource % 60, 0, 0, 0, 0,
    0.7 * {part_s}, 0.4 * {part_s}, 0.3 * {part_s}, {part_s}, {part_s}, {part_s}, 55.0 * {part_s}, {part_s}
FROM (SELECT resource FROM places WHERE kind = 'gpu') AS gpu CROSS JOIN numbers({SEGMENTS_A_DAY}) AS part
""")  # noqa: S608 - a benchmark's own names and numbers
        client.command(f"""
INSERT INTO gpu_troubles (day, computed_at, resource, start, end, condition)
SELECT {stamp}, resource, day + 3600, day + 7200, if(resource % 2, 'down', 'degraded')
FROM places WHERE kind = 'gpu' AND resource % 300 = {number}
""")  # noqa: S608
        for kind, watts in (("tray", TRAY_WATTS), ("gpu", GPU_WATTS)):
            client.command(f"""
INSERT INTO rack_fleet_quarters (day, computed_at, member_kind, rack, time, joules, members, readings, most)
SELECT {stamp}, '{kind}', rack, day + number * {QUARTER_S}, members * {watts * QUARTER_S}, members, members * 15, 15
FROM (SELECT rack, count() AS members FROM places WHERE kind = '{kind}' GROUP BY rack) AS racks
CROSS JOIN numbers({int(seconds) // QUARTER_S}) AS quarter
""")  # noqa: S608
        client.command(f"""
INSERT INTO rack_coolant (day, computed_at, {", ".join(fleet_days.COOLANT.columns)})
SELECT {stamp}, resource, 1440, 1440 * 0.002, 1440 * 42., 1440 * 52., 1440 * 75e3, 1440, 1440 * 80e3, 1440
FROM places WHERE kind = 'rack'
""")  # noqa: S608
        client.command(f"""
INSERT INTO fleet_days
SELECT day, toDateTime({int(day.end.timestamp())}, 'UTC'), computed_at, 0, count() * {GPU_WATTS * seconds}, count(),
    count() * {int(seconds) // 3600}, 850, 900, 950, 0.6, count() / 4 * 500, toUInt64(count() / 4)
FROM (SELECT {stamp} FROM places WHERE kind = 'gpu')
GROUP BY day, computed_at
""")  # noqa: S608


def _computed(moment: datetime) -> str:
    return f"fromUnixTimestamp64Milli(toInt64({int(moment.timestamp() * 1000)}), 'UTC')"


def _fill_racks(client: Client, period: Period) -> None:
    """Racks' registers in the first minute of every quarter hour."""
    first, last = int(period.start.timestamp()) - 86_400, int(period.end.timestamp()) + 86_400
    watts = 72 * RACK_WATTS_PER_GPU
    client.command(f"""
INSERT INTO rack_1m (resource, time, row_count, energy_register_joules_min_raw, energy_register_joules_max_raw)
SELECT resource, toDateTime({first} + number * {QUARTER_S}, 'UTC'), 6,
    toUInt64(number * {watts * QUARTER_S / WATT_HOUR}) AS register, register
FROM (SELECT resource FROM places WHERE kind = 'rack') AS racks
CROSS JOIN numbers({(last - first) // QUARTER_S}) AS quarter
""")  # noqa: S608


def _fill_jobs(client: Client, period: Period) -> None:
    """Three quarters of the fleet are held by jobs of 1,000 GPUs, for three days each; and faults."""
    first = int(period.start.timestamp())
    held = f"""
FROM (SELECT resource, row_number() OVER (ORDER BY resource) AS place FROM places WHERE kind = 'gpu') AS gpu
CROSS JOIN numbers({JOBS_IN_THE_MONTH}) AS turn
WHERE place % 4 != 0
"""  # noqa: S608 - a benchmark's own names and numbers
    client.command(f"""
INSERT INTO jobs (job, resource, start, end, name, owner, customer, received_at)
SELECT concat(toString(intDiv(place, 1000)), '-', toString(number)), resource,
    toDateTime64({first} + number * {JOB_DAYS * 86_400}, 3, 'UTC') AS began, began + {JOB_DAYS * 86_400 - 1800},
    'training', 'nobody', 'customer A', began
{held}
""")
    client.command("""
INSERT INTO job_energy
SELECT job, min(start), max(jobs.end), count(), sum(seconds), sum(seconds), sum(seconds) * 900, 0, sum(seconds) * 150,
    max(received_at), max(jobs.end)
FROM (SELECT *, toFloat64(dateDiff('second', start, jobs.end)) AS seconds FROM jobs) AS jobs
GROUP BY job
""")
    client.command(f"""
INSERT INTO events (id, resource, time, kind, code, count, text, source)
SELECT concat(toString(resource), kind), resource,
    toDateTime64({first} + resource % 2500000 + if(kind = 'restored', 3000, 0), 3, 'UTC'), kind,
    if(kind = 'xid', 79, 0), 1, '', 1
FROM places ARRAY JOIN ['xid', 'restored'] AS kind
WHERE places.kind = 'gpu' AND resource % 10 = 0
""")  # noqa: S608


def _fill_prices(client: Client, period: Period) -> None:
    hours = pl.datetime_range(period.start, period.end, "1h", closed="left", eager=True)
    rows = [
        RegisterRow(
            line=line + 2,
            key=f"{hour:%Y-%m-%dT%H}",
            text=row_text({
                "zone": "NO4", "start": f"{hour:%Y-%m-%dT%H:%M:%S.000Z}", "duration_minutes": 60,
                "price_per_mwh": 300.0 + line % 100, "currency": "NOK",
            }),
            begins_at=hour, ends_at=hour + timedelta(hours=1),
        )
        for line, hour in enumerate(hours)
    ]  # fmt: skip
    version = RegisterVersion(
        kind=RegisterKind.POWER_PRICES, imported_at=period.end, imported_by="benchmark", file_name="prices.csv",
        file_sha256="0" * 64, evidence_name="none", evidence_sha256="0" * 64, row_count=len(rows),
    )  # fmt: skip
    write_version(client, version, rows)


def main() -> None:
    match sys.argv[1:]:
        case ["fill", folder, gpus]:
            fill(Path(folder), int(gpus))
        case ["report", folder, kind]:
            sys.stdout.write(json.dumps(write_report(Path(folder), kind)))
        case sizes:
            for document in run(tuple(int(size) for size in sizes) or SIZES):
                sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
