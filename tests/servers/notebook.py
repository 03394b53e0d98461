"""Where a source's counters are kept between two lives of it, as the spool keeps them for an agent."""

from collections.abc import Mapping

from collectors.counters import KeptCounter


class Notebook:
    """A counter store that outlives a source, and knows only what was put."""

    def __init__(self) -> None:
        self.kept: dict[str, KeptCounter] = {}

    def get(self, key: str) -> KeptCounter | None:
        return self.kept.get(key)

    def put(self, counters: Mapping[str, KeptCounter]) -> None:
        self.kept.update(counters)
