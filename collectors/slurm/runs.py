"""The book of a cluster's runs: what is told of them, from what two listings say at one look. Pure.

A run is one start of one job, as a job that is requeued or changes its size has several. Its key is the job's number
and its start. The controller knows what runs now and on which GPUs; accounting knows for certain how it ended, but not
on which GPUs it was: those are remembered from before, until accounting is asked no more about the time when it ended.

Who is right: a run has ended when either says so, by accounting's word if it has one; of one that goes on the
controller knows more. A run that both have forgotten ended when it was last seen.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from dataclasses import replace as replace_record

import msgspec
from msgspec.structs import replace

from collectors.holds import bounded, gpu_resource, retraction
from collectors.slurm.json import JobRecord
from collectors.slurm.nodes import Placement
from stream.messages import JobMessage

MAX_RUNS = 100_000  # that go on or ended of late
MAX_HOLDS = 500_000  # of GPUs by them: five times a site of 100,000
SKEW_MS = 300_000  # a cluster's clock may run ahead of ours this much before its times are called wrong
_NAMED = 5  # in a sentence

OPEN_STATES = frozenset({"RUNNING", "SUSPENDED"})
# A start that is only planned, or that Slurm sets anew when the nodes have booted.
_NOT_STARTED = frozenset({"PENDING", "CONFIGURING", "POWER_UP_NODE"})
# slurm.h, enum job_states, and what sacct calls the ends of runs that went on as others; the rest are flags.
_BASE_STATES = (
    "RUNNING", "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL",
    "DEADLINE", "OUT_OF_MEMORY", "REQUEUED", "RESIZING", "REVOKED",
)  # fmt: skip

RunKey = tuple[int, int]  # the job's number, its start in milliseconds


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What was told of one run."""

    job_id: int
    job: str
    start_ms: int
    gpus: tuple[tuple[str, str], ...]  # UUID and node
    end_ms: int | None = None
    name: str = ""
    owner: str = ""
    customer: str = ""
    restarts: int | None = None
    attributes: dict[str, str] = {}

    @property
    def key(self) -> RunKey:
        return self.job_id, self.start_ms

    def messages(self) -> Iterator[JobMessage]:
        """One for each GPU that the run holds."""
        for uuid, node in self.gpus:
            yield JobMessage(
                job=self.job,
                resource=gpu_resource(uuid),
                start_ms=self.start_ms,
                end_ms=self.end_ms,
                name=self.name,
                owner=self.owner,
                customer=self.customer,
                attributes={**self.attributes, "node": bounded(node)},
            )


@dataclass(frozen=True, slots=True)
class Told:
    """What may be told of a job apart from its times and GPUs."""

    job: str
    name: str = ""
    owner: str = ""
    customer: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one time. A listing is None when it is not read or could not be."""

    time_ms: int
    controller: Sequence[JobRecord] | None = None
    accounting: Sequence[JobRecord] | None = None
    is_complete: bool  # whether everything that is read was, up to now: a run that is not in it is over
    forget_before_ms: int  # accounting is not asked about what ended before


@dataclass(slots=True)
class Oddities:
    """What a look could not make sense of, by the jobs' numbers."""

    unplaced: dict[int, int] = field(default_factory=dict)  # GPUs that were not found, by job
    implausible: list[int] = field(default_factory=list)  # times that cannot be
    runaway: list[int] = field(default_factory=list)  # accounting lets them run, the controller does not know them
    refused: list[int] = field(default_factory=list)  # more than the book holds

    def sentences(self) -> list[str]:
        """What is wrong and what to do."""
        told = (
            (self.unplaced, "have GPUs that are not known; complete slurm.gpus_file, or let controller give details"),
            (self.implausible, "have times that cannot be; compare the clocks of this machine and the controller"),
            (self.runaway, "run by accounting alone; see: sacctmgr show runawayjobs"),
            (self.refused, f"were left out: more than {MAX_RUNS} runs or {MAX_HOLDS} GPUs at once"),
        )
        return [f"{len(jobs)} jobs ({_some(jobs)}) {what}" for jobs, what in told if jobs]


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What both listings say of one run."""

    controller: JobRecord | None
    accounting: JobRecord | None

    @property
    def is_confirmed(self) -> bool:
        """Whether it is more than accounting's word that a run goes on, which may be behind, or wrong for ever."""
        return self.controller is not None or _has_ended(self.record)

    @property
    def record(self) -> JobRecord:
        """The better word, completed by the other."""
        mine, other = self.controller, self.accounting
        if mine is None or (other is not None and _has_ended(other)):
            mine, other = other, mine
        assert mine is not None  # noqa: S101 - a sighting is by one of the two
        return mine if other is None else _complete(mine, other)


