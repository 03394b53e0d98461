"""What registers say about a period becomes what reports take: of the right days and the right things."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from catalogue import ResourceKind, resource_id
from reports.period import Period
from reports.register_facts import (
    CALIBRATIONS,
    calibrated,
    grid_phases,
    heat_contracts,
    latest_calibrations,
    overdue,
)
from reports.register_names import METER_KINDS
from storage.register_kinds import DECLARATIONS, RegisterKind

OCTOBER = Period.parse("2026-10")
METER = resource_id(ResourceKind.METER, "M-1")
RESOURCES = {(kind.value, "M-1"): resource_id(kind, "M-1") for kind in METER_KINDS}


def register(kind: RegisterKind, *rows: dict[str, object]) -> pl.DataFrame:
    schema = DECLARATIONS[kind].schema
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def calibration(day: date, accuracy_class: str, due: date | None = None) -> dict[str, object]:
    return {"meter": "M-1", "calibrated_on": day, "accuracy_class": accuracy_class, "certificate": "C", "next_due": due}


def classes(*rows: dict[str, object]) -> dict[int, str]:
    found = latest_calibrations(register(RegisterKind.METER_CALIBRATIONS, *rows), RESOURCES, OCTOBER)
    return dict(found.select("resource", "accuracy_class").iter_rows())


def test_the_latest_calibration_until_the_last_day_counts() -> None:
    rows = (calibration(date(2020, 1, 1), "2"), calibration(date(2026, 10, 31), "0.5S"))
    assert classes(*rows)[METER] == "0.5S"
    assert classes(*reversed(rows))[METER] == "0.5S"


def test_a_calibration_after_the_period_says_nothing_about_it() -> None:
    assert classes(calibration(date(2026, 11, 1), "0.2S")) == {}


def test_a_calibration_goes_before_the_inventory_and_leaves_other_meters_alone() -> None:
    meters = pl.DataFrame(
        {"resource": [METER, 9], "name": ["one", "nine"], "accuracy_class": ["1", "2"]},
        schema_overrides={"resource": pl.UInt64()},
    )
    said = latest_calibrations(
        register(RegisterKind.METER_CALIBRATIONS, calibration(date(2026, 3, 2), "0.2S")), RESOURCES, OCTOBER
    )
    found = calibrated(meters, said)
    assert found.columns == meters.columns
    assert dict(found.select("resource", "accuracy_class").iter_rows()) == {METER: "0.2S", 9: "2"}
    assert calibrated(meters, pl.DataFrame(schema=dict(CALIBRATIONS))).equals(meters)


@pytest.mark.parametrize(("due", "late"), [("2026-10-30", ["one"]), ("2026-10-31", []), ("", []), ("soon", [])])
def test_a_calibration_is_overdue_when_it_was_due_before_the_last_day(due: str, late: list[str]) -> None:
    assert overdue(pl.DataFrame({"name": ["one"], "calibration_due": [due]}), OCTOBER) == late


def contract(kind: str, first: date, last: date | None = None, **cells: object) -> dict[str, object]:
    return {"contract": "C-1", "contract_kind": kind, "party": "works", "first_day": first, "last_day": last, **cells}


@pytest.mark.parametrize(
    ("first", "last", "counts"),
    [
        (date(2026, 10, 31), None, True),
        (date(2026, 11, 1), None, False),
        (date(2026, 1, 1), date(2026, 10, 1), True),
        (date(2026, 1, 1), date(2026, 9, 30), False),
    ],
)
def test_a_heat_contract_counts_when_it_holds_on_a_day_of_the_period(
    first: date, last: date | None, *, counts: bool
) -> None:
    rows = register(RegisterKind.CONTRACTS, contract("heat", first, last, agreed_celsius=45.0, agreed_megawatts=2.0))
    found = [(one.off_taker, one.temperature_celsius, one.power_watts) for one in heat_contracts(rows, OCTOBER)]
    assert found == ([("works", 45.0, 2e6)] if counts else [])


def test_phases_come_from_contracts_with_the_grid_company_and_may_be_planned() -> None:
    rows = register(
        RegisterKind.CONTRACTS,
        contract("grid", date(2027, 1, 1), phase="phase 2", contracted_megawatts=520.0),
        contract("grid", date(2026, 7, 1), phase="phase 1", contracted_megawatts=230.0),
        contract("grid", date(2025, 7, 1), date(2026, 6, 30), phase="works", contracted_megawatts=10.0),
        contract("sla", date(2026, 7, 1)),
    )
    first, second = grid_phases(rows, OCTOBER)
    # Midnight in Oslo, which is two hours ahead in summer.
    assert (first.name, first.contracted_watts, first.start) == (
        "phase 1", 230e6, datetime(2026, 6, 30, 22, tzinfo=UTC),
    )  # fmt: skip
    assert (first.is_in_force(OCTOBER.end), second.is_in_force(OCTOBER.end)) == (True, False)
