"""Kinds of things that are measured, and how each gets its 64-bit identity."""

from enum import StrEnum
from hashlib import blake2b


class ResourceKind(StrEnum):
    """A level or branch of the site's tree; the tree itself is inventory, not code."""

    SITE = "site"
    HALL = "hall"
    ROW = "row"
    RACK = "rack"
    TRAY = "tray"  # the node that runs an operating system
    GPU = "gpu"
    PORT = "port"  # a port of a network adapter
    LOOP = "loop"
    CDU = "cdu"
    HEAT_METER = "heat_meter"
    FEEDER = "feeder"
    METER = "meter"
    OFF_TAKER = "off_taker"
    POINT = "point"  # of a facility device, without a column of its own
    AGENT = "agent"


def resource_id(kind: ResourceKind, identity: str) -> int:
    """The 64-bit id of a resource, from its kind and its stable identity alone.

    `identity` is what stays when the thing is moved or renamed: a GPU's UUID, chassis serial and
    slot, a meter's serial number. Any collector can compute the id without asking anybody; two
    identities with one id are found, and refused, when their inventory messages meet.
    """
    if not identity:
        raise ValueError(f"a {kind} needs a stable identity, got an empty one")
    digest = blake2b(f"{kind}\0{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
