"""Key figures as Prometheus reads them back: base units, help from the definitions, coverage beside each."""

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reports.definitions import definitions
from reports.efficiency_definitions import definitions as efficiency_definitions
from reports.exposition import Figures, exposition
from reports.figures import Definition, Evidence, Kpi
from reports.heat_account import DEFINITIONS
from reports.key_figures import last_periods

START = datetime(2026, 9, 30, 22, tzinfo=UTC)
EVIDENCE = Evidence(coverage=0.97, share_estimated=0.02, uncertainty=0.006)


def definition(key: str, unit: str) -> Definition:
    return Definition(key=key, title="Title", unit=unit, boundary="All of it.", method="E = mc².", source="nobody")


def samples(*kpis: Kpi) -> dict[str, float]:
    """What Prometheus would store: `name{label=value}` without the span."""
    page = exposition([Figures("month", START, kpis)])
    found = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation
        for sample in family.samples:
            assert sample.labels.pop("span") == "month"
            found[" ".join([sample.name, *sample.labels.values()])] = sample.value
    return found


@pytest.mark.parametrize(
    ("unit", "value", "name", "expected"),
    [
        ("MWh", 2.0, "kvandal_kpi_some_joules", 7.2e9),
        ("MWh th.", 1.0, "kvandal_kpi_some_joules", 3.6e9),
        ("%", 45.0, "kvandal_kpi_some_ratio", 0.45),
        ("kW", 3.0, "kvandal_kpi_some_watts", 3e3),
        ("MW", 3.0, "kvandal_kpi_some_watts", 3e6),
        ("MW/min", 6.0, "kvandal_kpi_some_watts_per_second", 1e5),
        ("h", 2.0, "kvandal_kpi_some_seconds", 7200.0),
        ("°C", 52.0, "kvandal_kpi_some_celsius", 52.0),
        ("", 1.06, "kvandal_kpi_some", 1.06),
        ("NOK", 99.0, "kvandal_kpi_some NOK", 99.0),
    ],
)
def test_figure_is_in_its_base_unit(unit: str, value: float, name: str, expected: float) -> None:
    found = samples(Kpi(definition("some", unit), value, unit, EVIDENCE))
    assert found[name] == pytest.approx(expected)


def test_coverage_share_estimated_and_uncertainty_stand_beside() -> None:
    found = samples(Kpi(definition("ipue", ""), 1.06, "", EVIDENCE))
    assert found["kvandal_kpi_coverage_ratio ipue"] == 0.97
    assert found["kvandal_kpi_estimated_ratio ipue"] == 0.02
    assert found["kvandal_kpi_uncertainty_ratio ipue"] == 0.006
    assert found["kvandal_kpi_period_start_timestamp_seconds"] == START.timestamp()


def test_figure_that_cannot_be_told_has_no_value_and_no_coverage() -> None:
    found = samples(Kpi(definition("ipue", ""), None, "", None, "No meter."))
    assert "kvandal_kpi_ipue" not in found
    assert found["kvandal_kpi_coverage_ratio ipue"] == 0.0


def test_two_periods_are_one_family_and_a_figure_of_two_reports_is_told_once() -> None:
    kpi = Kpi(definition("erf", ""), 0.7, "", EVIDENCE)
    page = exposition([Figures("day", START, [kpi, kpi]), Figures("month", START, [kpi])])
    assert page.count("# HELP kvandal_kpi_erf ") == 1
    assert page.count("kvandal_kpi_erf{") == 2


def test_every_unit_of_a_definition_is_known() -> None:
    """What is not known would be taken for a currency."""
    of_site = definitions(category="", part_name="day")
    known = [*of_site.values(), *efficiency_definitions().values(), *DEFINITIONS.values()]
    for one in known:
        found = samples(Kpi(one, 1.0, one.unit, EVIDENCE))
        assert not any(name.endswith(f" {one.unit}") for name in found if one.unit), one.key


def test_last_periods_are_yesterday_and_the_last_month_of_the_site() -> None:
    """Half past midnight in Oslo is still the month before in UTC."""
    day, month = last_periods(datetime(2026, 10, 31, 23, 30, tzinfo=UTC), "Europe/Oslo")
    assert (day.text, month.text) == ("2026-10-31", "2026-10")
