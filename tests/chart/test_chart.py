"""The Helm chart as Kubernetes, a platform's policies, and our own programs would take it.

Helm itself renders; Kubernetes' published schemas judge, strictly. No cluster runs here: what an API server does beyond
its schemas (admission, scheduling, storage) is not tested.
"""

import json
import os
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from alerts.rendering import site_files
from alerts.routing import Routing
from alerts.telling import Links
from alerts.thresholds import Thresholds
from tests.servers.chart import SETS, Manifest, manifests, named, pods
from tests.servers.helm import CHART, KUBERNETES, VALUES, HelmRefusedError, helm, render

KUBERNETES_VERSIONS = ("1.29", "1.33", "1.37")
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "chart"
# The Prometheus operator's kinds have no schema among Kubernetes' own: promtool checks the rules (tests/alerts).
OPERATOR_KINDS = frozenset({"PodMonitor", "PrometheusRule"})


@pytest.fixture(scope="module", params=SETS)
def shipped(request: pytest.FixtureRequest) -> list[Manifest]:
    return manifests(request.param)


def test_there_are_values_for_a_laptop_a_hall_and_a_site() -> None:
    assert SETS == ("hall", "laptop", "site")


@pytest.mark.parametrize("values", SETS)
def test_lint_finds_nothing(values: str) -> None:
    given = ("--values", str(VALUES / f"{values}.yaml"), "--kube-version", KUBERNETES)
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *given)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_what_kubernetes_takes(shipped: list[Manifest], version: str) -> None:
    own = [o for o in shipped if o["kind"] not in OPERATOR_KINDS]
    assert own
    for o in own:
        kubernetes_validate.validate(o, version, strict=True)


