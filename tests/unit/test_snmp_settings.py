"""Settings of the SNMP source: what is refused, and with which sentence."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collectors.snmp.settings import CommunityCredentials, SnmpSettings, UserCredentials

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/snmp.md"
USER = {"version": "3", "user": "kvandal", "auth_password_file": "a", "privacy_password_file": "p"}
DEVICE = {"name": "PDU", "host": "10.0.0.1", "credentials": "all"}


def settings(*, credentials: dict[str, Any] | None = None, **changes: Any) -> SnmpSettings:
    document = {"credentials": {"all": credentials or USER}, "devices": [DEVICE]} | changes
    return msgspec.convert(document, SnmpSettings)


def test_the_example_of_the_guide_is_good() -> None:
    example = GUIDE.read_text().partition("```toml\n")[2].partition("```")[0]
    found = msgspec.convert(tomllib.loads(example)["snmp"], SnmpSettings)
    pdu, ups = found.devices
    assert isinstance(found.credentials["pdus"], UserCredentials)
    assert isinstance(found.credentials["old"], CommunityCredentials)
    assert (pdu.meter("1").role, pdu.meter("1").accuracy_class) == ("it", "1")
    assert (ups.meter("output").role, ups.meter("input").role) == ("it", "")


def test_a_device_has_what_is_left_of_the_interval() -> None:
    assert settings(interval_s=30).budget_s == pytest.approx(24)
    assert settings(interval_s=30, deadline_s=5).budget_s == 5


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        ({"version": "3", "user": "k"}, "auth = 'SHA-256' but no auth_password_file"),
        ({"version": "3", "user": "k", "auth_password_file": "a"}, "privacy = 'AES-128' but no privacy_password_file"),
        (USER | {"auth": "none"}, "privacy without auth"),
        (USER | {"auth": "none", "privacy": "none"}, "would be read without authentication"),
        (USER | {"auth": "MD5"}, "Invalid enum value 'MD5'"),
        (USER | {"privacy": "DES"}, "Invalid enum value 'DES'"),
        (USER | {"password": "hush"}, "unknown field `password`"),
        ({"version": "1", "community_file": "c"}, "Invalid value '1'"),
    ],
)
def test_credentials_that_do_not_hold_are_refused(credentials: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        settings(credentials=credentials)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"devices": []}, "length >= 1"),
        ({"devices": [DEVICE, DEVICE]}, "two devices have the name 'PDU'"),
        (
            {"devices": [DEVICE | {"identity": "x"}, DEVICE | {"name": "b", "identity": "x"}]},
            "two devices have the identity 'x'",
        ),
        ({"devices": [DEVICE | {"credentials": "none"}]}, "write a section [snmp.credentials.none]"),
        ({"devices": [DEVICE | {"parent": "shelf:1"}]}, "'shelf:1' is of no kind that exists; there are site, hall"),
        ({"devices": [DEVICE | {"meters": {"*": {"serves": ["rack"]}}}]}, "matching regex"),
        ({"deadline_s": 10}, "deadline_s is 10; give less than interval_s, 10"),
        ({"timeout_s": 8}, "timeout_s is 8; give less than what a device may take in all, 8"),
        ({"interval": 10}, "unknown field `interval`"),
    ],
)
def test_settings_that_do_not_hold_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        settings(**changes)
    assert why in str(raised.value)


def test_checking_settings_and_maps_loads_no_library_of_snmp() -> None:
    program = "import sys, collectors.snmp.settings, collectors.snmp.map_file; print('pysnmp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"
