"""What one metric is, and what follows from it: columns, names, help texts."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from catalogue.origins import Origin
from catalogue.types import StoredType
from catalogue.units import Unit


class Kind(StrEnum):
    """How a metric's values may be combined over time."""

    GAUGE = "gauge"  # a level: mean, minimum, maximum
    DELTA = "delta"  # an amount since the source's previous tick: sums are exact at every tier
    REGISTER = "register"  # a device's own cumulative counter: only differences mean anything
    STATE = "state"  # one of a closed set, worse is higher
    BITS = "bits"  # a mask: bitwise or


class Codec(StrEnum):
    """ClickHouse column codecs, chosen by measurement (docs/adr/0002-the-frame.md)."""

    NOISY = "ZSTD(1)"
    WHITE = "T64, ZSTD(1)"  # noise over so many steps that its bytes hardly repeat
    SLOW = "Delta, ZSTD(3)"
    STEPPED = "ZSTD(3)"


States = tuple[tuple[int, str], ...]  # stored value and its name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """One measured quantity of one kind of resource.

    `name` ends in the unit's suffix. A stored count times `resolution` is the value in the base
    unit. `extremes` keeps minimum and maximum in the rollups, `sketch` a quantile sketch.
    `exported` puts the metric on the agent's own /metrics page.
    """

    name: str
    unit: Unit
    kind: Kind
    stored: StoredType
    brief: str
    origins: tuple[Origin, ...]
    resolution: Fraction = Fraction(1)
    codec: Codec = Codec.NOISY
    extremes: bool = False
    sketch: bool = False
    exported: bool = False
    states: States = ()

    @property
    def column(self) -> str:
        """The stored column: integer counts of `resolution`, never for people."""
        return f"{self.name}_raw"

    @property
    def comment(self) -> str:
        scale = "" if self.resolution == 1 else f" in steps of {_plain(self.resolution)} {self.unit.symbol}".rstrip()
        return f"{self.brief}{scale}; {self.stored.absent} = absent"

    @property
    def help(self) -> str:
        """The Prometheus HELP text: the brief, with its full stop."""
        return f"{self.brief}."


def _plain(value: Fraction) -> str:
    """A fraction as people write it: 0.1, 1000000, 1/6000000."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = f"{float(value):g}"
    return decimal if Fraction(decimal) == value else f"{value.numerator}/{value.denominator}"
