"""How a Kafka client shows who it is, and how it knows the broker: TLS, SCRAM, certificates.

Files are read whenever a client is made: who renews a certificate or a password replaces the file, and no process has
to be restarted.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.log import LogUnavailableError

_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Nothing of it means plaintext. With `tls` the broker's certificate and its name are always checked.

    `username` means SASL/SCRAM; `certificate_file` with `key_file` shows a certificate of our own.
    """

    tls: bool = False
    ca_file: str = ""  # empty = whom this machine trusts
    certificate_file: str = ""
    key_file: str = ""
    username: str = ""
    mechanism: str = "SCRAM-SHA-512"
    password: str = field(default="", repr=False)
    password_file: str = ""

    def client_options(self) -> Mapping[str, Any]:
        """What kafka-python is told. LogUnavailableError when a file cannot be used: it may be about to be replaced."""
        if not self.tls:
            return {}
        options: dict[str, Any] = {"security_protocol": "SSL", "ssl_context": self._context()}
        if not self.username:
            return options
        return options | {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self._password(),
        }

    def diagnose(self, bootstrap: str) -> str:
        """Why nobody let us in, as far as a connection of our own tells; empty when nobody is there.

        kafka-python says of a refused password or certificate only that time ran out.
        """
        host, _, port = bootstrap.split(",")[0].rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S) as connection:
                return self._diagnose_connection(connection, host)
        except (OSError, ValueError):
            return ""

    def _diagnose_connection(self, connection: socket.socket, host: str) -> str:
        if not self.tls:
            return "something listens there; where it speaks TLS, give kafka.tls"
        try:
            with self._context().wrap_socket(connection, server_hostname=host):
                return "it did not let us in; see kafka.username, the password, and kafka.certificate_file"
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not accepted: {error.verify_message}; see kafka.ca_file"
        except ssl.SSLError as error:
            return f"it does not speak TLS with us: {_why(error)}"

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise LogUnavailableError(f"kafka.ca_file {self.ca_file} cannot be used: {_why(error)}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file:
            self._show_certificate(context)
        return context

    def _show_certificate(self, context: ssl.SSLContext) -> None:
        try:
            # An encrypted key would make OpenSSL ask a terminal; nobody is there to answer.
            context.load_cert_chain(self.certificate_file, self.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            files = f"kafka.certificate_file {self.certificate_file} and kafka.key_file {self.key_file}"
            raise LogUnavailableError(f"{files} cannot be used: {_why(error)}") from error

    def _password(self) -> str:
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LogUnavailableError(
                f"kafka.password_file {self.password_file} cannot be read: {_why(error)}"
            ) from error


PLAINTEXT = KafkaSecurity()


def _why(error: Exception) -> str:
    """Without what OpenSSL or a decoder quotes of the file."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is not what OpenSSL reads"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8"
