"""The kubelet's pod-resources API, version v1: which pod has which devices on this node.

The service is `v1.PodResourcesLister` on a Unix socket (Kubernetes: "Device plugins", section "Monitoring device plugin
resources"; stable since 1.28). Of its messages only the fields below are described, by their numbers on the wire;
everything else is skipped, so that newer kubelets are understood too. Nothing is generated: the message classes are
made from the description when the first question is asked.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from collectors.devices import DeviceError, DeviceState

SERVICE = "v1.PodResourcesLister"
_PACKAGE = "kvandal.kubelet"  # ours alone: the wire knows no names
MAX_PODS = 10_000  # of one node: a kubelet runs 110 unless told otherwise
MAX_DEVICES = 100_000
_COMPLAINT_CHARACTERS = 200

# Message: field: number and type, "string" or another message. All messages repeat; a string does where it ends in "s".
FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ListPodResourcesResponse": {"pod_resources": (1, "PodResources")},
    "AllocatableResourcesResponse": {"devices": (1, "ContainerDevices")},
    "PodResources": {"name": (1, "string"), "namespace": (2, "string"), "containers": (3, "ContainerResources")},
    "ContainerResources": {
        "name": (1, "string"),
        "devices": (2, "ContainerDevices"),
        "dynamic_resources": (5, "DynamicResource"),  # since 1.27
    },
    "ContainerDevices": {"resource_name": (1, "string"), "device_ids": (2, "string")},
    "DynamicResource": {"claim_resources": (4, "ClaimResource")},
    "ClaimResource": {"driver_name": (2, "string"), "pool_name": (3, "string"), "device_name": (4, "string")},
}

_STATES = {
    grpc.StatusCode.UNAVAILABLE: DeviceState.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeviceState.SLOW,
    grpc.StatusCode.PERMISSION_DENIED: DeviceState.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: DeviceState.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a container has: an extended resource and its device's id, or a driver and its device's name.

    `is_claimed` says that it came by dynamic resource allocation, where several pods may share one.
    """

    resource: str
    id: str
    is_claimed: bool = False


@dataclass(frozen=True, slots=True)
class PodDevices:
    """A pod and all devices of its containers."""

    namespace: str
    name: str
    devices: tuple[Device, ...]


class Kubelet:
    """Asks the kubelet of this node. Every question has a connection of its own, so that a restart is not noticed.

    Questions raise DeviceError: the socket is missing, nobody listens, there was no answer in time, or no sensible one.
    """

    def __init__(self, socket: Path, *, timeout_s: float, limit_bytes: int) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes

    def pods(self) -> list[PodDevices]:
        """Every pod that the kubelet lists, with its devices; those that have ended may be among them for a while."""
        answer: Any = self._ask("List", "ListPodResourcesResponse")
        if len(answer.pod_resources) > MAX_PODS:
            raise DeviceError(DeviceState.NONSENSE, f"the kubelet lists {len(answer.pod_resources)} pods")
        pods = [PodDevices(pod.namespace, pod.name, tuple(_devices(pod.containers))) for pod in answer.pod_resources]
        if (count := sum(len(pod.devices) for pod in pods)) > MAX_DEVICES:
            raise DeviceError(DeviceState.NONSENSE, f"the kubelet lists {count} devices of pods")
        return pods

    def allocatable(self) -> list[Device]:
        """Every device that a plugin has offered and that is healthy, held or not."""
        answer: Any = self._ask("GetAllocatableResources", "AllocatableResourcesResponse")
        return [Device(device.resource_name, id_) for device in answer.devices for id_ in device.device_ids]

    def _ask(self, method: str, answer: str) -> Message:
        self._look_for_socket()
        options = [
            ("grpc.max_receive_message_length", self._limit_bytes),
            ("grpc.use_local_subchannel_pool", 1),  # or a new connection would wait as long as the one that failed
            ("grpc.enable_http_proxy", 0),
        ]
        try:
            with grpc.insecure_channel(f"unix:{self._socket}", options=options) as channel:
                data = channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise _failure(method, error) from error
        try:
            return _classes()[answer].FromString(data)
        except DecodeError as error:
            raise DeviceError(DeviceState.NONSENSE, f"the kubelet's answer to {method} is not of API v1") from error

    def _look_for_socket(self) -> None:
        try:
            is_socket = stat.S_ISSOCK(self._socket.stat().st_mode)
        except PermissionError as error:
            raise DeviceError(DeviceState.REFUSED, f"{self._socket} may not be used: {error.strerror}") from error
        except OSError as error:
            raise DeviceError(
                DeviceState.UNREACHABLE,
                f"{self._socket} cannot be found ({error.strerror}): is this a node of Kubernetes, and is the folder "
                "mounted into the agent's container?",
            ) from error
        if not is_socket:
            raise DeviceError(DeviceState.NONSENSE, f"{self._socket} is no socket")


def _devices(containers: Iterable[Any]) -> Iterable[Device]:
    """The devices of containers; a device that several of them have is told once."""
    found: dict[Device, None] = {}
    for container in containers:
        for offered in container.devices:
            found |= dict.fromkeys(Device(offered.resource_name, id_) for id_ in offered.device_ids)
        for dynamic in container.dynamic_resources:
            claims = dynamic.claim_resources
            found |= dict.fromkeys(Device(claim.driver_name, claim.device_name, is_claimed=True) for claim in claims)
    return found


def _failure(method: str, error: Any) -> DeviceError:  # noqa: ANN401 - grpc has no types
    code, details = error.code(), " ".join(str(error.details() or "").split())[:_COMPLAINT_CHARACTERS]
    said = "".join(letter if letter.isprintable() else "?" for letter in details)
    return DeviceError(
        _STATES.get(code, DeviceState.NONSENSE), f"the kubelet answers {method} with {code.name}: {said}"
    )


@cache
def _classes() -> dict[str, type[Message]]:
    file = FileDescriptorProto(name="pod_resources", package=_PACKAGE, syntax="proto3")
    for message, fields in FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            described.field.append(_field(name, number, kind))
    pool = DescriptorPool()
    pool.Add(file)
    return {message: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message}")) for message in FIELDS}


def _field(name: str, number: int, kind: str) -> FieldDescriptorProto:
    is_text = kind == "string"
    return FieldDescriptorProto(
        name=name,
        number=number,
        type=FieldDescriptorProto.TYPE_STRING if is_text else FieldDescriptorProto.TYPE_MESSAGE,
        type_name=None if is_text else f".{_PACKAGE}.{kind}",
        label=(
            FieldDescriptorProto.LABEL_REPEATED
            if not is_text or name.endswith("s")
            else FieldDescriptorProto.LABEL_OPTIONAL
        ),
    )
