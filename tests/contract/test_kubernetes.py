"""The Kubernetes source against a kubelet on a Unix socket whose wire the test writes by hand."""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from catalogue import ResourceKind, resource_id
from collectors.counters import KeptCounter
from collectors.devices import DeviceState
from collectors.exposition import AgentMetrics
from collectors.framer import Framer, FrameRule
from collectors.kubernetes.holds import gpu_lookup, gpu_of
from collectors.kubernetes.settings import KubernetesSettings
from collectors.kubernetes.source import KubernetesSource
from collectors.runner import SourceRunner, StagedCounters
from collectors.source import DeviceSource, ExplainingSource, Source, SourceUnavailableError
from collectors.spool import Spool
from stream.messages import JobMessage
from tests.servers.agent_fakes import FakeClock, FastForward
from tests.servers.kubelet import Container, Kubelet, Pod, kubelet, pod
from tests.servers.notebook import Notebook

START_S = 1_800_000_000  # 2027-01-15T08:00:00Z
BEGAN = "20270115T080000Z"
A, B, C = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")
KEY = "k1 " + bytes(range(32)).hex()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Kubelet]:
    with kubelet(tmp_path / "kubelet.sock") as running:
        yield running


def source_of(
    node: Kubelet, *, memory: Notebook | None = None, lookup: Any = lambda _: None, **settings: Any
) -> KubernetesSource:
    chosen = {"socket": str(node.socket), "timeout_s": 5, "grace_s": 0, **settings}
    read = msgspec.convert(chosen, KubernetesSettings, strict=False)
    return KubernetesSource(read, gateway="node-7", clock=FakeClock(), lookup=lookup, memory=memory)


def poll(source: KubernetesSource, seconds: int) -> list[JobMessage]:
    assert source.read(START_S + seconds) == ()
    told = [message for message in source.events() if isinstance(message, JobMessage)]
    assert source.events() == []
    return told


def gpu(uuid: str) -> int:
    return resource_id(ResourceKind.GPU, uuid)


def span(message: JobMessage) -> tuple[int, int | None]:
    """Start and end in seconds after the test's beginning."""
    end_s = None if message.end_ms is None else message.end_ms / 1000 - START_S
    return round(message.start_ms / 1000 - START_S), None if end_s is None else round(end_s)


def test_it_is_a_source_of_one_device(node: Kubelet) -> None:
    source: Source = source_of(node)
    assert isinstance(source, DeviceSource)
    assert isinstance(source, ExplainingSource)
    assert source.name == "kubernetes"
    assert source.inventory() == ()
    assert [report.state for report in source.devices()] == [DeviceState.UNKNOWN]
    source.close()
    source.close()


def test_a_pod_holds_its_gpus_from_when_it_is_first_seen_until_it_is_gone(node: Kubelet) -> None:
    source = source_of(node, customers={"team-a": "Customer One"})
    assert poll(source, -10) == []
    node.pods, node.offered = [pod("trainer-0", A, B), pod("web-5f")], {"nvidia.com/gpu": [A, B, C]}
    told = {message.resource: message for message in poll(source, 0)}
    assert told.keys() == {gpu(A), gpu(B)}
    assert told[gpu(A)] == JobMessage(
        job=f"team-a/trainer-0@{BEGAN}",
        resource=gpu(A),
        start_ms=START_S * 1000,
        customer="Customer One",
        attributes={
            "scheduler": "kubernetes",
            "namespace": "team-a",
            "pod": "trainer-0",
            "devices": "1",
            "devices_of_gpu": "1",
            "start_seen": "poll",
        },
    )
    assert poll(source, 10) == []
    node.pods = []
    ended = poll(source, 20)
    assert {message.resource: span(message) for message in ended} == {gpu(A): (0, 20), gpu(B): (0, 20)}
    assert ended[0].attributes["end_seen"] == "poll"
    assert poll(source, 30) == []
    (report,) = source.devices()
    assert report.state is DeviceState.OK
    assert report.took_s is not None


def test_a_pod_that_was_there_before_the_agent_says_that_its_start_is_not_known(node: Kubelet) -> None:
    node.pods = [pod("trainer-0", A)]
    (told,) = poll(source_of(node), 0)
    assert told.attributes["start_seen"] == "gap"


