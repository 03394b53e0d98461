"""Rack PDUs and UPSs over SNMP: power, current and energy of each meter as rows, the rest as points.

A map (collectors/snmp/maps) says what a family of agents has. An agent is walked once to learn which rows it has; from
then on only the objects that matter are asked for, by name. The library is asyncio: its event loop runs in a thread of
the source, where all of SNMP happens; the threads of the device pool only wait for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock, Thread
from typing import TypeVar

from collectors.device_pool import DevicePool
from collectors.devices import DeviceError, DeviceReport, DeviceState
from collectors.facility import gateway_id, readings_of
from collectors.snmp.agent import Agent, AgentAnswer, Speakers
from collectors.snmp.changes import Changes
from collectors.snmp.inventory import inventory_of
from collectors.snmp.map import DeviceMap
from collectors.snmp.map_file import MapError, load_maps
from collectors.snmp.plan import DevicePlan, measurements_of, points_of
from collectors.snmp.settings import SnmpDevice, SnmpSettings
from collectors.source import Reading, SourceUnavailableError
from collectors.told import ToldBefore
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage

logger = logging.getLogger(__name__)

READ_SHARE = 0.95  # of a device's deadline, so that a read ends before it is given up
CLOSE_TIMEOUT_S = 2.0
MAX_EVENTS = 1000  # that nobody has fetched; states seldom change
MAX_CHANGES = 20  # of one agent at one tick; the others come with the next

Result = TypeVar("Result")


class SnmpSource:
    """The agents of the settings as rows of the tables of their maps.

    Raises MapError when a map is wrong or a device names one that does not exist.
    """

    def __init__(self, settings: SnmpSettings, *, gateway: str, clock: Clock) -> None:
        self._settings = settings
        self._source = gateway_id(gateway, self.name)
        self._clock = clock
        maps = load_maps(Path(settings.maps) if settings.maps else None)
        _check(settings, maps)
        self._loop = _LoopThread(f"{self.name}-loop")
        self._speakers = Speakers(timeout_s=settings.timeout_s)
        self._devices = {device.name: device for device in settings.devices}
        self._claims = _Claims()
        self._pool: DevicePool[AgentAnswer] = DevicePool(
            {
                name: partial(self._ask, device, Agent(device, settings, maps, speakers=self._speakers, clock=clock))
                for name, device in self._devices.items()
            },
            source=self.name,
            workers=settings.workers,
            deadline_s=settings.budget_s,
            clock=clock,
        )
        self._plans: dict[str, DevicePlan] = {}
        self._has_news = False  # since inventory was asked for
        self._told = ToldBefore()
        self._changes = Changes(self._source)
        self._events: deque[EventMessage] = deque(maxlen=MAX_EVENTS)

    @property
    def name(self) -> str:
        return "snmp"

    def inventory(self) -> Sequence[InventoryMessage]:
        """The meters and points found so far; nothing before the first read."""
        self._has_news = False
        now_ms = self._clock.utc_ms()
        messages = [
            message
            for name, plan in self._plans.items()
            for message in inventory_of(
                plan,
                self._devices[name],
                interval_s=self._settings.interval_s,
                valid_from_ms=now_ms,
                source=self._source,
            )
        ]
        return self._told.all_dated(messages)

    def inventory_changed(self) -> bool:
        return self._has_news

    def read(self, time_s: int) -> Sequence[Reading]:
        answers = self._pool.poll()
        for name, answer in answers.items():
            self._has_news |= self._plans.get(name) is not answer.plan
            self._plans[name] = answer.plan
            self._events += islice(self._changes.since_last(name, answer, time_s), MAX_CHANGES)
        readings = readings_of(
            self._source,
            time_s,
            [measured for answer in answers.values() for measured in measurements_of(answer.plan, answer.values)],
            [value for answer in answers.values() for value in points_of(answer.plan, answer.values)],
        )
        if not readings:
            raise SourceUnavailableError(self._why_nothing())
        return readings

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """Changes of states that a map has an event for, such as a UPS on battery, and meters that were exchanged."""
        events = list(self._events)
        self._events.clear()
        return events

    def devices(self) -> Sequence[DeviceReport]:
        return self._pool.reports()

    def close(self) -> None:
        self._pool.close()
        self._loop.close(self._speakers.close)

    def _ask(self, device: SnmpDevice, agent: Agent) -> AgentAnswer:
        """One agent's answer, in a thread of the pool."""
        limit_s = self._settings.budget_s * READ_SHARE
        try:
            answer = self._loop.run(agent.read(), timeout_s=limit_s)
        except TimeoutError as error:
            text = f"{device.host} port {device.port} answers, but did not finish within {limit_s:.3g} s"
            raise DeviceError(DeviceState.SLOW, text) from error
        self._claims.claim(device.name, answer.plan)
        return answer

    def _why_nothing(self) -> str:
        """Of the devices that did not answer, the first says why."""
        failed = [report for report in self._pool.reports() if report.state is not DeviceState.OK]
        first = f": {failed[0].device} is {failed[0].state.value}, {failed[0].why}" if failed else ""
        return f"none of {len(self._devices)} SNMP devices gave a reading{first}"


