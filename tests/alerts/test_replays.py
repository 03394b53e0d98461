"""Shipped incidents, replayed through collectors, incidents, a real promtool and a real Alertmanager."""

import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from alerts.alert import Severity
from alerts.event_rules import BY_NAME
from alerts.metric_rules import metric_rules
from alerts.rendering import RUNBOOKS
from alerts.replay_incident import (
    FOLDER,
    Cast,
    Expected,
    KernelLine,
    ReplayError,
    ReplayIncident,
    incident_names,
    load_incident,
)
from alerts.replay_rules import read_raised
from alerts.replay_score import Delivered, Raised, Score, page, row, score
from alerts.replay_site import ReplaySite
from alerts.routing import SAFETY, Routing, wait_s
from alerts.thresholds import Thresholds
from kvandal.cli import main
from kvandal.replaying import replay
from tests.servers.kafka import ServerUnavailable

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/replays.md"
# What the site's issue list names, and where it is.
NAMED = {
    "leak", "cdu-trip", "power-shelf", "feeder-trip", "nvlink-flap", "row-remap-failure", "gpu-off-the-bus",
    "thermal-drift", "bms-silence", "clock-step", "broker-loss", "mass-correlated", "xid-45-storm", "xid-95-lines",
}  # fmt: skip


@pytest.fixture
def programs() -> None:
    for names in (("promtool",), ("alertmanager", "prometheus-alertmanager")):
        if not any(map(shutil.which, names)):
            raise ServerUnavailable(f"incidents are replayed with {names[0]}, which is not here")


@pytest.mark.timeout(400)  # 800,000 lines are 10 s of one core, and CI's are loaded
@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", incident_names())
def test_an_incident_tells_whom_it_should_and_is_so_on_the_page(name: str) -> None:
    found = replay(load_incident(name))
    assert found.is_good, found
    assert row(found) in PAGE.read_text().splitlines(), "write the page anew: kvandal alerts replay all --markdown"


def test_the_page_has_every_incident_and_no_other() -> None:
    lines = PAGE.read_text().splitlines()
    assert PAGE.read_text().startswith(page([]))  # the words around the table
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == incident_names()


def test_twenty_incidents_are_shipped_those_among_them_that_were_asked_for() -> None:
    assert len(incident_names()) >= 20
    assert set(incident_names()) >= NAMED


@pytest.mark.parametrize("name", incident_names())
def test_an_incident_expects_alerts_that_exist_and_speaks_of_what_is_there(name: str) -> None:
    incident = load_incident(name)
    rules = {(rule.name, rule.severity) for group in metric_rules(Thresholds()).values() for rule in group}
    known = rules | {(rule.name, rule.severity) for rule in BY_NAME.values()}
    assert {(one.alert, one.severity) for one in incident.expect} <= known
    cast = Cast(list(ReplaySite(incident.racks).inventory()))
    named = [one.of for each in (incident.kernel, incident.bus, incident.said, incident.series) for one in each]
    assert all(cast.like(name) for name in named if name)


@pytest.mark.usefixtures("programs")
def test_a_replay_would_notice_a_false_page_a_missed_one_and_one_too_many() -> None:
    incident = ReplayIncident(
        title="two GPUs in two racks",
        after="a test",
        lasts_s=120,
        kernel=(KernelLine(of="node-[02]-0 GPU 0", at_s=0, line="79, GPU has fallen off the bus."),),
        expect=(
            Expected(alert="GpuFallenOffBus", labels={"rack": "rack 0"}, within_s=45),
            Expected(alert="CduTripped", within_s=45),
        ),
    )
    found = replay(incident)
    assert (found.pages, found.false_pages, found.missed, found.too_many) == (
        2, ("GpuFallenOffBus",), ("CduTripped",), True,
    )  # fmt: skip
    assert not found.is_good
    assert found.verdict == "false: GpuFallenOffBus; late or missed: CduTripped; too many messages"