class RunBook:
    """What has been told of the runs of one cluster. Not for use by two threads at once.

    `place` finds a job's GPUs, `tell` says what may be told of it.
    """

    def __init__(self, place: Callable[[JobRecord], Placement], tell: Callable[[JobRecord], Told]) -> None:
        self._place = place
        self._tell = tell
        self._runs: dict[RunKey, Run] = {}
        self._by_job: dict[int, set[RunKey]] = {}
        self._seen_ms: dict[RunKey, int] = {}
        self._holds = 0
        self._changed: set[int] = set()
        self.oddities = Oddities()

    @property
    def runs(self) -> Iterable[Run]:
        return self._runs.values()

    def restore(self, runs: Iterable[Run], *, seen_ms: int) -> None:
        """Take back what another process knew, which was last seen at `seen_ms`."""
        for run in runs:
            self._keep(run)
            self._seen_ms[run.key] = seen_ms
        self._changed.clear()

    def take_changed(self) -> set[int]:
        """The numbers of the jobs of which something has changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def observe(self, look: Look) -> list[JobMessage]:
        """What there is to tell after a look."""
        self.oddities = Oddities()
        sightings = self._sightings(look)
        messages = [message for key, sighting in sightings.items() for message in self._see(key, sighting, look)]
        confirmed = {key for key, sighting in sightings.items() if sighting.is_confirmed}
        for record in look.controller or ():
            messages += self._judge_other_starts(record, confirmed)
        if look.is_complete:
            messages += self._end_unseen(sightings)
        self._forget(sightings, look)
        return messages

    def _sightings(self, look: Look) -> dict[RunKey, _Sighting]:
        found = [self._by_key(records or (), look) for records in (look.controller, look.accounting)]
        return {key: _Sighting(found[0].get(key), found[1].get(key)) for key in {**found[0], **found[1]}}

    def _by_key(self, records: Sequence[JobRecord], look: Look) -> dict[RunKey, JobRecord]:
        """The runs that have begun. Where accounting has two records of one start, the later one counts."""
        runs: dict[RunKey, JobRecord] = {}
        for record in records:
            start_ms = _start_ms(record)
            if start_ms is None:
                continue
            if start_ms > look.time_ms + SKEW_MS:
                self.oddities.implausible.append(record.job_id)
                continue
            runs[record.job_id, start_ms] = record
        return runs

    def _see(self, key: RunKey, sighting: _Sighting, look: Look) -> list[JobMessage]:
        """What one sighting changes."""
        known, record = self._runs.get(key), sighting.record
        if look.controller is not None and not sighting.is_confirmed:
            self.oddities.runaway.append(record.job_id)
            return []
        self._seen_ms[key] = look.time_ms
        try:
            end_ms = _end_ms(record, key[1], look)
        except ValueError:
            self.oddities.implausible.append(record.job_id)
            return []
        gpus = self._gpus(known, sighting)
        if not gpus:
            return []
        if known is None and not self._has_room(len(gpus)):
            self.oddities.refused.append(record.job_id)
            return []
        return self._change(known, self._run(key, record, end_ms, gpus))

    def _has_room(self, holds: int) -> bool:
        return len(self._runs) < MAX_RUNS and self._holds + holds <= MAX_HOLDS

    def _gpus(self, known: Run | None, sighting: _Sighting) -> tuple[tuple[str, str], ...]:
        """The GPUs as the controller has them, or as they were before; else as accounting lets them be found."""
        if known is not None and not (sighting.controller and any(sighting.controller.details)):
            return known.gpus
        placement = self._place(sighting.controller or sighting.record)
        if placement.missing:
            self.oddities.unplaced[sighting.record.job_id] = placement.missing
        # A book that has become shorter takes back nothing that was told.
        return known.gpus if known is not None and len(placement.gpus) < len(known.gpus) else placement.gpus

    def _run(self, key: RunKey, record: JobRecord, end_ms: int | None, gpus: tuple[tuple[str, str], ...]) -> Run:
        told = self._tell(record)
        state = next((state for state in _BASE_STATES if state in record.states), "") or min(record.states, default="")
        facts = {
            "scheduler": "slurm",
            "state": state.lower(),
            "partition": record.partition,
            "qos": record.qos,
            "gpus": str(record.gpu_count or len(gpus)),
            "nodes": str(record.node_count or len({node for _, node in gpus})),
            "array": record.array,
            "het": record.het,
            "restarts": str(record.restarts) if record.restarts else "",
            "exit_code": _text(record.return_code) if end_ms is not None else "",
            "signal": _text(record.signal) if end_ms is not None else "",
            **told.attributes,
        }
        return Run(
            job_id=key[0],
            job=told.job,
            start_ms=key[1],
            gpus=gpus,
            end_ms=end_ms,
            name=bounded(told.name),
            owner=told.owner,
            customer=bounded(told.customer),
            restarts=record.restarts,
            attributes={name: bounded(fact) for name, fact in facts.items() if fact},
        )

    def _change(self, known: Run | None, run: Run) -> list[JobMessage]:
        """The messages that turn what was told into what is now known."""
        if run == known:
            return []
        taken_back = [] if known is None else [hold for hold in known.messages() if hold.resource not in _held(run)]
        self._keep(run)
        return [*(retraction(hold, "not a GPU of this job") for hold in taken_back), *run.messages()]

    def _judge_other_starts(self, record: JobRecord, confirmed: Set[RunKey]) -> list[JobMessage]:
        """What the controller's one start of a job says about others of it that are open and that nobody confirms."""
        start_ms = _start_ms(record)
        messages: list[JobMessage] = []
        if start_ms is None or (record.job_id, start_ms) not in confirmed:
            return messages
        for key in self._by_job.get(record.job_id, set()) - confirmed:
            run = self._runs[key]
            if run.end_ms is not None:
                continue
            if record.resized_s is not None and record.resized_s * 1000 == start_ms > run.start_ms:
                messages += self._end(run, start_ms, "resize")
            elif run.restarts is not None and run.restarts == record.restarts:
                messages += self._take_back(run)
        return messages

    def _end_unseen(self, sightings: Mapping[RunKey, _Sighting]) -> list[JobMessage]:
        """Ends what nobody knows any more: when it was last seen, but before the job's next run."""
        messages: list[JobMessage] = []
        for key in [key for key, run in self._runs.items() if run.end_ms is None and key not in sightings]:
            run = self._runs[key]
            later = [start_ms for _, start_ms in self._by_job[run.job_id] if start_ms > run.start_ms]
            end_ms = min([self._seen_ms.get(key, run.start_ms), *later])
            messages += self._end(run, max(end_ms, run.start_ms), "poll")
        return messages

    def _end(self, run: Run, end_ms: int, how: str) -> list[JobMessage]:
        attributes = {**run.attributes, "end_seen": how}
        return self._change(run, replace(run, end_ms=end_ms, attributes=attributes))

    def _take_back(self, run: Run) -> list[JobMessage]:
        """The run began at another time than was told: its restarts say that it is the same one."""
        self._drop(run.key)
        return [retraction(message, "the start was corrected") for message in run.messages()]

    def _keep(self, run: Run) -> None:
        before = self._runs.get(run.key)
        self._holds += len(run.gpus) - (len(before.gpus) if before else 0)
        self._runs[run.key] = run
        self._by_job.setdefault(run.job_id, set()).add(run.key)
        self._changed.add(run.job_id)

    def _drop(self, key: RunKey) -> None:
        run = self._runs.pop(key)
        self._holds -= len(run.gpus)
        self._seen_ms.pop(key, None)
        self._by_job[run.job_id].discard(key)
        if not self._by_job[run.job_id]:
            del self._by_job[run.job_id]
        self._changed.add(run.job_id)

    def _forget(self, sightings: Mapping[RunKey, _Sighting], look: Look) -> None:
        """Runs that ended so long ago that nothing more will be heard of them."""
        old = [
            key
            for key, run in self._runs.items()
            if run.end_ms is not None and run.end_ms < look.forget_before_ms and key not in sightings
        ]
        for key in old:
            self._drop(key)
        for key in self._seen_ms.keys() - self._runs.keys():
            del self._seen_ms[key]


