"""Routing: a real Alertmanager's tool reads our configuration and sends each alert where it belongs."""

import json
from pathlib import Path

import pytest

from alerts.alert import Severity
from alerts.maintenance import RegisterError, load_windows, silence_of
from alerts.maintenance_register import load_register
from alerts.rendering import all_alerts, rendered_files
from alerts.replay_site import ReplaySite
from alerts.routing import TEMPLATE_NAME, Routing, RoutingError, load_routing, render_routing, render_template
from alerts.tenants import Tenant, TenantsError, load_tenants
from alerts.thresholds import Thresholds, ThresholdsError, load_thresholds
from tests.servers.alertmanager import amtool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routing")
    (folder / TEMPLATE_NAME).write_text(render_template())
    file = folder / "alertmanager.yml"
    file.write_text(render_routing(Routing(smtp_user="kvandal", smtp_password_file="/run/secrets/smtp")))  # noqa: S106
    return file


def test_amtool_accepts_the_configuration_and_its_template(configuration: Path) -> None:
    done = amtool("check-config", str(configuration))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 templates" in done.stdout


def test_a_notification_leads_to_the_time_when_it_began(configuration: Path, tmp_path: Path) -> None:
    """15 minutes before 2026-11-18 11:06:40 UTC, in milliseconds, in the place of the last hour."""
    alerts = [{
        "status": "firing", "labels": {"alertname": "GpuDark"}, "startsAt": "2026-11-18T11:06:40Z",
        "annotations": {"summary": "It is dark.", "dashboard": "https://g.example/d/x?from=now-1h&to=now&var-rack=r+0"},
    }]  # fmt: skip
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"receiver": "page-fleet", "status": "firing", "alerts": alerts}))
    folder = configuration.parent
    done = amtool(
        "template", "render", f"--template.glob={folder}/*.tmpl", f"--template.data={data}",
        '--template.text={{ template "kvandal.text" . }}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Dashboard: https://g.example/d/x?from=1794999100000&to=now&var-rack=r+0" in done.stdout
    assert "Since 2026-11-18 11:06:40 UTC." in done.stdout


def receivers(configuration: Path, **labels: str) -> str:
    given = [f"{name}={value}" for name, value in labels.items()]
    return amtool("config", "routes", "test", f"--config.file={configuration}", *given).stdout.strip()


def test_every_alert_goes_to_its_owner_or_to_the_tickets(configuration: Path) -> None:
    wanted = {Severity.TICKET: "tickets", Severity.NOTICE: "nobody", Severity.HEARTBEAT: "dead-man"}
    for alert in all_alerts().values():
        labels = {"alertname": alert.name, "severity": str(alert.severity), "owner": str(alert.owner), "rack": "rack 0"}
        expected = wanted.get(alert.severity, f"page-{alert.owner}")
        assert receivers(configuration, **labels) == expected, alert.name


def test_an_alert_without_owner_still_reaches_somebody(configuration: Path) -> None:
    assert receivers(configuration, alertname="New", severity="page") == "page-fleet"
    assert receivers(configuration, alertname="New") == "tickets"


def test_amtool_would_notice_a_wrong_configuration(configuration: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "alertmanager.yml"
    wrong.write_text(configuration.read_text().replace("receiver: dead-man", "receiver: dead-men"))
    assert amtool("check-config", str(wrong)).returncode != 0


def test_no_secret_is_in_the_configuration(configuration: Path) -> None:
    text = configuration.read_text()
    assert "routing_key_file: /etc/alertmanager/secrets/pagerduty/cooling" in text
    assert "routing_key:" not in text
    assert "smtp_auth_password:" not in text


def test_rendered_files_are_fresh_and_say_so_in_line_one() -> None:
    for path, text in rendered_files().items():
        assert (ROOT / path).read_text() == text, path
        assert "Generated" in text.splitlines()[0]


def test_settings_of_routing_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('[routing]\nwebhook_url = "https://t.example"\n')
    assert load_routing(file).webhook_url == "https://t.example"
    file.write_text('[routing]\nweb_hook = "https://t.example"\n')
    with pytest.raises(RoutingError, match="web_hook"):
        load_routing(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[thresholds]\nfresh_s = 120\n", ""),
        ("[thresholds]\nfresh = 120\n", "no threshold fresh"),
        ("[thresholds]\nfresh_s = 1\n", "thresholds.fresh_s is 1; give 5 to 3600"),
        ("[thresholds]\nfresh_s = nan\n", "thresholds.fresh_s is nan"),
        ('[thresholds]\nfresh_s = "60"\n', "thresholds.fresh_s is '60'; give a number"),
        ("thresholds = 1\n", "write \\[thresholds\\]"),
        ("fresh", "cannot be read"),
    ],
)
def test_thresholds_of_a_site(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    if says:
        with pytest.raises(ThresholdsError, match=says):
            load_thresholds(file)
    else:
        assert load_thresholds(file) == Thresholds(fresh_s=120)


WINDOW = '[[window]]\nid = "M-1"\nreason = "pump"\nfrom = 2026-11-22T08:00:00Z\nuntil = 2026-11-22T12:00:00+01:00\n'


def test_a_window_is_a_silence_of_its_place_that_leaves_leaks_and_the_heartbeat_alone(tmp_path: Path) -> None:
    file = tmp_path / "maintenance.toml"
    file.write_text(WINDOW + 'cdu = "CDU 7"\n')
    (window,) = load_windows(file)
    silence = silence_of(window)
    assert silence.ends_ms - silence.starts_ms == 3 * 3_600_000
    assert [(m.name, m.value, m.is_equal) for m in silence.matchers] == [
        ("cdu", "CDU 7", True), ("alertname", "CoolantLeakCritical", False), ("severity", "heartbeat", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WINDOW, "names no place"),
        (WINDOW + 'rack = "a"\n' + WINDOW + 'rack = "b"\n', "two windows have the id M-1"),
        (WINDOW.replace("08:00:00Z", "13:00:00Z") + 'rack = "a"\n', "ends before it begins"),
        (WINDOW.replace("08:00:00Z", "08:00:00") + 'rack = "a"\n', "no offset"),
        (WINDOW + 'shelf = "a"\n', "shelf"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "maintenance.toml"
    file.write_text(text)
    with pytest.raises(RegisterError, match=says):
        load_windows(file)


REGISTER = """\
resource_kind,resource,start,end,maintenance_kind,announced_at,counts_as_exclusion,withdrawn
rack,R1,2026-11-22T08:00+01:00,2026-11-22T12:00+01:00,planned,,yes,
tray,R2-T3,2026-11-22T08:00+01:00,2026-11-22T12:00+01:00,emergency,,no,
cdu,C0,2026-11-22T08:00+01:00,2026-11-22T12:00+01:00,planned,,yes,
cdu,C0,2026-11-22T08:00+01:00,2026-11-22T12:00+01:00,planned,,yes,yes
gpu,R0-T0-G1,2026-11-22T08:00+01:00,2026-11-22T12:00+01:00,planned,,yes,
rack,R99,2026-11-22T08:00+01:00,2026-11-22T12:00+01:00,planned,,yes,
site,Kvandal,2026-11-23T08:00+01:00,2026-11-23T08:30+01:00,upgrade,,yes,
"""


def test_the_register_of_maintenance_is_silences_of_what_the_inventory_calls_it(tmp_path: Path) -> None:
    """R99 is in no inventory, and the CDU's row was withdrawn."""
    file = tmp_path / "maintenance.csv"
    file.write_text(REGISTER)
    site = ReplaySite()
    found = load_register(file, site.tree())
    always = [("alertname", "CoolantLeakCritical", False), ("severity", "heartbeat", False)]
    assert [[(m.name, m.value, m.is_equal) for m in one.matchers] for one in found] == [
        [("rack", "rack 1", True), *always],
        [("node", "node-2-3", True), *always],
        [("resource", f"{site.gpu(0, 0, 1):016x}", True), *always],
        [("alertname", ".+", True), *always],
    ]
    assert [one.comment for one in found][:2] == ["planned: rack R1", "emergency: tray R2-T3"]
    assert found[0].ends_ms - found[0].starts_ms == 4 * 3_600_000


def test_the_register_of_maintenance_is_the_one_that_is_imported() -> None:
    """Its columns are those of the register's schema: a column that is renamed there is missed here."""
    schema = json.loads((ROOT / "reports/register_schemas/maintenance.schema.json").read_text())
    assert set(REGISTER.splitlines()[0].split(",")) == set(schema["properties"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (REGISTER.replace("maintenance_kind", "why"), "no column maintenance_kind"),
        (REGISTER.replace("rack,R1,2026-11-22T08:00+01:00", "rack,R1,2026-11-22T08:00"), "line 2: its times have no"),
        (REGISTER.replace("rack,R1,2026-11-22T08", "rack,R1,2026-11-22T18"), "line 2 ends before it begins"),
        (REGISTER.replace("rack,R1,2026-11-22T08", "rack,R1,yesterday"), "line 2: Invalid isoformat"),
        (REGISTER.replace("tray,", "shelf,"), "line 3: 'shelf' is not a valid ResourceKind"),
        ("", "no column"),
    ],
)
def test_a_register_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "maintenance.csv"
    file.write_text(text)
    with pytest.raises(RegisterError, match=says):
        load_register(file, ReplaySite().tree())


TENANTS = '[[tenant]]\ncustomer = "A"\nobjective = 0.995\nracks = ["rack 1", "rack 2"]\n'


def test_tenants_of_a_site(tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(TENANTS)
    assert load_tenants(file) == (Tenant(customer="A", objective=0.995, racks=("rack 1", "rack 2")),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TENANTS + TENANTS.replace('"A"', '"B"').replace('"rack 1", ', ""), "rack 2 is in it twice"),
        (TENANTS + TENANTS.replace("rack", "other rack").replace("other racks", "racks"), "customer A is in it twice"),
        (TENANTS.replace("0.995", "99.5"), "objective"),
        (TENANTS.replace('["rack 1", "rack 2"]', "[]"), "racks"),
        (TENANTS.replace("racks", "halls"), "halls"),
    ],
)
def test_tenants_that_make_no_sense_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(text)
    with pytest.raises(TenantsError, match=says):
        load_tenants(file)
