"""What a gateway at the scale of a hall costs: 350 racks over DSX, 50 CDUs by Redfish, 500 Modbus meters, every 10 s.

The gateway is `kvandal agent` in a process of its own; its peers (Mosquitto, the simulated devices, the Kafka broker)
run in others. It must stay within its interval, and within half a core. Run as a program this file is the peers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.agent import recommended_environment
from collectors.dsx.settings import DsxSettings
from collectors.modbus.map_file import load_register_map
from collectors.modbus.settings import ModbusDevice, ModbusSettings
from collectors.redfish.settings import RedfishDevice, RedfishSettings
from kvandal.broker import HOST, EmbeddedBroker, tied_to_parent
from kvandal.serving import stop_on_signals, tell_parent
from kvandal.serving_site import METER_MAP, USERNAME, ServingSecrets, served_device, settings_document
from kvandal.settings import AgentSection, AgentSettings, KafkaSettings
from simulation import Resource, Simulation, Site
from simulation.serving import Moment, ServedSite
from simulation.serving.dsx import POINT_TYPES, REPUBLISH_S, BrokerAddress, BusRack, DsxBms
from simulation.serving.modbus import ModbusServing
from simulation.serving.redfish import Account, Controller, RedfishServing
from simulation.serving.redfish_documents import Nameplate, Tree, cdu_documents
from simulation.serving.serving import row_of
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from tests.servers.mosquitto import Mosquitto

RACKS, CDUS, METERS = 350, 50, 500
INTERVAL_S = 10
SITE_RACKS = 398  # a hall of 350 has 44 CDUs; the other six are of the next hall
GPUS_PER_RACK = 72
SEED = 1
_WARM_UP_S = REPUBLISH_S + 15.0  # every device has been discovered, and every value on the bus has been said again
_SETTLE_S = 5.0  # after a tick: all reads are done, the next tick is as far away
_STOP_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 60.0
_MEGABYTE = 1e6

Samples = Mapping[tuple[str, str], float]  # by metric and source


def run(*, seconds: float = 120.0, bus_tick_s: float = 10.0) -> dict[str, object]:
    """One run as a document. Values on the bus change every `bus_tick_s`."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        mosquitto = running.enter_context(Mosquitto(folder / "mosquitto"))
        kafka = running.enter_context(EmbeddedBroker.start(folder / "broker.log"))
        ensure_topics(KafkaAddress(kafka.bootstrap), replication=1)
        peers = [sys.executable, "-m", "benchmarks.gateway", str(folder), str(mosquitto.port), kafka.bootstrap]
        devices, told = running.enter_context(_process([*peers, str(bus_tick_s)], folder / "peers.log"))
        command = [sys.executable, "-m", "kvandal", "agent", "--config", str(told["settings"])]
        agent, live = running.enter_context(_process(command, folder / "agent.log"))
        load = _Load.measure(psutil.Process(agent), psutil.Process(devices), str(live["metrics"]), seconds)
    return {
        "racks": RACKS,
        "points_per_rack": len(POINT_TYPES),
        "cdus": CDUS,
        "meters": METERS,
        "interval_s": INTERVAL_S,
        "bus_tick_s": bus_tick_s,
        **load.document(),
    }


