"""The guides' commands as a reader would type them, one after the other, on one simulated site.

A first look makes the site; what the other guides show is then run on its store, which the program opens itself. Only
addresses, folders and months differ from what is printed: those of the guide are a site's own. What needs servers that
are not here (a Kafka for `--rewind-to-store`, a ClickHouse cluster) has tests of its own, or none: README, "Not tried".
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kvandal.settings import AgentSettings, ClientSettings, load_settings
from tests.docs.blocks import GUIDES, blocks
from tests.servers.kafka import ServerUnavailable

ROOT = GUIDES.parents[1]
PROGRAM = Path(sys.executable).parent / "kvandal"

pytestmark = pytest.mark.timeout(900)


class Reader:
    """Somebody at a terminal, in a folder of his own, with the program on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_look = ""  # what it printed
        self.environment = os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def types(self, script: str) -> str:
        """Runs it in bash, which stops at the first failure; returns stdout."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=880, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def lines_of(self, guide: str, word: str, *, mark: str = "sh") -> str:
        """The guide's commands with this word, as they stand there."""
        whole = "\n".join(blocks(GUIDES / guide, mark)).replace("\\\n", " ")
        found = [line for line in whole.splitlines() if word in line and "kvandal" in line]
        assert found, f"{guide} shows no command with {word}"
        return "\n".join(found)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """After docs/guides/first-look.md, without the set-up that made this environment; the store is what it left."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    (reader.folder / ".venv").symlink_to(ROOT / ".venv")
    script = "\n".join(blocks(GUIDES / "first-look.md", "sh")).replace("make setup\n", "")
    assert script.count("kvandal") >= 3
    reader.first_look = reader.types(script)
    reader.environment["KVANDAL_STORE_URL"] = f"chdb://{reader.folder}/first-look/clickhouse"
    return reader


@pytest.fixture(scope="module")
def month() -> str:
    """The month that was simulated: the last whole one."""
    return f"{datetime.now(UTC).replace(day=1) - timedelta(days=1):%Y-%m}"


def test_a_newcomers_first_look_runs(reader: Reader) -> None:
    assert "every row that was produced is stored, once" in reader.first_look
    assert "memory_used_bytes" in reader.first_look
    assert list((reader.folder / "first-look" / "report").glob("*.html"))


def test_the_question_that_a_first_look_ends_with_is_answered(reader: Reader) -> None:
    answer = reader.types(reader.lines_of("first-look.md", "kvandal query", mark="text"))
    assert "avg(power_watts)" in answer
    assert "5 rows" not in answer  # polars' own footer, for a terminal only


def test_the_store_says_how_large_its_tables_are(reader: Reader) -> None:
    answer = reader.types(reader.lines_of("capacity.md", "kvandal query", mark="text"))
    assert "gpu_1m" in answer


def test_the_topology_is_shown(reader: Reader) -> None:
    assert "site Kvandal" in reader.types("kvandal topology show")


def test_a_backup_comes_back_and_its_account_holds(reader: Reader) -> None:
    """docs/guides/backup.md, with the store at rest. The account is of today, which has the live seconds."""
    data, new = reader.folder / "first-look" / "clickhouse", reader.folder / "restored"
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    shown = reader.lines_of("backup.md", "2026-11").splitlines()
    assert [shlex.split(line)[1] for line in shown] == ["backup", "restore", "audit"]
    for line in shown:
        place = new if " restore " in line else data
        typed = line.replace("/var/lib/kvandal/clickhouse", str(place)).replace("/backup", str(reader.folder))
        typed = typed.replace("2026-11-22", "now").replace("2026-11", today)
        if " audit " in line:
            typed = f"KVANDAL_STORE_URL=chdb://{new} {typed}"
        said = reader.types(typed)
    assert "the account holds" in said


def test_a_report_is_frozen_and_whoever_gets_it_can_verify_it(reader: Reader, month: str) -> None:
    """docs/guides/publishing.md from the key to the chain; `report/` is where reports go by default."""
    key, freeze = reader.lines_of("publishing.md", "officer.key").splitlines()[:2]
    verify = reader.lines_of("publishing.md", "verify").splitlines()
    chain = reader.lines_of("publishing.md", "report frozen")
    reader.types(key)
    reader.types(freeze.replace("2026-10", month).replace("--out report", ""))
    frozen = {path.name for path in (reader.folder / "report").iterdir()}
    assert {f"sustainability-{month}-r1.{kind}" for kind in ("pdf", "frozen.json")} <= frozen
    for line in (*verify, chain):
        reader.types(line.replace("sustainability-2026-10", f"report/sustainability-{month}"))


def test_what_no_sensor_gives_is_imported_after_it_was_looked_at(reader: Reader) -> None:
    """docs/guides/registers.md, with the guide's own line of emission factors."""
    page = (GUIDES / "registers.md").read_text()
    section = page[page.index("## emission_factors") :]
    example = re.search(r"```csv\n(.*?)```", section, re.DOTALL)
    assert example is not None
    (reader.folder / "factors.csv").write_text(example[1])
    (reader.folder / "nve-2022.pdf").write_bytes(b"the publication")
    said = reader.types(reader.lines_of("registers.md", "emission_factors", mark=""))
    assert "A. Example" in said


