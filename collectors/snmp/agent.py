"""One agent over time: let in, explored once, read at every tick, explored anew when it may have changed.

Runs in the event loop of the source.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from zlib import crc32

from collectors.devices import DeviceError, DeviceState
from collectors.snmp.engine import Address, Line, Speaker
from collectors.snmp.map import DeviceMap, Oid, map_for, oid_of
from collectors.snmp.plan import DevicePlan, plan_of
from collectors.snmp.secrets import Secret, read_secret
from collectors.snmp.session import Patience, Session
from collectors.snmp.settings import SnmpDevice, SnmpSettings
from stream.clock import Clock

# SNMPv2-MIB (RFC 3418)
SYS_OBJECT_ID: Oid = (1, 3, 6, 1, 2, 1, 1, 2, 0)
SYS_UP_TIME: Oid = (1, 3, 6, 1, 2, 1, 1, 3, 0)

EXPLORE_LIMIT_S = 120.0  # a walk of some hundred objects, at a second each
EXPLORE_SPREAD = 0.25  # of the interval between two walks
EXPLORE_AGAIN_S = 300.0  # after a walk that failed while the old plan still works


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What one agent gave at one tick, and what it means."""

    plan: DevicePlan
    values: Mapping[Oid, int | str]


class Speakers:
    """The engines in use, one for each set of credentials: an engine costs a megabyte."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._speakers: dict[Secret, Speaker] = {}
        self._secrets: dict[str, Secret] = {}  # by device

    def speaker(self, device: str, secret: Secret) -> Speaker:
        """The engine that speaks with `secret`; the one that the device had before goes when no other has it."""
        before = self._secrets.get(device)
        if secret not in self._speakers:
            self._speakers[secret] = Speaker(secret, timeout_s=self._timeout_s)
        self._secrets[device] = secret
        if before is not None and before not in self._secrets.values():
            self._speakers.pop(before).close()
        return self._speakers[secret]

    def close(self) -> None:
        for speaker in self._speakers.values():
            speaker.close()
        self._speakers.clear()


class Agent:
    """One agent of the settings."""

    def __init__(
        self,
        device: SnmpDevice,
        settings: SnmpSettings,
        maps: Mapping[str, DeviceMap],
        *,
        speakers: Speakers,
        clock: Clock,
    ) -> None:
        self._device = device
        self._settings = settings
        self._maps = maps
        self._speakers = speakers
        self._clock = clock
        # Agents that were explored together at the start are not explored together ever after.
        spread = EXPLORE_SPREAD * crc32(device.name.encode()) / (1 << 32)
        self._explore_every_s = settings.explore_every_s * (1 - spread)
        self._session: Session | None = None
        self._plan: DevicePlan | None = None
        self._explored_s = 0.0  # monotonic
        self._up_ticks = 0
        self._exploring: asyncio.Task[DevicePlan] | None = None

    async def read(self) -> AgentAnswer:
        """What the agent has now. Raises DeviceError.

        One that answered before and does not make sense any more is let in anew at once: it may have been exchanged,
        or its password.
        """
        has_answered = self._session is not None
        try:
            return await self._attempt()
        except DeviceError as error:
            if not has_answered or error.state not in (DeviceState.NONSENSE, DeviceState.REFUSED):
                raise
        return await self._attempt()

    async def _attempt(self) -> AgentAnswer:
        try:
            session = self._session or await self._connect()
            answer = await self._read(session, await self._planned(session))
            return answer or await self._read_anew(session)
        except DeviceError:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        """The next connection reads the files of the secret anew, and knows nothing of the agent."""
        if self._exploring is not None:
            self._exploring.cancel()
            self._exploring = None
        if self._session is not None:
            self._session.close()
            self._session = None

    async def _connect(self) -> Session:
        credentials = self._settings.credentials[self._device.credentials]
        secret = read_secret(credentials)
        speaker = self._speakers.speaker(self._device.name, secret)
        self._session = Session(
            await self._line(speaker),
            peer=f"{self._device.host} port {self._device.port}",
            patience=Patience(self._settings.timeout_s, self._settings.retries),
            values_per_request=self._device.values_per_request,
            secret=secret,
        )
        return self._session

    async def _line(self, speaker: Speaker) -> Line:
        host, port = self._device.host, self._device.port
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            family, *_, address = found[0]
            return await speaker.connect(cast(Address, address[:2]), is_ipv6=family == socket.AF_INET6)
        except (OSError, UnicodeError) as error:
            raise DeviceError(DeviceState.UNREACHABLE, f"{host} cannot be reached: {error}; correct host") from error

    async def _planned(self, session: Session) -> DevicePlan:
        """The plan: the one that is there, while a new one is made aside; else the first, which is waited for."""
        is_due = self._clock.monotonic_s() - self._explored_s >= self._explore_every_s
        if self._exploring is None and (self._plan is None or is_due):
            self._exploring = asyncio.create_task(self._explore(session))
        if self._plan is not None and (self._exploring is None or not self._exploring.done()):
            return self._plan
        return await self._new_plan(self._exploring or asyncio.create_task(self._explore(session)))

    async def _new_plan(self, exploring: "asyncio.Task[DevicePlan]") -> DevicePlan:
        """A walk outlives a tick that is over: the next tick waits for the same one."""
        self._exploring = exploring
        try:
            self._plan = await asyncio.shield(exploring)
            self._explored_s = self._clock.monotonic_s()
        except DeviceError:
            if self._plan is None:
                raise
            self._explored_s = self._clock.monotonic_s() - self._explore_every_s + EXPLORE_AGAIN_S
        finally:
            if exploring.done():
                self._exploring = None
        return self._plan

    async def _read(self, session: Session, plan: DevicePlan) -> AgentAnswer | None:
        """None when the agent has started anew since it was explored: its rows may be others."""
        found = await session.get((SYS_UP_TIME, *plan.oids))
        up_time = found.get(SYS_UP_TIME)
        if up_time is not None and isinstance(up_time.value, int):
            has_restarted = up_time.value < self._up_ticks
            self._up_ticks = up_time.value
            if has_restarted:
                return None
        return AgentAnswer(plan, {oid: one.value for oid, one in found.items()})

    async def _read_anew(self, session: Session) -> AgentAnswer:
        self._plan = None
        answer = await self._read(session, await self._planned(session))
        if answer is None:
            raise DeviceError(DeviceState.NONSENSE, f"{self._device.host} starts anew all the time (sysUpTime falls)")
        return answer

    async def _explore(self, session: Session) -> DevicePlan:
        try:
            return await asyncio.wait_for(self._walk(session), EXPLORE_LIMIT_S)
        except TimeoutError as error:
            text = f"{self._device.host} did not tell its tables within {EXPLORE_LIMIT_S:g} s"
            raise DeviceError(DeviceState.SLOW, text) from error

    async def _walk(self, session: Session) -> DevicePlan:
        device_map = self._maps[self._device.map] if self._device.map else await self._find_map(session)
        found = await session.walk(device_map.columns(self._device.details), limit=self._settings.max_instances)
        plan = plan_of(device_map, self._device, found)
        if not plan.meters:
            raise DeviceError(
                DeviceState.NONSENSE,
                f"{self._device.host} answers, but has nothing of the map {device_map.name}; name another map, or "
                "widen the view of its SNMP user",
            )
        return plan

    async def _find_map(self, session: Session) -> DeviceMap:
        found = (await session.get([SYS_OBJECT_ID])).get(SYS_OBJECT_ID)
        text = str(found.value) if found is not None else ""
        try:
            device_map = map_for(oid_of(text), self._maps.values())
        except ValueError:
            device_map = None
        if device_map is None:
            said = f"is of no known family (sysObjectID {text[:128]})" if text else "does not tell its sysObjectID"
            known = ", ".join(sorted(self._maps))
            raise DeviceError(
                DeviceState.NONSENSE, f"{self._device.host} {said}; set map to one of {known}, or write a map"
            )
        return device_map
