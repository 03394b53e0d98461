"""What the chart's objects mean together: who may reach whom, what outlives what, how many there may be."""

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import pytest
import yaml

from kvandal import __version__
from kvandal.settings import AgentSection, KafkaSettings
from stream.topics import ALL_TOPICS
from tests.servers.chart import LASTING, SETS, Manifest, manifests, named, pod_templates, pods
from tests.servers.helm import CHART, VALUES, HelmRefusedError, render

# What the chart gives by values of its own, and what the section [kafka] says of where and who.
GIVEN_OTHERWISE = {
    "bootstrap",
    "tls",
    "ca_file",
    "certificate_file",
    "key_file",
    "username",
    "password",
    "password_file",
}
DNS_PORT = 53
READ_A_DEVICE_S = 5  # docs/guides/agent.md: how long a read may be under way when the agent is asked to end


@pytest.fixture(params=SETS)
def shipped(request: pytest.FixtureRequest) -> list[Manifest]:
    return manifests(request.param)


def component(template: Manifest) -> str:
    return str(template["metadata"]["labels"]["app.kubernetes.io/component"])


def test_chart_and_program_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_every_workload_finds_its_own_pods_and_no_others(shipped: list[Manifest]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pod_templates(shipped)}
    for o in shipped:
        if o["kind"] not in LASTING:
            continue
        wanted = o["spec"]["selector"]["matchLabels"].items()
        assert [name for name, have in labels.items() if wanted <= have.items()] == [
            f"{o['kind']}/{o['metadata']['name']}"
        ]


def test_containers_write_only_to_volumes_that_are_bounded(shipped: list[Manifest]) -> None:
    """The root is read-only: what is written lies in a bounded volume, a claim, or the node's folder for the spool."""
    for name, pod in pods(shipped):
        kinds = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in pod["containers"][0]["volumeMounts"]:
            volume = kinds.get(mount["name"], {})  # a claim of a StatefulSet is among no pod's volumes
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], name
            elif volume and "persistentVolumeClaim" not in volume and mount["mountPath"] != "/var/lib/kvandal":
                assert mount["readOnly"] is True, f"{name}: {mount['mountPath']}"
        assert "/tmp" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}, name  # noqa: S108


def test_requests_are_no_more_than_limits(shipped: list[Manifest]) -> None:
    units = {"m": 0.001, "Mi": 2**20, "Gi": 2**30, "": 1}
    for name, pod in pods(shipped):
        resources = pod["containers"][0]["resources"]
        for kind in ("cpu", "memory"):
            parts = [
                re.fullmatch(r"([0-9.]+)(m|Mi|Gi)?", str(resources[side][kind])) for side in ("requests", "limits")
            ]
            asked, most = (float(part[1]) * units[part[2] or ""] for part in parts if part)
            assert asked <= most, f"{name}: {kind}"


def test_the_agent_has_the_node_and_nothing_else_has() -> None:
    for name, pod in pods(manifests("site")):
        is_agent = name.startswith("DaemonSet/")
        assert pod.get("hostNetwork", False) is is_agent, name
        assert not pod.get("hostPID", False), name
        from_node = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
        assert from_node == (
            {"/etc/machine-id", "/var/lib/kvandal", "/var/lib/kubelet/pod-resources"} if is_agent else set()
        )


def test_an_agent_has_time_to_send_what_it_holds(shipped: list[Manifest]) -> None:
    for name, pod in pods(shipped):
        if name.startswith("DaemonSet/") or "-gateway-" in name:
            assert pod["terminationGracePeriodSeconds"] >= AgentSection().drain_s + READ_A_DEVICE_S, name


def test_the_chart_knows_how_many_partitions_the_largest_topic_has() -> None:
    largest = max(topic.partitions for topic in ALL_TOPICS)
    assert named(manifests("hall", "--set", f"ingest.replicas={largest}"), "Deployment", "-ingest")
    with pytest.raises(HelmRefusedError, match=f"the largest topic has {largest} partitions"):
        render("--values", str(VALUES / "hall.yaml"), "--set", f"ingest.replicas={largest + 1}")


def test_more_partitions_let_more_ingest_processes_in() -> None:
    more = ("--set", "ingest.replicas=24", "--set-string", "kafka.settings.partitions=24")
    assert named(manifests("site", *more), "Deployment", "-ingest")["spec"]["replicas"] == 24


def test_kafkas_settings_are_those_of_the_program() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    taken = schema["properties"]["kafka"]["properties"]["settings"]["propertyNames"]["enum"]
    assert set(taken) == set(KafkaSettings.__struct_fields__) - GIVEN_OTHERWISE


def test_only_ingest_may_be_many_and_never_two_of_it_are_taken_at_once(shipped: list[Manifest]) -> None:
    for o in shipped:
        if o["kind"] in ("Deployment", "StatefulSet") and not o["metadata"]["name"].endswith("-ingest"):
            assert o["spec"]["replicas"] == 1, o["metadata"]["name"]
    assert named(shipped, "Deployment", "-ingest")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0, "maxUnavailable": 1,
    }  # fmt: skip
    assert named(shipped, "Deployment", "-keep")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("replicas", [1, 2, 8])
