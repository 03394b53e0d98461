"""How the Redfish source asks: sessions, trust, deadlines, tags, expansion, metric reports, and what rubbish costs."""

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from catalogue import COOLING, POWER, ResourceKind
from collectors.devices import DeviceState
from collectors.facility import Quality
from collectors.source import SourceUnavailableError
from tests.servers.ports import free_port
from tests.servers.redfish_bench import CDU_IDENTITY, Bench, events, report_of
from tests.servers.redfish_service import (
    PASSWORD,
    ROOT,
    SESSIONS,
    USER,
    Certificates,
    Fault,
    Json,
    Service,
    make_certificates,
)
from tests.servers.redfish_trees import CDU, PDU, cdu_tree, pdu_tree, server_tree, shelf_tree

PRIMARY = f"{CDU}/PrimaryCoolantConnectors/1"
NEW_PASSWORD = "another one"  # noqa: S105 - of a test server
SECONDARY = f"{CDU}/SecondaryCoolantConnectors/1"
REPORT = "TelemetryService/MetricReports/all"
PLACES = [  # what a tick reads of a CDU that expands nothing
    CDU,
    f"{CDU}/EnvironmentMetrics",
    f"{CDU}/LeakDetection/LeakDetectors/1",
    f"{CDU}/LeakDetection/LeakDetectors/2",
    PRIMARY,
    f"{CDU}/Pumps/1",
    f"{CDU}/Pumps/2",
    f"{CDU}/Reservoirs/1",
    SECONDARY,
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def bench(certificates: Certificates, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as running:
        yield Bench(certificates, tmp_path, running)


def no_answer(bench: Bench, service: Service, **options: Any) -> tuple[DeviceState, str]:
    """How a device is after it was asked in vain, and why."""
    limits = {name: options.pop(name) for name in ("deadline_s", "request_timeout_s") if name in options}
    source = bench.source(bench.device(service, **options), **limits)
    with pytest.raises(SourceUnavailableError):
        bench.read(source)
    report = report_of(source)
    return report.state, report.why


# Sessions -------------------------------------------------------------------------------------------------------------


def test_one_session_serves_all_ticks_and_ends_with_the_source(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    for _ in range(3):
        bench.read(source)
    assert len(service.methods("POST")) == 1
    assert len(service.sessions) == 1
    asked = [one for one in service.methods("GET") if one.path.rstrip("/") != ROOT]
    assert {one.headers.get("X-Auth-Token") for one in asked} == set(service.sessions)
    assert not any("Authorization" in one.headers for one in asked)
    source.close()
    source.close()
    assert service.sessions == {}
    assert len(service.methods("DELETE")) == 1


def test_a_session_that_ran_out_is_renewed_once_and_nothing_is_lost(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    whole = bench.read(source).cdu()
    service.expire()
    assert bench.read(source).cdu() == whole
    assert len(service.methods("POST")) == 2


def test_a_session_that_is_never_accepted_is_refused_and_not_asked_for_again_and_again(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.break_("ThermalEquipment", Fault(status=401))
    assert no_answer(bench, service) == (
        DeviceState.REFUSED,
        "/redfish/v1/ThermalEquipment answers HTTP 401 right after signing in",
    )
    assert len(service.methods("POST")) == 2


def test_a_wrong_password_is_refused_and_tried_once(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.password = NEW_PASSWORD
    source = bench.source(bench.device(service))
    for _ in range(5):
        with pytest.raises(SourceUnavailableError, match="none of 1 devices could be read: 1 refused"):
            bench.read(source)
        bench.clock.advance(600)  # past every pause of the pool
    assert report_of(source).state is DeviceState.REFUSED
    assert len(service.methods("POST")) == 1  # tries lock accounts
    (bench.directory / "password").write_text(NEW_PASSWORD)
    assert bench.read(source).cdu()
    assert report_of(source).state is DeviceState.OK


def test_a_device_without_room_for_a_session_says_so_and_is_asked_again(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.most_sessions = 0
    source = bench.source(bench.device(service))
    with pytest.raises(SourceUnavailableError):
        bench.read(source)
    assert report_of(source).state is DeviceState.REFUSED
    assert "SessionLimitExceeded" in report_of(source).why
    service.most_sessions = 1
    assert bench.read(source).cdu()


def test_a_password_file_that_is_not_there_is_named(bench: Bench) -> None:
    missing = str(bench.directory / "nowhere")
    state, why = no_answer(bench, bench.service(cdu_tree()), password_file=missing)
    assert (state, why) == (DeviceState.REFUSED, f"password_file {missing} cannot be read: No such file or directory")


@pytest.mark.parametrize("authentication", ["session_or_basic", "basic"])
def test_the_password_goes_with_every_request_where_settings_allow_it(bench: Bench, authentication: str) -> None:
    service = bench.service(cdu_tree())
    service.has_sessions, service.accepts_basic = False, True
    assert bench.read(bench.source(bench.device(service, authentication=authentication))).cdu()
    assert len(service.methods("POST")) == (authentication == "session_or_basic")


def test_the_password_does_not_go_with_every_request_unless_settings_allow_it(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.has_sessions, service.accepts_basic = False, True
    state, why = no_answer(bench, service)
    assert (state, why) == (DeviceState.NONSENSE, "it opens no session: HTTP 404")
    assert not any("Authorization" in one.headers for one in service.seen)


def test_an_account_that_may_read_nothing_is_refused(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    for place in ("ThermalEquipment", "Chassis"):
        service.break_(place, Fault(status=403))
    assert no_answer(bench, service) == (DeviceState.REFUSED, f"'{USER}' may not read its resources")


def test_neither_password_nor_token_is_ever_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    good, bad = bench.service(cdu_tree()), bench.service(pdu_tree())
    bad.password = NEW_PASSWORD
    source = bench.source(bench.device(good, "good"), bench.device(bad, "bad"))
    shown = bench.read(source)
    told = [repr(source.devices()), repr(source.remarks()), repr(shown.readings), repr(source.inventory()), caplog.text]
    told += [repr(vars(record)) for record in caplog.records if not record.name.startswith("urllib3")]
    assert not any(secret in one for one in told for secret in (PASSWORD, "token-1"))


# Trust ----------------------------------------------------------------------------------------------------------------


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    state, why = no_answer(bench, service, ca_file="")
    assert state is DeviceState.UNTRUSTED
    assert why.endswith("give ca_file or fingerprint_sha256")
    assert service.seen == []  # not even a request went there


def test_a_certificate_for_another_name_is_not_trusted(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    state, _ = no_answer(bench, service, url=f"https://localhost:{service.port}")
    assert state is DeviceState.UNTRUSTED
    assert service.seen == []


def test_a_pinned_certificate_is_trusted_and_no_other(bench: Bench, certificates: Certificates) -> None:
    service = bench.service(cdu_tree())
    pinned = bench.device(service, fingerprint_sha256=certificates.fingerprint.upper())
    assert bench.read(bench.source(pinned)).cdu()
    service.seen.clear()
    state, why = no_answer(bench, service, fingerprint_sha256="ab" * 32)
    assert (state, why) == (DeviceState.UNTRUSTED, "its certificate is not the one of fingerprint_sha256")
    assert service.seen == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_read_is_named(bench: Bench, content: str | None) -> None:
    file = bench.directory / "authorities.pem"
    if content is not None:
        file.write_text(content)
    state, why = no_answer(bench, bench.service(cdu_tree()), ca_file=str(file))
    assert state is DeviceState.UNTRUSTED
    assert why.startswith(f"ca_file {file} cannot be read: ")


# Devices that answer slowly, wrongly or not at all --------------------------------------------------------------------

ELSEWHERE = "https://203.0.113.7/redfish/v1"  # RFC 5737: nobody's address


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault(body=b"<html>It works!</html>"), DeviceState.NONSENSE),
        (Fault(body=b'{"Chassis": {"@odata.id": "/redf'), DeviceState.NONSENSE),
        (Fault(body=b'["not", "an", "object"]'), DeviceState.NONSENSE),
        (Fault(body=b"[" * 200_000), DeviceState.NONSENSE),
        (Fault(body=b'{"a":' * 100_000), DeviceState.NONSENSE),
        (Fault(body=b"\xff\xfe\x00"), DeviceState.NONSENSE),
        (Fault(body=b""), DeviceState.NONSENSE),
        (Fault(body=b"{}", says_bytes=5000), DeviceState.NONSENSE),
        (Fault(body=b" " * 200_000 + b"{}"), DeviceState.NONSENSE),
        (Fault(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}), DeviceState.NONSENSE),
        (Fault(status=500), DeviceState.NONSENSE),
        (Fault(status=503, body=b'{"error": 7}'), DeviceState.NONSENSE),
        (Fault(status=304), DeviceState.NONSENSE),
        (Fault(status=302, headers={"Location": ELSEWHERE}), DeviceState.NONSENSE),
        (Fault(status=302, headers={"Location": "//203.0.113.7/redfish/v1"}), DeviceState.NONSENSE),
        (Fault(status=302, headers={"Location": "http://[broken"}), DeviceState.NONSENSE),
        (Fault(status=302, headers={"Location": "/login.html"}), DeviceState.NONSENSE),
        (Fault(status=301, headers={"Location": "/redfish/v1/ThermalEquipment"}), DeviceState.NONSENSE),
        (Fault(status=301), DeviceState.NONSENSE),
        (Fault(hangs_up=True), DeviceState.UNREACHABLE),
        (Fault(hangs=True), DeviceState.SLOW),
        (Fault(body=b'{"Chassis": {}}', drip_s=0.1), DeviceState.SLOW),
    ],
)
def test_rubbish_is_judged_and_costs_no_more_than_its_device(bench: Bench, fault: Fault, state: DeviceState) -> None:
    """The one document that everything depends on is bad."""
    bad, good = bench.service(cdu_tree()), bench.service(pdu_tree())
    bad.break_("ThermalEquipment", fault)
    del bad.documents[ROOT]["Chassis"]
    source = bench.source(
        bench.device(bad, "bad"),
        bench.device(good, "good"),
        deadline_s=2.0,
        request_timeout_s=0.6,
        max_reply_bytes=131_072,
    )
    shown = bench.read(source)
    report = report_of(source, "bad")
    assert report.state is state
    assert len(report.why) < 200
    assert not report.why.startswith("no answer within")  # it was given up before the pool's deadline
    assert shown.row(POWER, ResourceKind.METER, "Plugs/P43/PL-77")["active_power_watts"] == 21_000
    assert report_of(source, "good").state is DeviceState.OK


def test_a_device_that_drips_its_headers_is_cut_off_at_the_deadline(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.faults[ROOT] = Fault(body=b"{}", drip_s=0.2, headers={"X-Padding": "x" * 500})
    state, why = no_answer(bench, service, deadline_s=2.5, request_timeout_s=0.7)
    assert (state, why) == (DeviceState.SLOW, "/redfish/v1/ was not answered in time")


def test_a_bad_document_costs_its_own_values_only(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), deadline_s=5.0, request_timeout_s=0.5)
    whole = bench.read(source).cdu()
    for fault in (Fault(body=b"<html>"), Fault(status=500), Fault(hangs=True), Fault(body=b"{" * 9, drip_s=0.2)):
        service.break_(f"{CDU}/Reservoirs/1", fault)
        expected = {name: value for name, value in whole.items() if name != "reservoir_level_ratio"}
        assert bench.read(source).cdu() == expected
        assert source.remarks()
    service.mend()
    assert bench.read(source).cdu() == whole
    assert source.remarks() == []


def test_nobody_there_is_unreachable(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    state, why = no_answer(bench, service, url=f"https://127.0.0.1:{free_port()}")
    assert (state, why) == (DeviceState.UNREACHABLE, "it cannot be connected to: Connection refused")


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", DeviceState.NONSENSE),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceState.NONSENSE),
        (b"", DeviceState.SLOW),
    ],
)
def test_a_port_that_does_not_speak_tls_is_judged(bench: Bench, answer: bytes, state: DeviceState) -> None:
    service = bench.service(cdu_tree())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def reply() -> None:
            with suppress(OSError):
                client, _ = listener.accept()
                bench.running.callback(client.close)
                client.sendall(answer)

        thread = Thread(target=reply, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        found, _ = no_answer(bench, service, url=url, deadline_s=1.5, request_timeout_s=0.5)
        assert found is state
        thread.join(5)


def test_redirects_are_followed_within_the_service_only(bench: Bench) -> None:
    service, other = bench.service(cdu_tree()), bench.service(cdu_tree())
    service.documents[f"{ROOT}/Moved"] = service.documents[f"{ROOT}/{CDU}/Reservoirs/1"]
    source = bench.source(bench.device(service))
    whole = bench.read(source).cdu()
    for location in ("/redfish/v1/Moved", f"{service.url}/redfish/v1/Moved", "../../../../Moved"):
        service.break_(f"{CDU}/Reservoirs/1", Fault(status=308, headers={"Location": location}))
        assert bench.read(source).cdu() == whole
    for location in (f"{other.url}/redfish/v1/{CDU}/Reservoirs/1", f"http://127.0.0.1:{service.port}/redfish/v1/Moved"):
        service.break_(f"{CDU}/Reservoirs/1", Fault(status=308, headers={"Location": location}))
        assert "reservoir_level_ratio" not in bench.read(source).cdu()
    assert other.seen == []


def test_links_that_lead_out_of_the_service_are_not_followed(bench: Bench) -> None:
    service, other = bench.service(cdu_tree()), bench.service({})
    out = [
        f"{other.url}/redfish/v1/Chassis",
        f"//127.0.0.1:{other.port}/redfish/v1",
        f"@127.0.0.1:{other.port}/redfish/v1",
        f"/redfish/v1@127.0.0.1:{other.port}/x",
        "/redfish/v1/../../admin/reset",
        "/redfish/v1/%2e%2e/admin",
        "/redfish/v1/x?reset=1",
        "/redfish/v1/x\r\nX-Evil: 1",
        "/redfish/v2/x",
        "/redfish/v1/" + "x" * 5000,
        7,
        None,
    ]
    service.documents[f"{ROOT}/{CDU}/Pumps"] = {"Members": [{"@odata.id": one} for one in out]}
    service.documents[ROOT]["Chassis"] = {"@odata.id": out[0]}
    assert bench.read(bench.source(bench.device(service))).cdu()
    assert other.seen == []
    assert all(one.path.startswith("/redfish/v1") and len(one.path) < 200 for one in service.seen)
    assert not any(word in one.path for one in service.seen for word in ("admin", "reset", "Evil"))


def test_a_session_at_another_host_is_not_ended_there(bench: Bench) -> None:
    service, other = bench.service(cdu_tree()), bench.service({})
    document = json.dumps({"@odata.id": f"{other.url}{SESSIONS}/1"}).encode()
    headers = {"X-Auth-Token": "given", "Location": f"{other.url}{SESSIONS}/1"}
    service.sessions["given"] = "somewhere"
    service.faults[SESSIONS] = Fault(status=201, body=document, headers=headers)
    source = bench.source(bench.device(service))
    assert bench.read(source).cdu()
    source.close()
    assert service.methods("DELETE") == []
    assert other.seen == []


# Asking little --------------------------------------------------------------------------------------------------------


def test_a_tick_asks_for_each_document_once(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    bench.read(source)
    service.asked()
    bench.read(source)
    assert sorted(service.asked()) == sorted(PLACES)


def test_between_two_requests_there_is_a_pause(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), pause_s=0.03)
    bench.read(source)
    times = [one.at_s for one in service.seen]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.03


def test_a_document_that_did_not_change_is_not_sent_again(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.tags = True
    source = bench.source(bench.device(service))
    whole = bench.read(source).cdu()
    service.asked()
    assert bench.read(source).cdu() == whole
    assert all("If-None-Match" in one.headers for one in service.methods("GET"))
    service.change(f"{CDU}/Reservoirs/1", FluidLevelPercent={"Reading": 50})
    assert bench.read(source).cdu() == whole | {"reservoir_level_ratio": 0.5}


def test_tags_are_left_alone_where_settings_say_so(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.tags = True
    source = bench.source(bench.device(service, etags="never"))
    bench.read(source)
    bench.read(source)
    assert not any("If-None-Match" in one.headers for one in service.seen)


def test_tags_that_never_change_are_found_out(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    service = bench.service(cdu_tree())
    service.tags = service.stuck_tags = True
    source = bench.source(bench.device(service))
    bench.read(source)
    levels = []
    for tick in range(14):
        service.change(f"{CDU}/Reservoirs/1", FluidLevelPercent={"Reading": 50 + tick})
        levels.append(bench.read(source).cdu()["reservoir_level_ratio"])
    assert levels[-3:] == pytest.approx([0.61, 0.62, 0.63])
    assert [record.getMessage() for record in caplog.records] == ["A device changes documents but not their tags"]


def test_a_service_that_expands_gives_a_collection_in_one_reply(bench: Bench) -> None:
    service = bench.service(cdu_tree(), expands=True)
    source = bench.source(bench.device(service))
    bench.read(source)
    service.asked()
    bench.read(source)
    expanded = "?$expand=.($levels=1)"
    assert sorted(service.asked()) == sorted(
        [
            CDU,
            f"{CDU}/EnvironmentMetrics",
            f"{CDU}/LeakDetection/LeakDetectors{expanded}",
            PRIMARY,
            f"{CDU}/Pumps{expanded}",
            f"{CDU}/Reservoirs/1",
            SECONDARY,
            f"Chassis/cdu/Sensors{expanded}",
        ]
    )


def test_a_service_that_cannot_expand_as_it_says_is_read_one_by_one(bench: Bench) -> None:
    service = bench.service(cdu_tree(), expands=True)
    service.expands = False
    source = bench.source(bench.device(service))
    assert bench.read(source).cdu()["pump_speed_ratio"] == 0.605
    assert bench.read(source).cdu()["pump_speed_ratio"] == 0.605


def test_nothing_is_expanded_where_settings_say_so(bench: Bench) -> None:
    service = bench.service(cdu_tree(), expands=True)
    bench.read(bench.source(bench.device(service, expand="never")))
    assert not any("expand" in one.path for one in service.seen)


def test_a_collection_in_pages_is_read_to_its_end(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    pumps = f"{ROOT}/{CDU}/Pumps"
    first, second = [{"@odata.id": f"{pumps}/{number}"} for number in (1, 2)]
    service.documents[pumps] = {"Members": [first], "Members@odata.nextLink": f"{pumps}/Page2"}
    service.documents[f"{pumps}/Page2"] = {"Members": [second]}
    assert bench.read(bench.source(bench.device(service))).cdu()["pump_speed_ratio"] == 0.605


def test_a_collection_without_an_end_ends(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    pumps = f"{ROOT}/{CDU}/Pumps"
    service.documents[pumps] = {"Members": [], "Members@odata.nextLink": pumps}
    assert "pump_speed_ratio" not in bench.read(bench.source(bench.device(service))).cdu()
    assert len([one for one in service.seen if one.path == pumps]) <= 64


def test_a_device_with_more_than_may_be_read_is_cut_and_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    service = bench.service(cdu_tree())
    for number in range(300):
        service.documents[f"{ROOT}/{CDU}/Pumps/{number}"] = {"PumpSpeedPercent": {"Reading": 10}}
    members: list[Json] = [{"@odata.id": f"{ROOT}/{CDU}/Pumps/{number}"} for number in range(300)]
    service.documents[f"{ROOT}/{CDU}/Pumps"]["Members"] = members
    source = bench.source(bench.device(service), max_resources=40)
    assert bench.read(source).cdu()["primary_supply_temperature_celsius"] == 30.5
    assert len(service.asked()) < 90  # 40 found, among collections, and those 40 read
    assert "A device has more resources than are read" in caplog.text


def test_a_tick_that_is_too_short_reads_in_turns(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), deadline_s=1.0, request_timeout_s=1.0, pause_s=0.1)
    wanted = {"reservoir_level_ratio", "secondary_flow_cubic_metres_per_second", "pump_power_watts"}
    seen: set[str] = set()
    deadline_s = time.monotonic() + 15
    while not wanted <= seen:
        assert time.monotonic() < deadline_s
        row = bench.read(source).cdu()
        assert not wanted <= row.keys()  # a tick has time for four of its nine documents
        seen |= row.keys()
    assert [record.getMessage() for record in caplog.records] == [
        "A device needs more time than a tick has: its readings come in turns"
    ]


def test_discovery_goes_on_over_several_ticks(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), deadline_s=0.9, request_timeout_s=0.5, pause_s=0.05)
    assert bench.read(source).readings == []  # nothing yet, but the device is well
    assert report_of(source).state is DeviceState.OK
    deadline_s = time.monotonic() + 10
    while not bench.read(source).cdu():
        assert time.monotonic() < deadline_s


# What changes ---------------------------------------------------------------------------------------------------------


def test_what_was_added_is_found_at_the_next_discovery(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), rediscover_minutes=10)
    bench.read(source)
    pump = f"{ROOT}/{CDU}/Pumps/3"
    service.documents[pump] = {"PumpSpeedPercent": {"Reading": 80}, "Status": {"State": "Enabled"}}
    members = service.documents[f"{ROOT}/{CDU}/Pumps"]["Members"]
    assert isinstance(members, list)
    members.append({"@odata.id": pump})
    bench.read(source)
    assert bench.read(source).cdu()["pump_speed_ratio"] == 0.605
    bench.clock.advance(600)
    bench.read(source)
    assert bench.read(source).cdu()["pump_speed_ratio"] == 0.8


def test_what_has_gone_is_looked_for_anew_but_not_at_every_tick(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    bench.read(source)
    pumps = service.documents[f"{ROOT}/{CDU}/Pumps"]
    del service.documents[f"{ROOT}/{CDU}/Pumps/2"]
    bench.read(source)
    assert "pump_speed_ratio" not in bench.read(source).cdu()  # one of two was not read
    pumps["Members"] = [{"@odata.id": f"{ROOT}/{CDU}/Pumps/1"}]
    bench.clock.advance(60)
    bench.read(source)
    service.asked()
    assert bench.read(source).cdu()["pump_speed_ratio"] == 0.55
    assert f"{CDU}/Pumps" not in service.asked()


def test_a_discovery_that_could_not_look_everywhere_takes_nothing_away(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), rediscover_minutes=10)
    whole = bench.read(source).cdu()
    service.break_(f"{CDU}/Pumps", Fault(status=503))
    bench.clock.advance(600)
    bench.read(source)  # looks, and does not see the pumps
    assert bench.read(source).cdu() == whole


def test_what_was_gone_while_a_device_started_is_found_soon(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service), rediscover_minutes=1000)
    whole = bench.read(source).cdu()
    cdus = service.documents.pop(f"{ROOT}/ThermalEquipment/CDUs")
    bench.clock.advance(60_000)
    bench.read(source)  # looks, and does not see the CDU
    with suppress(SourceUnavailableError):
        assert bench.read(source).cdu() == {}
    service.documents[f"{ROOT}/ThermalEquipment/CDUs"] = cdus
    rows = []
    for _ in range(30):  # five minutes
        with suppress(SourceUnavailableError):
            rows.append(bench.read(source).cdu())
    assert rows[-1] == whole


def test_a_device_that_restarts_is_read_again(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    whole = bench.read(source).cdu()
    for place in [CDU, *PLACES]:
        service.break_(place, Fault(hangs_up=True))
    with pytest.raises(SourceUnavailableError):
        bench.read(source)
    assert report_of(source).state is DeviceState.UNREACHABLE
    service.mend()
    service.expire()
    assert bench.read(source).cdu() == whole


def test_a_device_that_has_nothing_for_us_says_so(bench: Bench) -> None:
    state, why = no_answer(bench, bench.service({}))
    assert (state, why) == (
        DeviceState.NONSENSE,
        "it has neither cooling or power equipment nor a server's chassis",
    )


# Metric reports -------------------------------------------------------------------------------------------------------

VALUES: dict[str, object] = {
    f"{PRIMARY}#/FlowLitersPerMinute/Reading": "900",
    f"{PRIMARY}#/SupplyTemperatureCelsius/Reading": "30.5",
    f"{PRIMARY}#/ReturnTemperatureCelsius/Reading": "41.25",
    f"{PRIMARY}#/DeltaTemperatureCelsius/Reading": "10.75",
    f"{PRIMARY}#/SupplyPressurekPa/Reading": "310",
    f"{PRIMARY}#/HeatRemovedkW/Reading": "650",
    f"{PRIMARY}#/ValvePositionPercent/Reading": "62.5",
    f"{SECONDARY}/FlowLitersPerMinute/Reading": "1200",
    f"{SECONDARY}/SupplyTemperatureCelsius/Reading": "36",
    f"{SECONDARY}/ReturnTemperatureCelsius/Reading": "44.5",
    f"{SECONDARY}/SupplyPressurekPa/Reading": "250.5",
    f"{SECONDARY}/DeltaPressurekPa/Reading": "120",
    f"{SECONDARY}/HeatRemovedkW/Reading": "655.5",
    f"{CDU}/Pumps/1/PumpSpeedPercent/Reading": "55",
    f"{CDU}/Pumps/2/PumpSpeedPercent/Reading": "60.5",
    f"{CDU}/Reservoirs/1#/FluidLevelPercent/Reading": "87.5",
    f"{CDU}/LeakDetection/LeakDetectors/1#/DetectorState": "OK",
    f"{CDU}/LeakDetection/LeakDetectors/2#/DetectorState": "OK",
    f"{CDU}/EnvironmentMetrics#/PowerWatts/Reading": "8200",
    f"{CDU}/EnvironmentMetrics#/EnergykWh/Reading": "4000.5",
    f"{CDU}/EnvironmentMetrics#/DewPointCelsius/Reading": "9.5",
    f"{CDU}/EnvironmentMetrics#/HumidityPercent/Reading": "41",
    f"{CDU}#/Status/State": "Enabled",
    f"{CDU}#/Status/Health": "OK",
}


class Telemetry:
    """A CDU that offers all that is read of it in one report, made anew at every tick unless it stands still."""

    def __init__(self, bench: Bench, **options: Any) -> None:
        self.bench = bench
        self.service = bench.service(cdu_tree())
        self.values = dict(VALUES)
        self.minute = 0
        self.service.documents[ROOT]["TelemetryService"] = {"@odata.id": f"{ROOT}/TelemetryService"}
        reports = f"{ROOT}/TelemetryService/MetricReports"
        self.service.documents[f"{ROOT}/TelemetryService"] = {"MetricReports": {"@odata.id": reports}}
        self.service.documents[reports] = {"Members": [{"@odata.id": f"{ROOT}/{REPORT}"}]}
        self.renew()
        self.source = bench.source(bench.device(self.service, **options))

    def renew(self) -> None:
        self.minute += 1
        self.service.documents[f"{ROOT}/{REPORT}"] = {
            "@odata.id": f"{ROOT}/{REPORT}",
            "Timestamp": f"2027-01-15T08:{self.minute:02d}:00Z",
            "MetricValues": [
                {"MetricProperty": f"{ROOT}/{name}", "MetricValue": value} for name, value in self.values.items()
            ],
        }

    def tick(self, *, renew: bool = True) -> dict[str, float]:
        if renew:
            self.renew()
        self.service.asked()
        return self.bench.read(self.source).cdu()


def test_a_report_that_has_everything_is_the_only_request_of_a_tick(bench: Bench) -> None:
    plain = bench.read(bench.source(bench.device(bench.service(cdu_tree())))).cdu()
    telemetry = Telemetry(bench)
    assert telemetry.tick() == plain
    telemetry.values[f"{PRIMARY}#/SupplyTemperatureCelsius/Reading"] = "31.75"
    assert telemetry.tick() == plain | {"primary_supply_temperature_celsius": 31.75}
    assert telemetry.service.asked() == [REPORT]


def test_a_report_may_name_the_sensors_behind_the_readings(bench: Bench) -> None:
    telemetry = Telemetry(bench)
    del telemetry.values[f"{PRIMARY}#/FlowLitersPerMinute/Reading"]
    telemetry.values["Chassis/cdu/Sensors/PrimaryFlow"] = "600"
    telemetry.renew()
    telemetry.tick()
    assert telemetry.tick()["primary_flow_cubic_metres_per_second"] == 0.01
    assert telemetry.service.asked() == [REPORT]


def test_what_a_report_lacks_is_asked_for_besides(bench: Bench) -> None:
    telemetry = Telemetry(bench)
    for detector in (1, 2):
        del telemetry.values[f"{CDU}/LeakDetection/LeakDetectors/{detector}#/DetectorState"]
    telemetry.renew()
    telemetry.tick()
    whole = telemetry.tick()
    assert whole["leak_state"] == 1
    assert sorted(telemetry.service.asked()) == sorted(
        [REPORT, f"{CDU}/LeakDetection/LeakDetectors/1", f"{CDU}/LeakDetection/LeakDetectors/2"]
    )


def test_a_leak_in_a_report_is_an_event(bench: Bench) -> None:
    telemetry = Telemetry(bench)
    telemetry.tick()
    telemetry.values[f"{CDU}/LeakDetection/LeakDetectors/1#/DetectorState"] = "Critical"
    assert telemetry.tick()["leak_state"] == 3
    assert [event.text for event in events(telemetry.source)] == ["critical, was dry"]


@pytest.mark.parametrize("value", ["null", None, "", "NaN", "Infinity", "1_0", [1], "9" * 500])
def test_what_is_no_number_in_a_report_is_no_value(bench: Bench, value: object) -> None:
    telemetry = Telemetry(bench)
    telemetry.tick()
    telemetry.values[f"{PRIMARY}#/SupplyTemperatureCelsius/Reading"] = value
    row = telemetry.tick()
    assert "primary_supply_temperature_celsius" not in row
    assert row["primary_return_temperature_celsius"] == 41.25


def test_a_report_that_tells_nothing_new_is_held_and_then_not_believed(bench: Bench) -> None:
    telemetry = Telemetry(bench)
    telemetry.tick()
    assert telemetry.tick()["quality_state"] == Quality.GOOD
    telemetry.service.change(PRIMARY, SupplyTemperatureCelsius={"Reading": 33.5})
    held = [telemetry.tick(renew=False) for _ in range(6)]  # ten seconds apart
    assert {row["quality_state"] for row in held} == {Quality.HELD}
    assert {row["primary_supply_temperature_celsius"] for row in held} == {30.5}
    direct = telemetry.tick(renew=False)  # older than report_age_s
    assert (direct["quality_state"], direct["primary_supply_temperature_celsius"]) == (Quality.GOOD, 33.5)


def test_a_report_that_never_changes_is_never_believed(bench: Bench) -> None:
    telemetry = Telemetry(bench)
    for _ in range(3):
        telemetry.tick(renew=False)
        assert PRIMARY in telemetry.service.asked()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda telemetry: telemetry.service.break_(REPORT, Fault(status=500)),
        lambda telemetry: telemetry.service.break_(REPORT, Fault(body=b"<html>")),
        lambda telemetry: telemetry.service.break_(REPORT, Fault(status=404)),
        lambda telemetry: telemetry.values.pop(f"{CDU}/Pumps/2/PumpSpeedPercent/Reading"),
        lambda telemetry: telemetry.values.clear(),
    ],
)
def test_a_report_that_fails_costs_no_reading(bench: Bench, spoil: Callable[[Telemetry], object]) -> None:
    telemetry = Telemetry(bench)
    whole = telemetry.tick()
    spoil(telemetry)
    assert telemetry.tick() == whole


def test_no_report_is_read_where_settings_say_so(bench: Bench) -> None:
    telemetry = Telemetry(bench, metric_reports="never")
    telemetry.tick()
    assert not any("Telemetry" in one.path for one in telemetry.service.seen)


# All at once ----------------------------------------------------------------------------------------------------------


def test_many_devices_with_few_workers_are_all_read(bench: Bench) -> None:
    services = [bench.service(shelf_tree(f"SH-{number}")) for number in range(12)]
    devices = [bench.device(service, f"shelf-{number}") for number, service in enumerate(services)]
    source = bench.source(*devices, workers=3)
    shown = bench.read(source)
    assert all(shown.row(POWER, ResourceKind.METER, f"SH-{number}") for number in range(12))
    source.close()
    assert all(service.sessions == {} for service in services)


def test_a_source_without_devices_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(SourceUnavailableError, match=r"give some in \[\[redfish.devices\]\]"):
        bench.read(bench.source())


def test_closing_does_not_wait_for_a_device_that_hangs(bench: Bench) -> None:
    service = bench.service(server_tree())
    service.break_("Chassis", Fault(hangs=True))
    source = bench.source(bench.device(service), deadline_s=0.5, request_timeout_s=0.5)
    with suppress(SourceUnavailableError):
        bench.read(source)
    began_s = time.monotonic()
    source.close()
    assert time.monotonic() - began_s < 5


def test_why_something_is_absent_names_the_devices_trouble(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    bench.read(source)
    (cdu,) = [one.resource for one in source.inventory() if one.identity == CDU_IDENTITY]
    metric = COOLING.metric("reservoir_level_ratio")
    assert source.why_absent(cdu, metric) == ""
    service.break_(f"{CDU}/Reservoirs/1", Fault(status=500))
    bench.read(source)
    assert source.why_absent(cdu, metric) == f"/redfish/v1/{CDU}/Reservoirs/1 answers HTTP 500"


def test_a_pdu_that_expands_costs_one_request_for_all_its_outlets(bench: Bench) -> None:
    service = bench.service(pdu_tree(), expands=True)
    outlets = f"{ROOT}/{PDU}/Outlets"
    paths = [f"{outlets}/{number}" for number in range(1, 49)]
    service.documents[outlets]["Members"] = [{"@odata.id": path} for path in paths]
    service.documents |= {path: {"@odata.id": path, "PowerWatts": {"Reading": 5}} for path in paths}
    source = bench.source(bench.device(service, circuits=("Outlets",)))
    bench.read(source)
    service.asked()
    shown = bench.read(source)
    assert all(shown.row(POWER, ResourceKind.METER, f"Plugs/P43/PL-77/Outlets/{one}") for one in range(1, 49))
    assert service.asked() == [f"{PDU}/Metrics", f"{PDU}/Outlets?$expand=.($levels=1)"]
