"""Child processes of the embedded stack: started, listened to, and ended in order."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from kvandal.broker import last_line, tied_to_parent

_LOOK_S = 0.2  # how soon the end of a child is noticed


class ChildError(RuntimeError):
    """A process of the stack ended, or did not start; the message has its last words."""


class Child:
    """A `kvandal` process that tells its facts as JSON lines on stdout and logs to a file.

    It runs in a session of its own, so that Ctrl-C reaches it only through `stop`, and ends when
    this process does.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, log_path: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log_path = log_path
        self._facts: SimpleQueue[dict[str, Any]] = SimpleQueue()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                tied_to_parent([sys.executable, "-m", "kvandal", *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )
        Thread(target=self._listen, name=f"listen-{name}", daemon=True).start()

    def next_facts(self, timeout_s: float) -> dict[str, Any] | None:
        """The next line that the child said; None when it said nothing in time. ChildError when it has ended."""
        give_up_s = time.monotonic() + timeout_s
        while True:
            with suppress(Empty):
                return self._facts.get(timeout=min(timeout_s, _LOOK_S))
            self.check()
            if time.monotonic() >= give_up_s:
                return None

    def check(self) -> None:
        """ChildError when the process has ended by itself."""
        code = self.process.poll()
        if code is not None:
            last_words = last_line(self.log_path).removeprefix("Error: ")
            raise ChildError(f"{self.name} ended with {code}: {last_words} (log: {self.log_path})")

    def stop(self, timeout_s: float) -> int:
        """Ask it to end, insist after `timeout_s`; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _listen(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._facts.put(json.loads(line))
