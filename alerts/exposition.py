"""What the incidents process shows on /metrics: how it does, and the names of places for rules over other metrics."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from alerts.incidents import Incidents
from alerts.pushing import Pusher
from alerts.tenants import Tenant
from alerts.tree import Tree
from catalogue import ResourceKind

# Places that a facility gateway tells of. GPUs and trays are told apart by the targets' own labels.
SHOWN_KINDS = (
    ResourceKind.RACK, ResourceKind.CDU, ResourceKind.LOOP, ResourceKind.FEEDER, ResourceKind.METER,
    ResourceKind.HEAT_METER,
)  # fmt: skip


class IncidentMetrics:
    """The process's own figures, in one registry of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter("kvandal_incidents_events_total", "Events read, by kind.", ["kind"], registry=registry)
        self.refused = Counter(
            "kvandal_incidents_refused_records_total", "Records that are no message.", registry=registry
        )
        self.read_timestamp = Gauge(
            "kvandal_incidents_read_timestamp_seconds", "When the broker was last read.", registry=registry
        )
        self._registry = registry

    def show_tenants(self, tenants: Sequence[Tenant]) -> None:
        """Show from now on who rents which racks."""
        self._registry.register(_Tenants(tenants))

    def watch(self, incidents: Incidents, pusher: Pusher, tree: Tree) -> None:
        """Show these from now on."""
        self._registry.register(_Shown(incidents, pusher))
        self._registry.register(_Places(tree))


class _Shown(Collector):
    def __init__(self, incidents: Incidents, pusher: Pusher) -> None:
        self._incidents = incidents
        self._pusher = pusher

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        outcomes = CounterMetricFamily(
            "kvandal_incidents", "Incidents by alert and what became of them.", labels=["alert", "outcome"]
        )
        for (alert, outcome), count in dict(self._incidents.outcomes).items():
            outcomes.add_metric([alert, outcome.value], count)
        yield outcomes
        yield GaugeMetricFamily("kvandal_incidents_open", "Incidents that are open.", value=len(self._incidents.open))
        yield CounterMetricFamily(
            "kvandal_incidents_push_failures", "Pushes that an Alertmanager did not take.", value=self._pusher.failures
        )
        pushed = GaugeMetricFamily(
            "kvandal_incidents_pushed_timestamp_seconds", "When an Alertmanager was last reached.",
            labels=["alertmanager"],
        )  # fmt: skip
        for url, pushed_s in self._pusher.pushed_s():
            pushed.add_metric([url], pushed_s)
        yield pushed


class _Tenants(Collector):
    """Who rents which rack, and what was promised: for the rules about customers."""

    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self._tenants = tenants

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        rented = GaugeMetricFamily(
            "kvandal_incidents_tenant_info", "Which customer rents a rack.", labels=["customer", "rack"]
        )
        promised = GaugeMetricFamily(
            "kvandal_incidents_tenant_objective_ratio", "Availability promised to a customer.", labels=["customer"]
        )
        for tenant in self._tenants:
            promised.add_metric([tenant.customer], tenant.objective)
            for rack in tenant.racks:
                rented.add_metric([tenant.customer, rack], 1)
        yield rented
        yield promised


class _Places(Collector):
    """Which name, rack, CDU and feeder a resource has; rendered when Prometheus asks and the tree has changed."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._family: tuple[int, GaugeMetricFamily] | None = None

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        version = self._tree.version
        if self._family is None or self._family[0] != version:
            self._family = version, _places(self._tree)
        yield self._family[1]


def _places(tree: Tree) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "kvandal_incidents_place_info", "Where a resource is and what feeds it, by names.",
        labels=["resource", "kind", "name", "rack", "cdu", "feeder", "hall"],
    )  # fmt: skip
    for resource, kind in tree.of_kinds(*SHOWN_KINDS):
        place = tree.place(resource)
        family.add_metric(
            [f"{resource:016x}", kind.value, place.name, place.rack, place.cdu, place.feeder, place.hall], 1
        )
    return family
