"""The Slurm source against programs that print what scontrol and sacct print, in both generations of their JSON.

Expected values are written by hand from the scenario in tests/fixtures/slurm, which is the same in both generations.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import ResourceKind, resource_id
from collectors.counters import KeptCounter
from collectors.devices import DeviceState
from collectors.pseudonyms import NameKind, read_key
from collectors.slurm.nodes import NodeGpuBook
from collectors.slurm.settings import ACCOUNTING, CONTROLLER, SlurmSettings
from collectors.slurm.source import SlurmSource
from collectors.source import DeviceSource, ExplainingSource, Source, SourceUnavailableError
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import JobMessage, encode_message
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import JOBS
from tests.servers.agent_fakes import FakeClock
from tests.servers.notebook import Notebook

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures/slurm"
GUIDE = FIXTURES.parents[2] / "docs/guides/jobs.md"
GENERATIONS = ["21.08", "24.11"]
START_S = 1_800_000_000
NODES = ("gpu001", "gpu002", "gpu003", "gpu004")


def uuid(node: str, index: int) -> str:
    return f"GPU-{node[-3:]}{index:05}-0000-0000-0000-000000000000"


def gpu(node: str, index: int) -> int:
    return resource_id(ResourceKind.GPU, uuid(node, index))


class Cluster:
    """A folder with the programs of a cluster, which print what a test writes into files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock(START_S)
        for name in ("controller", "accounting"):
            self.program(name, f'printf "%s\\n" "$@" > {folder}/{name}.args\ncat {folder}/{name}.json')
            self.show(name)
        self.gpus = folder / "gpus.csv"
        lines = [f"{node},{index},{uuid(node, index)}" for node in NODES for index in range(8)]
        self.gpus.write_text("\n".join(["node,index,uuid", *lines]))
        self.key = folder / "key"
        self.key.write_text("k3 " + bytes(range(32)).hex())
        self.key.chmod(0o600)

    def program(self, name: str, script: str) -> None:
        """Written beside and moved: a program that runs cannot be written to."""
        new = self.folder / f"{name}.new"
        new.write_text(f"#!/bin/sh\n{script}\n")
        new.chmod(0o755)
        new.replace(self.folder / name)

    def show(self, name: str, *jobs: Mapping[str, Any]) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps({"jobs": jobs, "errors": []}))

    def show_fixtures(self, generation: str) -> None:
        for name in ("controller", "accounting"):
            (self.folder / f"{name}.json").write_bytes((FIXTURES / f"{name}_{generation}.json").read_bytes())

    def arguments(self, name: str) -> list[str]:
        return (self.folder / f"{name}.args").read_text().splitlines()

    def source(self, *, memory: Notebook | None = None, messages_per_tick: int = 1000, **settings: Any) -> SlurmSource:
        chosen = {
            "controller": {"command": [str(self.folder / "controller"), "show", "job"]},
            "accounting": {"command": [str(self.folder / "accounting"), "--since={since_s}", "--until={until_s}"]},
            "gpus_file": str(self.gpus),
            "pseudonym_key_file": str(self.key),
            "overlap_s": 7200,
            **settings,
        }
        read = msgspec.convert(chosen, SlurmSettings, strict=False)
        return SlurmSource(
            read, gateway="gateway-1", clock=self.clock, memory=memory, messages_per_tick=messages_per_tick
        )

    def poll(self, source: SlurmSource, seconds: int = 0) -> list[JobMessage]:
        self.clock.set_utc(START_S + seconds)
        assert source.read(START_S + seconds) == ()
        told = [message for message in source.events() if isinstance(message, JobMessage)]
        assert source.events() == []
        return told


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def box(number: int | None) -> dict[str, Any]:
    return {"set": number is not None, "infinite": False, "number": number or 0}


def running(job: int, start: int, details: Sequence[str], nodes: str = "gpu001", **more: Any) -> dict[str, Any]:
    """A job as the controller lists it; its end is when its time limit would end it."""
    return {
        "job_id": job,
        "job_state": ["RUNNING"],
        "user_name": "alice",
        "start_time": box(START_S + start),
        "end_time": box(START_S + start + 86_400),
        "nodes": nodes,
        "gres_detail": details,
        "restart_cnt": 0,
        **more,
    }


