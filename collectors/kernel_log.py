"""XIDs in the kernel's log: the second witness, which also sees what NVML does not tell.

The log is read without ever waiting. In /dev/kmsg only what the kernel itself wrote counts: a process may write there
too, and would otherwise declare GPUs broken. Text is bounded and made printable before anything else sees it.
"""

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KERNEL_LOG = Path("/dev/kmsg")

_RETRY_S = 60.0  # a log that cannot be opened is tried again: permissions and mounts change
_RECORDS = 20_000  # a flood is taken in parts: what is left waits in the kernel's ring for the next call
_RECORD_BYTES = 8192  # the kernel's own bound for a record of /dev/kmsg
_CHUNK_BYTES = 1 << 16
_DETAIL_CHARACTERS = 256  # what an attribute of a message may hold
_KERNEL = 0  # syslog facility of the kernel's own messages

_XID = re.compile(
    r"NVRM:[^(]{0,32}Xid \((?:PCI:)?(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-9a-fA-F])?\): "
    r"(\d{1,6})(?!\d)(?:[,:]? *(.*))?"
)
_PCI_ADDRESS = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-9a-fA-F])?")
_UNPRINTABLE = re.compile(r"[^ -~]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PciAddress:
    """Where a device sits; the function is left out, as in the driver's own lines."""

    domain: int
    bus: int
    device: int

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}"


@dataclass(frozen=True, slots=True)
class XidLine:
    """One line of the driver about an XID. `detail` is what follows the number, at most 256 printable characters."""

    address: PciAddress
    number: int
    detail: str
    time_ms: int


def parse_pci_address(text: str) -> PciAddress | None:
    """The address in NVML's or the kernel's form; None where it is neither."""
    found = _PCI_ADDRESS.fullmatch(text.strip())
    return _address(*found.groups()) if found else None


def parse_xid(text: str, time_ms: int) -> XidLine | None:
    """The XID that a line of a kernel log tells of, whatever stands before it; None for any other line."""
    found = _XID.search(text)
    if found is None:
        return None
    domain, bus, device, number, detail = found.groups()
    clean = _UNPRINTABLE.sub("?", (detail or "").strip()[:_DETAIL_CHARACTERS])
    return XidLine(_address(domain, bus, device), int(number), clean, time_ms)


def _address(domain: str | None, bus: str, device: str) -> PciAddress:
    return PciAddress(int(domain or "0", 16), int(bus, 16), int(device, 16))


class KernelLog:
    """/dev/kmsg, or a file or pipe of log lines, from now on: what was written before is not told again."""

    def __init__(
        self,
        path: Path = KERNEL_LOG,
        *,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._uptime = uptime
        self._file: int | None = None
        self._is_device = False
        self._rest = b""
        self._retry_at_s = 0.0
        self._closed = False
        self._open(at_end=True)

    @property
    def is_readable(self) -> bool:
        return self._file is not None

    def read(self) -> list[XidLine]:
        """XIDs since the last call, in order; never waits."""
        if self._file is None and not self._closed and self._uptime() >= self._retry_at_s:
            self._open(at_end=True)
        if self._file is None:
            return []
        lines = self._records(self._file) if self._is_device else self._lines(self._file)
        found = (parse_xid(text, time_ms) for text, time_ms in lines if "Xid" in text)
        return [line for line in found if line is not None]

    def close(self) -> None:
        self._closed = True
        self._let_go()

    def _open(self, *, at_end: bool) -> None:
        self._let_go()
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if not self._retry_at_s:
                _log.warning(
                    "The kernel log cannot be read, NVML is the only witness of XIDs",
                    extra={"path": str(self._path), "reason": str(error)},
                )
            self._retry_at_s = self._uptime() + _RETRY_S
            return
        self._is_device = stat.S_ISCHR(os.fstat(self._file).st_mode)
        self._rest = b""
        if at_end:
            with suppress(OSError):  # a pipe has no end to go to
                os.lseek(self._file, 0, os.SEEK_END)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _records(self, file: int) -> Iterator[tuple[str, int]]:
        """Records of /dev/kmsg: one for each read, "priority,sequence,microseconds since boot,flags;text"."""
        # The record's time is the kernel's uptime; both clocks are asked once for all of a call's records.
        booted_ms = (self._clock() - self._uptime()) * 1000
        for _ in range(_RECORDS):
            try:
                record = os.read(file, _RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    self._fail(error)
                    return
                _log.warning("The kernel log was overwritten before it was read", extra={"path": str(self._path)})
                continue
            if not record:
                return
            head, _, text = record.partition(b";")
            fields = head.split(b",")
            if len(fields) >= 3 and fields[0].isdigit() and fields[2].isdigit() and int(fields[0]) >> 3 == _KERNEL:
                yield text.partition(b"\n")[0].decode(errors="replace"), round(booted_ms + int(fields[2]) / 1000)

    def _lines(self, file: int) -> Iterator[tuple[str, int]]:
        """Lines of a file or pipe, whole ones only; a rotated file is read on in its successor."""
        now_ms = round(self._clock() * 1000)
        left = _RECORDS
        while left > 0:
            try:
                chunk = os.read(file, _CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error)
                return
            if not chunk:
                if self._was_rotated(file):
                    self._open(at_end=False)
                return
            *lines, rest = (self._rest + chunk).split(b"\n")
            self._rest = rest[-_RECORD_BYTES:]
            left -= len(lines)
            yield from ((line[:_RECORD_BYTES].decode(errors="replace"), now_ms) for line in lines)

    def _was_rotated(self, file: int) -> bool:
        with suppress(OSError):
            there, here = os.stat(self._path), os.fstat(file)  # noqa: PTH116 - pairs with fstat
            return stat.S_ISREG(there.st_mode) and (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev)
        return False

    def _fail(self, error: OSError) -> None:
        _log.warning("The kernel log broke off", extra={"path": str(self._path), "reason": str(error)})
        self._retry_at_s = self._uptime() + _RETRY_S
        self._let_go()
