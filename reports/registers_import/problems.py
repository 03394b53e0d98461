"""How a file that cannot be imported is told: every problem at once, as far as a person reads."""

from collections.abc import Sequence

SHOWN = 20


class RegisterFileError(ValueError):
    """A register's file cannot be imported. `problems` are sentences, each with line and column; nothing was stored."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(problems) - SHOWN
        lines = [*problems[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
        super().__init__(f"{name} cannot be imported:\n" + "\n".join(f"  {line}" for line in lines))
