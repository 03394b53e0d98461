"""The general source over Prometheus text: mapping files, hostile text, exporters that fail, and another exporter."""

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue import POWER, ResourceKind, Table, resource_id
from collectors.exporter_page import ExporterPage
from collectors.mapping import ExporterMapping, MappingError, load_mapping, parse_mapping
from collectors.prometheus_text import Point, parse_text
from collectors.source import SourceUnavailableError
from stream.rows import in_base_unit
from tests.servers.exporter import OPENMETRICS, Exporter, exporter
from tests.servers.exporter_source import PrometheusTextSource
from tests.servers.ports import free_port

START_S = 1_800_000_000

# An exporter of rack power distribution units that nobody makes: all that is needed to read it.
PDU = """
name = "rack_pdu"
resource = "feeder"
identity = [["vendor"], ["serial", "serial_number"]]
title = "{place} feeder {inlet}"
part = ["outlet"]
max_age_s = 60
blank = ["minus_one"]

[attributes]
place = ["rack"]
inlet = ["inlet"]

[sentinels]
minus_one = { at_least = -1, at_most = -1 }

[[metrics]]
families = ["pdu_outlet_power_kilowatts", "pdu_power_kw"]
table = "power"
metric = "active_power_watts"
scale = 1000
repeats = "sum"
drop = { phase = ["N"] }

[[metrics]]
families = ["pdu_energy_kwh_total"]
table = "power"
metric = "energy_import_joules"
kind = "counter"
scale = 3_600_000

[[metrics]]
families = ["pdu_voltage_volts"]
table = "power"
metric = "voltage_volts"
repeats = "same"

[[metrics]]
families = ["pdu_breaker"]
table = "power"
metric = "breaker_state"
states = { 0 = 2, 1 = 1, 7 = 3 }
repeats = "max"
"""
NAMED = 'vendor="Acme",serial="A-17"'
FEEDER = "Acme/A-17"


@pytest.fixture
def page() -> Iterator[Exporter]:
    with exporter() as running:
        yield running


def pdu(text: str = PDU) -> ExporterMapping:
    return parse_mapping(text, where="pdu.toml")


def source_on(page: Exporter, mapping: ExporterMapping | None = None, **limits: float) -> PrometheusTextSource:
    reader = ExporterPage(
        page.url, timeout_s=limits.get("timeout_s", 10.0), limit_bytes=int(limits.get("limit_bytes", 1 << 20))
    )
    return PrometheusTextSource(reader, mapping or pdu(), parent=7, source=4711, clock=lambda: START_S)


def values_of(source: PrometheusTextSource, seconds: int = 0, *, table: Table = POWER) -> dict[str, float]:
    """What is not absent in the only row of the only reading."""
    (reading,) = source.read(START_S + seconds)
    assert (reading.table, reading.rows.size, reading.source) == (table, 1, 4711)
    assert int(reading.rows["resource"][0]) == resource_id(ResourceKind.FEEDER, FEEDER)
    values = {metric.name: float(in_base_unit(metric, reading.rows)[0]) for metric in table.metrics}
    return {name: value for name, value in values.items() if not math.isnan(value)}


# Another exporter ----------------------------------------------------------------------------------------------------


def test_another_exporter_needs_only_a_mapping_file(page: Exporter, tmp_path: Path) -> None:
    file = tmp_path / "pdu.toml"
    file.write_text(PDU)
    page.show(
        f"""# HELP pdu_outlet_power_kilowatts Power of an outlet.
# TYPE pdu_outlet_power_kilowatts gauge
pdu_outlet_power_kilowatts{{{NAMED},rack="R12",inlet="A",outlet="1"}} 4.25
pdu_outlet_power_kilowatts{{{NAMED},rack="R12",inlet="A",outlet="2"}} 1.5
pdu_outlet_power_kilowatts{{{NAMED},rack="R12",inlet="A",outlet="2",phase="N"}} 9999
# TYPE pdu_energy_kwh_total counter
pdu_energy_kwh_total{{{NAMED}}} 123456.789
# TYPE pdu_voltage_volts gauge
pdu_voltage_volts{{{NAMED}}} 415.2
# TYPE pdu_breaker gauge
pdu_breaker{{{NAMED}}} 7
"""
    )
    source = source_on(page, load_mapping(file))
    assert source.name == "rack_pdu"
    assert values_of(source) == pytest.approx(
        {
            "active_power_watts": 5750,
            "energy_import_joules": 123_456_789 * 3600,
            "voltage_volts": 415.2,
            "breaker_state": 3,
        }
    )
    (message,) = source.inventory()
    assert (message.kind, message.identity, message.name) == (ResourceKind.FEEDER, FEEDER, "R12 feeder A")
    assert (message.parent, message.attributes) == (7, {"place": "R12", "inlet": "A"})
    assert source.events() == ()
    source.close()


