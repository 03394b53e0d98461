"""The site's tree in memory, as inventory messages tell it: what is part of what, and what feeds it."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from catalogue import ResourceKind, resource_id
from stream.messages import InventoryMessage

_MOST_STEPS = 64  # on the way up: more is a circle
_FROM_FILE = "told_by"  # the topology file knows better than a device what it is part of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a resource is, by names; empty for what is not known."""

    name: str
    node: str = ""
    rack: str = ""
    cdu: str = ""
    feeder: str = ""
    hall: str = ""


@dataclass(slots=True)
class _Known:
    kind: ResourceKind
    name: str
    parent: int
    serves: tuple[int, ...]
    valid_from_ms: int
    is_from_file: bool


class Tree:
    """Learns from inventory messages in any order; the newest word about a resource counts."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._aliases: dict[int, int] = {}
        self._feeders: dict[int, frozenset[int]] = {}  # by resource, what serves it; read by other threads
        self.gpu_count = 0
        self.version = 0  # changes with every change of the tree

    def learn(self, message: InventoryMessage) -> None:
        """Take note of one message. Does not raise: what makes no sense is ignored."""
        same = message.attributes.get("same_as")
        if same:
            self._alias(message.resource, resource_id(message.kind, same))
            return
        self._aliases.pop(message.resource, None)
        from_file = _FROM_FILE in message.attributes
        before = self._known.get(message.resource)
        if before is None:
            self.gpu_count += message.kind is ResourceKind.GPU
        elif message.valid_from_ms < before.valid_from_ms and from_file == before.is_from_file:
            return
        known = _merged(before, message, is_from_file=from_file)
        if known != before:
            self._known[message.resource] = known
            self._serve(message.resource, before.serves if before else (), known.serves)
            self.version += 1

    def resolve(self, resource: int) -> int:
        """The resource that an id means: another one where it is an alias."""
        return self._aliases.get(resource, resource)

    def kind(self, resource: int) -> ResourceKind | None:
        known = self._known.get(self.resolve(resource))
        return known.kind if known else None

    def name(self, resource: int) -> str:
        """Its name, or its id where it is not known."""
        known = self._known.get(self.resolve(resource))
        return known.name if known and known.name else f"{resource:016x}"

    def ancestors(self, resource: int) -> Iterator[int]:
        """What the resource is part of and what feeds that, nearest first, itself excluded."""
        seen = {start := self.resolve(resource)}
        waiting = deque([start])
        steps = 0
        while waiting and steps < _MOST_STEPS:
            steps += 1
            current = waiting.popleft()
            for above in self._above(current):
                if above not in seen:
                    seen.add(above)
                    waiting.append(above)
                    yield above

    def nearest(self, resource: int, kind: ResourceKind) -> int | None:
        """The nearest resource of a kind at or above this one."""
        own = self.resolve(resource)
        if self.kind(own) is kind:
            return own
        return next((above for above in self.ancestors(own) if self.kind(above) is kind), None)

    def place(self, resource: int) -> Place:
        def named(kind: ResourceKind) -> str:
            found = self.nearest(resource, kind)
            return "" if found is None else self.name(found)

        return Place(
            name=self.name(resource),
            node=named(ResourceKind.TRAY),
            rack=named(ResourceKind.RACK),
            cdu=named(ResourceKind.CDU),
            feeder=named(ResourceKind.FEEDER),
            hall=named(ResourceKind.HALL),
        )

    def of_kinds(self, *kinds: ResourceKind) -> Iterator[tuple[int, ResourceKind]]:
        """Every known resource of some kinds."""
        return ((resource, known.kind) for resource, known in list(self._known.items()) if known.kind in kinds)

    def _above(self, resource: int) -> Iterator[int]:
        known = self._known.get(resource)
        if known is not None and known.parent:
            yield self.resolve(known.parent)
        yield from sorted(self._feeders.get(resource, frozenset()))

    def _serve(self, resource: int, before: tuple[int, ...], now: tuple[int, ...]) -> None:
        for served in before:
            self._feeders[self.resolve(served)] = self._feeders.get(self.resolve(served), frozenset()) - {resource}
        for served in now:
            self._feeders[self.resolve(served)] = self._feeders.get(self.resolve(served), frozenset()) | {resource}

    def _alias(self, alias: int, meant: int) -> None:
        """What fed the alias feeds what it stands for: files and devices come in any order."""
        self._aliases[alias] = meant
        feeders = self._feeders.pop(alias, frozenset())
        if feeders:
            self._feeders[meant] = self._feeders.get(meant, frozenset()) | feeders
        self.version += 1


def _merged(before: _Known | None, message: InventoryMessage, *, is_from_file: bool) -> _Known:
    """The new word; a device that does not say what it is part of does not deny what the topology file says."""
    parent, serves, name = message.parent, message.serves, message.name
    if before is not None and before.is_from_file and not is_from_file:
        parent, serves, name = before.parent or parent, before.serves or serves, before.name or name
    elif before is not None:
        parent = parent or before.parent
    was_from_file = before.is_from_file if before else False
    return _Known(message.kind, name, parent, serves, message.valid_from_ms, is_from_file or was_from_file)
