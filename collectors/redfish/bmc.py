"""One management controller: what it has, and what it showed at a tick.

A tick has a budget of time. What could not be read within it is absent, and comes first at the next tick; what is left
of it goes to discovery, which is repeated now and then, and when something that was there is not any more.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Lock

from collectors.devices import DeviceError, DeviceState
from collectors.facility import Quality
from collectors.redfish.client import RedfishClient
from collectors.redfish.document import Document
from collectors.redfish.equipment import Equipment
from collectors.redfish.plan import Discovery, Fetch, Plan
from collectors.redfish.report import covers, overlay, read_report
from collectors.redfish.settings import RedfishDevice, RedfishSettings
from collectors.redfish.tree import TimeIsUpError, read_collection
from collectors.redfish.values import Values, values_of
from stream.clock import Clock

MARGIN_S = 0.5  # before the pool's deadline: an answer must be whole by then
DISCOVERY_SHARE = 0.25  # of a tick, while there is something to find out
REDISCOVER_PAUSE_S = 60.0  # at least between two discoveries, whatever has gone
GOODBYE_WAIT_S = 1.0  # for a reading that is under way, before the session is ended

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BmcAnswer:
    """What a controller gave at one tick. `is_known` is False until its first discovery is done."""

    values: tuple[Values, ...] = ()
    is_known: bool = True


@dataclass(slots=True)
class _Progress:
    """A report's newest time, and since when it is that; whether it was ever another."""

    newest: datetime
    since_s: float
    has_moved: bool = False


