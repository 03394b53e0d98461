"""Metric rules in a real promtool: silent one step before their time, firing at it, with these very words."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from alerts.alert import MetricRule
from alerts.metric_rules import metric_rules, missing_readings, recordings
from alerts.rulefile import INTERVAL_S, render_rules
from alerts.series import names_in
from alerts.telling import Links
from alerts.thresholds import Thresholds
from tests.alerts.cases import CDU, GPU, NODE, RACK, Case, Said, cases
from tests.servers.prometheus import promtool

RULES = [rule for rules in metric_rules(Thresholds()).values() for rule in rules]
BY_NAME_AND_SEVERITY = {(rule.name, str(rule.severity)): rule for rule in RULES}
CASES = list(cases())


@pytest.fixture(scope="module")
def rule_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All rules, those included that wait for readings."""
    folder = tmp_path_factory.mktemp("rules")
    for group in metric_rules(Thresholds()):
        (folder / f"{group}.yml").write_text(render_rules(group, Thresholds(), Links(), waiting=True))
    return sorted(folder.glob("*.yml"))


def _dashboard(rule: MetricRule, labels: Mapping[str, str]) -> str:
    named = {name: labels[name].replace(" ", "+") for name in rule.dashboard.variables if labels.get(name)}
    shown = "".join(f"&var-{name}={value}" for name, value in named.items())
    return f"https://grafana.example/d/{rule.dashboard}?from=now-1h&to=now{shown}"


def _expected(case: Case, said: Said) -> dict[str, object]:
    rule = BY_NAME_AND_SEVERITY[case.alert, said.severity]
    return {
        "exp_labels": {**said.labels, "severity": said.severity, "owner": str(rule.owner), "home": "metrics"},
        "exp_annotations": {
            "summary": said.summary,
            "runbook_url": f"https://kvandal.example/runbooks/{case.alert}.md",
            "dashboard": _dashboard(rule, said.labels),
        },
    }


def _series(name: str, labels: Mapping[str, str], values: str) -> dict[str, str]:
    shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{shown}}}", "values": values}


def _test(case: Case) -> dict[str, object]:
    def at(time_s: int, said: tuple[Said, ...]) -> dict[str, object]:
        return {
            "eval_time": f"{time_s}s",
            "alertname": case.alert,
            "exp_alerts": [_expected(case, one) for one in said],
        }

    before = [at(case.at_s - INTERVAL_S, case.before)] if case.at_s else []
    return {
        "name": f"{case.alert} at {case.at_s} s",
        "interval": f"{INTERVAL_S}s",
        "input_series": [_series(*one) for one in case.series],
        "alert_rule_test": [*before, at(case.at_s, case.says)],
    }


def _run(
    tmp_path: Path, rule_files: list[Path], tests: list[dict[str, object]], *, interval_s: int = INTERVAL_S
) -> None:
    file = tmp_path / "tests.yml"
    document = {"rule_files": [str(one) for one in rule_files], "evaluation_interval": f"{interval_s}s", "tests": tests}
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("group", metric_rules(Thresholds()))
def test_promtool_accepts_the_rule_file(group: str, tmp_path: Path) -> None:
    file = tmp_path / f"{group}.yml"
    file.write_text(render_rules(group, Thresholds(), Links(), waiting=True))
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{case.at_s}s-{len(case.series)}")
def test_a_rule_is_silent_a_step_before_and_fires_at_its_time(
    case: Case, tmp_path: Path, rule_files: list[Path]
) -> None:
    _run(tmp_path, rule_files, [_test(case)])


def test_every_rule_has_a_case() -> None:
    tested = {(case.alert, said.severity) for case in CASES for said in case.says}
    assert {(rule.name, str(rule.severity)) for rule in RULES} == tested


