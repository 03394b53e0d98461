"""What devices, exporters and people bring: pages, log lines, documents, MQTT, and files of settings and maps."""

import tempfile
from importlib.resources import files
from pathlib import Path

from collectors.dsx.message import RefusedError, decode_facts, decode_reading, parse_topic
from collectors.exporter_reader import ExporterReader
from collectors.kernel_log import parse_pci_address, parse_xid
from collectors.mapping import MappingError, load_mapping, parse_mapping
from collectors.modbus.map_file import MapError, parse_register_map
from collectors.prometheus_text import EXCERPT_CHARACTERS, is_number, parse_text
from collectors.redfish.document import (
    MAX_PATH_CHARACTERS,
    detector_groups,
    is_there,
    link_at,
    links_at,
    next_page,
    objects_in,
    parse_document,
    reading_at,
    serial_of,
    text_at,
)
from collectors.source import SourceUnavailableError
from kvandal.settings import AgentSettings, IngestSettings, SettingsError, load_settings, show_settings
from tests.fuzz.target import Target, check

_DCGM = files("collectors").joinpath("mappings/dcgm.toml")
_MAPPING = load_mapping(Path(str(_DCGM)))
_MAPS = sorted(files("collectors.modbus").joinpath("maps").iterdir(), key=lambda file: file.name)
_PAGE = b"""# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-1",device="nvidia0",modelName="GB300",Hostname="n\\\\1\\"2\\n"} 131.5
# TYPE DCGM_FI_DEV_GPU_TEMP gauge
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",pci_bus_id="00000000:3B:00.0"} 41 1790000000000
DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-1",err_code="0",err_msg="No Error"} NaN
"""


def _read_page(value: bytes) -> None:
    text = value.decode(errors="replace")
    for openmetrics in (False, True):
        exposition = parse_text(text, _MAPPING.families, openmetrics=openmetrics)
        check(set(exposition.points) <= _MAPPING.families, "a family that nobody asked for")
        check(len(exposition.bad_line) <= EXCERPT_CHARACTERS, "an excerpt too long")
        for points in exposition.points.values():
            for point in points:
                is_number(point.value)
        try:
            ExporterReader(_MAPPING, name="fuzz").read(exposition, 1_790_000_000)
        except SourceUnavailableError:
            continue


def _read_log(value: bytes) -> None:
    text = value.decode(errors="replace")
    parse_pci_address(text)
    found = parse_xid(text, 0)
    check(found is None or found.detail.isprintable(), "a control character in an event's text")


def _read_mapping(value: bytes) -> None:
    try:
        parse_mapping(value.decode(errors="replace"), where="fuzz")
    except MappingError as error:
        _check_sentence(error)


def _read_register_map(value: bytes) -> None:
    try:
        parse_register_map(value.decode(errors="replace"), name="fuzz", where="fuzz")
    except MapError as error:
        _check_sentence(error)


_SCRATCH = Path(tempfile.mkdtemp(prefix="kvandal-fuzz-")) / "settings.toml"


def _read_settings(value: bytes) -> None:
    """As a file, and each of its lines as a variable of the environment."""
    lines = [line.partition(b"=") for line in value.replace(b"\0", b"").splitlines()]
    environment = {
        f"KVANDAL_{name.decode(errors='replace').strip().upper().replace('.', '_')}": text.decode(errors="replace")
        for name, _, text in lines
    }
    _SCRATCH.write_bytes(value)
    for file, variables in ((_SCRATCH, {}), (None, environment)):
        try:
            show_settings(load_settings(AgentSettings, file=file, environment=variables))
            show_settings(load_settings(IngestSettings, file=file, environment=variables))
        except SettingsError as error:
            _check_sentence(error)


def _read_dsx(value: bytes) -> None:
    for read in (decode_reading, decode_facts):
        try:
            read(value)
        except RefusedError:
            continue
    try:
        parts = parse_topic(value.decode(errors="replace"))
    except RefusedError:
        return
    check(parts.address.name.isprintable(), "a name that cannot be shown")


def _read_redfish(value: bytes) -> None:
    try:
        document = parse_document(value)
    except ValueError:
        return
    is_there(document), serial_of(document), detector_groups(document)
    for name in [*list(document)[:8], "Status/State", "Links/Chassis", "Members"]:
        check(text_at(document, name).isprintable(), "a text that cannot be shown")
        check(len(text_at(document, name)) <= 128, "a text too long")
        reading_at(document, name), objects_in(document, name)
        for path in [link_at(document, name), *links_at(document, name), next_page(document)]:
            check(not path or path.startswith("/redfish/v1"), "a link that leads away")
            check(len(path) <= 3 * MAX_PATH_CHARACTERS, "a path too long")
            check(".." not in path.partition("?")[0].split("/"), "a path that climbs")


def _check_sentence(error: Exception) -> None:
    check(0 < len(str(error)) < 5000, "an error without a sentence, or with a book")


_SETTINGS = b"""[kafka]
bootstrap = "127.0.0.1:9092"
replication = 3
[agent]
sources = ["nvml", "host"]
interval_s = 1
frame_ticks = 10
[snmp]
[modbus]
[redfish]
"""
_FACTS = b'{"units":"degC","objectType":"AnalogValue","stateText":[{"value":1,"text":"on"}],"unknown":{"a":[1]}}'
_DOCUMENT = b"""{"@odata.id":"/redfish/v1/Chassis/1","Status":{"State":"Enabled"},"Manufacturer":"m","Model":"x",
"SerialNumber":"A1","Reading":41.5,"Members":[{"@odata.id":"/redfish/v1/Chassis/1/Sensors/a%20b"}],
"Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/2"}]},"Members@odata.nextLink":"/redfish/v1/Chassis?$skip=2",
"LeakDetectorGroups":[{"Detectors":[{"DataSourceUri":"/redfish/v1/x","DetectorState":"OK"}]}]}"""
_JSON_WORDS = (b'"@odata.id":', b'"/redfish/v1/"', b"NaN", b"Infinity", b"1e400", b"9" * 400, b"[" * 2000, b"%2e%2e/")

DEVICE_TARGETS = (
    Target("exporter-page", _read_page, (_PAGE,), (b"# TYPE ", b"{", b'="', b"NaN", b"+Inf", b"1e400", b"9" * 5000)),
    Target(
        "kernel-log",
        _read_log,
        (
            b"NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.",
            b"6,1,2,-;NVRM: Xid (PCI:0008:01:00.0): 94, Contained error",
        ),
        (b"NVRM: Xid (PCI:", b"): ", b"\x1b[2J", "\u0661".encode(), b"9" * 5000),
    ),
    Target(
        "exporter-mapping", _read_mapping, (_DCGM.read_bytes()[:4000], _DCGM.read_bytes()), (b"[[metric]]", b'"1/0"')
    ),
    Target(
        "register-map",
        _read_register_map,
        tuple(file.read_bytes() for file in _MAPS),
        (b"&a ", b"*a", b"!!python/", b"- "),
    ),
    Target("settings", _read_settings, (_SETTINGS,), (b"[agent]", b"_FILE=", b"/dev/null", b"inf", b"nan", b"'''")),
    Target(
        "dsx",
        _read_dsx,
        (b'{"value":21.5,"timestamp":"2026-11-01T00:00:00Z","quality":1}', _FACTS, b"BMS/v1/p/Value/Rack/r1/Power"),
        (b"BMS/v1/", b"/Value/", b"/Metadata/", b'"value":', b"1e999", b"+", b"#"),
    ),
    Target("redfish", _read_redfish, (_DOCUMENT,), _JSON_WORDS),
)