def ended(job: int, start: int, end: int, state: str = "COMPLETED", **more: Any) -> dict[str, Any]:
    """A job as accounting lists it; `end` 0 while it runs."""
    return {
        "job_id": job,
        "state": {"current": [state], "reason": "None"},
        "user": "alice",
        "time": {"start": START_S + start, "end": START_S + end if end else 0},
        "nodes": "gpu001",
        "tres": {"allocated": [{"type": "gres", "name": "gpu", "count": 2}]},
        **more,
    }


def spans(messages: Sequence[JobMessage]) -> set[tuple[str, int, int, int | None]]:
    """Job, GPU, start and end in seconds after the test's beginning."""
    return {
        (m.job, m.resource, m.start_ms // 1000 - START_S, None if m.end_ms is None else m.end_ms // 1000 - START_S)
        for m in messages
    }


def test_it_is_a_source_of_two_devices(cluster: Cluster) -> None:
    source: Source = cluster.source()
    assert isinstance(source, DeviceSource)
    assert isinstance(source, ExplainingSource)
    assert source.name == "slurm"
    assert source.inventory() == ()
    assert {report.device: report.state for report in source.devices()} == {
        "controller": DeviceState.UNKNOWN,
        "accounting": DeviceState.UNKNOWN,
    }
    source.close()
    source.close()


# Two generations


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_run_holds_its_gpus_from_start_to_end(cluster: Cluster, generation: str) -> None:
    cluster.show_fixtures(generation)
    assert spans(cluster.poll(cluster.source())) == {
        *(("4711", gpu("gpu001", index), -3600, None) for index in range(8)),
        *(("4711", gpu("gpu002", index), -3600, None) for index in range(4)),
        ("4713", gpu("gpu002", 4), -1800, None),
        ("4713", gpu("gpu002", 5), -1800, None),
        ("4714", gpu("gpu002", 6), -900, None),
        ("4715", gpu("gpu003", 1), -900, None),
        ("4716", gpu("gpu003", 0), -1200, None),
        ("4720", gpu("gpu003", 2), -3000, None),
        ("4720", gpu("gpu003", 3), -3000, None),
        *(("4710", gpu("gpu004", index), -7200, -600) for index in range(8)),
        *(("4708", gpu(node, index), -6500, -6000) for node in ("gpu001", "gpu004") for index in range(8)),
        *(("4720", gpu("gpu004", index), -5900, -4000) for index in range(8)),
    }


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_message_tells_what_is_known_of_the_job_and_nothing_of_the_person(cluster: Cluster, generation: str) -> None:
    cluster.show_fixtures(generation)
    told = cluster.poll(cluster.source(customers={"climate": "Customer One"}))
    by_gpu = {(message.job, message.resource, message.start_ms): message for message in told}
    key = read_key(cluster.key)
    assert by_gpu["4711", gpu("gpu002", 3), (START_S - 3600) * 1000] == JobMessage(
        job="4711",
        resource=gpu("gpu002", 3),
        start_ms=(START_S - 3600) * 1000,
        owner=key.pseudonym(NameKind.USER, "alice"),
        customer="Customer One",
        attributes={
            "scheduler": "slurm",
            "state": "running",
            "partition": "gpu",
            "qos": "normal",
            "gpus": "12",
            "nodes": "2",
            "cluster": "kv",
            "account": key.pseudonym(NameKind.ACCOUNT, "climate"),
            "node": "gpu002",
        },
    )
    facts = {(m.job, m.attributes["state"]): m.attributes for m in told}
    assert facts["4713", "running"]["array"] == "4700_3"
    assert facts["4714", "running"]["het"] == "4714+0"
    assert facts["4715", "running"]["het"] == "4714+1"
    assert facts["4720", "running"]["restarts"] == "1"
    assert facts["4710", "completed"]["exit_code"] == "0"
    assert facts["4708", "cancelled"]["signal"] == "15"
    assert ("4720", "node_fail") in facts
    assert ("4716", "suspended") in facts
    text = msgspec.json.encode(told).decode().lower()
    for name in ("alice", "bob", "carol", "dave", "home", "climate", "train-with", "example.org"):
        assert name not in text


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_cannot_be_placed_is_counted(cluster: Cluster, generation: str, caplog: pytest.LogCaptureFixture) -> None:
    cluster.show_fixtures(generation)
    source = cluster.source()
    cluster.poll(source)
    cluster.poll(source, 60)
    # 4709 and 4717 had two GPUs each of a node of eight, and were over before anybody looked.
    (remark,) = source.remarks()
    assert remark.startswith("2 jobs (4717, 4709) have GPUs that are not known")
    assert [record.levelno for record in caplog.records if record.name == "collectors.slurm.source"] == [
        logging.WARNING
    ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_nothing_is_told_twice(cluster: Cluster, generation: str) -> None:
    cluster.show_fixtures(generation)
    source = cluster.source()
    assert cluster.poll(source)
    assert cluster.poll(source, 60) == []
    assert cluster.poll(source, 120) == []


# Runs


def test_a_job_that_ends_between_two_polls_keeps_its_gpus_and_gets_its_end(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:h100:2(IDX:2,5)"]))
    cluster.show("accounting", ended(1, -100, 0, "RUNNING"))
    assert spans(cluster.poll(source)) == {("1", gpu("gpu001", index), -100, None) for index in (2, 5)}
    cluster.show("controller")
    cluster.show("accounting", ended(1, -100, 30))
    assert spans(cluster.poll(source, 60)) == {("1", gpu("gpu001", index), -100, 30) for index in (2, 5)}


def test_an_end_that_is_corrected_is_told_again(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(source)
    cluster.show("controller")
    cluster.show("accounting", ended(1, -100, 30))
    cluster.poll(source, 60)
    cluster.show("accounting", ended(1, -100, 20, "NODE_FAIL"))
    (corrected,) = cluster.poll(source, 120)
    assert spans([corrected]) == {("1", gpu("gpu001", 0), -100, 20)}
    assert corrected.attributes["state"] == "node_fail"


def test_the_controller_alone_ends_a_job_and_corrects_nothing_later(cluster: Cluster) -> None:
    """slurmctld keeps a job that has ended for MinJobAge; its details are gone at once."""
    source = cluster.source(accounting={"command": []})
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]), running(2, -50, ["gpu:1(IDX:1)"]))
    cluster.poll(source)
    over = running(1, -100, [], job_state=["COMPLETED", "COMPLETING"], end_time=box(START_S + 40))
    cluster.show("controller", over, running(2, -50, ["gpu:1(IDX:1)"]))
    assert spans(cluster.poll(source, 60)) == {("1", gpu("gpu001", 0), -100, 40)}
    cluster.show("controller", running(2, -50, ["gpu:1(IDX:1)"]))
    assert cluster.poll(source, 120) == []


def test_a_job_that_nobody_knows_any_more_ended_when_it_was_last_seen(cluster: Cluster) -> None:
    source = cluster.source(accounting={"command": []})
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(source)
    cluster.poll(source, 60)
    cluster.show("controller")
    (message,) = cluster.poll(source, 120)
    assert spans([message]) == {("1", gpu("gpu001", 0), -100, 60)}
    assert message.attributes["end_seen"] == "poll"
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))  # a listing that was not whole
    assert spans(cluster.poll(source, 180)) == {("1", gpu("gpu001", 0), -100, None)}


