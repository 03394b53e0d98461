"""The sustainability report by hand: every figure, every blank, every trace, in both languages."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from reports.figures import Kpi
from reports.period import Period
from reports.publishing.layout import laid_out
from reports.publishing.publication import Language, Publication
from reports.publishing.schemas import document_problems
from reports.publishing.sheets import render_csv, render_xlsx
from reports.sustainability import books
from reports.sustainability.inputs import trailing
from reports.sustainability.norwegian import is_known, norwegian
from reports.sustainability.publication import sustainability_publication
from reports.sustainability.report import SustainabilityReport, build_report
from storage.register_kinds import RegisterKind
from tests.unit.sustainable_month import (
    BOOKS,
    FACTORS,
    GO,
    GRID,
    HEAT_MWH,
    HOURS,
    IT_MWH,
    MONTH,
    NOW,
    REFRIGERANTS,
    SITE_MWH,
    WATER,
    WATTS,
    sustainable,
)


@pytest.fixture(scope="module")
def report() -> SustainabilityReport:
    return build_report(sustainable(), MONTH, now=NOW)


def figures(found: SustainabilityReport) -> dict[str, Kpi]:
    return {kpi.definition.key: kpi for kpi in found.kpis}


def test_every_figure_is_what_is_worked_out_by_hand(report: SustainabilityReport) -> None:
    """1.1 MW site, 1.0 MW IT, 0.44 MW heat, 745 h; 0.745 MWh of generators; 409.75 MWh of hydro: half of the site's."""
    total = SITE_MWH + 0.745
    water = 400.0 + 690.0 / 2  # of 62 days, 31 are in October
    wanted = {
        "site_energy": total,
        "backup_energy": 0.745,
        "it_energy": IT_MWH,
        "pue": 1.1 + 0.001,
        "water": water,
        "potable_water": 400.0,
        "wue": water / IT_MWH,
        "heat_reused": HEAT_MWH,
        "heat_temperature": 51.0,
        "erf": 0.4,
        "renewable": 409.75,
        "ref": 409.75 / total,
        "hourly_matching": 100 * 409.75 / SITE_MWH,
        "scope_2_location": SITE_MWH * 20 / 1000,
        "scope_2_market": (SITE_MWH - 409.75) * 400 / 1000,
        "scope_1": (2000 * 0.25 + 0.5 * 630) / 1000,
        "cue_location": SITE_MWH * 20 / 1000 / IT_MWH,
        "cue_market": (SITE_MWH - 409.75) * 400 / 1000 / IT_MWH,
        "load_factor": 80.0,
    }
    found = {key: kpi.value for key, kpi in figures(report).items()}
    assert found == {key: pytest.approx(value, rel=1e-9) for key, value in wanted.items()}


def test_a_month_is_an_interim_pue_and_says_so(report: SustainabilityReport) -> None:
    pue = figures(report)["pue"]
    assert (pue.definition.title, pue.note) == ("iPUE (interim)", "Interim: not twelve months.")
    of_year = {kpi.definition.key: kpi for kpi in report.year}
    assert (of_year["pue"].value, of_year["pue"].reason) == (None, "Readings cover less than 95 % of this time.")


def test_twelve_whole_months_are_a_pue() -> None:
    year = Period.parse("2025")
    data = sustainable({}, period=year)
    found = build_report(replace(data, history=data.registers), year, now=NOW)
    pue = figures(found)["pue"]
    assert (pue.definition.title, pue.note) == ("PUE", "Over twelve months.")
    assert pue.value == pytest.approx(1.1)


@pytest.mark.parametrize("kind", BOOKS)
def test_a_register_that_was_not_imported_leaves_marked_blanks_and_never_a_zero(
    kind: RegisterKind, report: SustainabilityReport
) -> None:
    without = build_report(
        sustainable({other: rows for other, rows in BOOKS.items() if other is not kind}), MONTH, now=NOW
    )
    lost = {key for key, kpi in figures(report).items() if kpi.value is not None} - {
        key for key, kpi in figures(without).items() if kpi.value is not None
    }
    assert lost == LOST[kind]
    for key in lost:
        assert figures(without)[key].reason.startswith(f"The register {kind} was not imported.")
    blank = {one.key: one.reason for one in without.indicators if one.value is None}
    assert all(reason for reason in blank.values())
    assert blank.keys() >= lost & {one.key for one in without.indicators}