@dataclass(frozen=True, slots=True)
class _Load:
    """The gateway over a measured time."""

    seconds: float
    ticks: int
    processor_s: float
    peers_processor_s: float
    resident_mb: float
    threads: int
    longest_read_s: Mapping[str, float]
    missed_ticks: float
    devices: int
    devices_up: int
    rows: float
    machine_load: float

    @classmethod
    def measure(cls, agent: psutil.Process, peers: psutil.Process, metrics: str, seconds: float) -> "_Load":
        time.sleep(_WARM_UP_S)
        _wait_for_the_middle()
        first = before = _scrape(metrics)
        started_s, used_s, peers_s = time.monotonic(), _processor_s(agent), _processor_s(peers)
        ticks, longest = max(1, round(seconds / INTERVAL_S)), dict.fromkeys(_sources(first), 0.0)
        for _ in range(ticks):
            time.sleep(1.0)
            _wait_for_the_middle()
            now = _scrape(metrics)
            for source in longest:
                longest[source] = max(longest[source], _mean_read_s(source, before, now))
            before = now
        return cls(
            seconds=time.monotonic() - started_s,
            ticks=ticks,
            processor_s=_processor_s(agent) - used_s,
            peers_processor_s=_processor_s(peers) - peers_s,
            resident_mb=agent.memory_info().rss / _MEGABYTE,
            threads=agent.num_threads(),
            longest_read_s=longest,
            missed_ticks=_total("kvandal_agent_missed_ticks_total", before)
            - _total("kvandal_agent_missed_ticks_total", first),
            devices=round(_total("count of devices", before)),
            devices_up=round(_total("kvandal_agent_device_up", before)),
            rows=_total("kvandal_agent_rows_total", before) - _total("kvandal_agent_rows_total", first),
            machine_load=os.getloadavg()[0],
        )

    def document(self) -> dict[str, object]:
        return {
            "seconds": round(self.seconds, 1),
            "ticks": self.ticks,
            "processor_percent_of_a_core": round(self.processor_s / self.seconds * 100, 1),
            "longest_read_s": {name: round(took_s, 3) for name, took_s in self.longest_read_s.items()},
            "missed_ticks": round(self.missed_ticks),
            "devices_up": f"{self.devices_up} of {self.devices}",
            "rows_per_tick": round(self.rows / self.ticks),
            "resident_mb": round(self.resident_mb, 1),
            "threads": self.threads,
            "peers_processor_percent_of_a_core": round(self.peers_processor_s / self.seconds * 100, 1),
            "machine_load_average": round(self.machine_load, 1),
        }


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """A child that runs; with what it said first. A failure shows what it logged."""
    with log.open("wb") as errors:
        environment = {**os.environ, **recommended_environment()}
        process = subprocess.Popen(tied_to_parent(command), stdout=subprocess.PIPE, stderr=errors, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command[1:4])} ended while starting: {log.read_text()[-2000:]}")
            yield process.pid, json.loads(line)
        finally:
            process.terminate()
            process.wait(_STOP_TIMEOUT_S)


def _wait_for_the_middle() -> None:
    """Until the middle between two ticks, which are aligned to the clock on the wall."""
    time.sleep((_SETTLE_S - time.time()) % INTERVAL_S)


def _scrape(metrics: str) -> Samples:
    """The agent's own page, as Prometheus would ask for it."""
    found: dict[tuple[str, str], float] = {}
    with urlopen(metrics, timeout=_SETTLE_S) as page:  # noqa: S310 - our own child's page
        text = page.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("kvandal_agent_") and not sample.name.endswith("_bucket"):
                key = sample.name, sample.labels.get("source", "")
                found[key] = found.get(key, 0.0) + sample.value
                if sample.name == "kvandal_agent_device_up":
                    count = "count of devices", key[1]
                    found[count] = found.get(count, 0.0) + 1
    return found


def _sources(samples: Samples) -> list[str]:
    return sorted(source for name, source in samples if name == "kvandal_agent_read_seconds_count")


def _mean_read_s(source: str, before: Samples, now: Samples) -> float:
    """Of the reads between two scrapes, which is one."""
    took_s, reads = (
        now[name, source] - before.get((name, source), 0.0)
        for name in ("kvandal_agent_read_seconds_sum", "kvandal_agent_read_seconds_count")
    )
    return took_s / reads if reads else float(INTERVAL_S)


