"""A server's program as a process of the tests: its log, its end, and its life as a context manager."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from kvandal.broker import tied_to_parent
from tests.servers.ports import free_port

STOP_TIMEOUT_S = 5.0


@dataclass(slots=True, kw_only=True)
class Daemon(ABC):
    """A process while it runs. It ends with the context manager or with the test process."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def log_path(self) -> Path:
        """Where everything that it says goes, after what is there already."""

    @abstractmethod
    def start(self) -> Self:
        """Return once it is ready. Raises ServerUnavailable or ServerFailed."""

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                tied_to_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return self.process

    def stop(self, *, kill: bool = True) -> None:
        """End it, by SIGKILL or by SIGTERM, with which it may save what it knows. Harmless when repeated."""
        if self.process is not None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(STOP_TIMEOUT_S)
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
