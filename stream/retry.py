"""Waiting for what is away: one call repeated, with growing pauses, until it succeeds or we are told to stop."""

import logging
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_exponential
from tenacity.nap import sleep_using_event

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

    def report(state: RetryCallState) -> None:
        on_retry()
        reason = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        logger.warning("waiting: %s", reason, extra={"doing": doing, "again_in_s": round(wait_s, 1)})

    def give_up(state: RetryCallState) -> Result:
        raise StoppedError(doing) from (state.outcome.exception() if state.outcome else None)

    return Retrying(
        retry=retry_if_exception_type(errors),
        wait=wait_exponential(multiplier=_FIRST_WAIT_S, max=max_wait_s),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=report,
        retry_error_callback=give_up,
    )(call)