LOST = {
    RegisterKind.GUARANTEES_OF_ORIGIN: {"renewable", "ref", "hourly_matching", "scope_2_market", "cue_market"},
    RegisterKind.EMISSION_FACTORS: {"scope_2_location", "scope_2_market", "cue_location", "cue_market"},
    RegisterKind.WATER: {"water", "potable_water", "wue"},
    RegisterKind.FUELS: {"backup_energy", "scope_1"},
    RegisterKind.REFRIGERANTS: {"scope_1"},
    RegisterKind.SITE_FACTS: set(),
}


def test_a_silent_meter_leaves_blanks() -> None:
    silent = {meter: watts for meter, watts in WATTS.items() if meter != GRID}
    found = figures(build_report(sustainable(watts=silent), MONTH, now=NOW))
    assert {key for key, kpi in found.items() if kpi.value is None} == {
        "site_energy", "pue", "erf", "ref", "hourly_matching", "scope_2_location", "scope_2_market", "cue_location",
        "cue_market",
    }  # fmt: skip
    assert found["pue"].reason == "No readings in this period from meter 1."


def test_every_eu_indicator_is_traced_from_sensor_or_register_to_figure(report: SustainabilityReport) -> None:
    numbers = [one.number for one in report.indicators]
    assert numbers == [
        "1", "2", "3", "4", "4b", *(str(n) for n in range(5, 25)), "PUE", "WUE", "ERF", "REF",
    ]  # fmt: skip
    assert all(one.source.endswith(".") and one.way.endswith(".") for one in report.indicators)
    traced = {one.key: one for one in report.indicators}
    assert traced["energy_total_kwh"].source == "Meters: meter 1 (0.5S)."
    assert traced["energy_total_kwh"].value == pytest.approx((SITE_MWH + 0.745) * 1000)
    assert traced["water_input_m3"].source == (
        "Register water, version 1, line 2, 3; evidence SHA-256 eeeeeeeeeeee."
    )  # fmt: skip
    assert traced["refrigerants"].value == "R-513A"
    assert traced["floor_area_total_m2"].value == 48000.0
    assert {one.key for one in report.indicators if one.is_optional} == {
        "bandwidth_in_gbps", "bandwidth_out_gbps", "traffic_in_eb", "traffic_out_eb",
    }  # fmt: skip
    page = laid_out(sustainability_publication(report), Language.ENGLISH)
    method = next(section for section in page["sections"] if section["title"] == "From sensor to figure")
    assert len(method["blocks"][0]["rows"]) == len(report.indicators)


def test_a_certificate_counts_only_when_it_is_renewable_cancelled_and_for_this_site() -> None:
    changed: dict[str, dict[str, object]] = {
        "counts": {},
        "not renewable": {"technology": "nuclear"},
        "not cancelled": {"cancelled_on": None},
        "cancelled for somebody else": {"beneficiary": "Another"},
    }
    rows = [GO | change | {"certificate_id": f"GO-{n}"} for n, change in enumerate(changed.values())]
    rows.append(GO | {"certificate_id": "GO-late", "cancelled_on": date(2026, 11, 21)})  # after the report was made
    data = sustainable({RegisterKind.GUARANTEES_OF_ORIGIN: rows})
    found = books.certificates(data, MONTH, "Kvandal", date(2026, 11, 20))
    assert [one.verdict for one in found] == [*changed, "not cancelled"]
    assert [one.counted_mwh for one in found] == [409.75, 0, 0, 0, 0]


