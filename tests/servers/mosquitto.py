"""Eclipse Mosquitto as a test server: a real MQTT broker on a loopback port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kvandal.broker import HOST, last_line
from tests.servers.daemon import Daemon
from tests.servers.kafka import ServerFailed, ServerUnavailable

SEARCH_PATH = "/usr/sbin:/usr/local/sbin"  # where Debian has it, beside the PATH
START_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority of a test's own, what it signed for the broker and for one client, and another authority."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path  # an authority that signed nothing here

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Make them with openssl; raises ServerUnavailable without it."""
        if shutil.which("openssl") is None:
            raise ServerUnavailable("TLS with Mosquitto is tested with certificates of openssl, which is not here")
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("authority", "stranger"):
            _openssl(directory, "req", "-x509", *_new_key(name), "-days", "2", "-subj", f"/CN={name}")
        (directory / "names").write_text(f"subjectAltName=IP:{HOST},DNS:localhost\n")
        for name, extra in (("server", ("-extfile", "names")), ("client", ())):
            _openssl(directory, "req", *_new_key(name, ".csr"), "-subj", f"/CN={name}")
            signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-days", "2", *extra)
            _openssl(directory, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
        files = ("authority.pem", "server.pem", "server.key", "client.pem", "client.key", "stranger.pem")
        return cls(*(directory / file for file in files))


@dataclass(slots=True)
class Mosquitto(Daemon):
    """A broker and its files.

    With `users` nobody else gets in, with `certificates` it speaks TLS only, and with `wants_certificate` it lets in
    who shows one of the authority's. `acl` is an acl_file. What it keeps in memory is gone when it restarts.
    """

    directory: Path
    users: Mapping[str, str] = field(default_factory=dict)
    acl: str = ""
    certificates: Certificates | None = None
    wants_certificate: bool = False

    @property
    def log_path(self) -> Path:
        return self.directory / "mosquitto.log"

    def log(self) -> str:
        """What it has logged, every packet included."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> Self:
        """Return once it listens. Raises ServerUnavailable or ServerFailed."""
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:{SEARCH_PATH}")
        if program is None:
            raise ServerUnavailable("MQTT is tested with Eclipse Mosquitto, and there is no mosquitto here")
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text("".join(f"{line}\n" for line in self._settings()))
        self.spawn([program, "-c", str(configuration)])
        self._wait_until_it_listens()
        return self

    def _settings(self) -> list[str]:
        lines = ["user root", f"listener {self.port} {HOST}", "log_dest stderr", "log_type all", "persistence false"]
        lines += ["max_queued_messages 100000", f"allow_anonymous {'false' if self.users else 'true'}"]
        if self.users:
            lines.append(f"password_file {self._password_file()}")
        if self.acl:
            acl_file = self.directory / "acl"
            acl_file.write_text(self.acl)
            lines.append(f"acl_file {acl_file}")
        if self.certificates:
            found = self.certificates
            lines += [f"cafile {found.authority}", f"certfile {found.server}", f"keyfile {found.server_key}"]
            lines.append(f"require_certificate {'true' if self.wants_certificate else 'false'}")
        return lines

    def _password_file(self) -> Path:
        file = self.directory / "passwords"
        file.write_text("")
        tool = shutil.which("mosquitto_passwd")
        if tool is None:
            raise ServerUnavailable("Mosquitto's passwords are made with mosquitto_passwd, which is not here")
        for user, password in self.users.items():
            subprocess.run([tool, "-b", str(file), user, password], check=True, capture_output=True)
        return file

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise ServerFailed(f"Mosquitto ended while starting: {last_line(self.log_path)}")
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
            except OSError:
                time.sleep(POLL_INTERVAL_S)
            else:
                return
        raise ServerFailed(f"Mosquitto did not listen in time: {last_line(self.log_path)}")


def _new_key(name: str, ending: str = ".pem") -> tuple[str, ...]:
    return ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}{ending}")


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
