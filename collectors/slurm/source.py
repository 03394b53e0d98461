"""The jobs of a Slurm cluster: which one held which GPU, from when to when, and whose it was under a pseudonym.

Read by the gateway, or wherever Slurm's commands and their rights are: a node's agent starts no program. What the
commands print is described in collectors/slurm/json.py, what follows from it in collectors/slurm/runs.py.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from catalogue import Metric
from collectors.counters import CounterStore, ForgetfulStore
from collectors.device_pool import DevicePool
from collectors.devices import DeviceReport
from collectors.facility import gateway_id
from collectors.holds import MESSAGES_PER_TICK, Memory, Outbox, bounded
from collectors.pseudonyms import KeyFile, NameKind, PseudonymKey, PseudonymKeyError, treat_name
from collectors.slurm.json import JobListing, JobRecord, read_listing
from collectors.slurm.listing import read_file, run_command
from collectors.slurm.nodes import FileGpuBook, GpuBook, GpuBookError, Placement, place
from collectors.slurm.runs import Look, Run, RunBook, Told
from collectors.slurm.settings import ACCOUNTING, CONTROLLER, SINCE, UNTIL, ListingSettings, SlurmSettings
from collectors.source import Reading, SourceUnavailableError
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage

logger = logging.getLogger(__name__)

SHARDS = 64  # documents that the book is kept in: a change writes one of them
_WINDOW, _LOOKED = "accounting until", "looked at"  # names of what is remembered
_SLACK_S = 5.0  # a command's own time-out ends it before the pool's deadline does


class SlurmSource:
    """The jobs of one cluster as messages; a source without rows.

    `book` knows the nodes' GPUs, by default from the settings' file. `memory` keeps across restarts what was told, so
    that a job which ends meanwhile is closed: without it such a job stays open, unless it has whole nodes.
    """

    def __init__(
        self,
        settings: SlurmSettings,
        *,
        gateway: str,
        clock: Clock,
        book: GpuBook | None = None,
        memory: CounterStore | None = None,
        messages_per_tick: int = MESSAGES_PER_TICK,
    ) -> None:
        self.source_id = gateway_id(gateway, self.name)
        self._settings = settings
        self._clock = clock
        self._file_book = FileGpuBook(Path(settings.gpus_file)) if book is None and settings.gpus_file else None
        self._book: GpuBook = book or self._file_book or _NoGpus()
        self._key_file = KeyFile(Path(settings.pseudonym_key_file)) if settings.pseudonym_key_file else None
        self._key: PseudonymKey | None = None
        self._memory = Memory(memory or ForgetfulStore(), f"slurm/{settings.cluster}")
        self._runs = RunBook(self._place, self._tell)
        self._outbox = Outbox(messages_per_tick)
        self._restored = False
        self._window = _Window(0, 0)
        self._covered_s = 0  # accounting has been asked up to here
        self._looked_s = 0
        self._unreadable: Mapping[str, int] = {}
        self._book_trouble = ""
        self._said: frozenset[str] = frozenset()
        readers = self._readers()
        longest_s = max(settings.controller.timeout_s, settings.accounting.timeout_s)
        self._pool: DevicePool[JobListing] = DevicePool(
            readers, source=self.name, workers=len(readers), deadline_s=longest_s + _SLACK_S, clock=clock
        )

    @property
    def name(self) -> str:
        return "slurm"

    def inventory(self) -> Sequence[InventoryMessage]:
        """Nothing: GPUs and nodes are told by those who measure them."""
        return ()

    def read(self, time_s: int) -> Sequence[Reading]:
        """Look at the cluster; what has changed is told by `events`. Raises SourceUnavailableError."""
        self._restore(time_s)
        self._refresh_key()
        self._refresh_book()
        self._window = self._next_window(time_s)
        listings = self._pool.poll()
        if not listings:
            raise SourceUnavailableError("; ".join(report.why or report.state for report in self._pool.reports()))
        self._unreadable = {name: listing.unreadable for name, listing in listings.items() if listing.unreadable}
        self._outbox.put(self._runs.observe(self._look(listings, time_s)))
        if "accounting" in listings:
            self._covered_s = self._window.until_s
        self._looked_s = time_s
        self._say_oddities()
        return ()

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """What changed since the last call, and when all of it is told, what to remember of it."""
        messages = self._outbox.take()
        if self._restored and self._outbox.is_empty:
            self._remember()
        return messages

    def devices(self) -> Sequence[DeviceReport]:
        """How the two listings do."""
        return self._pool.reports()

    def remarks(self) -> Sequence[str]:
        """What could not be told, in sentences."""
        unreadable = [f"{count} jobs of {name} could not be read" for name, count in self._unreadable.items()]
        key_trouble = self._key_file.trouble if self._key_file else ""
        return [*self._runs.oddities.sentences(), *unreadable, *filter(None, (key_trouble, self._book_trouble))]

    def why_absent(self, resource: int, metric: Metric) -> str:  # noqa: ARG002 - the protocol's signature
        return ""

    def close(self) -> None:
        self._pool.close()

    # Reading

    def _readers(self) -> dict[str, Callable[[], JobListing]]:
        settings = self._settings
        readers: dict[str, Callable[[], JobListing]] = {}
        if settings.controller.is_read:
            readers["controller"] = lambda: read_listing(self._bytes_of(settings.controller, CONTROLLER))
        if settings.accounting.is_read:
            readers["accounting"] = lambda: read_listing(self._bytes_of(settings.accounting, ACCOUNTING))
        return readers

    def _bytes_of(self, listing: ListingSettings, default: Sequence[str]) -> bytes:
        now_s, limit_bytes = self._clock.utc_ms() // 1000, listing.limit_mb << 20
        if listing.file:
            return read_file(Path(listing.file), limit_bytes=limit_bytes, oldest_s=now_s - listing.file_age_s)
        window = self._window
        since, until = str(max(now_s - window.since_s, 0)), str(max(now_s - window.until_s, 0))
        words = default if listing.command is None else listing.command
        command = [word.replace(SINCE, since).replace(UNTIL, until) for word in words]
        return run_command(command, timeout_s=listing.timeout_s, limit_bytes=limit_bytes)

    def _next_window(self, time_s: int) -> "_Window":
        """What accounting is asked about: from some time before it was last asked, but not too much at once."""
        settings = self._settings
        since_s = min(self._covered_s or time_s, time_s) - settings.overlap_s
        return _Window(since_s, min(since_s + settings.longest_window_s, time_s))

    def _look(self, listings: Mapping[str, JobListing], time_s: int) -> Look:
        controller, accounting = listings.get("controller"), listings.get("accounting")
        settings = self._settings
        is_complete = (
            (controller is not None or not settings.controller.is_read)
            and (accounting is not None or not settings.accounting.is_read)
            and self._window.until_s >= time_s
        )
        return Look(
            time_ms=time_s * 1000,
            controller=controller.records if controller else None,
            accounting=accounting.records if accounting else None,
            is_complete=is_complete,
            forget_before_ms=self._window.since_s * 1000,
        )

    def _refresh_key(self) -> None:
        """The key of now. Without one nobody's name goes out; one that is wanted and missing stops everything."""
        if self._key_file is None:
            return
        try:
            self._key = self._key_file.current()
        except PseudonymKeyError as error:
            raise SourceUnavailableError(str(error)) from error

    def _refresh_book(self) -> None:
        """The nodes' GPUs as of now; a book that was good once stays in use."""
        if self._file_book is None:
            return
        try:
            self._file_book.refresh()
        except GpuBookError as error:
            self._book_trouble = str(error)
        else:
            self._book_trouble = ""

    # Telling

    def _place(self, record: JobRecord) -> Placement:
        return place(record.nodes, record.details, record.gpu_count, self._book)

    def _tell(self, record: JobRecord) -> Told:
        settings, key = self._settings, self._key
        account = record.account.lower()  # as Slurm's accounting has it
        return Told(
            job=f"{settings.cluster}/{record.job_id}" if settings.cluster else str(record.job_id),
            name=treat_name(settings.job_names, key, NameKind.JOB_NAME, record.name),
            owner=key.pseudonym(NameKind.USER, record.user) if key and record.user else "",
            customer=settings.customers.get(record.account) or settings.customers.get(account, ""),
            attributes={
                "cluster": settings.cluster or record.cluster,
                "account": treat_name(settings.accounts, key, NameKind.ACCOUNT, account),
            },
        )

    def _say_oddities(self) -> None:
        """A line for each kind of trouble when it begins, and one when there is none any more."""
        oddities = self._runs.oddities
        kinds = {name for name in ("unplaced", "implausible", "refused") if getattr(oddities, name)}
        kinds |= {f"unreadable {name}" for name in self._unreadable} | ({"book"} if self._book_trouble else set())
        kinds |= {"key"} if self._key_file and self._key_file.trouble else set()
        if kinds - self._said:
            logger.warning("some jobs cannot be told: %s", bounded("; ".join(self.remarks())))
        elif self._said and not kinds:
            logger.info("all jobs can be told again")
        self._said = frozenset(kinds)

    # Remembering

    def _restore(self, time_s: int) -> None:
        if self._restored:
            return
        self._covered_s = _whole(self._memory.get(_WINDOW))
        self._looked_s = _whole(self._memory.get(_LOOKED))
        decoder = msgspec.json.Decoder(list[Run])
        for shard in range(SHARDS):
            document = self._memory.get(f"runs/{shard}")
            try:
                runs = decoder.decode(document) if document else []
            except msgspec.MsgspecError:
                logger.warning("what was remembered of some jobs cannot be read", extra={"shard": shard})
                continue
            self._runs.restore(runs, seen_ms=min(self._looked_s, time_s) * 1000)
        self._restored = True

    def _remember(self) -> None:
        """What was told goes to the store with it: a process that follows this one goes on from there."""
        changed = {job_id % SHARDS for job_id in self._runs.take_changed()}
        of_shards = sorted((run for run in self._runs.runs if run.job_id % SHARDS in changed), key=_shard)
        documents = {shard: list(runs) for shard, runs in groupby(of_shards, key=_shard)}
        for shard in changed:
            text = msgspec.json.encode(documents.get(shard, [])).decode()
            self._memory.put(f"runs/{shard}", text, time_s=self._looked_s)
        self._memory.put(_WINDOW, str(self._covered_s), time_s=self._looked_s)
        self._memory.put(_LOOKED, str(self._looked_s), time_s=self._looked_s)


class _Window(msgspec.Struct, frozen=True):
    """What accounting is asked about, UTC seconds."""

    since_s: int
    until_s: int


class _NoGpus:
    """A book without nodes: no job can be placed, and every one is counted."""

    def uuid_of(self, node: str, index: int) -> None:  # noqa: ARG002 - the protocol's signature
        return None

    def gpus_of(self, node: str) -> Mapping[int, str]:  # noqa: ARG002 - the protocol's signature
        return {}


def _shard(run: Run) -> int:
    return run.job_id % SHARDS


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else 0
