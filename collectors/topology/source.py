"""The site as its people commissioned it: topology files, read when they change, told as inventory.

The source has no readings. It tells every word whose time has come: a move that is planned for later is told when it
is due. While the files are wrong it goes on telling what they said before, and says at each read what is wrong.
"""

import logging
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from collectors.devices import DeviceReport, DeviceState
from collectors.facility import gateway_id
from collectors.source import Reading, SourceUnavailableError
from collectors.topology.assembly import assemble
from collectors.topology.entry import Entry
from collectors.topology.file import FileText, TopologyFileError, parse_file, read_file
from collectors.topology.settings import TopologySettings
from collectors.topology.tree import Tree
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage

logger = logging.getLogger(__name__)

# What tells that a file is another one than before: content, or a file put in its place.
Signature = tuple[int, int, int, int]


class TopologySource:
    """The files of `settings` as inventory; `gateway` is the identity of the machine that reads them.

    All files are taken together or not at all. What has no date of its own holds since its file is as it is.
    """

    def __init__(self, settings: TopologySettings, *, gateway: str, clock: Clock) -> None:
        self._files = [Path(name) for name in settings.files]
        self._source = gateway_id(gateway, self.name)
        self._clock = clock
        self._signatures: Mapping[Path, Signature | None] | None = None  # None before the first look
        self._digests: Sequence[bytes] = ()  # of the files that are told
        self._words: Sequence[InventoryMessage] = ()  # in order of time
        self._told = 0  # how many of them, the first ones, were given by `inventory`
        self._is_new = False
        self._problems: Sequence[str] = ()
        self._reports: Sequence[DeviceReport] = tuple(_report(path, DeviceState.UNKNOWN) for path in self._files)

    @property
    def name(self) -> str:
        return "topology"

    def inventory(self) -> Sequence[InventoryMessage]:
        """A word for each entry whose time has come, and for each alias; as of the last files that were right."""
        if self._signatures is None:
            self._look()
        self._told, self._is_new = self._due(), False
        return self._words[: self._told]

    def inventory_changed(self) -> bool:
        """Whether files have changed, or a planned move has come about."""
        return self._is_new or self._due() > self._told

    def read(self, time_s: int) -> Sequence[Reading]:  # noqa: ARG002 - files are as they are now
        """Nothing: SourceUnavailableError when the files are wrong, with the first of the sentences about it."""
        self._look()
        if self._problems:
            raise SourceUnavailableError(str(TopologyFileError(list(self._problems))))
        return ()

    def events(self) -> Sequence[EventMessage | JobMessage]:
        return ()

    def devices(self) -> Sequence[DeviceReport]:
        """How each file does."""
        return self._reports

    def close(self) -> None:
        pass

    def _due(self) -> int:
        """How many words have come about. A word of the future would be refused by ingest."""
        now_ms, count = self._clock.utc_ms(), self._told if not self._is_new else 0
        while count < len(self._words) and self._words[count].valid_from_ms <= now_ms:
            count += 1
        return count

    def _look(self) -> None:
        signatures = {path: _signature(path) for path in self._files}
        if signatures == self._signatures:
            return
        self._signatures = signatures
        files, problems = self._read_files()
        if not problems:
            problems = self._take(files)
        self._judge(problems)

    def _read_files(self) -> tuple[list[FileText], list[str]]:
        """The files that can be read, and what keeps the others from it."""
        files, problems = [], []
        for path in self._files:
            try:
                files.append(read_file(path))
            except TopologyFileError as error:
                problems += error.problems
            except OSError as error:
                problems.append(f"{path} cannot be read ({error.strerror}); put it there, or correct topology.files")
        return files, problems

    def _take(self, files: Sequence[FileText]) -> list[str]:
        """Tell from now on what the files say; or what is wrong with them."""
        digests = [blake2b(file.text.encode()).digest() for file in files]
        if digests == self._digests:  # a file was touched, or copied onto itself
            return []
        try:
            tree = _tree_of(files, now_ms=self._clock.utc_ms())
        except TopologyFileError as error:
            return error.problems
        self._words, self._digests, self._is_new = tree.messages(self._source), digests, True
        logger.info("topology files are read", extra={"files": len(files), "things": len(tree.things)})
        return []

    def _judge(self, problems: Sequence[str]) -> None:
        if problems and list(problems) != list(self._problems):
            logger.warning(
                "topology files are wrong, what they said before stays: %s",
                problems[0],
                extra={"problems": len(problems)},
            )
        self._problems = tuple(problems)
        self._reports = tuple(self._judged(path) for path in self._files)

    def _judged(self, path: Path) -> DeviceReport:
        """A file is blamed for the sentences that begin with its name."""
        why = next((problem for problem in self._problems if problem.startswith(str(path))), "")
        if not why:
            return _report(path, DeviceState.OK)
        is_there = self._signatures is not None and self._signatures[path] is not None
        return _report(path, DeviceState.NONSENSE if is_there else DeviceState.UNREACHABLE, why)


def read_tree(files: Sequence[Path], *, now_ms: int) -> Tree:
    """What topology files say together. OSError, TopologyFileError."""
    return _tree_of([read_file(path) for path in files], now_ms=now_ms)


def _tree_of(files: Sequence[FileText], *, now_ms: int) -> Tree:
    entries: list[Entry] = []
    problems: list[str] = []
    for file in files:
        try:
            entries += parse_file(file, now_ms=now_ms)
        except TopologyFileError as error:
            problems += error.problems
    if problems:
        raise TopologyFileError(problems)
    return assemble(entries)


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _report(path: Path, state: DeviceState, why: str = "") -> DeviceReport:
    return DeviceReport(device=str(path), state=state, why=why)
