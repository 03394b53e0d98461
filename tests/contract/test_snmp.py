"""The SNMP source against Net-SNMP's own agent, which serves trees like those of real PDUs and UPSs.

Expected values are worked out by hand from the MIBs' units; the trees are written by each test.
"""

import gc
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalogue import POINTS, POWER, ResourceKind, resource_id
from catalogue.point import POINT_UNITS
from collectors.device_pool import LONGEST_PAUSE_S
from collectors.devices import DeviceReport, DeviceState
from collectors.facility import gateway_id
from collectors.snmp.map_file import MapError
from collectors.snmp.settings import SnmpSettings
from collectors.snmp.source import SnmpSource
from collectors.source import ChangingSource, DeviceSource, SourceUnavailableError
from stream.clock import Clock, SystemClock
from stream.messages import EventMessage, InventoryMessage
from stream.rows import in_base_unit
from tests.servers.kafka import ServerUnavailable
from tests.servers.snmpd import Agent, Objects, snmp_agent

START_S = 1_800_000_000
KWH = 3_600_000  # in joules
COMMUNITY = "correct-horse"
READERS = f"""
rocommunity {COMMUNITY} 127.0.0.1
createUser sha1 SHA "battery staple" AES "wrong horse ok"
createUser sha256 SHA-256 "battery staple" AES "wrong horse ok"
createUser sha512 SHA-512 "battery staple" AES-256 "wrong horse ok"
createUser open
rouser sha1 priv
rouser sha256 auth
rouser sha512 priv
rouser open noauth
"""
APC, RARITAN = "1.3.6.1.4.1.318.1.3.4.6", "1.3.6.1.4.1.13742.6"
SENTRY3, SENTRY4, UPS = "1.3.6.1.4.1.1718.3", "1.3.6.1.4.1.1718.4", "1.3.6.1.2.1.33"

Serve = Callable[..., Agent]


def apc_module(module: int, serial: str, *, power: int = 517, energy: int = 170_982) -> dict[str, Any]:
    """One PDU of PowerNet-MIB's rPDU2 tables: three phases, two banks."""
    rpdu2 = "1.3.6.1.4.1.318.1.1.26"
    objects: dict[str, Any] = {
        f"{rpdu2}.2.1.2.{module}": module,
        f"{rpdu2}.2.1.6.{module}": "v7.0.8",
        f"{rpdu2}.2.1.8.{module}": "AP8881",
        f"{rpdu2}.2.1.9.{module}": serial,
        f"{rpdu2}.4.3.1.2.{module}": module,
        f"{rpdu2}.4.3.1.4.{module}": 2,
        f"{rpdu2}.4.3.1.5.{module}": power,
        f"{rpdu2}.4.3.1.9.{module}": energy,
        f"{rpdu2}.4.3.1.16.{module}": 530,
        f"{rpdu2}.4.3.1.17.{module}": 97,
    }
    for phase in (1, 2, 3):
        row = 3 * (module - 1) + phase
        columns = {2: module, 3: phase, 4: 2, 5: 70 + 2 * phase, 6: 230 + phase, 7: 170 + phase}
        objects |= {f"{rpdu2}.6.3.1.{column}.{row}": value for column, value in columns.items()}
    for bank in (1, 2):
        row = 2 * (module - 1) + bank
        objects |= {
            f"{rpdu2}.8.3.1.{column}.{row}": value for column, value in {2: module, 3: bank, 5: 40 + bank}.items()
        }
    return objects


def raritan(*, energy: int = 1_234_567, state: int = 4, current_unit: int = 2) -> dict[str, Any]:
    """An inlet of PDU2-MIB: each sensor with its value, state, unit and digits."""
    pdu2 = "1.3.6.1.4.1.13742.6"
    sensors = {  # value, digits and unit code of each type
        1: (9_876, 3, 2),
        4: (4_001, 1, 1),
        5: (6_543, 0, 3),
        6: (6_700, 0, 4),
        7: (977, 3, -1),
        8: (energy, 0, 5),
        23: (500, 1, 8),
    }
    objects: dict[str, Any] = {
        f"{pdu2}.3.2.1.1.2.1": "Raritan",
        f"{pdu2}.3.2.1.1.3.1": "PX3-5902V",
        f"{pdu2}.3.2.1.1.4.1": "QMS1234567",
    }
    for sensor, (value, digits, unit) in sensors.items():
        objects |= _sensor(f"{pdu2}.5.2.3.1", f"{pdu2}.3.3.4.1", f"1.1.{sensor}", value, digits, unit, state)
    for pole, current in {1: 9_000, 2: 9_500, 3: 11_500, 4: 700}.items():
        place = f"1.1.{pole}.1"
        objects |= _sensor(f"{pdu2}.5.2.4.1", f"{pdu2}.3.3.6.1", place, current, 3, current_unit, 4)
    return objects