def _start_ms(record: JobRecord) -> int | None:
    """When the run began that a record is of; None before it has. A change of size begins a run, as in accounting."""
    if record.start_s is None or record.states & _NOT_STARTED:
        return None
    return max(record.start_s, record.resized_s or 0) * 1000


def _has_ended(record: JobRecord) -> bool:
    return not record.states & OPEN_STATES and record.end_s is not None


def _end_ms(record: JobRecord, start_ms: int, look: Look) -> int | None:
    """When the run ended, None while it goes on. ValueError for a time that cannot be."""
    if not _has_ended(record) or record.end_s is None:
        return None
    end_ms = record.end_s * 1000
    if not start_ms - SKEW_MS <= end_ms <= look.time_ms + SKEW_MS:
        raise ValueError("a run ends before it begins, or in the future")
    return max(end_ms, start_ms)


def _complete(record: JobRecord, other: JobRecord) -> JobRecord:
    """A record with what only the other one tells."""
    names = (
        "user", "account", "name", "partition", "qos", "cluster", "nodes", "gpu_count", "node_count", "restarts",
        "array", "het",
    )  # fmt: skip
    missing = {name: getattr(other, name) for name in names if getattr(record, name) in ("", None)}
    return replace_record(record, **missing)


def _held(run: Run) -> set[int]:
    return {gpu_resource(uuid) for uuid, _ in run.gpus}


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _some(jobs: Iterable[int]) -> str:
    names = [str(job) for job in jobs]
    return ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
