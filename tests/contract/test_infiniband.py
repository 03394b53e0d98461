"""The InfiniBand source against a tree like the kernel's /sys/class/infiniband, built by each test.

Expected values are written by hand from the tree's numbers, in base units.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from catalogue import PORT, ResourceKind, resource_id
from catalogue.origins import SysfsFile
from collectors.infiniband import COUNTERS, SATURATING_BITS, InfinibandSource
from collectors.source import SourceUnavailableError
from collectors.tray import TrayPlace
from stream.messages import EventMessage
from stream.rows import Rows, in_base_unit
from tests.servers.notebook import Notebook

START_S = 1_800_000_000
TRAY = TrayPlace("chassis-4/17", "node-7", rack="chassis-4")
FIRST, SECOND = "b83fd20300a11234/1", "b83fd20300a15678/1"
ACTIVE, INITIALISING, DOWN, VANISHED = 1, 4, 5, 6
LINK_UP, POLLING, DISABLED = 1, 4, 7

PORT_FILES = {
    "state": "4: ACTIVE",
    "phys_state": "5: LinkUp",
    "rate": "400 Gb/sec (4X NDR)",
    "link_layer": "InfiniBand",
    "counters/symbol_error": "3",
    "counters/link_error_recovery": "0",
    "counters/link_downed": "1",
    "counters/port_rcv_errors": "10",
    "counters/port_rcv_remote_physical_errors": "2",
    "counters/port_xmit_discards": "500",
    "counters/local_link_integrity_errors": "0",
    "counters/excessive_buffer_overrun_errors": "0",
    "counters/VL15_dropped": "4",
    "counters/port_xmit_data": "1000000000000",
    "counters/port_rcv_data": "18446744073709550000",
    "counters/port_xmit_packets": "4000",
    "counters/port_rcv_packets": "5000",
    "counters/port_xmit_wait": "77",
    "hw_counters/out_of_sequence": "6",
    "hw_counters/packet_seq_err": "7",
    "hw_counters/local_ack_timeout_err": "8",
}
DEVICE_FILES = {"node_guid": "", "hca_type": "MT4129", "board_id": "MT_0000000838", "fw_ver": "28.39.1002"}


class Tree:
    """/sys/class/infiniband of a node; a test writes into it what the kernel would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def add(self, device: str, guid: str, *, port: int = 1, **files: str) -> None:
        for name, text in DEVICE_FILES.items():
            self.write(f"{device}/{name}", guid if name == "node_guid" else text)
        for name, text in {**PORT_FILES, **files}.items():
            self.write(f"{device}/ports/{port}/{name}", text)
        pci = self.root.parent / "devices" / f"0000:{device[-1]}7:00.0"
        pci.mkdir(parents=True, exist_ok=True)
        if not (self.root / device / "device").is_symlink():
            (self.root / device / "device").symlink_to(pci)

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def count(self, device: str, amounts: Mapping[str, int]) -> None:
        """Add to counters of port 1."""
        for name, amount in amounts.items():
            file = self.root / device / "ports/1" / name
            file.write_text(f"{int(file.read_text()) + amount}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Two adapters with an active port each."""
    found = Tree(tmp_path / "infiniband")
    found.add("mlx5_0", "b83f:d203:00a1:1234")
    found.add("mlx5_1", "b83f:d203:00a1:5678")
    return found


def source_on(tree: Tree, *, counters: Notebook | None = None, boot: str = "boot 1") -> InfinibandSource:
    return InfinibandSource(devices=tree.root, tray=TRAY, counters=counters, booted=lambda: boot, clock=lambda: START_S)


def read(source: InfinibandSource, seconds: int = 0) -> Rows:
    (reading,) = source.read(START_S + seconds)
    assert reading.table is PORT
    assert set(reading.rows["time"]) == {START_S + seconds}
    return reading.rows


def values_of(rows: Rows, identity: str) -> dict[str, float]:
    """What is not absent in a port's row, in base units."""
    row = rows[rows["resource"] == resource_id(ResourceKind.PORT, identity)]
    assert row.size == 1
    values = {metric.name: float(in_base_unit(metric, row)[0]) for metric in PORT.metrics}
    return {name: value for name, value in values.items() if not math.isnan(value)}


STATE = {"port_state": ACTIVE, "physical_state": LINK_UP, "rate_bytes_per_second": 50e9}


def test_every_value_is_in_its_base_unit(tree: Tree) -> None:
    source = source_on(tree)
    assert values_of(read(source), FIRST) == STATE
    tree.count(
        "mlx5_0",
        {
            "counters/symbol_error": 11,
            "counters/link_error_recovery": 2,
            "counters/link_downed": 1,
            "counters/port_rcv_errors": 4,
            "counters/port_rcv_remote_physical_errors": 5,
            "counters/port_xmit_discards": 6,
            "counters/local_link_integrity_errors": 7,
            "counters/excessive_buffer_overrun_errors": 8,
            "counters/VL15_dropped": 9,
            "counters/port_xmit_data": 125_000_000_000,
            "counters/port_rcv_data": 250,
            "counters/port_xmit_packets": 400,
            "counters/port_rcv_packets": 300,
            "counters/port_xmit_wait": 1_000_000,
            "hw_counters/out_of_sequence": 12,
            "hw_counters/packet_seq_err": 13,
            "hw_counters/local_ack_timeout_err": 14,
        },
    )
    rows = read(source, 10)
    assert values_of(rows, FIRST) == STATE | {
        "symbol_error_count": 11,
        "link_error_recovery_count": 2,
        "link_downed_count": 1,
        "receive_error_count": 4,
        "receive_remote_error_count": 5,
        "transmit_discard_count": 6,
        "local_link_integrity_error_count": 7,
        "excessive_buffer_overrun_count": 8,
        "vl15_dropped_count": 9,
        "transmit_bytes": 500e9,  # four bytes a word
        "receive_bytes": 1000,
        "transmit_packet_count": 400,
        "receive_packet_count": 300,
        "transmit_wait_count": 1_000_000,
        "out_of_sequence_count": 12,
        "packet_sequence_error_count": 13,
        "acknowledge_timeout_count": 14,
    }
    still = values_of(rows, SECOND)
    assert set(still) == {metric.name for metric in PORT.metrics}
    assert not any(value for name, value in still.items() if name not in STATE)


def test_every_file_of_the_catalogue_is_read() -> None:
    files = {origin.path for metric in PORT.metrics for origin in metric.origins if isinstance(origin, SysfsFile)}
    assert files == PORT_FILES.keys() - {"link_layer"}
    assert COUNTERS.keys() == files - {"state", "phys_state", "rate"}
    assert SATURATING_BITS.keys() == {file for file in COUNTERS if file.startswith("counters/")}


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("2.5 Gb/sec (1X SDR)", 312.5e6),
        ("14 Gb/sec (1X FDR)", 1.75e9),
        ("56 Gb/sec (4X FDR)", 7e9),
        ("800 Gb/sec (4X XDR)", 100e9),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_rate_is_in_bytes(tree: Tree, text: str, rate: float | None) -> None:
    tree.write("mlx5_0/ports/1/rate", text)
    assert values_of(read(source_on(tree)), FIRST).get("rate_bytes_per_second") == rate


@pytest.mark.parametrize(
    ("state", "physical", "expected"),
    [
        ("1: DOWN", "3: Disabled", (DOWN, DISABLED)),
        ("1: DOWN", "2: Polling", (DOWN, POLLING)),
        ("2: INIT", "5: LinkUp", (INITIALISING, LINK_UP)),
        ("3: ARMED", "5: LinkUp", (3, LINK_UP)),
        ("5: ACTIVE_DEFER", "6: LinkErrorRecovery", (2, 2)),
        ("0: NOP", "0: <unknown>", (None, None)),
    ],
)
def test_a_port_that_is_not_active_says_how_and_has_no_rate(
    tree: Tree, state: str, physical: str, expected: tuple[int | None, int | None]
) -> None:
    tree.write("mlx5_0/ports/1/state", state)
    tree.write("mlx5_0/ports/1/phys_state", physical)
    tree.write("mlx5_0/ports/1/rate", "10 Gb/sec (4X SDR)")
    values = values_of(read(source_on(tree)), FIRST)
    assert (values.get("port_state"), values.get("physical_state")) == expected
    assert "rate_bytes_per_second" not in values


@pytest.mark.parametrize("text", [None, "N/A (no PMA)", "", "-1", "١٢"])
def test_a_counter_that_is_missing_or_none_is_absent_and_the_others_are_there(tree: Tree, text: str | None) -> None:
    source = source_on(tree)
    file = tree.root / "mlx5_0/ports/1/counters/symbol_error"
    file.unlink()
    if text is not None:
        file.write_text(f"{text}\n")
    read(source)
    values = values_of(read(source, 10), FIRST)
    assert "symbol_error_count" not in values
    assert values["link_downed_count"] == 0


def test_a_port_without_counters_still_has_its_state(tree: Tree) -> None:
    shutil.rmtree(tree.root / "mlx5_0/ports/1/counters")
    shutil.rmtree(tree.root / "mlx5_0/ports/1/hw_counters")
    source = source_on(tree)
    read(source)
    assert values_of(read(source, 10), FIRST) == STATE


# Counters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "metric", "full"),
    [
        ("local_link_integrity_errors", "local_link_integrity_error_count", 15),
        ("link_downed", "link_downed_count", 255),
        ("symbol_error", "symbol_error_count", 65_535),
        ("port_rcv_data", "receive_bytes", 4_294_967_295),
        ("port_xmit_data", "transmit_bytes", 18_446_744_073_709_551_615),
    ],
)
def test_a_counter_at_its_end_is_absent_and_said_once_until_it_is_cleared(
    tree: Tree, caplog: pytest.LogCaptureFixture, file: str, metric: str, full: int
) -> None:
    source = source_on(tree)
    name = f"mlx5_0/ports/1/counters/{file}"
    seen = []
    for seconds, number in enumerate([full - 9, full - 1, full, full, 0, 2, full, full]):
        tree.write(name, str(number))
        seen.append(values_of(read(source, seconds), FIRST).get(metric))
    scale = 4 if metric.endswith("bytes") else 1
    assert seen == [None, 8 * scale, None, None, None, 2 * scale, None, None]
    assert [record.getMessage() for record in caplog.records] == [
        "A port's counter is at its end and counts no more: clear it with perfquery -R"
    ] * 2
    assert vars(caplog.records[0])["port"] == FIRST