def test_a_job_is_not_ended_while_accounting_cannot_be_asked(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(source)
    cluster.show("controller")
    cluster.program("accounting", "exit 1")
    assert cluster.poll(source, 60) == []
    assert cluster.poll(source, 120) == []


def test_a_requeued_job_has_a_run_for_each_start(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.show("accounting", ended(1, -100, 0, "RUNNING"))
    cluster.poll(source)
    cluster.show("controller", running(1, 50, ["gpu:1(IDX:3)"], nodes="gpu002", restart_cnt=1))
    cluster.show("accounting", ended(1, -100, 20, "NODE_FAIL"), ended(1, 50, 0, "RUNNING", nodes="gpu002"))
    assert spans(cluster.poll(source, 60)) == {
        ("1", gpu("gpu001", 0), -100, 20),
        ("1", gpu("gpu002", 3), 50, None),
    }


def test_a_requeued_job_that_waits_holds_nothing(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(source)
    waiting = running(1, 5000, [], job_state=["PENDING", "REQUEUED"], nodes="", restart_cnt=1)
    cluster.show("controller", waiting)
    cluster.show("accounting", ended(1, -100, 20, "REQUEUED"), ended(1, 0, 0, "PENDING", time={"start": 0, "end": 0}))
    assert spans(cluster.poll(source, 60)) == {("1", gpu("gpu001", 0), -100, 20)}


def test_a_start_that_was_corrected_leaves_no_time_under_the_old_one(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(source)
    cluster.show("controller", running(1, -40, ["gpu:1(IDX:0)"]))
    told = cluster.poll(source, 60)
    assert spans(told) == {("1", gpu("gpu001", 0), -100, -100), ("1", gpu("gpu001", 0), -40, None)}
    (taken_back,) = [message for message in told if message.end_ms is not None]
    assert taken_back.attributes["retracted"] == "the start was corrected"
    assert cluster.poll(source, 120) == []


def test_a_run_that_nobody_ended_does_not_reach_into_the_next_one(cluster: Cluster) -> None:
    """An old controller that does not count restarts: it cannot be told whether the start was corrected."""
    source = cluster.source(accounting={"command": []})
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], restart_cnt=None))
    cluster.poll(source)
    cluster.poll(source, 60)
    cluster.show("controller", running(1, 30, ["gpu:1(IDX:0)"], restart_cnt=None))
    assert spans(cluster.poll(source, 120)) == {("1", gpu("gpu001", 0), -100, 30), ("1", gpu("gpu001", 0), 30, None)}


def test_accounting_has_the_last_word_about_an_end(cluster: Cluster) -> None:
    source = cluster.source()
    over: dict[str, Any] = {"job_state": ["COMPLETED"], "end_time": box(START_S - 10)}
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]), running(2, -90, ["gpu:1(IDX:1)"], **over))
    cluster.show("accounting", ended(1, -100, -20, "NODE_FAIL"), ended(2, -90, -30, "TIMEOUT"))
    told = cluster.poll(source)
    assert spans(told) == {("1", gpu("gpu001", 0), -100, -20), ("2", gpu("gpu001", 1), -90, -30)}
    assert {message.attributes["state"] for message in told} == {"node_fail", "timeout"}


