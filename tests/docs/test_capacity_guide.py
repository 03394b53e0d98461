"""docs/guides/capacity.md: what it shows is what the command prints, and its arithmetic holds."""

import re
import shlex

from click.testing import CliRunner

from kvandal.cli import main
from kvandal.planning import load_unit_costs
from tests.docs.blocks import GUIDES, blocks

GUIDE = GUIDES / "capacity.md"


def test_the_plan_that_is_shown_is_what_the_command_prints() -> None:
    command, shown, *_ = blocks(GUIDE, "text")
    assert shown == CliRunner().invoke(main, shlex.split(command)[1:]).stdout


def test_the_sum_by_hand_is_the_plans_own() -> None:
    found = re.search(r"([\d,]+) rows/s x ([\d.]+) bytes x (\d+) days x 86,400 s =\s+([\d.]+) GB", GUIDE.read_text())
    assert found is not None
    rows, each, days, total = (float(text.replace(",", "")) for text in found.groups())
    assert each == load_unit_costs().tables["gpu"].raw_bytes_per_row
    assert round(rows * each * days * 86_400 / 1e9, 1) == total