def test_a_label_has_its_older_name_too(page: Exporter) -> None:
    page.show('pdu_power_kw{vendor="Acme",serial_number="A-17"} 2\n')
    assert values_of(source_on(page)) == {"active_power_watts": 2000}


@pytest.mark.parametrize(
    ("numbers", "values"),
    [
        (("415", "415"), {"voltage_volts": 415}),
        (("415", "230"), {}),
        (("415", "-1"), {"voltage_volts": 415}),
        (("-1", "-1"), {}),
    ],
)
def test_repeats_that_are_to_be_the_same_are_absent_when_they_are_not(
    page: Exporter, numbers: tuple[str, str], values: dict[str, float]
) -> None:
    page.show("".join(f'pdu_voltage_volts{{{NAMED},copy="{n}"}} {text}\n' for n, text in enumerate(numbers)))
    assert values_of(source_on(page)) == values


def test_a_state_that_the_mapping_does_not_list_is_absent_and_named_once(
    page: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    page.show(f"pdu_breaker{{{NAMED}}} 5\npdu_voltage_volts{{{NAMED}}} 400\n")
    source = source_on(page)
    assert [values_of(source, seconds) for seconds in (0, 10)] == [{"voltage_volts": 400}] * 2
    assert [record.message for record in caplog.records] == ["an exporter's state is not in its mapping"]


@pytest.mark.parametrize(("age_s", "known"), [(59, True), (61, False), (-61, False)])
def test_a_sample_that_is_too_old_is_absent(
    page: Exporter, caplog: pytest.LogCaptureFixture, age_s: int, *, known: bool
) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400 {(START_S - age_s) * 1000}\npdu_breaker{{{NAMED}}} 1\n")
    values = values_of(source_on(page))
    assert ("voltage_volts" in values) is known
    assert values["breaker_state"] == 1
    assert len(caplog.records) == (not known)


def test_a_family_of_another_type_is_absent_and_named_once(page: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    page.show(
        f"# TYPE pdu_voltage_volts counter\npdu_voltage_volts{{{NAMED}}} 400\npdu_breaker{{{NAMED}}} 1\n"
        f"# TYPE pdu_energy_kwh_total untyped\npdu_energy_kwh_total{{{NAMED}}} 1\n"
    )
    source = source_on(page)
    values = [values_of(source, seconds) for seconds in (0, 10)]
    assert values == [{"breaker_state": 1, "energy_import_joules": 3_600_000}] * 2
    assert [record.message for record in caplog.records] == [
        "an exporter's family is of another type than its mapping says"
    ]


def test_a_family_without_the_label_is_named_once(page: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    page.show(f'pdu_voltage_volts{{vendor="Acme"}} 400\npdu_voltage_volts 1\npdu_breaker{{{NAMED}}} 1\n')
    source = source_on(page)
    assert [values_of(source, seconds) for seconds in (0, 10)] == [{"breaker_state": 1}] * 2
    assert [record.message for record in caplog.records] == [
        "an exporter's family lacks the label that tells the resource"
    ]


SUMS = """
name = "switches"
resource = "tray"
identity = [["node"]]
part = ["interface"]
epoch = ["boot"]

[[metrics]]
families = ["received_kilobits"]
table = "tray"
metric = "network_received_bytes"
kind = "counter"
scale = 125
step = "1/1000"
repeats = "sum"
ceiling_per_s = 1_000_000
"""


def test_counters_of_parts_are_added_as_differences(page: Exporter) -> None:
    mapping = pdu(SUMS)
    source = source_on(page, mapping)

    def received(seconds: int, **interfaces: float) -> float | None:
        page.show(
            "".join(f'received_kilobits{{node="n",interface="{i}"}} {value}\n' for i, value in interfaces.items())
        )
        (reading,) = source.read(START_S + seconds)
        value = float(in_base_unit(reading.table.metric("network_received_bytes"), reading.rows)[0])
        return None if math.isnan(value) else value

    assert received(0, a=1.0, b=1000.5) is None
    assert received(10, a=2.5, b=1000.508) == 188  # 187.5 bytes for a, of which the half waits, and 1 for b
    assert received(20, a=2.5, b=1000.508, c=1e9) is None  # c brings its past with it
    assert received(30, a=2.5, b=1000.508, c=1e9 + 8) == 1000
    assert received(40, a=2.5, b=0.0, c=1e9 + 8) is None  # b started again
    assert received(50, a=1e6, b=0.0, c=1e9 + 8) is None  # 12 MB/s where 1 MB/s is the ceiling


def test_a_counter_with_a_new_epoch_has_no_difference(page: Exporter) -> None:
    source = source_on(page, pdu(SUMS))
    found = []
    for seconds, (boot, value) in enumerate((("x", 1), ("x", 9), ("y", 17), ("y", 25))):
        page.show(f'received_kilobits{{node="n",boot="{boot}"}} {value}\n')
        (reading,) = source.read(START_S + 10 * seconds)
        found.append(float(in_base_unit(reading.table.metric("network_received_bytes"), reading.rows)[0]))
    assert found == pytest.approx([math.nan, 1000, math.nan, 1000], nan_ok=True)


# Mapping files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('table = "power"\nmetric = "voltage', 'table = "powers"\nmetric = "voltage', "no table powers; there are gpu"),
        ('"voltage_volts"', '"volts"', "table power has no metric volts"),
        ('resource = "feeder"', 'resource = "gpu"', "table power has rows of feeder, meter, not of gpu"),
        ('resource = "feeder"', 'resource = "plug"', "Invalid enum value 'plug' - at `$.resource`"),
        ('kind = "counter"', 'kind = "gauge"', 'is a register, which needs a counter; say kind = "counter"'),
        ("scale = 1000", 'scale = "0/5"', "scale is 0/5; give one above 0"),
        ("scale = 1000", 'scale = "kilo"', "scale 'kilo' is not a number; write 0.001"),
        ('repeats = "same"', 'repeats = "mean"', "Invalid enum value 'mean' - at `$.metrics[2].repeats`"),
        ('repeats = "same"', 'repeat = "same"', "Object contains unknown field `repeat` - at `$.metrics[2]`"),
        ('repeats = "same"', 'blank = ["all_ones"]', "there is no sentinel 'all_ones'; write a [sentinels.all_ones]"),
        ("0 = 2,", "open = 2,", "states has a key that is no whole number"),
        ('metric = "voltage_volts"', 'metric = "active_power_watts"', "has two entries; put pdu_voltage_volts into"),
        ("{place} feeder", "{hall} feeder", "names 'hall'; use the names in [attributes]"),
        ('name = "rack_pdu"', 'name = "../pdu"', "at `$.name`"),
        ("[attributes]", "[attributes", "is not TOML"),
    ],
)
def test_a_wrong_mapping_is_refused_with_where_and_what_to_do(before: str, after: str, sentence: str) -> None:
    assert PDU.count(before) == 1
    with pytest.raises(MappingError) as raised:
        parse_mapping(PDU.replace(before, after), where="pdu.toml")
    assert str(raised.value).startswith("mapping pdu.toml")
    assert sentence in str(raised.value)


def test_a_mapping_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="No such file or directory; give an existing file"):
        load_mapping(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MappingError, match="is not UTF-8"):
        load_mapping(tmp_path / "binary.toml")


