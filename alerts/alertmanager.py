"""The Alertmanager's API v2, as far as it is used: alerts are posted, silences made and ended."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import requests

from alerts.incident import Alarm

_TIMEOUT_S = (2.0, 5.0)  # to connect, to answer
_ALARMS_PER_POST = 500  # about half a megabyte
_MOST_WHY_CHARACTERS = 300


class AlertmanagerError(OSError):
    """The Alertmanager did not take something; the message says which one, what, and why."""


class Matcher(msgspec.Struct, frozen=True, rename="camel"):
    """What a silence holds back: a label and a value, or a regular expression; with `is_equal` False all others."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True


@dataclass(frozen=True, slots=True)
class Silence:
    """A time in which matching alerts tell nobody. `comment` is its identity among those of its maker."""

    comment: str
    matchers: tuple[Matcher, ...]
    starts_ms: int
    ends_ms: int
    id: str = ""


class _Status(msgspec.Struct):
    state: str


class _ShownSilence(msgspec.Struct, rename="camel"):
    id: str
    status: _Status
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    created_by: str
    comment: str


class _Made(msgspec.Struct, rename={"silence_id": "silenceID"}):
    silence_id: str


class Alertmanager:
    """One Alertmanager. Every call raises AlertmanagerError when it is away or refuses."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy between us and the pager is nobody's intention

    def push(self, alarms: Sequence[Alarm], *, now_ms: int, expire_s: float) -> None:
        """Post alarms. One that stands is given until `expire_s` from now: it is to be posted again before.

        Without alarms an empty list is posted: that it can be reached is worth knowing before it is needed.
        """
        for start in range(0, max(len(alarms), 1), _ALARMS_PER_POST):
            chunk = alarms[start : start + _ALARMS_PER_POST]
            self._call("POST", "alerts", [_posted(alarm, now_ms + round(expire_s * 1000)) for alarm in chunk])

    def silences(self, made_by: str) -> list[Silence]:
        """Those of one maker that are not over."""
        shown = msgspec.json.decode(self._call("GET", "silences"), type=list[_ShownSilence])
        return [
            Silence(s.comment, s.matchers, _milliseconds(s.starts_at), _milliseconds(s.ends_at), s.id)
            for s in shown
            if s.created_by == made_by and s.status.state != "expired"
        ]

    def silence(self, silence: Silence, *, made_by: str) -> str:
        """Make one, or change the one that has its id; returns the id."""
        answer = self._call(
            "POST",
            "silences",
            {
                **({"id": silence.id} if silence.id else {}),
                "matchers": msgspec.to_builtins(silence.matchers),
                "startsAt": _instant(silence.starts_ms),
                "endsAt": _instant(silence.ends_ms),
                "createdBy": made_by,
                "comment": silence.comment,
            },
        )
        return msgspec.json.decode(answer, type=_Made).silence_id

    def end_silence(self, silence_id: str) -> None:
        self._call("DELETE", f"silence/{silence_id}")

    def close(self) -> None:
        self._session.close()

    def _call(self, method: str, path: str, body: Mapping[str, object] | Iterable[object] | None = None) -> bytes:
        url = f"{self.url}/api/v2/{path}"
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            answer = self._session.request(method, url, data=data, headers=headers, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise AlertmanagerError(f"{url} does not answer ({type(error).__name__}); it is tried again") from error
        if not answer.ok:
            why = answer.text[:_MOST_WHY_CHARACTERS].strip()
            raise AlertmanagerError(f"{url} answers {answer.status_code}: {why}")
        return answer.content


def _posted(alarm: Alarm, until_ms: int) -> dict[str, object]:
    return {
        "labels": alarm.labels,
        "annotations": alarm.annotations,
        "startsAt": _instant(alarm.starts_ms),
        "endsAt": _instant(until_ms if alarm.ends_ms is None else alarm.ends_ms),
        "generatorURL": alarm.annotations.get("dashboard", ""),
    }


def _instant(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