def test_a_job_that_changes_its_size_is_two_runs(cluster: Cluster) -> None:
    """The controller keeps the first start and says when the size changed; accounting begins a record."""
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:2(IDX:0-1)"]))
    cluster.show("accounting", ended(1, -100, 0, "RUNNING"))
    cluster.poll(source)
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], resize_time=box(START_S + 30)))
    before = {("1", gpu("gpu001", index), -100, 30) for index in (0, 1)}
    assert spans(cluster.poll(source, 60)) == before | {("1", gpu("gpu001", 0), 30, None)}
    assert cluster.poll(source, 120) == []  # accounting is behind: it changes nothing
    one = {"allocated": [{"type": "gres", "name": "gpu", "count": 1}]}
    cluster.show("accounting", ended(1, -100, 30, "RESIZING"), ended(1, 30, 0, "RUNNING", tres=one))
    told = cluster.poll(source, 180)
    assert spans(told) == before
    assert {message.attributes["state"] for message in told} == {"resizing"}


def test_gpus_that_were_told_wrongly_are_taken_back(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:2(IDX:0-1)"]))
    cluster.poll(source)
    cluster.show("controller", running(1, -100, ["gpu:2(IDX:1-2)"]))
    told = cluster.poll(source, 60)
    assert spans([m for m in told if "retracted" in m.attributes]) == {("1", gpu("gpu001", 0), -100, -100)}
    assert spans([m for m in told if "retracted" not in m.attributes]) == {
        ("1", gpu("gpu001", index), -100, None) for index in (1, 2)
    }


def test_a_job_that_only_accounting_lets_run_is_remarked_and_not_told(cluster: Cluster) -> None:
    source = cluster.source()
    whole = {"tres": {"allocated": [{"type": "gres", "name": "gpu", "count": 8}]}}
    cluster.show("accounting", ended(1, -100, 0, "RUNNING", **whole))
    assert cluster.poll(source) == []
    assert "runawayjobs" in source.remarks()[0]


@pytest.mark.parametrize(
    ("start", "end", "state"), [(5000, 6000, "COMPLETED"), (-100, 5000, "COMPLETED"), (-100, -5000, "FAILED")]
)
def test_times_that_cannot_be_are_remarked_and_not_told(cluster: Cluster, start: int, end: int, state: str) -> None:
    source = cluster.source()
    whole = {"tres": {"allocated": [{"type": "gres", "name": "gpu", "count": 8}]}}
    cluster.show("accounting", ended(1, start, end, state, **whole))
    assert cluster.poll(source) == []
    assert "times that cannot be" in source.remarks()[0]


def test_instances_of_one_gpu_are_one_hold(cluster: Cluster) -> None:
    cluster.gpus.write_text("node,index,uuid\n" + "\n".join(f"gpu001,{n},{uuid('gpu001', n // 4)}" for n in range(8)))
    cluster.show("controller", running(1, -100, ["gpu:h100_1g.10gb:3(IDX:2-4)"]))
    assert spans(cluster.poll(cluster.source())) == {("1", gpu("gpu001", index), -100, None) for index in (0, 1)}


def test_a_node_can_be_read_by_its_own_agent(cluster: Cluster) -> None:
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)", "gpu:1(IDX:1)"], nodes="gpu[001-002]"))
    settings = msgspec.convert(
        {"controller": {"command": [str(cluster.folder / "controller")]}, "accounting": {"command": []}}, SlurmSettings
    )
    book = NodeGpuBook("gpu002", lambda: {1: uuid("gpu002", 1)})
    source = SlurmSource(settings, gateway="gpu002", clock=cluster.clock, book=book)
    assert spans(cluster.poll(source)) == {("1", gpu("gpu002", 1), -100, None)}