def _sensor(
    measured: str, configured: str, place: str, value: int, digits: int, unit: int, state: int
) -> dict[str, Any]:
    return {
        f"{measured}.3.{place}": state,
        f"{measured}.4.{place}": ("gauge", value),
        f"{configured}.6.{place}": unit,
        f"{configured}.7.{place}": ("gauge", digits),
    }


def ups(*, source: int = 3, charge: int = 100) -> dict[str, Any]:
    """A UPS of RFC 1628 with three lines on either side."""
    mib = "1.3.6.1.2.1.33.1"
    objects: dict[str, Any] = {
        f"{mib}.1.1.0": "Maker",
        f"{mib}.1.2.0": "Model 500",
        f"{mib}.1.3.0": "2.1",
        f"{mib}.2.1.0": 2,
        f"{mib}.2.2.0": 0,
        f"{mib}.2.3.0": 12,
        f"{mib}.2.4.0": charge,
        f"{mib}.2.5.0": 4_805,
        f"{mib}.2.6.0": -25,
        f"{mib}.2.7.0": 24,
        f"{mib}.4.1.0": source,
        f"{mib}.4.2.0": 500,
        f"{mib}.6.1.0": ("gauge", 0),
        f"{mib}.9.6.0": 450_000,
    }
    for line in (1, 2, 3):
        given = {2: 499, 3: 230, 4: 3_000 + line, 5: 60_000 + line}
        taken = {2: 231, 3: 2_500 + line, 4: 55_000 + line, 5: 37}
        objects |= {f"{mib}.3.3.1.{column}.{line}": value for column, value in given.items()}
        objects |= {f"{mib}.4.4.1.{column}.{line}": value for column, value in taken.items()}
    return objects


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start agents that are stopped in the end."""
    with ExitStack() as running:

        def start(objects: Objects, object_id: str, *, config: str = READERS, address: str = "udp:127.0.0.1") -> Agent:
            folder = tmp_path / f"agent-{len(list(tmp_path.iterdir()))}"
            return running.enter_context(
                snmp_agent(folder, objects, object_id=object_id, config=config, address=address)
            )

        yield start


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Files with what the agents want to hear."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, text in {"community": COMMUNITY, "auth": "battery staple", "privacy": "wrong horse ok"}.items():
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.fixture
def source(secrets: Path) -> Iterator[Callable[..., SnmpSource]]:
    """Make sources that are closed in the end."""
    made = []

    def make(*agents: Agent | int, clock: Clock | None = None, **changes: Any) -> SnmpSource:
        source = SnmpSource(
            settings(secrets, agents, **changes), gateway="hall-1 gateway", clock=clock or SystemClock()
        )
        made.append(source)
        return source

    yield make
    for one in made:
        one.close()


class AdvancingClock(SystemClock):
    """The machine's clock, which a test puts forward."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


def settings(secrets: Path, agents: tuple[Agent | int, ...], **changes: Any) -> SnmpSettings:
    """Settings for these agents; `changes` to a device by `device`, its credentials by `credentials`."""
    device = changes.pop("device", {})
    community = {"version": "2c", "community_file": str(secrets / "community")}
    ports = [agent if isinstance(agent, int) else agent.port for agent in agents]
    devices = [
        {"name": f"pdu-{number}", "host": "127.0.0.1", "port": port, "credentials": "all"} | device
        for number, port in enumerate(ports, start=1)
    ]
    credentials = {"all": changes.pop("credentials", community)}
    document = {"credentials": credentials, "devices": devices, "timeout_s": 2.0, "retries": 0, "deadline_s": 9}
    return msgspec.convert(document | changes, SnmpSettings)


def user(secrets: Path, name: str, **changes: str) -> dict[str, str]:
    """Credentials of one of the agent's users."""
    files = {"auth_password_file": str(secrets / "auth"), "privacy_password_file": str(secrets / "privacy")}
    return {"version": "3", "user": name} | files | changes


def rows_of(source: SnmpSource, *, seconds: int = 0) -> dict[str, dict[str, float]]:
    """What is not absent in each meter's row, in base units, by identity."""
    readings = {reading.table: reading for reading in source.read(START_S + seconds)}
    assert {reading.source for reading in readings.values()} == {gateway_id("hall-1 gateway", "snmp")}
    names = {message.resource: message.identity for message in source.inventory()}
    found = {}
    for row in readings[POWER].rows if POWER in readings else ():
        assert row["time"] == START_S + seconds
        values = {metric.name: float(in_base_unit(metric, row)) for metric in POWER.metrics}
        found[names[int(row["resource"])]] = {name: value for name, value in values.items() if not math.isnan(value)}
    return found


