"""Which GPUs a Slurm job has: host lists, indices of generic resources, and the book that knows a node's GPUs.

Formats: host list expressions as in scontrol(1), "show hostnames"; details of generic resources as printed by
`scontrol --details show job`, one text for each node of the job, such as "gpu:h100:4(IDX:0-3)".
"""

import csv
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import msgspec

MAX_NODES = 50_000  # of one job: twice a site of 100,000 GPUs, four to a node
MAX_BRACKETS = 4  # of one name: hall, row, rack, tray
MAX_LIST_CHARACTERS = 1 << 20
MAX_GPUS_PER_NODE = 1024  # MIG instances count
MAX_BOOK_BYTES = 64 << 20  # 100,000 GPUs take 6 MB

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
# "gpu:h100:4(IDX:0-3)", "gpu:4(IDX:0,2)", "gpu(IDX:0-1)"; a job may have several, after commas.
_GPU_DETAIL = re.compile(r"(?:^|,)(?:gres[/:])?gpu(?::[^,()]*)?\(IDX:([0-9,\-]*)\)")
_UUID = re.compile(r"GPU-[0-9A-Za-z-]{1,64}")


class HostListError(ValueError):
    """Text is no host list, or one of more nodes than a job can have."""


class GpuBookError(ValueError):
    """The file that says which GPU is which cannot be used; the message says why."""


class GpuBook(Protocol):
    """Knows the GPUs of nodes by the index that Slurm gives them."""

    def uuid_of(self, node: str, index: int) -> str | None:
        """The UUID of the board behind an index, also where the index is an instance of it (MIG); None if unknown."""

    def gpus_of(self, node: str) -> Mapping[int, str]:
        """The UUIDs of a node by index; empty for a node that is not known."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The boards that a job has, each once with its node, and how many GPUs more it has that could not be found."""

    gpus: tuple[tuple[str, str], ...] = ()
    missing: int = 0


def place(nodes: str, details: Sequence[str], gpu_count: int | None, book: GpuBook) -> Placement:
    """Where a job is.

    The details tell the indices node by node. Without them, as in accounting, a job is only found where it has as many
    GPUs as its nodes have together: it then has all of them.
    """
    if not gpu_count and not any(details):
        return Placement()
    try:
        hosts = expand_hosts(nodes)
    except HostListError:
        return Placement(missing=gpu_count or 0)
    indices = [(host, index) for host, detail in zip(hosts, details, strict=False) for index in gpu_indices(detail)]
    if len(hosts) != len(details) or not indices:
        indices = [(host, index) for host in hosts for index in book.gpus_of(host)]
        if not gpu_count or len(indices) != gpu_count:
            return Placement(missing=gpu_count or 0)
    found = [(uuid, host) for host, index in indices if (uuid := book.uuid_of(host, index)) is not None]
    return Placement(tuple(dict.fromkeys(found)), max(len(indices), gpu_count or 0) - len(found))


def expand_hosts(text: str) -> list[str]:
    """The nodes of a host list in their order: "a[1-3,07]" is a1, a2, a3, a07. Raises HostListError."""
    if len(text) > MAX_LIST_CHARACTERS:
        raise HostListError("a host list is too long to be one")
    hosts: list[str] = []
    for part in _split_outside_brackets(text):
        hosts.extend(_expand_part(part, room=MAX_NODES - len(hosts)))
    return hosts


def _split_outside_brackets(text: str) -> Iterator[str]:
    """The parts between those commas that are not within brackets."""
    depth = start = 0
    for position, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            yield text[start:position]
            start = position + 1
    if depth:
        raise HostListError(f"the brackets of host list {text[:80]!r} do not match")
    if text[start:]:
        yield text[start:]