# Across restarts


def test_a_job_that_ended_while_the_source_was_down_is_ended_on_its_gpus(cluster: Cluster) -> None:
    memory = Notebook()
    cluster.show("controller", running(1, -100, ["gpu:2(IDX:2,5)"]))
    cluster.poll(cluster.source(memory=memory))
    cluster.show("controller")
    cluster.show("accounting", ended(1, -100, 500))
    after = cluster.source(memory=memory)
    assert spans(cluster.poll(after, 9000)) == {("1", gpu("gpu001", index), -100, 500) for index in (2, 5)}
    assert cluster.poll(cluster.source(memory=memory), 9060) == []


def test_without_accounting_it_ended_when_it_was_last_seen(cluster: Cluster) -> None:
    memory = Notebook()
    before = cluster.source(memory=memory, accounting={"command": []})
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(before)
    cluster.poll(before, 600)
    cluster.show("controller")
    after = cluster.source(memory=memory, accounting={"command": []})
    assert spans(cluster.poll(after, 9000)) == {("1", gpu("gpu001", 0), -100, 600)}


def test_what_was_not_told_is_not_remembered(cluster: Cluster) -> None:
    memory = Notebook()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.source(memory=memory).read(START_S)  # killed before it could tell
    assert spans(cluster.poll(cluster.source(memory=memory), 60)) == {("1", gpu("gpu001", 0), -100, None)}


def test_a_memory_that_cannot_be_read_is_said_and_left(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    memory = Notebook()
    memory.kept["slurm//runs/1"] = KeptCounter(0, 0, START_S, "{")
    memory.kept["slurm//accounting until"] = KeptCounter(0, 0, START_S, "x")
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    assert len(cluster.poll(cluster.source(memory=memory))) == 1
    assert "cannot be read" in caplog.text


def test_accounting_is_asked_from_before_it_was_last_asked_and_catches_up_piece_by_piece(cluster: Cluster) -> None:
    source = cluster.source(overlap_s=3600, longest_window_s=21_600)
    cluster.poll(source)
    assert cluster.arguments("accounting") == ["--since=3600", "--until=0"]
    cluster.poll(source, 60)
    assert cluster.arguments("accounting") == ["--since=3660", "--until=0"]
    # Ten hours later: the window begins an hour before 60 s, and is six hours long.
    cluster.poll(source, 36_060)
    assert cluster.arguments("accounting") == ["--since=39600", "--until=18000"]
    cluster.poll(source, 36_120)
    assert cluster.arguments("accounting") == ["--since=21660", "--until=60"]


def test_a_job_is_not_ended_while_accounting_catches_up(cluster: Cluster) -> None:
    memory = Notebook()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(cluster.source(memory=memory))
    cluster.show("controller")
    source = cluster.source(memory=memory, overlap_s=3600, longest_window_s=7200)
    assert cluster.poll(source, 7200) == []
    cluster.show("accounting", ended(1, -100, 7000))
    assert spans(cluster.poll(source, 7260)) == {("1", gpu("gpu001", 0), -100, 7000)}


# Names


def test_names_go_out_as_the_settings_say(cluster: Cluster) -> None:
    key = read_key(cluster.key)
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], name="Fold 7", account="Vision"))
    (kept,) = cluster.poll(cluster.source(job_names="keep", accounts="keep"))
    assert (kept.name, kept.attributes["account"]) == ("Fold 7", "vision")
    (hashed,) = cluster.poll(cluster.source(job_names="hash"))
    assert hashed.name == key.pseudonym(NameKind.JOB_NAME, "Fold 7")
    (dropped,) = cluster.poll(cluster.source(accounts="drop"))
    assert (dropped.name, "account" in dropped.attributes) == ("", False)


