"""Slurm's JSON as records of jobs: what the controller lists and what accounting lists, in both of its generations.

Slurm 21.08 to 23.02 (openapi v0.0.37 and v0.0.38, data_parser v0.0.39) writes most numbers as such and a state as
text; from 23.11 (data_parser v0.0.40 and later) optional numbers are {"set": bool, "infinite": bool, "number": n}, and
a state is a list of one base state and its flags. The controller (scontrol, squeue, slurmrestd's /jobs) and accounting
(sacct, slurmrestd's slurmdb /jobs) name things differently. A field may be of either kind in any version, so both are
read everywhere. Working directories, command lines, comments and addresses are not looked at.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from collectors.devices import DeviceError, DeviceState

MAX_JOBS = 200_000  # of one listing
NO_VALUE = 0xFFFFFFFC  # slurm.h: INFINITE and NO_VAL are the numbers from here to the end of 32 bits
LAST_TIME_S = 1 << 32  # the year 2106: what a job's time can be
_COMPLAINT_CHARACTERS = 200


class _Loose(msgspec.Struct, frozen=True):
    """A part of a document of which only some fields are read."""


class _Box(_Loose, frozen=True):
    set: bool = True
    infinite: bool = False
    number: int | float | None = None


Number = int | float | str | _Box | None


class _Signal(_Loose, frozen=True):
    signal_id: Number = None  # up to v0.0.39
    id: Number = None


class _ExitCode(_Loose, frozen=True):
    """Either parts, or a boxed wait status (v0.0.39's controller)."""

    set: bool = True
    infinite: bool = False
    number: int | float | None = None
    return_code: Number = None
    signal: _Signal | None = None


class _State(_Loose, frozen=True):
    current: str | list[str] | None = None


class _Time(_Loose, frozen=True):
    start: Number = None
    end: Number = None


class _Tres(_Loose, frozen=True):
    type: str | None = None
    name: str | None = None
    count: Number = None


class _TresLists(_Loose, frozen=True):
    allocated: list[_Tres] | None = None


class _Array(_Loose, frozen=True):
    job_id: Number = None
    task_id: Number = None


class _Het(_Loose, frozen=True):
    job_id: Number = None
    job_offset: Number = None


class _Association(_Loose, frozen=True):
    user: str | None = None


class _NodeList(_Loose, frozen=True):
    list: str | None = None


class _Resources(_Loose, frozen=True):
    nodes: str | _NodeList | None = None  # text up to v0.0.40


class _Job(_Loose, frozen=True):
    """What either listing says of a job."""

    job_id: Number = None
    account: str | None = None
    name: str | None = None
    partition: str | None = None
    qos: str | None = None
    cluster: str | None = None
    nodes: str | None = None
    exit_code: int | float | _ExitCode | None = None
    restart_cnt: Number = None
    # of the controller
    user_name: str | None = None
    user_id: Number = None
    job_state: str | list[str] | None = None
    start_time: Number = None
    end_time: Number = None
    resize_time: Number = None
    gres_detail: list[str | None] | None = None
    job_resources: _Resources | None = None
    tres_alloc_str: str | None = None
    node_count: Number = None
    array_job_id: Number = None
    array_task_id: Number = None
    het_job_id: Number = None
    het_job_offset: Number = None
    # of accounting
    user: str | None = None
    association: _Association | None = None
    state: _State | None = None
    time: _Time | None = None
    tres: _TresLists | None = None
    allocation_nodes: Number = None
    array: _Array | None = None
    het: _Het | None = None


class _Complaint(_Loose, frozen=True):
    description: str | None = None
    error: str | None = None


class _Document(_Loose, frozen=True):
    jobs: list[msgspec.Raw] | None = None
    errors: list[msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One run of a job as one listing tells it. Times are UTC seconds; None and empty is what it does not tell."""

    job_id: int
    states: frozenset[str]
    start_s: int | None = None
    end_s: int | None = None  # of a running job: when its time limit ends
    resized_s: int | None = None
    user: str = ""
    account: str = ""
    name: str = ""
    partition: str = ""
    qos: str = ""
    cluster: str = ""
    nodes: str = ""  # a host list, in the order of `details`
    details: tuple[str, ...] = ()  # of generic resources, one for each node
    gpu_count: int | None = None
    node_count: int | None = None
    restarts: int | None = None
    array: str = ""
    het: str = ""
    return_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class JobListing:
    """The jobs of one listing, and how many it has that could not be read."""

    records: tuple[JobRecord, ...] = field(default=())
    unreadable: int = 0


def read_listing(document: bytes) -> JobListing:
    """The jobs of a listing in any of Slurm's forms. Raises DeviceError when it is no listing at all.

    A job that has something of a wrong kind is left out and counted; the others stay.
    """
    try:
        listing = msgspec.json.decode(document, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise DeviceError(DeviceState.NONSENSE, f"the listing is no JSON of Slurm: {str(error)[:200]}") from error
    if not listing.jobs:
        complaint = _complaint(listing.errors or [])
        if complaint or listing.jobs is None:
            raise DeviceError(DeviceState.NONSENSE, f"the listing has no jobs: {complaint or 'it does not name any'}")
    jobs = listing.jobs or []
    if len(jobs) > MAX_JOBS:
        raise DeviceError(DeviceState.NONSENSE, f"the listing has {len(jobs)} jobs, more than {MAX_JOBS}")
    records = tuple(_records(jobs))
    return JobListing(records, len(jobs) - len(records))


def _records(jobs: list[msgspec.Raw]) -> Iterator[JobRecord]:
    decoder = msgspec.json.Decoder(_Job)
    for raw in jobs:
        try:
            record = _record(decoder.decode(raw))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            continue
        if record is not None:
            yield record


def _complaint(errors: list[msgspec.Raw]) -> str:
    """The first error that a document names."""
    for raw in errors[:1]:
        try:
            error = msgspec.json.decode(raw, type=_Complaint)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return "it names an error"
        said = " ".join((error.description or error.error or "it names an error").split())[:_COMPLAINT_CHARACTERS]
        return "".join(letter if letter.isprintable() else "?" for letter in said)
    return ""


def _record(job: _Job) -> JobRecord | None:
    job_id = _number(job.job_id)
    if not job_id:
        return None
    time, array, het = job.time or _Time(), job.array or _Array(), job.het or _Het()
    return_code, signal = _exit(job.exit_code)
    return JobRecord(
        job_id=job_id,
        states=_states(job),
        start_s=_time(job.start_time) or _time(time.start),
        end_s=_time(job.end_time) or _time(time.end),
        resized_s=_time(job.resize_time),
        user=_user(job),
        account=job.account or "",
        name=job.name or "",
        partition=job.partition or "",
        qos=job.qos or "",
        cluster=job.cluster or "",
        nodes=_nodes(job),
        details=tuple(detail or "" for detail in job.gres_detail or ()),
        gpu_count=_gpu_count(job),
        node_count=_number(job.node_count) or _number(job.allocation_nodes),
        restarts=_number(job.restart_cnt),
        array=_part_of(_number(job.array_job_id) or _number(array.job_id), "_", job.array_task_id, array.task_id),
        het=_part_of(_number(job.het_job_id) or _number(het.job_id), "+", job.het_job_offset, het.job_offset),
        return_code=return_code,
        signal=signal,
    )


def _states(job: _Job) -> frozenset[str]:
    """The base state and its flags, in capitals; what follows a word, as in "CANCELLED by 1000", is left out."""
    current = job.job_state or (job.state.current if job.state else None) or []
    words = (text.split() for text in ([current] if isinstance(current, str) else current))
    return frozenset(word[0].upper() for word in words if word)


def _user(job: _Job) -> str:
    """The user's name; where the controller knows none, the number that it has for one."""
    name = job.user_name or job.user or (job.association.user if job.association else None) or ""
    number = _number(job.user_id)
    return name or ("" if number is None else f"uid:{number}")


def _nodes(job: _Job) -> str:
    """The nodes in the order of the details: that of the allocated resources where they are told."""
    found = job.job_resources.nodes if job.job_resources else None
    allocated = found.list if isinstance(found, _NodeList) else found
    return allocated or job.nodes or ""


def _gpu_count(job: _Job) -> int | None:
    """The GPUs allocated, over all nodes; None where nobody counts them (AccountingStorageTRES without gres/gpu)."""
    if job.tres and job.tres.allocated:
        counts = {tres.name or "": _number(tres.count) for tres in job.tres.allocated if tres.type == "gres"}
    else:
        items = (item.partition("=") for item in (job.tres_alloc_str or "").split(","))
        counts = {key.removeprefix("gres/"): _number(text) for key, _, text in items if key.startswith("gres/")}
    if (total := counts.get("gpu")) is not None:
        return total
    by_type = [count for name, count in counts.items() if name.startswith("gpu:") and count is not None]
    return sum(by_type) if by_type else None


def _exit(code: int | float | _ExitCode | None) -> tuple[int | None, int | None]:
    """Return code and signal; a plain or boxed number is a wait status (wait(2))."""
    if isinstance(code, _ExitCode):
        if code.return_code is not None or code.signal is not None:
            signal = code.signal or _Signal()
            return _number(code.return_code), _number(signal.id) or _number(signal.signal_id) or None
        status = code.number if code.set and not code.infinite else None
    else:
        status = code
    number = _number(status)
    return (None, None) if number is None else ((number >> 8) & 0xFF, number & 0x7F or None)


def _part_of(whole: int | None, sign: str, *parts: Number) -> str:
    """Such as 4700_3 for task 3 of array 4700; empty for a job that is part of none, which has 0 for the whole."""
    numbers = [number for part in parts if (number := _number(part)) is not None]
    return f"{whole}{sign}{numbers[0]}" if whole and numbers else ""


def _time(value: Number) -> int | None:
    """A time; 0 is Slurm's word for none."""
    number = _number(value)
    return number if number and number < LAST_TIME_S else None


def _number(value: Number) -> int | None:
    """A whole number from 0 up that is set and finite; None for everything else."""
    if isinstance(value, _Box):
        value = value.number if value.set and not value.infinite else None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) <= 10 else None
    if value is None or not math.isfinite(value) or not 0 <= value < 1 << 53:
        return None
    return None if NO_VALUE <= value < 1 << 32 else int(value)