def test_containers_of_one_pod_are_one_hold(node: Kubelet) -> None:
    both = [Container({"nvidia.com/gpu": [A]}, name="one"), Container({"nvidia.com/gpu": [A]}, name="two")]
    node.pods = [Pod("team-a", "pair", both)]
    (told,) = poll(source_of(node), 0)
    assert told.attributes["devices"] == "1"


def test_devices_that_are_no_gpus_are_left_alone(node: Kubelet) -> None:
    node.pods = [Pod("team-a", "io", [Container({"rdma/hca": ["mlx5_0"]}, claims=[("dra.net", "nic-0")])])]
    source = source_of(node)
    assert poll(source, 0) == []
    assert source.remarks() == []


def test_pods_of_another_scheduler_can_be_left_to_it(node: Kubelet) -> None:
    node.pods = [pod("slurmd-3", A, namespace="slurm"), pod("trainer-0", B)]
    told = poll(source_of(node, ignored_namespaces=["slurm"]), 0)
    assert [message.resource for message in told] == [gpu(B)]


# Devices and GPUs


@pytest.mark.parametrize(
    ("device", "uuid"),
    [
        (A, A),
        (f"{A}::7", A),
        (f"MIG-{A}/11/0", A),
        ("MIG-11111111-2222-3333-4444-555555555555", B),
        ("MIG-11111111-2222-3333-4444-555555555555::1", B),
        ("nvidia1", C),
        ("nvidia1/gi5", C),
        ("nvidia1/vgpu0", C),
        ("gpu-1", C),
        ("gpu-1-mig-1g10gb-0-1", C),
        ("nvidia17", None),
        ("MIG-99999999-2222-3333-4444-555555555555", None),
        ("", None),
        ("GPU-", None),
        (f"{A}::x", None),
    ],
)
def test_every_kind_of_device_leads_to_its_gpu(device: str, uuid: str | None) -> None:
    instances = {"MIG-11111111-2222-3333-4444-555555555555": B}
    assert gpu_of(device, gpu_lookup(lambda: {1: C}, lambda: instances)) == uuid


def test_pods_that_share_a_gpu_in_time_each_hold_it_and_say_how_much(node: Kubelet) -> None:
    node.offered = {"nvidia.com/gpu.shared": [f"{A}::{n}" for n in range(4)]}
    node.pods = [
        pod("one", f"{A}::0", resource="nvidia.com/gpu.shared"),
        pod("two", f"{A}::1", f"{A}::2", resource="nvidia.com/gpu.shared"),
    ]
    told = {message.attributes["pod"]: message for message in poll(source_of(node), 0)}
    assert {message.resource for message in told.values()} == {gpu(A)}
    shares = {name: (told[name].attributes["devices"], told[name].attributes["devices_of_gpu"]) for name in told}
    assert shares == {"one": ("1", "4"), "two": ("2", "4")}


def test_instances_of_a_gpu_are_holds_of_the_gpu(node: Kubelet) -> None:
    parents = {"MIG-1": A, "MIG-2": A, "MIG-3": B}
    node.pods = [pod("one", "MIG-1", resource="nvidia.com/mig-1g.10gb"), pod("two", "MIG-2", "MIG-3")]
    told = poll(source_of(node, lookup=parents.get), 0)
    assert sorted((message.attributes["pod"], message.resource) for message in told) == sorted(
        [("one", gpu(A)), ("two", gpu(A)), ("two", gpu(B))]
    )


def test_claimed_devices_are_held_and_may_be_shared_by_pods(node: Kubelet) -> None:
    source = source_of(node, lookup={"gpu-0": A}.get)
    claim = Container(claims=[("gpu.nvidia.com", "gpu-0")])
    node.pods = [Pod("team-a", "one", [claim])]
    assert [message.attributes["pod"] for message in poll(source, 0)] == ["one"]
    node.pods = [Pod("team-a", "one", [claim]), Pod("team-a", "two", [claim])]
    assert [(message.attributes["pod"], span(message)) for message in poll(source, 10)] == [("two", (10, None))]


