"""The topology that follows from what sources say, in the cases that people ask about, and how it is shown."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from catalogue import ResourceKind, resource_id
from collectors.topology.settings import ReconciliationSettings
from kvandal.topology import (
    TreeView,
    alias_lines,
    conflict_frame,
    file_problems,
    find_resource,
    history_lines,
    rules_of,
    tree_lines,
)
from storage.topology import Topology, differences, reconcile
from storage.topology_places import CYCLE, MOST_STEPS, NO_PARENT, TOO_DEEP, UNKNOWN_PARENT
from storage.topology_words import DEFAULT_RANKS, EVER, FOREVER, WORDS, Rules

SITE, HALL, RACK, TRAY, GPU = ("site:S", "hall:H", "rack:R1", "tray:T1", "gpu:G")


def day(number: int) -> datetime:
    return datetime(2026, 10, number, tzinfo=UTC)


FIRST, NOW = day(1), day(20)


def number(thing: str) -> int:
    kind, _, identity = thing.partition(":")
    return resource_id(ResourceKind(kind), identity)


def word(
    thing: str,
    told_by: str,
    *,
    parent: str = "",
    since: datetime = FIRST,
    told: datetime = NOW,
    source: int = 0,
    name: str = "",
    serves: Sequence[str] = (),
    **facts: str,
) -> tuple[object, ...]:
    kind, _, identity = thing.partition(":")
    keys = sorted(facts)
    return (
        number(thing),
        source or sum(told_by.encode()),
        told_by,
        since,
        told,
        kind,
        identity,
        name,
        number(parent) if parent else 0,
        [number(each) for each in serves],
        keys,
        [facts[key] for key in keys],
    )


def topology(*words: tuple[object, ...], rules: Rules | None = None) -> Topology:
    return reconcile(pl.DataFrame(list(words), schema=WORDS, orient="row"), rules)


def site(*racks: str) -> list[tuple[object, ...]]:
    """A site with a hall and racks, as a topology file tells it."""
    return [
        word(SITE, "topology"),
        word(HALL, "topology", parent=SITE, name="hall 1"),
        *(word(rack, "topology", parent=HALL, name=f"rack {rack[-1]}") for rack in racks),
    ]


def place(found: Topology, thing: str, at: datetime) -> dict[str, object]:
    (row,) = found.as_of(at).filter(pl.col("resource") == number(thing)).iter_rows(named=True)
    return row


# Who counts


def test_the_topology_file_counts_before_the_machines_and_they_before_the_building() -> None:
    words = [
        word(TRAY, told_by, parent=f"rack:{told_by}") for told_by in ("topology", "nvml", "redfish", "dsx", "other")
    ]
    for best in range(len(words)):
        (version,) = topology(*words[best:]).versions.iter_rows(named=True)
        assert version["parent"] == number(f"rack:{('topology', 'nvml', 'redfish', 'dsx', 'other')[best]}")


def test_ranks_can_be_set() -> None:
    words = (word(TRAY, "topology", parent="rack:A"), word(TRAY, "dsx", parent="rack:B"))
    (version,) = topology(*words, rules=Rules(ranks=("dsx", "topology"))).versions.iter_rows(named=True)
    assert version["parent"] == number("rack:B")


def test_the_default_ranks_are_the_settings_own() -> None:
    assert ReconciliationSettings().ranks == DEFAULT_RANKS
    assert rules_of(ReconciliationSettings()) == Rules()


def test_a_source_is_of_the_kind_that_its_name_begins_with() -> None:
    words = (word(TRAY, "redfish hall-2", parent="rack:A"), word(TRAY, "dsx-2", parent="rack:B"))
    (version,) = topology(*words).versions.iter_rows(named=True)
    assert version["parent"] == number("rack:A")


def test_each_fact_is_that_of_the_best_source_that_has_it() -> None:
    (version,) = topology(
        word(TRAY, "dsx", parent=RACK, name="of dsx", model="m1", place="p"),
        word(TRAY, "redfish", name="of redfish", serial="44", model="m2"),
    ).versions.iter_rows(named=True)
    facts = dict(zip(version["keys"], version["values"], strict=True))
    assert (version["parent"], version["name"]) == (number(RACK), "of redfish")
    assert facts == {"model": "m2", "place": "p", "serial": "44"}


def test_a_word_that_its_source_leaves_out_yields_to_those_that_are_told() -> None:
    """An entry that was deleted from the topology file."""
    found = topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "topology", parent=RACK, told=day(10)),
        word(TRAY, "nvml", parent="rack:R2"),
    )
    assert place(found, TRAY, day(9))["rack"] == number(RACK)
    assert place(found, TRAY, day(11))["rack"] == number("rack:R2")
    (conflict,) = found.conflicts.iter_rows(named=True)
    assert (conflict["valid_from"], conflict["valid_to"]) == (day(1), day(10))


def test_what_nobody_tells_of_any_more_stays_with_when_it_was_last_told() -> None:
    found = topology(*site(RACK), word(TRAY, "nvml", parent=RACK, told=day(5)))
    assert place(found, TRAY, NOW)["rack"] == number(RACK)
    assert dict(found.last_told().iter_rows())[number(TRAY)] == day(5)


def test_a_correction_replaces_what_was_said_to_be_so_since_the_same_time() -> None:
    """The table keeps the later of two words with one time; a word that was told from a later time is taken back."""
    found = topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "topology", parent="rack:R2", since=day(2)),
        word(TRAY, "topology", parent=RACK, since=day(4), told=day(8)),
    )
    assert place(found, TRAY, day(6))["rack"] == number("rack:R2")


# History


def test_a_gpu_that_moved_was_in_the_one_tray_until_then_and_is_in_the_other_since() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "nvml", parent=RACK, source=1),
        word("tray:T2", "nvml", parent="rack:R2", source=2),
        word(GPU, "nvml", parent=TRAY, source=1, told=day(10)),
        word(GPU, "nvml", parent="tray:T2", source=2, since=day(11)),
    )
    assert [place(found, GPU, at)["rack_name"] for at in (day(2), day(10), day(11), NOW)] == [
        "rack 1", "rack 1", "rack 2", "rack 2",
    ]  # fmt: skip
    assert found.conflicts.is_empty()


def test_a_rack_that_moved_keeps_its_past_and_so_does_what_is_in_it() -> None:
    found = topology(
        *site(),
        word("row:1", "topology", parent=HALL),
        word("row:2", "topology", parent=HALL),
        word(RACK, "topology", parent="row:1"),
        word(RACK, "topology", parent="row:2", since=day(10)),
        word(TRAY, "nvml", parent=RACK),
        word(GPU, "nvml", parent=TRAY),
    )
    for thing in (RACK, TRAY, GPU):
        assert place(found, thing, day(10) - timedelta(milliseconds=1))["row"] == number("row:1")
        assert place(found, thing, day(10))["row"] == number("row:2")


def test_what_was_not_known_yet_is_not_in_the_tree_of_that_time_but_readings_find_their_place() -> None:
    found = topology(*site(RACK), word(TRAY, "nvml", parent=RACK, since=day(5)))
    assert number(TRAY) not in found.as_of(day(4))["resource"]
    (row,) = found.places.filter(pl.col("resource") == number(TRAY)).iter_rows(named=True)
    assert (row["valid_from"], row["valid_to"], row["known_from"]) == (EVER, FOREVER, day(5))


def test_a_name_in_the_path_is_that_of_today_and_a_rename_is_no_move() -> None:
    found = topology(*site(RACK), word(RACK, "topology", parent=HALL, name="rack 99", since=day(9)))
    (row,) = found.places.filter(pl.col("resource") == number(RACK)).iter_rows(named=True)
    assert (row["rack_name"], row["valid_from"]) == ("rack 99", EVER)


def test_an_agent_that_starts_anew_makes_no_new_version() -> None:
    starts = [
        word(TRAY, "nvml", parent=RACK, since=day(start), told=day(start + 1), model="x") for start in range(1, 19)
    ]
    assert len(topology(*site(RACK), *starts).versions.filter(pl.col("resource") == number(TRAY))) == 1


def test_an_exchanged_meter_has_the_serial_number_of_its_time() -> None:
    found = topology(
        word("meter:M", "topology", serial="1", role="it"),
        word("meter:M", "topology", serial="2", role="it", since=day(9)),
    )
    assert found.versions.select("valid_from", "values").rows() == [(EVER, ["it", "1"]), (day(9), ["it", "2"])]


# Conflicts


def two_racks_for_one_gpu() -> Topology:
    return topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "nvml", parent=RACK, name="node-1"),
        word("tray:T2", "nvml", parent="rack:R2", name="node-2"),
        word(GPU, "nvml", parent=TRAY, name="GPU 0", since=day(2), told=day(20)),
        word(GPU, "dsx", parent="tray:T2", since=day(3)),
    )


def test_two_racks_for_one_gpu_are_shown_with_both_words() -> None:
    found = two_racks_for_one_gpu()
    assert conflict_frame(found).rows(named=True) == [
        {
            "kind": "gpu",
            "name": "GPU 0",
            "place": "node-1 in rack 1",
            "says": "nvml",
            "other_place": "node-2 in rack 2",
            "other_says": "dsx",
            "since": day(3),
            "until": None,
        }
    ]
    assert place(found, GPU, NOW)["rack"] == number(RACK)


def test_a_conflict_ends_when_one_side_changes_and_stays_in_the_past() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "nvml", parent=RACK),
        word(TRAY, "dsx", parent="rack:R2", since=day(3)),
        word(TRAY, "dsx", parent=RACK, since=day(6)),
    )
    assert conflict_frame(found).is_empty()
    assert conflict_frame(found, past=True).select("since", "until").rows() == [(day(3), day(6))]


def test_a_change_that_takes_minutes_to_get_round_is_no_conflict() -> None:
    minutes = timedelta(minutes=10)
    found = topology(
        *site(RACK, "rack:R2"),
        *(word(TRAY, teller, parent=RACK) for teller in ("nvml", "dsx")),
        word(TRAY, "nvml", parent="rack:R2", since=day(6)),
        word(TRAY, "dsx", parent="rack:R2", since=day(6) + minutes),
    )
    assert found.conflicts.is_empty()


def test_two_agents_that_both_go_on_claiming_one_gpu_are_a_conflict() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "nvml", parent=RACK, source=1),
        word("tray:T2", "nvml", parent="rack:R2", source=2),
        word(GPU, "nvml", parent=TRAY, source=1),
        word(GPU, "nvml", parent="tray:T2", source=2, since=day(11)),
    )
    (conflict,) = found.conflicts.iter_rows(named=True)
    assert (conflict["source"], conflict["rival_source"]) == (2, 1)  # the newer word counts among equals
    assert (conflict["valid_from"], conflict["valid_to"]) == (day(11), FOREVER)


def test_a_word_that_names_a_level_further_up_only_says_less() -> None:
    found = topology(*site(RACK), word(TRAY, "nvml", parent=RACK), word(TRAY, "dsx", parent=HALL))
    assert found.conflicts.is_empty()


# Aliases


def aliased() -> Topology:
    return topology(
        *site(RACK),
        word("rack:1583", "topology", same_as="R1"),
        word("rack:1583", "nvml", name="1583", chassis_serial="1583"),
        word(TRAY, "nvml", parent="rack:1583", name="node-1"),
        word(TRAY, "dsx", parent=RACK),
        word("cdu:C", "topology", parent=HALL, serves=["rack:1583", RACK]),
    )


def test_all_that_is_said_of_an_alias_is_said_of_the_rack_that_it_is() -> None:
    found = aliased()
    (rack,) = found.versions.filter(pl.col("resource") == number(RACK)).iter_rows(named=True)
    assert (rack["name"], rack["keys"], rack["values"]) == ("rack 1", ["chassis_serial"], ["1583"])
    assert number("rack:1583") not in found.versions["resource"]
    assert found.conflicts.is_empty()


def test_readings_of_an_alias_have_the_place_of_the_rack_that_it_is() -> None:
    found = place(aliased(), "rack:1583", NOW)
    assert (found["same_as"], found["rack"], found["hall_name"]) == (number(RACK), number(RACK), "hall 1")
    assert place(aliased(), TRAY, NOW)["rack"] == number(RACK)


def test_who_serves_a_rack_under_two_names_serves_it_once() -> None:
    (cdu,) = aliased().versions.filter(pl.col("resource") == number("cdu:C")).iter_rows(named=True)
    assert cdu["serves"] == [number(RACK)]


def test_a_chassis_that_moves_to_another_place_takes_its_trays_along() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word("rack:1583", "topology", same_as="R1"),
        word("rack:1583", "topology", same_as="R2", since=day(10)),
        word(TRAY, "nvml", parent="rack:1583"),
    )
    assert [place(found, TRAY, at)["rack_name"] for at in (day(9), day(10))] == ["rack 1", "rack 2"]
    assert [place(found, "rack:1583", at)["same_as"] for at in (day(9), day(10))] == [number(RACK), number("rack:R2")]


def test_two_sources_that_make_each_others_rack_an_alias_end_in_one_rack() -> None:
    found = topology(
        *site(RACK),
        word("rack:1583", "topology", same_as="R1"),
        word(RACK, "redfish", same_as="1583"),
    )
    assert place(found, "rack:1583", NOW)["same_as"] == number(RACK)
    assert [refused.alias for refused in found.refused_aliases] == [number(RACK)]
    (line,) = (line for line in tree_lines(found, TreeView(NOW)) if "would be an alias" in line)
    assert line.startswith("rack ")


def test_an_alias_of_what_nobody_tells_of_is_that_all_the_same() -> None:
    found = topology(word("rack:1583", "redfish", parent=HALL, same_as="R9"))
    (rack,) = found.versions.iter_rows(named=True)
    assert (rack["resource"], rack["kind"], rack["identity"]) == (number("rack:R9"), "rack", "R9")


# Marks


def test_a_node_and_its_controller_that_tell_one_serial_number_are_one_tray() -> None:
    found = topology(
        *site(RACK),
        word("tray:machine-1", "host", name="node-1", system_serial="SN7", system_uuid="4c4c-1"),
        word("tray:CH9", "redfish", parent=RACK, serial="CH9", system_serial="SN7"),
    )
    (tray,) = found.versions.filter(pl.col("kind") == "tray").iter_rows(named=True)
    assert (tray["identity"], tray["name"], tray["parent"]) == ("machine-1", "node-1", number(RACK))
    assert place(found, "tray:CH9", NOW)["same_as"] == number("tray:machine-1")
    assert found.refused_aliases == ()


@pytest.mark.parametrize(
    "controller",
    [
        word("tray:CH9", "redfish", system_uuid="4C4C-1"),  # firmware writes it in either case
        word("tray:CH9", "redfish", serial="SN7"),  # a chassis that has the number of its system
    ],
)
def test_a_controller_is_known_by_uuid_or_by_the_number_of_its_chassis(controller: tuple[object, ...]) -> None:
    found = topology(word("tray:machine-1", "host", system_serial="SN7", system_uuid="4c4c-1"), controller)
    assert place(found, "tray:CH9", NOW)["same_as"] == number("tray:machine-1")


def test_one_tray_of_which_node_and_controller_say_two_racks_is_a_conflict() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word("tray:4/1", "nvml", parent=RACK, name="node-1", system_serial="SN7"),
        word("tray:CH9", "redfish", parent="rack:R2", system_serial="SN7"),
    )
    (conflict,) = conflict_frame(found).iter_rows(named=True)
    assert (conflict["kind"], conflict["name"]) == ("tray", "node-1")
    assert (conflict["place"], conflict["says"]) == ("rack 1 in rack 1", "nvml")
    assert (conflict["other_place"], conflict["other_says"]) == ("rack 2 in rack 2", "redfish")


def test_a_file_that_names_the_tray_counts_more_than_what_the_tray_bears() -> None:
    found = topology(
        word("tray:4/1", "nvml", system_serial="SN7"),
        word("tray:CH9", "redfish", system_serial="SN7"),
        word("tray:4/1", "topology", same_as="K1-R1-T1"),
        word("tray:K1-R1-T1", "topology"),
    )
    assert {place(found, tray, NOW)["same_as"] for tray in ("tray:4/1", "tray:CH9")} == {number("tray:K1-R1-T1")}
    assert found.refused_aliases == ()


def test_a_number_that_two_nodes_tell_makes_no_tray_and_is_said() -> None:
    found = topology(
        word("tray:machine-1", "host", system_serial="SN7"),
        word("tray:machine-2", "host", system_serial="SN7"),
        word("tray:CH9", "redfish", system_serial="SN7"),
    )
    assert {place(found, tray, NOW)["same_as"] for tray in ("tray:machine-1", "tray:machine-2", "tray:CH9")} == {
        number("tray:machine-1"), number("tray:machine-2"), number("tray:CH9"),
    }  # fmt: skip
    assert [line.partition(", but ")[2] for line in alias_lines(found)] == [
        "several trays tell the serial number sn7"
    ] * 2


def test_a_controller_that_is_put_into_another_node_is_that_nodes_from_then_on() -> None:
    found = topology(
        word("tray:machine-1", "host", system_serial="SN7"),
        word("tray:machine-2", "host", system_serial="SN8"),
        word("tray:CH9", "redfish", system_serial="SN7"),
        word("tray:CH9", "redfish", system_serial="SN8", since=day(10)),
    )
    whose = [place(found, "tray:CH9", at)["same_as"] for at in (day(9), day(10))]
    assert whose == [number("tray:machine-1"), number("tray:machine-2")]


def test_serial_numbers_of_other_things_say_nothing() -> None:
    found = topology(word("cdu:A", "redfish", serial="SN7"), word("cdu:B", "dsx", serial="SN7"))
    assert place(found, "cdu:A", NOW)["same_as"] == number("cdu:A")


# What is no tree


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        ([word(GPU, "nvml")], NO_PARENT),
        ([word(GPU, "nvml", parent="tray:unheard of")], UNKNOWN_PARENT),
        ([word(GPU, "nvml", parent=GPU)], CYCLE),
        ([word(GPU, "nvml", parent=TRAY), word(TRAY, "nvml", parent=GPU)], CYCLE),
        ([word(f"feeder:{n}", "dsx", parent=f"feeder:{n + 1}") for n in range(MOST_STEPS + 5)], TOO_DEEP),
    ],
)
def test_orphans_and_circles_are_found_and_never_loop(words: list[tuple[object, ...]], trouble: str) -> None:
    found = topology(*words)
    assert trouble in set(found.as_of(NOW)["trouble"])
    assert any(trouble in line for line in tree_lines(found, TreeView(NOW)))


def test_a_trouble_is_told_once_for_the_one_who_has_it() -> None:
    found = topology(word(RACK, "dsx"), word(TRAY, "nvml", parent=RACK), word(GPU, "nvml", parent=TRAY))
    assert set(found.as_of(NOW)["trouble"]) == {NO_PARENT}
    assert found.troubles(NOW)["resource"].to_list() == [number(RACK)]


def test_no_words_are_an_empty_topology() -> None:
    found = topology()
    assert found.versions.is_empty()
    assert found.places.is_empty()
    assert list(tree_lines(found, TreeView(NOW))) == ["nothing was known at 2026-10-20 00:00Z"]


def test_words_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="words have the columns"):
        reconcile(pl.DataFrame({"resource": [1]}))


def test_kinds_and_aliases_of_a_later_version_are_no_end() -> None:
    one = word(RACK, "dsx", same_as="R2")
    later = (*one[:5], "moon base", *one[6:])
    assert len(topology(later).places) == 1


# What is written


def test_only_what_differs_is_written() -> None:
    stored = pl.DataFrame({"key": [1, 2, 3], "value": [["a"], ["b"], ["c"]]})
    wanted = pl.DataFrame({"key": [2, 3, 4], "value": [["b"], ["x"], ["d"]]})
    written, deleted = differences(stored, wanted, ["key"])
    assert sorted(written["key"]) == [3, 4]
    assert deleted.rows() == [(1, ["a"])]


# What is shown


def test_the_tree_counts_trays_and_gpus_and_says_who_is_silent() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word("rack:1583", "topology", same_as="R1"),
        word(TRAY, "nvml", parent="rack:1583", name="node-1"),
        *(word(f"gpu:{n}", "nvml", parent=TRAY) for n in range(4)),
        word("cdu:C", "dsx", parent=HALL, told=day(5)),
    )
    assert list(tree_lines(found, TreeView(NOW))) == [
        "site S",
        "  hall hall 1  (H)",
        "    cdu C  last told 2026-10-05 00:00Z",
        "    rack rack 1  (R1, 1583)  1 tray, 4 gpus",
        "    rack rack 2  (R2)",
    ]


def test_a_part_of_the_tree_can_be_shown_whole() -> None:
    found = topology(*site(RACK), word(TRAY, "nvml", parent=RACK), word(GPU, "nvml", parent=TRAY))
    assert list(tree_lines(found, TreeView(NOW, under=number(RACK), whole=True))) == [
        "rack rack 1  (R1)", "  tray T1", "    gpu G",
    ]  # fmt: skip


def test_the_tree_of_a_time_before_the_first_word_is_empty_and_says_so() -> None:
    (line,) = tree_lines(topology(*site()), TreeView(datetime(2025, 1, 1, tzinfo=UTC)))
    assert line == "nothing was known at 2025-01-01 00:00Z; the first word holds from 2026-10-01 00:00Z"


def test_a_history_has_places_and_words() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word("rack:1583", "topology", same_as="R2"),
        word(TRAY, "nvml", parent=RACK, name="node-1", told=day(9), source=1),
        word(TRAY, "nvml", parent="rack:1583", name="node-1", since=day(9), source=1, slot="4"),
    )
    assert list(history_lines(found, number(TRAY))) == [
        f"tray node-1  (T1)  id {number(TRAY):016x}",
        "",
        "places",
        "  2026-10-01 00:00Z to 2026-10-09 00:00Z  S / hall 1 / rack 1",
        "  2026-10-09 00:00Z to now                S / hall 1 / rack 2",
        "",
        "words",
        "  2026-10-01 00:00Z  nvml 0000000000000001, last told 2026-10-09 00:00Z: name node-1, in rack 1",
        "  2026-10-09 00:00Z  nvml 0000000000000001, last told 2026-10-20 00:00Z: name node-1, in rack 2, slot 4",
    ]
    assert any(line.startswith("also 1583") for line in history_lines(found, number("rack:R2")))


def test_a_resource_is_found_by_what_people_have_at_hand() -> None:
    found = aliased()
    for text in (f"{number(RACK):016x}", "rack:R1", "R1", "rack 1", "1583", "rack:1583"):
        assert find_resource(found, text) == number(RACK)
    with pytest.raises(ValueError, match="no resource has the id, identity or name R9"):
        find_resource(found, "R9")
    twins = topology(word("rack:7", "dsx"), word("tray:7", "nvml"))
    with pytest.raises(ValueError, match="7 is more than one resource; say which: rack:7, tray:7"):
        find_resource(twins, "7")


def test_files_are_checked_and_roles_that_no_report_knows_are_told(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('[[site]]\nidentity = "S"\n[[meter]]\nidentity = "M"\nparent = "S"\nrole = "itt"\n')
    (problem,) = file_problems([file], now=NOW)
    assert "meter M: no report knows the role itt; give one of site, it, cooling, other" in problem
    file.write_text("[[")
    assert len(file_problems([file], now=NOW)) == 1


def test_words_that_hold_since_ever_or_from_tomorrow_are_words_like_others() -> None:
    found = topology(
        *site(RACK, "rack:R2"),
        word(TRAY, "topology", parent=RACK, since=EVER),
        word(TRAY, "topology", parent="rack:R2", since=NOW + timedelta(days=1)),
        word("rack:1583", "topology", same_as="R1", since=EVER),
        word(GPU, "nvml", parent=TRAY, since=EVER, told=EVER),
    )
    assert [place(found, GPU, at)["rack_name"] for at in (EVER, NOW, NOW + timedelta(days=1))] == [
        "rack 1", "rack 1", "rack 2",
    ]  # fmt: skip
