"""Bursts: an alarm never waits, repetition is one row, and no count is lost."""

import random
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from catalogue import ResourceKind, resource_id
from catalogue.xid import XidClass, judge, xid
from collectors.bursts import OTHERS, BurstRule, Bursts, Occurrence
from collectors.gpu_events import KERNEL, NVML, GpuEvents
from collectors.kernel_log import parse_xid
from stream.messages import EventMessage

START_MS = 1_800_000_000_000
GPU = resource_id(ResourceKind.GPU, "GPU-1")
SOURCE = 7


def xid_95(time_ms: int, detail: str = "", resource: int = GPU) -> Occurrence:
    return Occurrence(resource, time_ms, "xid", 95, xid(95).meaning, detail, "kernel")


class Table:
    """What the table of events holds: a later message replaces one of the same time, resource and id."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int, str], EventMessage] = {}
        self.messages = 0

    def insert(self, messages: Iterable[EventMessage]) -> None:
        for message in messages:
            self.rows[message.time_ms, message.resource, message.id] = message
            self.messages += 1

    @property
    def count(self) -> int:
        return sum(row.count for row in self.rows.values())


def test_the_first_of_a_burst_is_told_at_once() -> None:
    bursts = Bursts(SOURCE)
    bursts.add(xid_95(START_MS, "first"))
    (told,) = bursts.take(START_MS)
    assert (told.kind, told.code, told.count, told.time_ms) == ("xid", 95, 1, START_MS)
    assert (told.resource, told.source, told.text) == (GPU, SOURCE, "Uncontained memory error")
    assert told.attributes == {"detail": "first", "witnesses": "kernel"}
    assert bursts.take(START_MS + 1000) == []


def test_repetitions_are_told_under_the_same_id_and_time() -> None:
    bursts, table = Bursts(SOURCE), Table()
    for second in range(60):
        bursts.add(xid_95(START_MS + second * 1000))
        table.insert(bursts.take(START_MS + second * 1000))
    (row,) = table.rows.values()
    assert table.messages == 6  # at once, and every ten seconds
    assert 51 <= row.count <= 60
    table.insert(bursts.take(START_MS + 120_000))
    (row,) = table.rows.values()
    assert row.count == 60
    assert row.attributes["last_time_ms"] == str(START_MS + 59_000)


def test_three_minutes_of_silence_end_a_burst() -> None:
    bursts, table = Bursts(SOURCE), Table()
    for time_ms in (START_MS, START_MS + 179_000, START_MS + 179_000 + 180_001):
        bursts.add(xid_95(time_ms))
        table.insert(bursts.take(time_ms))
    bursts.close()
    table.insert(bursts.take(START_MS))
    assert sorted(row.count for row in table.rows.values()) == [1, 2]


def test_kinds_codes_resources_and_details_are_bursts_of_their_own() -> None:
    bursts = Bursts(SOURCE)
    seen = [
        xid_95(START_MS, "a"),
        xid_95(START_MS, "b"),
        xid_95(START_MS, "a", resource=GPU + 1),
        Occurrence(GPU, START_MS, "xid", 94, detail="a"),
        Occurrence(GPU, START_MS, "poison", 95, detail="a"),
    ]
    for occurrence in seen * 3:
        bursts.add(occurrence)
    told = bursts.take(START_MS)
    assert [message.count for message in told] == [3] * 5
    assert len({message.id for message in told}) == 5


def test_800_000_lines_with_29_distinct_entries_are_29_bursts() -> None:
    entries = [f"pid={1000 + n}, name=python, Uncontained: LTC TAG (0x{n:x},0x{n * 3:x})" for n in range(29)]
    lines = [f"[{n}.000001] NVRM: Xid (PCI:0000:1a:00): 95, {entry}" for n, entry in enumerate(entries)]
    shuffled = random.Random(3)  # noqa: S311 - an order, not a secret
    bursts, table = Bursts(SOURCE), Table()
    events = GpuEvents(bursts)
    halfway_s, began_s = 0.0, time.process_time()
    for step in range(800):
        now_ms = START_MS + step * 1000
        if step == 400:
            halfway_s = time.process_time() - began_s
        for number in shuffled.choices(range(29), k=1000):
            line = parse_xid(lines[number], now_ms)
            assert line is not None
            events.see_xid(GPU, line.number, line.time_ms, witness=KERNEL, detail=line.detail)
        table.insert(bursts.take(now_ms))
    bursts.close()
    table.insert(bursts.take(now_ms))
    assert time.process_time() - began_s < 4 * halfway_s  # a line costs no more, however many came before
    assert len(table.rows) == 29
    assert {row.attributes["detail"] for row in table.rows.values()} == set(entries)
    assert table.count == 800_000
    assert table.messages < 29 * 85  # one each ten seconds


def test_a_flood_needs_no_memory_for_each_event() -> None:
    bursts = Bursts(SOURCE)
    events = GpuEvents(bursts)

    def flood(first: int) -> None:
        for n in range(first, first + 20_000):
            time_ms = START_MS + n
            events.see_xid(GPU, 95, time_ms, witness=KERNEL, detail=f"entry {n % 29}")
            if n % 1000 == 0:
                bursts.take(time_ms)

    flood(0)
    tracemalloc.start()
    flood(20_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500_000


def test_672_cleanups_on_three_healthy_nodes_are_information() -> None:
    table = Table()
    for node in range(3):
        bursts = Bursts(SOURCE + node)
        events = GpuEvents(bursts)
        gpus = [resource_id(ResourceKind.GPU, f"GPU-{node}-{index}") for index in range(8)]
        for n in range(224):  # over three hours
            now_ms = START_MS + n * 48_000
            events.see_xid(gpus[n % 8], 45, now_ms, witness=NVML)
            events.see_xid(gpus[n % 8], 45, now_ms + 3, witness=KERNEL, detail="Preemptive Channel Removal")
            table.insert(bursts.take(now_ms))
        bursts.close()
        table.insert(bursts.take(now_ms))
    assert {row.attributes["class"] for row in table.rows.values()} == {"info"}
    assert {row.attributes["witnesses"] for row in table.rows.values()} == {"nvml,kernel"}
    assert table.count == 672


def test_more_details_than_can_be_told_apart_are_counted_together() -> None:
    bursts, table = Bursts(SOURCE, BurstRule(max_details=4)), Table()
    for n in range(1000):
        bursts.add(xid_95(START_MS + n, f"entry {n}"))
    table.insert(bursts.take(START_MS + 1000))
    assert len(table.rows) == 5
    assert {row.count for row in table.rows.values() if row.attributes["detail"] == OTHERS} == {996}
    assert table.count == 1000


def test_more_bursts_than_there_is_room_for_close_the_oldest() -> None:
    bursts, table = Bursts(SOURCE, BurstRule(max_open=10)), Table()
    for n in range(300):
        bursts.add(Occurrence(GPU, START_MS, "xid", n % 30))
    bursts.close()
    table.insert(bursts.take(START_MS))
    assert table.count == 300


def test_a_burst_that_is_over_is_forgotten() -> None:
    bursts = Bursts(SOURCE)
    bursts.add(xid_95(START_MS))
    bursts.take(START_MS)
    assert bursts.take(START_MS + 200_000) == []
    bursts.add(xid_95(START_MS + 300_000))
    (told,) = bursts.take(START_MS + 300_000)
    assert (told.time_ms, told.count) == (START_MS + 300_000, 1)


# Witnesses -----------------------------------------------------------------------------------------------------------


def test_what_both_saw_is_one_event() -> None:
    for first, second in ((NVML, KERNEL), (KERNEL, NVML)):
        bursts, table = Bursts(SOURCE), Table()
        events = GpuEvents(bursts)
        details = {NVML: "", KERNEL: "GPU has fallen off the bus."}
        events.see_xid(GPU, 79, START_MS, witness=first, detail=details[first])
        table.insert(bursts.take(START_MS))
        events.see_xid(GPU, 79, START_MS + 2000, witness=second, detail=details[second])
        table.insert(bursts.take(START_MS + 10_000))
        (row,) = table.rows.values()
        assert row.count == 1
        assert row.attributes["witnesses"] == f"{first},{second}"
        assert row.attributes["detail"] == details[KERNEL]


def test_what_one_saw_is_an_event_too() -> None:
    for witness in (NVML, KERNEL):
        bursts = Bursts(SOURCE)
        GpuEvents(bursts).see_xid(GPU, 62, START_MS, witness=witness)
        (told,) = bursts.take(START_MS)
        assert told.attributes["witnesses"] == witness


def test_witnesses_minutes_apart_saw_two_events() -> None:
    bursts, table = Bursts(SOURCE), Table()
    events = GpuEvents(bursts)
    events.see_xid(GPU, 79, START_MS, witness=NVML)
    events.see_xid(GPU, 79, START_MS + 60_000, witness=KERNEL)
    bursts.close()
    table.insert(bursts.take(START_MS + 60_000))
    assert table.count == 2


def test_of_five_in_the_log_and_three_from_nvml_there_were_five() -> None:
    bursts, table = Bursts(SOURCE), Table()
    events = GpuEvents(bursts)
    for n in range(5):
        events.see_xid(GPU, 94, START_MS + n, witness=KERNEL, detail="Contained")
    for n in range(3):
        events.see_xid(GPU, 94, START_MS + n, witness=NVML)
    table.insert(bursts.take(START_MS))
    assert table.count == 5


def test_other_gpus_and_numbers_do_not_witness_for_each_other() -> None:
    bursts, table = Bursts(SOURCE), Table()
    events = GpuEvents(bursts)
    events.see_xid(GPU, 94, START_MS, witness=NVML)
    events.see_xid(GPU, 95, START_MS, witness=KERNEL)
    events.see_xid(GPU + 1, 94, START_MS, witness=KERNEL)
    table.insert(bursts.take(START_MS))
    assert len(table.rows) == table.count == 3


def test_the_kernels_words_decide_the_class_whoever_came_first() -> None:
    nonfatal = "NETIR_BER_EVENT Nonfatal XC0 i0 Link 01 (0x00082226)"
    for order in ((NVML, KERNEL), (KERNEL, NVML)):
        bursts = Bursts(SOURCE)
        events = GpuEvents(bursts)
        for witness in order:
            events.see_xid(GPU, 149, START_MS, witness=witness, detail=nonfatal if witness == KERNEL else "")
        (told,) = bursts.take(START_MS)
        assert told.attributes["class"] == "ticket"


def test_what_nobody_confirmed_in_time_is_not_kept() -> None:
    bursts, table = Bursts(SOURCE), Table()
    events = GpuEvents(bursts)
    events.see_xid(GPU, 79, START_MS, witness=NVML)
    events.forget(START_MS + 60_000)
    events.see_xid(GPU, 79, START_MS + 1000, witness=KERNEL)
    table.insert(bursts.take(START_MS))
    assert table.count == 2


def test_facts_of_the_number_are_with_the_event() -> None:
    bursts = Bursts(SOURCE)
    GpuEvents(bursts).see_xid(GPU, 162, START_MS, witness=NVML, attributes={"pci_bus_id": "00000000:10:00.0"})
    (told,) = bursts.take(START_MS)
    assert told.attributes == {
        "class": "info",
        "action": "not stated",
        "clears": "163",
        "pci_bus_id": "00000000:10:00.0",
        "witnesses": "nvml",
    }
    assert judge(162) is XidClass.INFO


sightings = st.lists(
    st.tuples(
        st.sampled_from([NVML, KERNEL]),
        st.integers(1, 3),
        st.sampled_from(["", "x", "y", "z"]),
        st.integers(0, 400_000),  # since the one before
        st.booleans(),
    ),
    max_size=60,
)


@given(sightings)
def test_no_count_is_lost_whatever_comes(seen: list[tuple[str, int, str, int, bool]]) -> None:
    """Each witness alone saw at most what is counted, and what is counted is at most what both saw."""
    bursts, table = Bursts(SOURCE, BurstRule(max_details=2, max_open=3)), Table()
    events = GpuEvents(bursts)
    by_witness: defaultdict[tuple[int, str], int] = defaultdict(int)
    now_ms = START_MS
    for witness, number, detail, passed_ms, tells in seen:
        now_ms += passed_ms
        events.see_xid(GPU, number, now_ms, witness=witness, detail=detail if witness == KERNEL else "")
        by_witness[number, witness] += 1
        if tells:
            table.insert(bursts.take(now_ms))
    bursts.close()
    table.insert(bursts.take(now_ms))
    least = sum(max(by_witness[number, NVML], by_witness[number, KERNEL]) for number in (1, 2, 3))
    assert least <= table.count <= len(seen)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 200_000), st.booleans()), max_size=60))
def test_counts_of_final_rows_add_up_to_what_was_seen(seen: list[tuple[str, int, bool]]) -> None:
    bursts, table = Bursts(SOURCE, BurstRule(max_details=3, max_open=2)), Table()
    now_ms = START_MS
    for detail, passed_ms, tells in seen:
        now_ms += passed_ms
        bursts.add(xid_95(now_ms, detail))
        if tells:
            table.insert(bursts.take(now_ms))
    bursts.close()
    table.insert(bursts.take(now_ms))
    assert table.count == len(seen)
