"""Who gets in at Apache Kafka with its StandardAuthorizer, and what each role may do: tests/tries.py over the wire.

The administrator's certificate stands for the site's own; every role comes with a password, and with a certificate.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # type: ignore[import-untyped]
from kafka.admin import (  # type: ignore[import-untyped]
    ConfigResource,
    ConfigResourceType,
    NewTopic,
    UserScramCredentialUpsertion,
)
from kafka.errors import (  # type: ignore[import-untyped]
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from alerts.reading import EventReader
from catalogue import GPU
from stream.access import Operation, Permission, Resource, apply_permissions
from stream.client import KafkaAddress, make_admin
from stream.clock import SystemClock
from stream.deadletter import read_dead_letters
from stream.log import LogUnavailableError
from stream.messages import EventMessage, encode_message
from stream.publish import Publisher, TopicRefusedError
from stream.security import KafkaSecurity
from tests.conftest import DoorUnderTest
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaCluster
from tests.servers.kafka_guard import ADMIN, KafkaGuard
from tests.servers.stack import Fleet, run, start_ingest, stored_rows, until
from tests.tries import DEEDS, KAFKA_ROLES, TOPICS, TURNED_AWAY

REFUSALS = (
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    UnknownTopicOrPartitionError,  # what must not even be seen, is not there
)

PATIENCE_MS = 20_000


@dataclass(frozen=True, slots=True)
class GuardedKafka:
    """A broker that lets in whom it knows, with every topic and every role's ACLs."""

    bootstrap: str
    guard: KafkaGuard

    def with_password(self, role: str, password: str | None = None) -> KafkaAddress:
        security = KafkaSecurity(
            tls=True,
            ca_file=str(self.guard.authority.ca_file),
            username=f"kvandal-{role}",
            password=password or f"{role} password",
        )
        return KafkaAddress(self.bootstrap, security)

    def with_certificate(self, role: str) -> KafkaAddress:
        return self.guard.address(f"kvandal-{role}")

    def environment(self, role: str, folder: Path) -> dict[str, str]:
        """The settings of a process of that role, its password in a file."""
        secret = folder / f"{role}.password"
        secret.write_text(f"{role} password\n")
        return {
            "KVANDAL_KAFKA_BOOTSTRAP": self.bootstrap,
            "KVANDAL_KAFKA_TLS": "true",
            "KVANDAL_KAFKA_CA_FILE": str(self.guard.authority.ca_file),
            "KVANDAL_KAFKA_USERNAME": f"kvandal-{role}",
            "KVANDAL_KAFKA_PASSWORD_FILE": str(secret),
            "KVANDAL_KAFKA_REPLICATION": "1",
        }


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedKafka]:
    folder = tmp_path_factory.mktemp("guarded")
    guard = KafkaGuard(Authority(folder / "tls"))
    with KafkaCluster.start(folder / "kafka", guard=guard) as cluster:
        for role in KAFKA_ROLES:
            guard.add_user(f"kvandal-{role}", f"{role} password")
        guarded = GuardedKafka(cluster.bootstrap, guard)
        security = guard.address(ADMIN).security
        administrator = {
            "KVANDAL_KAFKA_BOOTSTRAP": guard.by_certificate,
            "KVANDAL_KAFKA_TLS": "true",
            "KVANDAL_KAFKA_CA_FILE": security.ca_file,
            "KVANDAL_KAFKA_CERTIFICATE_FILE": security.certificate_file,
            "KVANDAL_KAFKA_KEY_FILE": security.key_file,
            "KVANDAL_KAFKA_REPLICATION": "1",
        }
        done = run("topics", "acls", "--apply", settings=administrator)
        assert done.code == 0, done.err
        assert "User:kvandal-agent may write topic kvandal.gpu\n" in done.out
        assert run("topics", "acls", "--apply", settings=administrator).err.strip() == "all ACLs are there"
        # The operator makes the topics: an ACL may come before what it is about.
        done = run("topics", "apply", settings=guarded.environment("operator", folder))
        assert done.code == 0, done.err
        assert len(done.out.split()) == len(TOPICS)
        yield guarded


