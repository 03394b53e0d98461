"""The agents as Prometheus targets, from the inventory: what gives every reading of a node its rack and CDU. Pure."""

import json

from alerts.tree import Tree
from catalogue import ResourceKind


def render_targets(tree: Tree, *, port: int) -> str:
    """A file for `file_sd_configs`: one target per tray, by its host name, with hall, rack, CDU and feeder."""
    targets = []
    for tray, _ in sorted(tree.of_kinds(ResourceKind.TRAY)):
        place = tree.place(tray)
        named = {"node": place.name, "rack": place.rack, "cdu": place.cdu, "feeder": place.feeder, "hall": place.hall}
        labels = {name: value for name, value in named.items() if value}
        targets.append({"targets": [f"{place.name}:{port}"], "labels": labels})
    return json.dumps(targets, indent=1, ensure_ascii=False) + "\n"
