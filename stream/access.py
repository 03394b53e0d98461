"""Who may do what on the brokers: the roles, what each needs, and Kafka's ACLs made of it.

Everything that is not listed is refused, once the brokers run an authorizer and do not allow what no ACL speaks of
(`allow.everyone.if.no.acl.found=false`, Kafka's default). An ACL is by topic: it cannot hold an agent to its own node's
readings, so a node that was broken into can lie about other nodes' GPUs, but not about meters, heat or racks.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from kafka.admin import (  # type: ignore[import-untyped]
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from catalogue import GPU, GPU_HEALTH, PORT, TABLES, TRAY
from catalogue.tables import TOPIC_PREFIX
from stream.client import KafkaAddress, kafka_errors, make_admin
from stream.log import LogUnavailableError
from stream.topics import ALL_TOPICS, DEAD_LETTERS, EVENTS, INGESTED, INVENTORY, JOBS

GROUP_PREFIX = "kvandal-"


class KafkaRole(StrEnum):
    """One kind of process on the brokers; `operator` is a person with `kvandal topics`, `tail` and `dead-letters`."""

    AGENT = "agent"
    GATEWAY = "gateway"
    INGEST = "ingest"
    INCIDENTS = "incidents"
    OPERATOR = "operator"


class Resource(StrEnum):
    TOPIC = "topic"
    GROUP = "group"


class Operation(StrEnum):
    READ = "read"
    WRITE = "write"
    CREATE = "create"
    DESCRIBE = "describe"
    DESCRIBE_CONFIGS = "describe_configs"


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """What a principal may do; `prefixed` means to every resource whose name begins so."""

    principal: str
    operation: Operation
    resource: Resource
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        begins = "*" if self.prefixed else ""
        return f"{self.principal} may {self.operation.replace('_', ' ')} {self.resource} {self.name}{begins}"

    @property
    def kafka_word(self) -> str:
        """The operation as Kafka's own tools spell it."""
        return _KAFKA_WORDS[self.operation]

    def command(self, bootstrap: str) -> str:
        """The call of kafka-acls that makes it."""
        words = ["kafka-acls", "--bootstrap-server", bootstrap, "--command-config", "admin.properties", "--add"]
        words += ["--allow-principal", self.principal, "--operation", self.kafka_word]
        words += [f"--{self.resource}", self.name]
        words += ["--resource-pattern-type", "prefixed"] if self.prefixed else []
        return shlex.join(words)


_KAFKA_WORDS = {
    Operation.READ: "Read",
    Operation.WRITE: "Write",
    Operation.CREATE: "Create",
    Operation.DESCRIBE: "Describe",
    Operation.DESCRIBE_CONFIGS: "DescribeConfigs",
}
_NODE_TABLES = (GPU, GPU_HEALTH, PORT, TRAY)
# A node tells of its own GPUs, ports and tray; of jobs, because Kubernetes tells each node of its own pods.
_AGENT_TOPICS = (*(table.topic for table in _NODE_TABLES), EVENTS.name, INVENTORY.name, JOBS.name)
# A gateway tells of the hall: trays too, which Redfish sees from outside. Never of what only a node can know.
_GATEWAY_TOPICS = (
    *(table.topic for table in TABLES if table not in (GPU, GPU_HEALTH, PORT)),
    EVENTS.name,
    INVENTORY.name,
    JOBS.name,
)
_WRITES: Mapping[KafkaRole, Sequence[str]] = {
    KafkaRole.AGENT: _AGENT_TOPICS,
    KafkaRole.GATEWAY: _GATEWAY_TOPICS,
    KafkaRole.INGEST: (DEAD_LETTERS.name,),
    KafkaRole.INCIDENTS: (),
    KafkaRole.OPERATOR: tuple(topic.name for topic in ALL_TOPICS),  # dead letters go back where they came from
}
_READS: Mapping[KafkaRole, Sequence[str]] = {
    KafkaRole.AGENT: (),
    KafkaRole.GATEWAY: (),
    KafkaRole.INGEST: tuple(topic.name for topic in INGESTED),
    KafkaRole.INCIDENTS: (EVENTS.name, INVENTORY.name),
    KafkaRole.OPERATOR: tuple(topic.name for topic in ALL_TOPICS),
}


def principals(given: Mapping[KafkaRole, Sequence[str]]) -> Mapping[KafkaRole, Sequence[str]]:
    """Each role's principals: those given, otherwise `User:kvandal-<role>`."""
    return {role: given.get(role) or (f"User:kvandal-{role}",) for role in KafkaRole}


def permissions(
    who: Mapping[KafkaRole, Sequence[str]], *, group: str = f"{GROUP_PREFIX}ingest"
) -> Iterator[Permission]:
    """Everything that the roles need, and nothing else."""
    for role, names in who.items():
        for principal in names:
            yield from _of_role(role, principal, group)


def apply_permissions(address: KafkaAddress, wanted: Sequence[Permission]) -> list[Permission]:
    """Make the ACLs that are missing; returns them. Takes none away.

    Raises LogUnavailableError when the brokers are away, run no authorizer, or do not let us.
    """
    with closing(make_admin(address)) as admin:
        with kafka_errors("asking for the ACLs"):
            held, _ = admin.describe_acls(_EVERY_ACL)
        missing = [permission for permission in wanted if _acl(permission) not in held]
        if missing:
            with kafka_errors("making ACLs"):
                done = admin.create_acls([_acl(permission) for permission in missing])
            if done["failed"]:
                raise LogUnavailableError(f"{len(done['failed'])} ACLs were refused: {done['failed'][0].__name__}")
    return missing


def _of_role(role: KafkaRole, principal: str, group: str) -> Iterator[Permission]:
    # What exists and how it is set is no secret among ours, and `kvandal doctor` on a node has to see it.
    for operation in (Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS):
        yield Permission(principal, operation, Resource.TOPIC, TOPIC_PREFIX, prefixed=True)
    for name in _WRITES[role]:
        yield Permission(principal, Operation.WRITE, Resource.TOPIC, name)
    for name in _READS[role]:
        yield Permission(principal, Operation.READ, Resource.TOPIC, name)
    if role is KafkaRole.INGEST:
        yield Permission(principal, Operation.READ, Resource.GROUP, group)
    if role is KafkaRole.INCIDENTS:
        yield Permission(principal, Operation.READ, Resource.GROUP, f"{GROUP_PREFIX}incidents")
    if role is KafkaRole.OPERATOR:
        yield Permission(principal, Operation.CREATE, Resource.TOPIC, TOPIC_PREFIX, prefixed=True)
        yield Permission(principal, Operation.READ, Resource.GROUP, GROUP_PREFIX, prefixed=True)


_EVERY_ACL = ACLFilter(
    principal=None,
    host=None,
    operation=ACLOperation.ANY,
    permission_type=ACLPermissionType.ANY,
    resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


def _acl(permission: Permission) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if permission.prefixed else ACLResourcePatternType.LITERAL
    return ACL(
        principal=permission.principal,
        host="*",
        operation=ACLOperation[permission.operation.name],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType[permission.resource.name], permission.name, pattern),
    )
