"""Waiting for what is away: one call repeated, with growing pauses, until it succeeds or we are told to stop."""

import logging
from collections.abc import Callable
from threading import Event
from typing import TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_WAIT_S = 0.2


class StoppedError(Exception):
    """The process was told to stop while it waited for something to come back."""


def retry_until_stopped(
    call: Callable[[], Result],
    *,
    doing: str,
    stop: Event,
    errors: tuple[type[Exception], ...] = (ConnectionError,),
    max_wait_s: float = 30.0,
    on_retry: Callable[[], object] = lambda: None,
) -> Result:
    """Call until it does not raise one of `errors`; every failure says in the log what is waited for.

    Blocks as long as it takes. StoppedError when `stop` is set meanwhile; any other error goes through.
    """
    wait_s = min(_FIRST_WAIT_S, max_wait_s)
    while True:
        try:
            return call()
        except errors as error:
            on_retry()
            logger.warning("waiting: %s", error, extra={"doing": doing, "again_in_s": round(wait_s, 1)})
            if stop.wait(wait_s):
                raise StoppedError(doing) from error
        wait_s = min(2 * wait_s, max_wait_s)