def test_without_a_key_no_name_goes_out(cluster: Cluster) -> None:
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], name="Fold 7", account="Vision"))
    (told,) = cluster.poll(cluster.source(pseudonym_key_file=""))
    assert (told.owner, told.name, "account" in told.attributes) == ("", "", False)


def test_a_user_without_a_name_has_a_number(cluster: Cluster) -> None:
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], user_name="", user_id=1007))
    (told,) = cluster.poll(cluster.source())
    assert told.owner == read_key(cluster.key).pseudonym(NameKind.USER, "uid:1007")


def test_a_key_that_is_open_to_everybody_stops_the_source(cluster: Cluster) -> None:
    cluster.key.chmod(0o644)
    source = cluster.source()
    with pytest.raises(SourceUnavailableError, match="chmod o-rwx"):
        source.read(START_S)
    assert not (cluster.folder / "controller.args").exists()


def test_a_new_key_tells_running_jobs_anew(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    cluster.poll(source)
    new = cluster.folder / "key.new"
    new.write_text("k4 " + bytes(range(1, 33)).hex())
    new.chmod(0o600)
    new.replace(cluster.key)
    (told,) = cluster.poll(source, 60)
    assert told.owner.startswith("k4-")


def test_clusters_are_told_apart(cluster: Cluster) -> None:
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], cluster="kv"))
    (told,) = cluster.poll(cluster.source(cluster="north"))
    assert (told.job, told.attributes["cluster"]) == ("north/1", "north")


# Trouble


def states(source: SlurmSource) -> dict[str, DeviceState]:
    return {report.device: report.state for report in source.devices()}