def test_the_schemas_would_find_a_mistyped_field(shipped: list[Manifest]) -> None:
    wrong = json.loads(json.dumps(named(shipped, "Deployment", "-ingest")))
    wrong["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[0], strict=True)


def test_no_pod_has_more_rights_than_it_needs(shipped: list[Manifest]) -> None:
    every = dict(pods(shipped))
    assert len(every) >= 5
    for name, pod in every.items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"] + pod.get("initContainers", []):
            rights = container["securityContext"]
            assert rights == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_every_container_is_bounded_and_pinned(shipped: list[Manifest]) -> None:
    for name, pod in pods(shipped):
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            _, _, tag = container["image"].partition(":")
            assert tag not in ("", "latest"), name


def test_what_runs_without_end_is_probed_on_its_metrics_port(shipped: list[Manifest]) -> None:
    lasting = [o for o in shipped if o["kind"] in ("DaemonSet", "Deployment", "StatefulSet")]
    assert lasting
    for o in lasting:
        (container,) = o["spec"]["template"]["spec"]["containers"]
        (port,) = container["ports"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/metrics", "port": port["name"]}


def test_no_secret_is_in_a_manifest(shipped: list[Manifest]) -> None:
    assert [o for o in shipped if o["kind"] == "Secret"] == []
    for name, pod in pods(shipped):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                assert not variable["name"].endswith(("PASSWORD", "TOKEN")), name


def test_every_volume_that_is_mounted_exists_and_every_one_is_used(shipped: list[Manifest]) -> None:
    claims = {
        o["metadata"]["name"]: {claim["metadata"]["name"] for claim in o["spec"].get("volumeClaimTemplates", [])}
        for o in shipped
        if o["kind"] == "StatefulSet"
    }
    for name, pod in pods(shipped):
        there = {volume["name"] for volume in pod.get("volumes", [])} | claims.get(name.partition("/")[2], set())
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == there, name


def test_an_upgrade_migrates_before_the_new_programs_start() -> None:
    objects = manifests("hall")
    schema, topics = named(objects, "Job", "-schema"), named(objects, "Job", "-topics")
    for job in (schema, topics):
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    weights = [int(job["metadata"]["annotations"]["helm.sh/hook-weight"]) for job in (schema, topics)]
    assert weights == sorted(set(weights))
    assert (
        named(objects, "Job", "-dashboards")["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    )


def test_a_change_of_settings_restarts_the_pods() -> None:
    def checksum(*more: str) -> str:
        pod = named(manifests("hall", *more), "DaemonSet", "-agent")["spec"]["template"]["metadata"]
        return str(pod["annotations"]["checksum/settings"])

    assert checksum() == checksum()
    assert checksum() != checksum("--set", "agent.config=[agent]")


def test_network_policies_cover_every_pod_but_the_agents_of_the_nodes_own_network() -> None:
    objects = manifests("site")
    policies = [o["spec"]["podSelector"]["matchLabels"] for o in objects if o["kind"] == "NetworkPolicy"]
    for o in objects:
        pod = o if o["kind"] == "Pod" else o.get("spec", {}).get("template")
        pod = o["spec"]["jobTemplate"]["spec"]["template"] if o["kind"] == "CronJob" else pod
        if pod is None or pod["spec"].get("hostNetwork"):
            continue
        labels = pod["metadata"]["labels"].items()
        assert any(selector.items() <= labels for selector in policies), o["metadata"]["name"]


def test_the_rules_of_the_operator_are_the_rules_that_are_tested() -> None:
    """With the site's own links, as `kvandal alerts render` would write them."""
    rendered = {
        o["metadata"]["name"].rpartition("-")[2]: o["spec"] for o in manifests("site") if o["kind"] == "PrometheusRule"
    }
    links = Links("https://docs.example/runbooks", "https://grafana.example")
    files = site_files(Thresholds(), Routing(), links)
    ours = {Path(name).stem: yaml.safe_load(files[name]) for name in files if name.endswith(".yml")}
    ours.pop("alertmanager")
    assert rendered == ours
    assert {"gpu", "facility", "pipeline"} <= set(ours)


@pytest.mark.parametrize(
    ("wrong", "named_in_error"),
    [
        (("--set", "kafka.bootstrap=kafka"), "kafka"),
        (("--set", "kafka.bootstrap="), "kafka.bootstrap is empty"),
        (("--set", "store.url="), "store.url is empty"),
        (("--set", "ingest.replicas=0"), "ingest"),
        (("--set", "image.tag=latest"), "tag"),
        (("--set", "runAsUser=0"), "runAsUser"),
        (("--set", "ingest.replica=3"), "replica"),
        (("--set", "kafka.settings.password=secret"), "password"),
        (("--set", "kafka.settings.retention=1"), "retention"),
        (("--set", "kafka.ingest.password=secret"), "password"),
        (("--set", "store.ingest.password=secret"), "password"),
        (("--set", "store.ingest.passwordSecret.value=secret"), "value"),
        (("--set", "dashboards.token=secret"), "token"),
        (("--set", 'agent.config=[kafka]\npassword = "secret"'), "agent.config holds a password"),
        (("--set", 'ingest.config=store.password="secret"'), "ingest.config holds a password"),
        (("--set", 'keep.config=store.password="secret"'), "keep.config holds a password"),
        (("--set", "gateways.a.config=x={password='secret'}"), "gateways.a.config holds a password"),
        (("--set", "kafka.ingest.username=kvandal-ingest"), "kafka.tls is false"),
        (("--set", "kafka.tls=true,kafka.ingest.username=kvandal-ingest"), "kafka.ingest.passwordSecret.name is empty"),
        (("--set", "store.url=clickhouse:8123"), "url"),
        (("--set", "ingest.replicas=3"), "ingest.replicas is 3, and the largest topic has 2 partitions"),
        (("--set-string", "kafka.settings.partitions=none"), "partitions"),
        (("--set", "agent.resources.limits.memory=lots"), "memory"),
        (("--set", "incidents.enabled=true"), "incidents.alertmanagers is empty"),
        (("--set", "networkPolicy.enabled=true"), "networkPolicy.kafka.cidr is empty"),
        (("--set", "dashboards.enabled=true"), "dashboards.grafanaUrl is empty"),
        (("--set", "gateways.Hall_A.config=x"), "Hall_A"),
    ],
)
def test_nonsense_is_refused_with_the_values_name(wrong: tuple[str, ...], named_in_error: str) -> None:
    with pytest.raises(HelmRefusedError) as refused:
        render("--values", str(VALUES / "laptop.yaml"), *wrong)
    assert named_in_error in str(refused.value)
    if "a password" in named_in_error:
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("values", SETS)
def test_manifests_are_the_golden_ones(values: str) -> None:
    """KVANDAL_REWRITE_GOLDEN=1 writes them anew; the diff is the review. Rules have tests of their own."""
    text = render("--values", str(VALUES / f"{values}.yaml"), "--set", "monitoring.prometheusRule=false")
    golden = GOLDEN / f"{values}.yaml"
    if os.environ.get("KVANDAL_REWRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
