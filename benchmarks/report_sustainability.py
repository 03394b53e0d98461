"""How long the sustainability report of a month of 10,000 GPUs takes, and how much memory: in a process of its own.

The store holds the whole inventory of a site of so many GPUs, and a month of readings, every minute, of each of its
meters and heat meters; their values are made up, their number is that of the simulated site. Readings of GPUs,
trays and racks are left out: the report reads none. Some books are imported.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
from clickhouse_connect.driver.client import Client

from catalogue import COOLING, POWER, ResourceKind
from collectors.simulator import SimulatorSource
from reports.period import Period
from reports.registers_import.documents import template
from reports.registers_import.rows import read_rows
from simulation import Simulation, Site
from storage import schema
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.register_kinds import RegisterKind
from storage.registers import RegisterVersion, store_clock, write_version
from storage.topology import recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import encode_message
from stream.plan import Plan, Range
from stream.rows import pack
from stream.seen import SeenFrames
from stream.topics import INVENTORY

GPUS = 10_000
FACILITY_TICK_S = 60
HOUR_S = 3600
DATABASE = "kvandal"
ROLES = ("admin", "ingest", "reports", "grafana")
READ = {
    ResourceKind.METER: (POWER, "energy_import_joules", "active_power_watts"),
    ResourceKind.HEAT_METER: (COOLING, "heat_register_joules", "heat_flow_watts"),
}
WARMTH = {"primary_supply_temperature_celsius": 51.0, "primary_return_temperature_celsius": 38.0}
FORMATS = "html,pdf,csv,xlsx,json"
BOOKS = (RegisterKind.EMISSION_FACTORS, RegisterKind.WATER, RegisterKind.FUELS, RegisterKind.SITE_FACTS)


def run(*, gpus: int = GPUS) -> dict[str, object]:
    last = datetime.now(UTC).replace(day=1) - timedelta(days=1)
    month = Period.parse(f"{last:%Y-%m}")
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {f"KVANDAL_{role.upper()}_PASSWORD": "benchmark" for role in ROLES}
        command = [sys.executable, "-m", "storage.door", "--path", f"{folder}/store", "--database", DATABASE]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as door:
            try:
                assert door.stdout is not None
                url = f"http://127.0.0.1:{door.stdout.readline().strip()}"
                rows = _fill(StoreAddress(url, "admin", "benchmark", DATABASE), month, gpus)
                return {"gpus": gpus, "facility_rows": rows, **_measure(url, month, Path(folder) / "out")}
            finally:
                door.terminate()


def _fill(address: StoreAddress, month: Period, gpus: int) -> int:
    first, last = int(month.start.timestamp()) - HOUR_S, int(month.end.timestamp()) + HOUR_S
    source = SimulatorSource(Simulation(Site.build(gpus, 3), first))
    times = np.arange(first, last, FACILITY_TICK_S)
    rows = 0
    with closing(connect(address)) as client:
        schema.apply(client)
        writer = Writer(client)
        for kind, (table, register, power) in READ.items():
            for number, message in enumerate(one for one in source.inventory() if one.kind == kind):
                watts = 1e6 * (number + 1) * (1 + 0.1 * np.sin(times / 86_400))
                joules = np.round(np.cumsum(watts) * FACILITY_TICK_S, -3)
                more = {} if table is POWER else WARMTH
                packed = pack(table, message.resource, times, {register: joules, power: watts, **more})
                writer.insert_rows(table.name, packed, token=f"{message.resource}")
                rows += len(packed)
        _tell(writer, source)
        recompute_places(client)
        for book in BOOKS:
            _import(client, book)
    return rows


def _tell(writer: Writer, source: SimulatorSource) -> None:
    messages = [encode_message(message) for message in source.inventory()]
    for first in range(0, len(messages), 5000):
        part = messages[first : first + 5000]
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        plan = Plan(INVENTORY.name, UUID(int=1), (Range(0, first, first + len(part)),), now_ms, 0)
        records = [Record(0, first + place, value) for place, value in enumerate(part)]
        batch = MessageBatcher(INVENTORY).build(plan, records, SeenFrames())
        writer.insert_messages("inventory", batch.messages, token=plan.token)


def _import(client: Client, kind: RegisterKind) -> None:
    rows = read_rows(f"{kind}.csv", template(kind).encode(), kind)
    version = RegisterVersion(
        kind=kind, imported_at=store_clock(Reader(client)), imported_by="benchmark", file_name=f"{kind}.csv",
        file_sha256="0" * 64, evidence_name="none", evidence_sha256="0" * 64, row_count=len(rows),
    )  # fmt: skip
    write_version(client, version, rows)


def _measure(url: str, month: Period, out: Path) -> dict[str, object]:
    env = os.environ | {
        "KVANDAL_STORE_URL": url, "KVANDAL_STORE_USER": "reports", "KVANDAL_STORE_PASSWORD": "benchmark",
        "KVANDAL_STORE_DATABASE": DATABASE,
    }  # fmt: skip
    command = [sys.executable, "-m", "kvandal", "report", "sustainability", "--period", month.text, "--out", str(out),
               "--format", FORMATS, "--language", "en,nb"]  # fmt: skip
    start = time.monotonic()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # the engine's process is not waited for yet
    return {
        "period": month.text,
        "formats": FORMATS,
        "languages": 2,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")
