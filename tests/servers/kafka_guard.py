"""What makes Apache Kafka let in only whom it knows: TLS, SCRAM users, client certificates, and its authorizer.

Clients come through SASL_SSL with a password, or through SSL with a certificate; there is no listener without TLS.
"""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass, field

from kafka.admin import UserScramCredentialUpsertion  # type: ignore[import-untyped]

from kvandal.broker import HOST
from stream.client import KafkaAddress, make_admin
from stream.log import LogUnavailableError
from stream.security import KafkaSecurity
from tests.servers.certificates import Authority
from tests.servers.kafka import Node
from tests.servers.ports import free_port

ADMIN = "kvandal-admin"
BROKER = "kvandal-broker"
# docs/security.md recommends these: a node's own certificate has its role's rights, every other name stands for itself.
PRINCIPAL_RULES = "RULE:^CN=(kvandal-agent|kvandal-gateway)-[^,]+.*$/$1/,RULE:^CN=([^,]+).*$/$1/,DEFAULT"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True, slots=True)
class KafkaGuard:
    """The security of one broker. `authority` signs for it and for everybody who may come."""

    authority: Authority
    certificate_port: int = field(default_factory=free_port)

    @property
    def by_certificate(self) -> str:
        """The address for clients with a certificate."""
        return f"{HOST}:{self.certificate_port}"

    def properties(self, node: Node) -> dict[str, str]:
        """What goes over the node's own settings."""
        keys = self.authority.sign(BROKER).joined_file
        ports = {
            "CLIENT": node.client_port, "CERTIFICATE": self.certificate_port,
            "BROKER": node.broker_port, "CONTROLLER": node.controller_port,
        }  # fmt: skip
        listeners = {name: f"{name}://{HOST}:{port}" for name, port in ports.items()}
        reached = [address for name, address in listeners.items() if name != "CONTROLLER"]
        return {
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(reached),
            "listener.security.protocol.map": "CLIENT:SASL_SSL,CERTIFICATE:SSL,BROKER:SSL,CONTROLLER:SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256",
            **{
                f"listener.name.client.{mechanism}.sasl.jaas.config": f"{_SCRAM} required;"
                for mechanism in ("scram-sha-256", "scram-sha-512")
            },
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keys),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.ca_file),
            **{f"listener.name.{name.lower()}.ssl.client.auth": "required" for name in listeners if name != "CLIENT"},
            "ssl.principal.mapping.rules": PRINCIPAL_RULES,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{BROKER};User:{ADMIN}",
        }

    def answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.certificate_port), timeout=1).close()
        except OSError:
            return False  # kafka-python would take its time to find out
        try:
            with closing(make_admin(self.address(ADMIN))) as admin:
                admin.list_topics()
        except LogUnavailableError:
            return False
        return True

    def address(self, name: str) -> KafkaAddress:
        """How `name` comes with a certificate."""
        signed = self.authority.sign(name)
        security = KafkaSecurity(
            tls=True,
            ca_file=str(self.authority.ca_file),
            certificate_file=str(signed.certificate_file),
            key_file=str(signed.key_file),
        )
        return KafkaAddress(self.by_certificate, security)

    def add_user(self, name: str, password: str, mechanism: str = "SCRAM-SHA-512") -> None:
        """Let `name` in by SCRAM."""
        user = UserScramCredentialUpsertion(name, mechanism, password.encode())
        with closing(make_admin(self.address(ADMIN))) as admin:
            admin.alter_user_scram_credentials([user])
