"""Prometheus' and the Alertmanager's own programs, as a replay asks them: rules are judged and pages held by them."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import requests
import yaml

from alerts.alertmanager import Alertmanager, AlertmanagerError
from alerts.incident import Alarm
from alerts.replay_score import Raised
from alerts.routing import TEMPLATE_NAME, Routing, render_routing, render_template
from kvandal.broker import HOST, free_port, last_line, tied_to_parent

_PROMTOOL_S = 300.0
_START_S, _STOP_S, _ANSWER_S, _POLL_S = 30.0, 5.0, 30.0, 0.02
_EXPIRE_S = 3600.0
_CAUSE, _HELD = "ReplayCause", "ReplayHeld"  # the last two of what is pushed: when they are judged, all are


class ServerMissingError(RuntimeError):
    """A program that replays need is not on this machine."""


class ServerFailedError(RuntimeError):
    """A program that replays need did not do its work; the message says which and what it said."""


def find_program(*names: str, package: str) -> str:
    """Where a program is. Raises ServerMissingError with what to install."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise ServerMissingError(f"{names[0]} is not on the PATH; install it (Debian: apt install {package})")
    return found


def ask_promtool(test_file: Path) -> str:
    """What `promtool test rules` says; that claims do not hold is an answer, anything else is ServerFailedError."""
    program = find_program("promtool", package="prometheus")
    done = subprocess.run(  # noqa: S603 - our own arguments
        [program, "test", "rules", str(test_file)], capture_output=True, text=True, timeout=_PROMTOOL_S, check=False
    )
    answer = done.stdout + done.stderr
    if (done.returncode and "FAILED" not in answer) or "error" in answer.lower().partition("exp:")[0]:
        raise ServerFailedError(f"promtool could not judge {test_file}: {answer[:500].strip()}")
    return answer


class _State(msgspec.Struct):
    state: str


class _Alert(msgspec.Struct):
    labels: dict[str, str]
    status: _State


class _Receiver(msgspec.Struct):
    name: str


class _Group(msgspec.Struct):
    labels: dict[str, str]
    receiver: _Receiver
    alerts: list[_Alert]


@dataclass(frozen=True, slots=True)
class Judged:
    """An alert as the Alertmanager sees it: for which receiver, in which group, and whether another holds it back."""

    labels: dict[str, str]
    receiver: str
    group: str
    is_held: bool


class Judge:
    """A running Alertmanager with our routing that is asked what it would tell."""

    def __init__(self, url: str) -> None:
        self._client = Alertmanager(url)
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = f"{url}/api/v2/alerts/groups"
        self._asked = 0
        self._pushed: dict[str, Alarm] = {}

    def judge(self, standing: Sequence[Raised]) -> list[Judged]:
        """How it sees the alerts that stand, and no others."""
        self._asked += 1
        now_ms = time.time_ns() // 1_000_000
        wanted = {alarm.id: alarm for alarm in map(_alarm, standing)}
        over = [_ended(alarm, now_ms) for key, alarm in self._pushed.items() if key not in wanted]
        self._client.push([*over, *wanted.values()], now_ms=now_ms, expire_s=_EXPIRE_S)
        self._client.push(self._marks(), now_ms=now_ms, expire_s=_EXPIRE_S)
        self._pushed = wanted
        return [one for one in self._wait_until_judged() if one.labels["alertname"] not in (_CAUSE, _HELD)]

    def close(self) -> None:
        self._client.close()
        self._session.close()

    def _marks(self) -> list[Alarm]:
        labels = ({"alertname": name, "asked": str(self._asked)} for name in (_CAUSE, _HELD))
        return [_alarm(Raised(each, 0.0)) for each in labels]

    def _wait_until_judged(self) -> list[Judged]:
        """It judges in the order in which it was told: once the last is held back, all that came before is known."""
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            judged = list(self._judged())
            asked = [one for one in judged if one.labels.get("asked") == str(self._asked)]
            if len(asked) == 2 and any(one.is_held for one in asked):
                return judged
            time.sleep(_POLL_S)
        raise ServerFailedError(f"{self._url} did not judge within {_ANSWER_S:g} s")

    def _judged(self) -> Iterator[Judged]:
        answer = self._session.get(self._url, timeout=_ANSWER_S)
        answer.raise_for_status()
        for group in msgspec.json.decode(answer.content, type=list[_Group]):
            key = " ".join([group.receiver.name, *(f"{k}={v}" for k, v in sorted(group.labels.items()))])
            for alert in group.alerts:
                yield Judged(alert.labels, group.receiver.name, key, alert.status.state == "suppressed")


@contextmanager
def running_judge(folder: Path, routing: Routing) -> Iterator[Judge]:
    """An Alertmanager that tells nobody, with our routes and inhibitions. Raises as `find_program` does."""
    program = find_program("alertmanager", "prometheus-alertmanager", package="prometheus-alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TEMPLATE_NAME).write_text(render_template())
    (folder / "alertmanager.yml").write_text(_marked(render_routing(routing)))
    port, log_path = free_port(), folder / "alertmanager.log"
    command = [
        program, f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            tied_to_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    judge = Judge(f"http://{HOST}:{port}")
    try:
        _wait_until_it_answers(judge, process, log_path)
        yield judge
    finally:
        judge.close()
        process.kill()
        process.wait(_STOP_S)


def _wait_until_it_answers(judge: Judge, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            judge.judge([])
        except (AlertmanagerError, requests.RequestException):
            time.sleep(_POLL_S)
        else:
            return
    raise ServerFailedError(f"the Alertmanager did not start: {last_line(log_path)}")


def _marked(configuration: str) -> str:
    document = yaml.safe_load(configuration)
    mark = {
        "source_matchers": [f'alertname="{_CAUSE}"'], "target_matchers": [f'alertname="{_HELD}"'], "equal": ["asked"],
    }  # fmt: skip
    document["inhibit_rules"].append(mark)
    return str(yaml.safe_dump(document, sort_keys=False))


def _alarm(raised: Raised) -> Alarm:
    """As it is pushed; all of them began just now, as the Alertmanager lives in our time, not in the incident's."""
    labels = dict(raised.labels)
    key = "|".join(f"{name}={labels[name]}" for name in sorted(labels))
    return Alarm(id=key, labels=labels, annotations={}, starts_ms=time.time_ns() // 1_000_000 - 1000)


def _ended(alarm: Alarm, now_ms: int) -> Alarm:
    return Alarm(id=alarm.id, labels=alarm.labels, annotations={}, starts_ms=alarm.starts_ms, ends_ms=now_ms)
