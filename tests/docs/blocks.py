"""The fenced blocks of the documents."""

import re
import textwrap
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
FENCE = re.compile(r"^(?P<indent> *)```(?P<mark>\w*)\n(?P<body>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, mark: str) -> list[str]:
    """The bodies of a page's blocks that are marked so, in order."""
    return [textwrap.dedent(match["body"]) for match in FENCE.finditer(page.read_text()) if match["mark"] == mark]