def test_a_wider_register_than_the_legacy_one_counts_on(tree: Tree) -> None:
    source = source_on(tree)
    seen = []
    for seconds, number in enumerate([254, 255, 256, 300]):
        tree.write("mlx5_0/ports/1/counters/link_downed", str(number))
        seen.append(values_of(read(source, seconds), FIRST).get("link_downed_count"))
    assert seen == [None, None, 2, 44]


def test_a_counter_that_was_cleared_has_no_difference_and_goes_on(tree: Tree) -> None:
    source = source_on(tree)
    seen = []
    for seconds, number in enumerate([5000, 5100, 7, 9]):
        tree.write("mlx5_0/ports/1/counters/port_xmit_discards", str(number))
        seen.append(values_of(read(source, seconds), FIRST).get("transmit_discard_count"))
    assert seen == [None, 100, None, 2]


def test_more_data_than_a_port_can_carry_is_no_reading(tree: Tree) -> None:
    source = source_on(tree)
    read(source)
    tree.count("mlx5_0", {"counters/port_xmit_data": 10**15, "counters/port_xmit_packets": 1})
    values = values_of(read(source, 10), FIRST)
    assert "transmit_bytes" not in values
    assert values["transmit_packet_count"] == 1


def test_traffic_over_a_restart_of_the_agent_is_counted_and_over_a_reboot_is_not(tree: Tree) -> None:
    notebook = Notebook()
    read(source_on(tree, counters=notebook))
    tree.count("mlx5_0", {"counters/port_xmit_data": 1000})
    assert values_of(read(source_on(tree, counters=notebook), 60), FIRST)["transmit_bytes"] == 4000
    tree.count("mlx5_0", {"counters/port_xmit_data": 1000})
    assert "transmit_bytes" not in values_of(read(source_on(tree, counters=notebook, boot="boot 2"), 90), FIRST)