def test_a_device_of_no_known_gpu_is_said_once_and_counted(node: Kubelet, caplog: pytest.LogCaptureFixture) -> None:
    node.pods = [pod("one", "MIG-1", "MIG-2", A)]
    source = source_of(node)
    caplog.set_level(logging.INFO, "collectors.kubernetes.source")
    assert [message.resource for message in poll(source, 0)] == [gpu(A)]
    poll(source, 10)
    assert len(caplog.records) == 1
    (remark,) = source.remarks()
    assert remark.startswith("2 devices (MIG-")
    node.pods = [pod("one", A)]
    poll(source, 20)
    assert source.remarks() == []
    assert caplog.records[-1].getMessage() == "all pods can be told again"


# Time


def test_a_restart_of_the_agent_changes_nothing(node: Kubelet) -> None:
    memory = Notebook()
    node.pods = [pod("trainer-0", A)]
    first = poll(source_of(node, memory=memory), 0)
    after = source_of(node, memory=memory)
    assert poll(after, 10) == []
    node.pods = []
    (ended,) = poll(after, 20)
    assert (ended.job, ended.resource, ended.start_ms) == (first[0].job, first[0].resource, first[0].start_ms)
    assert span(ended) == (0, 20)


def test_a_pod_that_ended_while_the_agent_was_down_ends_when_it_was_last_seen(node: Kubelet) -> None:
    memory = Notebook()
    node.pods = [pod("trainer-0", A)]
    before = source_of(node, memory=memory)
    poll(before, 0)
    poll(before, 600)
    node.pods = [pod("trainer-1", A)]
    told = {message.attributes["pod"]: message for message in poll(source_of(node, memory=memory), 7200)}
    assert {name: span(message) for name, message in told.items()} == {"trainer-0": (0, 600), "trainer-1": (7200, None)}
    assert (told["trainer-0"].attributes["end_seen"], told["trainer-1"].attributes["start_seen"]) == ("gap", "gap")


def test_what_was_not_told_is_not_remembered(node: Kubelet) -> None:
    """Killed between reading and telling: the next process tells it."""
    memory = Notebook()
    node.pods = [pod("trainer-0", A)]
    source_of(node, memory=memory).read(START_S)
    assert [span(message) for message in poll(source_of(node, memory=memory), 10)] == [(10, None)]


