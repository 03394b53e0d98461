"""What every long-running process shares: signals, the metrics page, and its end."""

import faulthandler
import json
import signal
import sys
from collections.abc import Mapping
from threading import Event
from types import FrameType
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server


class PortTakenError(OSError):
    """The metrics port is in use."""


def stop_on_signals() -> Event:
    """An event that SIGTERM and SIGINT set; a second signal does nothing more.

    SIGUSR1 writes on stderr where every thread stands: for a process that does not do what it should.
    """
    stop = Event()
    faulthandler.register(signal.SIGUSR1)

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop


def serve_metrics(registry: CollectorRegistry, *, host: str, port: int) -> WSGIServer:
    """Serve /metrics; port 0 takes a free one, which the server's `server_port` tells."""
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise PortTakenError(
            f"/metrics cannot listen on {host}:{port} ({error.strerror}); stop what does, or give another metrics_port"
        ) from error
    return server


def tell_parent(facts: Mapping[str, object]) -> None:
    """Say facts on stdout as one JSON line, for the process that started this one."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
