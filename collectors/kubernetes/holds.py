"""The book of a node's pods: which pod held which GPU since when, from what the kubelet lists poll after poll. Pure.

The kubelet tells neither when a pod began nor when it ended, and no id of it but its name. A hold begins when it is
first seen and ends when it is not seen any more; both lie up to one interval late, so that its length is right on
average, and where nobody looked in between, the hold ends when it was last seen. A kubelet that has just been started
lists its pods one after the other: a hold that is missing ends only after a time of grace, but then as of when it was
first missing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from collectors.holds import bounded, gpu_resource
from stream.messages import JobMessage

MAX_HOLDS = 10_000  # of one node: 16 GPUs, each shared by hundreds
_LONGEST_POD = 220  # of 256 characters of a job's name; namespace and name may have 317
_POLL, _GAP, _GIVEN_ON = "poll", "gap", "device given on"

# NVIDIA's device plugin: the GPU's UUID, with "::" and a number where the GPU is shared in time.
_GPU = re.compile(r"(GPU-[0-9A-Za-z-]{1,64})(?:::[0-9]+)?")
_OLD_MIG = re.compile(r"MIG-(GPU-[0-9A-Za-z-]{1,64})/[0-9]+/[0-9]+")  # drivers before R470 name the parent
# GKE's device plugin: nvidia3, nvidia3/gi1, nvidia3/vgpu0; NVIDIA's driver for dynamic allocation: gpu-3, gpu-3-mig-...
_MINOR = re.compile(r"(?:nvidia|gpu-)([0-9]{1,4})(?![0-9]).*")

HoldId = tuple[str, str]  # pod, UUID


def gpu_of(device: str, lookup: Callable[[str], str | None]) -> str | None:
    """The UUID of the board behind a device of the kubelet; `lookup` is asked where the id itself does not say."""
    for pattern in (_GPU, _OLD_MIG):
        if found := pattern.fullmatch(device):
            return found[1]
    # A MIG instance that is shared in time has a number at its end as well.
    return lookup(device.partition("::")[0])


def gpu_lookup(
    by_minor: Callable[[], Mapping[int, str]], mig_parents: Callable[[], Mapping[str, str]]
) -> Callable[[str], str | None]:
    """What `gpu_of` needs, from what NVML knows: UUIDs of boards by minor number, and by UUID of MIG instance."""

    def find(device: str) -> str | None:
        if device.startswith("MIG-"):
            return mig_parents().get(device)
        minor = _MINOR.fullmatch(device)
        return by_minor().get(int(minor[1])) if minor else None

    return find


@dataclass(frozen=True, slots=True)
class PodSight:
    """A pod as listed: what may be told of it, and its devices by the GPU that they are of."""

    pod: str  # namespace/name, or its pseudonym
    facts: Mapping[str, str]
    customer: str = ""
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)  # ids by UUID
    shares: Mapping[str, int] = field(default_factory=dict)  # into how many devices a GPU is divided, by UUID
    exclusive: frozenset[str] = frozenset()  # those of the devices that only one pod can have


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One pod's hold on one GPU as it was told; `missing_since_s` when it may be over."""

    pod: str
    uuid: str
    began_s: int  # the pod, as first seen with any GPU
    start_s: int
    end_s: int | None = None
    missing_since_s: int | None = None
    noticed_s: int | None = None
    end_seen: str = ""
    customer: str = ""
    attributes: dict[str, str] = {}

    def message(self) -> JobMessage:
        began = datetime.fromtimestamp(self.began_s, UTC)
        has_ended = self.end_s is not None
        return JobMessage(
            job=f"{_short(self.pod)}@{began:%Y%m%dT%H%M%SZ}",
            resource=gpu_resource(self.uuid),
            start_ms=self.start_s * 1000,
            end_ms=None if self.end_s is None else self.end_s * 1000,
            customer=bounded(self.customer),
            attributes={**self.attributes, "end_seen": self.end_seen} if has_ended else self.attributes,
        )

    @property
    def present(self) -> "Hold":
        """The same hold, not missing."""
        return replace(self, missing_since_s=None, noticed_s=None, end_seen="")


class _Document(msgspec.Struct, frozen=True):
    holds: list[Hold]
    over: list[tuple[str, str]] = []


