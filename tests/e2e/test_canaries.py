"""No secret leaves: every secret setting of every process is a canary, and everything that comes out is searched.

What is searched: stdout and stderr at the highest verbosity, with the errors of servers that say back what they were
told; `/metrics`; `--check-config`; the command line as other users of the machine see it; the spool, the incidents'
memory, the store's folder; and the repr of everything that holds a secret.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from collectors.pseudonyms import read_key
from collectors.snmp.secrets import read_secret
from collectors.snmp.settings import CommunityCredentials, UserCredentials
from dashboards.publishing import DataSources, open_grafana
from kvandal.addresses import kafka_address, store_address
from kvandal.broker import HOST
from kvandal.settings import ClientSettings, load_settings
from storage.reception import read_passwords
from storage.roles import make_role
from tests.servers.certificates import Authority
from tests.servers.echo import echo_server
from tests.servers.grafana_api import TOKEN, grafana_api
from tests.servers.ports import free_port
from tests.servers.stack import Running, run, until

pytestmark = pytest.mark.timeout(600)  # twenty processes, on a loaded machine
_AT_ONCE = 4  # verbs; most of them wait for a broker that does not let them in
ROLES = ("admin", "ingest", "reports", "grafana")


@dataclass(frozen=True, slots=True)
class Canaries:
    """Secrets that can be found again, by what they are for."""

    folder: Path
    planted: dict[str, str] = field(default_factory=dict)

    def make(self, purpose: str) -> str:
        return self.planted.setdefault(purpose, f"canary{len(self.planted)}x{secrets.token_hex(12)}")

    def file(self, purpose: str, text: str = "{}") -> str:
        """A file that holds a canary, as `text` says."""
        path = self.folder / f"{purpose}.secret"
        path.touch(mode=0o600)
        path.write_text(text.format(self.make(purpose)) + "\n")
        return str(path)

    def found_in(self, output: bytes) -> list[str]:
        """The purposes of the canaries in `output`, as they are or as a header or a URL would have them."""
        return [purpose for purpose, canary in self.planted.items() if any(form in output for form in _forms(canary))]


def _forms(canary: str) -> Iterator[bytes]:
    yield canary.encode()
    yield quote(canary).encode()
    yield canary.encode().hex().encode()[:60]
    for shift in range(3):  # wherever in a longer text it stood
        yield b64encode(b"\0" * shift + canary.encode())[4:-4]


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    (tmp_path / "secrets").mkdir()
    return Canaries(tmp_path / "secrets")


def kafka_settings(canaries: Canaries, authority: Authority, port: int) -> dict[str, str]:
    return {
        "KVANDAL_KAFKA_BOOTSTRAP": f"{HOST}:{port}",
        "KVANDAL_KAFKA_TLS": "true",
        "KVANDAL_KAFKA_CA_FILE": str(authority.ca_file),
        "KVANDAL_KAFKA_USERNAME": "kvandal",
        "KVANDAL_KAFKA_PASSWORD": canaries.make("kafka"),
    }


def key_file(canaries: Canaries, purpose: str) -> Path:
    """A key of pseudonyms: its 64 hexadecimal digits are the canary's."""
    path = Path(canaries.file(purpose))
    path.write_text(f"k1 {canaries.make(purpose).encode().hex().ljust(64, '0')[:64]}\n")
    return path


def signed_key(canaries: Canaries, purpose: str, key_file: Path) -> Path:
    """A private key's file, moved to the secrets; a line of its body is the canary."""
    path = canaries.folder / f"{purpose}.pem"
    path.touch(mode=0o600)
    path.write_bytes(key_file.read_bytes())
    key_file.unlink()
    canaries.planted[purpose] = path.read_text().splitlines()[1]
    return path


def agent_file(canaries: Canaries, authority: Authority, https: str, folder: Path) -> Path:
    """An agent with every source that has a secret; what it asks refuses, or is not there."""
    key = key_file(canaries, "pseudonym key")
    nobody = free_port()
    text = f"""
[agent]
sources = ["host", "dsx", "redfish", "snmp", "slurm"]
spool = "{folder / "spool.db"}"
drain_s = 1
host_interval_s = 1

[dsx]
host = "{HOST}"
port = {nobody}
tls = false
username = "bms"
password_file = "{canaries.file("mqtt")}"

[[redfish.devices]]
name = "cdu"
url = "{https}"
username = "operator"
password_file = "{canaries.file("redfish")}"
ca_file = "{authority.ca_file}"
authentication = "session_or_basic"

[snmp.credentials.v3]
version = "3"
user = "kvandal"
auth_password_file = "{canaries.file("snmp auth")}"
privacy_password_file = "{canaries.file("snmp privacy")}"

[snmp.credentials.v2]
version = "2c"
community_file = "{canaries.file("snmp community")}"

[[snmp.devices]]
name = "pdu"
host = "{HOST}"
port = {nobody}
credentials = "v3"

[[snmp.devices]]
name = "ups"
host = "{HOST}"
port = {nobody}
credentials = "v2"

[slurm]
pseudonym_key_file = "{key}"
controller = {{ command = ["/bin/false"] }}
accounting = {{ command = ["/bin/false"] }}
"""
    file = folder / "agent.toml"
    file.write_text(text)
    return file


