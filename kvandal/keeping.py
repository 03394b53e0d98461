"""What a store has to have computed for it now and then: hours, the topology, energy of jobs, days of the fleet."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event

from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry

from kvandal.fleet_days import FleetDayKeeper
from kvandal.serving import serve_metrics
from kvandal.settings import KeeperSettings
from storage.client import StoreAddress, StoreUnavailableError, connect
from storage.hours import ComputedHours, HourKeeper
from storage.reader import Reader
from stream.retry import StoppedError, retry_until_stopped

logger = logging.getLogger(__name__)

_EVERY_S = 60.0
_FIRST_LOOKS = 20  # at the topology, within the first of these times
_FIGURES_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Task:
    """Something that is computed again and again; `run` says in a few words what it did, or nothing."""

    name: str
    run: Callable[[], list[str]]


def keep_store(address: StoreAddress, settings: KeeperSettings, stop: Event) -> None:
    """Compute until `stop`; one process per store. A store that is away is waited for.

    Raises StoreRefusedError when the store refuses what is asked of it: then the schema or the user's rights are wrong.
    """
    try:
        client = retry_until_stopped(lambda: connect(address), doing="connecting to the store", stop=stop)
    except StoppedError:
        return
    # The minutes of the fleet, the energy of jobs and the days of the fleet need the places, the key figures need all.
    places = _places(client, settings)
    tasks = [places, _hours(client), _job_energy(client), _fleet_days(client, settings)]
    if settings.keep.metrics_port:
        tasks.append(_key_figures(client, settings))
    # Of a new store the topology comes first: without it dashboards and reports are empty.
    for _ in range(_FIRST_LOOKS):
        if stop.wait(_EVERY_S / _FIRST_LOOKS):
            return
        _run(places)
    while not stop.is_set():
        for task in tasks:
            _run(task)
        stop.wait(_EVERY_S)


def _run(task: _Task) -> None:
    try:
        for done in task.run():
            logger.info("%s computed: %s", task.name, done)
    except StoreUnavailableError as error:
        logger.warning("%s not computed, trying again: %s", task.name, error)


def _hours(client: Client) -> _Task:
    keeper = HourKeeper(client)

    def recompute() -> list[str]:
        spans: defaultdict[str, list[ComputedHours]] = defaultdict(list)
        for computed in keeper.recompute():
            spans[computed.table].append(computed)
        return [f"{table} {_span(some)}" for table, some in spans.items()]

    return _Task("hours", recompute)


def _span(computed: Sequence[ComputedHours]) -> str:
    first, last = min(one.first for one in computed), max(one.last for one in computed)
    return f"from {first:%Y-%m-%d %H}Z to {last:%Y-%m-%d %H}Z"


def _places(client: Client, settings: KeeperSettings) -> _Task:
    from kvandal.topology import rules_of
    from storage.topology import PlaceKeeper

    keeper = PlaceKeeper(client, rules_of(settings.reconciliation))

    def recompute() -> list[str]:
        return [f"{one.table}, {one.written} rows written, {one.deleted} deleted" for one in keeper.recompute()]

    return _Task("places", recompute)


def _job_energy(client: Client) -> _Task:
    from storage.job_energy import JobEnergyKeeper

    keeper = JobEnergyKeeper(client)

    def recompute() -> list[str]:
        done = keeper.recompute()
        return [f"{done.written} jobs written, {done.deleted} deleted"] if done.written or done.deleted else []

    return _Task("job energy", recompute)


def _fleet_days(client: Client, settings: KeeperSettings) -> _Task:
    keeper = FleetDayKeeper(client, settings.keep.zone)

    def recompute() -> list[str]:
        return [f"{day:%Y-%m-%d %H:%M}Z" for day in keeper.recompute()]

    return _Task("days of the fleet", recompute)


def _key_figures(client: Client, settings: KeeperSettings) -> _Task:
    """Yesterday's and the last month's key figures on /metrics, computed anew every hour."""
    from reports.exposition import KpiCollector
    from reports.key_figures import last_periods, read_figures

    collector, registry, reader = KpiCollector(), CollectorRegistry(), Reader(client)
    registry.register(collector)
    serve_metrics(registry, host=settings.keep.metrics_host, port=settings.keep.metrics_port)
    last: list[datetime] = []

    def recompute() -> list[str]:
        now = datetime.now(UTC)
        if last and now - last[0] < _FIGURES_EVERY:
            return []
        periods = last_periods(now, settings.keep.zone)
        collector.shown = [read_figures(reader, period, now) for period in periods]
        last[:] = [now]
        return [period.text for period in periods]

    return _Task("key figures", recompute)
