"""A member of a consumer group in a process of its own, so that a test can stop and wake it like a stalled machine.

The child joins the group and then obeys one JSON line at a time on standard input; a test drives it with `GroupMember`.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition  # type: ignore[import-untyped]
from kafka.errors import KafkaError  # type: ignore[import-untyped]

from kvandal.broker import tied_to_parent

ROOT = Path(__file__).resolve().parents[2]  # from where the child finds this module
JOIN_TIMEOUT_S = 30.0
REPLY_TIMEOUT_S = 45.0  # above the client's own limit of 30 s for one request


@dataclass(frozen=True, slots=True)
class GroupMember:
    """The test's end of a member process. As a context manager it kills the process at the end."""

    process: subprocess.Popen[bytes]
    partitions: tuple[int, ...]

    @classmethod
    def join(cls, bootstrap: str, group: str, topic: str, *, session_timeout_s: float) -> Self:
        """Start a member and return once it has been given partitions of `topic`."""
        arguments = [bootstrap, group, topic, str(int(session_timeout_s * 1000))]
        process = subprocess.Popen(
            tied_to_parent([sys.executable, "-m", "tests.servers.member", *arguments]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
        )
        try:
            return cls(process, tuple(_read_reply(process)["partitions"]))
        except BaseException:
            _end(process)
            raise

    def commit(self, partition: int, offset: int, metadata: str) -> str:
        """Have the member commit; returns "committed" or the name of the error that its client raised."""
        return self._ask({"partition": partition, "offset": offset, "metadata": metadata})

    def freeze(self) -> None:
        """SIGSTOP: the process runs nothing, not even its heartbeats, until `wake`."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self.process)

    def _ask(self, question: dict[str, Any]) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        return str(_read_reply(self.process)["result"])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


# Any: the child's JSON, whose shape is in this file.
def _read_reply(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], REPLY_TIMEOUT_S)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise RuntimeError(f"the group member gave no answer within {REPLY_TIMEOUT_S:g} s")
    reply: dict[str, Any] = json.loads(line)
    return reply


def _reply(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _commit(consumer: KafkaConsumer, topic: str, wish: dict[str, Any]) -> str:
    target = TopicPartition(topic, wish["partition"])
    try:
        consumer.commit({target: OffsetAndMetadata(wish["offset"], wish["metadata"], -1)})
    except KafkaError as error:
        return type(error).__name__
    return "committed"


def main(arguments: Sequence[str]) -> None:
    bootstrap, group, topic, session_timeout_ms = arguments
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        session_timeout_ms=int(session_timeout_ms),
        heartbeat_interval_ms=int(session_timeout_ms) // 6,
    )
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(1000)  # long enough for a join: a shorter poll can lose one (tests/contract/test_brokers.py)
    _reply(partitions=sorted(owned.partition for owned in consumer.assignment()))
    for line in sys.stdin:
        _reply(result=_commit(consumer, topic, json.loads(line)))


if __name__ == "__main__":
    main(sys.argv[1:])