def outputs_of(process: Running, metrics_port: int) -> Iterator[tuple[str, bytes]]:
    yield "command line", Path(f"/proc/{process.process.pid}/cmdline").read_bytes()
    if metrics_port:
        with urlopen(f"http://{HOST}:{metrics_port}/metrics", timeout=30) as page:
            yield "/metrics", page.read()


def test_no_canary_is_found_in_anything_that_comes_out(canaries: Canaries, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    certificate = authority.sign("echo")
    ports = {name: free_port() for name in ("agent", "ingest", "incidents")}
    found: dict[str, list[str]] = {}
    searched = 0

    def search(where: str, output: bytes) -> None:
        nonlocal searched
        searched += len(output)
        if leaked := canaries.found_in(output):
            found[where] = leaked

    with ExitStack() as running:
        https, http = running.enter_context(echo_server(certificate)), running.enter_context(echo_server())
        kafka = kafka_settings(canaries, authority, int(https.rpartition(":")[2]))
        store = {"KVANDAL_STORE_URL": http, "KVANDAL_STORE_PASSWORD": canaries.make("store")}
        config = str(agent_file(canaries, authority, https, tmp_path))
        token = ("--grafana", http, "--token-file", canaries.file("grafana token"))
        client = authority.sign("kvandal")
        by_certificate = {name: kafka[name] for name in ("KVANDAL_KAFKA_BOOTSTRAP", "KVANDAL_KAFKA_TLS")} | {
            "KVANDAL_KAFKA_CERTIFICATE_FILE": str(client.certificate_file),
            "KVANDAL_KAFKA_KEY_FILE": str(signed_key(canaries, "kafka key", client.key_file)),
        }
        by_file = {name: value for name, value in kafka.items() if name != "KVANDAL_KAFKA_PASSWORD"} | {
            "KVANDAL_KAFKA_PASSWORD_FILE": canaries.file("kafka password file")
        }
        store_by_file = {"KVANDAL_STORE_URL": http, "KVANDAL_STORE_PASSWORD_FILE": canaries.file("store password file")}
        both = ("--clickhouse", f"{HOST}:1", "--clickhouse-password-file", canaries.file("grafana's store"))
        approver = {"KVANDAL_REPORT_KEY_PASSWORD": canaries.make("approver's key password")}
        grafana = running.enter_context(grafana_api())
        its_token = canaries.folder / "its.token"
        its_token.write_text(TOKEN)
        canaries.planted["the token that Grafana takes"] = TOKEN
        freezing = ("--freeze", "--approver", "officer", "--key", str(canaries.folder / "approver.key"))
        roles = {f"KVANDAL_{role.upper()}_PASSWORD_FILE": canaries.file(f"role {role}") for role in ROLES}

        processes = {
            "agent": (("agent", "--config", config, "--port", str(ports["agent"])), kafka),
            "ingest": (("ingest", "--port", str(ports["ingest"])), kafka | store),
            "keep": (("keep",), store),
            "incidents": (("incidents", "--alertmanager", http, "--state", str(tmp_path / "incidents.db"), "--port",
                           str(ports["incidents"])), kafka),
            "store": (("store", "--data", str(tmp_path / "store"), "--broker", f"{HOST}:{free_port()}"), roles),
        }  # fmt: skip
        started = {
            name: running.enter_context(Running.start(tmp_path, name, "-v", *arguments, settings=settings))
            for name, (arguments, settings) in processes.items()
        }
        for name in ports:
            until(lambda name=name: _answers(ports[name]), what=f"{name} serves /metrics")  # type: ignore[misc]
        started["agent"].wait_for("cdu")  # the controller has refused us
        started["ingest"].wait_for("waiting")
        for name, process in started.items():
            with suppress(FileNotFoundError):  # the store ends without its broker
                for what, output in outputs_of(process, ports.get(name, 0)):
                    search(f"{name}: {what}", output)

        verbs: Mapping[tuple[str, ...], Mapping[str, str]] = {
            ("agent", "--config", config, "--check-config"): kafka,
            ("agent", "--config", config, "--once", "--print"): kafka,
            ("ingest", "--check-config"): kafka | store,
            ("keep", "--check-config"): store,
            ("doctor", "--config", config): kafka | store,
            ("query", "SELECT 1"): store,
            ("schema", "status"): store,
            ("tail", "gpu"): kafka,
            ("topics", "apply"): kafka,
            ("topics", "acls"): kafka,
            ("dead-letters", "list"): kafka,
            ("tail", "events"): by_file,
            ("topics", "acls", "--apply"): by_certificate,
            ("tail", "gpu", "--from-start"): by_certificate | {"KVANDAL_KAFKA_KEY_FILE": canaries.file("rubbish key")},
            ("doctor", "--only", "ingest"): by_file | store_by_file,
            ("schema", "diff"): store_by_file,
            ("dashboards", "diff", *token): {},
            ("dashboards", "publish", *token, *both): {},
            ("dashboards", "publish", "--grafana", grafana.url, "--token-file", str(its_token), *both): {},
            ("report", "key", str(canaries.folder / "approver.key")): approver,
            ("report", "heat", "--period", "2026-10", *freezing): store | approver,
            ("report", "frozen"): store_by_file | {"KVANDAL_REPORT_KEY_PASSWORD": canaries.make("a wrong password")},
            (
                "simulate",
                "--serve",
                "--data",
                str(tmp_path / "site"),
                "--mqtt",
                f"{HOST}:none",
                "--mqtt-user",
                "bms",
                "--mqtt-password-file",
                canaries.file("simulated mqtt"),
            ): {},
            ("dashboards", "preview", "--out", str(tmp_path / "preview")): store,
            ("report", "site", "--period", "2026-10"): store,
            ("ingest", "--check-config", "--broker", "x" * 10): kafka | {"KVANDAL_KAFKA_TLS": "perhaps"},
        }
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            done_verbs = pool.map(
                lambda verb: (verb[0], run("-v", *verb[0], settings=verb[1], timeout_s=300)), verbs.items()
            )
        for arguments, done in done_verbs:
            search(f"kvandal {' '.join(arguments[:2])}", (done.out + done.err).encode())
    for name, process in started.items():
        search(f"{name}: log", process.log.encode() + process.out.encode())
    for path in tmp_path.rglob("*"):
        if path.is_file() and "secrets" not in path.parts:
            search(f"file {path.name}", path.read_bytes())

    assert found == {}
    assert len(canaries.planted) == 22
    assert searched > 20_000  # there was something to be searched


def _answers(port: int) -> bool:
    with suppress(OSError), urlopen(Request(f"http://{HOST}:{port}/metrics"), timeout=5):
        return True
    return False


def test_nothing_that_holds_a_secret_shows_it(canaries: Canaries) -> None:
    given = {"KVANDAL_KAFKA_TLS": "1", "KVANDAL_KAFKA_USERNAME": "kvandal", "KVANDAL_STORE_USER": "reports"}
    given |= {f"KVANDAL_{name}_PASSWORD": canaries.make(name) for name in ("KAFKA", "STORE", "REPORTS")}
    settings = load_settings(ClientSettings, environment=given)
    (password,) = read_passwords(given).values()
    user = UserCredentials(user="kvandal", auth_password_file=canaries.file("auth"),
                           privacy_password_file=canaries.file("privacy"))  # fmt: skip

    holders = [
        settings,
        kafka_address(settings.kafka),
        store_address(settings.store),
        make_role(next(iter(read_passwords(given))), password),
        read_secret(user),
        read_secret(CommunityCredentials(community_file=canaries.file("community"))),
        read_key(key_file(canaries, "key")),
        DataSources(clickhouse_host="x", clickhouse_password=canaries.make("grafana's store")),
        open_grafana("http://127.0.0.1:1", Path(canaries.file("token"))),
    ]

    shown = "\n".join(f"{holder!r} {holder}" for holder in holders)
    assert canaries.found_in(shown.encode()) == []
    assert len(canaries.planted) == 9


def test_the_search_finds_a_canary_in_every_form(canaries: Canaries) -> None:
    canary = canaries.make("one")
    for output in (canary, f"user:{canary}", quote(f"/?key={canary}"), canary.encode().hex()):
        assert canaries.found_in(output.encode()) == ["one"]
    for before in ("", "u:", "us:", "user:"):
        assert canaries.found_in(b64encode(f"{before}{canary}after".encode())) == ["one"]
