"""What people write down about a site (topology, registers, maps, periods), and what its meters answer."""

import math
import re
import tempfile
from pathlib import Path
from uuid import UUID

from collectors.modbus.blocks import Span
from collectors.modbus.map import evaluate, facts_of
from collectors.modbus.map_file import load_register_map, shipped_maps
from collectors.snmp.map_file import SHIPPED_MAPS, MapError, load_maps, parse_map
from collectors.snmp.plan import Found, measurements_of, plan_of, points_of
from collectors.snmp.settings import SnmpDevice
from collectors.topology.file import FileText, TopologyFileError, parse_file
from kvandal.importing import parse_valid_from
from kvandal.plans import TablePlans
from reports.period import Period
from reports.registers_import.problems import RegisterFileError
from reports.registers_import.rows import read_rows
from storage.books import PlanLine
from storage.register_kinds import DECLARATIONS, RegisterKind
from tests.fuzz.target import Target, check

_NOW_MS = 1_795_000_000_000
_REGISTER_MAPS = {name: load_register_map(name) for name in shipped_maps()}
_SNMP_MAPS = load_maps()
_DEVICE = SnmpDevice(name="pdu", host="127.0.0.1", credentials="c")


def _read_topology(value: bytes) -> None:
    text = value.decode(errors="replace")
    for name in ("fuzz.toml", "fuzz.csv"):
        try:
            entries = parse_file(FileText(name, text, _NOW_MS), now_ms=_NOW_MS)
        except TopologyFileError as error:
            check(0 < len(str(error)) < 20_000, "an error without a sentence, or with a book")
            continue
        check(len(entries) <= value.count(b"\n") + value.count(b"\r") + 1, "more entries than lines")


def _read_register(value: bytes) -> None:
    for kind in RegisterKind:
        try:
            rows = read_rows("fuzz.csv", value, kind)
        except RegisterFileError as error:
            check(0 < len(str(error)) < 1_000_000, "an error without a sentence")
            continue
        check(len(rows) <= value.count(b"\n") + value.count(b"\r") + 1, "more rows than lines")


def _read_period(value: bytes) -> None:
    text = value.decode(errors="replace")
    name, _, zone = text.partition("@")
    for parse in (lambda: Period.parse(name, zone or "Europe/Oslo"), lambda: parse_valid_from(name)):
        try:
            parse()
        except ValueError as error:
            check(bool(str(error)), "an error without a sentence")


def _read_snmp_map(value: bytes) -> None:
    try:
        parse_map(value.decode(errors="replace"), where="fuzz")
    except MapError as error:
        check(0 < len(str(error)) < 5000, "an error without a sentence, or with a book")


_OBJECT = re.compile(r"([\d.]+)=(.*)")


def _read_snmp_answers(value: bytes) -> None:
    """Lines of `oid=value`; a value of digits is a number, as an agent may claim of any object."""
    found: dict[tuple[int, ...], Found] = {}
    for line in value.decode(errors="replace").splitlines()[:2000]:
        if match := _OBJECT.fullmatch(line):
            oid = tuple(int(part[:9]) for part in match[1].split(".") if part.isascii() and part)
            text = match[2]
            number = text.isascii() and text.removeprefix("-").isdigit() and len(text) < 21
            found[oid] = Found(int(text) if number else text)
    answers = {oid: one.value for oid, one in found.items()}
    for device_map in _SNMP_MAPS.values():
        plan = plan_of(device_map, _DEVICE, found)
        for measurement in measurements_of(plan, answers):
            check(all(math.isfinite(number) for number in measurement.values.values()), "a value that is no number")
        for point in points_of(plan, answers):
            check(math.isfinite(point.value), "a value that is no number")


def _read_modbus(value: bytes) -> None:
    """The input is the device's registers, again and again; the first byte says which of them it refuses."""
    refused, cells = value[0] if value else 0, value[1:] or b"\0"

    def words(span: Span) -> list[int] | None:
        if refused and span.address % 256 < refused % 16:
            return None
        at = range(span.address * 2, (span.address + span.count) * 2, 2)
        return [cells[n % len(cells)] << 8 | cells[(n + 1) % len(cells)] for n in at]

    for register_map in _REGISTER_MAPS.values():
        values = evaluate(register_map, words)
        check(all(map(math.isfinite, [*values.metrics.values(), *values.points.values()])), "a value that is no number")
        for fact in facts_of(register_map, words).values():
            check(fact.isprintable(), "a text that cannot be shown")


class _NoLines:
    """A table of plans that has none."""

    def read(self, topic_id: UUID) -> list[PlanLine]:
        assert topic_id
        return []

    def write(self, topic_id: UUID, lines: list[PlanLine]) -> None:
        raise AssertionError(f"nothing is planned here, of {topic_id} {lines}")


_JOURNAL = Path(tempfile.mkdtemp(prefix="kvandal-fuzz-"))


def _read_journal(value: bytes) -> None:
    (_JOURNAL / "topic.plan").write_bytes(value)
    TablePlans(_NoLines(), _JOURNAL).orphan("topic", UUID(int=1))


def _register_seed(kind: RegisterKind) -> bytes:
    header = ",".join(column.name for column in DECLARATIONS[kind].columns)
    return f"{header}\n{',' * header.count(',')}\n".encode()


_TOPOLOGY = b"""[[site]]
identity = "s1"
name = "Kvandal"
[[rack]]
identity = "r1"
name = "R1"
parent = "site s1"
since = 2026-01-01T00:00:00Z
"""
_TOPOLOGY_CSV = b"kind,identity,name,parent,since\nsite,s1,Kvandal,,\nrack,r1,R1,site s1,2026-01-01T00:00:00Z\n"
_ANSWERS = b"".join(
    b"1.3.6.1.4.1.13742.6.5.2.3.1.4.1.1.%d=%d\n1.3.6.1.2.1.33.1.4.4.1.4.%d=1500\n" % (n, n * 100, n)
    for n in range(1, 7)
)

SITE_TARGETS = (
    Target("topology", _read_topology, (_TOPOLOGY, _TOPOLOGY_CSV), (b"[[rack]]", b"parent = ", b"9999-12-31", b'"')),
    Target(
        "register-file",
        _read_register,
        tuple(_register_seed(kind) for kind in RegisterKind),
        (b"2026-10-01", b"1e400", b"NaN", b"9" * 400, b'"', b";", b"\xef\xbb\xbf", b"2026-02-30"),
    ),
    Target(
        "period",
        _read_period,
        (b"2026", b"2026-10", b"2026-10-25@Europe/Oslo", b"2026-10-25T02:30:00+02:00", b"0001-01-01", b"9999-12-31"),
        (b"@", b"UTC", b"../../etc/passwd", b"9999", b"0000", "\u0662".encode()),
    ),
    Target(
        "snmp-map",
        _read_snmp_map,
        tuple(file.read_bytes() for file in sorted(SHIPPED_MAPS.glob("*.toml"))),
        (b"[[reading]]", b'"1/0"', b"1." * 200, b"{x}", b"{0.__class__}"),
    ),
    Target("snmp-answers", _read_snmp_answers, (_ANSWERS,), (b"1.3.6.1.4.1.13742.6.", b"1.3.6.1.2.1.33.1.", b"=-1")),
    Target(
        "modbus-answers", _read_modbus, (b"\0" * 9, b"\0\x7f\xff\xff\xff", b"\1SunS" * 8), (b"\x80\0", b"\x7f\x80\0\0")
    ),
    Target("plan-journal", _read_journal, (b"\x82\xa4plan\x80\xa7records\x90",), (b"\xc1", b"\xdf\xff\xff\xff\xff")),
)
