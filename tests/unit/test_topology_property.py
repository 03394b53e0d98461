"""The reconciled topology against one that is worked out word by word and moment by moment, the slow and plain way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from catalogue import ResourceKind, resource_id
from storage.topology import reconcile
from storage.topology_places import CYCLE, NO_PARENT, UNKNOWN_PARENT
from storage.topology_versions import agreed_versions
from storage.topology_words import EVER, FOREVER, WORDS, Rules

START = datetime(2026, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

SITE, HALL, RACK, TRAY, GPU = (
    (kind, name)
    for kind, name in (
        (ResourceKind.SITE, "S"),
        (ResourceKind.HALL, "H"),
        (ResourceKind.RACK, "R"),
        (ResourceKind.TRAY, "T"),
        (ResourceKind.GPU, "G"),
    )
)
OTHER_RACK, SERIAL = (ResourceKind.RACK, "R2"), (ResourceKind.RACK, "1583")
UNTOLD = (ResourceKind.ROW, "nobody tells of it")
THINGS = (SITE, HALL, RACK, OTHER_RACK, TRAY, GPU)
SOURCES = {1: "topology", 2: "nvml", 3: "nvml", 4: "dsx", 5: ""}


def number(thing: tuple[ResourceKind, str]) -> int:
    return resource_id(*thing)


@dataclass(frozen=True)
class Word:
    thing: tuple[ResourceKind, str]
    source: int
    hour: int
    told_hour: int
    parent: tuple[ResourceKind, str] | None
    name: str
    attributes: tuple[tuple[str, str], ...]

    @property
    def said(self) -> tuple[object, ...]:
        return self.parent, self.name, self.attributes


def frame(words: Sequence[Word]) -> pl.DataFrame:
    rows: list[tuple[object, ...]] = [
        (
            number(word.thing),
            word.source,
            SOURCES[word.source],
            START + word.hour * HOUR,
            START + word.told_hour * HOUR,
            str(word.thing[0]),
            word.thing[1],
            word.name,
            number(word.parent) if word.parent else 0,
            [],
            [key for key, _ in word.attributes],
            [value for _, value in word.attributes],
        )
        for word in words
    ]
    return pl.DataFrame(rows, schema=WORDS, orient="row")


# The slow way --------------------------------------------------------------------------------------------------------


@dataclass
class Claim:
    word: Word
    start: float
    end: float
    faded: bool

    @property
    def priority(self) -> tuple[object, ...]:
        ranks = list(Rules().ranks)
        told_by = SOURCES[self.word.source]
        rank = ranks.index(told_by) if told_by in ranks else len(ranks)
        return self.faded, rank, -self.start, self.word.source, number(self.word.thing)


ALWAYS, NEVER_ENDS = -1e9, 1e9


def is_taken_back(word: Word, words: Sequence[Word]) -> bool:
    same = [other for other in words if (other.thing, other.source) == (word.thing, word.source)]
    return any(other.hour < word.hour and other.told_hour > word.told_hour for other in same)


def claims_of(words: Sequence[Word], silence_h: float) -> list[Claim]:
    joined: list[tuple[Word, float]] = []  # a word, and when it was heard last
    kept = [word for word in words if not is_taken_back(word, words)]
    for word in sorted(kept, key=lambda word: (number(word.thing), word.source, word.hour)):
        if joined:
            before, heard = joined[-1]
            if (before.thing, before.source, before.said) == (word.thing, word.source, word.said):
                joined[-1] = before, max(heard, word.told_hour)
                continue
        joined.append((word, word.told_hour))
    claims = []
    for word, heard in joined:
        later = [
            other.hour
            for other, _ in joined
            if (other.thing, other.source) == (word.thing, word.source) and other.hour > word.hour
        ]
        end = min(later, default=NEVER_ENDS)
        loud = max(
            other_heard
            for other, other_heard in joined
            if other.source == word.source
            or (other.thing == word.thing and SOURCES[other.source] == SOURCES[word.source])
        )
        fades = min(max(heard, word.hour), end) if min(loud, end) > heard + silence_h else end
        claims += [Claim(word, word.hour, fades, faded=False), Claim(word, fades, end, faded=True)]
    return [claim for claim in claims if claim.start < claim.end]


@dataclass
class Facts:
    parent: int
    name: str
    attributes: dict[str, str]
    rivals: set[tuple[int, str]]


class Slow:
    """What holds at each hour, by trying everything."""

    def __init__(self, words: Sequence[Word], silence_h: float) -> None:
        self.words = words
        self.claims = claims_of(words, silence_h)
        self.hours = sorted({edge for claim in self.claims for edge in (claim.start, claim.end) if edge < NEVER_ENDS})
        self.serial_is = self._serial_is()
        self.facts = {
            thing: self._history(thing) for thing in {self.owner(w.thing, h) for w in words for h in self.hours}
        }

    def _serial_is(self) -> list[tuple[float, tuple[ResourceKind, str]]]:
        said = []
        for hour in self.hours:
            told = [c for c in self.claims if c.word.thing == SERIAL and c.start <= hour < c.end]
            told.sort(key=lambda claim: claim.priority)
            names = [dict(claim.word.attributes).get("same_as") for claim in told]
            name = next(filter(None, names), None)
            if told:
                said.append((hour, (ResourceKind.RACK, name) if name else None))
        known = [thing for _, thing in said if thing]
        filled, first = [], True
        for hour, thing in said:
            first = first and thing is None
            filled.append((hour, (known[0] if first and known else thing) or SERIAL))
        return filled

    def owner(self, thing: tuple[ResourceKind, str], hour: float) -> tuple[ResourceKind, str]:
        if thing != SERIAL or not self.serial_is:
            return thing
        earlier = [what for since, what in self.serial_is if since <= hour]
        return earlier[-1] if earlier else self.serial_is[0][1]

    def _alias_begun(self, hour: float) -> float:
        """Since when the serial is what it is at `hour`."""
        begun = ALWAYS
        for (_, before), (since, what) in pairwise(self.serial_is):
            if since <= hour and what != before:
                begun = since
        return begun

    def _standing(self, owner: tuple[ResourceKind, str], hour: float) -> list[Claim]:
        standing = []
        for claim in self.claims:
            if claim.start <= hour < claim.end and self.owner(claim.word.thing, hour) == owner:
                start = claim.start
                if claim.word.thing == SERIAL:
                    start = max(start, self._alias_begun(hour))
                standing.append(Claim(claim.word, start, claim.end, faded=claim.faded))
        return sorted(standing, key=lambda claim: claim.priority)

    def _history(self, owner: tuple[ResourceKind, str]) -> list[tuple[float, Facts]]:
        history: list[tuple[float, Facts]] = []
        for hour in self.hours:
            standing = self._standing(owner, hour)
            if not standing:
                continue
            attributes: dict[str, str] = {}
            for claim in reversed(standing):
                attributes |= dict(claim.word.attributes)
            attributes.pop("same_as", None)
            fresh = [
                (number(self.owner(c.word.parent, hour)), SOURCES[c.word.source])
                for c in standing
                if c.word.parent and not c.faded
            ]
            parents = [number(self.owner(c.word.parent, hour)) for c in standing if c.word.parent]
            names = [c.word.name for c in standing if c.word.name]
            history.append(
                (
                    hour,
                    Facts(
                        parent=parents[0] if parents else 0,
                        name=names[0] if names else "",
                        attributes=attributes,
                        rivals={rival for rival in fresh[1:] if rival[0] != fresh[0][0]},
                    ),
                )
            )
        self._fill(history)
        return history

    def _fill(self, history: list[tuple[float, Facts]]) -> None:
        """Before the first word about a fact the first one counts."""
        parents = [facts.parent for _, facts in history if facts.parent]
        names = [facts.name for _, facts in history if facts.name]
        keys = {key for _, facts in history for key in facts.attributes}
        for key in keys:
            value = next(facts.attributes[key] for _, facts in history if key in facts.attributes)
            for _, facts in history:
                if key in facts.attributes:
                    break
                facts.attributes[key] = value
        for _, facts in history:
            if facts.parent:
                break
            facts.parent = parents[0] if parents else 0
        for _, facts in history:
            if facts.name:
                break
            facts.name = names[0] if names else ""

    def at(self, thing: tuple[ResourceKind, str], hour: float) -> Facts | None:
        history = self.facts.get(thing)
        if not history:
            return None
        return ([facts for since, facts in history if since <= hour] or [history[0][1]])[-1]

    def way(self, thing: tuple[ResourceKind, str], hour: float) -> tuple[list[int], str]:
        """The way up at an hour, and why it ends where it should not."""
        by_number = {number(known): known for known in self.facts}
        path = [number(thing)]
        while True:
            here = by_number[path[-1]]
            facts = self.at(here, hour)
            assert facts is not None
            if facts.parent == 0:
                return path, "" if here[0] is ResourceKind.SITE else NO_PARENT
            if facts.parent in path:
                return path, CYCLE
            if facts.parent not in by_number:
                return path, UNKNOWN_PARENT
            path.append(facts.parent)


# Both ways -----------------------------------------------------------------------------------------------------------

HOURS = st.integers(0, 12)


@st.composite
def drawn_words(draw: st.DrawFn) -> list[Word]:
    """Words of a few sources about a few things; who is part of what is anybody's guess."""
    parents = st.sampled_from([None, None, *THINGS, SERIAL, UNTOLD])
    names = st.sampled_from(["", "a", "b"])
    facts = st.dictionaries(st.sampled_from(["model", "slot"]), st.sampled_from(["1", "2"]), max_size=2)
    words: dict[tuple[object, ...], Word] = {}
    for _ in range(draw(st.integers(1, 14))):
        thing = draw(st.sampled_from([*THINGS, SERIAL]))
        hour = draw(HOURS)
        attributes = draw(facts)
        if thing == SERIAL:
            same_as = draw(st.sampled_from(["", "R", "R2"]))
            attributes |= {"same_as": same_as} if same_as else {}
        word = Word(
            thing=thing,
            source=draw(st.sampled_from(sorted(SOURCES))),
            hour=hour,
            told_hour=hour + draw(st.sampled_from([0, 0, 1, 3, 20])),
            parent=draw(parents) if thing != SITE else None,
            name=draw(names),
            attributes=tuple(sorted(attributes.items())),
        )
        words[word.thing, word.source, word.hour] = word
    return list(words.values())


