"""Events of GPUs through the stub's event set, with the kernel's log as second witness."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from catalogue import GPU_HEALTH, ResourceKind, resource_id
from collectors.kernel_log import KernelLog
from collectors.nvml.source import REWATCH_S, NvmlSource
from collectors.source import SourceUnavailableError
from collectors.tray import TrayPlace
from stream.messages import EventMessage
from tests.servers.nvml_stub import NvmlStub, Profile, nvml_stub

START_S = 1_800_000_000
PATIENT_S = 10.0
HASTY_S = 0.3
XID, MIG, STORM, RETIRED, RETIREMENT_FAILED, POISON, FATAL_POISON, UNAVAILABLE, RECOVERY = (
    0x8, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000,
)  # fmt: skip
WAITED_S = 5.0
THREAD = "nvml-events"


class Node:
    """A source over a stub and a file as kernel log, and the clock of both."""

    def __init__(self, stub: NvmlStub, log: Path, *, deadline_s: float = PATIENT_S) -> None:
        self.stub = stub
        self.log = log
        self.now_s = float(START_S)
        self.source = NvmlSource(
            machine=TrayPlace("0123456789abcdef", "node-7"),
            deadline_s=deadline_s,
            booted=lambda: "boot 1",
            clock=lambda: self.now_s,
            kernel_log=KernelLog(log, clock=lambda: self.now_s),
        )

    def tick(self, seconds: int = 1) -> None:
        self.now_s += seconds
        self.stub.set_clock(self.stub.clock_ms + seconds * 1003)
        self.source.read(int(self.now_s))

    def tell_kernel(self, gpu: int, number: int, detail: str) -> None:
        with self.log.open("a") as log:
            log.write(f"NVRM: Xid (PCI:0000:{0x10 + gpu:02x}:00): {number}, {detail}\n")

    def taken(self) -> None:
        """Wait until the event set's thread has everything that was told."""
        until = time.monotonic() + WAITED_S
        while self.stub.untaken_events():
            assert time.monotonic() < until, "the event set's thread does not take its events"
            time.sleep(0.005)
        time.sleep(0.02)  # from the library to the source's queue

    def events(self) -> Sequence[EventMessage]:
        self.taken()
        return [event for event in self.source.events() if isinstance(event, EventMessage)]

    def resource(self, gpu: int) -> int:
        return resource_id(ResourceKind.GPU, self.stub.uuid(gpu))


StartNode = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartNode]:
    """Starts a node of a profile, after its first tick; it is closed after the test."""
    with ExitStack() as running:

        def start_node(profile: Profile = Profile.GB300, *, deadline_s: float = PATIENT_S) -> Node:
            log = tmp_path / "kernel-log"
            log.touch()
            stub = running.enter_context(nvml_stub(tmp_path, profile))
            node = Node(stub, log, deadline_s=deadline_s)
            running.callback(node.source.close)
            node.tick()
            return node

        yield start_node


def waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


# XIDs ----------------------------------------------------------------------------------------------------------------


def test_an_xid_is_an_event_of_its_gpu(start: StartNode) -> None:
    node = start()
    node.stub.tell(2, XID, 79)
    (event,) = node.events()
    assert (event.kind, event.code, event.resource, event.count) == ("xid", 79, node.resource(2), 1)
    assert event.time_ms == node.now_s * 1000
    assert event.text == "GPU fell off the bus"
    assert event.attributes == {
        "class": "page",
        "action": "restart the node",
        "pci_bus_id": "00000000:12:00.0",
        "witnesses": "nvml",
    }
    assert node.events() == []


def test_an_xid_of_an_instance_names_it(start: StartNode) -> None:
    node = start(Profile.H100)
    node.stub.enable_mig(1)
    node.stub.tell(1, XID, 31, gpu_instance=3)
    (event,) = node.events()
    assert event.resource == node.resource(1)
    assert event.attributes["gpu_instance"] == "3"
    assert "compute_instance" not in event.attributes