def test_a_bundle_for_a_year_counts_by_its_days() -> None:
    year = GO | {"consumed_first_day": date(2026, 1, 1), "consumed_last_day": date(2026, 12, 31), "energy_mwh": 365.0}
    data = sustainable({RegisterKind.GUARANTEES_OF_ORIGIN: [year]})
    months = [Period.parse(f"2026-{month:02}") for month in range(1, 13)]
    counted = [books.certificates(data, month, "Kvandal", date(2027, 1, 5))[0].counted_mwh for month in months]
    assert counted[9] == 31.0
    assert sum(counted) == pytest.approx(365.0)


def test_more_certificates_than_energy_are_a_ref_of_one_and_no_more() -> None:
    found = figures(build_report(sustainable(BOOKS | {GOS: [GO | {"energy_mwh": 5000.0}]}), MONTH, now=NOW))
    assert found["ref"].value == 1.0
    assert found["ref"].note.endswith("MWh more than was used count nowhere.")
    assert found["scope_2_market"].value == 0.0  # a true zero: all of it is covered
    assert found["hourly_matching"].value == pytest.approx(100.0)


GOS = RegisterKind.GUARANTEES_OF_ORIGIN


def test_generation_of_other_hours_matches_none_of_these() -> None:
    summer = GO | {"first_day": date(2026, 7, 1), "last_day": date(2026, 7, 31)}
    found = figures(build_report(sustainable(BOOKS | {GOS: [summer]}), MONTH, now=NOW))
    assert found["renewable"].value == 409.75
    assert found["hourly_matching"].value == 0.0
    half = GO | {"first_day": date(2026, 10, 1), "last_day": date(2026, 10, 1), "energy_mwh": 1000.0}
    found = figures(build_report(sustainable(BOOKS | {GOS: [half]}), MONTH, now=NOW))
    assert found["hourly_matching"].value == pytest.approx(100 * 24 / HOURS)  # the whole of one day and no more


def test_the_latest_factor_up_to_the_year_counts_and_the_zone_before_the_country() -> None:
    newer = FACTORS[0] | {"year": 2025, "factor_grams_per_kwh": 11.0}
    future = FACTORS[0] | {"year": 2027, "factor_grams_per_kwh": 99.0}
    zone = FACTORS[0] | {"year": 2025, "zone": "NO4", "factor_grams_per_kwh": 7.0}
    other = FACTORS[0] | {"year": 2025, "zone": "NO1", "factor_grams_per_kwh": 5.0}

    def chosen(*rows: dict[str, Any]) -> float | None:
        data = sustainable({RegisterKind.EMISSION_FACTORS: [*FACTORS, *rows]})
        found = books.factor(data, MONTH, "location", country="NO", zone="NO4")
        return found.grams_per_kwh if found else None

    assert chosen(newer, future) == 11.0
    assert chosen(newer, zone, other) == 7.0
    assert books.factor(sustainable({}), MONTH, "location", country="NO", zone="NO4") is None


def test_a_water_meter_without_lines_for_every_day_leaves_no_sum() -> None:
    short = [WATER[0] | {"last_day": date(2026, 10, 30)}, WATER[1]]
    found = books.water(sustainable({RegisterKind.WATER: short}), MONTH)
    assert (found.value, found.reason) == (None, "The register water lacks 1 of 31 days of W-1.")
    missing = [WATER[0], WATER[1] | {"first_day": date(2026, 8, 1), "last_day": date(2026, 8, 31)}]
    assert books.water(sustainable({RegisterKind.WATER: missing}), MONTH).value is None


def test_what_a_line_says_beyond_the_period_is_called_estimated() -> None:
    found = books.water(sustainable(), MONTH)
    assert found.share_estimated == pytest.approx(345.0 / 745.0)


def test_no_check_of_refrigerants_is_no_leak_of_zero() -> None:
    earlier = REFRIGERANTS[0] | {"measured_on": date(2026, 9, 15)}
    found = books.refrigerant_leaks(sustainable({RegisterKind.REFRIGERANTS: [earlier]}), MONTH)
    assert (found.value, found.reason) == (None, "No check of refrigerants fell in this period.")