# Text ----------------------------------------------------------------------------------------------------------------


def test_whole_numbers_stay_exact_and_labels_are_unescaped() -> None:
    found = parse_text('a{x="1\\n\\"2\\"",} 9007199254740993\n  a   1.5e3  \n', {"a"})
    assert found.points == {
        "a": [Point({"x": '1\n"2"'}, 9_007_199_254_740_993, None), Point({}, 1500.0, None)],
    }
    assert found.bad_lines == 0


def test_timestamps_are_milliseconds_and_in_openmetrics_seconds() -> None:
    assert parse_text("a 1 1800000000500\n", {"a"}).points["a"][0].time_s == 1_800_000_000.5
    text = '# TYPE a counter\na_total{x=" # {"} 1 1800000000.5 # {trace_id="7"} 0.5 1800000000.1\n# EOF\n'
    found = parse_text(text, {"a"}, openmetrics=True)
    assert found.points == {"a": [Point({"x": " # {"}, 1, 1_800_000_000.5)]}
    assert (found.declared("a"), found.bad_lines) == ("counter", 0)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a{",
        "a{x=1} 1",
        'a{x="1} 1',
        'a{x="1"} one',
        'a{x="1",x="2"} 1',
        "a 1_000",
        'a{ =""} 1',
        "<html><body>502 Bad Gateway</body></html>",
        'a{x="' + "y" * 5000 + '"} 1',
        "\x00\x01\x02",
    ],
)
def test_a_bad_line_costs_that_line_only(line: str) -> None:
    found = parse_text(f'a{{x="before"}} 1\n{line}\na{{x="after"}} 2\n', {"a"})
    assert [point.value for point in found.points["a"]] == [1, 2]
    assert (found.bad_lines, found.bad_line) == (1, line[:120])


