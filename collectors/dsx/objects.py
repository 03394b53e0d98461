"""Racks, CDUs and meters of the BMS bus as resources: what each is called, what it serves, which points are its own.

Pure. Only metadata are looked at: a tag path is the building system's own affair (docs/bms-integration.md).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from catalogue import ResourceKind, resource_id
from collectors.dsx.message import PointAddress, PointFacts
from collectors.dsx.settings import DsxSettings
from stream.messages import InventoryMessage

# In the order in which an id counts: those of racks were agreed on with the IT side, the others are the BMS's own.
KINDS: Mapping[str, ResourceKind] = {
    "Rack": ResourceKind.RACK,
    "PowerMeter": ResourceKind.METER,
    "CDU": ResourceKind.CDU,
}


@dataclass(frozen=True, slots=True)
class DescribedPoint:
    """A point with its metadata. `topic` is where its values come."""

    topic: str
    address: PointAddress
    facts: PointFacts

    @property
    def kind(self) -> ResourceKind | None:
        return KINDS.get(self.address.object_type)

    @property
    def object_id(self) -> str:
        """The bus's id of what the point belongs to; empty where its metadata do not say."""
        own = self.facts.rack_location_id if self.kind is ResourceKind.RACK else self.facts.object_id
        found = own or self.facts.associate_id or ""
        return found if found.strip() and found.isprintable() else ""

    @property
    def object_name(self) -> str:
        """What people call that; empty where its metadata do not say."""
        name = self.facts.rack_location_name or self.facts.object_name or ""
        return name if name.isprintable() else ""


@dataclass(frozen=True, slots=True)
class BusObject:
    """A rack, CDU or meter: something that the catalogue has a kind for."""

    id: str  # as the bus calls it
    kind: ResourceKind
    identity: str  # as we do
    points: tuple[DescribedPoint, ...]  # whose object type it is; not those that are only associated

    @property
    def resource(self) -> int:
        return resource_id(self.kind, self.identity)

    @property
    def name(self) -> str:
        return next((point.object_name for point in self.points if point.object_name), self.id)

    @property
    def serves(self) -> list[str]:
        """Ids of what it feeds; every point of a meter says them, so that each can be read alone."""
        return sorted({served for point in self.points for served in point.facts.serves_id or ()})


class BusObjects:
    """The racks, CDUs and meters that a set of points describes; every point has an id."""

    def __init__(self, points: Iterable[DescribedPoint], settings: DsxSettings) -> None:
        self._settings = settings
        self._hall = resource_id(ResourceKind.HALL, settings.hall) if settings.hall else 0
        self._objects = self._group(points)
        ranks = {kind: rank for rank, kind in enumerate(KINDS.values())}
        ranked = sorted(self._objects.values(), key=lambda found: ranks[found.kind], reverse=True)
        self._by_id = {found.id: found for found in ranked}

    def owner(self, point: DescribedPoint) -> BusObject | None:
        """What the point belongs to: an object of its own type, or one that it is associated with."""
        if point.kind is not None:
            return self._objects[point.kind, point.object_id]
        return self._by_id.get(point.object_id)

    def device(self, point: DescribedPoint) -> tuple[int, str]:
        """Resource and identity of what the point hangs on in the tree.

        Equipment that the catalogue has no kind for is an identity in the hall.
        """
        owner = self.owner(point)
        if owner is not None:
            return owner.resource, owner.identity
        return self._hall, self._settings.identities.get(point.object_id, point.object_id)

    def of_kind(self, kind: ResourceKind) -> Iterator[BusObject]:
        return (found for found in self._objects.values() if found.kind is kind)

    def inventory(self, *, source: int, time_ms: int) -> Iterator[InventoryMessage]:
        """What every object is called, where it stands and what it feeds, as far as that is known on this bus."""
        for found in self._objects.values():
            served = {self._by_id[each].resource for each in found.serves if each in self._by_id}
            yield InventoryMessage(
                resource=found.resource,
                kind=found.kind,
                identity=found.identity,
                name=found.name,
                valid_from_ms=time_ms,
                parent=self._hall,
                serves=tuple(sorted(served - {found.resource})),
                source=source,
                attributes={"dsx_id": found.id, **self._settings.facts.get(found.id, {})},
            )

    def _group(self, points: Iterable[DescribedPoint]) -> dict[tuple[ResourceKind, str], BusObject]:
        grouped: defaultdict[tuple[ResourceKind, str], list[DescribedPoint]] = defaultdict(list)
        for point in points:
            if point.kind is not None:
                grouped[point.kind, point.object_id].append(point)
        return {
            (kind, bus_id): BusObject(bus_id, kind, self._settings.identities.get(bus_id, bus_id), tuple(found))
            for (kind, bus_id), found in grouped.items()
        }
