"""The kernel's log: lines as drivers write them, through pipes and files, and text that means harm."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collectors.kernel_log import KernelLog, PciAddress, parse_pci_address, parse_xid

NOW_S = 1_800_000_000.0
UPTIME_S = 5_000.0


@pytest.mark.parametrize(
    ("line", "address", "number", "detail"),
    [
        (
            "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, name=nvidia-smi, Row Remapper: New row marked",
            PciAddress(0, 0x10, 0x1C),
            63,
            "pid=1896, name=nvidia-smi, Row Remapper: New row marked",
        ),
        (
            "NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
            PciAddress(9, 1, 0),
            154,
            "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
        ),
        (
            "[171167.630899] NVRM: Xid (PCI:0008:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6)",
            PciAddress(8, 1, 0),
            149,
            "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6)",
        ),
        (
            "Oct 02 10:41:07 node-7 kernel: NVRM: Xid (PCI:0000:3d:00.0): 79, pid=0, GPU has fallen off the bus.",
            PciAddress(0, 0x3D, 0),
            79,
            "pid=0, GPU has fallen off the bus.",
        ),
        (
            "NVRM: Xid (0000:03:00): 31, Ch 00000010, engmask 00000101",
            PciAddress(0, 3, 0),
            31,
            "Ch 00000010, engmask 00000101",
        ),
        ("NVRM: GPU at Xid (PCI:0000:B9:00): 45", PciAddress(0, 0xB9, 0), 45, ""),
        ("NVRM: Xid (PCI:0000:b9:00): 74, pid=<unknown>", PciAddress(0, 0xB9, 0), 74, "pid=<unknown>"),
    ],
)
def test_lines_of_drivers_are_understood(line: str, address: PciAddress, number: int, detail: str) -> None:
    found = parse_xid(line, 7)
    assert found is not None
    assert (found.address, found.number, found.detail, found.time_ms) == (address, number, detail, 7)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05",
        "NVRM: GPU at PCI:0000:18:00.0 has fallen off the bus.",
        "NVRM: Xid (PCI:0000:66:00): abc, pid=2280636",
        "NVRM: Xid (PCI:zz:66:00): 79",
        "NVRM: Xid (PCI:0000:66:00): 12345678901234567890, too long for a number",
        "NVRM: Xid (PCI:0000:66:00) 79",
        "SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 32 LTSSM Fault Up",
        "NVRM:" + " " * 4000 + "Xid (PCI:0000:66:00): 79",
    ],
)
def test_other_lines_are_not_xids(line: str) -> None:
    assert parse_xid(line, 0) is None


def test_hostile_detail_is_bounded_and_printable() -> None:
    found = parse_xid("NVRM: Xid (PCI:0000:66:00): 13, \x1b[2J\x00\u202edrop table" + "A" * 100_000, 0)
    assert found is not None
    assert len(found.detail) == 256
    assert found.detail.isascii()
    assert found.detail.isprintable()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:10:00.0", PciAddress(0, 0x10, 0)),
        ("0000:10:1c", PciAddress(0, 0x10, 0x1C)),
        ("00000009:01:00.0", PciAddress(9, 1, 0)),
        ("", None),
        ("unknown", None),
    ],
)
def test_addresses_of_nvml_and_the_kernel_are_the_same(text: str, address: PciAddress | None) -> None:
    assert parse_pci_address(text) == address


# Reading -------------------------------------------------------------------------------------------------------------

XID_79 = b"NVRM: Xid (PCI:0000:10:00): 79, GPU has fallen off the bus.\n"
XID_31 = b"NVRM: Xid (PCI:0000:11:00): 31, MMU Fault\n"


class Uptime:
    def __init__(self) -> None:
        self.now_s = UPTIME_S

    def __call__(self) -> float:
        return self.now_s


OpenLog = Callable[[Path], KernelLog]


@pytest.fixture
def uptime() -> Uptime:
    return Uptime()


@pytest.fixture
def open_log(uptime: Uptime) -> Iterator[OpenLog]:
    logs: list[KernelLog] = []

    def open_at(path: Path) -> KernelLog:
        logs.append(KernelLog(path, clock=lambda: NOW_S, uptime=uptime))
        return logs[-1]

    yield open_at
    for log in logs:
        log.close()


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_a_file_is_read_from_its_end_on(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(XID_79)
    log = open_log(path)
    assert log.read() == []
    append(path, XID_31 + b"something else\n" + XID_79)
    assert [(line.number, line.time_ms) for line in log.read()] == [(31, 1_800_000_000_000), (79, 1_800_000_000_000)]
    assert log.read() == []


def test_half_a_line_waits_for_its_other_half(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"")
    log = open_log(path)
    append(path, XID_79[:40])
    assert log.read() == []
    append(path, XID_79[40:])
    assert [line.number for line in log.read()] == [79]


def test_a_rotated_file_is_read_on_in_its_successor(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"")
    log = open_log(path)
    append(path, XID_31)
    path.rename(tmp_path / "kern.log.1")
    path.write_bytes(XID_79)
    assert [line.number for _ in range(3) for line in log.read()] == [31, 79]


def test_a_pipe_is_read_without_waiting_for_its_writer(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    log = open_log(path)
    assert log.read() == []
    with path.open("wb", buffering=0) as writer:
        assert log.read() == []
        writer.write(XID_79 + XID_31[:10])
        assert [line.number for line in log.read()] == [79]
        writer.write(XID_31[10:])
        assert [line.number for line in log.read()] == [31]
    assert log.read() == []


def test_an_endless_line_does_not_fill_memory_and_ends(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"")
    log = open_log(path)
    for _ in range(50):
        append(path, b"A" * 100_000)
        assert log.read() == []
    append(path, b"\n" + XID_79)
    assert [line.number for line in log.read()] == [79]


def test_a_flood_is_taken_in_parts_and_all_of_it(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"")
    log = open_log(path)
    append(path, XID_79 * 50_000)
    parts = [len(log.read()) for _ in range(5)]
    assert sum(parts) == 50_000
    assert max(parts) < 25_000


def test_bytes_that_are_no_text_are_no_failure(tmp_path: Path, open_log: OpenLog) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"")
    log = open_log(path)
    append(path, bytes(range(256)) * 10 + b"\n" + XID_79)
    assert [line.number for line in log.read()] == [79]


# The device ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def device() -> Iterator[tuple[Path, int]]:
    """A terminal as /dev/kmsg: a character device of which each read gives one record. Path, and where to write."""
    master, slave = os.openpty()
    yield Path(os.ttyname(slave)), master
    os.close(slave)
    os.close(master)


def test_records_have_the_kernels_own_time(device: tuple[Path, int], open_log: OpenLog) -> None:
    path, writer = device
    log = open_log(path)
    os.write(writer, b"3,4711,4998500000,-;" + XID_79 + b" SUBSYSTEM=pci\n DEVICE=+pci:0000:10:00.0\n")
    os.write(writer, b"6,4712,4999000000,-,caller=T1;pci 0000:10:00.0: nothing to see\n")
    os.write(writer, b"4,4713,4999999000,c;" + XID_31)
    # 1.5 s and 1 ms before now, which is an uptime of 5000 s
    assert [(line.number, line.time_ms) for line in log.read()] == [(79, 1_799_999_998_500), (31, 1_799_999_999_999)]
    assert log.read() == []


def test_what_a_process_wrote_to_the_kernels_log_is_not_believed(device: tuple[Path, int], open_log: OpenLog) -> None:
    path, writer = device
    log = open_log(path)
    os.write(writer, b"12,4711,4998500000,-;" + XID_79)  # facility 1, a user's process
    os.write(writer, b";" + XID_79 + b"x,y,z,-;" + XID_79 + b"3,4712;" + XID_79)
    os.write(writer, b"4,4713,4999999000,-;" + XID_31)
    assert [line.number for line in log.read()] == [31]


def test_a_log_that_is_not_there_is_said_once_and_tried_again(
    tmp_path: Path, open_log: OpenLog, uptime: Uptime, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kern.log"
    log = open_log(path)
    assert not log.is_readable
    path.write_bytes(b"")
    assert log.read() == []
    assert not log.is_readable
    uptime.now_s += 61
    assert log.read() == []
    assert log.is_readable
    append(path, XID_79)
    assert [line.number for line in log.read()] == [79]
    assert [record.getMessage() for record in caplog.records] == [
        "The kernel log cannot be read, NVML is the only witness of XIDs"
    ]


def test_a_closed_log_is_not_opened_again(tmp_path: Path, open_log: OpenLog, uptime: Uptime) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(b"")
    log = open_log(path)
    log.close()
    log.close()
    uptime.now_s += 1000
    assert log.read() == []
    assert not log.is_readable