def points_of(source: SnmpSource) -> dict[str, tuple[float, str]]:
    """Each point's value and unit, by its identity."""
    units = {code: unit.suffix for code, unit in POINT_UNITS}
    (reading,) = (reading for reading in source.read(START_S) if reading.table is POINTS)
    names = {message.resource: message.identity for message in source.inventory()}
    value, unit = POINTS.metric("value_own_unit"), POINTS.metric("unit_state")
    return {
        names[int(row["resource"])]: (float(in_base_unit(value, row)), units[int(in_base_unit(unit, row))])
        for row in reading.rows
    }


def report(source: SnmpSource) -> DeviceReport:
    (only,) = source.devices()
    return only


def fails(source: SnmpSource) -> DeviceReport:
    """The report of the only device, which gives no reading."""
    with pytest.raises(SourceUnavailableError, match="none of 1 SNMP devices gave a reading: pdu-1 is"):
        source.read(START_S)
    return report(source)


GOOD = {"quality_state": 1.0}
APC_ROW = GOOD | {
    "active_power_watts": 5170.0,  # 517 of 0.01 kW
    "energy_import_joules": 17_098.2 * KWH,  # 170982 of 0.1 kWh
    "current_amperes": 7.4,  # mean of 7.2, 7.4, 7.6 A
    "power_factor_ratio": 0.97,
}


# Families ------------------------------------------------------------------------------------------------------------


