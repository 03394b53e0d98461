"""Every query of every dashboard on the real engine, through the door as Grafana's role; and the previews."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from html import unescape
from pathlib import Path
from shutil import which
from subprocess import run
from urllib.parse import quote

import pytest
import requests
from clickhouse_connect.driver.client import Client

from catalogue import GPU, POWER, ResourceKind
from dashboards.answers import Answer, Asker, Json, Question, marks, questions
from dashboards.board import HALL, Board, Page
from dashboards.fleet_lines import IDLE_WATTS, fleet_lines, fleet_mean
from dashboards.macros import ALL, View, expand
from dashboards.metrics import GPU_ENERGY, GPU_POWER, GPU_SM_ACTIVE, METER_ENERGY
from dashboards.preview import draw_pages
from dashboards.preview_server import Moments, PreviewServer
from dashboards.queries import Scope, Shown, Tier, by_resource, highest, mean, rise, total
from dashboards.rendering import boards, dashboard_json
from storage.client import connect
from tests.conftest import DoorUnderTest
from tests.servers.filled_store import FilledStore, fill_store
from tests.servers.kafka import ServerUnavailable
from tests.servers.plugin_client import plugin_client

# The first test waits until the site is simulated and stored.
pytestmark = pytest.mark.timeout(600)

RANGES = {"raw": timedelta(hours=3), "minutes": timedelta(hours=24), "hours": timedelta(days=9)}
# Nothing of these need happen within a day of a site of two racks.
EVENT_PANELS = frozenset(
    {
        "XIDs by class", "Faults by kind", "GPUs with most XIDs", "Nodes with most faults", "Racks with most faults",
        "What the XIDs mean", "What happened", "What happened in this rack", "Faults on held GPUs",
        "GPUs whose fabric is not well", "GPUs that ask for something",
    }
)  # fmt: skip
# Nothing need ever happen to one node or to one job's GPUs.
SELDOM_PANELS = frozenset({"What happened in this node", "What happened on the job's GPUs"})
# Columns that may be empty, and why.
MAY_BE_NULL = {
    "Clock score": "all GPUs of a job run at the same clock, so that their median deviation is zero",
    "Until": "the job still runs",
    "XID": "in a short range only other faults happened",
    "GPU": "only racks, nodes or CDUs had faults",
    "Elsewhere": "only GPUs had faults",
    "Runbook": "only what concerns nobody happened, such as that something is back",
}
TOOK_S: list[tuple[float, str]] = []


@pytest.fixture(scope="module")
def filled(door: DoorUnderTest) -> Iterator[FilledStore]:
    yield fill_store(door)
    door.empty()


@pytest.fixture(scope="module")
def grafana(filled: FilledStore) -> Iterator[Client]:
    """As the data source reaches the store: with the role that may only read."""
    with closing(connect(filled.door.address("grafana"))) as client:
        yield client


def dashboard_of(board: Board) -> Json:
    parsed: Json = json.loads(dashboard_json(board))
    return parsed


def empty_columns(answer: Answer) -> set[str]:
    return {name for name in answer.names if all(value is None or value != value for value in answer.column(name))}


def check_columns(question: Question, answer: Answer) -> None:
    """What the panel's type needs, by Grafana's documentation of each."""
    kinds = dict(zip(answer.names, answer.types, strict=True))
    numbers = [name for name, kind in kinds.items() if "Int" in kind or "Float" in kind]
    match question.panel["type"]:
        case "timeseries" | "state-timeline":
            assert kinds["time"].startswith("DateTime"), kinds
            assert answer.column("time") == sorted(answer.column("time"))
            assert set(kinds) == {"time", "series", "value"} or {*numbers, "time"} == set(kinds), kinds
        case "stat":
            assert len(answer.rows) == 1
            assert numbers == list(kinds), kinds
        case "bargauge":
            assert [kind for kind in kinds.values() if "String" in kind] == [kinds[answer.names[0]]]
            assert numbers == list(answer.names[1:])
            assert len(numbers) == 1
        case "table" if question.panel.get("transformations"):
            assert list(kinds) == ["Row", "Column", "value"]
            assert numbers == ["value"]
            assert len({row[:2] for row in answer.rows}) == len(answer.rows), "two values for one cell"


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("board", boards(), ids=lambda board: board.page.value)
def test_every_query_answers_what_its_panel_needs(
    board: Board, name: str, filled: FilledStore, grafana: Client
) -> None:
    dashboard = dashboard_of(board)
    asker = Asker(grafana, filled.end - RANGES[name], filled.end)
    values = asker.choose(dashboard)
    for question in questions(dashboard):
        started = time.perf_counter()
        answer = asker.ask(question, values)
        TOOK_S.append((time.perf_counter() - started, f"{board.page} {name}: {question.name}"))
        if not answer.rows:
            title = question.panel["title"]
            assert title in EVENT_PANELS | SELDOM_PANELS, f"{board.page}: {question.name} is empty"
            assert name != "hours" or title in SELDOM_PANELS, f"{board.page}: {question.name} is empty in nine days"
            continue
        check_columns(question, answer)
        assert empty_columns(answer) <= MAY_BE_NULL.keys(), f"{board.page}: {question.name}"
    for mark in marks(dashboard):
        answer = asker.run(mark["target"]["rawSql"], values)
        assert not answer.rows or {"time", "text", "tags"} <= set(answer.names)


def test_the_plug_in_reads_over_the_door_what_we_read(filled: FilledStore, grafana: Client) -> None:
    """Every query of every page through clickhouse-go, as Grafana's plug-in: equal columns, types, number of rows."""
    asker = Asker(grafana, filled.end - RANGES["minutes"], filled.end)
    with plugin_client(filled.door.address("grafana")) as plugin:
        for board in boards():
            dashboard = dashboard_of(board)
            values = asker.choose(dashboard)
            for question in questions(dashboard):
                ours = asker.ask(question, values)
                theirs = plugin.ask(asker.expanded(question.sql, values, question.width))
                assert theirs.names == ours.names, question.name
                assert theirs.types == ours.types, question.name
                assert len(theirs.rows) == len(ours.rows), question.name


