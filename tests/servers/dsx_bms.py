"""A building system on the BMS bus as a test tells it: it describes points and says values, as the schema asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from stream.clock import Clock

WAIT_S = 10.0
POLL_INTERVAL_S = 0.01

NO_LEAK_OR_LEAK = [{"value": 0, "text": "NoLeak"}, {"value": 1, "text": "Leak"}]


def wait_until(is_so: Callable[[], object], what: str, *, timeout_s: float = WAIT_S) -> None:
    """Return once it is so; fails the test when that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_INTERVAL_S)


class Bms:
    """A client that publishes; its time is the test's. Every call returns once the broker has the message."""

    def __init__(self, port: int, clock: Clock, *, user: str = "", password: str = "") -> None:
        self._clock = clock
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="bms")
        self._client.reconnect_delay_set(1, 1)
        if user:
            self._client.username_pw_set(user, password)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def describe(self, point: str, **facts: Any) -> None:
        """Publish the metadata of `point` (object type, point type and tag path), retained."""
        object_type, point_type, _ = point.split("/", 2)
        described = {"objectType": object_type, "pointType": point_type, **facts}
        self.publish(f"BMS/v1/PUB/Metadata/{point}", msgspec.json.encode(described), retain=True)

    def say(
        self, point: str, value: float | None, *, quality: int = 1, ago_s: float = 0.0, publisher: str = "PUB"
    ) -> None:
        """Publish a value of `point` that was so at the test's time, or some time ago."""
        stamp = self._clock.utc_ms() - round(ago_s * 1000)
        payload = {"value": value, "timestamp": stamp, "quality": quality}
        self.publish(f"BMS/v1/{publisher}/Value/{point}", msgspec.json.encode(payload))

    def beat(self) -> None:
        """Publish the heartbeat."""
        self.say("System/HeartbeatTimestampBms/bms/heartbeat", self._clock.utc_ms())

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        wait_until(self._client.is_connected, "the building system reaches the broker")
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
