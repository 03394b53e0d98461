"""A listing of jobs as bytes: what a command prints, or what a file holds; bounded in time and size."""

import os
import selectors
import signal
import stat
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO

from collectors.devices import DeviceError, DeviceState

READ_BYTES = 1 << 16
MAX_COMPLAINT_BYTES = 4096  # of what a command says on stderr; the rest is read and dropped
_COMPLAINT_CHARACTERS = 200  # of which this much is repeated
_STOP_S = 2.0  # for a killed command to be gone
# What Slurm says when it does not know us: munge's key, an account without rights.
_REFUSALS = ("denied", "not authorized", "invalid user", "munge", "authentication")
_OUR_SETTINGS = "KVANDAL_"  # environment variables that may hold our secrets


def run_command(command: Sequence[str], *, timeout_s: float, limit_bytes: int) -> bytes:
    """What `command` prints. It is run without a shell, without input, and without our settings.

    Raises DeviceError when it cannot be run, fails, prints more than `limit_bytes`, or does not end within `timeout_s`;
    it is then ended together with what it started.
    """
    name = Path(command[0]).name
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_OUR_SETTINGS)}
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, from the settings
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment | {"LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DeviceError(DeviceState.UNREACHABLE, f"{name} cannot be run: {why}") from error
    try:
        output, complaint = _read_both(process, name, timeout_s=timeout_s, limit_bytes=limit_bytes)
    finally:
        _end(process)
    if process.returncode:
        raise _failure(name, process.returncode, complaint)
    return output


def read_file(file: Path, *, limit_bytes: int, oldest_s: float) -> bytes:
    """What a file holds that was written after `oldest_s`, UTC seconds. Raises DeviceError."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(DeviceState.UNREACHABLE, f"{file} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DeviceError(DeviceState.NONSENSE, f"{file} is not a file")
        if status.st_mtime < oldest_s:
            raise DeviceError(DeviceState.UNREACHABLE, f"{file} is too old to say what runs now; is it still written?")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            content = opened.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise _too_long(str(file), limit_bytes)
    return content


def _read_both(
    process: "subprocess.Popen[bytes]", name: str, *, timeout_s: float, limit_bytes: int
) -> tuple[bytes, str]:
    """Output and complaint, as both come: a full pipe that nobody reads would hold the command up."""
    deadline_s = monotonic() + timeout_s
    output, complaint = bytearray(), bytearray()

    def keep_output(block: bytes) -> None:
        output.extend(block)
        if len(output) > limit_bytes:
            raise _too_long(f"the output of {name}", limit_bytes)

    def keep_complaint(block: bytes) -> None:
        complaint.extend(block[: MAX_COMPLAINT_BYTES - len(complaint)])

    with selectors.DefaultSelector() as selector:
        for stream, keep in ((process.stdout, keep_output), (process.stderr, keep_complaint)):
            assert stream is not None  # noqa: S101 - for the type checker: both are pipes
            selector.register(stream, selectors.EVENT_READ, keep)
        while selector.get_map():
            left_s = deadline_s - monotonic()
            ready = selector.select(left_s) if left_s > 0 else []
            if not ready:
                raise _too_slow(name, timeout_s)
            for key, _ in ready:
                _pump(selector, key.fileobj, key.data)  # type: ignore[arg-type]
    try:
        process.wait(max(deadline_s - monotonic(), 0))
    except subprocess.TimeoutExpired as error:
        raise _too_slow(name, timeout_s) from error
    return bytes(output), complaint.decode("utf-8", "replace")


def _pump(selector: selectors.BaseSelector, stream: IO[bytes], keep: Callable[[bytes], None]) -> None:
    block = os.read(stream.fileno(), READ_BYTES)
    if block:
        keep(block)
    else:
        selector.unregister(stream)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The command and what it started are gone; nothing happens to one that has ended by itself.

    As long as it was not waited for, its number cannot be another's, and its group is what it started.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)


def _failure(name: str, code: int, complaint: str) -> DeviceError:
    said = " ".join(complaint.split())[:_COMPLAINT_CHARACTERS]
    said = "".join(letter if letter.isprintable() else "?" for letter in said)
    refused = any(word in said.lower() for word in _REFUSALS)
    ended = f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
    return DeviceError(
        DeviceState.REFUSED if refused else DeviceState.UNREACHABLE, f"{name} {ended}{f': {said}' if said else ''}"
    )


def _too_slow(name: str, timeout_s: float) -> DeviceError:
    return DeviceError(DeviceState.SLOW, f"{name} did not end within {timeout_s:g} s")


def _too_long(what: str, limit_bytes: int) -> DeviceError:
    return DeviceError(
        DeviceState.NONSENSE,
        f"{what} is longer than {limit_bytes >> 20} MiB; raise limit_mb, or lower slurm.overlap_s",
    )
