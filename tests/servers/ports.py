"""Ports for the servers that tests start."""

import os
import random
import socket
from collections.abc import Iterator

from kvandal.broker import HOST

# Below the embedded broker's own ports (kvandal/broker.py), so that no broker takes one that a test has in hand.
PORTS = range(10_000, 20_000)
# pytest-xdist names its processes gw0, gw1, …; each takes ports of its own: a port is free until its server starts.
PROCESSES = 4


def _shuffled_ports() -> Iterator[int]:
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(PORTS)[process % PROCESSES :: PROCESSES]
    random.shuffle(ports)
    yield from ports


_ports = _shuffled_ports()


def free_port() -> int:
    """A port of loopback on which nobody listens, and that was not handed out before. Raises OSError without one."""
    for port in _ports:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port
    raise OSError(f"every port from {PORTS.start} to {PORTS.stop - 1} on {HOST} was handed out or is taken")
