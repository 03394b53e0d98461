"""Maps of SNMP agents: the shipped ones hold, and one that does not is refused with a sentence."""

from pathlib import Path

import pytest

from catalogue import POWER
from collectors.snmp.map import map_for, oid_of
from collectors.snmp.map_file import MapError, load_maps, parse_map

HEAD = 'name = "own"\nsource = "a manual"\n'
READING = HEAD + '[[readings]]\noid = "1.3.6.1.4.1.9.1"\n'


def test_the_shipped_maps_hold() -> None:
    maps = load_maps()
    assert set(maps) == {"apc_rpdu2", "raritan_pdu2", "servertech_sentry3", "servertech_sentry4", "ups"}
    assert all(found.table is POWER for found in maps.values())
    with_register = {name for name, found in maps.items() if any(rule.is_counter for rule in found.readings)}
    assert with_register == set(maps) - {"ups"}  # RFC 1628 has no energy register


@pytest.mark.parametrize(
    ("object_id", "name"),
    [
        ("1.3.6.1.4.1.318.1.3.4.6", "apc_rpdu2"),
        ("1.3.6.1.4.1.13742.6", "raritan_pdu2"),
        ("1.3.6.1.4.1.1718.3", "servertech_sentry3"),
        ("1.3.6.1.4.1.1718.4.7", "servertech_sentry4"),
        ("1.3.6.1.2.1.33", "ups"),
    ],
)
def test_a_map_is_found_by_what_the_device_is(object_id: str, name: str) -> None:
    found = map_for(oid_of(object_id), load_maps().values())
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("object_id", ["1.3.6.1.4.1.318.1.3.4.9", "1.3.6.1.4.1.17183", "1.3"])
def test_a_strange_device_has_no_map(object_id: str) -> None:
    assert map_for(oid_of(object_id), load_maps().values()) is None


def test_the_longest_match_counts() -> None:
    metric = 'metric = "active_power_watts"\n'
    wide = parse_map(HEAD + 'match = ["1.3.6.1.4.1"]\n' + READING.removeprefix(HEAD) + metric, where="wide")
    maps = [wide, *load_maps().values()]
    found = map_for(oid_of("1.3.6.1.4.1.1718.4"), maps)
    assert found is not None
    assert found.name == "servertech_sentry4"
    assert map_for(oid_of("1.3.6.1.4.1.1"), maps) is wide


def test_a_map_of_ones_own_comes_before_a_shipped_one(tmp_path: Path) -> None:
    own = READING.replace('"own"', '"ups"') + 'metric = "active_power_watts"\n'
    (tmp_path / "own.toml").write_text(own)
    assert load_maps(tmp_path)["ups"].source == "a manual"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="is not there; give an existing one"):
        load_maps(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name = ", "is not TOML"),
        (HEAD, "missing required field `readings`"),
        (READING + 'metrik = "x"\n', "unknown field `metrik`"),
        (READING.replace("1.3.6", "1.3.x"), "matching regex"),
        (READING, "goes nowhere; give a metric of table power, or a point with its unit"),
        (READING + 'metric = "power_watts"\n', "table power has no metric power_watts"),
        (READING + 'metric = "energy_import_joules"\n', 'needs a counter; say kind = "counter"'),
        (READING + 'metric = "active_power_watts"\nkind = "counter"\n', "which needs a gauge"),
        (
            READING + 'metric = "energy_import_joules"\nkind = "counter"\ncombine = "sum"\n',
            "registers are never combined",
        ),
        (READING + 'metric = "active_power_watts"\nunit = "volts"\n', "is in watts, not in volts"),
        (READING + 'metric = "quality_state"\n', "is not what a device tells"),
        (READING + 'metric = "breaker_state"\n', "needs codes if it is a state"),
        (READING + 'metric = "breaker_state"\ncodes = { 1 = 9 }\n', "the catalogue has no state 9"),
        (READING + 'metric = "active_power_watts"\ncodes = { 1 = 1 }\n', "and only then"),
        (READING + 'point = "p"\n', "needs a unit; there are count, state, ratio"),
        (READING + 'point = "p"\nunit = "furlongs"\n', "there is no unit 'furlongs'"),
        (READING + 'point = "p {row}"\nunit = "watts"\n', "names 'row'; there are no labels"),
        (READING + 'point = "p {"\nunit = "watts"\n', "is not a template"),
        (READING + 'point = "{r.__class__}"\nunit = "watts"\nindex = ["r"]\n', "names 'r.__class__'"),
        (READING + 'point = "{r!r}"\nunit = "watts"\nindex = ["r"]\n', "names 'r'"),
        (READING + 'point = "p"\nunit = "watts"\nscale = 0\n', "scale is 0; give one above 0"),
        (READING + 'point = "p"\nunit = "watts"\nscale = "1/0"\n', "is not a number"),
        (READING + 'point = "p"\nunit = "watts"\nonly = { row = [1] }\n', "only has 'row', which is no label"),
        (READING + 'point = "p"\nunit = "watts"\nindex = ["r"]\nlabels = { r = "1" }\n', "has one label twice"),
        (READING + 'point = "p"\nunit = "watts"\nunits = "1.3.6"\n', "has a column of unit codes"),
        (READING + 'point = "p"\nunit = "watts"\nstates = { 1 = "on" }\n', 'its unit must be "state"'),
        (READING + 'point = "p"\nunit = "state"\nevent = "e"\n', "say in states what its codes are called"),
        ('label = ["x"]\n' + READING + 'metric = "active_power_watts"\n', "give it the label 'x'"),
        ('identity = "{nobody}"\n' + READING + 'metric = "active_power_watts"\n', "names 'nobody'"),
        ('table = "tables"\n' + READING + 'metric = "active_power_watts"\n', "is not in the catalogue"),
        ('resource = "gpu"\n' + READING + 'metric = "active_power_watts"\n', "has rows of feeder, meter, not of gpu"),
        ('[unit_codes.1]\nunit = "ells"\n' + READING, "unit code 1: there is no unit 'ells'"),
    ],
)
def test_a_map_that_does_not_hold_is_refused_with_a_sentence(text: str, why: str) -> None:
    if text.startswith("[unit_codes"):
        table, _, rest = text.partition(HEAD)
        text = HEAD + table + rest
    with pytest.raises(MapError) as raised:
        parse_map(text, where="own.toml")
    assert str(raised.value).startswith("map own.toml")
    assert why in str(raised.value)


def test_a_map_may_be_of_another_table() -> None:
    text = 'table = "cooling"\nresource = "cdu"\n' + READING + 'metric = "primary_supply_temperature_celsius"\n'
    found = parse_map(text + 'scale = "1/10"\n', where="cdu.toml")
    assert found.table.name == "cooling"
    assert found.columns(()) == (oid_of("1.3.6.1.4.1.9.1"),)