@pytest.mark.parametrize("text", ["{", "[]", '{"holds":[{"pod":1}]}'])
def test_a_memory_that_cannot_be_read_is_said_and_left(
    node: Kubelet, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    memory = Notebook()
    memory.kept["kubernetes/holds"] = KeptCounter(0, 0, START_S, text)
    node.pods = [pod("trainer-0", A)]
    assert [span(message) for message in poll(source_of(node, memory=memory), 0)] == [(0, None)]
    assert "cannot be read" in caplog.text


def test_a_kubelet_that_lists_its_pods_late_ends_no_hold(node: Kubelet) -> None:
    source = source_of(node, grace_s=60)
    node.pods = [pod("trainer-0", A)]
    poll(source, 0)
    node.pods = []
    assert poll(source, 10) == []
    assert poll(source, 20) == []
    node.pods = [pod("trainer-0", A)]
    assert poll(source, 30) == []


def test_after_the_time_of_grace_a_hold_ends_when_it_was_first_missing(node: Kubelet) -> None:
    source = source_of(node, grace_s=60)
    node.pods = [pod("trainer-0", A)]
    poll(source, 0)
    node.pods = []
    told = [message for seconds in range(10, 90, 10) for message in poll(source, seconds)]
    assert [span(message) for message in told] == [(0, 10)]


def test_a_pod_that_has_ended_but_is_still_listed_ends_when_its_gpu_is_given_on(node: Kubelet) -> None:
    memory = Notebook()
    source = source_of(node, memory=memory, grace_s=60)
    node.pods = [pod("old", A, B)]
    poll(source, 0)
    node.pods = [pod("old", A, B), pod("new", A)]
    told = {(message.attributes["pod"], message.resource): message for message in poll(source, 10)}
    assert {key: span(message) for key, message in told.items()} == {
        ("old", gpu(A)): (0, 10),
        ("new", gpu(A)): (10, None),
    }
    assert told["old", gpu(A)].attributes["end_seen"] == "device given on"
    again = source_of(node, memory=memory, grace_s=60)
    assert poll(again, 20) == []
    node.pods = [pod("old", A, B)]  # the new one is gone: the old one does not come back to life
    assert poll(again, 30) == []
    assert [span(message) for message in poll(again, 90)] == [(10, 30)]


def test_a_pod_of_the_same_name_after_a_while_is_another_job(node: Kubelet) -> None:
    source = source_of(node)
    node.pods = [pod("trainer-0", A)]
    (first,) = poll(source, 0)
    node.pods = []
    poll(source, 10)
    node.pods = [pod("trainer-0", A)]
    (second,) = poll(source, 20)
    assert second.job == "team-a/trainer-0@20270115T080020Z"
    assert second.job != first.job


# Names


def test_names_can_be_hashed(node: Kubelet, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    node.pods = [pod("jupyter-alice", A)]
    (told,) = poll(source_of(node, names="hash", pseudonym_key_file=str(key)), 0)
    assert told.job.startswith("k1-")
    assert told.attributes["namespace"].startswith("k1-")
    assert b"alice" not in msgspec.json.encode(told)
    assert b"team-a" not in msgspec.json.encode(told)


def test_without_its_key_nothing_is_told_and_the_key_is_named(node: Kubelet, tmp_path: Path) -> None:
    source = source_of(node, names="hash", pseudonym_key_file=str(tmp_path / "none"))
    with pytest.raises(SourceUnavailableError, match="none cannot be read"):
        source.read(START_S)
    assert node.asked == []
    assert source.events() == []


def test_hashing_needs_a_key() -> None:
    with pytest.raises(msgspec.ValidationError, match="pseudonym_key_file"):
        msgspec.convert({"names": "hash"}, KubernetesSettings)


def test_long_names_fit_and_stay_apart(node: Kubelet) -> None:
    long = "p" * 252
    node.pods = [pod(f"{long}a", A, namespace="n" * 63), pod(f"{long}b", B, namespace="n" * 63)]
    jobs = {message.job for message in poll(source_of(node), 0)}
    assert len(jobs) == 2
    assert all(len(job) <= 256 for job in jobs)


# Trouble


def test_a_missing_socket_says_what_to_look_for(tmp_path: Path) -> None:
    source = KubernetesSource(
        KubernetesSettings(socket=str(tmp_path / "none.sock")), gateway="node-7", clock=FakeClock()
    )
    with pytest.raises(SourceUnavailableError, match="mounted"):
        source.read(START_S)
    assert [report.state for report in source.devices()] == [DeviceState.UNREACHABLE]


def test_a_file_in_place_of_the_socket_is_nonsense(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = KubernetesSource(KubernetesSettings(socket=str(tmp_path / "file")), gateway="node-7", clock=FakeClock())
    with pytest.raises(SourceUnavailableError, match="no socket"):
        source.read(START_S)
    assert [report.state for report in source.devices()] == [DeviceState.NONSENSE]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_socket_that_may_not_be_used_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    source = KubernetesSource(KubernetesSettings(socket=str(folder / "s")), gateway="node-7", clock=FakeClock())
    with pytest.raises(SourceUnavailableError, match="may not be used"):
        source.read(START_S)


def test_a_kubelet_that_was_restarted_is_read_at_once(tmp_path: Path) -> None:
    socket = tmp_path / "kubelet.sock"
    with kubelet(socket) as first:
        source = source_of(first)
        first.pods = [pod("trainer-0", A)]
        poll(source, 0)
    with pytest.raises(SourceUnavailableError):
        source.read(START_S + 10)
    assert source.events() == []
    with kubelet(socket) as second:
        second.pods = [pod("trainer-0", A)]
        assert poll(source, 20) == []
        assert [report.state for report in source.devices()] == [DeviceState.OK]


def test_a_kubelet_that_hangs_is_slow(node: Kubelet) -> None:
    node.hangs = True
    source = source_of(node, timeout_s=0.2)
    with pytest.raises(SourceUnavailableError, match="DEADLINE_EXCEEDED"):
        source.read(START_S)
    assert [report.state for report in source.devices()] == [DeviceState.SLOW]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, DeviceState.REFUSED),
        (grpc.StatusCode.UNAVAILABLE, DeviceState.UNREACHABLE),
        (grpc.StatusCode.UNIMPLEMENTED, DeviceState.NONSENSE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, DeviceState.NONSENSE),
    ],
)
def test_a_refusal_is_told_by_its_kind_and_its_words_are_bounded(
    node: Kubelet, code: grpc.StatusCode, state: DeviceState
) -> None:
    node.refuses, node.says = code, "no\x07way " * 100
    source = source_of(node)
    with pytest.raises(SourceUnavailableError, match="no\\?way") as caught:
        source.read(START_S)
    assert len(str(caught.value)) < 400
    assert [report.state for report in source.devices()] == [state]


