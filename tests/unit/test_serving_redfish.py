"""The controllers of the simulated site without their sockets: documents, reports, sessions."""

from typing import Any

import pytest

from catalogue.facility import EQUIPMENT_STATES, LEAK_STATES
from simulation import Simulation, Site
from simulation.serving import Moment
from simulation.serving.redfish import MAX_SESSIONS, Account, Controller
from simulation.serving.redfish_documents import (
    CDU,
    REPORT,
    SHELF,
    Nameplate,
    cdu_documents,
    rack_documents,
    report_of,
)
from simulation.serving.serving import row_of

START_S = 1_800_000_000
PLATE = Nameplate("C1", "SN-1")
ACCOUNT = Account("reader", "hush")
SESSIONS = "/redfish/v1/SessionService/Sessions"
_LEAK = {name: float(state) for state, name in LEAK_STATES}
_EQUIPMENT = {name: float(state) for state, name in EQUIPMENT_STATES}
CDU_VALUES = {
    "primary_supply_temperature_celsius": 31.994,
    "secondary_flow_cubic_metres_per_second": 0.02,
    "secondary_pressure_pascals": 250_460.0,
    "heat_flow_watts": 655_506.0,
    "pump_speed_ratio": 0.6054,
    "pump_power_watts": 8200.4,
    "leak_state": _LEAK["warning"],
    "equipment_state": _EQUIPMENT["degraded"],
}


def at(document: dict[str, Any], path: str) -> object:
    found: Any = document
    for name in path.split("/"):
        found = found[name]
    return found


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        (f"{CDU}/PrimaryCoolantConnectors/1", "SupplyTemperatureCelsius/Reading", 31.99),
        (f"{CDU}/SecondaryCoolantConnectors/1", "FlowLitersPerMinute/Reading", 1200),
        (f"{CDU}/SecondaryCoolantConnectors/1", "SupplyPressurekPa/Reading", 250.5),
        (f"{CDU}/SecondaryCoolantConnectors/1", "HeatRemovedkW/Reading", 655.51),
        (f"{CDU}/SecondaryCoolantConnectors/1", "SupplyTemperatureCelsius/Reading", None),  # no sensor, no number
        (f"{CDU}/Pumps/1", "PumpSpeedPercent/Reading", 60.5),
        (f"{CDU}/EnvironmentMetrics", "PowerWatts/Reading", 8200),
        (f"{CDU}/LeakDetection/LeakDetectors/1", "DetectorState", "Warning"),
        (CDU, "Status/Health", "Warning"),
        (CDU, "SerialNumber", "SN-1"),
    ],
)
def test_a_cdu_shows_its_sensors_in_redfish_units(path: str, name: str, expected: object) -> None:
    assert at(cdu_documents(PLATE, CDU_VALUES)[path], name) == expected


def test_a_rack_shows_its_register_in_full_watt_hours_and_its_supplies() -> None:
    values = {"energy_register_joules": 3600.0 * 1_000_501 + 3599, "power_supply_count": 2.0, "leak_state": 1.0}
    tree = rack_documents(PLATE, values, supplies=3)
    assert at(tree[f"{SHELF}/Metrics"], "EnergykWh/Reading") == 1000.501
    health = [at(tree[f"{SHELF}/PowerSupplies/{number}"], "Status/Health") for number in (1, 2, 3)]
    assert health == ["OK", "OK", "Critical"]


def test_every_link_leads_to_a_document() -> None:
    for tree in (cdu_documents(PLATE, CDU_VALUES), rack_documents(PLATE, {"leak_state": 1.0}, supplies=2)):
        tree[REPORT] = report_of(tree, START_S)
        served = {f"/redfish/v1/{path}".rstrip("/") for path in tree} | {SESSIONS}
        assert set(links_in(list(tree.values()))) <= served


def links_in(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["@odata.id"]] if "@odata.id" in value else []
        return own + [link for one in value.values() for link in links_in(one)]
    return [link for one in value for link in links_in(one)] if isinstance(value, list) else []


def test_one_report_has_all_that_the_documents_show() -> None:
    report: dict[str, Any] = report_of(cdu_documents(PLATE, CDU_VALUES), START_S + 0.5)
    values = {one["MetricProperty"]: one["MetricValue"] for one in report["MetricValues"]}
    assert report["Timestamp"] == "2027-01-15T08:00:00.500000+00:00"
    assert values[f"/redfish/v1/{CDU}/Pumps/1#/PumpSpeedPercent/Reading"] == "60.5"
    assert values[f"/redfish/v1/{CDU}#/Status/Health"] == "Warning"
    assert values[f"/redfish/v1/{CDU}/LeakDetection/LeakDetectors/1#/DetectorState"] == "Warning"


def controller() -> Controller:
    moment = Moment.of(Simulation(Site.build(72, 1), START_S, seed=1))
    shown = Controller(lambda moment: cdu_documents(PLATE, row_of(moment.cooling, 0)), ACCOUNT)
    shown.show(moment)
    return shown


def sign_in(to: Controller, password: str = ACCOUNT.password) -> tuple[int, str, str]:
    status, headers, _ = to.sign_in(SESSIONS, {"UserName": "reader", "Password": password})
    return status, headers.get("X-Auth-Token", ""), headers.get("Location", "")


def test_only_the_root_is_read_without_a_session() -> None:
    cdu = controller()
    assert cdu.get("/redfish/v1/", "")[0] == 200
    assert cdu.get(f"/redfish/v1/{CDU}", "")[0] == 401
    assert cdu.get(f"/redfish/v1/{CDU}", "guess")[0] == 401
    assert sign_in(cdu, "wrong") == (401, "", "")
    status, token, _ = sign_in(cdu)
    assert status == 201
    assert cdu.get(f"/redfish/v1/{CDU}", token)[0] == 200
    assert cdu.get("/redfish/v1/Systems", token)[0] == 404


def test_a_session_ends_when_its_owner_says_so_or_too_many_came_after_it() -> None:
    cdu = controller()
    _, token, where = sign_in(cdu)
    assert cdu.sign_out(where, "another")[0] == 401
    assert cdu.sign_out(where, token)[0] == 204
    assert cdu.get(f"/redfish/v1/{CDU}", token)[0] == 401
    _, oldest, _ = sign_in(cdu)
    for _ in range(MAX_SESSIONS):
        sign_in(cdu)
    assert cdu.get(f"/redfish/v1/{CDU}", oldest)[0] == 401


def test_a_collection_is_expanded_where_that_is_asked_for() -> None:
    cdu = controller()
    _, token, _ = sign_in(cdu)
    _, _, plain = cdu.get(f"/redfish/v1/{CDU}/Pumps", token)
    _, _, whole = cdu.get(f"/redfish/v1/{CDU}/Pumps?$expand=.($levels=1)", token)
    assert plain is not None
    assert whole is not None
    assert plain["Members"] == [{"@odata.id": f"/redfish/v1/{CDU}/Pumps/1"}]
    assert "PumpSpeedPercent" in whole["Members"][0]  # type: ignore[index]


def test_nothing_is_said_before_a_moment_is_shown() -> None:
    assert Controller(lambda _: {}, ACCOUNT).get("/redfish/v1", "")[0] == 503
