"""What a node with GPUs is: inventory messages of its rack and of each GPU. Its tray's are in `collectors.tray`."""

from catalogue import ResourceKind
from collectors.nvml.gpu import GpuIdentity
from collectors.nvml.health import FabricPlace
from collectors.tray import TrayPlace
from stream.messages import InventoryMessage


def rack_message(tray: TrayPlace, *, source: int, time_ms: int) -> InventoryMessage:
    """The rack of a tray that knows its chassis."""
    return InventoryMessage(
        resource=tray.parent,
        kind=ResourceKind.RACK,
        identity=tray.rack,
        name=tray.rack,
        valid_from_ms=time_ms,
        source=source,
        attributes={"chassis_serial": tray.rack},
    )


def gpu_message(
    gpu: GpuIdentity, tray: TrayPlace, *, fabric: FabricPlace | None, driver: str, source: int, time_ms: int
) -> InventoryMessage:
    """A GPU in its tray; what NVML does not tell is left out."""
    facts = {
        "index": str(gpu.index),
        "model": gpu.model,
        "serial": gpu.serial,
        "pci_bus_id": gpu.pci_bus_id,
        "driver_version": driver,
        "mig": "" if gpu.mig is None else ("enabled" if gpu.mig else "disabled"),
        "module": str(gpu.place.module) if gpu.place else "",
        "fabric_cluster": fabric.cluster if fabric else "",
        "fabric_clique": str(fabric.clique) if fabric else "",
    }
    return InventoryMessage(
        resource=gpu.resource,
        kind=ResourceKind.GPU,
        identity=gpu.uuid,
        name=f"{tray.name} GPU {gpu.index}",
        valid_from_ms=time_ms,
        parent=tray.resource,
        source=source,
        attributes={name: fact for name, fact in facts.items() if fact},
    )
