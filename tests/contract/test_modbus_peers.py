"""The Modbus source against peers that are no good Modbus devices: each has a state, in bounded time and memory."""

import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread

import msgspec
import pytest
import yaml

from collectors.devices import DeviceError, DeviceReport, DeviceState
from collectors.modbus.blocks import Span
from collectors.modbus.connection import MAX_REPLY_BYTES, Connection
from collectors.modbus.settings import ModbusSettings
from collectors.modbus.source import ModbusSource
from collectors.source import SourceUnavailableError
from tests.servers.agent_fakes import START_S, FakeClock
from tests.servers.modbus_rubbish import Answer, Peer, peer, registers, reply

TIMEOUT_S = 0.4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a map is that asks for two registers at 0."""
    points = [{"metric": "power.active_power_watts", "address": 0, "type": "int32", "unit": "W"}]
    document = {"model": "Own", "kind": "meter", "function": 3, "points": points}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


@contextmanager
def reading(other: Peer, folder: Path, clock: FakeClock | None = None) -> Iterator[ModbusSource]:
    device = {"name": "device 1", "host": "127.0.0.1", "port": other.port, "map": "own", "identity": "own 1"}
    given = {"timeout_s": TIMEOUT_S, "deadline_s": 2.0, "maps": str(folder), "devices": [device]}
    settings = msgspec.convert(given, ModbusSettings)
    with closing(ModbusSource(settings, gateway="gateway 7", clock=clock or FakeClock())) as source:
        yield source


def read(source: ModbusSource) -> DeviceReport:
    """The device's report after one more tick."""
    with suppress(SourceUnavailableError):
        source.read(START_S)
    (report,) = source.devices()
    return report


def good(request: bytes) -> list[bytes]:
    return [reply(request, registers(0, 42))]