def test_without_any_series_only_what_is_about_absence_fires(tmp_path: Path, rule_files: list[Path]) -> None:
    silent = sorted({rule.name for rule in RULES if not rule.fires_on_absence})
    assert {rule.name for rule in RULES if rule.fires_on_absence} == {"AgentsAbsent", "IncidentsDown", "Watchdog"}
    checks = [{"eval_time": "8h", "alertname": name, "exp_alerts": []} for name in silent]
    _run(tmp_path, rule_files, [{"interval": "15s", "input_series": [], "alert_rule_test": checks}])


def test_a_series_that_ends_ends_its_alert(tmp_path: Path, rule_files: list[Path]) -> None:
    """Prometheus believes a reading for five minutes; an alert that outlived it would be about nothing."""
    series = {"series": 'kvandal_gpu_state{resource="a"}', "values": "3x8 _x400"}
    checks = [{"eval_time": "30m", "alertname": "GpuDark", "exp_alerts": []}]
    _run(tmp_path, rule_files, [{"interval": "15s", "input_series": [series], "alert_rule_test": checks}])


def test_a_place_that_nobody_names_is_told_by_its_id(tmp_path: Path, rule_files: list[Path]) -> None:
    summary = "00000000000000cc has failed, for 30 s: its racks trip on temperature within minutes."
    series = (("kvandal_cooling_equipment_state", CDU, "1x3 4x400"),)
    _run(tmp_path, rule_files, [_test(Case("CduDown", 90, series, (Said("page", CDU, summary),)))])


def test_an_alert_keeps_its_labels_while_the_incidents_process_restarts(tmp_path: Path, rule_files: list[Path]) -> None:
    """The name's series ends at 600 s; the alert of 60 s stands for the hour that a name is remembered."""
    case = next(case for case in CASES if case.alert == "CduDown")
    ended = tuple((name, labels, "1x40 stale" if "info" in name else values) for name, labels, values in case.series)
    tests = [_test(Case(case.alert, at_s, ended, case.says, before=case.says)) for at_s in (615, 1800, 3600)]
    _run(tmp_path, rule_files, tests)


def test_promtool_would_notice_a_wrong_expectation(tmp_path: Path, rule_files: list[Path]) -> None:
    case = next(case for case in CASES if case.alert == "GpuDark")
    with pytest.raises(AssertionError):
        _run(tmp_path, rule_files, [_test(Case(case.alert, case.at_s - INTERVAL_S, case.series, case.says))])


def test_racks_that_go_out_of_sight_are_no_ramp(tmp_path: Path, rule_files: list[Path]) -> None:
    series = [{"series": f'kvandal_rack_power_watts{{resource="{n}"}}', "values": values}
              for n, values in ((1, "100000000x400"), (2, "50000000x39 stale"))]  # fmt: skip
    checks = [{"eval_time": f"{at_s}s", "alertname": "SitePowerRamp", "exp_alerts": []} for at_s in range(570, 700, 15)]
    _run(tmp_path, rule_files, [{"interval": "15s", "input_series": series, "alert_rule_test": checks}])


def test_every_series_that_a_rule_names_is_on_a_metrics_page(shown_names: frozenset[str]) -> None:
    written = [one for shared in recordings(Thresholds()).values() for one in shared]
    expressions = [rule.expression for rule in RULES if not missing_readings(rule)] + [
        one.expression for one in written
    ]
    named = frozenset(name for expression in expressions for name in names_in(expression))
    assert "kvandal_gpu_power_watts" in named
    assert named - shown_names == frozenset()


def test_recorded_series_that_rules_name_are_recorded() -> None:
    recorded = {one.name for shared in recordings(Thresholds()).values() for one in shared}
    named = {name for rule in RULES for name in re.findall(r"\bkvandal:[a-z0-9_:]+", rule.expression)}
    assert named == recorded


def test_names_say_subject_and_problem_and_are_their_own() -> None:
    counted = Counter((rule.name, rule.severity) for rule in RULES)
    assert [name for name, count in counted.items() if count > 1] == []
    assert [rule.name for rule in RULES if not re.fullmatch(r"(?:[A-Z][a-z0-9]+)+", rule.name)] == []


