"""Back-ups of the embedded store: asked for beside the running store, made inside it, restored into a new folder.

Only the store's own process has the engine, and only it can hold ingest back between two plans. So the running store
answers at a socket in the folder above its data; where none runs, the one who asks opens the engine.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Self
from uuid import UUID

import msgspec
from clickhouse_connect.driver.client import Client

from kvandal.addresses import kafka_address
from kvandal.plans import TablePlans
from kvandal.settings import KafkaSettings
from storage import backup
from storage.backup import BackupError, Manifest
from storage.books import FrameBooks, PlanTable
from storage.client import StoreAddress, connect
from storage.engine import Engine
from stream.ingest import Insert, Writer
from stream.log import Partition
from stream.rewind import StoredEnd, rewind_group
from stream.rows import Rows

logger = logging.getLogger(__name__)

_SOCKET = "backup.sock"
_NO_PLAN = ""
# An insert and its lines in `frames` take seconds; with more than this the store is in trouble.
_PATIENCE_S = 300.0
_MEMORY_BYTES = 4 << 30
_MOST_BYTES = 1 << 16  # of a request or an answer


class PlanGate:
    """Keeps back-ups and half-written plans apart: a plan holds it from its first row to its line in `frames`."""

    def __init__(self, *, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = Lock()
        self._token = _NO_PLAN

    def enter(self, token: str) -> None:
        """Begin the plan, or go on with it after an error. Blocks while a snapshot is taken."""
        if token != self._token:
            self._lock.acquire()
            self._token = token

    def leave(self, token: str) -> None:
        """The plan is written to its end."""
        if token == self._token:
            self._token = _NO_PLAN
            self._lock.release()

    @contextmanager
    def between_plans(self) -> Iterator[None]:
        """Hold ingest back. BackupError when a plan cannot be finished for minutes."""
        if not self._lock.acquire(timeout=self._patience_s):
            raise BackupError(
                f"an insert has not ended for {self._patience_s:g} s; see the store's log, then try again"
            )
        try:
            yield
        finally:
            self._lock.release()


class GatedWriter:
    """A writer whose plans are whole whenever a back-up is taken. Rows come before their frames; messages have none."""

    def __init__(self, writer: Writer, gate: PlanGate) -> None:
        self._writer = writer
        self._gate = gate

    def encode_rows(self, table: str, rows: Rows) -> Insert:
        insert = self._writer.encode_rows(table, rows)

        def gated(token: str) -> None:
            self._gate.enter(token)
            insert(token)
            if table == "frames":
                self._gate.leave(token)

        return gated

    def insert_messages(self, table: str, lines: Sequence[bytes], *, token: str) -> None:
        self._gate.enter(token)
        self._writer.insert_messages(table, lines, token=token)
        self._gate.leave(token)


class _Request(msgspec.Struct, frozen=True):
    target: str


class _Answer(msgspec.Struct, frozen=True):
    """What came of a request: how many rows and bytes, or why there is no back-up."""

    rows: int = 0
    bytes: int = 0
    error: str = ""


class BackupDesk:
    """Takes requests for back-ups in the store's own process, one at a time, until closed."""

    def __init__(self, data: Path, gate: PlanGate) -> None:
        self._data = Path(os.path.realpath(data))
        self._gate = gate
        with _socket_at(self._data) as (server, place):
            with suppress(FileNotFoundError):  # left by a process that was killed; the engine's lock says that it is
                os.unlink(place)  # noqa: PTH108 - a path below /proc, which pathlib would resolve
            server.bind(place)
            os.chmod(place, 0o600)  # noqa: PTH101 - as above
            server.listen()
            self._server = server.dup()
        self._thread = Thread(target=self._serve, name="backup", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests; a back-up under way is left to end with the process."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        (self._data.parent / _SOCKET).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            try:
                asker, _ = self._server.accept()
            except OSError:  # closed
                return
            with asker:
                try:
                    _send(asker, self._answer(asker))
                except OSError as error:
                    logger.warning("who asked for a back-up has gone: %s", error)

    def _answer(self, asker: socket.socket) -> _Answer:
        """BackupError and the like become the answer: whoever asked reads it, and the store goes on."""
        try:
            request = msgspec.json.decode(_receive(asker), type=_Request)
            with closing(connect(StoreAddress(f"chdb://{self._data}"))) as client:
                manifest = _take(client, self._data, Path(request.target), self._gate)
        except (BackupError, OSError, ValueError) as error:
            logger.error("no back-up was made: %s", error)
            return _Answer(error=str(error))
        logger.info("backed up", extra={"rows": manifest.rows, "bytes": manifest.bytes, "to": request.target})
        return _Answer(manifest.rows, manifest.bytes)


def back_up(data: Path, target: Path) -> tuple[int, int]:
    """Back the store in `data` up into the new folder `target`; returns rows and bytes.

    While the store runs it is asked to do so itself, as its own user. BackupError; OSError where the folder cannot be
    written.
    """
    data, target = Path(os.path.realpath(data)), Path(os.path.realpath(target))
    with _socket_at(data) as (asker, place):
        try:
            asker.connect(place)
        except OSError:  # nobody listens: no store runs, or the engine's lock will tell
            return _back_up_idle(data, target)
        _send(asker, _Request(str(target)))
        answer = msgspec.json.decode(_receive(asker) or b'{"error": "the store ended meanwhile"}', type=_Answer)
    if answer.error:
        raise BackupError(answer.error)
    return answer.rows, answer.bytes


def restore(source: Path, data: Path) -> Manifest:
    """Restore a back-up into the empty or new folder `data`, ready for `kvandal store` to go on from the log.

    BackupError; OSError when the folder cannot be written or is in use.
    """
    backup.read_manifest(source)  # before a folder is made
    if data.exists() and any(data.iterdir()):
        raise BackupError(f"{data} is not empty; restore into a new folder, or move this one away")
    with _idle_store(data) as (client, _):
        manifest = backup.restore(client, source)
        _forget_stored_journal(client, data.parent / "journal")
    return manifest


def rewind_to_store(kafka: KafkaSettings, store: StoreAddress) -> dict[Partition, tuple[int, int]]:
    """Set the consumer group back to where a restored ClickHouse server ends; returns offsets before and after.

    All of the group's members must have ended. LogUnavailableError when they have not, or no broker answers.
    """
    with closing(connect(store)) as client:
        books = FrameBooks(client)

        def stored_end(topic_id: UUID) -> StoredEnd:
            log_epoch, ends = books.stored_end(topic_id)
            return StoredEnd(log_epoch, ends)

        return rewind_group(kafka_address(kafka), kafka.group, stored_end)


def _back_up_idle(data: Path, target: Path) -> tuple[int, int]:
    if not data.is_dir():
        raise BackupError(f"there is no store in {data}; name the folder that kvandal store was given")
    with _idle_store(data) as (client, path):
        manifest = _take(client, path, target, PlanGate())
    return manifest.rows, manifest.bytes


@contextmanager
def _idle_store(data: Path) -> Iterator[tuple[Client, Path]]:
    """A client of the engine on a folder that no store uses; EngineUnavailableError when one does."""
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.open(data, memory_limit_bytes=_MEMORY_BYTES))
        yield stack.enter_context(closing(connect(StoreAddress(f"chdb://{engine.path}")))), engine.path


