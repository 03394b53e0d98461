"""What sources say of resources, and for how long each word stands. Pure; docs/adr/0006-topology.md has the reasons.

A word is one inventory message: one source's statement about one resource from a time on. It stands until the same
source says something else of that resource. It fades when its source, or another source of its kind that speaks of the
resource, is heard without it being repeated: a faded word counts only where nobody else says anything.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from storage.reader import TIME

EVER = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(2299, 12, 31, tzinfo=UTC)  # the last day of ClickHouse's DateTime64: compares as "not ended"

WORDS: dict[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "source": pl.UInt64(),
    "told_by": pl.String(),
    "valid_from": TIME,
    "told_at": TIME,
    "kind": pl.String(),
    "identity": pl.String(),
    "name": pl.String(),
    "parent": pl.UInt64(),
    "serves": pl.List(pl.UInt64()),
    "keys": pl.List(pl.String()),
    "values": pl.List(pl.String()),
}

# Whom to believe: what people commissioned, then what the machines know of their own slot, then what is near it.
DEFAULT_RANKS = ("topology", "nvml", "dcgm", "infiniband", "host", "redfish", "dsx")

# What a source says of one resource in one go is stored within this time.
_ONE_ROUND = timedelta(minutes=5)

_VOICE = ("resource", "source")
_SAID = ("told_by", "name", "parent", "serves", "keys", "values")


@dataclass(frozen=True, slots=True)
class Rules:
    """How words are weighed.

    `ranks` names kinds of sources, the best first; those that it does not name come last, all alike. A source whose
    name begins with a kind's is of that kind ("redfish hall-2"). `silence` is how long a source may leave out a word
    before it has withdrawn it: three of its repetitions.
    """

    ranks: tuple[str, ...] = DEFAULT_RANKS
    silence: timedelta = timedelta(minutes=30)


def standing_words(words: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """The words with the times `start` <= t < `end` in which they stand, their `rank` (0 is the best), and `faded`.

    What one source says twice in a row is one word. A word that fades becomes two: before and after.
    """
    last = pl.col("heard_at").max()
    heard = pl.max_horizontal(last.over("source"), last.over("resource", "kind_of_source"))
    patience = pl.col("heard_at") + rules.silence
    told = _joined(words.lazy()).with_columns(kind_of_source=_kind_of_source(), end=_next_word().fill_null(FOREVER))
    weighed = told.with_columns(
        fades=pl.when(heard > patience, pl.col("end") > patience)
        .then(pl.max_horizontal("heard_at", "start"))
        .otherwise("end")
        .clip(upper_bound=pl.col("end")),
        rank=pl.col("kind_of_source").replace_strict(
            {kind: rank for rank, kind in enumerate(rules.ranks)}, default=len(rules.ranks), return_dtype=pl.Int32
        ),
    )
    kept = (*_VOICE, *_SAID, "rank", "faded", "start", "end")
    stands = weighed.collect()
    before = stands.with_columns(end=pl.col("fades"), faded=pl.lit(value=False)).filter(pl.col("start") < pl.col("end"))
    after = stands.filter(pl.col("fades") < pl.col("end")).with_columns(start=pl.col("fades"), faded=pl.lit(value=True))
    return pl.concat([before.select(kept), after.select(kept)])


def _joined(words: pl.LazyFrame) -> pl.LazyFrame:
    """Words in order of voice and time; those that repeat the one before are part of it, and keep it from fading.

    A word that is told no more while the same source goes on telling an earlier one was taken back: it never was so.
    """
    earlier_told = pl.col("told_at").cum_max().shift().over(*_VOICE)
    is_new = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in (*_VOICE, *_SAID))
    return (
        words.sort(*_VOICE, "valid_from")
        .filter(~(earlier_told > pl.col("told_at") + _ONE_ROUND).fill_null(value=False))
        .with_columns(is_new=is_new)
        .with_columns(heard_at=pl.col("told_at").max().over(pl.col("is_new").cum_sum()))
        .filter("is_new")
        .select(*_VOICE, *_SAID, "heard_at", start="valid_from")
    )


def _next_word() -> pl.Expr:
    """When the same source says something else of the same resource."""
    return pl.col("start").shift(-1).over(*_VOICE)


def _kind_of_source() -> pl.Expr:
    return pl.col("told_by").str.extract(r"^([a-z0-9_]+)").fill_null("")