def test_a_sites_own_threshold_is_in_its_rules() -> None:
    text = render_rules("gpu", Thresholds(gpu_memory_warm_celsius=88), Links(runbooks="https://wiki.example/run"))
    assert "kvandal_gpu_memory_temperature_celsius > 88" in text
    assert "https://wiki.example/run/GpuMemoryHot.md" in text


_HEALTHY_STEP_S = 60


def _healthy() -> list[dict[str, str]]:
    """Series of a node, a rack, a CDU and the pipeline on which nothing is wrong, for a day."""
    steps = 24 * 3600 // _HEALTHY_STEP_S
    level = {
        "kvandal_gpu_state": 1, "kvandal_gpu_power_watts": 1200, "kvandal_gpu_memory_temperature_celsius": 70,
        "kvandal_gpu_temperature_margin_kelvin": 25, "kvandal_gpu_sm_clock_hertz": 1.9e9,
        "kvandal_gpu_graphics_active_ratio": 1, "kvandal_gpu_clock_event_reasons": 4,
        "kvandal_gpu_health_recovery_action_state": 0, "kvandal_gpu_health_remap_pending_state": 0,
        "kvandal_gpu_health_remap_failure_state": 0, "kvandal_gpu_health_memory_unrepairable_state": 0,
        "kvandal_gpu_health_power_smoothing_life_ratio": 0.9, "kvandal_gpu_health_nvlink_inactive_count": 0,
        "kvandal_gpu_health_fabric_summary_state": 1, "kvandal_gpu_health_pcie_generation_count": 5,
        "kvandal_gpu_health_pcie_lanes_count": 16, "kvandal_agent_energy_ratio": 1.01,
        "kvandal_gpu_health_ecc_volatile_uncorrectable_count_total": 0,
    }  # fmt: skip
    rack = {"kvandal_rack_power_supply_count": 48, "kvandal_rack_liquid_flow_cubic_metres_per_second": 0.003}
    cdu = {
        "kvandal_cooling_equipment_state": 1, "kvandal_cooling_reservoir_level_ratio": 0.9,
        "kvandal_cooling_secondary_supply_temperature_celsius": 44,
        "kvandal_cooling_dew_point_temperature_celsius": 12, "kvandal_cooling_secondary_pressure_pascals": 300_000,
        "kvandal_cooling_heat_flow_watts": 1e6,
    }  # fmt: skip
    agent = {
        "up": 1, "kvandal_agent_broker_up": 1, "kvandal_tray_gpu_count": 4, "kvandal_agent_spool_bytes": 1000,
        "kvandal_agent_spool_limit_bytes": 1e9, "kvandal_agent_clock_synchronised": 1,
        "kvandal_agent_clock_error_seconds": 0.001, "kvandal_agent_source_age_seconds": 1,
        "kvandal_agent_device_up": 1, "kvandal_agent_topic_blocked": 0, "kvandal_ingest_expired_records_total": 0,
        "kvandal_ingest_retries_total": 0,
    }  # fmt: skip
    found = [
        _series(name, {**GPU, "resource": f"{n}"}, f"{value:g}x{steps}")
        for name, value in level.items()
        for n in range(4)
    ]
    found += [_series(name, RACK, f"{value:g}x{steps}") for name, value in rack.items()]
    found += [_series(name, CDU, f"{value:g}x{steps}") for name, value in cdu.items()]
    # A job starts in the morning and ends in the evening: the rack's power and its heat move together.
    found += [
        _series("kvandal_rack_power_watts", RACK, "60000x480 60000+2000x30 120000x540 120000-2000x30 60000x360"),
        _series("kvandal_rack_liquid_heat_watts", RACK, "51000x480 51000+1700x30 102000x540 102000-1700x30 51000x360"),
    ]
    found += [_series(name, NODE, f"{value:g}x{steps}") for name, value in agent.items()]
    found.append(_series("kvandal_power_breaker_state", {"resource": "f"}, f"1x{steps}"))
    found += [_series("kvandal_incidents_tenant_info", {"customer": "A", "rack": "rack 0"}, f"1x{steps}"),
              _series("kvandal_incidents_tenant_objective_ratio", {"customer": "A"}, f"0.999x{steps}")]  # fmt: skip
    # A few corrected errors are no fault: one replay, one symbol error and one recovery in 15 s.
    few = ("kvandal_gpu_health_pcie_replays_count_total", "kvandal_gpu_health_nvlink_crc_errors_count_total",
           "kvandal_port_symbol_error_count_total", "kvandal_port_link_error_recovery_count_total")  # fmt: skip
    found += [_series(name, GPU, f"0+1x{steps}") for name in few]
    # A port is taken down once a day, a tick is missed now and then, and no read is slow.
    found += [
        _series("kvandal_port_link_downed_count_total", GPU, f"0x600 1x{steps - 600}"),
        _series("kvandal_gpu_health_nvlink_recoveries_failed_count_total", GPU, f"0x{steps}"),
        _series("kvandal_agent_missed_ticks_total", {**NODE, "source": "nvml", "reason": "busy"}, f"0+1x{steps}"),
    ]
    found += [_series("kvandal_agent_read_seconds_bucket", {**NODE, "source": "nvml", "le": le}, f"0+60x{steps}")
              for le in ("0.1", "0.5", "+Inf")]  # fmt: skip
    grows = {
        "kvandal_agent_rows_total": {**NODE, "topic": "kvandal.gpu"},
        "kvandal_incidents_read_timestamp_seconds": {},
    }
    grows["kvandal_ingest_last_plan_timestamp_seconds"] = {"table": "gpu"}
    grows["kvandal_ingest_frames_total"] = {"table": "gpu", "outcome": "stored"}
    grows["kvandal_incidents_pushed_timestamp_seconds"] = {"alertmanager": "a"}
    found += [_series(name, labels, f"0+{_HEALTHY_STEP_S}x{steps}") for name, labels in grows.items()]
    return found + [_series("up", {"job": job}, f"1x{steps}") for job in ("kvandal-ingest", "kvandal-incidents")]