def test_cooling_degree_days_need_every_day() -> None:
    hours = pl.datetime_range(MONTH.start, MONTH.end, "1h", closed="left", eager=True)
    rows = [{"station": "S", "start": hour, "outside_celsius": 25.0 if hour.day == 10 else 5.0} for hour in hours]
    weather = RegisterKind.WEATHER
    whole = books.cooling_degree_days(sustainable({weather: rows}), MONTH)
    assert whole.value == pytest.approx((22 * 25.0 + 2 * 5.0) / 24 - 21.0)  # the 10th in UTC, seen from Oslo
    short = books.cooling_degree_days(sustainable({weather: rows[:-48]}), MONTH)
    assert (short.value, short.reason) == (None, "The register weather lacks 2 of 31 days.")


def test_a_month_that_is_not_over_says_so() -> None:
    found = sustainability_publication(build_report(sustainable(), MONTH, now=datetime(2026, 10, 20, tzinfo=UTC)))
    assert not found.complete
    notices = laid_out(found, Language.ENGLISH)["notices"]
    assert notices[0] == "The period is not over. Coverage counts the time still to come as not observed."


def test_trailing_months_end_with_the_period() -> None:
    assert trailing(MONTH).start == Period.parse("2025-11").start
    assert trailing(Period.parse("2025")).start == Period.parse("2025").start


def all_publications(whole: SustainabilityReport) -> list[Publication]:
    silent = build_report(sustainable({}, watts={}), MONTH, now=datetime(2026, 10, 20, tzinfo=UTC))
    rows = [GO | {"technology": "nuclear"}, GO | {"certificate_id": "GO-2", "energy_mwh": 9000.0}]
    surplus = build_report(sustainable(BOOKS | {GOS: rows}), MONTH, now=NOW)
    return [sustainability_publication(one) for one in (whole, silent, surplus)]


def test_every_text_of_the_report_is_written_in_norwegian(report: SustainabilityReport) -> None:
    unknown: set[str] = set()

    def recorded(text: str) -> str:
        if not is_known(text):
            unknown.add(text)
        return norwegian(text)

    for publication in all_publications(report):
        told = replace(publication, translations={Language.NORWEGIAN: recorded})
        laid_out(told, Language.NORWEGIAN)
        render_csv(told, Language.NORWEGIAN)
        render_xlsx(told, Language.NORWEGIAN)
    assert unknown == set()


def test_norwegian_leaves_names_and_writes_numbers_its_own_way() -> None:
    data = replace(sustainable(), site_name="Water 1.5 May")
    page = laid_out(sustainability_publication(build_report(data, MONTH, now=NOW)), Language.NORWEGIAN)
    assert (page["site"], page["title"], page["kicker"]) == ("Water 1.5 May", "oktober 2026", "Bærekraftsrapport")
    assert page["summary"].startswith("Water 1.5 May brukte 820,2 MWh i oktober 2026, med iPUE 1,10")
    cards = {card["title"]: card for card in page["sections"][0]["blocks"][0]["cards"]}
    assert cards["Drikkevann (W_IN-POT)"]["value"] == "400,0"
    assert norwegian("No readings in this period from meter 0.5S.") == "Ingen målinger i perioden fra meter 0.5S."


def test_the_same_data_gives_the_same_document() -> None:
    one, two = (sustainability_publication(build_report(sustainable(), MONTH, now=NOW)) for _ in range(2))
    assert one.document == two.document


def test_the_document_is_what_its_schema_says_whole_or_blank(report: SustainabilityReport) -> None:
    for publication in all_publications(report):
        document = json.loads(json.dumps(publication.document, allow_nan=False))
        assert list(document_problems("sustainability", document)) == []
    without_reason = json.loads(json.dumps(all_publications(report)[1].document))
    without_reason["figures"][0]["reason"] = ""
    assert list(document_problems("sustainability", without_reason))