BAD: dict[str, tuple[Answer, DeviceState, str]] = {
    "hangs up": (lambda _: None, DeviceState.UNREACHABLE, "connection lost: closed by the device"),
    "says nothing": (lambda _: [], DeviceState.SLOW, "no answer in time"),
    "answers another transaction": (
        lambda request: [reply(request, registers(0, 42), transaction=7777)],
        DeviceState.NONSENSE,
        "13 bytes, but no answer to what was asked; they begin with 1e 61 00 00",
    ),
    "answers transaction 0": (
        lambda request: [reply(request, registers(0, 42), transaction=0)],
        DeviceState.NONSENSE,
        "an answer that is none, beginning with 00 00 00 00",
    ),
    "answers for another unit": (
        lambda request: [reply(request, registers(0, 42), unit=9)],
        DeviceState.NONSENSE,
        "13 bytes, but no answer",
    ),
    "answers another function": (
        lambda request: [reply(request, registers(0, 42, function=4))],
        DeviceState.NONSENSE,
        "answered with function 4 with 2 values",
    ),
    "answers too few registers": (
        lambda request: [reply(request, registers(42))],
        DeviceState.NONSENSE,
        "function 3 with 1 values",
    ),
    "answers too many registers": (
        lambda request: [reply(request, registers(*range(120)))],
        DeviceState.NONSENSE,
        "function 3 with 120 values",
    ),
    "says more bytes than it sends": (
        lambda request: [reply(request, b"\3\4\0\0")],
        DeviceState.NONSENSE,
        "an answer that is none",
    ),
    "knows a function of its own": (lambda request: [reply(request, b"\x63\1\2")], DeviceState.NONSENSE, "is none"),
    "refuses without saying why": (lambda request: [reply(request, b"\x83")], DeviceState.NONSENSE, "answer"),
    "refuses with a code of its own": (
        lambda request: [reply(request, b"\x83\x63")],
        DeviceState.NONSENSE,
        "exception 99 to function 3, address 0, count 2: which no standard explains",
    ),
    "speaks another protocol": (
        lambda _: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        DeviceState.NONSENSE,
        "28 bytes, but no answer to what was asked; they begin with 48 54 54 50",
    ),
    "announces a frame of 64 KiB": (
        lambda request: [request[:2] + b"\0\0\xff\xff\1\3\4"],
        DeviceState.NONSENSE,
        "9 bytes, but no answer",
    ),
    "never stops": (
        lambda request: [request[:2] + b"\0\0\xff\xff\1" + b"\3" * 1_000_000],
        DeviceState.NONSENSE,
        f"more than {MAX_REPLY_BYTES} bytes",
    ),
    "never stops with frames of others": (
        lambda request: [reply(request, registers(0, 42), transaction=7777) * 10_000],
        DeviceState.NONSENSE,
        f"more than {MAX_REPLY_BYTES} bytes",
    ),
    "sends half and hangs up": (
        lambda request: [reply(request, registers(0, 42))[:9]],
        DeviceState.NONSENSE,
        "9 bytes, but no answer",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_peer_has_a_state_soon_and_is_read_again_when_it_is_good(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer, state, says = BAD[name]
    caplog.set_level(logging.INFO)
    clock = FakeClock()
    with peer(answer) as other, reading(other, folder, clock) as source:
        started_s = time.monotonic()
        for _ in range(2):
            report = read(source)
            assert (report.state, report.device) == (state, "device 1")
            assert re.search(re.escape(says), report.why), report.why
        assert time.monotonic() - started_s < 2 * (2 * TIMEOUT_S + 0.2)
        other.answer = good
        clock.advance(60)  # one that failed twice is left alone for 10 s; the log tells of changes once a minute
        assert read(source).state is DeviceState.OK
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_random_bytes_never_do_more_than_fail() -> None:
    chance = random.Random(4711)  # noqa: S311 - the same rubbish each time
    answers: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        content = chance.randbytes(chance.randrange(1, 40))
        answers.append(reply(request, content) if chance.random() < 0.7 else content)
        return [answers[-1]]

    with peer(answer) as other, closing(Connection("127.0.0.1", other.port, timeout_s=0.02)) as connection:
        for _ in range(200):
            function = chance.randrange(1, 5)
            try:
                found = connection.read(1, Span(function, 0, 3), end_s=time.monotonic() + 5)
            except DeviceError:
                continue
            assert len(found) == 3
    assert len(answers) == 200


def test_a_late_answer_is_not_taken_for_the_next_one(folder: Path) -> None:
    with peer(lambda _: []) as other, reading(other, folder) as source:
        kept: list[bytes] = []

        def late(request: bytes) -> list[bytes]:
            """Answers each request with what the one before should have got."""
            kept.append(reply(request, registers(0, len(kept))))
            return kept[-2:-1]

        other.answer = late
        assert read(source).state is DeviceState.SLOW
        other.answer = lambda request: [*kept, reply(request, registers(0, 42))]
        (reading_,) = source.read(START_S)
        assert list(reading_.rows["active_power_watts_raw"]) == [42]


def test_an_answer_in_small_pieces_is_an_answer(folder: Path) -> None:
    with peer(lambda request: [bytes([one]) for one in reply(request, registers(0, 42))]) as other:
        other.between_s = 0.002
        with reading(other, folder) as source:
            assert read(source).state is DeviceState.OK


def test_an_answer_that_drips_is_given_up_when_its_time_is_over(folder: Path) -> None:
    with peer(lambda request: [bytes([one]) for one in reply(request, registers(0, 42))]) as other:
        other.between_s = 0.3  # 3.9 s in all
        with reading(other, folder) as source:
            started_s = time.monotonic()
            assert read(source).state is DeviceState.NONSENSE
            assert time.monotonic() - started_s < 5 * TIMEOUT_S


def test_a_peer_that_closes_after_every_answer_is_read(folder: Path) -> None:
    """Some devices do; a reading then costs a connection, not a failure."""
    closing_soon: list[bytes] = []

    def once(request: bytes) -> list[bytes] | None:
        if closing_soon:
            closing_soon.clear()
            return None
        closing_soon.append(request)
        return good(request)

    with peer(once) as other, reading(other, folder) as source:
        assert [read(source).state for _ in range(3)] == [DeviceState.OK] * 3
        assert other.connections == 3


@pytest.mark.parametrize("later_s", [0.0, 0.2])  # as soon as the request has come, or amid the wait for its answer
def test_closing_ends_a_read_that_waits(later_s: float) -> None:
    for _ in range(5 if later_s else 100):  # the moment before the wait is short
        failure = failure_of_a_read_closed_amid(later_s)
        assert isinstance(failure, DeviceError), repr(failure)


def failure_of_a_read_closed_amid(later_s: float) -> Exception | None:
    """What a read raises whose connection another thread closes, so long after the request has come."""
    failures: list[Exception] = []

    def close(_request: bytes) -> list[bytes]:
        time.sleep(later_s)
        connection.close()
        return []

    def ask() -> None:
        try:
            connection.read(1, Span(3, 0, 1), end_s=time.monotonic() + 30)
        except Exception as error:  # handed to the test's own thread
            failures.append(error)

    with peer(close) as other:
        connection = Connection("127.0.0.1", other.port, timeout_s=30)
        asking = Thread(target=ask)
        asking.start()
        asking.join(20)
        assert not asking.is_alive()
    return failures[0] if failures else None
