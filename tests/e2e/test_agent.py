"""`kvandal agent` as an operator meets it: what it shows, what a signal does, and that a stop loses nothing."""

import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from kvandal.broker import HOST, EmbeddedBroker
from tests.servers.exporter import exporter
from tests.servers.nvml_stub import NvmlStub, Profile, nvml_stub
from tests.servers.ports import free_port
from tests.servers.stack import Running, fresh_topics, run, until


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[NvmlStub]:
    with nvml_stub(tmp_path, Profile.H100) as stub:
        yield stub


def line_of(text: str, metric: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"  {metric} "))


# --- what this node gives


def test_once_print_shows_every_gpu_with_units_and_why_something_is_absent(stub: NvmlStub) -> None:
    stub.refuse(1, "nvmlDeviceGetMarginTemperature")
    stub.lose(3)

    # Health is read at the first tick only, unless the second is the first of its interval: of an hour, here.
    finished = run("agent", "--once", "--print", "--source", "nvml",
                   settings=stub.environment() | {"KVANDAL_AGENT_HEALTH_INTERVAL_S": "3600"})  # fmt: skip

    assert finished.code == 0, finished.err
    power = line_of(finished.out, "power_watts")
    assert re.split(r"\s{2,}", power.strip()) == ["power_watts", "W", "400", "410", "420", "440"]
    assert line_of(finished.out, "module_power_watts").endswith("not supported")
    assert line_of(finished.out, "temperature_margin_kelvin").endswith("no permission")
    assert line_of(finished.out, "nvlink_crc_errors_count").endswith("first reading: it counts from here on")
    assert "GPU index 3 is dark" in finished.out


def test_once_print_says_what_a_source_that_gives_nothing_needs(tmp_path: Path) -> None:
    finished = run("agent", "--once", "--print", "--source", "host", "--source", "dcgm",
                   settings={"KVANDAL_AGENT_DCGM_URL": f"http://{HOST}:{free_port()}/metrics",
                             "KVANDAL_AGENT_SPOOL": str(tmp_path / "spool.db")})  # fmt: skip

    assert finished.code == 1
    assert "dcgm: gives nothing:" in finished.out
    assert "memory_used_bytes" in finished.out
    assert list(tmp_path.iterdir()) == []  # to look changes nothing


def test_once_print_reads_a_dcgm_exporter() -> None:
    text = (Path(__file__).parents[1] / "fixtures" / "dcgm" / "since_4_6.txt").read_text()
    with exporter(text) as server:
        finished = run("agent", "--once", "--print", "--source", "dcgm",
                       settings={"KVANDAL_AGENT_DCGM_URL": server.url})  # fmt: skip

    assert finished.code == 0, finished.out
    assert "table gpu" in finished.out


def test_once_without_print_is_answered_with_both() -> None:
    finished = run("agent", "--once")

    assert finished.code == 2
    assert "--once and --print go together" in finished.err


def test_two_sources_of_the_same_gpus_are_refused() -> None:
    finished = run("agent", "--check-config", settings={"KVANDAL_AGENT_SOURCES": "nvml,dcgm"})

    assert finished.code == 2
    assert "give one of the two in agent.sources" in finished.err


# --- signals


