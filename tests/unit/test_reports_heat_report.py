"""The heat report from frames: figures, statements and balances by hand; and what must hold for any readings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.accuracy import Accuracy
from reports.capacity import Commissioning
from reports.capacity_queries import FEEDS, PLACES, RATINGS
from reports.conservation import Verdict
from reports.figures import Kpi, Quality, Role
from reports.heat_account import HeatContract, HeatSettings
from reports.heat_balances import Level, feeder_terms
from reports.heat_page import HeatReport, document, render_heat
from reports.heat_publication import heat_publication
from reports.heat_queries import FLEET_QUARTERS, LOOP_FACTS, MEMBERS, METER_FACTS
from reports.heat_report import HeatData, HeatReportSettings, build_heat_report, loop_heat
from reports.ledger import READINGS, SERIALS, Flag
from reports.period import Period
from reports.publishing.layout import laid_out
from reports.publishing.publication import Language
from reports.readings import TIME

DAY = Period.parse("2026-10-05")
NOW = datetime(2026, 10, 7, 12, tzinfo=UTC)
HOUR_S = 3600
EVER, FOREVER = datetime(1970, 1, 1), datetime(2299, 12, 31)  # noqa: DTZ001 - Polars adds the zone

GRID, IT_A, IT_B, COOLING, HAND_OVER, DRY_COOLER, LOOP, RACK_A, RACK_B, HALL = range(1, 11)
# Watts of each meter of the worked example, all day long.
WATTS = {GRID: 1_200e3, IT_A: 600e3, IT_B: 400e3, COOLING: 150e3, HAND_OVER: 480e3, DRY_COOLER: 360e3}
ROLES = {
    GRID: Role.SITE,
    IT_A: Role.IT,
    IT_B: Role.IT,
    COOLING: Role.COOLING,
    HAND_OVER: Role.HEAT_HANDED_OVER,
    DRY_COOLER: Role.HEAT_REJECTED,
}
RACKS = {RACK_A: 594e3, RACK_B: 396e3}
CLASSES = {Role.SITE: "0.5S", Role.IT: "0.5S", Role.COOLING: "1"}
HEAT_CLASS = "EN 1434 class 2"


def facts(meter: int, **told: object) -> dict[str, object]:
    role = ROLES[meter]
    row: dict[str, object] = dict.fromkeys(METER_FACTS, "")
    row |= {"modulus_joules": None, "rated_watts": None, "interval_s": 60.0, "resolution_joules": None}
    row |= {"resource": meter, "kind": "meter", "identity": f"M{meter}", "name": f"meter {meter}", "role": role.value}
    return row | {"accuracy_class": CLASSES.get(role, HEAT_CLASS)} | told


CALIBRATED = {"serial": "S1", "calibrated_at": "2026-01-15", "off_taker": "Fish farm", "calibration_certificate": "C1"}


def registers(resource: int, watts: float, *, every_s: int = 60) -> pl.DataFrame:
    """An hour more than the day on both sides."""
    at_s = pl.int_range(-HOUR_S, 25 * HOUR_S, every_s, eager=True).alias("at_s").to_frame()
    return at_s.select(
        resource=pl.lit(resource, pl.UInt64),
        time=pl.lit(DAY.start, TIME) + pl.duration(seconds="at_s", time_unit="ms"),
        register_joules=pl.lit(1e9) + (pl.col("at_s") + HOUR_S) * watts,
        quality_state=pl.lit(1, pl.UInt8),
        power_watts=pl.lit(None, pl.Float64),
    )


def quarter_times() -> pl.DataFrame:
    return DAY.edges().collect().head(96)


def warmth(supply: Sequence[float]) -> pl.DataFrame:
    """Supply temperatures of equal parts of the day; return 30 °C."""
    part = pl.int_range(0, 96) * len(supply) // 96
    return quarter_times().select(
        pl.lit(HAND_OVER, pl.UInt64).alias("resource"),
        "time",
        pl.lit(pl.Series(list(supply))).gather(part).alias("supply_celsius"),
        pl.lit(30.0).alias("return_celsius"),
    )


def loop_rows(watts: float) -> pl.DataFrame:
    """Water from 40 to 50 °C, whose flow is that of the heat: density at 40 °C 992.2, cp at 45 °C 4179.5 (CoolProp)."""
    return registers(LOOP, 0.0).select(
        "resource",
        "time",
        flow_cubic_metres_per_second=pl.lit(watts / (992.3 * 4180 * 10)),
        supply_celsius=pl.lit(40.0),
        return_celsius=pl.lit(50.0),
        quality_state="quality_state",
    )


LOOPS = pl.DataFrame([(LOOP, "loop", "loop", "water", "supply", "TCS")], schema=dict(LOOP_FACTS), orient="row")


def in_time(rows: Sequence[tuple[object, ...]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    plain = {name: pl.Datetime("ms") if kind == TIME else kind for name, kind in schema.items()}
    frame = pl.DataFrame(list(rows), schema=plain, orient="row")
    return frame.with_columns(pl.col("start", "end").dt.replace_time_zone("UTC"))


def heat_data(
    *,
    told: Mapping[int, Mapping[str, object]] | None = None,
    supply: Sequence[float] = (52.0, 48.0),
    loop: float = 850e3,
) -> HeatData:
    known = {HAND_OVER: CALIBRATED} | dict(told or {})
    quarters, reason = loop_heat([(DAY, loop_rows(loop))], LOOPS)
    nothing = pl.DataFrame(schema=dict(FLEET_QUARTERS)), pl.DataFrame(schema=dict(MEMBERS))
    places = [(rack, "rack", f"rack {rack}", HALL, HALL, "hall 1", EVER, FOREVER) for rack in RACKS]
    return HeatData(
        site_name="Kvandal",
        meters=pl.DataFrame([facts(meter, **known.get(meter, {})) for meter in ROLES], schema=dict(METER_FACTS)),
        registers=pl.concat([registers(meter, watts) for meter, watts in WATTS.items()]),
        serials=pl.DataFrame(schema=dict(SERIALS)),
        warmth=warmth(supply),
        loops=LOOPS,
        loop_quarters=quarters,
        loops_reason=reason,
        places=in_time([*places, (LOOP, "loop", "loop", HALL, HALL, "hall 1", EVER, FOREVER)], PLACES),
        feeds=in_time([(IT_A, RACK_A, EVER, FOREVER), (IT_B, RACK_B, EVER, FOREVER)], FEEDS),
        ratings=pl.DataFrame([(rack, "rack", 700e3) for rack in RACKS], schema=dict(RATINGS), orient="row"),
        rack_registers=pl.concat([registers(rack, watts, every_s=900) for rack, watts in RACKS.items()]),
        trays=nothing[0],
        tray_members=nothing[1],
        gpus=nothing[0],
        gpu_members=nothing[1],
    )


def report_of(data: HeatData, report_settings: HeatReportSettings | None = None, *, period: Period = DAY) -> HeatReport:
    return build_heat_report(data, period, now=NOW, settings=report_settings or HeatReportSettings())


@pytest.fixture(scope="module")
def worked() -> HeatReport:
    """The worked example: every meter steady all day."""
    return report_of(heat_data())


def kpi(report: HeatReport, key: str) -> Kpi:
    return next(found for found in report.kpis if found.definition.key == key)


# Key figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("heat_available", 20.4),  # 0.85 MW * 24 h
        ("heat_handed_over", 11.52),  # 0.48 MW * 24 h
        ("heat_rejected", 8.64),
        ("heat_residual", 0.24),  # 20.4 - 11.52 - 8.64
        ("erf", 0.4),  # EN 50600-4-6: 11.52 / 28.8
        ("ere", 0.72),  # The Green Grid: (28.8 - 11.52) / 24.0 = PUE 1.2 * (1 - 0.4)
        ("supply_temperature", 50.0),  # as much heat at 52 as at 48 °C
        ("return_temperature", 30.0),
        ("heat_not_taken", 24.0),  # 0.36 of 0.84 MW are rejected all day
    ],
)
def test_worked_example_gives_the_figures_computed_by_hand(worked: HeatReport, key: str, value: float) -> None:
    found = kpi(worked, key)
    # CoolProp's water differs from the table's rounded figures by less than 2e-4; the residual is of 20 MWh.
    assert found.value == pytest.approx(value, rel=2e-4, abs=5e-3 if key == "heat_residual" else None)
    assert found.quality is Quality.MEASURED


def test_heat_meters_margin_is_that_of_its_class_at_its_own_temperature_difference(worked: HeatReport) -> None:
    # Class 2 at 20 K (50 less 30 °C), least difference 3 K, flow at qp, in percent: flow sensor 2 + 0.02, probes
    # 0.5 + 3 * 3/20 = 0.95, calculator 0.5 + 3/20 = 0.65: 3.62. U = 2 * 3.62 / sqrt(3) = 4.180 % of 11.52 MWh.
    assert kpi(worked, "heat_handed_over").plus_minus == pytest.approx(11.52 * 0.0418, rel=1e-3)


def test_own_use_without_a_meter_is_a_blank_with_a_reason_and_no_zero(worked: HeatReport) -> None:
    found = kpi(worked, "heat_own_use")
    assert found.value is None
    assert found.reason == "The inventory has no own-use heat meter."


def test_fluid_that_cannot_be_told_leaves_heat_available_blank_and_says_why() -> None:
    loops = LOOPS.with_columns(fluid=pl.lit("green stuff"))
    quarters, reason = loop_heat([(DAY, loop_rows(850e3))], loops)
    report = report_of(replace(heat_data(), loops=loops, loop_quarters=quarters, loops_reason=reason))
    assert kpi(report, "heat_available").value is None
    assert "green stuff" in kpi(report, "heat_available").reason
    assert kpi(report, "heat_handed_over").quality is Quality.MEASURED


def test_heat_that_was_not_observed_widens_the_margin_by_as_much() -> None:
    # A quarter of the day is missing: 15.3 of 20.4 MWh, and 5.1 MWh more may have flowed.
    morning = DAY.start + timedelta(hours=6)
    rows = loop_rows(850e3).filter(pl.col("time") >= morning)
    quarters, _ = loop_heat([(DAY, rows)], LOOPS)
    found = kpi(report_of(replace(heat_data(), loop_quarters=quarters)), "heat_available")
    assert found.value == pytest.approx(15.3, rel=1e-3)
    assert found.quality is Quality.ESTIMATED
    assert found.value is not None
    assert found.plus_minus is not None
    assert found.value + found.plus_minus > 20.4


# Contracts -----------------------------------------------------------------------------------------------------------


def test_hours_under_the_agreed_temperature_are_counted_by_quarter_hours() -> None:
    contract = HeatContract("Fish farm", 50.0)
    report = report_of(heat_data(), HeatReportSettings(heat=HeatSettings(contracts=(contract,))))
    (line,) = report.contracts
    assert (line.hours_flowing, line.hours_under) == (24.0, 12.0)
    assert line.coverage == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("agreed", "not_taken", "not_offered"),
    [
        # 0.48 MW was taken of 0.6 agreed, and the loops had 0.85: 0.12 MW * 24 h were not taken.
        (600e3, 2.88, 0.0),
        # 1 MW agreed: the loops had 0.85, so 0.15 MW was not offered and 0.37 not taken.
        (1_000e3, 8.88, 3.6),
        (480e3, 0.0, 0.0),
    ],
)
def test_curtailment_tells_what_was_not_taken_from_what_was_not_offered(
    agreed: float, not_taken: float, not_offered: float
) -> None:
    contract = HeatContract("Fish farm", 40.0, agreed)
    (line,) = report_of(heat_data(), HeatReportSettings(heat=HeatSettings(contracts=(contract,)))).contracts
    assert line.not_taken_mwh == pytest.approx(not_taken, abs=5e-3)
    assert line.not_offered_mwh == pytest.approx(not_offered, abs=5e-3)


def test_contract_with_somebody_who_has_no_meter_is_not_observed() -> None:
    contract = HeatContract("Greenhouse", 50.0)
    (line,) = report_of(heat_data(), HeatReportSettings(heat=HeatSettings(contracts=(contract,)))).contracts
    assert (line.coverage, line.hours_flowing) == (0.0, 0.0)


# Statements ----------------------------------------------------------------------------------------------------------


def test_statement_shows_both_registers_and_nothing_speaks_against_it(worked: HeatReport) -> None:
    (statement,) = worked.statements
    (meter,) = statement.meters
    assert statement.off_taker == "Fish farm"
    assert statement.mwh == pytest.approx(11.52)
    assert statement.objections == ()
    assert meter.opening is not None
    assert meter.closing is not None
    # The register showed 1 GJ an hour before the day.
    assert meter.opening.mwh == pytest.approx(1 / 3.6 + 0.48)
    assert meter.closing.mwh - meter.opening.mwh == pytest.approx(11.52)
    assert (meter.opening.time, meter.closing.time) == (DAY.start, DAY.end)
    assert meter.adjustment_mwh == pytest.approx(0.0, abs=1e-9)
    assert (meter.serial, meter.certificate) == ("S1", "C1")


def test_reset_is_shown_accounted_for_and_speaks_against_billing() -> None:
    data = heat_data()
    noon = DAY.start + timedelta(hours=12)
    counted = pl.col("register_joules") - (1e9 + 13 * HOUR_S * 480e3)
    hit = (pl.col("resource") == HAND_OVER) & (pl.col("time") >= noon)
    broken = data.registers.with_columns(register_joules=pl.when(hit).then(counted).otherwise("register_joules"))
    (statement,) = report_of(replace(data, registers=broken)).statements
    (meter,) = statement.meters
    assert [event.flag for event in meter.events] == [Flag.RESET]
    # What it counted between its last reading and the reset, a minute at most, is lost.
    assert meter.mwh == pytest.approx(11.52, abs=0.48 / 60)
    assert statement.objections == ("meter 5: reset at 5 Oct 11:59; heat may have been lost.",)
    assert meter.adjustment_mwh == pytest.approx((1e9 + 13 * HOUR_S * 480e3) / 3.6e9, abs=0.48 / 60)


def test_gap_is_a_missing_span_and_speaks_against_billing() -> None:
    data = heat_data()
    start, end = DAY.start + timedelta(hours=6), DAY.start + timedelta(hours=7)
    gone = (pl.col("resource") == HAND_OVER) & pl.col("time").is_between(start, end, closed="none")
    (statement,) = report_of(replace(data, registers=data.registers.filter(~gone))).statements
    (span,) = statement.meters[0].missing
    assert (span.start, span.end) == (start, end)
    assert span.mwh == pytest.approx(0.48)
    assert statement.mwh == pytest.approx(11.52)
    assert statement.quality is Quality.WITH_GAPS
    assert any("observed" in objection for objection in statement.objections)


@pytest.mark.parametrize(
    ("told", "objection"),
    [
        ({"calibrated_at": ""}, "its calibration is not known"),
        ({"calibration_due": "2026-10-04"}, "its calibration was due on 2026-10-04"),
        ({"accuracy_class": "good"}, "its accuracy class is not in the inventory"),
    ],
)
def test_what_an_auditor_would_ask_for_is_an_objection(told: Mapping[str, object], objection: str) -> None:
    report = report_of(heat_data(told={HAND_OVER: {**CALIBRATED, **told}}))
    assert [objection in found for found in report.statements[0].objections] == [True]


def test_silent_meter_leaves_the_statement_blank() -> None:
    data = heat_data()
    report = report_of(replace(data, registers=data.registers.filter(pl.col("resource") != HAND_OVER)))
    (statement,) = report.statements
    assert statement.mwh is None
    assert statement.objections == ("meter 5: no readings in this period.",)
    assert "not available" in render_heat(report)


# Balances ------------------------------------------------------------------------------------------------------------


def balance(report: HeatReport, level: Level) -> dict[str, dict[str, object]]:
    rows = report.balances.filter(pl.col("level") == level.value).iter_rows(named=True)
    return {str(row["name"]): row for row in rows}


def test_every_level_that_the_inventory_allows_is_balanced(worked: HeatReport) -> None:
    site = balance(worked, Level.SITE)["whole site"]
    # 1.2 less 1.0 and 0.15 MW: 50 kW for 24 h, 4.17 %.
    assert site["residual_joules"] == pytest.approx(50e3 * 24 * HOUR_S)
    assert site["verdict"] == Verdict.HOLDS
    feeder = balance(worked, Level.FEEDER)
    assert {name: row["residual_share"] for name, row in feeder.items()} == {
        "meter 2": pytest.approx(0.01),
        "meter 3": pytest.approx(0.01),
    }
    # Racks draw 990 kW, the loop takes up 850: 14.1 % go to air.
    assert balance(worked, Level.LOOP)["hall 1"]["residual_share"] == pytest.approx(140 / 990, abs=2e-4)
    assert balance(worked, Level.HEAT)["whole site"]["verdict"] == Verdict.HOLDS


def test_unmetered_load_behind_an_it_meter_is_unexplained() -> None:
    data = heat_data()
    # Rack A is said to be fed by meter 3, which counts 400 kW, and meter 2 by nothing.
    crossed = data.feeds.with_columns(resource=pl.lit(IT_B, pl.UInt64))
    found = balance(report_of(replace(data, feeds=crossed)), Level.FEEDER)
    assert list(found) == ["meter 3"]
    assert found["meter 3"]["verdict"] == Verdict.UNEXPLAINED


def test_rack_that_was_moved_counts_to_each_feeder_for_its_time_there() -> None:
    data = heat_data()
    noon = (DAY.start + timedelta(hours=12)).replace(tzinfo=None)
    both = in_time([(IT_A, RACK_A, EVER, FOREVER), (IT_B, RACK_B, EVER, noon), (IT_A, RACK_B, noon, FOREVER)], FEEDS)
    moved = pl.col("at") >= noon
    # From noon meter 2 counts both racks, and meter 3 stands still.
    shown = data.registers.with_columns(at=pl.col("time").dt.replace_time_zone(None)).with_columns(
        since=pl.when(moved).then((pl.col("at") - noon).dt.total_seconds()).otherwise(0)
    )
    change = pl.col("resource").replace_strict({IT_A: 400e3, IT_B: -400e3}, default=0.0, return_dtype=pl.Float64)
    registered = shown.with_columns(register_joules=pl.col("register_joules") + change * pl.col("since"))
    found = balance(report_of(replace(data, feeds=both, registers=registered.drop("at", "since"))), Level.FEEDER)
    # Of 600 kW all day and 400 kW for half of it, 1 % is lost.
    assert found["meter 2"]["in_joules"] == pytest.approx((600e3 * 24 + 400e3 * 12) * HOUR_S)
    assert {name: row["residual_share"] for name, row in found.items()} == {
        "meter 2": pytest.approx(0.01),
        "meter 3": pytest.approx(0.01),
    }


def test_two_feeds_of_one_rack_share_a_balance_and_the_rack_counts_once() -> None:
    meters = pl.DataFrame({"resource": [1, 2, 3], "role": ["it"] * 3}, schema_overrides={"resource": pl.UInt64})
    feeds = in_time([(1, 7, EVER, FOREVER), (2, 7, EVER, FOREVER), (2, 8, EVER, FOREVER), (3, 9, EVER, FOREVER)], FEEDS)
    terms = feeder_terms(meters, feeds, [7, 8, 9]).sort("balance", "side", "resource")
    assert terms.select("balance", "side", "resource").rows() == [
        (1, "in", 1),
        (1, "in", 2),
        (1, "out", 7),
        (1, "out", 8),
        (3, "in", 3),
        (3, "out", 9),
    ]


def fleet(joules: float, *, members: int = 2, readings: int = 6, heard: int = 2) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = quarter_times().select(
        pl.lit(RACK_A, pl.UInt64).alias("rack"),
        "time",
        pl.lit(joules).alias("joules"),
        *(
            pl.lit(value, pl.UInt64).alias(name)
            for name, value in (("members", heard), ("readings", readings), ("most", 3))
        ),
    )
    return rows, pl.DataFrame([(RACK_A, members)], schema=dict(MEMBERS), orient="row")


def test_trays_and_gpus_are_balanced_within_their_rack() -> None:
    # A rack of 594 kW, trays of 540 kW, GPUs of 450 kW; each quarter hour.
    trays, gpus = fleet(540e3 * 900), fleet(450e3 * 900)
    data = replace(heat_data(), trays=trays[0], tray_members=trays[1], gpus=gpus[0], gpu_members=gpus[1])
    report = report_of(data)
    (rack,), (tray,) = balance(report, Level.RACK).values(), balance(report, Level.TRAY).values()
    assert rack["residual_share"] == pytest.approx(54 / 594)
    assert tray["residual_share"] == pytest.approx(90 / 540)
    assert (rack["name"], tray["verdict"]) == ("rack 8", Verdict.HOLDS)


def test_tray_that_is_never_heard_makes_its_rack_not_comparable() -> None:
    # Three trays are there, two are heard: what the third draws is not a loss.
    trays = fleet(360e3 * 900, members=3)
    found = balance(report_of(replace(heat_data(), trays=trays[0], tray_members=trays[1])), Level.RACK)
    assert found["rack 8"]["verdict"] == Verdict.NOT_COMPARABLE


# Page and document ---------------------------------------------------------------------------------------------------


def test_hostile_names_cannot_break_the_page() -> None:
    evil = "<script>alert(1)</script>"
    data = heat_data(told={HAND_OVER: {**CALIBRATED, "off_taker": evil, "serial": evil, "name": evil}})
    page = render_heat(report_of(replace(data, site_name=evil)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_no_page_rounds_what_was_seen_up_to_all_of_it(worked: HeatReport) -> None:
    almost = replace(worked, capacity=[replace(line, coverage=0.99999) for line in worked.capacity])
    page = laid_out(heat_publication(almost), Language.ENGLISH)
    blocks = (block for section in page["sections"] for block in section["blocks"])
    (rows,) = (block["rows"] for block in blocks if block.get("title") == "Feeders and halls")
    assert {row[-1]["text"] for row in rows} == {"99.9"}


def test_document_holds_every_figure_and_is_plain_json(worked: HeatReport) -> None:
    read = json.loads(json.dumps(document(worked), allow_nan=False))
    assert read["schema"] == "kvandal.heat/1"
    assert {found["key"]: found["value"] for found in read["figures"]}["heat_handed_over"] == pytest.approx(11.52)
    assert read["statements"][0]["meters"][0]["opening"]["time"] == "2026-10-04T22:00:00Z"
    assert {row["level"] for row in read["balances"]} >= {Level.SITE.value, Level.FEEDER.value, Level.HEAT.value}
    # 1.2 MW of 230 MW.
    assert read["capacity"]["phases"][0]["headroom_watts"] == pytest.approx(228.8e6)


def test_commissioned_rack_is_kept_out_of_pue() -> None:
    # Rack B, 396 kW, for 12 h: (28.8 - 4.752) / (24 - 4.752).
    told = Commissioning(RACK_B, DAY.start, DAY.start + timedelta(hours=12), "2026-10")
    (line,) = report_of(heat_data(), HeatReportSettings(commissioning=(told,))).boundaries
    assert line.excluded_mwh == pytest.approx(4.752)
    assert line.ipue == pytest.approx((28.8 - 4.752) / (24 - 4.752))


def test_site_without_anything_is_a_page_of_blanks() -> None:
    full = heat_data()
    names = [name for name in HeatData.__dataclass_fields__ if isinstance(getattr(full, name), pl.DataFrame)]
    report = report_of(replace(full, site_name=None, **{name: getattr(full, name).clear() for name in names}))
    assert [found.value for found in report.kpis] == [None] * len(report.kpis)
    assert all(found.reason for found in report.kpis)
    assert "Unnamed site" in render_heat(report)


# What must hold for any readings -------------------------------------------------------------------------------------


def figures_of(report: HeatReport) -> dict[str, tuple[float | None, float | None]]:
    return {
        found.definition.key: (found.value, found.evidence.coverage if found.evidence else None)
        for found in report.kpis
    }


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 1_000))
def test_order_and_repeats_of_readings_change_nothing(seed: int) -> None:
    data = heat_data()
    again = pl.concat([data.registers, data.registers.sample(fraction=0.1, seed=seed)])
    mixed = again.sample(fraction=1.0, shuffle=True, seed=seed)
    racks = data.rack_registers.sample(fraction=1.0, shuffle=True, seed=seed)
    shuffled = report_of(replace(data, registers=mixed, rack_registers=racks))
    one, other = figures_of(report_of(data)), figures_of(shuffled)
    for key, (value, coverage) in one.items():
        assert other[key][0] == (None if value is None else pytest.approx(value, rel=1e-12, abs=1e-9))
        assert other[key][1] == (None if coverage is None else pytest.approx(coverage))


@settings(deadline=None, max_examples=12)
@given(meter=st.sampled_from(sorted(ROLES)), first=st.integers(0, 20), hours=st.integers(1, 3))
def test_missing_readings_lower_coverage_and_move_no_figure_silently(meter: int, first: int, hours: int) -> None:
    data = heat_data()
    start = DAY.start + timedelta(hours=first)
    hole = (pl.col("resource") == meter) & pl.col("time").is_between(start, start + timedelta(hours=hours))
    whole, holed = report_of(data), report_of(replace(data, registers=data.registers.filter(~hole)))
    for before, after in zip(whole.kpis, holed.kpis, strict=True):
        if before.value is None or before.evidence is None:
            continue
        assert after.evidence is not None
        assert after.evidence.coverage <= before.evidence.coverage + 1e-9
        moved = after.value is None or abs(after.value - before.value) > 1e-9 * max(1.0, abs(before.value))
        assert not moved or after.evidence.coverage < before.evidence.coverage or after.evidence.share_estimated > 0
        assert after.quality is not Quality.MEASURED or after.evidence.coverage >= 0.99


@pytest.mark.parametrize("gone", sorted(ROLES))
def test_removing_a_meter_raises_no_confidence(gone: int) -> None:
    data = heat_data()
    whole = report_of(data)
    for without in (
        replace(data, registers=data.registers.filter(pl.col("resource") != gone)),
        replace(data, warmth=data.warmth.clear()),
        replace(data, loop_quarters=data.loop_quarters.clear()),
    ):
        for before, after in zip(whole.kpis, report_of(without).kpis, strict=True):
            if after.evidence is None or before.evidence is None:
                continue
            assert after.evidence.coverage <= before.evidence.coverage + 1e-9
            assert (after.evidence.uncertainty or 1e9) >= (before.evidence.uncertainty or 0.0) * (1 - 1e-9)


@settings(deadline=None, max_examples=8)
@given(cut=st.integers(1, 95), watts=st.lists(st.floats(1e5, 2e6), min_size=26, max_size=26))
def test_a_split_period_adds_up_to_the_whole(cut: int, watts: list[float]) -> None:
    data = heat_data()
    middle = DAY.start + cut * timedelta(minutes=15)
    hourly = pl.DataFrame({"hour": range(26), "watts": watts})
    at_s = (pl.col("time") - pl.lit(DAY.start - timedelta(hours=1), TIME)).dt.total_seconds()
    uneven = (
        registers(HAND_OVER, 0.0)
        .with_columns(hour=(at_s // HOUR_S).cast(pl.Int64))
        .join(hourly, on="hour")
        .sort("time")
        .with_columns(register_joules=1e9 + (pl.col("watts") * 60).cum_sum())
        .select(*READINGS, "power_watts")
    )
    rows = pl.concat([data.registers.filter(pl.col("resource") != HAND_OVER), uneven])
    parts = (
        Period(DAY.text, DAY.span, DAY.zone, DAY.start, middle),
        Period(DAY.text, DAY.span, DAY.zone, middle, DAY.end),
    )
    wanted = report_of(replace(data, registers=rows)).statements[0].mwh
    found = [report_of(replace(data, registers=rows), period=part).statements[0].mwh for part in parts]
    assert None not in found
    assert sum(mwh or 0.0 for mwh in found) == pytest.approx(wanted)


def test_calibration_due_after_the_period_is_no_objection() -> None:
    due = f"{date(2027, 1, 1)}"
    report = report_of(heat_data(told={HAND_OVER: {**CALIBRATED, "calibration_due": due}}))
    assert report.statements[0].objections == ()


def test_assumed_class_is_said_and_used() -> None:
    report = report_of(heat_data(told={HAND_OVER: {**CALIBRATED, "accuracy_class": ""}}))
    meter = report.statements[0].meters[0]
    assert meter.class_assumed
    assert meter.accuracy_class == Accuracy().assumed_classes[Role.HEAT_HANDED_OVER]
    assert any("assumed" in line for line in report.assumptions)