# Every alert that fired at any step of the day, whichever it was.
_FIRED = 'count_over_time(ALERTS{alertstate="firing",severity!="heartbeat"}[1d])'


def _day(tmp_path: Path, rule_files: list[Path], series: list[dict[str, str]]) -> None:
    """At steps of a minute: in 24 hours nothing happens that four times as many would tell better."""
    slower = []
    for file in rule_files:
        slower.append(tmp_path / file.name)
        slower[-1].write_text(file.read_text().replace(f"interval: {INTERVAL_S}s", f"interval: {_HEALTHY_STEP_S}s"))
    test: dict[str, object] = {
        "interval": f"{_HEALTHY_STEP_S}s",
        "input_series": series,
        "promql_expr_test": [{"expr": _FIRED, "eval_time": "24h", "exp_samples": []}],
    }
    _run(tmp_path, slower, [test], interval_s=_HEALTHY_STEP_S)


def test_a_healthy_day_tells_nobody(tmp_path: Path, rule_files: list[Path]) -> None:
    _day(tmp_path, rule_files, _healthy())


def test_ten_bad_minutes_of_that_day_would_be_told(tmp_path: Path, rule_files: list[Path]) -> None:
    margin = "kvandal_gpu_temperature_margin_kelvin{"
    bad = [{**one, "values": "25x180 -1x10 25x1250"} if one["series"].startswith(margin) else one for one in _healthy()]
    with pytest.raises(AssertionError, match="GpuThermalMarginLow"):
        _day(tmp_path, rule_files, bad)


def test_the_healthy_day_has_every_series_that_rules_read() -> None:
    shared = [one.expression for recorded in recordings(Thresholds()).values() for one in recorded]
    read = {name for expression in (*(rule.expression for rule in RULES), *shared) for name in names_in(expression)}
    assert read - {one["series"].partition("{")[0] for one in _healthy()} == set()
