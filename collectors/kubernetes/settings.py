"""Settings of the Kubernetes source."""

from typing import Annotated, Literal

import msgspec

Text = Annotated[str, msgspec.Meta(max_length=256)]
FilePath = Annotated[str, msgspec.Meta(max_length=4096)]


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the Kubernetes source reads on a node, and what it tells of whom."""

    interval_s: Annotated[int, msgspec.Meta(ge=1, le=300)] = 10
    # A path of a Unix socket has room for 107 characters (unix(7)).
    socket: Annotated[str, msgspec.Meta(min_length=1, max_length=107)] = "/var/lib/kubelet/pod-resources/kubelet.sock"
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0
    limit_mb: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4  # of an answer; 250 pods take a tenth of it
    grace_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 60  # for a pod that is not listed, before it is over
    resources: tuple[Text, ...] = ("nvidia.com/",)  # extended resources whose names begin so are GPUs
    drivers: tuple[Text, ...] = ("gpu.nvidia.com",)  # of dynamic resource allocation
    ignored_namespaces: tuple[Text, ...] = ()  # pods that hold GPUs for another scheduler, whose jobs are told already
    customers: dict[Text, Text] = {}  # namespace: customer
    names: Literal["keep", "hash"] = "keep"  # of pods and namespaces
    pseudonym_key_file: FilePath = ""

    def __post_init__(self) -> None:
        if self.names == "hash" and not self.pseudonym_key_file:
            raise ValueError('kubernetes.names is "hash"; give kubernetes.pseudonym_key_file')