def test_queries_are_quick(filled: FilledStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A guard against a query that reads far too much; what it costs at scale is measured in benchmarks."""
    assert filled
    took = sorted(TOOK_S)
    p50, p95, (slowest_s, slowest) = took[len(took) // 2][0], took[int(len(took) * 0.95)][0], took[-1]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(took)} queries: p50 {p50:.3f} s, p95 {p95:.3f} s, slowest {slowest_s:.3f} s ({slowest})\n"
        )
    assert p95 < 10


def test_marks_show_the_faults_of_nine_days(filled: FilledStore, grafana: Client) -> None:
    asker = Asker(grafana, filled.end - RANGES["hours"], filled.end)
    site = dashboard_of(boards()[0])
    counts = {mark["name"]: len(asker.run(mark["target"]["rawSql"], asker.choose(site)).rows) for mark in marks(site)}
    assert counts["XIDs that page"] > 0
    assert counts["Maintenance"] > 0


def test_all_tiers_tell_the_same_of_the_same_time(filled: FilledStore, grafana: Client) -> None:
    """Energy is exact at every tier, and so is a mean where every minute and hour has as many readings."""
    start, end = filled.end - timedelta(hours=3), filled.end - timedelta(seconds=1)
    found = []
    for tier in Tier:
        sql = by_resource(GPU, [mean(GPU_POWER), total(GPU_ENERGY)], Scope((ResourceKind.GPU,)))
        # Each part alone, whatever the range would have chosen.
        part = next(part for part in sql.split("\nUNION ALL\n") if f"FROM gpu{tier} AS" in part)
        found.append(_by_gpu(grafana, _without_choice(part), View(start, end, 3600)))
    raw, minutes, hours = found
    assert len(raw) > 100
    assert minutes == pytest.approx(raw)
    assert hours == pytest.approx(raw)


def test_a_figure_of_hours_and_minutes_is_that_of_all_readings(filled: FilledStore, grafana: Client) -> None:
    """From five past an hour to five to one: whole hours lie within, and minutes on both sides of them."""
    view = View(filled.end - timedelta(hours=4, minutes=55), filled.end - timedelta(minutes=5, seconds=1), 60)
    readings = [mean(GPU_POWER), total(GPU_ENERGY), highest(GPU_POWER)]
    raw, rollups = (
        _by_gpu(grafana, by_resource(GPU, readings, Scope((ResourceKind.GPU,)), finest=tier, bucketed=False), view)
        for tier in (Tier.RAW, Tier.MINUTE)
    )
    assert len(raw) > 100
    assert rollups == pytest.approx(raw)


def test_a_figure_reads_few_minutes(filled: FilledStore, grafana: Client) -> None:
    sql = by_resource(GPU, [mean(GPU_POWER)], Scope((ResourceKind.GPU,)), bucketed=False)
    view = View(filled.start + timedelta(minutes=5), filled.end - timedelta(minutes=5), 60)
    read = _granules_by_table(_explained(grafana, sql, view))
    minutes = "SELECT sum(power_watts_count) FROM gpu_1m AS tier WHERE $__timeFilter(tier.time)"
    every = _granules_by_table(_explained(grafana, minutes, view))
    assert read["kvandal.gpu"] == 0
    assert read["kvandal.gpu_1h"] > 0
    assert 0 < read["kvandal.gpu_1m"] < every["kvandal.gpu_1m"] / 10


def test_a_line_over_the_fleet_reads_few_minutes(filled: FilledStore, grafana: Client) -> None:
    shown = [Shown("SM", fleet_mean(GPU_SM_ACTIVE)), Shown("Idle", IDLE_WATTS)]
    view = View(filled.start + timedelta(minutes=5), filled.end, 60, {"hall": [ALL]})
    read = _granules_by_table(_explained(grafana, fleet_lines((HALL,), shown), view))
    minutes = "SELECT sum(power_watts_count) FROM gpu_1m AS tier WHERE $__timeFilter(tier.time)"
    every = _granules_by_table(_explained(grafana, minutes, view))
    assert read["kvandal.fleet_minutes"] > 0
    assert 0 < read["kvandal.gpu_1m"] < every["kvandal.gpu_1m"] / 10
    assert "kvandal.place_versions" not in read, "where all halls are chosen, nothing is looked up"


def _by_gpu(client: Client, sql: str, view: View) -> dict[tuple[int, str, str], float]:
    """Each of the readings' numbers, by GPU, bucket if there is one, and place; those of dark GPUs are left out."""
    rows = client.query(expand(sql, view)).named_results()
    told = ((row.pop("resource"), str(row.pop("bucket", "")), row) for row in rows)
    return {(gpu, bucket, name): value for gpu, bucket, row in told for name, value in row.items() if value is not None}


def _without_choice(part: str) -> str:
    """A part of the union without the condition that chooses it."""
    return re.sub(r" AND multiIf\(.*?\) = '\w+'", "", part)


@pytest.mark.parametrize(
    ("length", "table"),
    [(timedelta(hours=6), "gpu"), (timedelta(hours=7), "gpu_1m"), (timedelta(days=8), "gpu_1h")],
)
def test_only_the_tier_of_the_range_is_read(
    filled: FilledStore, grafana: Client, length: timedelta, table: str
) -> None:
    sql = by_resource(GPU, [mean(GPU_POWER)], Scope((ResourceKind.GPU,)))
    granules = _granules_by_table(_explained(grafana, sql, View(filled.end - length, filled.end, 60)))
    assert [name.rpartition(".")[2] for name, read in granules.items() if read > 0] == [table]


def _explained(client: Client, sql: str, view: View) -> list[str]:
    return [line for (line,) in client.query("EXPLAIN indexes = 1 " + expand(sql, view)).result_rows]


def _granules_by_table(plan: list[str]) -> dict[str, int]:
    """The granules that are left of each table after all indexes."""
    found: dict[str, int] = {}
    table = ""
    for line in plan:
        if "ReadFrom" in line:
            table = line.split("(")[1].rstrip(")")
            found[table] = 0 if "ReadFromPreparedSource" in line else found.get(table, 0)
        if "Granules:" in line and table:
            found[table] = int(line.split("Granules:")[1].split("/")[0])
    return found


def test_old_ranges_are_answered_by_the_minutes_when_raw_rows_are_gone(filled: FilledStore, grafana: Client) -> None:
    """Three hours of nine days ago: short enough for raw rows, but those live seven days."""
    end = filled.start + timedelta(days=1)
    sql = by_resource(GPU, [mean(GPU_POWER)], Scope((ResourceKind.GPU,)), bucketed=False)
    assert grafana.query(expand(sql, View(end - timedelta(hours=3), end, 60))).row_count > 100


def test_site_energy_is_the_rise_of_its_register(filled: FilledStore, grafana: Client) -> None:
    """Against the registers' first and last raw rows, read directly."""
    start = filled.end - timedelta(hours=24)
    scope = Scope((ResourceKind.METER,), roles=("site",))
    sql = by_resource(POWER, [rise(METER_ENERGY)], scope, finest=Tier.MINUTE, bucketed=False)
    (found,) = grafana.query(expand(sql, View(start, filled.end, 60))).result_rows
    first, last = int(start.timestamp()), int(filled.end.timestamp())
    (expected,) = grafana.query(
        "SELECT argMax(energy_import_joules, time) - argMin(energy_import_joules, time) FROM power "
        "WHERE resource = {meter:UInt64} AND time BETWEEN toDateTime({first:UInt32}) AND toDateTime({last:UInt32})",
        parameters={"meter": found[0], "first": first, "last": last},
    ).result_rows[0]
    assert found[1] == expected > 0


def test_a_renamed_column_fails(filled: FilledStore, grafana: Client) -> None:
    """The net that the first test spreads has no hole: a column that is not there is refused."""
    sql = by_resource(GPU, [mean(GPU_POWER)], Scope((ResourceKind.GPU,))).replace("tier.power_watts)", "tier.watts)")
    with pytest.raises(Exception, match="watts"):
        grafana.query(expand(sql, View(filled.end - timedelta(hours=1), filled.end, 60)))


def test_previews_are_drawn_and_chromium_shows_them(filled: FilledStore, grafana: Client, tmp_path: Path) -> None:
    previews = draw_pages(grafana, tmp_path, end=filled.end)
    assert len(previews.pages) == len(boards())
    assert {reason for reasons in previews.empty.values() for reason in reasons} <= {
        f"{title}: no rows" for title in EVENT_PANELS | SELDOM_PANELS
    }
    for path in previews.pages.values():
        page = path.read_text()
        assert len(page) < 1_000_000, f"{path.name} is too large"
        assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "<b>Hall</b> All" in previews.pages["kvandal-site"].read_text()
    assert "<b>Rack</b> hall-1 / rack 01" in previews.pages["kvandal-rack"].read_text()
    picture = tmp_path / "site.png"
    _screenshot(previews.pages["kvandal-site"], picture)
    assert picture.stat().st_size > 30_000, "an empty page has no more than a background"
    assert previews.pages["kvandal-power"].read_text().count("<svg") == 5, "every time series is drawn"


@pytest.fixture
def served(filled: FilledStore) -> Iterator[PreviewServer]:
    with PreviewServer(filled.door.address("grafana"), Moments.of(end_of_the_month=filled.end, now=None)) as server:
        yield server


def opened(server: PreviewServer, address: str) -> str:
    answer = requests.get(server.url + address, timeout=60)
    assert answer.ok, answer.text
    return unescape(answer.text)


def link_to(page: Page, on: str) -> str:
    """The first link from a value to a page."""
    found = re.search(rf'<td[^>]*><a href="(/d/{page}\?[^"]*&var-[^"]*)"', on)
    assert found is not None, f"no value leads to {page}"
    return found[1]


def chosen(name: str, on: str) -> str:
    found = re.search(rf'<select name="var-{name}">.*?<option value="([^"]*)" selected>', on)
    assert found is not None, name
    return found[1]


def test_links_lead_from_the_fleet_to_a_rack_a_gpu_its_job_and_its_customer(served: PreviewServer) -> None:
    """Through served previews, whose links are those that Grafana gets, filled in; the range goes along."""
    fleet = opened(served, f"/d/{Page.FLEET}?from=now-7d")
    rack = opened(served, link_to(Page.RACK, fleet))
    assert chosen("rack", rack).startswith("hall-1 / rack")
    gpu_address = link_to(Page.GPU, fleet)
    gpu = opened(served, gpu_address)
    name = chosen("gpu", gpu)
    assert quote(name, safe="") in gpu_address
    assert f"{name.rpartition(' / ')[0]} / gpu 3" in gpu, "the node's other GPUs are shown beside it"
    job = opened(served, link_to(Page.JOBS, gpu))
    customer = opened(served, link_to(Page.CUSTOMERS, job))
    for page in (rack, gpu, job, customer):
        assert '<option value="now-7d" selected>' in page
        assert page.count("no data") <= 2
    assert re.search(r'href="https://kvandal.example/runbooks/\w+\.md"', job + rack), "an event leads to its runbook"


def test_a_page_is_drawn_for_what_its_address_says(served: PreviewServer) -> None:
    page = opened(served, f"/d/{Page.RACK}?var-rack=hall-1+/+rack+02&from=now-24h")
    assert chosen("rack", page) == "hall-1 / rack 02"
    assert '<option value="now-24h" selected>' in page
    assert ">tray 18</td>" in page
    assert requests.get(served.url, timeout=60).url.endswith("/d/kvandal-site")


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/d/kvandal-nothing", 404), ("/d/kvandal-site?from=now/d", 400), ("/d/kvandal-site?to=yesterday", 400),
        ("/d/kvandal-rack?var-rack=\\'%20OR%201=1--", 400), ("/d/../etc/passwd", 404),
    ],
)  # fmt: skip
def test_an_address_that_no_link_of_ours_has_is_refused(served: PreviewServer, address: str, status: int) -> None:
    assert requests.get(served.url + address, timeout=60).status_code == status