def _total(metric: str, samples: Samples) -> float:
    return sum(value for (name, _), value in samples.items() if name == metric)


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# The peers ------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve the hall's devices until told to stop."""
    folder, broker_port, kafka, tick_s = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    stop = stop_on_signals()
    site = Site.build(SITE_RACKS * GPUS_PER_RACK, SEED)
    secrets = ServingSecrets.make(folder, HOST)
    resources = {resource.id: resource for resource in site.resources()}
    racks, cdus = ([resources[int(one)] for one in ids] for ids in (site.rack_ids, site.cdu_ids))
    bms = DsxBms(
        [BusRack(rack.identity, rack.name) for rack in racks[:RACKS]], BrokerAddress(host=HOST, port=broker_port)
    )
    meters, controllers = _meters(), _controllers(cdus, secrets)
    with ExitStack() as closing:
        for server in (bms, meters, controllers):
            closing.callback(server.close)
            server.start()
        served = ServedSite(Simulation(site, int(time.time()), seed=SEED), [bms, meters, controllers])
        served.advance(time.time())
        file = folder / "gateway.toml"
        file.write_text(settings_document(_settings(folder, broker_port, kafka, meters, controllers, cdus, secrets)))
        tell_parent({"settings": str(file)})
        while not stop.wait(tick_s):
            served.advance(time.time())


def _meters() -> ModbusServing:
    """Each behind an address of its own."""
    register_map = load_register_map(METER_MAP)
    devices = [
        [served_device(register_map, 1, f"meter-{number}", partial(_feeder, place=number % SITE_RACKS))]
        for number in range(METERS)
    ]
    return ModbusServing(devices, ports=[0] * METERS, host=HOST)


def _feeder(moment: Moment, *, place: int) -> Mapping[str, float]:
    """A meter at a rack's feeder, with the voltage of the hall's meter."""
    watts = float(moment.rack["power_watts"][place])
    hall = row_of(moment.power, -1)
    return {
        **hall,
        "active_power_watts": watts,
        "energy_import_joules": float(moment.rack["energy_register_joules"][place]),
        "current_amperes": hall["current_amperes"] * watts / hall["active_power_watts"],
        "apparent_power": watts / hall["power_factor_ratio"],
    }


def _controllers(cdus: list[Resource], secrets: ServingSecrets) -> RedfishServing:
    account = Account(USERNAME, secrets.password)
    controllers = [
        Controller(partial(_cdu, Nameplate("CDU 1300", cdu.identity), place), account)
        for place, cdu in enumerate(cdus[:CDUS])
    ]
    ports = [0] * len(controllers)
    return RedfishServing(controllers, ports=ports, host=HOST, certificate=secrets.certificate, key=secrets.key)


def _cdu(plate: Nameplate, place: int, moment: Moment) -> Tree:
    return cdu_documents(plate, row_of(moment.cooling, place))


def _settings(
    folder: Path, broker_port: int, kafka: str, meters: ModbusServing, controllers: RedfishServing,
    cdus: list[Resource], secrets: ServingSecrets,
) -> AgentSettings:  # fmt: skip
    modbus = [
        ModbusDevice(name=f"meter-{number}", host=HOST, port=port, map=METER_MAP, identity=f"meter-{number}")
        for number, port in enumerate(meters.ports)
    ]
    redfish = [
        RedfishDevice(
            name=cdu.identity,
            url=f"https://{HOST}:{port}",
            username=USERNAME,
            password_file=str(secrets.password_file),
            fingerprint_sha256=secrets.fingerprint,
        )
        for cdu, port in zip(cdus, controllers.ports, strict=False)
    ]
    return AgentSettings(
        agent=AgentSection(
            sources=("modbus", "redfish", "dsx"),
            dsx_interval_s=INTERVAL_S,
            spool=str(folder / "spool.db"),
            metrics_port=0,
        ),
        kafka=KafkaSettings(bootstrap=kafka, replication=1),
        dsx=DsxSettings(host=HOST, port=broker_port, tls=False),
        modbus=ModbusSettings(interval_s=INTERVAL_S, devices=tuple(modbus)),
        redfish=RedfishSettings(interval_s=INTERVAL_S, devices=tuple(redfish)),
    )


if __name__ == "__main__":
    main()