def _take(client: Client, data: Path, target: Path, gate: PlanGate) -> Manifest:
    with gate.between_plans():
        snapshot = backup.freeze(client, data)
    try:
        return snapshot.copy_to(target)
    finally:
        snapshot.discard()


def _forget_stored_journal(client: Client, journal: Path) -> None:
    """Drop journalled plans that the back-up holds already: without their tokens they would be stored again."""
    for path in journal.glob("*.plan"):
        topic = path.stem
        orphan = TablePlans(PlanTable(client), journal).orphan(topic, UUID(int=0))
        if orphan and any(
            backup.holds_frames(client, orphan[0].topic_id, planned.partition, planned.first, planned.end)
            for planned in orphan[0].ranges
        ):
            path.unlink()


@contextmanager
def _socket_at(data: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and its place beside `data` by way of /proc: a path of its own may be longer than sockets allow."""
    folder = os.open(data.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
            yield made, f"/proc/self/fd/{folder}/{_SOCKET}"
    finally:
        os.close(folder)


def _send(peer: socket.socket, message: _Request | _Answer) -> None:
    peer.sendall(msgspec.json.encode(message) + b"\n")


def _receive(peer: socket.socket) -> bytes:
    """One line; empty when the peer has gone."""
    with peer.makefile("rb") as lines:
        return lines.readline(_MOST_BYTES)
