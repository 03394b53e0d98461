"""Net-SNMP's agent as a test server: it serves a tree of objects that a test writes.

The tree is behind snmpd's `pass_persist`: snmpd does the protocol, and asks this file, run as a program, for objects.
"""

import bisect
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ != "__main__":  # as a program this file needs nothing but the standard library
    from tests.servers.kafka import ServerFailed, ServerUnavailable

HOST = "127.0.0.1"
START_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.01
ENTERPRISES = (".1.3.6.1.4.1", ".1.3.6.1.2.1.33")  # what our trees are below

Value = int | str
# A type of snmpd's pass_persist and a value; a plain int is an integer, a plain str is a string.
Objects = Mapping[str, Value | tuple[str, Value]]


@dataclass(slots=True)
class Agent:
    """A running snmpd; a test changes its tree at will."""

    folder: Path
    port: int
    config: str
    process: "subprocess.Popen[bytes] | None" = None

    def show(self, objects: Objects) -> None:
        """Have these objects, and no others, from now on."""
        lines = []
        for oid, given in objects.items():
            kind, value = (
                given if isinstance(given, tuple) else ("integer" if isinstance(given, int) else "string", given)
            )
            lines.append(f".{oid} {kind} {value}\n")
        new = self.folder / "tree.new"
        new.write_text("".join(lines))
        new.replace(self.folder / "tree")

    def start(self) -> None:
        """Start snmpd, and wait until it listens."""
        program = shutil.which("snmpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise ServerUnavailable("snmpd is not installed: apt-get install snmpd")
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        (self.folder / "conf").write_text(self.config)
        self.process = subprocess.Popen(
            [program, "-f", "-C", "-c", str(self.folder / "conf"), "-Lf", str(log), "-I", "-smux"],
            env={"PATH": os.environ.get("PATH", ""), "SNMP_PERSISTENT_DIR": str(self.folder / "state"), "MIBS": ""},
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while "NET-SNMP version" not in (log.read_text() if log.exists() else ""):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"snmpd did not start: {log.read_text() if log.exists() else 'it said nothing'}")
            time.sleep(POLL_INTERVAL_S)

    def stop(self) -> None:
        """End snmpd, and with it the program that serves the tree."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_TIMEOUT_S)
            self.process = None


@contextmanager
def snmp_agent(
    folder: Path, objects: Objects, *, object_id: str, config: str = "", address: str = f"udp:{HOST}"
) -> Iterator[Agent]:
    """A running agent with the sysObjectID `object_id`; `config` says who may read, in snmpd.conf's words."""
    folder.mkdir(parents=True)
    (folder / "state").mkdir()
    port = free_udp_port()
    program = f"{sys.executable} {Path(__file__).resolve()} {folder / 'tree'}"
    lines = [
        f"agentaddress {address}:{port}",
        f"sysobjectid .{object_id}",
        *(f"pass_persist {root} {program}" for root in ENTERPRISES),
        config,
    ]
    agent = Agent(folder, port, "\n".join(lines) + "\n")
    agent.show(objects)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


def free_udp_port() -> int:
    """A port of the loopback that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


class _Tree:
    """The objects in a file, read anew when it is another."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._inode = 0
        self._objects: dict[tuple[int, ...], tuple[str, str]] = {}
        self._order: list[tuple[int, ...]] = []

    def look(self) -> None:
        inode = self._file.stat().st_ino
        if inode == self._inode:
            return
        self._inode = inode
        self._objects = {}
        for line in self._file.read_text().splitlines():
            oid, kind, value = line.split(" ", 2)
            self._objects[_numbers(oid)] = (kind, value)
        self._order = sorted(self._objects)

    def answer(self, verb: str, oid: tuple[int, ...]) -> str:
        """What snmpd is told of the object, or of the one after it."""
        if verb == "getnext":
            after = bisect.bisect_right(self._order, oid)
            oid = self._order[after] if after < len(self._order) else ()
        if oid not in self._objects:
            return "NONE"
        return "\n".join(("." + ".".join(map(str, oid)), *self._objects[oid]))


def _numbers(oid: str) -> tuple[int, ...]:
    return tuple(int(part) for part in oid.strip().strip(".").split("."))


def _serve(file: Path) -> None:
    """snmpd.conf(5), pass_persist: PING, or a verb and an object identifier on a line each."""
    tree = _Tree(file)
    for line in sys.stdin:
        if line.strip() == "PING":
            print("PONG", flush=True)  # noqa: T201 - the protocol
            continue
        oid = _numbers(sys.stdin.readline())
        tree.look()
        print(tree.answer(line.strip(), oid), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
