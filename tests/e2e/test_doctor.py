"""`kvandal doctor`: a line for every check, and what to do about it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from catalogue import TABLES
from collectors.devices import DeviceReport, DeviceState
from collectors.source import SourceUnavailableError
from kvandal.broker import HOST, EmbeddedBroker
from kvandal.doctor import Verdict, examine_source
from storage import schema
from storage.client import StoreAddress, connect
from stream.client import KafkaAddress, make_admin
from stream.topics import ALL_TOPICS
from tests.servers.agent_fakes import SyntheticSource
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import Finished, drop_topics, fresh_topics, run

KAFKA = {"KVANDAL_KAFKA_REPLICATION": "1"}


def doctor(*arguments: str, broker: str, store: StoreAddress | None = None, folder: Path) -> Finished:
    settings = dict(KAFKA)
    if store is not None:
        settings["KVANDAL_STORE_PASSWORD"] = store.password
        arguments = (*arguments, "--url", store.url, "--user", store.user)
    return run(
        "doctor", *arguments, "--broker", broker, "--spool", str(folder / "spool.db"), "--source", "host",
        settings=settings,
    )  # fmt: skip


def lines_of(finished: Finished, check: str) -> list[str]:
    """Verdict and text of the lines of one check."""
    assert finished.err == ""
    return [f"{line[:13].strip()}: {line[31:]}" for line in finished.out.splitlines() if line[13:31].strip() == check]


def test_a_healthy_site_passes_every_check(apache_kafka: KafkaCluster, database: StoreAddress, tmp_path: Path) -> None:
    schema.apply(connect(database))
    with fresh_topics(apache_kafka.bootstrap):
        finished = doctor(broker=apache_kafka.bootstrap, store=database, folder=tmp_path)

    assert finished.code == 0, finished.out
    assert "failed" not in finished.out
    for check in ("settings", "spool", "source host", "broker", "topics", "store", "store clock", "schema", "windows"):
        assert [line.partition(":")[0] for line in lines_of(finished, check)] == ["ok"], check


def test_what_is_away_is_named_with_what_to_do(tmp_path: Path) -> None:
    nobody = f"{HOST}:{free_port()}"
    store = StoreAddress(f"http://{HOST}:{free_port()}", "ingest", "secret")

    finished = doctor(broker=nobody, store=store, folder=tmp_path)

    assert finished.code == 1
    (broker,), (missing,) = lines_of(finished, "broker"), lines_of(finished, "store")
    assert broker.startswith("failed:")
    assert nobody in broker
    assert "kafka.bootstrap" in broker
    assert missing.startswith("failed:")
    assert "store.url" in missing
    assert lines_of(finished, "topics") == ["not checked: without a broker"]
    assert "secret" not in finished.out


def test_missing_topics_are_listed_with_the_verb_that_makes_them(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with fresh_topics(embedded_broker.bootstrap):
        drop_topics(embedded_broker.bootstrap, "kvandal.gpu", "kvandal.events")
        finished = doctor("--only", "agent", broker=embedded_broker.bootstrap, folder=tmp_path)

    (line, *_) = lines_of(finished, "topics")
    assert finished.code == 1
    assert line == "failed: missing: kvandal.gpu, kvandal.events; run kvandal topics apply"


def test_a_topic_with_other_settings_is_a_warning(apache_kafka: KafkaCluster, tmp_path: Path) -> None:
    with fresh_topics(apache_kafka.bootstrap, partitions=1):
        finished = doctor("--only", "agent", broker=apache_kafka.bootstrap, folder=tmp_path)

    assert finished.code == 0
    assert [line for line in lines_of(finished, "topics") if "kvandal.gpu: 1 of 8 partitions" in line]


def test_a_schema_that_was_never_applied_fails(
    embedded_broker: EmbeddedBroker, database: StoreAddress, tmp_path: Path
) -> None:
    with fresh_topics(embedded_broker.bootstrap):
        finished = doctor("--only", "ingest", broker=embedded_broker.bootstrap, store=database, folder=tmp_path)

    (line,) = lines_of(finished, "schema")
    assert finished.code == 1
    assert line.startswith("failed:")
    assert line.endswith("run kvandal schema apply")


@pytest.mark.parametrize("table", [TABLES[0].name, f"{TABLES[0].name}_1m", "events"])
def test_a_window_that_is_too_short_fails_on_tables_and_view_targets(
    embedded_broker: EmbeddedBroker, database: StoreAddress, tmp_path: Path, table: str
) -> None:
    client = connect(database)
    schema.apply(client)
    client.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 100")
    with fresh_topics(embedded_broker.bootstrap):
        finished = doctor("--only", "ingest", broker=embedded_broker.bootstrap, store=database, folder=tmp_path)

    (line,) = lines_of(finished, "windows")
    assert finished.code == 1
    assert line.startswith(f"failed: deduplication window below 50,000 on {table}:")


def test_a_spool_that_cannot_be_is_named(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    finished = run("doctor", "--only", "agent", "--broker", embedded_broker.bootstrap, "--source", "host",
                   "--spool", str(tmp_path / "file" / "spool.db"))  # fmt: skip

    (line,) = lines_of(finished, "spool")
    assert finished.code == 1
    assert line.startswith("failed:")
    assert "agent.spool" in line


def test_wrong_settings_are_the_first_finding(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("[agent]\nintervall_s = 1\n")

    finished = run("doctor", "--config", str(tmp_path / "agent.toml"))

    assert finished.code == 1
    assert finished.out.startswith("failed")
    assert "intervall_s" in finished.out


# --- sources of many devices


class Gateway(SyntheticSource):
    """A source whose devices do as a test tells, and which perhaps breaks."""

    def __init__(self, *reports: DeviceReport) -> None:
        super().__init__("modbus")
        self.reports = reports

    def devices(self) -> Sequence[DeviceReport]:
        return self.reports


def test_each_device_that_is_not_well_is_a_finding_and_the_others_are_summed_up() -> None:
    gateway = Gateway(
        DeviceReport("meter-1", DeviceState.OK),
        DeviceReport("meter-2", DeviceState.REFUSED, "the password is wrong"),
        DeviceReport("meter-3", DeviceState.OK),
        DeviceReport("meter-4", DeviceState.UNKNOWN),
    )

    findings = list(examine_source(gateway))

    assert {finding.check for finding in findings} == {"source modbus"}
    assert [(finding.verdict, finding.text) for finding in findings] == [
        (Verdict.OK, "answers with 8 rows"),
        (Verdict.OK, "2 of 4 devices answer"),
        (Verdict.FAILED, "meter-2 is refused: the password is wrong"),
        (Verdict.SKIPPED, "meter-4 is not asked yet"),
    ]
    assert gateway.closed


def test_devices_are_told_of_also_when_none_of_them_answers() -> None:
    gateway = Gateway(DeviceReport("meter-1", DeviceState.SLOW, "no answer within 5 s"))
    gateway.failure = SourceUnavailableError("no device answers")

    assert [(finding.verdict, finding.text) for finding in examine_source(gateway)] == [
        (Verdict.FAILED, "no device answers"),
        (Verdict.FAILED, "meter-1 is slow: no answer within 5 s"),
    ]
    assert gateway.closed


def test_what_a_device_says_stays_on_its_line() -> None:
    gateway = Gateway(DeviceReport("meter-1", DeviceState.NONSENSE, "\x1b[2K\nok           everything" * 1000))

    (*_, finding) = examine_source(gateway)

    assert finding.text.isprintable()
    assert len(finding.text) <= 2000


def test_topics_are_made_with_as_many_partitions_as_the_doctor_then_wants(tmp_path: Path) -> None:
    with EmbeddedBroker.start(tmp_path / "broker.log") as broker:
        settings = KAFKA | {"KVANDAL_KAFKA_PARTITIONS": "3", "KVANDAL_KAFKA_BOOTSTRAP": broker.bootstrap}
        made = run("topics", "apply", settings=settings)
        with closing(make_admin(KafkaAddress(broker.bootstrap))) as admin:
            described = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(made.out.split())}

    assert made.code == 0, made.err
    assert described == {topic.name: 3 for topic in ALL_TOPICS}
