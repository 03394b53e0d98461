"""The site report from frames: key figures by hand, blanks with reasons, and a page that hostile names cannot break."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from reports.accuracy import HeatConditions, expanded, heat_meter_limit, of_ratio, of_sum
from reports.figures import Kpi, Quality, Role, quality_of
from reports.ledger import READINGS
from reports.period import Period
from reports.queries import Stock
from reports.render import PipelineCounts, SiteReport, duration, number, percent, render_html
from reports.site import ReportSettings, SiteData, build_report

DAY = Period.parse("2026-10-05")
NOW = datetime(2026, 10, 7, 12, tzinfo=UTC)
HOUR_S = 3600

# Watts of each meter of the worked example, all day long.
WATTS: Mapping[str, tuple[Role, float]] = {
    "grid": (Role.SITE, 1_200e3),
    "hall 1": (Role.IT, 600e3),
    "hall 2": (Role.IT, 400e3),
    "cooling plant": (Role.COOLING, 120e3),
    "offices": (Role.OTHER, 30e3),
    "hand-over": (Role.HEAT_HANDED_OVER, 480e3),
    "dry cooler": (Role.HEAT_REJECTED, 360e3),
}
CLASSES = {Role.SITE: "0.5S", Role.IT: "0.5S", Role.COOLING: "1", Role.OTHER: "1"}


def site_data(
    watts: Mapping[str, tuple[Role, float]] = WATTS, *, silent: str = "", site: str = "Kvandal", off_taker: str = ""
) -> SiteData:
    ids = {name: number for number, name in enumerate(watts, start=1)}
    meters = [
        (ids[name], "meter", name, role.value, CLASSES.get(role, ""), "UPS output", off_taker, None, None, 60.0)
        for name, (role, _) in watts.items()
    ]
    readings = [registers(ids[name], level) for name, (_, level) in watts.items() if name != silent]
    heat = next((ids[name] for name, (role, _) in watts.items() if role is Role.HEAT_HANDED_OVER), 0)
    return SiteData(
        meters=pl.DataFrame(meters, schema=METER_COLUMNS, orient="row"),
        stock=Stock(site_name=site, gpus=512, installed_watts=2_000e3),
        registers=pl.concat(readings),
        temperatures=temperatures(heat),
        gpus=gpus(800e3),
    )


METER_COLUMNS = {
    "resource": pl.UInt64,
    "kind": pl.String,
    "name": pl.String,
    "role": pl.String,
    "accuracy_class": pl.String,
    "measured_at": pl.String,
    "off_taker": pl.String,
    "modulus_joules": pl.Float64,
    "rated_watts": pl.Float64,
    "interval_s": pl.Float64,
}


def registers(resource: int, watts: float) -> pl.DataFrame:
    """An hour more than the day on both sides, a reading a minute."""
    seconds = pl.int_range(-HOUR_S, 25 * HOUR_S, 60, eager=True).alias("seconds").to_frame()
    return seconds.select(
        resource=pl.lit(resource, pl.UInt64),
        time=pl.lit(DAY.start, READINGS["time"]) + pl.duration(seconds="seconds", time_unit="ms"),
        register_joules=pl.lit(1e9) + (pl.col("seconds") + HOUR_S) * watts,
        quality_state=pl.lit(1, pl.UInt8),
    )


def temperatures(resource: int) -> pl.DataFrame:
    """40 °C in the first half of the day, 50 °C in the second."""
    times = DAY.edges().collect().head(96)
    warm = pl.int_range(0, 96) >= 48
    return times.select(
        resource=pl.lit(resource, pl.UInt64),
        time=pl.col("time"),
        supply_celsius=pl.when(warm).then(50.0).otherwise(40.0),
        return_celsius=pl.lit(35.0),
    )


def gpus(watts: float) -> pl.DataFrame:
    hours = DAY.edges().collect().gather_every(4).head(24)
    each = {name: pl.lit(watts / 512) for name in ("watts_low", "watts_median", "watts_high")}
    return hours.select(
        "time",
        joules=pl.lit(watts * HOUR_S),
        gpus=pl.lit(512, pl.UInt64),
        gpu_hours=pl.lit(512, pl.UInt64),
        **each,
        sm_active=pl.lit(0.6),
    )


def report_of(data: SiteData, *, now: datetime = NOW) -> SiteReport:
    return build_report(data, DAY, now=now, counts=None, settings=ReportSettings())


@pytest.fixture(scope="module")
def worked() -> SiteReport:
    """The worked example: every meter steady all day."""
    return report_of(site_data())


def kpi(report: SiteReport, key: str) -> Kpi:
    return next(found for found in report.kpis if found.definition.key == key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("site_energy", 28.8),  # 1.2 MW * 24 h
        ("it_energy", 24.0),  # (0.6 + 0.4) MW * 24 h
        ("ipue", 1.2),  # ISO/IEC 30134-2: 28.8 / 24.0
        ("erf", 0.4),  # ISO/IEC 30134-6: 0.48 MW * 24 h / 28.8 MWh
        ("heat_handed_over", 11.52),
        ("heat_rejected", 8.64),
        ("mean_power", 1200.0),
        ("peak_power", 1200.0),
        ("load_factor", 50.0),  # 1.0 MW of 2.0 MW installed
        ("gpu_share", 80.0),  # 0.8 MW of 1.0 MW
    ],
)
def test_worked_example_gives_the_figures_computed_by_hand(worked: SiteReport, key: str, value: float) -> None:
    found = kpi(worked, key)
    assert found.value == pytest.approx(value)
    assert found.quality is Quality.MEASURED
    assert found.evidence is not None
    assert found.evidence.coverage == pytest.approx(1.0)
    assert found.evidence.share_estimated == pytest.approx(0.0)


def test_uncertainty_follows_the_meters_classes(worked: SiteReport) -> None:
    # Class 0.5S as a rectangle: 2 * 0.5 % / sqrt(3) = 0.577 %; both halls err together; the ratio's
    # terms do not: 0.577 % * sqrt(2) = 0.816 %.
    assert kpi(worked, "it_energy").plus_minus == pytest.approx(24.0 * 0.00577350, rel=1e-4)
    assert kpi(worked, "ipue").plus_minus == pytest.approx(1.2 * 0.00816497, rel=1e-4)


def test_energy_balance_shows_its_residual(worked: SiteReport) -> None:
    # 1.2 - 1.0 - 0.12 - 0.03 = 0.05 MW: 1.2 MWh, 4.17 % of the site.
    lines = {line.name.split(":")[0]: line for line in worked.balance}
    assert lines["Residual"].mwh == pytest.approx(1.2)
    assert lines["Residual"].share == pytest.approx(1.2 / 28.8)
    assert lines["hall 1"].mwh == pytest.approx(14.4)


def test_residual_below_zero_is_called_out() -> None:
    watts = dict(WATTS) | {"hall 1": (Role.IT, 900e3)}
    residual = report_of(site_data(watts)).balance[-1]
    assert residual.mwh == pytest.approx(-6.0)
    assert "Negative" in residual.note


def test_heat_temperatures_are_weighted_by_energy(worked: SiteReport) -> None:
    # Equal energy at 40 and at 50 °C.
    line = worked.heat[0]
    assert line.supply_celsius == pytest.approx(45.0)
    assert line.share_of_site == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("gone", "blank", "reason"),
    [
        ("grid", {"site_energy", "ipue", "erf", "mean_power", "peak_power"}, "no site meter"),
        ("hand-over", {"erf", "heat_handed_over"}, "no handed-over heat meter"),
    ],
)
def test_missing_meter_leaves_marked_blanks_and_no_zero(gone: str, blank: set[str], reason: str) -> None:
    report = report_of(site_data({name: meter for name, meter in WATTS.items() if name != gone}))
    assert {found.definition.key for found in report.kpis if found.value is None} == blank
    assert all(reason in kpi(report, key).reason for key in blank)
    assert "not available" in render_html(report)


def test_silent_meter_blanks_the_sum_that_would_lack_it_and_is_named() -> None:
    report = report_of(site_data(silent="hall 2"))
    assert kpi(report, "it_energy").value is None
    assert kpi(report, "ipue").value is None
    assert "hall 2" in kpi(report, "ipue").reason


def test_ratio_counts_only_the_time_that_both_terms_know() -> None:
    # The IT meters begin at noon: the site's morning must not count against them.
    data = site_data()
    noon = DAY.start + timedelta(hours=12)
    late = data.registers.filter(~pl.col("resource").is_in([2, 3]) | (pl.col("time") >= noon))
    found = kpi(report_of(replace(data, registers=late)), "ipue")
    assert found.value == pytest.approx(1.2)
    assert found.evidence is not None
    assert found.evidence.coverage == pytest.approx(0.5)
    assert found.quality is Quality.ESTIMATED
    assert "48 of 96" in found.note


def test_peak_is_not_taken_from_time_that_was_not_observed() -> None:
    data = site_data()
    start = DAY.start + timedelta(hours=6)
    gap = pl.col("time").is_between(start, start + timedelta(hours=2))
    burst = pl.when(pl.col("time") > start).then(pl.col("register_joules") + 3.6e9).otherwise("register_joules")
    site = data.registers.filter((pl.col("resource") != 1) | ~gap).with_columns(
        register_joules=pl.when(pl.col("resource") == 1).then(burst).otherwise("register_joules")
    )
    assert kpi(report_of(replace(data, registers=site)), "peak_power").value == pytest.approx(1200.0)


@pytest.mark.parametrize(
    ("coverage", "quality"),
    [(1.0, Quality.MEASURED), (0.99, Quality.MEASURED), (0.9899, Quality.WITH_GAPS), (0.9499, Quality.ESTIMATED)],
)
def test_words_follow_the_coverage(coverage: float, quality: Quality) -> None:
    assert quality_of(coverage) is quality


def test_heat_meter_limit_is_the_sum_of_its_parts() -> None:
    # EN 1434 class 2 at dT = 10 K, dTmin = 3 K, qp/q = 1: 2.02 % + 1.4 % + 0.8 % = 4.22 %.
    assert heat_meter_limit("2", HeatConditions()) == pytest.approx(0.0422)
    # At dT = 20 K and a quarter of the flow, class 1: 1.04 % + 0.95 % + 0.65 % = 2.64 %.
    conditions = HeatConditions(difference_kelvin=20.0, flow_ratio=4.0)
    assert heat_meter_limit("1", conditions) == pytest.approx(0.0264)


def test_correlated_errors_do_not_shrink_in_a_sum() -> None:
    assert of_sum([(10.0, 0.01)] * 100) == pytest.approx(0.01)
    assert of_ratio(0.03, 0.04) == pytest.approx(0.05)
    assert expanded(0.005) == pytest.approx(0.01 / math.sqrt(3))


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    name = "</style><script>alert('x')</script>&{{7*7}}"
    watts = {f"{key} {name}": meter for key, meter in WATTS.items()}
    page = render_html(report_of(site_data(watts, site=name, off_taker=name)))
    assert "<script" not in page
    assert "{{7*7}}" in page
    assert page.count("</style>") == 1
    assert "&lt;script&gt;" in page


def test_page_needs_no_network_and_no_script(worked: SiteReport) -> None:
    page = render_html(replace(worked, counts=PipelineCounts(10, 10, 0, 0)))
    assert not re.findall(r"<(script|link|iframe|img|object|embed)\b", page)
    outside = {url for url in re.findall(r"https?://[^\s\"'<]+", page) if not url.startswith("http://www.w3.org/")}
    assert outside == set()
    assert "@import" not in page
    assert page.count("<svg") == 5


def test_ids_of_the_drawings_do_not_meet(worked: SiteReport) -> None:
    page = render_html(worked)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_page_is_the_same_when_it_is_made_again(worked: SiteReport) -> None:
    assert render_html(report_of(site_data())) == render_html(worked)


def test_page_of_a_site_without_anything_says_so() -> None:
    data = site_data()
    empty = replace(
        data,
        meters=data.meters.clear(),
        registers=data.registers.clear(),
        temperatures=data.temperatures.clear(),
        gpus=data.gpus.clear(),
        stock=Stock(site_name=None, gpus=0, installed_watts=None),
    )
    page = render_html(report_of(empty))
    assert all(found.value is None and found.reason for found in report_of(empty).kpis)
    assert "Unnamed site" in page
    assert "Nothing to draw" in page


def test_unfinished_period_says_so(worked: SiteReport) -> None:
    page = render_html(report_of(site_data(), now=DAY.end - timedelta(hours=1)))
    assert "The period is not over." in page
    assert "The period is not over." not in render_html(worked)


def test_numbers_are_written_for_people() -> None:
    assert number(1234567.0, 0) == "1\u2009234\u2009567"
    assert number(-6.0, 1) == "\u22126.0"
    assert number(None) == "\u2013"
    assert percent(0.99996) == "99.9\u2009%"  # never 100 % when something is missing
    assert percent(1.0) == "100.0\u2009%"
    assert [duration(s) for s in (20, 240, 8_700, 100_000)] == ["20 s", "4 min", "2 h 25 min", "1 d 3 h"]