def _check(settings: SnmpSettings, maps: Mapping[str, DeviceMap]) -> None:
    """MapError when a device names a map, or a group of readings of its map, that does not exist."""
    for device in settings.devices:
        if device.map and device.map not in maps:
            raise MapError(f"device {device.name!r} has map = {device.map!r}; there are {', '.join(sorted(maps))}")
        fitting = [maps[device.map]] if device.map else maps.values()
        known = frozenset().union(*(one.details for one in fitting))
        unknown = sorted(set(device.details) - known)
        if unknown:
            there = ", ".join(sorted(known)) or "none"
            raise MapError(f"device {device.name!r} has details {unknown[0]!r}; there are {there}")


class _Claims:
    """Which devices say that they have a meter: of two nobody knows whose it is, and neither is believed."""

    def __init__(self) -> None:
        self._plans: dict[str, DevicePlan] = {}
        self._owners: dict[str, list[str]] = {}  # devices by identity, as often as they say it
        self._lock = Lock()

    def claim(self, device: str, plan: DevicePlan) -> None:
        """Raises DeviceError when a meter of the plan is another device's too, or there twice."""
        with self._lock:
            if self._plans.get(device) is not plan:
                self._plans[device] = plan
                self._owners = self._count()
            disputed = {meter.identity: self._owners[meter.identity] for meter in plan.meters}
        for identity, owners in disputed.items():
            if len(owners) > 1:
                named = ", ".join(sorted(owners))
                text = f"the meter {identity!r} is there twice (devices {named}); set identity for each of them"
                raise DeviceError(DeviceState.NONSENSE, text)

    def _count(self) -> dict[str, list[str]]:
        owners: dict[str, list[str]] = {}
        for device, plan in self._plans.items():
            for meter in plan.meters:
                owners.setdefault(meter.identity, []).append(device)
        return owners


class _LoopThread:
    """An event loop in a thread of its own, started when it is first needed."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note_exception)
        self._thread = Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._lock = Lock()
        self._closed = False

    def run(self, work: Coroutine[object, object, Result], *, timeout_s: float) -> Result:
        """The result of `work`, which the calling thread waits for. TimeoutError when it takes longer."""
        with self._lock:
            if self._closed:
                work.close()
                raise SourceUnavailableError("the source is closed")
            if not self._thread.is_alive():
                self._thread.start()
            under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return under_way.result(timeout_s)
        except TimeoutError:
            under_way.cancel()
            raise

    def close(self, last: Callable[[], None]) -> None:
        """Do `last` in the loop, then end it; safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(_end(last), self._loop)
            self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _end(last: Callable[[], None]) -> None:
    """Cancel what is under way, let it end, and stop the loop."""
    loop = asyncio.get_running_loop()
    try:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        last()
    finally:
        loop.stop()


def _note_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What a callback of the library raised: the request that it was about has a deadline of its own."""
    del loop
    logger.debug("SNMP: %s", context.get("message"), extra={"error": repr(context.get("exception"))[:256]})