def writes(address: KafkaAddress) -> dict[str, bool]:
    """By topic whether the broker took a record."""
    options = address.security.client_options()
    # Idempotence would end the client at the first refusal.
    producer = KafkaProducer(bootstrap_servers=address.bootstrap, enable_idempotence=False, **options)
    with closing(producer):
        return {topic: _written(producer, f"kvandal.{topic}") for topic in TOPICS}


def _written(client: Any, topic: str) -> bool:
    try:
        client.send(topic, key=b"tries", value=b"{}").get(timeout=PATIENCE_MS / 1000)
    except REFUSALS:
        return False
    return True


def reads(address: KafkaAddress) -> dict[str, bool]:
    """By topic whether the broker handed out the records that `writes` put there."""
    return {topic: _read(address, f"kvandal.{topic}") for topic in TOPICS}


def _read(address: KafkaAddress, topic: str) -> bool:
    options = address.security.client_options()
    with closing(KafkaConsumer(bootstrap_servers=address.bootstrap, group_id=None, **options)) as client:
        try:
            places = [TopicPartition(topic, number) for number in client.partitions_for_topic(topic) or ()]
            if not places:
                return False  # not even seen
            client.assign(places)
            client.seek_to_beginning(*places)
            return bool(client.poll(timeout_ms=PATIENCE_MS))
        except REFUSALS:
            return False


@pytest.mark.parametrize("role", KAFKA_ROLES)
def test_a_role_writes_and_reads_its_topics_and_no_other(kafka: GuardedKafka, role: str) -> None:
    # The operator, who may, makes sure that there is something to be read.
    assert all(writes(kafka.with_password("operator")).values())

    wrote = writes(kafka.with_password(role))
    read = reads(kafka.with_password(role))

    assert wrote == {topic: role in writers for topic, (writers, _) in TOPICS.items()}
    assert read == {topic: role in readers for topic, (_, readers) in TOPICS.items()}


@pytest.mark.parametrize("role", ["agent", "gateway"])
def test_a_certificate_gives_the_same_rights_as_a_password(kafka: GuardedKafka, role: str) -> None:
    assert writes(kafka.with_certificate(role)) == {topic: role in writers for topic, (writers, _) in TOPICS.items()}


@pytest.mark.parametrize(("name", "role"), [("agent-node-17", "agent"), ("gateway-hall-1", "gateway"), ("agents", "")])
def test_a_node_s_own_certificate_has_its_role_s_rights_and_a_name_alike_has_none(
    kafka: GuardedKafka, name: str, role: str
) -> None:
    assert writes(kafka.with_certificate(name)) == {topic: role in writers for topic, (writers, _) in TOPICS.items()}


@pytest.mark.parametrize("role", KAFKA_ROLES)
def test_nobody_does_more_than_its_deeds(kafka: GuardedKafka, role: str) -> None:
    address = kafka.with_password(role)
    done = {
        "commit as ingest's group": _commits(address, "kvandal-ingest", "kvandal.gpu"),
        "commit as incidents' group": _commits(address, "kvandal-incidents", "kvandal.events"),
        "delete ingest's group": _deletes_group(address),
        "create a topic kvandal.x": _creates(address, f"kvandal.x-{role}"),
        "create a topic x": _creates(address, f"x-{role}"),
        "delete a topic": _deletes(address),
        "delete a topic's records": _deletes_records(address),
        "shorten a topic's retention": _shortens(address),
        "give another user a new password": _gives_password(address),
        "give itself an ACL": _gives_itself(address, role),
    }

    assert done == {deed: role in who for deed, who in DEEDS.items()}


def _commits(address: KafkaAddress, group: str, topic: str) -> bool:
    options = address.security.client_options()
    place = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=address.bootstrap, group_id=group, **options)
    with closing(consumer), suppress(*REFUSALS):
        consumer.assign([place])
        consumer.commit({place: OffsetAndMetadata(0, "", -1)}, timeout_ms=PATIENCE_MS)
        return True
    return False


