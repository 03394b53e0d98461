"""Alarms go to every Alertmanager, at once when something changed, and again and again while they stand."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from alerts.alertmanager import Alertmanager, AlertmanagerError
from alerts.incident import Alarm
from stream.clock import Clock

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_Stand = tuple[str, int, int | None, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class PushRule:
    """How often alarms are said again, and how long the Alertmanager believes one that is not.

    `expire_s` bridges a restart of ours: what stands must not look solved and be told anew.
    """

    resend_s: float = 60.0
    expire_s: float = 3600.0


@dataclass(slots=True)
class _Post:
    """One Alertmanager and what it was told."""

    alertmanager: Alertmanager
    told: set[_Stand] = field(default_factory=set)
    due_s: float = 0.0  # monotonic
    failures: int = 0
    pushed_s: float | None = None  # UTC
    is_away: bool = False


class Pusher:
    """Pushes to several Alertmanagers; one that is away is asked less and less often and holds up no other."""

    def __init__(self, alertmanagers: Sequence[Alertmanager], *, clock: Clock, rule: PushRule | None = None) -> None:
        self._posts = [_Post(alertmanager) for alertmanager in alertmanagers]
        self._clock = clock
        self._rule = rule or PushRule()
        self.failures = 0

    def push(self, alarms: Sequence[Alarm]) -> list[Alarm]:
        """Tell what changed or is to be said again. Returns the alarms that need not be kept as unsent any more."""
        now_s = self._clock.monotonic_s()
        stands = {_stand(alarm): alarm for alarm in alarms}
        for post in sorted(self._posts, key=lambda post: post.failures):
            if now_s >= post.due_s or (not post.is_away and not stands.keys() <= post.told):
                self._push_to(post, stands, now_s)
        return [alarm for stand, alarm in stands.items() if self._is_settled(stand, alarm)]

    def pushed_s(self) -> list[tuple[str, float]]:
        """When each was reached last, UTC seconds; not for one that never was."""
        return [(post.alertmanager.url, post.pushed_s) for post in self._posts if post.pushed_s is not None]

    def close(self) -> None:
        for post in self._posts:
            post.alertmanager.close()

    def _push_to(self, post: _Post, stands: dict[_Stand, Alarm], now_s: float) -> None:
        now_ms = self._clock.utc_ms()
        try:
            post.alertmanager.push(list(stands.values()), now_ms=now_ms, expire_s=self._rule.expire_s)
        except AlertmanagerError as error:
            self.failures += 1
            post.due_s = now_s + min(_FIRST_PAUSE_S * 2**post.failures, _LONGEST_PAUSE_S)
            post.failures = min(post.failures + 1, 10)
            if not post.is_away:
                logger.error("alarms could not be pushed: %s", error, extra={"alarms": len(stands)})
            post.is_away = True
            return
        if post.is_away:
            logger.warning("alarms are pushed again", extra={"alertmanager": post.alertmanager.url})
        post.told, post.failures, post.is_away = set(stands), 0, False
        post.due_s, post.pushed_s = now_s + self._rule.resend_s, now_ms / 1000

    def _is_settled(self, stand: _Stand, alarm: Alarm) -> bool:
        """Everyone has it; or it is over for so long that whoever has not has forgotten it by itself."""
        if all(stand in post.told for post in self._posts):
            return True
        reached = any(stand in post.told for post in self._posts)
        now_ms = self._clock.utc_ms()
        return reached and alarm.ends_ms is not None and now_ms - alarm.ends_ms > self._rule.expire_s * 1000


def _stand(alarm: Alarm) -> _Stand:
    return alarm.id, alarm.starts_ms, alarm.ends_ms, tuple(alarm.annotations.items())
