"""SIGHUP, which means "read the settings again" to an agent and would end it while nobody handles it.

`systemctl reload` may come while the agent still starts. So this imports little, and what it does comes first.
"""

import logging
import signal
from collections.abc import Callable
from threading import Event
from types import FrameType

from kvandal.settings import AgentSettings, SettingsError

_log = logging.getLogger(__name__)


class Reload:
    """SIGHUP as a wish to `load` the settings again, from when this is made."""

    def __init__(self, load: Callable[[], AgentSettings]) -> None:
        self._load = load
        self._wanted = Event()
        signal.signal(signal.SIGHUP, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        self._wanted.set()

    def take(self) -> AgentSettings | None:
        """The new settings if they were asked for since the last call, and are good."""
        if not self._wanted.is_set():
            return None
        self._wanted.clear()
        try:
            return self._load()
        except (SettingsError, OSError) as error:
            _log.error("settings not reloaded, the old ones stay: %s", error)
            return None