@pytest.mark.parametrize(
    ("script", "state", "words"),
    [
        (
            "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
            DeviceState.UNREACHABLE,
            "Unable",
        ),
        ("echo 'error: Access/permission denied' >&2; exit 1", DeviceState.REFUSED, "denied"),
        ("echo 'If munged is up, restart with --num-threads=10' >&2; exit 1", DeviceState.REFUSED, "munged"),
        ("kill -9 $$", DeviceState.UNREACHABLE, "signal 9"),
        ('echo \'{"jobs": [], "errors": [{"description": "no parser"}]}\'', DeviceState.NONSENSE, "no parser"),
        ("echo slurm 19.05", DeviceState.NONSENSE, "no JSON"),
        ("true", DeviceState.NONSENSE, "no JSON"),
        ("exec yes", DeviceState.NONSENSE, "longer than 1 MiB"),
        ("yes >&2 & sleep 60", DeviceState.SLOW, "within 1 s"),
        ("sleep 60 & exit 0", DeviceState.SLOW, "within 1 s"),
    ],
)
def test_a_listing_that_fails_has_a_state_and_the_other_one_is_told(
    cluster: Cluster, script: str, state: DeviceState, words: str
) -> None:
    cluster.program("accounting", script)
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    source = cluster.source(
        accounting={"command": [str(cluster.folder / "accounting")], "timeout_s": 1, "limit_mb": 1},
    )
    assert len(cluster.poll(source)) == 1
    assert states(source) == {"controller": DeviceState.OK, "accounting": state}
    (why,) = [report.why for report in source.devices() if report.device == "accounting"]
    assert words in why
    assert len(why) < 400


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(cluster: Cluster) -> None:
    cluster.program("accounting", f"sleep 60 & echo $! > {cluster.folder}/pid; wait")
    source = cluster.source(accounting={"command": [str(cluster.folder / "accounting")], "timeout_s": 1})
    cluster.poll(source)
    child = int((cluster.folder / "pid").read_text())
    deadline_s = time.monotonic() + 5
    while _lives(child) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(process: int) -> bool:
    """Whether a process runs; one that is dead and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_without_both_listings_the_source_is_down_and_says_why(cluster: Cluster) -> None:
    (cluster.folder / "controller").unlink()
    cluster.program("accounting", "exit 3")
    source = cluster.source()
    with pytest.raises(
        SourceUnavailableError, match=r"controller cannot be run: No such file.*accounting ended with 3"
    ):
        source.read(START_S)
    assert source.events() == []


def test_a_command_knows_nothing_of_our_secrets_and_of_no_shell(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVANDAL_STORE_PASSWORD", "a secret")
    cluster.program(
        "controller", f"env > {cluster.folder}/env; printf '%s\\n' \"$@\" > {cluster.folder}/words; echo '{{'"
    )
    source = cluster.source(
        controller={"command": [str(cluster.folder / "controller"), "$(touch x); a *", "{since_s}"]}
    )
    cluster.poll(source)
    assert "KVANDAL" not in (cluster.folder / "env").read_text()
    assert (cluster.folder / "words").read_text().splitlines() == ["$(touch x); a *", "7200"]


def test_listings_can_come_from_files(cluster: Cluster) -> None:
    cluster.show_fixtures("24.11")
    files: dict[str, Any] = {
        name: {"file": str(cluster.folder / f"{name}.json"), "file_age_s": 600} for name in ("controller", "accounting")
    }
    for name in files:
        os.utime(cluster.folder / f"{name}.json", (START_S - 30, START_S - 30))
    source = cluster.source(**files)
    assert len(cluster.poll(source)) == 51
    cluster.clock.set_utc(START_S + 700)
    with pytest.raises(SourceUnavailableError, match="too old"):
        source.read(START_S + 700)


def test_a_file_that_is_none_or_too_long_is_refused(cluster: Cluster) -> None:
    os.mkfifo(cluster.folder / "pipe")
    long = cluster.folder / "long"
    long.write_bytes(b" " * ((1 << 20) + 1))
    for name, words in (
        ("pipe", "not a file"),
        (".", "not a file"),
        ("long", "longer than 1 MiB"),
        ("none", "No such file"),
    ):
        source = cluster.source(
            controller={"file": str(cluster.folder / name), "limit_mb": 1}, accounting={"command": []}
        )
        cluster.clock.set_utc(0)
        with pytest.raises(SourceUnavailableError, match=words):
            source.read(START_S)


def test_a_job_that_makes_no_sense_is_left_out_and_the_others_are_told(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    good = json.dumps(running(1, -100, ["gpu:1(IDX:0)"]))
    bad = [
        "3", "null", '"x"', "[]", "{}", '{"job_id": -1}', '{"job_id": 1e30}', '{"job_id": {"set": false, "number": 5}}',
        '{"job_id": 5, "nodes": 7}', '{"job_id": 5, "job_state": {"a": 1}}', '{"job_id": 5, "gres_detail": "x"}',
    ]  # fmt: skip
    (cluster.folder / "controller.json").write_text(f'{{"jobs": [{", ".join([*bad, good])}]}}')
    source = cluster.source()
    assert len(cluster.poll(source)) == 1
    assert cluster.poll(source, 60) == []
    assert f"{len(bad)} jobs of controller could not be read" in source.remarks()
    assert len([record for record in caplog.records if record.name == "collectors.slurm.source"]) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"nodes": "gpu[001-999999999]"},
        {"nodes": "gpu[["},
        {"nodes": "gpu[1-9999][1-9999][1-9999]"},
        {"gres_detail": ["gpu:1(IDX:0-999999999)"]},
        {"gres_detail": ["gpu:1(IDX:5-0)"]},
        {"gres_detail": ["gpu:1(IDX:0)"] * 100_000},
        {"start_time": box(1 << 40)},
        {"start_time": {"set": True, "infinite": True, "number": 5}},
        {"start_time": -5},
        {"start_time": "Unknown"},
        {"job_state": []},
    ],
)
def test_hostile_values_place_no_job(cluster: Cluster, more: dict[str, Any]) -> None:
    odd = running(1, -100, ["gpu:1(IDX:0)"]) | {"tres_alloc_str": "gres/gpu=3"} | more
    cluster.show("controller", odd, running(2, -50, ["gpu:1(IDX:7)"]))
    told = cluster.poll(cluster.source())
    assert {message.job for message in told} - {"1"} == {"2"}
    if "job_state" not in more:
        assert {message.job for message in told} == {"2"}


def test_hostile_names_are_made_harmless(cluster: Cluster) -> None:
    names = {"name": "a\x00\x1b[31m" * 1000, "account": "b\u202e" * 1000, "partition": "c\n" * 1000, "qos": "d" * 9999}
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"], user_name="é" * 100_000, **names))
    (told,) = cluster.poll(cluster.source(job_names="keep", accounts="keep"))
    again = msgspec.json.decode(msgspec.json.encode(told), type=JobMessage)
    assert all(text.isprintable() for text in (again.name, again.owner, *again.attributes.values()))


def test_a_book_that_turns_bad_stays_in_use_and_is_remarked(cluster: Cluster) -> None:
    source = cluster.source()
    cluster.poll(source)
    cluster.gpus.write_text("node,index,uuid\ngpu001,zero,GPU-1\n")
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    assert len(cluster.poll(source, 60)) == 1
    assert any("does not say node, index and UUID" in remark for remark in source.remarks())


def test_a_book_that_is_completed_places_what_was_not(cluster: Cluster) -> None:
    source = cluster.source()
    whole = cluster.gpus.read_text()
    cluster.gpus.write_text("node,index,uuid\n")
    cluster.show("controller", running(1, -100, ["gpu:1(IDX:0)"]))
    assert cluster.poll(source) == []
    assert "complete slurm.gpus_file" in source.remarks()[0]
    cluster.gpus.write_text(whole)
    assert len(cluster.poll(source, 60)) == 1
    assert source.remarks() == []


def test_many_messages_are_told_over_several_ticks_and_remembered_when_all_are(cluster: Cluster) -> None:
    memory = Notebook()
    source = cluster.source(memory=memory, messages_per_tick=3)
    cluster.show("controller", running(1, -100, ["gpu:8(IDX:0-7)"]))
    source.read(START_S)
    assert [len(source.events()) for _ in range(2)] == [3, 3]
    assert "slurm//runs/1" not in memory.kept
    assert len(source.events()) == 2
    assert "slurm//runs/1" in memory.kept


# In the store


def stored(client: Client, messages: Sequence[JobMessage], *, at_ms: int) -> None:
    """Through the batcher and the writer, as ingest does it with one plan's records."""
    records = [Record(0, number, encode_message(message)) for number, message in enumerate(messages)]
    plan = Plan(JOBS.name, UUID(int=at_ms), (Range(0, 0, len(records)),), at_ms, 0)
    batch = MessageBatcher(JOBS).build(plan, records, SeenFrames())
    assert batch.rejected == []
    Writer(client).insert_messages(JOBS.table, batch.messages, token=plan.token)


