"""Progress for people: a bar on a terminal, a line per step elsewhere; always on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class TerminalScreen:
    """A bar that shows the step under way; finished steps stay as lines with their time."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            console=self.console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._text = ""
        self._started_s = 0.0

    def phase(self, text: str) -> None:
        if text == self._text:
            return
        self._finish()
        self._text, self._started_s = text, time.monotonic()
        self._task = self._progress.add_task(text, total=None)

    def progress(self, done: float, total: float) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            self.console.print(f"  {self._text}: {time.monotonic() - self._started_s:.1f} s", style="dim")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._progress.stop()