# Ports that come and go ----------------------------------------------------------------------------------------------


def events(source: InfinibandSource) -> list[EventMessage]:
    found = [event for event in source.events() if isinstance(event, EventMessage)]
    assert source.events() == []
    return found


def test_a_change_of_state_is_an_event_with_what_it_was(tree: Tree) -> None:
    source = source_on(tree)
    read(source)
    assert events(source) == []
    tree.write("mlx5_0/ports/1/state", "1: DOWN")
    tree.write("mlx5_0/ports/1/phys_state", "2: Polling")
    read(source, 10)
    (down,) = events(source)
    assert (down.kind, down.code, down.time_ms) == ("port_state", DOWN, (START_S + 10) * 1000)
    assert (down.resource, down.text) == (resource_id(ResourceKind.PORT, FIRST), "down, was active")
    assert down.attributes == {
        "device": "mlx5_0",
        "port": "1",
        "before": "active",
        "physical_before": "link up",
        "physical": "polling",
    }
    tree.write("mlx5_0/ports/1/state", "4: ACTIVE")
    read(source, 20)
    (up,) = events(source)
    assert (up.code, up.text) == (ACTIVE, "active, was down")
    assert up.id != down.id


def test_a_port_without_a_peer_goes_round_its_physical_states_in_silence(tree: Tree) -> None:
    source = source_on(tree)
    tree.write("mlx5_0/ports/1/state", "1: DOWN")
    for seconds, physical in enumerate(("2: Polling", "4: PortConfigurationTraining", "1: Sleep", "0: ?")):
        tree.write("mlx5_0/ports/1/phys_state", physical)
        read(source, seconds)
    assert events(source) == []