def _expand_part(part: str, *, room: int) -> Iterator[str]:
    pieces = _BRACKETS.split(part)  # text and what is in brackets, in turn
    if len(pieces) > 2 * MAX_BRACKETS + 1:
        raise HostListError(f"host list {part[:80]!r} has more than {MAX_BRACKETS} brackets")
    choices = [list(_expand_ranges(piece, room=room)) if n % 2 else [piece] for n, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > room:
        raise HostListError(f"host list {part[:80]!r} has more than {MAX_NODES} nodes")
    return ("".join(choice) for choice in product(*choices))


def _expand_ranges(text: str, *, room: int) -> Iterator[str]:
    for item in text.split(","):
        found = _RANGE.fullmatch(item)
        if found is None:
            raise HostListError(f"{item[:80]!r} is no range of a host list")
        low, high = int(found[1]), int(found[2] or found[1])
        if not 0 <= high - low < room:
            raise HostListError(f"{item[:80]!r} is no range of a host list, or one of more than {MAX_NODES} nodes")
        room -= high - low + 1
        for number in range(low, high + 1):
            yield f"{number:0{len(found[1])}}"


def gpu_indices(detail: str) -> list[int]:
    """The indices of the GPUs in one node's detail, rising; empty where it tells none, as for shared ones."""
    indices: set[int] = set()
    for text in _GPU_DETAIL.findall(detail[:MAX_LIST_CHARACTERS]):
        for item in filter(None, text.split(",")):
            found = _RANGE.fullmatch(item)
            if found is None:
                return []
            low, high = int(found[1]), int(found[2] or found[1])
            if not 0 <= low <= high < MAX_GPUS_PER_NODE:
                return []
            indices.update(range(low, high + 1))
    return sorted(indices)


class NodeGpuBook:
    """The GPUs of the node that the agent itself runs on; `uuids` gives them by index, as NVML does."""

    def __init__(self, node: str, uuids: Callable[[], Mapping[int, str]]) -> None:
        self._node = node
        self._uuids = uuids

    def uuid_of(self, node: str, index: int) -> str | None:
        return self._uuids().get(index) if node == self._node else None

    def gpus_of(self, node: str) -> Mapping[int, str]:
        return self._uuids() if node == self._node else {}


class FileGpuBook:
    """The GPUs of many nodes from a file, which is read again when it has changed.

    CSV with the columns node, index and uuid; or TOML or JSON with a table of nodes, each a list of UUIDs in the order
    of their indices or a table of UUIDs by index. Not for use by two threads at once.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._nodes: Mapping[str, Mapping[int, str]] = {}
        self._version: tuple[int, ...] | None = None

    def refresh(self) -> None:
        """Read the file if it has changed. Raises GpuBookError; what was read before then stays."""
        try:
            status = self._file.stat()
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if version == self._version:
                return
            if status.st_size > MAX_BOOK_BYTES:
                raise GpuBookError(f"slurm.gpus_file {self._file} is larger than {MAX_BOOK_BYTES >> 20} MiB")
            self._nodes = _parse_book(self._file)
        except OSError as error:
            raise GpuBookError(f"slurm.gpus_file {self._file} cannot be read: {error.strerror}") from error
        self._version = version

    def uuid_of(self, node: str, index: int) -> str | None:
        return self._nodes.get(node, {}).get(index)

    def gpus_of(self, node: str) -> Mapping[int, str]:
        return self._nodes.get(node, {})


def _parse_book(file: Path) -> dict[str, dict[int, str]]:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".csv":
            return _by_node(_csv_lines(text))
        nodes = tomllib.loads(text) if file.suffix == ".toml" else msgspec.json.decode(text)
        return _by_node(_table_lines(nodes))
    except (ValueError, TypeError, KeyError, RecursionError, msgspec.MsgspecError, csv.Error) as error:
        raise GpuBookError(f"slurm.gpus_file {file} does not say node, index and UUID: {str(error)[:200]}") from error


def _csv_lines(text: str) -> Iterator[tuple[str, int, str]]:
    for row in csv.DictReader(text.splitlines(), strict=True):
        yield row["node"].strip(), int(row["index"]), row["uuid"].strip()


def _table_lines(nodes: Any) -> Iterator[tuple[str, int, str]]:  # noqa: ANN401 - a document of any form
    if not isinstance(nodes, dict):
        raise ValueError("its top is no table of nodes")
    for node, gpus in nodes.items():
        items = gpus.items() if isinstance(gpus, dict) else enumerate(gpus)
        for index, uuid in items:
            yield str(node), int(index), str(uuid)


def _by_node(lines: Iterator[tuple[str, int, str]]) -> dict[str, dict[int, str]]:
    nodes: dict[str, dict[int, str]] = {}
    for node, index, uuid in lines:
        if not node or not 0 <= index < MAX_GPUS_PER_NODE or not _UUID.fullmatch(uuid):
            raise ValueError(f"node {node[:80]!r}, index {index}, UUID {uuid[:80]!r}")
        if nodes.setdefault(node, {}).setdefault(index, uuid) != uuid:
            raise ValueError(f"node {node[:80]!r} has two GPUs of index {index}")
    return nodes
