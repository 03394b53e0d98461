"""Topics and payloads of NVIDIA DSX Exchange's BMS bus, taken apart without trust.

Source: NVIDIA dsx-exchange, schemas/asyncapi/bms/bms.yaml (BMS Event Bus 1.0.0) and docs/bms-integration.md.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec

NAMESPACE = "BMS/v1"
BMS = "PUB"  # how the building system itself is called among the publishers
METADATA_TOPICS = f"{NAMESPACE}/{BMS}/Metadata/#"
VALUE_TOPICS = f"{NAMESPACE}/{BMS}/Value/#"
# The one point of our interest whose values come from an integration, under its own name: leaks in trays.
TRAY_LEAK_TOPICS = f"{NAMESPACE}/+/Value/Rack/RackLeakDetectTray/#"

MAX_PAYLOAD_BYTES = 16_384  # a meter that serves 500 racks has metadata of 10 kB
MAX_POINT_CHARACTERS = 192  # of object type, point type and tag path: with a device's id it has to fit a name of 256

GOOD_QUALITY = 1.0

Label = Annotated[str, msgspec.Meta(max_length=128)]


class Refusal(StrEnum):
    """Why a message was not used."""

    TOPIC = "a topic that the schema does not have"
    PAYLOAD = "not what the schema asks for"
    TOO_LONG = "too long"
    FUTURE = "stamped in the future: set the BMS's clock"
    STALE = "stamped before the hold: set the BMS's clock"
    DISORDER = "older than what came before"
    TOO_MANY = "beyond dsx.max_points"
    NAMELESS = "metadata without the id of rack or equipment"
    UNIT = "in a unit that the catalogue does not have"


class RefusedError(Exception):
    """A message is not used."""

    def __init__(self, reason: Refusal, what: str = "") -> None:
        super().__init__(f"{reason}{': ' if what else ''}{what}")
        self.reason = reason


class PointReading(msgspec.Struct, frozen=True, gc=False):
    """The payload of a value topic.

    Milliseconds and quality are numbers without fraction; JSON lets a publisher write them as 1.0, so they are floats.
    """

    value: float | None
    timestamp: Annotated[float, msgspec.Meta(ge=0, lt=1 << 42)]  # ms since 1970, of the event in the field
    quality: float  # 1 is good, everything else is not to be trusted

    @property
    def is_good(self) -> bool:
        return self.value is not None and self.quality == GOOD_QUALITY


class StateLabel(msgspec.Struct, frozen=True, gc=False):
    """What a number of a state point means."""

    value: float
    text: Label


class PointFacts(msgspec.Struct, frozen=True, rename="camel"):
    """The payload of a metadata topic; what a point does not have is None, left out or null alike."""

    rack_location_id: Label | None = None
    rack_location_name: Label | None = None
    object_id: Label | None = None
    object_name: Label | None = None
    associate_id: Label | None = None  # of the rack or equipment that the point is a part of
    serves_id: Annotated[tuple[Label, ...], msgspec.Meta(max_length=4096)] | None = None
    process_area: Annotated[tuple[Label, ...], msgspec.Meta(max_length=32)] | None = None
    eng_unit: Label | None = None
    state_text: Annotated[tuple[StateLabel, ...], msgspec.Meta(max_length=256)] | None = None
    is_setpoint: bool | None = None
    phase: Label | None = None
    scope: Label | None = None
    integration: Label | None = None  # who publishes the point's values, if not the building system

    @property
    def words(self) -> frozenset[str]:
        """The words of the process area in small letters, also those that are run together: SecondarySupply."""
        return frozenset(word.lower() for word in _WORD.findall(" ".join(self.process_area or ())))

    def state_name(self, value: float) -> str:
        """What the number means, in the building system's words; empty when it does not say."""
        return next((label.text for label in self.state_text or () if label.value == value), "")


@dataclass(frozen=True, slots=True)
class PointAddress:
    """Which point a topic is about: `tag` is the building system's own name for it, and may be anything."""

    object_type: str
    point_type: str
    tag: str

    @property
    def name(self) -> str:
        """Unique on the bus."""
        return f"{self.object_type}/{self.point_type}/{self.tag}"

    def value_topic(self, publisher: str) -> str:
        """Where `publisher` publishes the point's values (the schema's rule of derivation)."""
        return f"{NAMESPACE}/{publisher}/Value/{self.name}"


@dataclass(frozen=True, slots=True)
class TopicParts:
    """A topic of the bus, taken apart."""

    publisher: str
    is_metadata: bool
    address: PointAddress


_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_TOPIC = re.compile(rf"{NAMESPACE}/([^/]+)/(Value|Metadata)/([^/]+)/([^/]+)/(.+)")
_WILDCARDS = frozenset("+#")


def parse_topic(topic: str) -> TopicParts:
    """A topic taken apart. Raises RefusedError for what is none of the schema's, or cannot be a name of ours."""
    if len(topic) > MAX_POINT_CHARACTERS + len("BMS/v1//Metadata/") + 64:
        raise RefusedError(Refusal.TOO_LONG)
    found = _TOPIC.fullmatch(topic)
    if found is None or not topic.isprintable() or _WILDCARDS & set(topic):
        raise RefusedError(Refusal.TOPIC)
    publisher, kind, *rest = found.groups()
    address = PointAddress(*rest)
    if len(address.name) > MAX_POINT_CHARACTERS:
        raise RefusedError(Refusal.TOO_LONG)
    return TopicParts(publisher, kind == "Metadata", address)


_READINGS = msgspec.json.Decoder(PointReading)
_FACTS = msgspec.json.Decoder(PointFacts)

_Payload = TypeVar("_Payload")


def decode_reading(payload: bytes | bytearray) -> PointReading:
    """The payload of a value topic. Raises RefusedError; NaN, infinity and numbers beyond a float are not JSON."""
    return _decode(_READINGS, payload)


def decode_facts(payload: bytes | bytearray) -> PointFacts:
    """The payload of a metadata topic. Raises RefusedError."""
    return _decode(_FACTS, payload)


def _decode(decoder: msgspec.json.Decoder[_Payload], payload: bytes | bytearray) -> _Payload:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RefusedError(Refusal.TOO_LONG)
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(Refusal.PAYLOAD, str(error)) from error