def _deletes_group(address: KafkaAddress) -> bool:
    with closing(make_admin(address)) as admin, suppress(*REFUSALS):
        told = admin.delete_groups(["kvandal-ingest"])
        return "AuthorizationFailed" not in str(told)
    return False


def _creates(address: KafkaAddress, topic: str) -> bool:
    with closing(make_admin(address)) as admin, suppress(*REFUSALS):
        admin.create_topics([NewTopic(topic, 1, 1)])
        return True
    return False


def _deletes(address: KafkaAddress) -> bool:
    with closing(make_admin(address)) as admin, suppress(*REFUSALS):
        admin.delete_topics(["kvandal.power"])
        return True
    return False


def _deletes_records(address: KafkaAddress) -> bool:
    with closing(make_admin(address)) as admin, suppress(*REFUSALS):
        admin.delete_records({TopicPartition("kvandal.power", 0): 0})
        return True
    return False


def _gives_password(address: KafkaAddress) -> bool:
    known = UserScramCredentialUpsertion("kvandal-operator", "SCRAM-SHA-512", b"known to a thief")
    with closing(make_admin(address)) as admin, suppress(*REFUSALS):
        why = admin.alter_user_scram_credentials([known])["kvandal-operator"]
        assert why is None or "needs ALTER permission" in why
        return why is None
    return False


def _shortens(address: KafkaAddress) -> bool:
    change = ConfigResource(ConfigResourceType.TOPIC, "kvandal.power", {"retention.ms": "1"})
    with closing(make_admin(address)) as admin:
        told = admin.alter_configs([change], raise_on_unknown=False, incremental=True)
    return "AuthorizationFailed" not in str(told["topic"]["kvandal.power"])


def _gives_itself(address: KafkaAddress, role: str) -> bool:
    wanted = Permission(f"User:kvandal-{role}", Operation.WRITE, Resource.TOPIC, "kvandal.", prefixed=True)
    try:
        apply_permissions(address, [wanted])
    except LogUnavailableError as error:
        return "ClusterAuthorizationFailed" not in str(error)
    return True


def test_who_is_not_known_is_not_let_in(kafka: GuardedKafka, tmp_path: Path) -> None:
    trusted = str(kafka.guard.authority.ca_file)
    impostor = Authority(tmp_path).sign("kvandal-agent")
    outdated = kafka.guard.authority.sign("kvandal-agent", expired=True)
    by_password, by_certificate = kafka.bootstrap, kafka.guard.by_certificate
    forged, run_out = (
        KafkaSecurity(tls=True, ca_file=trusted, certificate_file=str(one.certificate_file), key_file=str(one.key_file))
        for one in (impostor, outdated)
    )
    strangers = dict(
        zip(
            TURNED_AWAY,
            (
                KafkaAddress(by_password),
                KafkaAddress(by_password, KafkaSecurity(tls=True, ca_file=trusted)),
                kafka.with_password("agent", "a wrong password"),
                kafka.with_password("nobody"),
                KafkaAddress(by_certificate, KafkaSecurity(tls=True, ca_file=trusted)),
                KafkaAddress(by_certificate, forged),
                KafkaAddress(by_certificate, run_out),
            ),
            strict=True,
        )
    )

    with ThreadPoolExecutor(len(strangers)) as pool:
        answers = dict(zip(strangers, pool.map(_refusal, strangers.values()), strict=True))

    for what, said in answers.items():
        assert "give kafka.tls" in said or "did not let us in" in said, what
        assert "a wrong password" not in said


def _refusal(address: KafkaAddress) -> str:
    """What who comes from this address is told; it takes as long as a client tries."""
    with pytest.raises(LogUnavailableError) as refused:
        make_admin(address)
    return str(refused.value)


