"""What goes wrong on a machine is told in one sentence: what failed, on what, what to do. Never a traceback."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest

from catalogue import GPU
from kvandal.broker import HOST, EmbeddedBroker, tied_to_parent
from storage import schema
from storage.client import connect
from stream.frame import HEADER_BYTES
from tests.servers.ports import free_port
from tests.servers.stack import (
    NO_SETTINGS,
    PATIENCE_S,
    Finished,
    Fleet,
    Running,
    StoreServer,
    environment,
    fresh_topics,
    publish,
    run,
    start_ingest,
)

PROMPT_S = 15.0  # for the end of a process that waits
SPOOL_ROOM_BYTES = 256 << 10


def assert_refused(finished: Finished, *words: str) -> None:
    """Exit code 2 and one sentence on stderr that has these words."""
    sentences = [line for line in finished.err.splitlines() if line.startswith("Error: ")]
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    assert len(sentences) == 1, finished.err
    assert [word for word in words if word not in sentences[0]] == []


@pytest.fixture
def nobody() -> str:
    """An address of loopback on which nobody listens."""
    return f"{HOST}:{free_port()}"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with StoreServer.start(tmp_path_factory.mktemp("held") / "clickhouse") as server:
        schema.apply(connect(server.address()))
        yield server


# --- settings


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[ingest]\ninsert_row = 5\n", ("ingest", "insert_row")),
        ("[ingests]\ninsert_rows = 5\n", ("ingests",)),
        ("[ingest]\ninsert_rows = 0\n", ("ingest.insert_rows", ">= 1")),
        ("[ingest\n", ("not TOML", "line 1")),
        ("ingest = 5\n", ("ingest",)),
    ],
    ids=["unknown key", "unknown section", "out of range", "not TOML", "not a section"],
)
def test_a_wrong_settings_file_is_named_with_what_is_wrong(tmp_path: Path, toml: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "ingest.toml"
    file.write_text(toml)

    assert_refused(run("ingest", "--config", str(file), "--check-config"), str(file), *words)


def test_a_wrong_settings_file_is_refused_beside_flags_and_environment_too(tmp_path: Path) -> None:
    file = tmp_path / "ingest.toml"
    file.write_text("ingest = 5\n")
    settings = {"KVANDAL_INGEST_INSERT_ROWS": "5"}

    finished = run("ingest", "--config", str(file), "--check-config", "--port", "0", settings=settings)

    assert_refused(finished, "ingest", str(file))


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing.toml"

    assert_refused(run("agent", "--config", str(file)), str(file), "No such file", "give an existing file")


@pytest.mark.parametrize("value", ["0", "many", ""])
def test_a_wrong_value_in_the_environment_is_named_by_its_setting(value: str) -> None:
    finished = run("ingest", "--check-config", settings={"KVANDAL_INGEST_INSERT_ROWS": value})

    assert_refused(finished, "ingest.insert_rows", "environment")


def test_a_missing_secret_file_is_named_with_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "password"

    finished = run("schema", "status", settings={"KVANDAL_STORE_PASSWORD_FILE": str(file)})

    assert_refused(finished, str(file), "No such file", "KVANDAL_STORE_PASSWORD_FILE")


def test_a_wrong_flag_is_named() -> None:
    finished = run("agent", "--port", "70000")

    assert_refused(finished, "--port", "70000", "0<=x<=65535")


# --- nobody there


@pytest.mark.parametrize("verb", ["topics apply", "tail gpu", "dead-letters list"])
def test_a_verb_says_that_no_broker_answers(nobody: str, verb: str) -> None:
    assert_refused(run(*verb.split(), "--broker", nobody), "Kafka", nobody)


@pytest.mark.parametrize(
    "verb",
    ["schema apply", "schema status", "schema diff", "query SELECT(1)", "report --period 2026-10"],
)
def test_a_verb_says_that_clickhouse_does_not_answer(nobody: str, verb: str) -> None:
    assert_refused(run(*verb.split(), "--url", f"http://{nobody}"), "ClickHouse", nobody)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "127.0.0.1:8123", "http://"])
def test_an_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    assert_refused(run("schema", "status", "--url", url), "store.url", url, "http://host:port")
    assert_refused(run("ingest", "--url", url, "--port", "0"), "store.url", url, "http://host:port")


def test_a_wrong_password_is_refused_with_a_sentence(server: StoreServer) -> None:
    url = server.address().url

    finished = run("schema", "status", "--url", url, "--user", "admin", settings={"KVANDAL_STORE_PASSWORD": "wrong"})

    assert_refused(finished, url, "assword")


def test_ingest_waits_for_clickhouse_says_so_and_ends_when_told_to(tmp_path: Path, nobody: str) -> None:
    arguments = ["ingest", "--broker", nobody, "--url", f"http://{nobody}", "--port", "0"]
    with Running.start(tmp_path, "ingest", *arguments) as ingest:
        ingest.wait_for(f"waiting: ClickHouse at http://{nobody}")

        assert_ends_promptly(ingest)


def test_ingest_waits_for_the_broker_says_so_and_ends_when_told_to(
    tmp_path: Path, nobody: str, server: StoreServer
) -> None:
    settings = {"KVANDAL_STORE_PASSWORD": "ingest password"}
    arguments = ["ingest", "--broker", nobody, "--url", server.address().url, "--user", "ingest", "--port", "0"]
    with Running.start(tmp_path, "ingest", *arguments, settings=settings) as ingest:
        ingest.wait_for(f"waiting: no Kafka broker answers at {nobody}")

        assert_ends_promptly(ingest)


def test_an_agent_reads_on_without_a_broker_says_so_and_ends_when_told_to(tmp_path: Path, nobody: str) -> None:
    arguments = ["agent", "--source", "host", "--broker", nobody, "--spool", str(tmp_path / "spool.db"), "--port", "0"]
    with Running.start(tmp_path, "agent", *arguments, settings={"KVANDAL_AGENT_DRAIN_S": "1"}) as agent:
        agent.wait_for(f"waiting: no Kafka broker answers at {nobody}")

        assert_ends_promptly(agent)


def assert_ends_promptly(running: Running) -> None:
    started_s = time.monotonic()
    code = running.stop()
    assert time.monotonic() - started_s < PROMPT_S
    assert "Traceback" not in running.log
    assert code == 0


# --- ports, folders, disks


def test_a_taken_port_of_the_door_is_named(tmp_path: Path, taken_port: int, embedded_broker: EmbeddedBroker) -> None:
    arguments = ["--data", str(tmp_path / "store"), "--broker", embedded_broker.bootstrap]

    assert_refused(run("store", *arguments, "--port", str(taken_port)), str(taken_port), "give another port")
    assert_refused(
        run("demo", "--once", "--out", str(tmp_path / "demo"), "--port", str(taken_port)),
        str(taken_port),
        "give another port",
    )


@pytest.mark.parametrize("verb", ["agent", "ingest"])
def test_a_taken_port_of_the_metrics_page_is_named(tmp_path: Path, taken_port: int, verb: str) -> None:
    settings = {"KVANDAL_AGENT_SPOOL": str(tmp_path / "spool.db")}

    finished = run(verb, "--port", str(taken_port), settings=settings)

    assert_refused(finished, "/metrics", str(taken_port), "metrics_port")


def test_a_data_folder_that_another_process_has_is_named_with_it(
    server: StoreServer, embedded_broker: EmbeddedBroker
) -> None:
    arguments = ["--broker", embedded_broker.bootstrap, "--port", "0"]

    finished = run("store", "--data", str(server.path), *arguments)

    assert_refused(finished, str(server.path), "in use", str(server.process.pid))


def test_up_on_a_folder_that_another_one_has_is_refused(server: StoreServer) -> None:
    folder = server.path.parent
    (folder / "kvandal.json").write_text("{}\n")

    finished = run("up", "--data", str(folder), "--port", "0", "--gpus", "4")

    assert_refused(finished, str(server.path), "in use", str(server.process.pid))


@pytest.mark.parametrize(("verb", "option"), [("demo", "--out"), ("up", "--data")])
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, verb: str, option: str) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")

    finished = run(verb, option, str(tmp_path))

    assert_refused(finished, str(tmp_path), "other files")
    assert list(tmp_path.iterdir()) == [thesis]
    assert thesis.read_text() == "years of work"


def test_a_spool_where_none_can_be_is_named(tmp_path: Path, nobody: str) -> None:
    (tmp_path / "file").write_text("")
    spool = tmp_path / "file" / "spool.db"

    finished = run("agent", "--source", "host", "--broker", nobody, "--spool", str(spool), "--port", "0")

    assert_refused(finished, str(spool), "agent.spool")


def test_an_agent_survives_a_full_disk_under_its_spool_and_says_so(tmp_path: Path, nobody: str) -> None:
    """The kernel's limit on a file's size stands for the disk: it needs no privilege, and SQLite meets it the same."""
    spool, port = tmp_path / "spool.db", free_port()
    settings = {"KVANDAL_AGENT_HOST_INTERVAL_S": "1", "KVANDAL_AGENT_FRAME_TICKS": "1", "KVANDAL_AGENT_DRAIN_S": "1"}
    arguments = ["agent", "--source", "host", "--broker", nobody, "--spool", str(spool), "--port", str(port)]
    with start_with_small_files(tmp_path, "agent", *arguments, settings=settings) as agent:
        agent.wait_for(f"spool {spool}: ")
        with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as page:
            assert page.status == 200
        agent.stop()

    (sentence, *_) = [line for line in agent.log.splitlines() if f"spool {spool}: " in line]
    assert "free space or permissions are needed" in sentence
    assert "Traceback" not in agent.log


def start_with_small_files(
    folder: Path, name: str, *arguments: str, settings: Mapping[str, str] = NO_SETTINGS
) -> Running:
    """Start a verb that can write no file beyond SPOOL_ROOM_BYTES."""
    limited = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SPOOL_ROOM_BYTES}, {SPOOL_ROOM_BYTES})); "
        "os.execv(sys.executable, [sys.executable, '-m', 'kvandal', *sys.argv[1:]])"
    )
    out_path, log_path = folder / f"{name}.out", folder / f"{name}.log"
    with out_path.open("ab") as out, log_path.open("ab") as log:
        process = subprocess.Popen(
            tied_to_parent([sys.executable, "-c", limited, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            env=environment(settings),
        )
    return Running(process, out_path, log_path)


# --- what was asked for does not exist


def test_an_unknown_topic_is_answered_with_those_there_are(embedded_broker: EmbeddedBroker) -> None:
    finished = run("tail", "gpus", "--broker", embedded_broker.bootstrap)

    assert_refused(finished, "no topic kvandal.gpus", "kvandal.gpu,", "kvandal.events")


def test_topics_that_were_never_made_are_answered_with_the_verb_that_makes_them(
    embedded_broker: EmbeddedBroker,
) -> None:
    with fresh_topics(embedded_broker.bootstrap):
        pass

    finished = run("tail", "gpu", "--broker", embedded_broker.bootstrap)

    assert_refused(finished, "kvandal.gpu", "kvandal topics apply")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", ("Syntax error",)),
        ("SELECT power_wats FROM gpu", ("power_wats",)),
        ("SELECT * FROM gpus", ("gpus",)),
        ("DROP TABLE gpu", ("READONLY",)),
    ],
)
def test_wrong_sql_is_answered_in_one_sentence(server: StoreServer, sql: str, words: tuple[str, ...]) -> None:
    settings = {"KVANDAL_STORE_PASSWORD": "reports password"}

    finished = run("query", sql, "--url", server.address().url, "--user", "reports", settings=settings)

    assert_refused(finished, *words)


def test_a_period_that_is_none_is_refused_with_examples(server: StoreServer) -> None:
    settings = {"KVANDAL_STORE_PASSWORD": "reports password"}

    finished = run(
        "report", "--period", "October", "--url", server.address().url, "--user", "reports", settings=settings
    )

    assert_refused(finished, "October", "2026-10")


def test_ingest_into_a_store_without_tables_says_which_verb_makes_them(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    with (
        StoreServer.start(tmp_path / "empty") as empty,
        fresh_topics(embedded_broker.bootstrap),
        start_ingest(tmp_path, "ingest", embedded_broker.bootstrap, empty.address("ingest")) as ingest,
    ):
        code = ingest.process.wait(PATIENCE_S)

    assert_refused(Finished(code, ingest.out, ingest.log), "kvandal schema apply")


def test_a_storm_of_bad_frames_stops_ingest_with_a_sentence(
    tmp_path: Path, embedded_broker: EmbeddedBroker, server: StoreServer
) -> None:
    frames = Fleet(1, sources=4).frames()
    bad = [next(frames).value[: HEADER_BYTES + 3] for _ in range(40)]
    with fresh_topics(embedded_broker.bootstrap):
        publish(embedded_broker.bootstrap, GPU.topic, bad)
        with start_ingest(tmp_path, "ingest", embedded_broker.bootstrap, server.address("ingest")) as ingest:
            code = ingest.process.wait(PATIENCE_S)

    assert_refused(
        Finished(code, ingest.out, ingest.log), "cannot be stored", "nothing is lost", "kvandal dead-letters list"
    )