def test_another_name_than_this_machines_is_refused(served: PreviewServer) -> None:
    answer = requests.get(served.url, headers={"Host": "evil.test"}, timeout=60)
    assert answer.status_code == 403


def test_what_an_address_says_is_shown_as_text(served: PreviewServer) -> None:
    answer = requests.get(f"{served.url}/d/{Page.RACK}", params={"var-rack": "<script>alert('1')</script>"}, timeout=60)
    assert answer.status_code == 200
    assert "<script" not in answer.text


def _screenshot(page: Path, picture: Path) -> None:
    chromium = which("chromium")
    if chromium is None:
        raise ServerUnavailable("Chromium is not installed: Debian's package chromium has it")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1200"]
    run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True, timeout=120)


def test_prometheus_parses_every_expression(tmp_path: Path) -> None:
    """With Prometheus' own parser, through promtool, as rules."""
    promtool = which("promtool")
    if promtool is None:
        raise ServerUnavailable("promtool is not installed: Debian's package prometheus has it")
    expressions = [
        target["expr"].replace("$__rate_interval", "1m")
        for board in boards()
        for panel in dashboard_of(board)["panels"]
        for target in panel.get("targets") or ()
        if "expr" in target
    ]
    assert len(expressions) >= 9
    rules = [{"record": f"test:{number}", "expr": text} for number, text in enumerate(expressions)]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    checked = run([promtool, "check", "rules", str(path)], check=False, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
