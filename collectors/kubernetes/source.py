"""The pods of this node that hold GPUs, from the kubelet's pod-resources API.

What the kubelet says is described in collectors/kubernetes/pod_resources.py, what follows from it in
collectors/kubernetes/holds.py.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter

import msgspec

from catalogue import Metric
from collectors.counters import CounterStore, ForgetfulStore
from collectors.devices import DeviceError, DeviceReport, DeviceState
from collectors.facility import gateway_id
from collectors.holds import Memory, Outbox, bounded
from collectors.kubernetes.holds import PodBook, PodSight, gpu_of
from collectors.kubernetes.pod_resources import Device, Kubelet, PodDevices
from collectors.kubernetes.settings import KubernetesSettings
from collectors.pseudonyms import KeyFile, NameKind, NamePolicy, PseudonymKey, PseudonymKeyError, treat_name
from collectors.source import Reading, SourceUnavailableError
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage

logger = logging.getLogger(__name__)

DEVICE = "kubelet"
_GAP_INTERVALS = 3  # polls further apart than this leave a gap, as the runner counts a source as down
_HOLDS, _SEEN = "holds", "seen"  # names of what is remembered
_NAMED = 5  # in a sentence


class KubernetesSource:
    """The pods of one node as messages; a source without rows.

    `lookup` knows the GPU behind a device whose id does not name it: a MIG instance, a minor number (see
    `collectors.kubernetes.holds.gpu_lookup`). `memory` keeps holds across restarts of the agent: without it every
    pod begins anew, and one that ended meanwhile stays open.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        *,
        gateway: str,
        clock: Clock,
        lookup: Callable[[str], str | None] = lambda _: None,
        memory: CounterStore | None = None,
    ) -> None:
        self.source_id = gateway_id(gateway, self.name)
        self._settings = settings
        self._clock = clock
        self._lookup = lookup
        self._memory = Memory(memory or ForgetfulStore(), "kubernetes")
        limit_bytes = settings.limit_mb << 20
        self._kubelet = Kubelet(Path(settings.socket), timeout_s=settings.timeout_s, limit_bytes=limit_bytes)
        self._key_file = KeyFile(Path(settings.pseudonym_key_file)) if settings.names == "hash" else None
        self._book = PodBook(grace_s=settings.grace_s, longest_gap_s=_GAP_INTERVALS * settings.interval_s)
        self._outbox = Outbox()
        self._seen_s: int | None = None  # None until what is remembered has been taken back
        self._dumped = ""
        self._shares: Counter[str] = Counter()
        self._offered: frozenset[str] = frozenset()
        self._unknown: Sequence[str] = ()
        self._report = DeviceReport(DEVICE, DeviceState.UNKNOWN)
        self._said: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return "kubernetes"

    def inventory(self) -> Sequence[InventoryMessage]:
        """Nothing: GPUs and nodes are told by those who measure them."""
        return ()

    def read(self, time_s: int) -> Sequence[Reading]:
        """Look at the node's pods; what has changed is told by `events`. Raises SourceUnavailableError."""
        self._restore(time_s)
        key = self._current_key()
        pods = self._ask()
        self._look_at_shares(
            device.id for pod in pods for device in self._gpus_of(pod.devices) if not device.is_claimed
        )
        unknown: dict[str, None] = {}
        sights = [sight for pod in pods if (sight := self._sight(pod, key, unknown))]
        self._unknown = tuple(unknown)
        self._outbox.put(self._book.observe(time_s, sights))
        self._seen_s = time_s
        self._say_oddities()
        return ()

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """What changed since the last call, and when all of it is told, what to remember of it."""
        messages = self._outbox.take()
        if self._seen_s and self._outbox.is_empty:
            self._remember(self._seen_s)
        return messages

    def devices(self) -> Sequence[DeviceReport]:
        """How the kubelet does."""
        return (self._report,)

    def remarks(self) -> Sequence[str]:
        """What could not be told, in sentences."""
        told = []
        if self._unknown:
            names = ", ".join(self._unknown[:_NAMED])
            told.append(f"{len(self._unknown)} devices ({names}) are of GPUs that are not known")
        if self._book.refused:
            told.append(f"{self._book.refused} holds of pods are more than the book takes")
        if self._key_file and self._key_file.trouble:
            told.append(self._key_file.trouble)
        return told

    def why_absent(self, resource: int, metric: Metric) -> str:  # noqa: ARG002 - the protocol's signature
        return ""

    def close(self) -> None:
        pass

    def _ask(self) -> list[PodDevices]:
        started_s = perf_counter()
        try:
            pods = self._kubelet.pods()
        except DeviceError as error:
            self._report = DeviceReport(DEVICE, error.state, str(error))
            raise SourceUnavailableError(str(error)) from error
        self._report = DeviceReport(DEVICE, DeviceState.OK, took_s=perf_counter() - started_s)
        return pods

    def _current_key(self) -> PseudonymKey | None:
        try:
            return self._key_file.current() if self._key_file else None
        except PseudonymKeyError as error:
            raise SourceUnavailableError(str(error)) from error

    def _gpus_of(self, devices: Iterable[Device]) -> list[Device]:
        """Those of the devices that are GPUs."""
        resources, drivers = self._settings.resources, self._settings.drivers
        return [
            device
            for device in devices
            if (device.resource in drivers if device.is_claimed else device.resource.startswith(resources))
        ]

    def _look_at_shares(self, held: Iterable[str]) -> None:
        """Into how many devices each GPU is divided; asked for when a device turns up that was not offered before.

        A kubelet that does not say leaves it unknown: it is good to know, but no reason to tell nothing.
        """
        if self._offered.issuperset(held):
            return
        try:
            offered = [device.id for device in self._gpus_of(self._kubelet.allocatable())]
        except DeviceError:
            return
        self._offered = frozenset(offered)
        self._shares = Counter(uuid for id_ in self._offered if (uuid := gpu_of(id_, self._lookup)))

    def _sight(self, pod: PodDevices, key: PseudonymKey | None, unknown: dict[str, None]) -> PodSight | None:
        """A pod with the GPUs that it has; None for one without. Devices of no known GPU are added to `unknown`."""
        if pod.namespace in self._settings.ignored_namespaces:
            return None
        held: dict[str, set[str]] = {}
        exclusive: set[str] = set()
        for device in self._gpus_of(pod.devices):
            uuid = gpu_of(device.id, self._lookup)
            if uuid is None:
                unknown[bounded(device.id)] = None
                continue
            held.setdefault(uuid, set()).add(device.id)
            if not device.is_claimed:
                exclusive.add(device.id)
        if not held:
            return None
        policy = NamePolicy(self._settings.names)
        name = f"{pod.namespace}/{pod.name}"
        return PodSight(
            pod=treat_name(policy, key, NameKind.POD, name),
            facts={
                "namespace": treat_name(policy, key, NameKind.NAMESPACE, pod.namespace),
                "pod": pod.name if policy is NamePolicy.KEEP else "",
            },
            customer=self._settings.customers.get(pod.namespace, ""),
            devices={uuid: frozenset(ids) for uuid, ids in held.items()},
            shares=self._shares,
            exclusive=frozenset(exclusive),
        )

    def _say_oddities(self) -> None:
        """A line when something begins to be left out, and one when nothing is any more."""
        kinds = {"unknown"} if self._unknown else set()
        kinds |= {"refused"} if self._book.refused else set()
        kinds |= {"key"} if self._key_file and self._key_file.trouble else set()
        if kinds - self._said:
            logger.warning("some pods cannot be told: %s", bounded("; ".join(self.remarks())))
        elif self._said and not kinds:
            logger.info("all pods can be told again")
        self._said = frozenset(kinds)

    def _restore(self, time_s: int) -> None:
        if self._seen_s is not None:
            return
        self._seen_s = 0
        text, seen = self._memory.get(_HOLDS), self._memory.get(_SEEN)
        if not text:
            return
        try:
            self._book.restore(text, seen_s=min(int(seen), time_s))
        except (ValueError, msgspec.MsgspecError):
            logger.warning("what was remembered of pods cannot be read: those that ended meanwhile stay open")
        self._dumped = text

    def _remember(self, seen_s: int) -> None:
        """What was told goes to the store with it: a process that follows this one goes on from there."""
        text = self._book.dump()
        if text != self._dumped:
            self._memory.put(_HOLDS, text, time_s=seen_s)
            self._dumped = text
        self._memory.put(_SEEN, str(seen_s), time_s=seen_s)
