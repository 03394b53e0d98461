"""The building system of the simulated site: its racks on an NVIDIA DSX Exchange bus, through a broker that runs.

NVIDIA dsx-exchange, schemas/asyncapi/bms/bms.yaml (BMS Event Bus 1.0.0) and docs/bms-integration.md: metadata are
retained; values come when they change, and again every 100 s; the heartbeat comes every 10 s.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from catalogue.facility import LeakState
from simulation.columns import Columns
from simulation.serving.serving import Moment

Counts = NDArray[np.int64]

REPUBLISH_S = 100.0
HEARTBEAT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 30
LONGEST_PAUSE_S = 10  # between two tries to reach a broker that has gone

_TOPICS = "BMS/v1/PUB"
_HEARTBEAT = "System/HeartbeatTimestampBms/simulated-site"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RackPoint:
    """A number that the bus has of every rack, in the unit that the schema fixes.

    It is said in whole steps, the resolution of its sensor, so that noise below does not count as a change.
    """

    point_type: str
    metric: str  # of the table rack
    unit: str
    base_units: float  # in one of `unit`
    steps_per_unit: int

    @property
    def step(self) -> float:
        """Its resolution, in the metric's base unit."""
        return self.base_units / self.steps_per_unit


RACK_POINTS = (
    RackPoint("RackPower", "power_watts", "kW", 1e3, 100),
    RackPoint("RackLiquidSupplyTemperature", "liquid_supply_temperature_celsius", "C", 1.0, 100),
    RackPoint("RackLiquidReturnTemperature", "liquid_return_temperature_celsius", "C", 1.0, 100),
    RackPoint("RackLiquidFlow", "liquid_flow_cubic_metres_per_second", "LPM", 1e-3 / 60, 10),
    RackPoint("RackLiquidDifferentialPressure", "liquid_differential_pressure_pascals", "kPa", 1e3, 10),
    RackPoint("RackControlValvePosition", "valve_position_ratio", "%", 0.01, 10),
)
# Points that are 0 or 1, and what the two are called.
RACK_STATES: Mapping[str, tuple[str, str]] = {
    "RackLeakDetect": ("NoLeak", "Leak"),
    "RackLeakSensorFault": ("NoFault", "Fault"),
    "RackLiquidIsolationStatus": ("NotIsolated", "Isolated"),
    "RackElectricalIsolationStatus": ("NotIsolated", "Isolated"),
}
POINT_TYPES = (*(point.point_type for point in RACK_POINTS), *RACK_STATES)


@dataclass(frozen=True, slots=True)
class BusRack:
    """A rack as the building system knows it; `identity` is what the IT side calls it, too."""

    identity: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and how to get in; TLS with `ca_file`, without it none."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        return f"BrokerAddress({self.host}:{self.port})"  # no secret in a log