def test_an_apc_pdu_is_a_meter_in_base_units(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    one = source(serve(apc_module(1, "ZA1"), APC))
    assert rows_of(one) == {"ZA1": pytest.approx(APC_ROW)}
    assert points_of(one) == {
        "ZA1/apparent power": (5300, "volt_amperes"),
        "ZA1/load": (2, "state"),
        **{f"ZA1/phase {phase} current": (pytest.approx(7 + 0.2 * phase), "amperes") for phase in (1, 2, 3)},
        **{f"ZA1/phase {phase} voltage": (230 + phase, "volts") for phase in (1, 2, 3)},
        **{f"ZA1/phase {phase} power": (1700 + 10 * phase, "watts") for phase in (1, 2, 3)},
        **{f"ZA1/bank {bank} current": (pytest.approx(4 + 0.1 * bank), "amperes") for bank in (1, 2)},
    }
    assert report(one).state is DeviceState.OK
    assert isinstance(one, DeviceSource)


def test_apc_pdus_that_share_a_port_are_a_meter_each(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    agent = serve(apc_module(1, "ZA1") | apc_module(2, "ZA2", power=100, energy=20), APC)
    assert rows_of(source(agent)) == {
        "ZA1": pytest.approx(APC_ROW),
        "ZA2": pytest.approx(APC_ROW | {"active_power_watts": 1000.0, "energy_import_joules": 2.0 * KWH}),
    }


def test_what_a_model_does_not_support_is_absent(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    rpdu2 = "1.3.6.1.4.1.318.1.1.26.4.3.1"
    agent = serve(apc_module(1, "ZA1") | {f"{rpdu2}.9.1": -1, f"{rpdu2}.17.1": -1, f"{rpdu2}.4.1": 5}, APC)
    one = source(agent)
    assert set(rows_of(one)["ZA1"]) == {"active_power_watts", "current_amperes", "quality_state"}
    assert "ZA1/load" not in points_of(one)


def test_a_raritan_inlet_is_scaled_by_the_digits_and_units_that_it_tells(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    one = source(serve(raritan(), RARITAN))
    row = GOOD | {
        "active_power_watts": 6543.0,
        "energy_import_joules": 1_234_567 * 3600.0,
        "voltage_volts": 400.1,
        "current_amperes": 10.0,  # mean of 9, 9.5 and 11.5 A, without the neutral
        "power_factor_ratio": 0.977,
        "frequency_hertz": 50.0,
    }
    assert rows_of(one) == {"QMS1234567/inlet 1": pytest.approx(row)}
    points = points_of(one)
    assert points["QMS1234567/inlet 1/apparent power"] == (6700, "volt_amperes")
    assert points["QMS1234567/inlet 1/line 3 current"] == (11.5, "amperes")
    assert "QMS1234567/inlet 1/line 4 current" not in points


def test_a_raritan_sensor_that_is_unavailable_or_in_a_strange_unit_is_absent(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    agent = serve(raritan(state=-1), RARITAN)
    assert rows_of(source(agent))["QMS1234567/inlet 1"] == pytest.approx(GOOD | {"current_amperes": 10.0})
    strange = serve(raritan(current_unit=14), RARITAN)  # degrees Fahrenheit
    # Then the inlet's own current counts.
    assert rows_of(source(strange))["QMS1234567/inlet 1"]["current_amperes"] == pytest.approx(9.9)  # of 9.876, in 0.1 A


def test_each_feed_of_a_sentry3_is_a_meter(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    tower, infeed = "1.3.6.1.4.1.1718.3.2.1.1", "1.3.6.1.4.1.1718.3.2.2.1"
    objects: dict[str, Any] = {f"{tower}.6.1": "CS1", f"{tower}.7.1": "CS-48VYM"}
    for feed in (1, 2):
        columns = {5: 1, 7: 1_234, 11: 4_001, 12: 2_000 + feed, 13: 2_200, 14: 91, 16: 5_000 + feed}
        objects |= {f"{infeed}.{column}.1.{feed}": value for column, value in columns.items()}
    rows = rows_of(source(serve(objects, SENTRY3)))
    assert rows == {
        f"CS1/infeed {feed}": pytest.approx(
            GOOD
            | {
                "active_power_watts": 2000.0 + feed,
                "energy_import_joules": (500 + feed / 10) * KWH,
                "voltage_volts": 400.1,
                "current_amperes": 12.3,  # 12.34 A, in steps of 0.1
                "power_factor_ratio": 0.91,
            }
        )
        for feed in (1, 2)
    }


def test_a_cord_of_a_sentry4_is_a_meter(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    mib = "1.3.6.1.4.1.1718.4.1"
    cord = {3: 4_321, 5: 4_500, 8: 96, 10: 12_345, 11: 499, 12: 55}
    objects: dict[str, Any] = {f"{mib}.2.2.1.4.1": "PRO1", f"{mib}.2.2.1.5.1": "C2G24TE"}
    objects |= {f"{mib}.3.3.1.{column}.1.1": value for column, value in cord.items()}
    objects |= {f"{mib}.4.3.1.3.1.1.{line}": current for line, current in {1: 600, 2: 700, 3: 800, 4: 90}.items()}
    one = source(serve(objects, SENTRY4))
    row = GOOD | {
        "active_power_watts": 4321.0,
        "energy_import_joules": 1234.5 * KWH,
        "current_amperes": 7.0,
        "power_factor_ratio": 0.96,
        "frequency_hertz": 49.9,
    }
    assert rows_of(one) == {"PRO1/cord 1": pytest.approx(row)}
    assert points_of(one)["PRO1/cord 1/current imbalance"] == (0.055, "ratio")


def test_a_ups_is_two_meters_whose_lines_are_added(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    one = source(serve(ups(), UPS))
    assert rows_of(one) == {
        "pdu-1/output": pytest.approx(
            GOOD | {"active_power_watts": 165_006.0, "current_amperes": 250.2, "frequency_hertz": 50.0}
        ),
        "pdu-1/input": pytest.approx(
            GOOD | {"active_power_watts": 180_006.0, "current_amperes": 300.2, "frequency_hertz": 49.9}
        ),
    }
    points = points_of(one)
    assert {name: points[f"pdu-1/output/{name}"] for name in ("battery charge", "battery time remaining")} == {
        "battery charge": (1.0, "ratio"),
        "battery time remaining": (720.0, "seconds"),
    }
    assert points["pdu-1/output/battery current"] == (-2.5, "amperes")
    assert points["pdu-1/output/battery voltage"] == (480.5, "volts")
    assert points["pdu-1/output/battery temperature"] == (24, "celsius")
    assert points["pdu-1/output/line 2 load"] == (0.37, "ratio")
    assert points["pdu-1/output/output source"] == (3, "state")


def test_a_ups_without_one_of_its_lines_has_no_sum(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    agent = serve(ups(), UPS)
    one = source(agent)
    rows_of(one)
    agent.show({oid: value for oid, value in ups().items() if oid != "1.3.6.1.2.1.33.1.4.4.1.4.2"})
    row = rows_of(one, seconds=10)["pdu-1/output"]
    assert "active_power_watts" not in row
    assert row["current_amperes"] == pytest.approx(250.2)


# What the ledger needs to know ---------------------------------------------------------------------------------------


def meters_of(source: SnmpSource) -> dict[str, InventoryMessage]:
    return {message.identity: message for message in source.inventory() if message.kind is ResourceKind.METER}


def test_inventory_tells_what_the_device_and_the_settings_say(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    meter = {"role": "it", "class": "1", "measured_at": "PDU output", "nominal_power_watts": 22_000.0}
    device = {"parent": "rack:R7", "meters": {"1": meter | {"serves": ["rack:R7"]}}}
    one = source(serve(apc_module(1, "ZA1"), APC), device=device, interval_s=30)
    assert one.inventory() == []
    assert isinstance(one, ChangingSource)
    assert not one.inventory_changed()
    one.read(START_S)
    assert one.inventory_changed()
    message = meters_of(one)["ZA1"]
    rack = resource_id(ResourceKind.RACK, "R7")
    assert message.resource == resource_id(ResourceKind.METER, "ZA1")
    assert (message.name, message.parent, message.serves) == ("pdu-1 module 1", rack, (rack,))
    assert message.attributes == {
        "serial": "ZA1",
        "model": "AP8881",
        "firmware_version": "v7.0.8",
        "device": "pdu-1",
        "map": "apc_rpdu2",
        "interval_s": "30",
        "role": "it",
        "class": "1",
        "measured_at": "PDU output",
        "nominal_power_watts": "22000",
        "register_resolution_joules": "360000",
    }
    points = {one.name: one for one in one.inventory() if one.kind is ResourceKind.POINT}
    assert points["phase 1 current"].parent == message.resource
    assert points["load"].attributes["states"] == "1 low, 2 normal, 3 near overload, 4 overload"
    before = list(one.inventory())
    one.read(START_S + 30)
    assert not one.inventory_changed()
    assert one.inventory() == before


def test_a_register_of_32_bits_tells_where_it_starts_again(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    one = source(serve(raritan(), RARITAN))
    one.read(START_S)
    attributes = meters_of(one)["QMS1234567/inlet 1"].attributes
    assert float(attributes["register_modulus_joules"]) == 2**32 * 3600
    assert float(attributes["register_resolution_joules"]) == 3600


@pytest.mark.parametrize(("kind", "bits", "count"), [("counter", 32, 2**32 - 5), ("counter64", 64, 2**45)])
def test_a_counters_type_on_the_wire_tells_where_it_starts_again(
    serve: Serve, source: Callable[..., SnmpSource], tmp_path: Path, kind: str, bits: int, count: int
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "own.toml").write_text(
        """
        name = "own"
        source = "a meter's manual"
        match = ["1.3.6.1.4.1.99999"]
        [[facts]]
        name = "serial"
        oid = "1.3.6.1.4.1.99999.1"
        [[readings]]
        metric = "energy_import_joules"
        oid = "1.3.6.1.4.1.99999.2"
        kind = "counter"
        scale = 3600
        """
    )
    agent = serve({"1.3.6.1.4.1.99999.1.0": "M1", "1.3.6.1.4.1.99999.2.0": (kind, count)}, "1.3.6.1.4.1.99999")
    one = source(agent, maps=str(maps))
    assert rows_of(one)["M1"]["energy_import_joules"] == pytest.approx(count * 3600.0)
    assert float(meters_of(one)["M1"].attributes["register_modulus_joules"]) == 2.0**bits * 3600


def test_the_nominal_power_that_a_ups_tells_holds_unless_the_settings_know_better(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    agent = serve(ups(), UPS)
    told = source(agent)
    told.read(START_S)
    assert meters_of(told)["pdu-1/output"].attributes["nominal_power_watts"] == "450000"
    assert "nominal_power_watts" not in meters_of(told)["pdu-1/input"].attributes
    known = source(agent, device={"meters": {"output": {"nominal_power_watts": 400_000}, "*": {"role": "other"}}})
    known.read(START_S)
    assert meters_of(known)["pdu-1/output"].attributes["nominal_power_watts"] == "400000"
    assert meters_of(known)["pdu-1/input"].attributes["role"] == "other"


def test_an_identity_in_the_settings_stays_when_the_device_is_exchanged(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    one = source(agent, device={"identity": "R7 feed A"})
    assert set(rows_of(one)) == {"R7 feed A/1"}
    time.sleep(1.1)  # snmpd's uptime has to be more than it will be after the restart
    one.read(START_S + 10)
    agent.stop()
    agent.show(apc_module(1, "ZB9", energy=5))
    agent.start()
    assert set(rows_of(one, seconds=20)) == {"R7 feed A/1"}
    assert meters_of(one)["R7 feed A/1"].attributes["serial"] == "ZB9"
    (event,) = one.events()
    assert isinstance(event, EventMessage)
    assert (event.kind, event.text) == ("meter_exchanged", "pdu-1 module 1 has the serial number ZB9, had ZA1")
    assert event.attributes == {
        "device": "pdu-1",
        "old_serial": "ZA1",
        "new_serial": "ZB9",
        "energy_import_joules_before": str(170_982 * 360_000),
        "energy_import_joules_after": str(5 * 360_000),
    }


def test_two_devices_with_one_serial_number_are_both_refused(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    one = source(serve(apc_module(1, "ZA1"), APC), serve(apc_module(1, "ZA1"), APC))
    one.read(START_S)  # which of the two answered first is chance
    with pytest.raises(SourceUnavailableError):
        one.read(START_S + 10)
    assert {report.state for report in one.devices()} == {DeviceState.NONSENSE}
    assert all("'ZA1' is there twice (devices pdu-1, pdu-2); set identity" in report.why for report in one.devices())


# Over time -----------------------------------------------------------------------------------------------------------


def test_a_change_to_battery_is_an_event(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    agent = serve(ups(), UPS)
    one = source(agent)
    one.read(START_S)
    assert one.events() == []
    agent.show(ups(source=5, charge=99))
    one.read(START_S + 10)
    (event,) = one.events()
    assert isinstance(event, EventMessage)
    assert (event.kind, event.code, event.text) == ("ups_output", 5, "output source: battery, was normal")
    assert event.resource == resource_id(ResourceKind.METER, "pdu-1/output")
    assert event.time_ms == (START_S + 10) * 1000
    assert one.events() == []


def test_an_object_that_goes_is_absent_and_the_others_stay(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    one = source(agent)
    rows_of(one)
    agent.show({oid: value for oid, value in apc_module(1, "ZA1").items() if ".26.4.3.1.9." not in oid})
    row = rows_of(one, seconds=10)["ZA1"]
    assert "energy_import_joules" not in row
    assert row["active_power_watts"] == 5170


def test_an_agent_that_starts_anew_is_explored_anew(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    one = source(agent)
    time.sleep(1.1)  # snmpd's uptime has to be more than it will be after the restart
    assert set(rows_of(one)) == {"ZA1"}
    agent.stop()
    assert fails(one).state is DeviceState.UNREACHABLE
    agent.show(apc_module(1, "ZA1") | apc_module(2, "ZA2"))
    agent.start()
    assert set(rows_of(one, seconds=20)) == {"ZA1", "ZA2"}


def test_tables_longer_than_a_reply_are_walked_to_their_end(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    metered = "1.3.6.1.4.1.318.1.1.26.9.4.3.1"
    outlets = {
        f"{metered}.{column}.{outlet}": value
        for outlet in range(1, 49)
        for column, value in {2: 1, 4: outlet, 6: outlet, 7: 10 * outlet, 11: 100 + outlet}.items()
    }
    agent = serve(apc_module(1, "ZA1") | outlets, APC)
    points = points_of(source(agent, device={"details": ["outlets"], "values_per_request": 7}))
    assert [points[f"ZA1/outlet {outlet} power"][0] for outlet in range(1, 49)] == [10 * n for n in range(1, 49)]
    assert points["ZA1/outlet 48 energy"] == (14.8 * KWH, "joules")
    assert not [name for name in points_of(source(agent)) if "outlet" in name]


# Credentials ---------------------------------------------------------------------------------------------------------


def demand_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise ServerUnavailable("the package cryptography is not installed: privacy of SNMPv3 needs it")


@pytest.mark.parametrize(
    ("name", "auth", "privacy"),
    [
        ("sha256", "SHA-256", "none"),
        ("sha256", "SHA-256", "AES-128"),
        ("sha1", "SHA", "AES-128"),
        ("sha512", "SHA-512", "AES-256"),
    ],
)
def test_a_user_of_snmp_version_3_is_let_in(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path, name: str, auth: str, privacy: str
) -> None:
    if privacy != "none":
        demand_cryptography()
    agent = serve(apc_module(1, "ZA1"), APC)
    one = source(agent, credentials=user(secrets, name, auth=auth, privacy=privacy))
    assert rows_of(one) == {"ZA1": pytest.approx(APC_ROW)}
    assert rows_of(one, seconds=10) == {"ZA1": pytest.approx(APC_ROW)}


@pytest.mark.skipif(find_spec("cryptography") is not None, reason="the package is there")
def test_privacy_without_the_package_for_it_is_refused_with_what_to_do(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    found = fails(source(agent, credentials=user(secrets, "sha256")))
    assert found.state is DeviceState.REFUSED
    assert "needs the package cryptography, which is not here; install it" in found.why


def test_a_user_without_authentication_is_read_when_that_is_said_twice(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    credentials = {"version": "3", "user": "open", "auth": "none", "privacy": "none", "allow_unauthenticated": True}
    assert set(rows_of(source(agent, credentials=credentials))) == {"ZA1"}


def test_an_agent_that_starts_anew_has_another_clock_and_is_still_understood(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    listens = agent.config.replace(READERS, "")
    one = source(agent, credentials=user(secrets, "sha256", privacy="none"))
    rows_of(one)
    # RFC 3414, 2.2: each start is another snmpEngineBoots and the time starts again. One that lost its memory counts
    # its boots from 1, one that was exchanged has another engine id.
    for seconds, (engine, boots) in enumerate([(1, 5), (1, 6), (1, 1), (2, 1)]):
        agent.stop()
        agent.config = f"{READERS}exactEngineID 0x80001f880401{engine:02x}\nengineBoots {boots}\n{listens}"
        agent.start()
        assert set(rows_of(one, seconds=seconds)) == {"ZA1"}


@pytest.mark.parametrize(
    ("name", "auth", "why"),
    [
        ("nobody", "SHA-256", r"refuses: it does not know the user"),
        ("sha256", "SHA-512", r"refuses: the authentication password or auth does not fit"),
        ("sha1", "SHA", r"lets us in but not read .*; set privacy"),  # this user has to encrypt
    ],
)
def test_a_user_that_is_not_let_in_is_told_why(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path, name: str, auth: str, why: str
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    found = fails(source(agent, credentials=user(secrets, name, auth=auth, privacy="none")))
    assert found.state is DeviceState.REFUSED
    assert f"127.0.0.1 port {agent.port}" in found.why
    assert re.search(why, found.why)


def test_a_wrong_password_is_refused_and_a_corrected_one_is_read_without_a_restart(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    (secrets / "auth").write_text("battery stapler")
    one = source(agent, credentials=user(secrets, "sha256", privacy="none"))
    found = fails(one)
    assert found.state is DeviceState.REFUSED
    assert "the authentication password or auth does not fit (" in found.why
    (secrets / "auth").write_text("battery staple\n")
    assert set(rows_of(one, seconds=10)) == {"ZA1"}


def test_a_wrong_password_for_privacy_is_refused(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path
) -> None:
    demand_cryptography()
    agent = serve(apc_module(1, "ZA1"), APC)
    (secrets / "privacy").write_text("wrong mule then")
    found = fails(source(agent, credentials=user(secrets, "sha256")))
    assert found.state is DeviceState.REFUSED
    assert "the privacy password or privacy does not fit" in found.why


def test_a_wrong_community_is_silence_and_a_corrected_one_is_read_without_a_restart(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    (secrets / "community").write_text("wrong-horse")
    one = source(agent)
    found = fails(one)
    assert found.state is DeviceState.UNREACHABLE
    assert "the community is wrong, which SNMPv2c does not tell" in found.why
    (secrets / "community").write_text(COMMUNITY)
    assert set(rows_of(one, seconds=10)) == {"ZA1"}


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "cannot be read: No such file"), ("", "is empty"), ("short", "is shorter than 8 bytes")],
)
def test_a_password_file_that_is_none_is_refused_with_its_name(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path, text: str | None, why: str
) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    (secrets / "auth").unlink()
    if text is not None:
        (secrets / "auth").write_text(text)
    found = fails(source(agent, credentials=user(secrets, "sha256", privacy="none")))
    assert found.state is DeviceState.REFUSED
    assert why in found.why
    assert str(secrets / "auth") in found.why


def test_secrets_are_nowhere_to_be_seen(
    serve: Serve, source: Callable[..., SnmpSource], secrets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    agent = serve(apc_module(1, "ZA1"), APC)
    (secrets / "community").write_text("hush-hush")
    silent, refused = source(agent), source(agent, credentials=user(secrets, "nobody", privacy="none"))
    told = [fails(silent).why, fails(refused).why, repr(settings(secrets, (agent,)))]
    told += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert not [text for text in told if "hush-hush" in text or "battery staple" in text]


# Devices that fail ---------------------------------------------------------------------------------------------------


def test_a_port_where_nobody_listens_is_unreachable_at_once(source: Callable[..., SnmpSource]) -> None:
    one = source(9, timeout_s=4.0)  # the discard service, which no machine runs today
    started_s = time.monotonic()
    found = fails(one)
    assert found.state is DeviceState.UNREACHABLE
    assert "nobody listens at 127.0.0.1 port 9; switch SNMP on" in found.why
    assert time.monotonic() - started_s < 3  # less than the time-out


def test_a_device_that_is_dark_for_ever_costs_no_memory(source: Callable[..., SnmpSource]) -> None:
    clock = AdvancingClock()
    one = source(9, clock=clock)
    resident_kib = []
    for _ in range(2):
        for _ in range(120):
            clock.ahead_s += LONGEST_PAUSE_S
            fails(one)
        gc.collect()
        resident_kib.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4)
    assert resident_kib[1] - resident_kib[0] < 600  # 1,600 when a request that fails is kept


def test_a_name_that_is_not_known_is_unreachable(source: Callable[..., SnmpSource]) -> None:
    found = fails(source(161, device={"host": "pdu.invalid"}))
    assert found.state is DeviceState.UNREACHABLE
    assert "pdu.invalid cannot be reached" in found.why


def test_a_device_that_is_dark_does_not_darken_its_neighbours(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    good, dark = serve(apc_module(1, "ZA1"), APC), serve(apc_module(1, "ZA2"), APC)
    one = source(good, dark)
    assert set(rows_of(one)) == {"ZA1", "ZA2"}
    dark.stop()
    assert set(rows_of(one, seconds=10)) == {"ZA1"}
    assert [report.state for report in one.devices()] == [DeviceState.OK, DeviceState.UNREACHABLE]


def test_a_device_of_an_unknown_family_is_nonsense_until_its_map_is_named(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    agent = serve(ups(), "1.3.6.1.4.1.534.1")
    found = fails(source(agent))
    assert found.state is DeviceState.NONSENSE
    assert "is of no known family (sysObjectID 1.3.6.1.4.1.534.1); set map to one of apc_rpdu2, " in found.why
    assert set(rows_of(source(agent, device={"map": "ups"}))) == {"pdu-1/output", "pdu-1/input"}


def test_a_device_with_nothing_of_its_map_is_nonsense(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    found = fails(source(serve({}, APC)))
    assert found.state is DeviceState.NONSENSE
    assert "answers, but has nothing of the map apc_rpdu2; name another map, or widen the view" in found.why


def test_a_user_who_may_see_little_is_told_that_the_view_is_narrow(
    serve: Serve, source: Callable[..., SnmpSource]
) -> None:
    config = f"view little included .1.3.6.1.2.1.1\nrocommunity {COMMUNITY} default -V little\n"
    found = fails(source(serve(apc_module(1, "ZA1"), APC, config=config)))
    assert found.state is DeviceState.NONSENSE
    assert "widen the view" in found.why


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ({"map": "upss"}, "device 'pdu-1' has map = 'upss'; there are apc_rpdu2, raritan_pdu2"),
        ({"map": "apc_rpdu2", "details": ["inlets"]}, "has details 'inlets'; there are outlets, sensors"),
        ({"details": ["inlets"]}, "has details 'inlets'; there are outlets, protectors, sensors"),
    ],
)
def test_settings_that_name_what_no_map_has_are_refused_at_the_start(
    source: Callable[..., SnmpSource], device: dict[str, Any], why: str
) -> None:
    with pytest.raises(MapError) as raised:
        source(161, device=device)
    assert why in str(raised.value)


def test_tables_are_learned_anew_in_the_background(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    agent = serve(apc_module(1, "ZA1"), APC)
    clock = AdvancingClock()
    one = source(agent, clock=clock)
    assert set(rows_of(one)) == {"ZA1"}
    agent.show(apc_module(1, "ZA1") | apc_module(2, "ZA2"))
    assert set(rows_of(one, seconds=10)) == {"ZA1"}
    clock.ahead_s = 3600.0
    deadline = time.monotonic() + 5
    while set(rows_of(one, seconds=3600)) != {"ZA1", "ZA2"}:
        assert time.monotonic() < deadline


def test_an_agent_on_ipv6_is_read(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        raise ServerUnavailable("this machine has no IPv6")
    config = f"rocommunity6 {COMMUNITY} ::1\n"
    agent = serve(apc_module(1, "ZA1"), APC, config=config, address="udp6:[::1]")
    assert set(rows_of(source(agent, device={"host": "::1"}))) == {"ZA1"}


def test_closing_twice_and_reading_after_it_harm_nobody(serve: Serve, source: Callable[..., SnmpSource]) -> None:
    one = source(serve(apc_module(1, "ZA1"), APC))
    one.read(START_S)
    one.close()
    one.close()
    never_read = source(161)
    never_read.close()
