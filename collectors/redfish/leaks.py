"""Leak detectors: what each says, and what that means for what they watch. Pure.

A detector is read from its own document (LeakDetector 1.6) or from the group that shows it (LeakDetection 1.1).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from catalogue.facility import LEAK_STATES, LeakState
from collectors.redfish.document import Document, detector_groups, is_there, text_at
from collectors.redfish.shown import Shown
from collectors.redfish.tree import Place

LEAK_NAMES = dict(LEAK_STATES)
_SEVERITY: Mapping[int, int] = {
    LeakState.DRY: 0, LeakState.SENSOR_FAULT: 1, LeakState.WARNING: 2, LeakState.CRITICAL: 3,
}  # fmt: skip
# DetectorState; Absent, and what is not known, is no state.
_STATES: Mapping[str, int] = {
    "OK": LeakState.DRY, "Warning": LeakState.WARNING, "Critical": LeakState.CRITICAL,
    "Unavailable": LeakState.SENSOR_FAULT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detector:
    """What one detector says: a state of the catalogue's, None where there is none or it is switched off."""

    label: str
    state: int | None
    facts: Mapping[str, str]


def detectors(shown: Shown) -> list[Detector]:
    """Every detector that was read."""
    grouped = _grouped(shown)
    own = [
        Detector(part.label, _state(document), _facts(document, part.name))
        for part in shown.parts(Place.DETECTOR)
        if part.path not in grouped and (document := shown.document(part)) is not None
    ]
    return [*grouped.values(), *own]


def leak_state(shown: Shown, found: Iterable[Detector]) -> int | None:
    """The worst of the detectors."""
    grouped = _grouped(shown)
    parts = shown.parts(Place.LEAK_DETECTION, Place.DETECTOR)
    complete = all(part.path in grouped or shown.document(part) is not None for part in parts)
    return worst_leak((detector.state for detector in found), complete=complete)


def worst_leak(states: Iterable[int | None], *, complete: bool) -> int | None:
    """The worst state. That all is dry is only said when all detectors were heard, and there is one at least."""
    worst = max((state for state in states if state is not None), key=_SEVERITY.__getitem__, default=None)
    return None if worst == LeakState.DRY and not complete else worst


def _grouped(shown: Shown) -> dict[str, Detector]:
    """The detectors that are shown in groups, by path."""
    parts = {part.path: part for part in shown.parts(Place.DETECTOR)}
    found: dict[str, Detector] = {}
    for part in shown.parts(Place.LEAK_DETECTION):
        for number, (path, excerpt) in enumerate(_excerpts(shown.document(part))):
            label = parts[path].label if path in parts else f"{part.label}/LeakDetectorGroups/{number}"
            name = parts[path].name if path in parts else text_at(excerpt, "DeviceName")
            found[path or label] = Detector(label, _state(excerpt), _facts(excerpt, name))
    return found


def _excerpts(document: Document | None) -> Iterator[tuple[str, Document]]:
    if document is not None and is_there(document):
        yield from detector_groups(document)


def _state(document: Document) -> int | None:
    if not is_there(document):
        return None
    return _STATES.get(text_at(document, "DetectorState") or text_at(document, "Status/Health"))


def _facts(document: Document, name: str) -> dict[str, str]:
    facts = {
        "detector": name,
        "location": text_at(document, "Location/PartLocation/ServiceLabel") or text_at(document, "PhysicalContext"),
        "type": text_at(document, "LeakDetectorType"),
        "critical_reaction": text_at(document, "CriticalReactionType"),
        "warning_reaction": text_at(document, "WarningReactionType"),
    }
    return {name: fact for name, fact in facts.items() if fact}
