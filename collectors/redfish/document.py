"""What a Redfish document says, however wrong it may be: every accessor gives a checked value or nothing.

A document comes from a device that may be broken or hostile: types, sizes and links are checked here, and nowhere else.
Property names and their meaning: DMTF DSP0266 (protocol) and DSP8010 2025.4 (schemas).
"""

import json
import math
import re
from collections.abc import Mapping
from typing import TypeAlias

Document: TypeAlias = Mapping[str, object]

ROOT = "/redfish/v1"
MAX_PATH_CHARACTERS = 200
MAX_MEMBERS = 4096  # of one array that is looked at
# Resource.Status.State: in these a resource exists, but what it shows is no reading.
NOT_THERE = frozenset({"Absent", "Disabled", "UnavailableOffline"})

# RFC 3986 without query and fragment; a link elsewhere, or into another part of the server, is no link.
_PATH = re.compile(r"/redfish/v1(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)*/?")
_QUERY = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*")
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,3})?")
# Serial numbers that firmware ships with in place of one.
_NO_SERIAL = frozenset(
    {"", "0", "na", "n/a", "none", "null", "unknown", "default", "tobefilledbyo.e.m.", "notspecified"}
)


def parse_document(body: bytes) -> Document:
    """The JSON object in `body`; ValueError when it is none. NaN and Infinity, which JSON does not have, are null."""
    try:
        found = json.loads(body, parse_constant=lambda _: None, parse_int=float)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, not an object")
    return found


def part_of(document: Document, path: str) -> object:
    """What stands at a path of properties such as "Links/Chassis"; None where there is nothing."""
    found: object = document
    for name in path.split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def objects_in(document: Document, path: str) -> list[Document]:
    """The objects of an array; an object in place of the array counts as its only one, as some devices give it."""
    found = part_of(document, path)
    if isinstance(found, Mapping):
        return [found]
    return [one for one in found[:MAX_MEMBERS] if isinstance(one, Mapping)] if isinstance(found, list) else []


def text_at(document: Document, path: str, limit: int = 128) -> str:
    """A text without control characters, cut at `limit`; empty where there is none."""
    found = part_of(document, path)
    if not isinstance(found, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in found[: 4 * limit]).split())[:limit]


def number_of(value: object) -> float | None:
    """A finite number, also one that stands in quotes as some devices give it; None for everything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def reading_at(document: Document, path: str, name: str = "Reading") -> float | None:
    """The reading of a sensor excerpt, or a plain number, at a path of properties."""
    found = part_of(document, path)
    return number_of(found.get(name)) if isinstance(found, Mapping) else number_of(found)


def path_of(value: object) -> str:
    """A path of this service that may be asked for, without a slash at its end; empty for anything else."""
    if not isinstance(value, str) or len(value) > MAX_PATH_CHARACTERS or not _PATH.fullmatch(value):
        return ""
    plain = value.rstrip("/")
    return "" if {"..", "."} & set(plain.lower().replace("%2e", ".").split("/")) else plain


def link_at(document: Document, path: str) -> str:
    """The path that a link at a path of properties leads to; empty where there is none that may be followed."""
    found = part_of(document, path)
    return path_of(found.get("@odata.id")) if isinstance(found, Mapping) else ""


def links_at(document: Document, path: str) -> list[str]:
    """The paths of an array of links, or of one link in its place."""
    found = [path_of(one.get("@odata.id")) for one in objects_in(document, path)]
    return [path for path in found if path]


def next_page(document: Document) -> str:
    """Where a collection goes on, its query included; empty at its end (DSP0266, 7.6 "Resource collections")."""
    found = document.get("Members@odata.nextLink") or document.get("@odata.nextLink")
    if not isinstance(found, str) or len(found) > 2 * MAX_PATH_CHARACTERS:
        return ""
    address, mark, query = found.partition("?")
    path = path_of(address)
    return f"{path}{mark}{query}" if path and _QUERY.fullmatch(query) else ""


def is_there(document: Document) -> bool:
    """Whether what a document shows are readings: it is neither absent nor disabled."""
    return text_at(document, "Status/State") not in NOT_THERE and document.get("Enabled") is not False


def serial_of(document: Document) -> str:
    """Manufacturer, model and serial number as one text; empty without a serial number that deserves the name."""
    serial = text_at(document, "SerialNumber", 64)
    if serial.replace(" ", "").lower() in _NO_SERIAL or not serial.strip("0-"):
        return ""
    return "/".join(filter(None, (text_at(document, "Manufacturer", 48), text_at(document, "Model", 48), serial)))


def detector_groups(document: Document) -> list[tuple[str, Document]]:
    """The detectors that a LeakDetection shows in its groups (1.1): each one's path, and its excerpt."""
    return [
        (path_of(detector.get("DataSourceUri")), detector)
        for group in objects_in(document, "LeakDetectorGroups")
        for detector in objects_in(group, "Detectors")
    ]
