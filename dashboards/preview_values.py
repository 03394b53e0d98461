"""Values as a Grafana panel shows them: units, states, colours. The few units that our pages use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]

# Units that grow by thousands: symbol, and what its steps are called.
_SCALED = {
    "watt": "W", "watth": "Wh", "joule": "J", "hertz": "Hz", "Bps": "B/s", "volt": "V", "amp": "A", "wps": "rows/s",
    "cps": "/s", "voltampreact": "var",
}  # fmt: skip
_BINARY = {"bytes": "B"}
_PLAIN = {
    "celsius": "°C", "kelvin": "K", "flowlpm": "L/min", "m3": "m³", "s": "s", "flowcms": "m³/s",
}  # fmt: skip
ABSENT = "\N{EN DASH}"
_STEPS = ("", "k", "M", "G", "T", "P")
_COLOURS = {
    "green": "#2e9e5b", "dark-green": "#1b6e3c", "yellow": "#d9a400", "orange": "#e8742c", "red": "#d63a46",
    "blue": "#4f86c6", "purple": "#8f5fc4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """A value as text, with its colour where it has one."""

    text: str
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class FieldLook:
    """What a panel's field config says about one column: the defaults, and what overrides them by name."""

    settings: Json

    @classmethod
    def of(cls, panel: Json, column: str) -> "FieldLook":
        config = panel.get("fieldConfig") or {}
        defaults = {key: value for key, value in (config.get("defaults") or {}).items() if value is not None}
        custom = defaults.pop("custom", None) or {}
        settings = defaults | {f"custom.{key}": value for key, value in custom.items()}
        for override in config.get("overrides") or ():
            if override["matcher"] == {"id": "byName", "options": column}:
                settings |= {one["id"]: one.get("value") for one in override["properties"]}
        return cls(settings)

    @property
    def unit(self) -> str:
        return str(self.settings.get("unit") or "none")

    @property
    def is_filled(self) -> bool:
        return (self.settings.get("custom.cellOptions") or {}).get("type") == "color-background"

    @property
    def link(self) -> str | None:
        """The first link of the field, with Grafana's placeholders."""
        links = self.settings.get("links") or ()
        return str(links[0]["url"]) if links else None

    @property
    def steps(self) -> Sequence[Json]:
        return (self.settings.get("thresholds") or {}).get("steps") or ()

    def show(self, value: object) -> Shown:
        """Absent is a dash, never 0."""
        mapped = self._mapped(value)
        if mapped is not None:
            return Shown(str(mapped.get("text")), colour_of(mapped.get("color")))
        if value is None or value != value:
            return Shown(ABSENT)
        if isinstance(value, datetime):
            return Shown(f"{value:%Y-%m-%d %H:%M}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Shown(str(value))
        return Shown(self.format(float(value)), self.colour_at(float(value)))

    def format(self, value: float) -> str:
        return formatted(value, self.unit, self.settings.get("decimals"))

    def colour_at(self, value: float) -> str | None:
        passed = [step for step in self.steps if step.get("value") is None or value >= step["value"]]
        return colour_of(passed[-1]["color"]) if passed else None

    def _mapped(self, value: object) -> Json | None:
        if value is None or isinstance(value, str | datetime):
            return None
        key = f"{value:g}" if isinstance(value, int | float) else str(value)
        for mapping in self.settings.get("mappings") or ():
            if mapping["type"] == "value" and key in mapping["options"]:
                found: Json = mapping["options"][key]
                return found
        return None


def colour_of(name: object) -> str | None:
    """A colour of Grafana's palette as the preview draws it; None for ink."""
    return _COLOURS.get(str(name))


def formatted(value: float, unit: str, decimals: float | None = None) -> str:
    """A number with its unit, at the scale at which people read it."""
    places = None if decimals is None else int(decimals)
    if unit == "percentunit":
        return f"{value * 100:.{1 if places is None else places}f} %"
    if unit == "pressurepa":
        return f"{value / 1000:,.{1 if places is None else places}f} kPa"
    if unit in _SCALED:
        return _stepped(value, 1000.0, _SCALED[unit], places)
    if unit in _BINARY:
        return _stepped(value, 1024.0, _BINARY[unit], places, infix="i")
    if unit == "short":
        return _stepped(value, 1000.0, "", places)
    return f"{_digits(value, places)} {_PLAIN.get(unit, '')}".rstrip()


def scale_of(values: Sequence[float], unit: str) -> tuple[float, str]:
    """One factor and label for a whole axis: what its largest value needs."""
    largest = max((abs(value) for value in values), default=0.0)
    if unit == "percentunit":
        return 100.0, "%"
    if unit == "pressurepa":
        return 1e-3, "kPa"
    base, symbol, infix = (1024.0, _BINARY[unit], "i") if unit in _BINARY else (1000.0, _SCALED.get(unit, ""), "")
    if unit not in _SCALED and unit not in _BINARY:
        return 1.0, _PLAIN.get(unit, "")
    rank = _rank(largest, base)
    return base**-rank, f"{_prefix(rank, infix)}{symbol}"


def _stepped(value: float, base: float, symbol: str, places: int | None, infix: str = "") -> str:
    rank = _rank(abs(value), base)
    number = _digits(value / base**rank, places if rank or places is not None else None)
    return f"{number} {_prefix(rank, infix)}{symbol}".rstrip()


def _prefix(rank: int, infix: str) -> str:
    """k and M, or Ki and Mi: the binary prefixes begin with a capital (IEC 80000-13)."""
    return f"{_STEPS[rank].upper()}{infix}" if rank and infix else _STEPS[rank]


def _rank(size: float, base: float) -> int:
    rank = 0
    while size >= base and rank < len(_STEPS) - 1:
        size, rank = size / base, rank + 1
    return rank


def _digits(value: float, places: int | None) -> str:
    if places is not None:
        return f"{value:,.{places}f}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
