"""The small site that incidents are replayed on: a hall, two CDUs, a feeder, racks of 18 trays with 4 GPUs each."""

from collections.abc import Iterator
from dataclasses import dataclass

from alerts.tree import Tree
from catalogue import ResourceKind, resource_id
from stream.messages import InventoryMessage

TRAYS, GPUS_PER_TRAY = 18, 4
START_MS = 1_795_000_000_000


@dataclass(frozen=True, slots=True)
class ReplaySite:
    """`racks` racks; the first half hangs on CDU 0, the rest on CDU 1; the feeder serves rack 0 and 1."""

    racks: int = 4

    def rack(self, rack: int) -> int:
        return resource_id(ResourceKind.RACK, f"R{rack}")

    def tray(self, rack: int, tray: int) -> int:
        return resource_id(ResourceKind.TRAY, f"R{rack}-T{tray}")

    def gpu(self, rack: int, tray: int, gpu: int) -> int:
        return resource_id(ResourceKind.GPU, f"R{rack}-T{tray}-G{gpu}")

    def port(self, rack: int, tray: int) -> int:
        return resource_id(ResourceKind.PORT, f"R{rack}-T{tray}-P")

    def cdu(self, cdu: int) -> int:
        return resource_id(ResourceKind.CDU, f"C{cdu}")

    @property
    def feeder(self) -> int:
        return resource_id(ResourceKind.FEEDER, "F0")

    @property
    def hall(self) -> int:
        return resource_id(ResourceKind.HALL, "H0")

    def inventory(self) -> Iterator[InventoryMessage]:
        yield _word(ResourceKind.HALL, "H0", "hall 0")
        half = self.racks // 2
        for cdu, served in enumerate((range(half), range(half, self.racks))):
            yield _word(ResourceKind.CDU, f"C{cdu}", f"CDU {cdu}", self.hall, tuple(map(self.rack, served)))
        yield _word(ResourceKind.FEEDER, "F0", "feeder 0", self.hall, (self.rack(0), self.rack(1)))
        for rack in range(self.racks):
            yield _word(ResourceKind.RACK, f"R{rack}", f"rack {rack}", self.hall)
            for tray in range(TRAYS):
                yield from self._tray(rack, tray)

    def _tray(self, rack: int, tray: int) -> Iterator[InventoryMessage]:
        name = f"node-{rack}-{tray}"
        yield _word(ResourceKind.TRAY, f"R{rack}-T{tray}", name, self.rack(rack))
        yield _word(ResourceKind.PORT, f"R{rack}-T{tray}-P", f"{name} mlx5_0/1", self.tray(rack, tray))
        for gpu in range(GPUS_PER_TRAY):
            yield _word(ResourceKind.GPU, f"R{rack}-T{tray}-G{gpu}", f"{name} GPU {gpu}", self.tray(rack, tray))

    def tree(self) -> Tree:
        tree = Tree()
        for message in self.inventory():
            tree.learn(message)
        return tree


def _word(
    kind: ResourceKind, identity: str, name: str, parent: int = 0, serves: tuple[int, ...] = ()
) -> InventoryMessage:
    return InventoryMessage(
        resource=resource_id(kind, identity), kind=kind, identity=identity, name=name, valid_from_ms=START_MS,
        parent=parent, serves=serves,
    )  # fmt: skip