def test_a_drain_takes_one_ingest_at_a_time_and_is_never_blocked(replicas: int) -> None:
    """A budget over a single pod would keep its node from ever being drained."""
    objects = manifests("hall", "--set", f"ingest.replicas={replicas}")
    budgets = [o for o in objects if o["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == (1 if replicas > 1 else 0)
    for budget in budgets:
        ingest = named(objects, "Deployment", "-ingest")
        assert budget["spec"] == {"maxUnavailable": 1, "selector": ingest["spec"]["selector"]}


def test_reports_outlive_the_release() -> None:
    claim = named(manifests("hall"), "PersistentVolumeClaim", "-reports")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_every_report_that_is_scheduled_goes_to_that_claim(shipped: list[Manifest]) -> None:
    jobs = [(o, o["spec"]["jobTemplate"]["spec"]["template"]["spec"]) for o in shipped if o["kind"] == "CronJob"]
    assert len(jobs) == 4
    for job, pod in jobs:
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
        assert claims == ["kvandal-reports"]


def test_helms_test_asks_the_doctor_as_ingest_would_be(shipped: list[Manifest]) -> None:
    pod = named(shipped, "Pod", "-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["args"][0] == "doctor"
    ingest = named(shipped, "Deployment", "-ingest")["spec"]["template"]["spec"]["containers"][0]
    assert pod["spec"]["containers"][0]["image"] == ingest["image"]
    about_others = {v["name"] for v in ingest["env"]} - {"KVANDAL_INGEST_METRICS_HOST"}
    assert {v["name"] for v in pod["spec"]["containers"][0]["env"]} == about_others


# --- the network ---


def reached(policy: Manifest) -> set[tuple[str, tuple[int, ...]]]:
    """Where a policy lets its pods go, beyond the cluster's names: address and ports."""
    found = set()
    for rule in policy["spec"]["egress"]:
        ports = tuple(port["port"] for port in rule["ports"])
        if set(ports) == {DNS_PORT}:
            continue
        (peer,) = rule["to"]
        found.add((peer["ipBlock"]["cidr"], ports))
    return found


def needed(values: Mapping[str, Manifest], name: str, template: Manifest) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Whom a pod asks, as its own arguments and variables say."""
    (container,) = template["spec"]["containers"]
    variables = {v["name"] for v in container.get("env", [])}
    told = " ".join(container["args"])
    for peer, says in (
        ("kafka", "KVANDAL_KAFKA_BOOTSTRAP" in variables),
        ("store", "KVANDAL_STORE_URL" in variables),
        ("alertmanager", "--alertmanager" in told),
        ("grafana", "--grafana" in told),
    ):
        if says:
            yield values["networkPolicy"][peer]["cidr"], tuple(values["networkPolicy"][peer]["ports"])
    hall = name.partition("-gateway-")[2]
    for way in values["gateways"][hall]["egress"] if hall else ():
        yield way["cidr"], tuple(port["port"] for port in way["ports"])


@pytest.mark.parametrize("values", ["hall", "site"])
def test_every_pod_may_go_where_it_must_and_nowhere_else(values: str) -> None:
    objects = manifests(values)
    policies = {o["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: o
                for o in objects if o["kind"] == "NetworkPolicy"}  # fmt: skip
    given = yaml.safe_load((VALUES / f"{values}.yaml").read_text())
    seen = set()
    for name, template in pod_templates(objects):
        if template["spec"].get("hostNetwork"):
            continue  # the node's own network, which no policy of pods reaches
        seen.add(component(template))
        assert reached(policies[component(template)]) == set(needed(given, name, template)), name
    assert seen == set(policies)


@pytest.mark.parametrize("values", ["hall", "site"])
def test_nobody_but_the_monitoring_may_come_in_and_only_where_there_are_metrics(values: str) -> None:
    objects = manifests(values)
    serving = {
        component(template) for _, template in pod_templates(objects) if template["spec"]["containers"][0].get("ports")
    }
    for policy in (o for o in objects if o["kind"] == "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        of = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        into = [{"from": [monitoring], "ports": [{"port": "metrics"}]}]
        assert policy["spec"]["ingress"] == (into if of in serving else []), of


# --- what Prometheus makes of it ---


def job_of(pod: str, relabelings: list[Manifest]) -> str:
    """The label `job` that the monitor gives to a component's series, by Prometheus' rules of relabelling."""
    labels = {"__meta_kubernetes_pod_label_app_kubernetes_io_component": pod, "job": "", "node": ""}
    for rule in relabelings:
        source = ";".join(labels.get(name, "") for name in rule["sourceLabels"])
        matched = re.fullmatch(rule.get("regex", "(.*)"), source)
        if matched:
            labels[rule["targetLabel"]] = matched.expand(rule.get("replacement", "$1").replace("$1", r"\1"))
    return labels["job"]


def test_the_monitor_names_jobs_as_the_alerts_do() -> None:
    objects = manifests("site")
    (endpoint,) = named(objects, "PodMonitor", "kvandal")["spec"]["podMetricsEndpoints"]
    made = {job_of(component(template), endpoint["relabelings"]) for name, template in pod_templates(objects)
            if name.split("/")[0] in LASTING}  # fmt: skip
    assert made == {"kvandal-agent", "kvandal-ingest", "kvandal-keep", "kvandal-incidents"}
    rules = "".join(path.read_text() for path in (CHART / "files" / "rules").glob("*.yml"))
    asked = set(re.findall(r'job="([^"]+)"', rules))
    assert asked
    assert asked <= made


def test_the_monitor_finds_every_port_with_metrics() -> None:
    objects = manifests("site")
    monitor = named(objects, "PodMonitor", "kvandal")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    for name, template in pod_templates(objects):
        if name.split("/")[0] in LASTING:
            assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), name
            assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}, name


def test_no_address_is_left_that_a_site_would_not_have() -> None:
    """Alarms and rules link to the site's own pages."""
    text = json.dumps([o for o in manifests("site") if o["kind"] in ("PrometheusRule", "StatefulSet")])
    hosts = {urlsplit(url).hostname for url in re.findall(r"https://[^\s'\"{]+", text)}
    assert hosts == {"docs.example", "grafana.example"}
