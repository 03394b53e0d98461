"""The register `maintenance` as silences: the very file that `kvandal import` takes, so that there is one truth.

What the register calls a resource is its identity; the inventory says which name alerts have for it as a label.
"""

import csv
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from alerts.alertmanager import Matcher, Silence
from alerts.maintenance import RegisterError, make_silence
from alerts.tree import Tree
from catalogue import ResourceKind, resource_id

logger = logging.getLogger(__name__)

_LABELS: Mapping[ResourceKind, str] = {
    ResourceKind.HALL: "hall", ResourceKind.RACK: "rack", ResourceKind.TRAY: "node", ResourceKind.CDU: "cdu",
    ResourceKind.FEEDER: "feeder",
}  # fmt: skip
_COLUMNS = frozenset({"resource_kind", "resource", "start", "end", "maintenance_kind"})


@dataclass(frozen=True, slots=True)
class _Row:
    kind: ResourceKind
    identity: str
    start: datetime
    end: datetime
    reason: str
    is_withdrawn: bool


def load_register(file: Path, tree: Tree) -> tuple[Silence, ...]:
    """The silences of a register file; RegisterError with one sentence for a file or row that cannot be used.

    Maintenance of what the inventory does not know is logged: no alert has a label for it.
    """
    standing: dict[tuple[ResourceKind, str, datetime], _Row] = {}
    for row in _rows(file):
        key = row.kind, row.identity, row.start
        if row.is_withdrawn:
            standing.pop(key, None)
        else:
            standing[key] = row
    return tuple(silence for row in standing.values() for silence in _silence(row, tree))


def _rows(file: Path) -> Iterator[_Row]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            missing = _COLUMNS - set(table.fieldnames or ())
            if missing:
                raise ValueError(f"it has no column {min(missing)}; docs/guides/registers.md lists them")
            for number, cells in enumerate(table, start=2):
                yield _row(number, cells)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise RegisterError(f"register of maintenance {file}: {error}") from error


def _row(number: int, cells: Mapping[str, str | None]) -> _Row:
    given = {name: (cells.get(name) or "").strip() for name in (*_COLUMNS, "withdrawn")}
    try:
        row = _Row(
            ResourceKind(given["resource_kind"]), given["resource"], datetime.fromisoformat(given["start"]),
            datetime.fromisoformat(given["end"]), given["maintenance_kind"], given["withdrawn"] == "yes",
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if row.start.tzinfo is None or row.end.tzinfo is None:
        raise ValueError(f"line {number}: its times have no offset; write 2026-10-14T08:00+02:00")
    if row.end <= row.start:
        raise ValueError(f"line {number} ends before it begins")
    return row


def _silence(row: _Row, tree: Tree) -> Iterator[Silence]:
    resource = tree.resolve(resource_id(row.kind, row.identity))
    if row.kind is ResourceKind.SITE:
        place = Matcher("alertname", ".+", is_regex=True)
    elif tree.kind(resource) is None:
        logger.error("maintenance of what is not in the inventory", extra={"kind": row.kind, "resource": row.identity})
        return
    elif (label := _LABELS.get(row.kind)) is not None:
        place = Matcher(label, tree.name(resource))
    else:
        place = Matcher("resource", f"{resource:016x}")
    yield make_silence(f"{row.reason}: {row.kind} {row.identity}", (place,), row.start, row.end)