class Node:
    """An agent's files and address under test."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.folder = folder
        self.spool = folder / "spool.db"
        self.config = folder / "agent.toml"
        self.port = free_port()
        self.bootstrap = bootstrap

    def configure(self, *lines: str) -> None:
        text = [f'spool = "{self.spool}"', f"metrics_port = {self.port}", 'sources = ["host"]', "drain_s = 1"]
        given = {line.partition(" ")[0] for line in lines}
        kept = [line for line in text if line.partition(" ")[0] not in given]
        self.config.write_text("\n".join(["[agent]", *kept, *lines]) + "\n")

    def start(self) -> Running:
        """A running agent whose /metrics answers."""
        arguments = ["agent", "--config", str(self.config), "--broker", self.bootstrap]
        said = sum(file.read_text().count("phase") for file in self.folder.glob("agent.out"))
        agent = Running.start(self.folder, "agent", *arguments)
        until(lambda: agent.out.count("phase") > said, what="the agent runs")
        return agent

    def page(self) -> str:
        with urlopen(f"http://{HOST}:{self.port}/metrics", timeout=10) as page:
            return str(page.read().decode())

    def reads(self) -> int:
        found = re.search(r'kvandal_agent_read_seconds_count\{source="host"\} (\d+)', self.page())
        return int(found.group(1)) if found else 0

    def spooled(self) -> list[tuple[str, int]]:
        """Topic and rows of what waits."""
        with closing(sqlite3.connect(self.spool)) as db:
            return [(topic, rows) for topic, rows in db.execute("SELECT topic, rows FROM frames ORDER BY number")]


@pytest.fixture
def lonely(tmp_path: Path) -> Node:
    return Node(tmp_path, f"{HOST}:{free_port()}")


def test_a_hangup_reloads_intervals(lonely: Node) -> None:
    lonely.configure("host_interval_s = 3600")
    with lonely.start() as agent:
        lonely.configure("host_interval_s = 1")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("settings reloaded")
        until(lambda: lonely.reads() >= 2, what="the host is read every second")
        agent.stop()

    assert "agent.host_interval_s" in agent.log


def test_hangups_while_it_starts_do_not_end_it_and_the_settings_are_read_again(lonely: Node) -> None:
    lonely.configure("host_interval_s = 3600")
    agent = Running.start(lonely.folder, "agent", "agent", "--config", str(lonely.config), "--broker", lonely.bootstrap)
    with agent:
        until(lambda: hears_hangups(agent), what="SIGHUP does not end it")
        while "phase" not in agent.out:
            agent.process.send_signal(signal.SIGHUP)
            assert agent.process.poll() is None, agent.log
            time.sleep(0.02)
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("settings reloaded")
        assert agent.stop() == 0


def hears_hangups(agent: Running) -> bool:
    """Whether the agent's own interpreter ignores or handles SIGHUP, as the kernel tells."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    masks = re.findall(r"^Sig(?:Ign|Cgt):\s*([0-9a-f]+)$", status, flags=re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGHUP - 1) & 1 for mask in masks)


def test_a_hangup_with_wrong_settings_keeps_the_old_ones_and_says_so(lonely: Node) -> None:
    lonely.configure("host_interval_s = 1")
    with lonely.start() as agent:
        lonely.configure("host_interval_s = 1", "intervall_s = 5")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("the old ones stay")
        reads = lonely.reads()
        until(lambda: lonely.reads() > reads + 1, what="the host is still read")
        agent.stop()

    assert "intervall_s" in agent.log


def test_a_hangup_says_which_settings_need_a_restart(lonely: Node) -> None:
    lonely.configure("host_interval_s = 1")
    with lonely.start() as agent:
        lonely.configure("host_interval_s = 1", "spool_mb = 7")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("hold after a restart only")
        agent.stop()

    assert "agent.spool_mb" in agent.log


def test_a_stop_without_a_broker_keeps_every_reading_in_the_spool_and_ends_in_time(lonely: Node) -> None:
    lonely.configure("host_interval_s = 1")
    with lonely.start() as agent:
        until(lambda: lonely.reads() >= 3, what="some ticks are read")
        code = agent.stop(timeout_s=15)

    rows = sum(rows for topic, rows in lonely.spooled() if topic == "kvandal.tray")
    assert code == 0  # what is left is where it should be
    assert rows >= 3
    assert "the next start sends them" in agent.log


def test_the_next_start_sends_what_the_one_before_left(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    node = Node(tmp_path, f"{HOST}:{free_port()}")
    node.configure("host_interval_s = 1")
    with node.start() as agent:
        until(lambda: node.reads() >= 2, what="some ticks are read")
        agent.stop(timeout_s=15)
    assert node.spooled()

    node.bootstrap = embedded_broker.bootstrap
    node.configure("host_interval_s = 1", "drain_s = 20")
    with fresh_topics(embedded_broker.bootstrap), node.start() as agent:
        until(lambda: 'kvandal_agent_rows_total{topic="kvandal.tray"}' in node.page(), what="rows are acknowledged")
        assert agent.stop() == 0

    assert node.spooled() == []