def test_in_the_store_every_second_of_a_gpu_has_one_job_whatever_was_corrected(cluster: Cluster, store: Client) -> None:
    source = cluster.source()
    cluster.show("controller", running(1, -100, ["gpu:2(IDX:0-1)"]))
    stored(store, cluster.poll(source), at_ms=START_S * 1000)
    cluster.show("controller", running(1, -40, ["gpu:1(IDX:0)"]))  # another start, and one GPU less
    stored(store, cluster.poll(source, 60), at_ms=(START_S + 60) * 1000)
    cluster.show("controller")
    cluster.show("accounting", ended(1, -40, 50))
    stored(store, cluster.poll(source, 120), at_ms=(START_S + 120) * 1000)
    cluster.show("accounting", ended(1, -40, 20))
    stored(store, cluster.poll(source, 180), at_ms=(START_S + 180) * 1000)
    held = store.query(
        "SELECT resource, toUnixTimestamp(start), dateDiff('second', start, end) AS held_s FROM jobs FINAL "
        "WHERE held_s > 0 OR end IS NULL"
    ).result_rows
    assert held == [(gpu("gpu001", 0), START_S - 40, 60)]
    assert store.query("SELECT count() FROM jobs FINAL WHERE attributes['retracted'] != ''").first_row == (2,)


# Settings


def test_the_guides_settings_are_good_and_slurms_own_commands_the_default() -> None:
    (text,) = re.findall(r"```toml\n(\[slurm\].*?)```", GUIDE.read_text(), re.DOTALL)
    settings = msgspec.convert(tomllib.loads(text)["slurm"], SlurmSettings)
    assert settings.customers
    assert settings.pseudonym_key_file
    assert CONTROLLER == ("scontrol", "--details", "--json", "show", "job")
    assert ACCOUNTING[-2:] == ("--starttime=now-{since_s}seconds", "--endtime=now-{until_s}seconds")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"controller": {"command": []}, "accounting": {"command": []}}, "neither controller nor accounting"),
        ({"controller": {"command": ["a"], "file": "b"}}, "both a command and a file"),
        ({"controller": {"command": [""]}}, "empty word"),
        ({"job_names": "hash"}, "pseudonym_key_file"),
        ({"overlap_s": 7200, "longest_window_s": 3600}, "longest_window_s"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(settings, SlurmSettings)


def test_a_setting_of_a_listing_leaves_its_command() -> None:
    settings = msgspec.convert({"controller": {"timeout_s": 60}}, SlurmSettings)
    assert settings.controller.is_read
    assert settings.controller.command is None