def test_a_broker_whose_certificate_is_not_trusted_gets_no_password(kafka: GuardedKafka) -> None:
    untrusting = KafkaSecurity(tls=True, username="kvandal-agent", password="agent password")  # noqa: S106

    with pytest.raises(LogUnavailableError, match=r"its certificate is not accepted: .*; see kafka\.ca_file"):
        make_admin(KafkaAddress(kafka.bootstrap, untrusting))


def test_an_agent_s_publisher_hears_which_topic_it_may_not_write(kafka: GuardedKafka) -> None:
    answers: list[object] = []
    publisher = Publisher(kafka.with_password("agent"))
    with closing(publisher):
        publisher.publish("kvandal.gpu", 1, b"{}", acknowledged=answers.append, failed=answers.append)
        publisher.flush()
        publisher.publish("kvandal.power", 1, b"{}", acknowledged=answers.append, failed=answers.append)
        with suppress(LogUnavailableError):
            publisher.flush()

    assert len(answers) == 2
    assert isinstance(answers[1], TopicRefusedError)
    assert "may not write" in str(answers[1])


def test_incidents_reads_events_with_its_own_rights(kafka: GuardedKafka) -> None:
    event = EventMessage(id="xid/1", resource=1, time_ms=SystemClock().utc_ms(), kind="xid", code=79, source=1)
    with closing(Publisher(kafka.with_password("agent"))) as publisher:
        publisher.publish("kvandal.events", 1, encode_message(event), acknowledged=lambda _: None, failed=_raise)
        publisher.flush()

    with closing(EventReader(kafka.with_password("incidents"), {}, clock=SystemClock(), lookback_s=900)) as reader:
        found = []
        for _ in range(60):
            found += [read for read in reader.poll(0.5) if isinstance(read, EventMessage)]
            if found:
                break

    assert found == [event]


def _raise(error: Exception) -> None:
    raise error


def test_verbs_work_with_settings_from_environment_and_files(kafka: GuardedKafka, tmp_path: Path) -> None:
    assert all(writes(kafka.with_password("operator")).values())
    operator = kafka.environment("operator", tmp_path)

    shown = run("tail", "events", "--from-start", "--count", "1", settings=operator)
    letters = run("dead-letters", "list", settings=operator)
    looked = run("doctor", "--only", "agent", "--source", "host", "--spool", str(tmp_path / "spool.db"),
                 settings=kafka.environment("agent", tmp_path))  # fmt: skip
    refused = run("tail", "power", "--from-start", "--count", "1", settings=kafka.environment("agent", tmp_path))

    assert (shown.code, letters.code) == (0, 0), shown.err + letters.err
    assert "{}" in shown.out
    topics = [line for line in looked.out.splitlines() if "topics" in line]
    assert len(topics) == 1, looked.out
    assert topics[0].startswith("ok"), looked.out
    assert refused.code == 2
    assert "AuthorizationFailed" in refused.err
    assert "Traceback" not in refused.err


def test_ingest_stores_and_dead_letters_with_its_own_rights(
    kafka: GuardedKafka, door: DoorUnderTest, store: Client, tmp_path: Path
) -> None:
    (frame,) = islice(Fleet(seed=10).frames(), 1)
    with closing(Publisher(kafka.with_certificate("agent"))) as publisher:
        for value in (frame.value, b"no frame at all"):
            publisher.publish(frame.topic, frame.source, value, acknowledged=lambda _: None, failed=_raise)
        publisher.flush()
    settings = kafka.environment("ingest", tmp_path) | {"KVANDAL_INGEST_INSERT_AGE_S": "1"}

    with start_ingest(tmp_path, "ingest", kafka.bootstrap, door.address("ingest"), settings) as ingest:
        until(lambda: len(stored_rows(store, GPU)) == len(frame.rows), what="the frame's rows are stored")
        letters = kafka.with_password("operator")
        until(lambda: b"no frame at all" in {one.value for one in read_dead_letters(letters)}, what="a dead letter")

    assert "ingest password" not in ingest.log + ingest.out