@pytest.mark.parametrize(
    "answer", [b"\xff\xff\xff", b"\x0a\x05\x0a\x03\xff\xfe\xfd", b"\x0a\x7f", b"\x0a\x00" * 20_000, b"\x0a" * 1000]
)
def test_an_answer_that_makes_no_sense_is_nonsense_and_ends_no_hold(node: Kubelet, answer: bytes) -> None:
    source = source_of(node)
    node.pods = [pod("trainer-0", A)]
    poll(source, 0)
    node.answer = answer
    with pytest.raises(SourceUnavailableError):
        source.read(START_S + 10)
    assert [report.state for report in source.devices()] == [DeviceState.NONSENSE]
    node.answer = None
    assert poll(source, 20) == []


def test_an_answer_above_the_limit_is_refused(node: Kubelet) -> None:
    node.answer = b"\x0a\x04\x0a\x02pp" * 400_000  # 2.4 MB of pods
    source = source_of(node, limit_mb=1)
    with pytest.raises(SourceUnavailableError, match="RESOURCE_EXHAUSTED"):
        source.read(START_S)


def test_a_kubelet_that_does_not_tell_what_it_offers_is_read_all_the_same(node: Kubelet) -> None:
    node.pods, node.offered = [pod("trainer-0", A)], {}
    (told,) = poll(source_of(node), 0)
    assert "devices_of_gpu" not in told.attributes


def test_hostile_names_are_made_harmless(node: Kubelet) -> None:
    node.pods = [pod("a\x1b[31m\n", A, namespace="b\u202e"), pod("x" * 100_000, B)]
    told = poll(source_of(node), 0)
    assert len(told) == 2
    for message in told:
        assert message.job.isprintable()
        msgspec.json.decode(msgspec.json.encode(message), type=JobMessage)


# In the agent


def run_agent(node: Kubelet, spool: Spool, clock: FakeClock, *, ticks: int) -> None:
    """Some ticks of the source as the agent runs it."""
    metrics = AgentMetrics(CollectorRegistry(), spool, clock=clock)
    staged = StagedCounters(spool)
    wait = FastForward(clock, ticks)
    settings = KubernetesSettings(socket=str(node.socket), grace_s=0)
    runner = SourceRunner(
        KubernetesSource(settings, gateway="node-7", clock=clock, memory=staged),
        spool,
        Framer(FrameRule(), epoch_ms=clock.utc_ms(), clock=clock),
        interval_s=settings.interval_s,
        clock=clock,
        metrics=metrics,
        counters=staged,
        wait=wait,
    )
    runner.start()
    assert wait.done.wait(20)
    runner.stop(20)


def test_the_agents_spool_remembers_what_was_told(node: Kubelet, tmp_path: Path) -> None:
    clock = FakeClock(START_S)
    node.pods = [pod("trainer-0", A)]
    with closing(Spool(tmp_path / "spool.db", limit_bytes=1 << 20)) as spool:
        run_agent(node, spool, clock, ticks=3)
        (first,) = spool.take(100, urgent=True)
    with closing(Spool(tmp_path / "spool.db", limit_bytes=1 << 20)) as spool:
        run_agent(node, spool, clock, ticks=2)
        node.pods = []
        run_agent(node, spool, clock, ticks=2)
        told = [msgspec.json.decode(value.value, type=JobMessage) for value in spool.take(100, urgent=True)]
    began = msgspec.json.decode(first.value, type=JobMessage)
    assert [message.end_ms is None for message in told] == [True, False]
    assert {(message.job, message.start_ms) for message in told} == {(began.job, began.start_ms)}


def test_the_guides_settings_are_good() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs/guides/jobs.md"
    (text,) = re.findall(r"```toml\n(\[kubernetes\].*?)```", guide.read_text(), re.DOTALL)
    settings = msgspec.convert(tomllib.loads(text)["kubernetes"], KubernetesSettings)
    assert settings.customers
    assert settings.ignored_namespaces
