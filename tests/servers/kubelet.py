"""A kubelet as a test server: a real gRPC server on a Unix socket that speaks the pod-resources API, version v1.

The wire is written by hand after the protocol buffers' encoding and the API's public field numbers, so that nothing is
shared with the description under test. Fields that nobody asked for are sent too, as newer kubelets do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

GPU_RESOURCE = "nvidia.com/gpu"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(number: int, payload: bytes) -> bytes:
    """A field of wire type 2: text, or a message within a message."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def text(number: int, value: str) -> bytes:
    return message(number, value.encode())


def integer(number: int, value: int) -> bytes:
    """A field of wire type 0."""
    return _varint(number << 3) + _varint(value)


def container_devices(resource: str, ids: Sequence[str]) -> bytes:
    """ContainerDevices: resource_name 1, device_ids 2, topology 3 with nodes 1 and their ID 1."""
    return text(1, resource) + b"".join(text(2, id_) for id_ in ids) + message(3, message(1, integer(1, 0)))


def claim(driver: str, device: str) -> bytes:
    """DynamicResource: claim_name 2, claim_namespace 3, claim_resources 4.

    ClaimResource: cdi_devices 1 with name 1, driver_name 2, pool_name 3, device_name 4, share_id 5.
    """
    resource = message(1, text(1, f"k8s.{driver}/claim={device}")) + text(2, driver) + text(3, "node-7")
    return text(2, "a-claim") + text(3, "team-a") + message(4, resource + text(4, device) + text(5, "share"))


@dataclass(frozen=True)
class Container:
    """What one container has: ids by resource, and pairs of driver and device."""

    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    claims: Sequence[tuple[str, str]] = ()
    name: str = "main"

    def encode(self) -> bytes:
        """ContainerResources: name 1, devices 2, cpu_ids 3, memory 4 (memory_type 1, size 2), dynamic_resources 5."""
        parts = [text(1, self.name)]
        parts += [message(2, container_devices(resource, ids)) for resource, ids in self.devices.items()]
        parts += [message(3, b"\x00\x01\x02"), message(4, text(1, "memory") + integer(2, 1 << 34))]
        parts += [message(5, claim(driver, device)) for driver, device in self.claims]
        return b"".join(parts)


@dataclass(frozen=True)
class Pod:
    """PodResources: name 1, namespace 2, containers 3; numbers that do not exist yet are sent after them."""

    namespace: str
    name: str
    containers: Sequence[Container]

    def encode(self) -> bytes:
        containers = b"".join(message(3, container.encode()) for container in self.containers)
        return text(1, self.name) + text(2, self.namespace) + containers + text(900, "from the future")


def pod(name: str, *gpus: str, namespace: str = "team-a", resource: str = GPU_RESOURCE) -> Pod:
    """A pod of one container with these GPUs."""
    return Pod(namespace, name, [Container({resource: gpus} if gpus else {})])


@dataclass
class Kubelet:
    """What the server answers to the next question; a test changes it at will."""

    socket: Path
    pods: Sequence[Pod] = ()
    offered: Mapping[str, Sequence[str]] = field(default_factory=dict)
    answer: bytes | None = None  # these bytes instead of the list
    refuses: Any = None  # a status code instead of an answer
    says: str = ""
    hangs: bool = False
    asked: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def list_pods(self, request: bytes, context: Any) -> bytes:
        self._receive("List", request, context)
        return b"".join(message(1, one.encode()) for one in self.pods) if self.answer is None else self.answer

    def allocatable(self, request: bytes, context: Any) -> bytes:
        """AllocatableResourcesResponse: devices 1, cpu_ids 2."""
        self._receive("GetAllocatableResources", request, context)
        offered = (message(1, container_devices(resource, ids)) for resource, ids in self.offered.items())
        return b"".join(offered) + message(2, b"\x00\x01")

    def _receive(self, method: str, request: bytes, context: Any) -> None:
        assert request == b""  # both requests are empty messages
        self.asked.append(method)
        if self.hangs:
            self.released.wait(30)
        if self.refuses is not None:
            context.abort(self.refuses, self.says)


@contextmanager
def kubelet(socket: Path) -> Iterator[Kubelet]:
    """A running kubelet. Its socket goes with it."""
    state = Kubelet(socket)
    handlers = {
        "List": grpc.unary_unary_rpc_method_handler(state.list_pods),
        "GetAllocatableResources": grpc.unary_unary_rpc_method_handler(state.allocatable),
    }
    with ThreadPoolExecutor(4, thread_name_prefix="kubelet") as executor:
        server = grpc.server(executor)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", handlers),))
        assert server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            yield state
        finally:
            state.released.set()
            server.stop(None).wait(10)
            socket.unlink(missing_ok=True)