def test_an_adapter_that_vanishes_keeps_its_row_which_says_so(tree: Tree) -> None:
    source = source_on(tree)
    read(source)
    shutil.rmtree(tree.root / "mlx5_0")
    rows = read(source, 10)
    assert values_of(rows, FIRST) == {"port_state": VANISHED}
    assert values_of(rows, SECOND)["port_state"] == ACTIVE
    assert [(event.code, event.text) for event in events(source)] == [(VANISHED, "vanished, was active")]
    shutil.rmtree(tree.root)
    assert values_of(read(source, 20), SECOND) == {"port_state": VANISHED}
    assert [event.text for event in events(source)] == ["vanished, was active"]


def test_an_adapter_that_comes_back_counts_what_it_counted_meanwhile(tree: Tree, tmp_path: Path) -> None:
    source = source_on(tree)
    read(source)
    (tree.root / "mlx5_0").rename(tmp_path / "away")
    read(source, 10)
    (tmp_path / "away").rename(tree.root / "mlx5_0")
    tree.count("mlx5_0", {"counters/port_xmit_packets": 5})
    values = values_of(read(source, 20), FIRST)
    assert (values["port_state"], values["transmit_packet_count"]) == (ACTIVE, 5)


def test_ports_keep_their_identity_when_adapters_are_numbered_anew(tree: Tree) -> None:
    source = source_on(tree)
    read(source)
    (tree.root / "mlx5_0").rename(tree.root / "mlx5_9")
    tree.count("mlx5_9", {"counters/port_xmit_packets": 5})
    assert values_of(read(source, 10), FIRST)["transmit_packet_count"] == 5
    assert events(source) == []


def test_an_adapter_has_several_ports(tree: Tree) -> None:
    tree.add("mlx5_0", "b83f:d203:00a1:1234", port=2, state="1: DOWN")
    rows = read(source_on(tree))
    assert values_of(rows, "b83fd20300a11234/2")["port_state"] == DOWN
    assert values_of(rows, FIRST)["port_state"] == ACTIVE
    assert rows.size == 3


def test_an_adapter_without_a_guid_goes_by_its_name(tree: Tree) -> None:
    tree.add("mlx5_2", "0000:0000:0000:0000")
    tree.add("mlx5_3", "0000:0000:0000:0000")
    rows = read(source_on(tree))
    assert rows.size == 4
    assert values_of(rows, "chassis-4/17/mlx5_2/1") == values_of(rows, "chassis-4/17/mlx5_3/1") == STATE


def test_two_ports_with_one_identity_are_one_row_and_said_once(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    tree.add("mlx5_2", "b83f:d203:00a1:1234", state="1: DOWN")
    source = source_on(tree)
    assert [values_of(read(source, seconds), FIRST)["port_state"] for seconds in (0, 10)] == [ACTIVE, ACTIVE]
    (record,) = caplog.records
    assert (vars(record)["first"], vars(record)["second"]) == ("mlx5_0", "mlx5_2")


def test_inventory_is_the_ports_in_their_tray_and_stays_equal(tree: Tree) -> None:
    source = source_on(tree)
    first, second = source.inventory()
    assert (first.kind, first.identity, first.name) == (ResourceKind.PORT, FIRST, "node-7 mlx5_0/1")
    assert first.resource == resource_id(ResourceKind.PORT, FIRST)
    assert first.parent == second.parent == resource_id(ResourceKind.TRAY, "chassis-4/17")
    assert first.attributes == {
        "device": "mlx5_0",
        "port": "1",
        "node_guid": "b83fd20300a11234",
        "link_layer": "InfiniBand",
        "adapter": "MT4129",
        "board": "MT_0000000838",
        "firmware_version": "28.39.1002",
        "pci_bus_id": "0000:07:00.0",
    }
    read(source)
    assert source.inventory() == [first, second]


def test_a_roce_port_is_a_port(tree: Tree) -> None:
    tree.write("mlx5_1/ports/1/link_layer", "Ethernet")
    source = source_on(tree)
    assert values_of(read(source), SECOND) == STATE
    assert source.inventory()[1].attributes["link_layer"] == "Ethernet"


@pytest.mark.parametrize("made", [False, True])
def test_a_node_without_ports_is_unavailable_and_says_what_to_do(tmp_path: Path, *, made: bool) -> None:
    root = tmp_path / "infiniband"
    if made:
        (root / "mlx5_0").mkdir(parents=True)
    source = InfinibandSource(devices=root, tray=TRAY)
    assert source.inventory() == ()
    with pytest.raises(SourceUnavailableError, match=r"modprobe mlx5_ib.*take the source infiniband out") as raised:
        source.read(START_S)
    assert ("has no ports" if made else "cannot be read (No such file or directory)") in str(raised.value)
    source.close()
    source.close()