class PodBook:
    """What has been told of a node's pods. Not for use by two threads at once.

    A hold that is missing ends after `grace_s`. Polls further apart than `longest_gap_s` leave a gap.
    """

    def __init__(self, *, grace_s: int, longest_gap_s: int) -> None:
        self._grace_s = grace_s
        self._longest_gap_s = longest_gap_s
        self._holds: dict[HoldId, Hold] = {}
        self._over: set[tuple[str, str]] = set()  # pods and devices that were given on, while they are still listed
        self._seen_s: int | None = None
        self.refused = 0  # at the last poll

    def dump(self) -> str:
        """Everything but when it was last seen, as text for `restore`."""
        document = _Document(list(self._holds.values()), sorted(self._over))
        return msgspec.json.encode(document).decode()

    def restore(self, text: str, *, seen_s: int) -> None:
        """Take back what `dump` gave and what was last seen at `seen_s`. ValueError for other text."""
        document = msgspec.json.decode(text, type=_Document)
        self._holds = {(hold.pod, hold.uuid): hold for hold in document.holds[:MAX_HOLDS]}
        self._over = set(document.over)
        self._seen_s = seen_s

    def observe(self, time_s: int, sights: Iterable[PodSight]) -> list[JobMessage]:
        """What there is to tell after a poll at `time_s`."""
        self.refused = 0
        seen = {sight.pod: sight for sight in sights}
        began = {hold.pod: hold.began_s for hold in self._holds.values()}
        self._give_on(seen, began, time_s)
        told = [*self._miss(seen, time_s), *self._see(seen, began, time_s)]
        self._seen_s = time_s
        return [hold.message() for hold in told]

    def _give_on(self, seen: Mapping[str, PodSight], began: Mapping[str, int], time_s: int) -> None:
        """A device that only one pod can have belongs to the one that came last: the others have ended.

        Older kubelets list a pod that has ended until it is deleted, also when its device is another's already.
        """
        listed = {(pod, device) for pod, sight in seen.items() for device in sight.exclusive}
        self._over &= listed
        holders: dict[str, list[str]] = {}
        for pod, device in listed - self._over:
            holders.setdefault(device, []).append(pod)
        for device, pods in holders.items():
            last_s = max(began.get(pod, time_s) for pod in pods)
            self._over |= {(pod, device) for pod in pods if began.get(pod, time_s) < last_s}

    def _held(self, sight: PodSight, uuid: str) -> int:
        """How many of its devices of a GPU a pod still has."""
        return sum((sight.pod, device) not in self._over for device in sight.devices.get(uuid, ()))

    def _see(self, seen: Mapping[str, PodSight], began: Mapping[str, int], time_s: int) -> Iterator[Hold]:
        """Holds that are there: new ones, and those of which something has changed."""
        for pod, sight in seen.items():
            for uuid in sight.devices:
                if held := self._held(sight, uuid):
                    yield from self._note(sight, uuid, held, began.get(pod, time_s), time_s)

    def _note(self, sight: PodSight, uuid: str, held: int, began_s: int, time_s: int) -> Iterator[Hold]:
        known = self._holds.get((sight.pod, uuid))
        if known is None and len(self._holds) >= MAX_HOLDS:
            self.refused += 1
            return
        facts = {
            "scheduler": "kubernetes",
            **sight.facts,
            "devices": str(held),
            "devices_of_gpu": str(sight.shares.get(uuid, "")),
            "start_seen": known.attributes.get("start_seen", "") if known else self._how(time_s),
        }
        hold = Hold(
            pod=sight.pod,
            uuid=uuid,
            began_s=known.began_s if known else began_s,
            start_s=known.start_s if known else time_s,
            customer=sight.customer,
            attributes={name: bounded(fact) for name, fact in facts.items() if fact},
        )
        self._holds[sight.pod, uuid] = hold
        if known is None or known.present != hold:
            yield hold

    def _miss(self, seen: Mapping[str, PodSight], time_s: int) -> Iterator[Hold]:
        """Holds that are over: at once where the device was given on, else after the time of grace."""
        for key, hold in list(self._holds.items()):
            sight = seen.get(hold.pod)
            if sight is not None and self._held(sight, hold.uuid):
                continue
            is_given_on = sight is not None and hold.uuid in sight.devices
            missing = self._missing(hold, time_s, _GIVEN_ON if is_given_on else self._how(time_s))
            if is_given_on or time_s - (missing.noticed_s or time_s) >= self._grace_s:
                del self._holds[key]
                yield replace(missing, end_s=missing.missing_since_s)
            else:
                self._holds[key] = missing

    def _missing(self, hold: Hold, time_s: int, how: str) -> Hold:
        """A hold that is not there, with the time since when: that of its end, should it not come back."""
        if hold.missing_since_s is not None:
            return hold
        since_s = self._seen_s if how == _GAP and self._seen_s is not None else time_s
        return replace(hold, missing_since_s=max(since_s, hold.start_s), noticed_s=time_s, end_seen=how)

    def _how(self, time_s: int) -> str:
        """How well a time is known: to an interval, or only to some time in which nobody looked."""
        is_close = self._seen_s is not None and time_s - self._seen_s <= self._longest_gap_s
        return _POLL if is_close else _GAP


def _short(pod: str) -> str:
    """A pod's name within a job's; a long one is cut, and told from others by a digest."""
    text = bounded(pod)
    if len(pod) <= _LONGEST_POD:
        return text
    digest = blake2b(pod.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: _LONGEST_POD - 17]}~{digest}"