def test_a_dashboard_is_drawn_without_a_grafana(reader: Reader) -> None:
    """One of the guide's table; tests/integration/test_dashboards_store.py asks for all of them."""
    shown = set(re.findall(r"\| `(kvandal-\w+)` \|", (GUIDES / "dashboards.md").read_text()))
    assert shown == {path.stem for path in (ROOT / "dashboards" / "rendered").glob("*.json")}
    reader.types("kvandal dashboards preview --only kvandal-rack --out previews")
    assert [path.name for path in (reader.folder / "previews").glob("kvandal-*.html")] == ["kvandal-rack.html"]


def test_the_schema_of_a_cluster_is_written(reader: Reader) -> None:
    reader.types(reader.lines_of("cluster.md", "schema render", mark="text"))
    whole, later = ((reader.folder / name).read_text() for name in ("schema.sql", "upgrade.sql"))
    assert "ON CLUSTER 'site'" in later
    assert "-- 0001 readings" in whole
    assert "-- 0001 readings" not in later


def test_a_sites_own_thresholds_and_receivers_make_its_rules(reader: Reader) -> None:
    (site, *_) = [block for block in blocks(GUIDES / "alerts.md", "toml") if "[routing]" in block]
    (reader.folder / "site.toml").write_text(site)
    reader.types("kvandal alerts render --site site.toml --out rules")
    assert "15000000" in "".join(path.read_text() for path in (reader.folder / "rules").glob("*.yml"))
    assert "cdu-trip" in reader.types(reader.lines_of("alerts.md", "replay list"))


def test_the_agent_takes_the_settings_that_its_guide_shows(reader: Reader) -> None:
    (settings,) = blocks(GUIDES / "agent.md", "toml")
    (reader.folder / "agent.toml").write_text(settings)
    check = reader.lines_of("agent.md", "--check-config", mark="").replace("FILE", "agent.toml")
    assert 'bootstrap = "kafka-1:9092,kafka-2:9092"' in reader.types(check)
    assert load_settings(AgentSettings, file=reader.folder / "agent.toml", environment={}).agent.sources[0] == "nvml"


def test_the_processes_take_the_settings_of_the_bare_metal_guide(reader: Reader) -> None:
    """With the variables that the units give: the guide's files name no password."""
    ingest, keep = blocks(GUIDES / "bare-metal.md", "toml")
    (reader.folder / "ingest.toml").write_text(ingest)
    (reader.folder / "keep.toml").write_text(keep)
    given = "KVANDAL_KAFKA_PASSWORD_FILE=/run/credentials/unit/kafka-password"
    assert 'username = "kvandal-ingest"' in reader.types(f"{given} kvandal ingest --config ingest.toml --check-config")
    assert "metrics_port = 9467" in reader.types("kvandal keep --config keep.toml --check-config")
    (variables,) = blocks(GUIDES / "bare-metal.md", "ini")
    pairs = dict(line.split("=", 1) for line in variables.splitlines() if not line.startswith("#"))
    assert pairs.pop("ALERTMANAGER").startswith("http://")
    pairs["KVANDAL_KAFKA_PASSWORD_FILE"] = "/run/credentials/unit/kafka-password"  # noqa: S105 - a path
    kafka = load_settings(ClientSettings, environment=pairs).kafka
    assert (kafka.tls, kafka.username) == (True, "kvandal-incidents")
    assert {f"KVANDAL_KAFKA_{name.upper()}" for name in kafka.__struct_fields__} >= pairs.keys()


def test_systemd_takes_every_unit_of_the_bare_metal_guide(reader: Reader) -> None:
    """As on a machine that has the program where the guide puts it: a root of its own, with links to ours."""
    if shutil.which("systemd-analyze") is None:
        raise ServerUnavailable("systemd-analyze, which judges the units, is not installed")
    units = sorted((ROOT / "deploy" / "systemd").iterdir())
    named = set(re.findall(r"`(kvandal-[\w@]+\.service)`", (GUIDES / "bare-metal.md").read_text()))
    assert {unit.name for unit in units if unit.suffix == ".service"} - {"kvandal-report.service"} == named
    folder = reader.folder / "units"
    folder.mkdir()
    for unit in units:
        text = unit.read_text().replace("/opt/kvandal/bin/kvandal", str(PROGRAM))
        (folder / unit.name.replace("@.", "@1.")).write_text(text)
    names = " ".join(sorted(str(path) for path in folder.iterdir()))
    reader.types(f"systemd-analyze verify --man=no {names}")
