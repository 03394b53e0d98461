"""Whatever a device answers, discovery ends, and no document makes us raise anything but a DeviceError."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from catalogue.point import UNIT_CODES
from collectors.facility import MAX_NAME_CHARACTERS
from collectors.redfish.document import Document
from collectors.redfish.plan import Discovery, Plan
from collectors.redfish.report import overlay, read_report
from collectors.redfish.settings import RedfishDevice
from collectors.redfish.tree import EXPAND
from collectors.redfish.values import values_of
from tests.servers.redfish_service import ROOT, Json
from tests.servers.redfish_trees import (
    cdu_tree,
    loop_tree,
    old_server_tree,
    pdu_tree,
    rack_tree,
    server_tree,
    shelf_tree,
)

TREES = [cdu_tree(), loop_tree(), pdu_tree(), shelf_tree(), rack_tree(), server_tree(), old_server_tree()]
DEVICE = RedfishDevice(name="d", url="https://10.0.0.3", rack="rack-1", sensors="all")

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1e308,
        float("inf"),
        "",
        "NaN",
        "Absent",
        "\x00" * 40,
        "\ud800",
        "x" * 5000,
        [],
        {},
        [[]],
        [{}],
        {"Reading": []},
    ]
)
LINKS = st.sampled_from([f"{ROOT}/{path}" for tree in TREES for path in tree] + ["//elsewhere", "/redfish/v1/none"])
SCALARS = ODD | LINKS | st.floats(allow_nan=False) | st.integers() | st.text(max_size=20)
NAMES = st.sampled_from(["@odata.id", "Members", "Status", "State", "Reading", "DataSourceUri", "Detectors", "Links"])
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3)
)


class Tree:
    """A service in memory."""

    received_bytes = 0

    def __init__(self, documents: dict[str, Json]) -> None:
        self.documents = documents
        self.asked = 0

    def get(self, path: str, *, fresh: bool = False) -> Document | None:  # noqa: ARG002 - the protocol's
        self.asked += 1
        assert self.asked < 5000
        return self.documents.get(path.removesuffix(EXPAND))


def spoiled(tree: dict[str, Json], data: st.DataObject) -> dict[str, Json]:
    """The tree with some properties, at any depth, replaced."""
    documents = {f"{ROOT}/{path}".rstrip("/"): copy.deepcopy(document) for path, document in tree.items()}
    for _ in range(data.draw(st.integers(1, 6))):
        place: Any = documents[data.draw(st.sampled_from(sorted(documents)))]
        while place:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                place[key] = data.draw(ANYTHING)
                break
            place = place[key]
    return documents


def discover(documents: dict[str, Json]) -> Plan:
    service, discovery = Tree(documents), Discovery(DEVICE, most=200)
    assert discovery.go(service)
    return discovery.plan()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TREES), st.data())
def test_a_device_may_answer_what_it_likes(tree: dict[str, Json], data: st.DataObject) -> None:
    plan = discover(spoiled(tree, data))
    later = spoiled(tree, data)
    for equipment in plan.equipment:
        assert len(equipment.identity) <= MAX_NAME_CHARACTERS
        shown = values_of(equipment, {part.path: later[part.path] for part in equipment.parts if part.path in later})
        assert set(shown.columns) <= {metric.name for metric in equipment.table.metrics}
        assert all(isinstance(value, int | float) for value in shown.columns.values())
        for point in shown.points:
            assert point.point.unit in UNIT_CODES
            assert point.point.inventory(valid_from_ms=0, source=1).name


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TREES), st.dictionaries(NAMES | st.just("MetricValues"), ANYTHING), st.data())
def test_a_report_may_say_what_it_likes(tree: dict[str, Json], report: dict[str, Any], data: st.DataObject) -> None:
    documents = spoiled(tree, data)
    found = read_report(report)
    for path, covered in discover(documents).covered.items():
        overlay(documents[path], covered.needs, found.values)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["Chassis", "ThermalEquipment", "PowerEquipment", "TelemetryService"]), ANYTHING)
)
def test_a_root_may_be_anything(root: dict[str, Any]) -> None:
    assert discover({ROOT: root}).equipment == ()