@pytest.mark.parametrize("number", [185, 999, 1 << 40])
def test_an_unknown_xid_is_a_ticket_and_not_dropped(start: StartNode, number: int) -> None:
    node = start()
    node.stub.tell(0, XID, number)
    (event,) = node.events()
    assert event.attributes["class"] == "ticket"
    assert event.code == min(number, (1 << 31) - 1)


def test_equal_xids_in_a_row_are_told_apart_by_their_count(start: StartNode) -> None:
    node = start()
    for _ in range(5):
        node.stub.tell(0, XID, 95)
    node.stub.tell(1, XID, 95)
    assert {event.resource: event.count for event in node.events()} == {node.resource(0): 5, node.resource(1): 1}


def test_both_witnesses_of_one_xid_are_one_event(start: StartNode) -> None:
    node = start()
    node.stub.tell(3, XID, 48)
    node.tell_kernel(3, 48, "pid=1896, name=python3, DBE (double bit error) at partition 3")
    (event,) = node.events()
    assert event.count == 1
    assert event.attributes["witnesses"] == "kernel,nvml"
    assert event.attributes["detail"] == "pid=1896, name=python3, DBE (double bit error) at partition 3"


def test_a_witness_that_comes_a_tick_later_confirms_the_same_event(start: StartNode) -> None:
    node = start()
    node.stub.tell(3, XID, 48)
    (first,) = node.events()
    node.tick()
    node.tell_kernel(3, 48, "DBE")
    node.events()
    node.tick(seconds=10)
    (second,) = node.events()
    assert (second.id, second.time_ms, second.resource) == (first.id, first.time_ms, first.resource)
    assert (second.count, second.attributes["witnesses"]) == (1, "nvml,kernel")


def test_an_xid_that_only_the_kernel_told_is_an_event_too(start: StartNode) -> None:
    node = start()
    node.tell_kernel(1, 62, "PMU HALT")
    (event,) = node.events()
    assert (event.code, event.resource, event.attributes["witnesses"]) == (62, node.resource(1), "kernel")


def test_a_line_about_a_gpu_that_nobody_knows_is_the_trays(start: StartNode) -> None:
    node = start()
    node.tell_kernel(0x60, 79, "GPU has fallen off the bus.")
    (event,) = node.events()
    assert event.resource == node.source.tray().resource
    assert event.attributes["pci_bus_id"] == "0000:70:00"


def test_the_log_is_read_while_nvml_is_down(start: StartNode) -> None:
    node = start()
    node.stub.unload_driver()
    with pytest.raises(SourceUnavailableError):
        node.tick()
    node.tell_kernel(0, 79, "GPU has fallen off the bus.")
    (event,) = node.source.events()
    assert isinstance(event, EventMessage)
    assert (event.code, event.resource) == (79, node.resource(0))


# Other events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event_type", "kind", "event_class"),
    [
        (MIG, "mig_changed", "info"),
        (STORM, "ecc_storm", "ticket"),
        (RETIRED, "memory_retirement", "ticket"),
        (RETIREMENT_FAILED, "memory_retirement_failed", "page"),
        (POISON, "poison", "ticket"),
        (FATAL_POISON, "poison_fatal", "page"),
        (UNAVAILABLE, "gpu_unavailable", "page"),
        (RECOVERY, "recovery_action", "page"),
    ],
)
def test_other_events_are_kinds_of_their_own(start: StartNode, event_type: int, kind: str, event_class: str) -> None:
    node = start()
    node.stub.tell(1, event_type)
    (event,) = node.events()
    assert (event.kind, event.code, event.resource) == (kind, 0, node.resource(1))
    assert event.attributes["class"] == event_class


def test_clocks_and_performance_states_are_not_events(start: StartNode) -> None:
    node = start()
    node.stub.tell(0, 0x10)
    time.sleep(0.15)
    assert node.source.events() == []
    assert node.stub.untaken_events() == 1  # nobody has asked for it


