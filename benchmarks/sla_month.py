"""How long an SLA report of a month takes: the store's hours and minutes are written as a fleet would have left them.

Of each GPU and day the hours are there; on one GPU-day in a hundred a GPU was unreadable for a while, and only those
days' minutes are written, since only they are read. Run: `python -m benchmarks.sla_month [gpus] [share of bad days]`.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from clickhouse_connect.driver.client import Client

from collectors.simulator import SimulatorSource
from reports.period import Period
from reports.publishing.html import render_html
from reports.publishing.publication import Language
from reports.sla import build_sla, read_sla
from reports.sla_publication import sla_publications
from simulation import Simulation, Site
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.register_kinds import RegisterKind
from storage.schema import apply
from storage.topology import recompute_places
from stream.topics import INVENTORY
from tests.servers.efficiency_site import tell
from tests.servers.sla_registers import CONTRACT, bring

DARK = 3
HOURS = """
INSERT INTO gpu_1h (resource, time, computed_at, row_count, power_watts_count, gpu_state_max_raw)
SELECT gpu, toDateTime({first:UInt32} + 3600 * hour, 'UTC'), now64(3), 3600,
    3600 - if(bad AND hour % 24 = 11, 1500, 0), if(bad AND hour % 24 = 11, 3, 1)
FROM
(
    SELECT arrayJoin({gpus:Array(UInt64)}) AS gpu, hour,
        cityHash64(gpu, intDiv(hour, 24)) % 10000 < {bad:UInt32} AS bad
    FROM numbers({hours:UInt32}) AS counted ARRAY JOIN [toUInt32(number)] AS hour
)
"""
MINUTES = """
INSERT INTO gpu_1m (resource, time, row_count, power_watts_count, gpu_state_max_raw)
SELECT gpu, toDateTime({first:UInt32} + 86400 * day + 60 * minute, 'UTC'), 60,
    60 - if(minute >= 670 AND minute < 695, 60, 0), if(minute >= 670 AND minute < 695, 3, 1)
FROM
(
    SELECT gpu, day, arrayJoin(range(1440)) AS minute
    FROM
    (
        SELECT arrayJoin({gpus:Array(UInt64)}) AS gpu, number AS day
        FROM numbers({days:UInt32}) AS counted
    )
    WHERE cityHash64(gpu, day) % 10000 < {bad:UInt32}
)
"""


def run(gpus: int = 10_000, bad_share: float = 0.01) -> dict[str, float]:
    """Seconds of each part on the clock, and of processors; memory of this process. The store is one of its own."""
    with _store() as (client, door):
        period = _last_month()
        site = Site.build(gpus, 1)
        rows = _fill(client, site, period, bad_share)
        reader = Reader(client)
        started, ours_s, stores_s = time.perf_counter(), time.process_time(), sum(door.cpu_times()[:2])
        data = read_sla(reader, period, datetime.now(UTC))
        read = time.perf_counter()
        report = build_sla(data, period, now=datetime.now(UTC))
        built = time.perf_counter()
        pages = [render_html(publication, Language.ENGLISH) for publication in sla_publications(report)]
        rendered = time.perf_counter()
        ours_s, stores_s = time.process_time() - ours_s, sum(door.cpu_times()[:2]) - stores_s
    return {
        "gpus": gpus,
        **rows,
        "outages": sum(len(customer.outages) for customer in report.customers),
        "read_s": round(read - started, 2),
        "build_s": round(built - read, 2),
        "render_s": round(rendered - built, 2),
        "all_s": round(rendered - started, 2),
        "cpu_s": round(ours_s, 2),
        "store_cpu_s": round(stores_s, 2),
        "page_bytes": sum(map(len, pages)),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _last_month() -> Period:
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period.parse(f"{first - timedelta(days=1):%Y-%m}")


def _fill(client: Client, site: Site, period: Period, bad_share: float) -> dict[str, float]:
    tell(client, INVENTORY, SimulatorSource(Simulation(site, int(period.start.timestamp()))).inventory())
    recompute_places(client)
    first = (period.start - timedelta(days=2)).replace(hour=0)
    ids = site.gpu_ids.ravel().tolist()
    days = (period.end - first).days + 2
    common = {"first": int(first.timestamp()), "bad": round(bad_share * 10_000)}
    for part in range(0, len(ids), 1000):
        some = {**common, "gpus": ids[part : part + 1000]}
        client.command(HOURS, parameters={**some, "hours": days * 24})
        client.command(MINUTES, parameters={**some, "days": days})
    racks = [rack.identity for rack in site.resources() if rack.kind == "rack"]
    contracts = [{**CONTRACT, "contract": f"SLA-{n}", "party": f"Customer {n}", "unit": "node"} for n in range(10)]
    bring(client, RegisterKind.CONTRACTS, contracts)
    bring(
        client,
        RegisterKind.ALLOCATIONS,
        [
            {"contract": f"SLA-{n % 10}", "resource_kind": "rack", "resource": rack, "start": "2020-01-01T00:00Z"}
            for n, rack in enumerate(racks)
        ],
    )
    counted = "SELECT (SELECT count() FROM gpu_1h), (SELECT count() FROM gpu_1m)"
    hours, minutes = client.query(counted).result_rows[0]
    return {"gpu_1h_rows": hours, "gpu_1m_rows": minutes}


@contextmanager
def _store() -> Iterator[tuple[Client, psutil.Process]]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "storage.door", "--path", str(Path(folder) / "store"), "--database", "bench"]
        roles = {f"KVANDAL_{role}_PASSWORD": "bench" for role in ("ADMIN", "INGEST", "REPORTS", "GRAFANA")}
        door = subprocess.Popen(command, env=os.environ | roles, stdout=subprocess.PIPE, text=True)
        try:
            assert door.stdout is not None
            port = door.stdout.readline().strip()
            with closing(connect(StoreAddress(f"http://127.0.0.1:{port}", "admin", "bench", "bench"))) as client:
                apply(client)
                yield client, psutil.Process(door.pid)
        finally:
            door.terminate()
            door.wait(30)


if __name__ == "__main__":
    asked = sys.argv[1:]
    measured = run(*map(int, asked[:1]), *map(float, asked[1:2]))
    sys.stdout.write(json.dumps(measured, indent=1) + "\n")