def rows_of(frame: pl.DataFrame) -> Mapping[int, list[dict[str, Any]]]:
    """The rows of a versioned frame by their resource."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in frame.iter_rows(named=True):
        rows.setdefault(row["resource"], []).append(row)
    return rows


def rows_at(rows: Sequence[dict[str, Any]], hour: float) -> list[dict[str, Any]]:
    at = START + hour * HOUR
    return [row for row in rows if row["valid_from"] <= at < row["valid_to"]]


MOMENTS = (-5.0, *(hour + half for hour in range(34) for half in (0.0, 0.5)))


@settings(max_examples=100, deadline=None)
@given(words=drawn_words(), silence_h=st.sampled_from([0, 2]))
def test_every_fact_at_every_time_is_that_of_the_best_word_that_stands(words: list[Word], silence_h: int) -> None:
    rules, slow = Rules(silence=silence_h * HOUR), Slow(words, silence_h)
    versions = reconcile(frame(words), rules).versions
    assert set(versions["resource"]) == {number(thing) for thing, history in slow.facts.items() if history}
    rows = rows_of(versions)
    for thing in slow.facts:
        for hour in MOMENTS:
            wanted = slow.at(thing, hour)
            if wanted is None:
                continue
            (row,) = rows_at(rows[number(thing)], hour)
            assert row["parent"] == wanted.parent
            assert row["name"] == wanted.name or (row["name"], wanted.name) == (thing[1], "")
            assert dict(zip(row["keys"], row["values"], strict=True)) == wanted.attributes


@settings(max_examples=100, deadline=None)
@given(words=drawn_words(), silence_h=st.sampled_from([0, 2]))
def test_every_way_up_is_found_whole_and_ends(words: list[Word], silence_h: int) -> None:
    slow = Slow(words, silence_h)
    places = reconcile(frame(words), Rules(silence=silence_h * HOUR)).places
    rows = rows_of(places)
    for thing in slow.facts:
        for hour in MOMENTS:
            if slow.at(thing, hour) is None or slow.owner(thing, hour) != thing:
                continue
            (row,) = rows_at(rows[number(thing)], hour)
            assert (row["path"], row["trouble"]) == slow.way(thing, hour)


@settings(max_examples=100, deadline=None)
@given(words=drawn_words())
def test_whoever_names_another_parent_is_a_rival_as_long_as_both_words_stand(words: list[Word]) -> None:
    slow = Slow(words, 0)
    rivals = agreed_versions(frame(words), Rules(silence=timedelta(0))).rivals
    rows = rows_of(rivals)
    for thing in slow.facts:
        for hour in MOMENTS[1:]:
            history = [facts for since, facts in slow.facts[thing] if since <= hour]
            found = rows_at(rows.get(number(thing), []), hour)
            wanted = history[-1].rivals if history else set()
            assert {(row["rival_parent"], row["rival_told_by"]) for row in found} == wanted


@settings(max_examples=30, deadline=None)
@given(words=drawn_words(), random=st.randoms(use_true_random=False))
def test_the_order_in_which_words_arrive_does_not_matter(words: list[Word], random: Random) -> None:
    shuffled = words.copy()
    random.shuffle(shuffled)
    one, other = reconcile(frame(words)), reconcile(frame(shuffled))
    for name in ("versions", "places", "conflicts"):
        assert_frame_equal(getattr(one, name), getattr(other, name), check_row_order=False)


@settings(max_examples=30, deadline=None)
@given(words=drawn_words())
def test_at_any_time_a_resource_is_in_one_place(words: list[Word]) -> None:
    for resource, rows in rows_of(reconcile(frame(words)).places).items():
        spans = sorted((row["valid_from"], row["valid_to"]) for row in rows)
        assert all(start < end for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        if resource != number(SERIAL):  # where it is an alias of what nobody tells of, it is nowhere
            assert (spans[0][0], spans[-1][1]) == (EVER, FOREVER)
            assert all(end == start for (_, end), (start, _) in pairwise(spans))
