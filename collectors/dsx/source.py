"""The building system's points from an NVIDIA DSX Exchange bus: racks, CDUs, meters, leaks, and whether it lives.

The bus is MQTT: values come on change, and again every 100 s. Between two words a value stands, and its row says so
(`held`); after three republications without a word there is none. We read, and never publish.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from catalogue import Metric
from collectors.devices import DeviceReport, DeviceState
from collectors.dsx.board import Board, Tally
from collectors.dsx.bus import DsxBus
from collectors.dsx.message import METADATA_TOPICS, Refusal
from collectors.dsx.settings import DsxSettings
from collectors.facility import gateway_id, readings_of
from collectors.source import Reading, SourceUnavailableError
from collectors.told import ToldBefore
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage

TELL_AGAIN_S = 600.0  # the same reason for not using messages is logged so often at most
INVENTORY_PAUSE_S = 60.0  # all of it is said again after a change, so not more often than this
_NAMED_POINTS = 5  # in one sentence

logger = logging.getLogger(__name__)


def _nobody_waits() -> None:
    pass


class DsxSource:
    """One BMS bus as rows of the tables rack, cooling and power, points, and events.

    `gateway` is the identity of the machine that reads. `wake` is called, from another thread and without delay, when
    the bus tells of a leak or an isolation: `events` then has it. The connection is made at the first question.
    """

    def __init__(
        self, settings: DsxSettings, *, gateway: str, clock: Clock, wake: Callable[[], None] = _nobody_waits
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._source = gateway_id(gateway, self.name)
        self._wake = wake
        self._board = Board(settings, source=self._source, clock=clock, told=lambda: self._wake())
        self._bus = DsxBus(
            settings,
            client_id=f"kvandal{self._source:016x}",  # 23 characters: what every broker takes (MQTT 3.1.1, 3.1.3.1)
            receive=lambda topic, payload, is_live: self._board.receive(topic, payload, is_live=is_live),
            bad_topic=lambda: self._board.refuse(Refusal.TOPIC, "a topic that is not UTF-8"),
        )
        self._silent: tuple[DeviceReport, ...] = ()
        self._nonsense = ""
        self._tallied = Tally(0, {}, {})
        self._logged_s: dict[Refusal, float] = {}
        self._told = ToldBefore()
        self._inventoried: tuple[int, float] = (0, -INVENTORY_PAUSE_S)  # what had changed by then, and when

    @property
    def name(self) -> str:
        return "dsx"

    def inventory(self) -> Sequence[InventoryMessage]:
        """Racks, CDUs, meters and points, as far as their metadata have come."""
        self._listen()
        time_ms = self._clock.utc_ms()
        self._inventoried = self._board.changes(), self._clock.monotonic_s()
        messages = self._board.plan().inventory(source=self._source, time_ms=time_ms)
        return self._told.all_dated(messages)

    def inventory_changed(self) -> bool:
        """Whether metadata have come since; now and then, as a whole bus of them may come one by one."""
        changes, at_s = self._inventoried
        return changes != self._board.changes() and self._clock.monotonic_s() - at_s >= INVENTORY_PAUSE_S

    def read(self, time_s: int) -> Sequence[Reading]:
        """What stands on the bus. The first read waits for the bus, for as long as the settings allow."""
        self._listen()
        look = self._board.look()
        self._silent = look.silent
        self._judge_messages()
        rows, points = look.plan.measure(look.held.get)
        bus = self._bus.report()
        if not (rows or points) and bus.state is not DeviceState.OK:
            raise SourceUnavailableError(f"the BMS bus {bus.device} is {bus.state}: {bus.why}")
        return readings_of(self._source, time_s, rows, points)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """Leaks, faults of leak sensors, isolations and heartbeats, one for each change, by the bus's own time."""
        return self._board.events()

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Call this instead of the constructor's `wake` from now on."""
        self._wake = wake

    def close(self) -> None:
        self._bus.close()

    def devices(self) -> Sequence[DeviceReport]:
        """The bus, its heartbeats, and racks and equipment of which nothing stands while the bus does."""
        bus = self._bus.report()
        if bus.state is not DeviceState.OK:
            return [bus]
        if self._nonsense:
            bus = DeviceReport(bus.device, DeviceState.NONSENSE, self._nonsense)
        return [bus, *self._board.heartbeats(), *self._silent]

    def remarks(self) -> Sequence[str]:
        """What is not read, and why."""
        tally = self._board.tally()
        remarks = [
            f"{count} messages not used, {reason.value} (the last: {tally.examples[reason]})"
            for reason, count in tally.refused.items()
        ]
        bus = self._bus.report()
        if bus.state is not DeviceState.OK:
            remarks.append(f"{bus.device} is {bus.state.value}: {bus.why}")
        plan = self._board.plan()
        if plan.refused:
            some = "; ".join(str(error) for error in plan.refused[:_NAMED_POINTS])
            remarks.append(f"{len(plan.refused)} points not used: {some}")
        if not (plan.rows or plan.points):
            remarks.append(f"no point is described on {METADATA_TOPICS}")
        return [*remarks, *(f"the broker does not let us read {topic}" for topic in self._bus.denied())]

    def tally(self) -> Tally:
        """What became of the messages since the start. Any thread may ask."""
        return self._board.tally()

    def why_absent(self, resource: int, metric: Metric) -> str:  # noqa: ARG002 - the protocol's signature
        return ""

    def _listen(self) -> None:
        self._bus.start()
        self._bus.wait(self._settings.connect_timeout_s + 2 * self._settings.settle_s)

    def _judge_messages(self) -> None:
        """Whether most of what came since the tick before could not be used; said in the log now and then."""
        before, now = self._tallied, self._board.tally()
        self._tallied = now
        refused = Counter(now.refused) - Counter(before.refused)
        self._nonsense = ""
        if refused.total() > now.used - before.used:
            worst, _ = refused.most_common(1)[0]
            self._nonsense = f"{refused.total()} messages of the last tick not used, {worst.value}"
        for reason, count in refused.items():
            self._log(reason, count, now.examples[reason])

    def _log(self, reason: Refusal, count: int, example: str) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_s.get(reason, -TELL_AGAIN_S) >= TELL_AGAIN_S:
            self._logged_s[reason] = now_s
            fields = {"count": count, "example": example, "bus": self._bus.report().device}
            logger.warning("messages of the BMS bus are not used: %s", reason.value, extra=fields)
