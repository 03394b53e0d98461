"""Events on the site that incidents are replayed on, as the collectors tell them."""

from alerts.replay_site import START_MS
from catalogue.facility import LeakState
from stream.messages import EventMessage


def xid(gpu: int, number: int, at_s: float, *, count: int = 1, text: str = "", detail: str = "") -> EventMessage:
    """An XID as the agents tell it, `at_s` after the start of the test."""
    time_ms = START_MS + round(at_s * 1000)
    return EventMessage(
        id=f"xid-{number}-{gpu:016x}-{time_ms}", resource=gpu, time_ms=time_ms, kind="xid", code=number, count=count,
        text=text, attributes={"detail": detail} if detail else {},
    )  # fmt: skip


def bus_alarm(kind: str, resource: int, at_s: float, *, stands: bool, point: str = "detector") -> EventMessage:
    """A point of the building bus, as collectors/dsx/alarms.py tells it."""
    time_ms = START_MS + round(at_s * 1000)
    begins, ends = (LeakState.CRITICAL, LeakState.DRY) if kind == "leak" else (1, 0)
    return EventMessage(
        id=f"{point}/{time_ms}", resource=resource, time_ms=time_ms, kind=kind, code=begins if stands else ends,
        attributes={"point": point},
    )  # fmt: skip


def port_state(port: int, code: int, at_s: float) -> EventMessage:
    """A port that changed, as collectors/infiniband.py tells it: 1 active, 5 down."""
    time_ms = START_MS + round(at_s * 1000)
    return EventMessage(
        id=f"{port:x}/port_state/{time_ms}", resource=port, time_ms=time_ms, kind="port_state", code=code
    )
