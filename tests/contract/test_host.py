"""The host source: on this very machine, and on machines that a test describes."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from catalogue import TRAY, ResourceKind, resource_id
from collectors.host import HostSource, MachineState, read_machine
from collectors.tray import TrayPlace, boot_id, this_machine
from stream.rows import Rows, in_base_unit
from tests.servers.notebook import Notebook

START_S = 1_800_000_000
MEBIBYTE = 1 << 20
PLACE = TrayPlace("chassis-4/17", "node-7", rack="chassis-4", attributes={"slot": "17"})

STATE = MachineState(
    busy_s=1000.0,
    total_s=4000.0,
    load=1.25,
    memory_used_bytes=300 * MEBIBYTE,
    memory_size_bytes=1000 * MEBIBYTE,
    disk_used_bytes=50 * MEBIBYTE,
    disk_size_bytes=80 * MEBIBYTE,
    disks={"nvme0n1": (1_000, 2_000), "nvme1n1": (10_000, 20_000)},
    links={"eth0": (100, 200, 1), "ib0": (1_000, 2_000, 0)},
    processor_celsius=61.25,
    processes=321,
    processors=144,
    booted_at_s=START_S - 3600.5,
)


class Machine:
    """A machine whose state a test sets."""

    def __init__(self, state: MachineState = STATE) -> None:
        self.state = state

    def observe(self, spool: Path) -> MachineState:  # noqa: ARG002 - the reader's signature
        return self.state


def source_on(
    machine: Machine,
    *,
    gpu_count: Callable[[], int | None] = lambda: None,
    counters: Notebook | None = None,
    boot: str = "boot 1",
) -> HostSource:
    return HostSource(
        spool=Path("/spool"),
        place=PLACE,
        counters=counters,
        gpu_count=gpu_count,
        observe=machine.observe,
        booted=lambda: boot,
        clock=lambda: START_S,
    )


def read(source: HostSource, seconds: int = 0) -> Rows:
    (reading,) = source.read(START_S + seconds)
    assert reading.table is TRAY
    assert reading.rows.size == 1
    return reading.rows


def values_of(rows: Rows) -> dict[str, float]:
    """What is not absent, in base units."""
    values = {metric.name: float(in_base_unit(metric, rows)[0]) for metric in TRAY.metrics}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def test_every_value_is_in_its_base_unit() -> None:
    machine = Machine()
    source = source_on(machine, gpu_count=lambda: 4)
    read(source)
    machine.state = replace(
        STATE,
        busy_s=1030.0,
        total_s=4040.0,
        disks={"nvme0n1": (1_500, 2_001), "nvme1n1": (10_000, 21_000)},
        links={"eth0": (150, 260, 4), "ib0": (2_000, 2_002, 1)},
    )
    assert values_of(read(source, 10)) == {
        "processor_utilization_ratio": 0.75,
        "load_count": 1.25,
        "memory_used_bytes": 300 * MEBIBYTE,
        "memory_size_bytes": 1000 * MEBIBYTE,
        "disk_used_bytes": 50 * MEBIBYTE,
        "disk_size_bytes": 80 * MEBIBYTE,
        "disk_read_bytes": 500,
        "disk_written_bytes": 1_001,
        "network_received_bytes": 1_050,
        "network_sent_bytes": 62,
        "network_errors_count": 4,
        "processor_temperature_celsius": 61.25,
        "process_count": 321,
        "uptime_seconds": 3610,  # 3610.5 rounds to even
        "gpu_count": 4,
    }


def test_the_first_tick_has_no_amounts() -> None:
    values = values_of(read(source_on(Machine())))
    assert not {"processor_utilization_ratio", "disk_read_bytes", "network_errors_count"} & values.keys()
    assert values["load_count"] == 1.25


def test_what_the_machine_does_not_tell_is_absent() -> None:
    source = source_on(Machine(MachineState()))
    read(source)
    assert values_of(read(source, 10)) == {}


def test_a_disk_that_appears_does_not_bring_its_past_into_the_tick() -> None:
    machine = Machine()
    source = source_on(machine)
    read(source)
    machine.state = replace(STATE, disks={**STATE.disks, "nvme2n1": (10**12, 10**12)})
    assert values_of(read(source, 10))["disk_read_bytes"] == 0
    machine.state = replace(STATE, disks={**STATE.disks, "nvme2n1": (10**12 + 7, 10**12)})
    assert values_of(read(source, 20))["disk_read_bytes"] == 7


def test_an_interface_that_starts_again_leaves_the_others_counted() -> None:
    machine = Machine()
    source = source_on(machine)
    read(source)
    machine.state = replace(STATE, links={"eth0": (5, 5, 0), "ib0": (1_500, 2_000, 0)})
    assert values_of(read(source, 10))["network_received_bytes"] == 500


def test_traffic_over_a_restart_of_the_agent_is_counted_and_over_a_reboot_is_not() -> None:
    notebook = Notebook()
    read(source_on(Machine(), counters=notebook))
    machine = Machine(replace(STATE, disks={"nvme0n1": (1_900, 2_000)}))
    restarted = values_of(read(source_on(machine, counters=notebook), 60))
    assert restarted["disk_read_bytes"] == 900
    assert "processor_utilization_ratio" not in restarted
    machine.state = replace(STATE, disks={"nvme0n1": (9_999, 9_999)})
    rebooted = values_of(read(source_on(machine, counters=notebook, boot="boot 2"), 120))
    assert "disk_read_bytes" not in rebooted


def test_inventory_is_the_tray_in_its_rack_and_stays_equal() -> None:
    source = source_on(Machine())
    (tray,) = source.inventory()
    assert (tray.kind, tray.identity, tray.name) == (ResourceKind.TRAY, "chassis-4/17", "node-7")
    assert tray.resource == resource_id(ResourceKind.TRAY, "chassis-4/17") == int(read(source)["resource"][0])
    assert tray.parent == resource_id(ResourceKind.RACK, "chassis-4")
    assert tray.attributes == {"slot": "17", "processor_count": "144", "memory_bytes": str(1000 * MEBIBYTE)}
    assert source.inventory() == (tray,)


def test_a_machine_without_a_machine_id_goes_by_its_host_name(tmp_path: Path) -> None:
    assert this_machine(tmp_path / "none").identity == this_machine().name
    (tmp_path / "machine-id").write_text("0123456789abcdef\n")
    assert this_machine(tmp_path / "machine-id").identity == "0123456789abcdef"


def test_a_machine_tells_the_numbers_of_its_firmware_by_which_its_controller_knows_it(tmp_path: Path) -> None:
    (tmp_path / "product_uuid").write_text("4C4C4544-0042-3510-8052-B4C04F4D3132\n")
    (tmp_path / "product_serial").write_text("B5R7QT2\n")
    marks = this_machine(tmp_path / "none", tmp_path).attributes
    assert marks == {"system_uuid": "4c4c4544-0042-3510-8052-b4c04f4d3132", "system_serial": "B5R7QT2"}


@pytest.mark.parametrize("blank", ["", "0", "To Be Filled By O.E.M.", "00000000-0000-0000-0000-000000000000"])
def test_what_a_maker_left_in_the_place_of_a_number_is_none(tmp_path: Path, blank: str) -> None:
    (tmp_path / "product_uuid").write_text(f"{blank}\n")
    (tmp_path / "product_serial").write_text(f"{blank}\n")
    assert this_machine(tmp_path / "none", tmp_path).attributes == {}


# This machine --------------------------------------------------------------------------------------------------------


def test_this_machine_is_read(tmp_path: Path) -> None:
    source = HostSource(spool=tmp_path)
    read(source)
    (tmp_path / "work").write_bytes(os.urandom(1 << 20))
    values = values_of(read(source, 1))
    assert 0 < values["memory_used_bytes"] < values["memory_size_bytes"]
    assert 0 < values["disk_used_bytes"] <= values["disk_size_bytes"]
    assert values["process_count"] > 0
    assert values["uptime_seconds"] > 0
    assert 0 <= values.get("processor_utilization_ratio", 0.0) <= 1
    assert "gpu_count" not in values
    source.close()
    source.close()


def test_this_machine_counts_only_devices_with_hardware_behind_them(tmp_path: Path) -> None:
    state = read_machine(tmp_path)
    assert "lo" not in state.links
    assert not [name for name in state.disks if name.startswith(("loop", "ram", "zram", "dm-"))]
    assert state.busy_s is not None
    assert state.total_s is not None
    assert 0 < state.busy_s < state.total_s


def test_a_container_without_hardware_of_its_own_still_has_links(tmp_path: Path) -> None:
    state = read_machine(tmp_path, devices=tmp_path)  # no device has hardware there
    assert state.disks == {}
    assert "lo" not in state.links


def test_a_spool_that_is_not_there_yet_is_on_the_file_system_that_will_hold_it(tmp_path: Path) -> None:
    state = read_machine(tmp_path / "none" / "spool.db")
    assert state.disk_size_bytes == shutil.disk_usage(tmp_path).total


def test_the_boot_has_a_name_that_does_not_change_while_it_runs() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_a_boot_id_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "boot_id").write_bytes(content)
    assert boot_id(tmp_path / "boot_id") == ""