def test_what_promtool_answers_is_read_with_its_times_and_labels() -> None:
    answer = """\
  FAILED:
    expr: "ALERTS{alertstate=\\"firing\\"}", time: 1m15s,
        exp: nil
        got: {__name__="ALERTS", alertname="A", alertstate="firing", place="{rack} \\"1\\""} 1E+00
    expr: "ALERTS{alertstate=\\"firing\\"}", time: 1m30s,
        exp: nil
        got: {__name__="ALERTS", alertname="A", alertstate="firing", place="{rack} \\"1\\""} 1E+00, {__name__="ALERTS", alertname="B", alertstate="firing"} 1E+00
    expr: "ALERTS{alertstate=\\"firing\\"}", time: 1m45s,
        exp: nil
        got: {__name__="ALERTS", alertname="B", alertstate="firing"} 1E+00
"""  # noqa: E501 - as it is printed
    assert read_raised(answer, 105) == [
        Raised({"alertname": "A", "place": '{rack} "1"'}, 75, 105),
        Raised({"alertname": "B"}, 90, None),
    ]


def test_what_comes_too_late_is_missed() -> None:
    incident = ReplayIncident(
        title="t", after="t", lasts_s=100, begins_s=10, expect=(Expected(alert="A", within_s=20),)
    )  # fmt: skip
    page_of_a = Raised({"alertname": "A", "severity": "page"}, 0.0)

    def told_at(at_s: float) -> Score:
        return score(incident, [Delivered(page_of_a, at_s, "g")])

    assert (told_at(30).delay_s, told_at(30).missed) == (20, ())
    assert (told_at(31).delay_s, told_at(31).missed) == (21, ("A",))


def test_how_long_the_alertmanager_waits_is_what_its_routes_say() -> None:
    routing = Routing(page_wait_s=17)
    assert {wait_s(routing, alert, Severity.PAGE) for alert in SAFETY} == {0}
    assert wait_s(routing, "GpuDark", Severity.PAGE) == 17
    assert wait_s(routing, "CoolantLeakCritical", Severity.TICKET) == 60


def test_an_incident_that_is_not_shipped_is_an_error_that_says_where_they_are() -> None:
    with pytest.raises(ReplayError, match="alerts replay list"):
        load_incident("nonsense")
    with pytest.raises(ReplayError, match="nothing of the site is called rack 77"):
        Cast(list(ReplaySite().inventory())).like("rack 77")


def test_the_verb_lists_them_and_says_what_is_missing(tmp_path: Path) -> None:
    listed = CliRunner().invoke(main, ["alerts", "replay", "list"])
    assert [line.partition(":")[0] for line in listed.stdout.splitlines()] == incident_names()
    without = CliRunner(env={"PATH": str(tmp_path)}).invoke(main, ["alerts", "replay", "agent-dead"])
    assert without.exit_code == 2
    assert "promtool is not on the PATH; install it (Debian: apt install prometheus)" in without.stderr


@pytest.mark.usefixtures("programs")
def test_the_verb_gives_the_score_as_json() -> None:
    done = CliRunner().invoke(main, ["alerts", "replay", "smoothing-pair", "--json"])
    (found,) = msgspec.json.decode(done.stdout, type=list[Score])
    assert (done.exit_code, found.incident, found.pages, found.tickets) == (0, "smoothing-pair", 0, 0)


def test_files_of_incidents_say_what_they_are_modelled_on() -> None:
    assert {file.suffix for file in FOLDER.iterdir()} == {".toml"}
    assert all(len(load_incident(name).after) > 20 for name in incident_names())


def test_a_runbook_names_the_replays_of_its_alert() -> None:
    """How it was tested is a claim that anybody can try again."""
    for name in incident_names():
        for alert in {one.alert for one in load_incident(name).expect}:
            assert f"`kvandal alerts replay {name}`" in (ROOT / RUNBOOKS / f"{alert}.md").read_text(), alert
