"""All dashboards as the files that are committed: JSON for Grafana, YAML for its provisioning."""

import json
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.board import RUNBOOKS, Board
from dashboards.boards import (
    cooling,
    customers,
    fleet,
    gpu,
    heat,
    jobs,
    pipeline,
    power,
    rack,
    reliability,
    site,
    sustainability,
)
from dashboards.provisioning import provisioning_files

RENDERED = Path("dashboards/rendered")  # within the repository


def boards() -> tuple[Board, ...]:
    """Every dashboard, in the order of a walk from the fleet to one GPU and on to who pays for it."""
    modules = (site, power, cooling, heat, fleet, rack, gpu, jobs, reliability, customers, sustainability, pipeline)
    return tuple(module.board() for module in modules)


def dashboard_json(board: Board, runbooks: str = RUNBOOKS) -> str:
    """The dashboard as Grafana imports it, the same text for the same board."""
    return json.dumps(board.build(runbooks), cls=JSONEncoder, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def site_files(runbooks: str = RUNBOOKS) -> Mapping[Path, str]:
    """Everything that Grafana's file provisioning needs, for a site's own runbooks."""
    files = {Path(f"{board.page}.json"): dashboard_json(board, runbooks) for board in boards()}
    return files | {Path("provisioning") / path: text for path, text in provisioning_files().items()}


def rendered_files() -> Mapping[Path, str]:
    """Every generated file of this package, by its path within the repository."""
    return {RENDERED / path: text for path, text in site_files().items()}