class DsxBms:
    """Publishes the first `racks` of the site's. While the broker is away nothing is kept: values are the latest only.

    `said` counts the values that were handed to the client, without heartbeats.
    """

    def __init__(self, racks: Sequence[BusRack], broker: BrokerAddress) -> None:
        self.said = 0
        self._racks = tuple(racks)
        self._broker = broker
        self._told: Counts | None = None  # shape (point types, racks)
        self._told_s = np.full((len(POINT_TYPES), len(racks)), -np.inf)
        self._beat_s = -np.inf
        self._is_new = Event()  # the broker may know nothing of us
        self._answered = Event()
        self._refusal = ""
        self._client = self._make_client()

    def start(self) -> None:
        """Connect. Raises ConnectionError when the broker cannot be reached or refuses us."""
        at = f"{self._broker.host}:{self._broker.port}"
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=KEEPALIVE_S)
        except OSError as error:
            raise ConnectionError(f"the MQTT broker {at} cannot be reached ({error}); start Mosquitto there") from error
        self._client.loop_start()
        if not self._answered.wait(CONNECT_TIMEOUT_S) or self._refusal:
            self.close()
            raise ConnectionError(f"the MQTT broker {at} does not let us in: {self._refusal or 'it does not answer'}")

    def show(self, moment: Moment) -> None:
        if not self._client.is_connected():
            return
        if self._is_new.is_set():
            self._is_new.clear()
            self._told = None
            self._describe()
        now = counts_of(moment.rack, len(self._racks))
        if self._told is None:
            due = np.ones(now.shape, dtype=bool)
        else:
            due = (now != self._told) | (moment.time_s - self._told_s >= REPUBLISH_S)
        for point, rack in np.argwhere(due).tolist():
            self._say(_topic(POINT_TYPES[point], self._racks[rack]), _value(point, int(now[point, rack])), moment)
        self.said += int(due.sum())
        self._told, self._told_s = now, np.where(due, moment.time_s, self._told_s)
        self._beat(moment)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _make_client(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id="kvandal-simulated-site")
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.max_inflight_messages_set(1000)  # a tick of 350 racks has up to 3,500 of them
        if self._broker.username:
            client.username_pw_set(self._broker.username, self._broker.password)
        if self._broker.ca_file:
            client.tls_set(str(Path(self._broker.ca_file)))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        return client

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        if not reason.is_failure:
            self._is_new.set()
        self._answered.set()

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            _log.warning("the MQTT broker has gone; tried again: %s", reason)

    def _describe(self) -> None:
        for topic, facts in metadata_of(self._racks):
            self._client.publish(f"{_TOPICS}/Metadata/{topic}", json.dumps(facts), qos=1, retain=True)

    def _beat(self, moment: Moment) -> None:
        if moment.time_s - self._beat_s >= HEARTBEAT_S:
            self._beat_s = moment.time_s
            self._say(_HEARTBEAT, round(moment.time_s * 1000), moment)

    def _say(self, topic: str, value: float, moment: Moment) -> None:
        payload = {"value": value, "timestamp": round(moment.time_s * 1000), "quality": 1}
        self._client.publish(f"{_TOPICS}/Value/{topic}", json.dumps(payload), qos=1)


def counts_of(rack: Columns, racks: int) -> Counts:
    """What the bus says of the first `racks`, in steps of each point; shape (point types, racks)."""
    numbers = [np.round(rack[point.metric][:racks] / point.step) for point in RACK_POINTS]
    states = {
        "RackLeakDetect": rack["leak_state"] > LeakState.DRY,
        "RackLeakSensorFault": np.zeros(len(rack["leak_state"])),  # the simulation has no such fault
        # What a building system does to a rack that leaks, and to one that is taken off.
        "RackLiquidIsolationStatus": rack["liquid_flow_cubic_metres_per_second"] == 0,
        "RackElectricalIsolationStatus": rack["power_watts"] == 0,
    }
    return np.stack([*numbers, *(states[name][:racks] for name in RACK_STATES)]).astype(np.int64)


def metadata_of(racks: Sequence[BusRack]) -> Iterator[tuple[str, dict[str, object]]]:
    """What every point is, by its topic below Metadata."""
    units = {point.point_type: point.unit for point in RACK_POINTS}
    for rack in racks:
        whose = {"objectType": "Rack", "rackLocationId": rack.identity, "rackLocationName": rack.name}
        for name in POINT_TYPES:
            meaning: dict[str, object] = (
                {"engUnit": units[name]}
                if name in units
                else {"stateText": [{"value": n, "text": text} for n, text in enumerate(RACK_STATES[name])]}
            )
            yield _topic(name, rack), {**whose, "pointType": name, **meaning}
    yield _HEARTBEAT, {"objectType": "System", "pointType": "HeartbeatTimestampBms", "objectName": "Simulated site"}


def _topic(point_type: str, rack: BusRack) -> str:
    return f"Rack/{point_type}/{rack.identity}"


def _value(point: int, count: int) -> float:
    return count / RACK_POINTS[point].steps_per_unit if point < len(RACK_POINTS) else count
