"""The SNMP source against agents that answer late, wrongly or without end.

None of them may kill the source, hold it up for longer than its deadline, fill its memory, or be believed.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pysnmp.proto.api import v2c  # type: ignore[import-untyped]

from catalogue import POWER, ResourceKind
from collectors.devices import DeviceReport, DeviceState
from collectors.snmp.settings import SnmpSettings
from collectors.snmp.source import SnmpSource
from collectors.source import SourceUnavailableError
from stream.clock import SystemClock
from stream.rows import in_base_unit
from tests.servers.snmp_rogue import GET, GET_BULK, SYS_UP_TIME, Answer, Oid, Request, Rogue, rogue_agent, tree

START_S = 1_800_000_000
APC = "1.3.6.1.4.1.318.1.3.4.6"
RPDU2: Oid = (1, 3, 6, 1, 4, 1, 318, 1, 1, 26)
SERIAL, POWER_OF = (*RPDU2, 2, 1, 9, 1), (*RPDU2, 4, 3, 1, 5, 1)
PDU: dict[Oid, Any] = {
    (*RPDU2, 2, 1, 2, 1): 1,
    SERIAL: "ZA1",
    (*RPDU2, 4, 3, 1, 2, 1): 1,
    POWER_OF: 517,
    (*RPDU2, 4, 3, 1, 9, 1): 170_982,
}
HONEST = tree(PDU, object_id=APC)

Serve = Callable[[Answer], Rogue]
Make = Callable[..., SnmpSource]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as running:
        yield lambda answer: running.enter_context(rogue_agent(answer))


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Make]:
    (tmp_path / "community").write_text("correct-horse")
    made = []

    def make(*agents: Rogue, device: dict[str, Any] | None = None, **changes: Any) -> SnmpSource:
        devices = [
            {"name": f"pdu-{number}", "host": "127.0.0.1", "port": agent.port, "credentials": "all"} | (device or {})
            for number, agent in enumerate(agents, start=1)
        ]
        credentials = {"all": {"version": "2c", "community_file": str(tmp_path / "community")}}
        document = {"credentials": credentials, "devices": devices, "timeout_s": 0.4, "retries": 0, "deadline_s": 4}
        made.append(
            SnmpSource(msgspec.convert(document | changes, SnmpSettings), gateway="hall-1", clock=SystemClock())
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def watts_of(source: SnmpSource, seconds: int = 0) -> dict[str, float | None]:
    """The power of each meter, by identity."""
    metric = POWER.metric("active_power_watts")
    rows = [row for reading in source.read(START_S + seconds) if reading.table is POWER for row in reading.rows]
    names = {message.resource: message.identity for message in source.inventory()}
    found = {names[int(row["resource"])]: float(in_base_unit(metric, row)) for row in rows}
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def fails(source: SnmpSource) -> DeviceReport:
    started_s = time.monotonic()
    with pytest.raises(SourceUnavailableError):
        source.read(START_S)
    assert time.monotonic() - started_s < 4.5
    (only,) = source.devices()
    return only


def on(kind: str, answer: Answer, *, otherwise: Answer = HONEST) -> Answer:
    """An agent that is honest but for one kind of request."""
    return lambda request: (answer if request.kind == kind else otherwise)(request)


def readings_differ(change: Callable[[list[tuple[Oid, Any]], Request], Sequence[bytes]]) -> Answer:
    """An agent that answers what is asked at every tick as `change` has it, and is honest before."""

    def answer(request: Request) -> Sequence[bytes]:
        if request.kind == GET and SYS_UP_TIME in request.names and len(request.names) > 1:
            there: dict[Oid, Any] = PDU | {SYS_UP_TIME: v2c.TimeTicks(1000)}
            return change([(name, there[name]) for name in request.names], request)
        return HONEST(request)

    return answer


def test_the_honest_agent_is_read(serve: Serve, source: Make) -> None:
    assert watts_of(source(serve(HONEST))) == {"ZA1": 5170}


# Rubbish -------------------------------------------------------------------------------------------------------------

RUBBISH = {
    "empty": b"",
    "zeros": bytes(100),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "huge": b"\x30\x83\x01\x00\x00" + bytes(40_000),
    "deep": b"\x30\x80" * 5_000,
    "truncated": b"\x30\x82\x01\x00\x02\x01\x01\x04",
    "unknown version": b"\x30\x06\x02\x01\x63\x04\x01x",
    "a long number": b"\x30\x82\x20\x04\x02\x82\x20\x00" + b"\x7f" * 8192,
}


@pytest.mark.parametrize("datagram", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_is_nonsense(serve: Serve, source: Make, datagram: bytes, caplog: pytest.LogCaptureFixture) -> None:
    one = source(serve(lambda _: [datagram] * 3))
    found = fails(one)
    assert found.state is DeviceState.NONSENSE
    assert "sends what fits no question, is no SNMP, or is too large" in found.why
    assert len([record for record in caplog.records if record.levelno > logging.DEBUG]) == 1


def test_damaged_replies_never_get_past_the_device(serve: Serve, source: Make) -> None:
    chance = random.Random(1)  # noqa: S311 - a test's own

    def damaged(request: Request) -> Sequence[bytes]:
        (reply,) = HONEST(request)
        bits = bytearray(reply)
        for _ in range(chance.randint(1, 4)):
            bits[chance.randrange(len(bits))] = chance.randrange(256)
        return [bytes(bits[: chance.randint(1, len(bits))])] if chance.random() < 0.2 else [bytes(bits)]

    agent = serve(damaged)
    for number in range(12):
        one = source(agent, timeout_s=0.1, device={"name": f"pdu-{number}"})
        try:
            one.read(START_S)
        except SourceUnavailableError:
            (found,) = one.devices()
            assert found.state in (DeviceState.NONSENSE, DeviceState.SLOW, DeviceState.UNREACHABLE)
        one.close()


def test_a_device_that_comes_to_its_senses_is_read(serve: Serve, source: Make) -> None:
    agent = serve(lambda _: [b"rubbish"])
    one = source(agent)
    assert fails(one).state is DeviceState.NONSENSE
    agent.answer = HONEST
    assert watts_of(one, 10) == {"ZA1": 5170}


def test_an_answer_from_another_device_is_not_believed(serve: Serve, source: Make) -> None:
    """The engine numbers requests one after the other, so that a device can guess what its neighbour is asked."""
    silent = serve(lambda _: [])

    def forging(request: Request) -> Sequence[bytes]:
        if request.kind == GET_BULK:
            return HONEST(request)
        lie = [(name, 99_999) for name in request.names]
        return [*(request.reply(lie, more_id=off) for off in range(-6, 7) if off), *HONEST(request)]

    liar = serve(forging)
    one = source(liar, silent, timeout_s=1.0)
    assert watts_of(one) == {"ZA1": 5170}
    assert [report.state for report in one.devices()] == [DeviceState.OK, DeviceState.UNREACHABLE]


def test_an_answer_about_other_objects_is_not_believed(serve: Serve, source: Make) -> None:
    def shifted(objects: list[tuple[Oid, Any]], request: Request) -> Sequence[bytes]:
        values = [value for _, value in objects]
        return [request.reply([((*name[:-1], 7), value) for (name, _), value in zip(objects, values, strict=True)])]

    found = fails(source(serve(readings_differ(shifted))))
    assert found.state is DeviceState.NONSENSE
    assert "answers with other objects than those asked for" in found.why


def test_more_objects_than_were_asked_for_are_nonsense(serve: Serve, source: Make) -> None:
    def generous(request: Request) -> Sequence[bytes]:
        return [request.reply([((*RPDU2, 4, 3, 1, 5, row), row) for row in range(1, 200)])]

    found = fails(source(serve(on(GET_BULK, generous))))
    assert found.state is DeviceState.NONSENSE
    assert "answered a walk with 199 objects, not 40" in found.why


def test_numbers_that_are_no_numbers_are_absent(serve: Serve, source: Make) -> None:
    strange: dict[Oid, Any] = {POWER_OF: "NaN", (*RPDU2, 4, 3, 1, 9, 1): v2c.Opaque(b"\x9f\x78\x04\x7f\xc0\x00\x00")}
    agent = serve(HONEST)
    one = source(agent)
    assert watts_of(one) == {"ZA1": 5170}
    agent.answer = tree(PDU | strange, object_id=APC)
    with pytest.raises(SourceUnavailableError):
        one.read(START_S + 10)
    agent.answer = tree(PDU | {POWER_OF: 2**31 - 1}, object_id=APC)  # 21 GW in watts: more than its column holds
    assert watts_of(one, 20) == {"ZA1": None}


def test_hostile_names_are_made_harmless(serve: Serve, source: Make) -> None:
    serial = "ZA\x00\x1b[31m1\r\n{device}%s" + "x" * 500
    one = source(serve(tree(PDU | {SERIAL: serial}, object_id=APC)))
    one.read(START_S)
    (meter,) = (message for message in one.inventory() if message.kind is ResourceKind.METER)
    assert meter.identity == "ZA  [31m1  {device}%s" + "x" * (64 - 21)
    assert msgspec.json.decode(msgspec.json.encode(meter), type=type(meter)) == meter


# Without end ---------------------------------------------------------------------------------------------------------


def test_an_agent_whose_objects_do_not_increase_is_given_up(serve: Serve, source: Make) -> None:
    def circle(request: Request) -> Sequence[bytes]:
        column = request.names[0][:13]
        return [request.reply([((*column, row), row) for row in (1, 2, 1)])]

    agent = serve(on(GET_BULK, circle))
    found = fails(source(agent, device={"values_per_request": 3}))
    assert found.state is DeviceState.NONSENSE
    assert "a walk would never end" in found.why
    assert len(agent.seen) < 20


def test_a_table_without_end_is_given_up(serve: Serve, source: Make) -> None:
    def endless(request: Request) -> Sequence[bytes]:
        rows: list[tuple[Oid, Any]] = []
        for step in range(request.repetitions):
            for name in request.names:
                column, last = name[: len(RPDU2) + 4], name[len(RPDU2) + 4 :]
                rows.append(((*column[:14], (last[0] if last else 0) + step + 1), 1))
        return [request.reply(rows)]

    agent = serve(on(GET_BULK, endless))
    found = fails(source(agent, max_instances=300))
    assert found.state is DeviceState.NONSENSE
    assert "has more than 300 objects" in found.why
    assert len(agent.seen) < 50


def test_a_walk_that_gets_nothing_is_given_up(serve: Serve, source: Make) -> None:
    found = fails(source(serve(on(GET_BULK, lambda request: [request.reply([])]))))
    assert found.state is DeviceState.NONSENSE
    assert "cannot be understood: Empty SNMP response message" in found.why


def test_a_flood_of_answers_is_not_decoded(serve: Serve, source: Make) -> None:
    agent = serve(lambda request: [*[b"\x30\x80" * 20] * 60, *HONEST(request)])
    found = fails(source(agent))
    assert found.state is DeviceState.NONSENSE
    assert "(16 datagrams)" in found.why


# Late ----------------------------------------------------------------------------------------------------------------


def delayed(seconds: float) -> Answer:
    def answer(request: Request) -> Sequence[bytes]:
        time.sleep(seconds)
        return HONEST(request)

    return answer


def test_an_agent_that_answers_too_late_is_slow(serve: Serve, source: Make) -> None:
    agent = serve(HONEST)
    one = source(agent, retries=1)
    assert watts_of(one) == {"ZA1": 5170}
    agent.answer = delayed(1.2)
    found = fails(one)
    assert found.state is DeviceState.SLOW
    assert "was asked 2 times for 0.4 s each and did not answer in time" in found.why


def test_an_agent_that_stops_answering_half_way_is_slow(serve: Serve, source: Make) -> None:
    agent = serve(on(GET_BULK, lambda _: []))
    assert fails(source(agent)).state is DeviceState.SLOW


def test_tables_that_take_longer_than_a_tick_are_learned_over_several(serve: Serve, source: Make) -> None:
    agent = serve(delayed(0.3))
    one = source(agent, timeout_s=1.0, deadline_s=1.5, interval_s=2, device={"values_per_request": 4})
    assert fails(one).state is DeviceState.SLOW
    deadline = time.monotonic() + 10
    asked = 0
    while not asked or len(agent.seen) > asked:  # the walk goes on between the ticks
        assert time.monotonic() < deadline
        asked = len(agent.seen)
        time.sleep(0.8)
    assert watts_of(one, 10) == {"ZA1": 5170}


def test_a_reply_that_is_lost_is_asked_for_again(serve: Serve, source: Make) -> None:
    lost = {1, 3}
    agent = serve(lambda _: [])
    agent.answer = lambda request: [] if len(agent.seen) in lost else HONEST(request)
    assert watts_of(source(agent, retries=1)) == {"ZA1": 5170}


# Errors that agents tell ---------------------------------------------------------------------------------------------


def test_an_agent_with_small_messages_is_asked_for_less_at_once(serve: Serve, source: Make) -> None:
    def small(request: Request) -> Sequence[bytes]:
        return [request.reply([], error=1)] if len(request.names) > 2 else HONEST(request)  # tooBig

    agent = serve(on(GET, small))
    one = source(agent)
    assert watts_of(one) == {"ZA1": 5170}
    agent.seen.clear()
    assert watts_of(one, 10) == {"ZA1": 5170}
    assert max(len(request.names) for request in agent.seen) <= 2  # it is remembered


def test_an_object_that_an_agent_fails_on_is_absent_and_the_others_are_there(serve: Serve, source: Make) -> None:
    energy = (*RPDU2, 4, 3, 1, 9, 1)

    def broken(objects: list[tuple[Oid, Any]], request: Request) -> Sequence[bytes]:
        names = [name for name, _ in objects]
        if energy in names:
            return [request.reply(objects, error=5, index=names.index(energy) + 1)]  # genErr
        return [request.reply(objects)]

    assert watts_of(source(serve(readings_differ(broken)))) == {"ZA1": 5170}


@pytest.mark.parametrize(
    ("error", "index", "state", "why"),
    [
        (5, 1, DeviceState.NONSENSE, "fails (genErr) on"),
        (5, 0, DeviceState.NONSENSE, "answers with the error-status 5"),
        (16, 0, DeviceState.REFUSED, "lets us in but not read (error-status 16)"),
        (13, 1, DeviceState.NONSENSE, "answers with the error-status 13"),
    ],
)
def test_an_agent_that_only_fails_says_so(
    serve: Serve, source: Make, error: int, index: int, state: DeviceState, why: str
) -> None:
    def failing(request: Request) -> Sequence[bytes]:
        return [request.reply([(name, v2c.Null("")) for name in request.names], error=error, index=index)]

    agent = serve(on(GET_BULK, failing))
    found = fails(source(agent))
    assert found.state is state
    assert why in found.why
    assert len(agent.seen) < 30


def test_an_agent_that_starts_anew_all_the_time_is_nonsense(serve: Serve, source: Make) -> None:
    ticks = iter(range(100_000, 0, -100))

    def restless(objects: list[tuple[Oid, Any]], request: Request) -> Sequence[bytes]:
        return [
            request.reply([(name, v2c.TimeTicks(next(ticks)) if name == SYS_UP_TIME else v) for name, v in objects])
        ]

    agent = serve(readings_differ(restless))
    one = source(agent)
    assert watts_of(one) == {"ZA1": 5170}
    found = fails(one)
    assert found.state is DeviceState.NONSENSE
    assert "starts anew all the time" in found.why