class Bmc:
    """Reads one device; `read` is called by one thread at a time."""

    def __init__(
        self, device: RedfishDevice, settings: RedfishSettings, *, clock: Clock, stopping: Event | None = None
    ) -> None:
        self._device = device
        self._settings = settings
        self._clock = clock
        self._client = RedfishClient(device, settings, stopping=stopping)
        self._plan: Plan | None = None
        self._discovery: Discovery | None = None
        self._due_s = 0.0  # of the next discovery, on the clock
        self._done_s = 0.0  # of the last one
        self._rediscover_s = 60.0 * settings.rediscover_minutes
        self._again_s = REDISCOVER_PAUSE_S  # after a discovery that lacks something; doubled each time
        self._next = 0  # the fetch that comes first
        self._progress: dict[str, _Progress] = {}
        self._is_short = False  # of time, and has said so
        self.remark = ""  # what could not be read at the last tick that gave something
        self._lock = Lock()

    def read(self) -> BmcAnswer:
        """What the device shows now. Raises DeviceError when nothing could be read."""
        with self._lock:
            budget_s = max(self._settings.deadline_s - MARGIN_S, MARGIN_S / 2)
            until_s = time.monotonic() + budget_s
            self._client.begin(until_s)
            if self._plan is None:
                return self._first_answer()
            if not self._plan.equipment:
                self._discover_anew()
            if not self._plan.equipment:
                raise self._nothing()
            if self._is_due():
                self._client.begin(until_s - DISCOVERY_SHARE * budget_s)
            answer = self._answer(self._plan)
            self._client.begin(until_s)
            self._discover_anew()
            return answer

    def close(self) -> None:
        """End the session; a device that is being read right now is left to its own time-out."""
        if self._lock.acquire(timeout=GOODBYE_WAIT_S):
            try:
                self._client.close()
            finally:
                self._lock.release()

    # Discovery -------------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        if self._discovery is None:
            self._discovery = Discovery(self._device, most=self._settings.max_resources)
        if not self._discovery.go(self._client):
            return
        plan, self._discovery = self._discovery.plan(), None
        lacks = self._lacks_something(plan)
        self._done_s = self._clock.monotonic_s()
        self._due_s = self._done_s + (min(self._again_s, self._rediscover_s) if lacks else self._rediscover_s)
        self._again_s = min(2 * self._again_s, self._rediscover_s) if lacks else REDISCOVER_PAUSE_S
        if self._plan is not None and plan.trouble is not None and len(plan.paths) < len(self._plan.paths):
            return  # what could not be looked at may still be there
        self._plan = plan
        self._client.forget(but=self._plan.paths)
        self._progress = {path: kept for path, kept in self._progress.items() if path in self._plan.reports}
        if self._plan.is_cut:
            _log.warning(
                "A device has more resources than are read: raise max_resources or leave some out",
                extra={"device": self._device.name, "max_resources": self._settings.max_resources},
            )

    def _lacks_something(self, plan: Plan) -> bool:
        """Whether to look again soon: a device that starts shows its parts one after the other."""
        before = len(self._plan.paths) if self._plan is not None else 0
        return plan.trouble is not None or not plan.equipment or len(plan.paths) < before

    def _is_due(self) -> bool:
        return self._discovery is not None or self._clock.monotonic_s() >= self._due_s

    def _discover_anew(self) -> None:
        """Use what is left of the tick; the plan that there is stays until the next one is whole."""
        if not self._is_due():
            return
        try:
            self._discover()
        except DeviceError as error:
            _log.debug("discovery goes on at the next tick: %s", error, extra={"device": self._device.name})

    def _nothing(self) -> DeviceError:
        if self._client.forbidden:
            return DeviceError(DeviceState.REFUSED, f"{self._device.username!r} may not read its resources")
        if self._plan is not None and self._plan.trouble is not None:
            return self._plan.trouble
        return DeviceError(DeviceState.NONSENSE, "it has neither cooling or power equipment nor a server's chassis")

    def _first_answer(self) -> BmcAnswer:
        """Discovery, and then what time is left for: a device that has not been read yet is not slow."""
        self._discover()
        if self._plan is None:
            return BmcAnswer(is_known=False)
        if not self._plan.equipment:
            raise self._nothing()
        try:
            return self._answer(self._plan)
        except TimeIsUpError:
            return BmcAnswer(is_known=False)

    # Reading ---------------------------------------------------------------------------------------------------------

    def _answer(self, plan: Plan) -> BmcAnswer:
        documents, quality, trouble = self._read_reports(plan)
        held = frozenset(documents) if quality is Quality.HELD else frozenset()
        trouble = self._read_documents(plan.rest if documents else plan.fetches, documents) or trouble
        if not documents and trouble is not None:
            raise trouble
        self.remark = str(trouble or "")
        return BmcAnswer(tuple(self._values(one, documents, held) for one in plan.equipment))

    def _values(self, one: Equipment, documents: Mapping[str, Document], held: frozenset[str]) -> Values:
        quality = Quality.HELD if any(part.path in held for part in one.parts) else Quality.GOOD
        return values_of(one, documents, register=self._device.energy_register, quality=quality)

    def _read_reports(self, plan: Plan) -> tuple[dict[str, Document], Quality, DeviceError | None]:
        """The documents that reports stand for, and how good they are: HELD, when a report tells nothing new.

        Nothing, when a report is gone, stands still, or lacks what it had: then all is read one by one at this tick.
        """
        values: dict[str, object] = {}
        quality = Quality.GOOD
        try:
            for path in plan.reports:
                report = read_report(self._client.get(path) or {})
                age_s = self._age_s(path, report.newest)
                if age_s is None or age_s > self._settings.report_age_s:
                    return {}, Quality.GOOD, None
                values |= report.values
                quality = Quality.HELD if age_s > 0 else quality
        except DeviceError as error:
            return {}, Quality.GOOD, error
        if not all(covers(values, covered.needs) for covered in plan.covered.values()):
            return {}, Quality.GOOD, None
        overlaid = {path: overlay(one.document, one.needs, values) for path, one in plan.covered.items()}
        return overlaid, quality, None

    def _age_s(self, path: str, newest: datetime | None) -> float | None:
        """For how long a report has not changed; None for one that was never seen to change.

        By our clock, since the device's may be anything.
        """
        now_s, progress = self._clock.monotonic_s(), self._progress.get(path)
        if newest is None:
            return None
        if progress is None or progress.newest != newest:
            progress = self._progress[path] = _Progress(newest, now_s, has_moved=progress is not None)
        return now_s - progress.since_s if progress.has_moved else None

    def _read_documents(self, fetches: tuple[Fetch, ...], documents: dict[str, Document]) -> DeviceError | None:
        """Read in turn while there is time, going on where the last tick stopped; the first trouble is returned."""
        trouble: DeviceError | None = None
        for number in range(len(fetches)):
            position = (self._next + number) % len(fetches)
            try:
                documents |= self._fetch(fetches[position])
            except TimeIsUpError as error:
                self._next = position
                self._say_short(len(fetches), number)
                return trouble or error
            except DeviceError as error:
                trouble = trouble or error
                if error.state not in (DeviceState.SLOW, DeviceState.NONSENSE):
                    return trouble
        self._next, self._is_short = 0, False
        return trouble

    def _fetch(self, fetch: Fetch) -> Mapping[str, Document]:
        """What one request gives. What has gone is looked for anew, soon."""
        if fetch.expanded:
            members = read_collection(self._client, fetch.path, expand=True, most=self._settings.max_resources) or {}
            found = {path: members[path] for path in fetch.gives if len(members.get(path, ())) > 1}  # no mere links
        else:
            document = self._client.get(fetch.path)
            found = {} if document is None else {fetch.gives[0]: document}
        if len(found) < len(fetch.gives):
            self._due_s = min(self._due_s, self._done_s + REDISCOVER_PAUSE_S)
        return found

    def _say_short(self, wanted: int, read: int) -> None:
        if not self._is_short:
            self._is_short = True
            _log.warning(
                "A device needs more time than a tick has: its readings come in turns",
                extra={"device": self._device.name, "requests": wanted, "read": read},
            )