def test_a_last_line_that_was_cut_off_does_not_count() -> None:
    found = parse_text("a 1\na 12", {"a"})
    assert [point.value for point in found.points["a"]] == [1]
    assert found.bad_lines == 1


@given(st.text(alphabet='a{}="\\,# \t\n1e+._xN\x0b\u2028é', max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    for openmetrics in (False, True):
        found = parse_text(f"{text}\na 7\n", {"a", "aa"}, openmetrics=openmetrics)
        assert 7 in [point.value for point in found.points["a"]]


def test_bad_lines_are_counted_and_named_once(page: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n<b>oops</b>\npdu_voltage_volts{{{NAMED} 1\n")
    source = source_on(page)
    for seconds in range(20):
        assert values_of(source, 10 * seconds) == {"voltage_volts": 400}
    assert source.bad_lines == 40
    (record,) = caplog.records
    assert record.message == "an exporter's text has lines that cannot be read"
    assert vars(record)["first"] == "<b>oops</b>"


# Exporters that fail -------------------------------------------------------------------------------------------------


def test_an_exporter_may_compress_and_is_asked_for_text(page: Exporter) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n")
    page.compress = True
    assert values_of(source_on(page)) == {"voltage_volts": 400}
    (headers,) = page.seen
    assert (headers["Accept"], headers["Accept-Encoding"]) == ("text/plain;version=0.0.4", "gzip")


def test_headers_go_with_each_request(page: Exporter) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n")
    ExporterPage(page.url, headers={"Authorization": "Bearer x"}).read({"pdu_voltage_volts"})
    assert page.seen[0]["Authorization"] == "Bearer x"


def test_openmetrics_is_read_by_its_content_type(page: Exporter) -> None:
    page.content_type = OPENMETRICS
    page.show(f"# TYPE pdu_voltage_volts gauge\npdu_voltage_volts{{{NAMED}}} 400 {START_S}.25\n# EOF\n")
    assert values_of(source_on(page)) == {"voltage_volts": 400}


def failure(page: Exporter, **limits: float) -> str:
    started_s = time.monotonic()
    with pytest.raises(SourceUnavailableError) as raised:
        source_on(page, None, **limits).read(START_S)
    assert time.monotonic() - started_s < 5
    return str(raised.value)


def test_an_exporter_that_is_down_is_unavailable() -> None:
    url = f"http://127.0.0.1:{free_port()}/metrics"
    source = PrometheusTextSource(ExporterPage(url), pdu())
    with pytest.raises(SourceUnavailableError) as raised:
        source.read(START_S)
    assert str(raised.value) == (
        f"exporter {url} does not answer ([Errno 111] Connection refused): see whether the exporter runs there"
    )


def test_an_exporter_that_waits_is_unavailable(page: Exporter) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n")
    page.waits_s = 30
    assert "has not sent its page within 0.3 s: see whether it hangs" in failure(page, timeout_s=0.3)


@pytest.mark.parametrize("says_length", [True, False])
def test_an_exporter_that_drips_is_unavailable(page: Exporter, *, says_length: bool) -> None:
    """Each byte comes well within any timeout of the socket."""
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n" * 100)
    page.drip_s, page.says_length = 0.01, says_length
    assert "has not sent its page within 0.3 s" in failure(page, timeout_s=0.3)


@pytest.mark.parametrize("compress", [False, True])
def test_a_huge_page_is_unavailable(page: Exporter, *, compress: bool) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n" * 20_000)
    page.compress = compress
    assert "sends more than 10000 bytes: let it export less" in failure(page, limit_bytes=10_000)


def test_a_page_that_unpacks_to_far_more_than_the_limit_is_not_unpacked(page: Exporter) -> None:
    page.body = bytes(1 << 26)
    page.compress = True
    assert "sends more than 10000 bytes" in failure(page, limit_bytes=10_000)


@pytest.mark.parametrize("compress", [False, True])
def test_a_page_that_breaks_off_is_unavailable(page: Exporter, *, compress: bool) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n" * 3)
    page.compress, page.stops_after = compress, 40
    assert "breaks off in the middle of its page" in failure(page)


def test_a_compressed_page_without_its_end_is_unavailable(page: Exporter) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n" * 3)
    page.compress, page.stops_after, page.says_length = True, 40, False
    assert "breaks off in the middle of its page" in failure(page)


@pytest.mark.parametrize(
    ("status", "sentence"), [(404, "answers 404: check the address"), (302, "answers 302"), (503, "answers 503")]
)
def test_an_exporter_that_answers_otherwise_is_unavailable(page: Exporter, status: int, sentence: str) -> None:
    page.status = status
    assert sentence in failure(page)


def test_an_exporter_that_hangs_up_is_unavailable(page: Exporter) -> None:
    page.hangs_up = True
    assert "does not answer" in failure(page)


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_an_encoding_that_is_not_what_it_says_is_unavailable(page: Exporter, encoding: str) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n")
    page.encoding = encoding
    assert {"br": "sends br: let it send plain text or gzip", "gzip": "sends broken gzip"}[encoding] in failure(page)


@pytest.mark.parametrize("body", [b"", b"<html>not here</html>", bytes(range(256)) * 100, b"\n" * 1000])
def test_rubbish_is_unavailable_and_does_not_flood_the_log(
    page: Exporter, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    page.body = body
    source = source_on(page)
    for seconds in range(20):
        with pytest.raises(SourceUnavailableError, match="sends none of the 5 families that its mapping knows"):
            source.read(START_S + seconds)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


def test_an_exporter_that_recovers_is_read_again(page: Exporter) -> None:
    page.show(f"pdu_voltage_volts{{{NAMED}}} 400\n")
    source = source_on(page)
    page.status = 500
    with pytest.raises(SourceUnavailableError):
        source.read(START_S)
    page.status = 200
    assert values_of(source, 10) == {"voltage_volts": 400}


def test_more_samples_than_anybody_has_are_unavailable(page: Exporter) -> None:
    page.show("pdu_breaker 1\n" * 100_001)
    assert "has 100001 samples, more than 100000" in failure(page, limit_bytes=1 << 22)


@pytest.mark.parametrize(
    "url", ["ftp://node/metrics", "/metrics", "http://", "http://user:secret@node:9400/metrics", "file:///etc/passwd"]
)
def test_an_address_that_is_none_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ValueError, match="is not an exporter's address") as raised:
        ExporterPage(url)
    assert "secret@" not in str(raised.value)