def test_a_changed_recovery_action_is_in_the_health_of_the_next_tick(start: StartNode) -> None:
    node = start()
    node.stub.ask_for_recovery(1, 4)
    node.stub.tell(1, RECOVERY)
    node.events()
    node.now_s += 1
    _, health = node.source.read(int(node.now_s))
    assert health.table is GPU_HEALTH
    assert health.rows["recovery_action_state_raw"].tolist() == [0, 4, 0, 0]


# Faults --------------------------------------------------------------------------------------------------------------


def test_a_lost_gpu_does_not_silence_the_others(start: StartNode) -> None:
    node = start()
    node.stub.lose(0)
    node.tick()
    time.sleep(0.05)
    node.tick(seconds=REWATCH_S)
    node.stub.tell(2, XID, 94)
    (event,) = node.events()
    assert event.resource == node.resource(2)
    assert node.stub.event_sets() == 1


def test_a_lost_gpu_that_came_back_is_heard_again(start: StartNode) -> None:
    node = start()
    node.stub.lose(0)
    node.tick()
    time.sleep(0.05)
    node.tick(seconds=REWATCH_S)
    node.stub.lose(0, lost=False)
    node.tick(seconds=60)
    node.stub.tell(0, XID, 43)
    (event,) = node.events()
    assert event.resource == node.resource(0)


def test_a_gpu_that_hangs_does_not_silence_the_others(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.stub.hang(1)
    node.tick()
    node.stub.tell(2, XID, 94)
    (event,) = node.events()
    assert event.resource == node.resource(2)


def test_a_gpu_that_supports_no_events_is_read_all_the_same(start: StartNode) -> None:
    node = start()
    node.source.close()
    node.stub.take_away(0, "nvmlDeviceGetSupportedEventTypes")
    node.stub.refuse(1, "nvmlDeviceRegisterEvents")
    other = Node(node.stub, node.log)
    other.tick()
    assert other.source.answering() == 4
    other.stub.tell(3, XID, 13)
    (event,) = other.events()
    assert event.resource == other.resource(3)
    other.source.close()


def test_events_go_on_after_nvml_was_started_anew(start: StartNode) -> None:
    node = start()
    node.stub.go_stale()
    node.tick()
    node.tick()
    node.stub.tell(1, XID, 31)
    (event,) = node.events()
    assert event.resource == node.resource(1)
    assert not node.stub.was_misused()


def test_closing_does_not_wait_and_leaves_nothing_behind(start: StartNode) -> None:
    node = start()
    assert len(waiting_threads()) == 1
    began = time.monotonic()
    node.source.close()
    assert time.monotonic() - began < 5
    assert waiting_threads() == []
    assert node.stub.event_sets() == 0
    assert not node.stub.was_misused()


def test_closing_with_a_gpu_that_hangs_keeps_its_event_set(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.stub.hang(0)
    node.tick()
    node.source.close()
    assert waiting_threads() == []
    assert not node.stub.was_misused()


def test_counts_that_were_not_told_come_after_closing(start: StartNode) -> None:
    node = start()
    node.stub.tell(0, XID, 95)
    (first,) = node.events()
    for _ in range(6):
        node.stub.tell(0, XID, 95)
    assert node.events() == []  # less than ten seconds after the first
    node.source.close()
    (last,) = node.source.events()
    assert isinstance(last, EventMessage)
    assert (last.id, last.count) == (first.id, 7)
    assert node.source.events() == []


def test_the_source_works_without_a_kernel_log_it_may_read(start: StartNode, tmp_path: Path) -> None:
    node = start()
    node.source.close()
    other = Node(node.stub, tmp_path / "missing" / "kmsg")
    other.tick()
    other.stub.tell(0, XID, 13)
    (event,) = other.events()
    assert event.attributes["witnesses"] == "nvml"
    other.source.close()
