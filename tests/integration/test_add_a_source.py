"""The guide for a source of one's own, run as it stands: its file, its entry point, its settings."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import ROOT
from tests.servers.stack import Finished, environment

GUIDE = ROOT / "docs" / "guides" / "add-a-source.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def station() -> Iterator[str]:
    """A weather station; gives its address."""

    class Station(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"temperature": 4.2, "humidity": 71}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Station)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/now"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's package, installed into a folder of its own."""
    package, target = tmp_path_factory.mktemp("weather"), tmp_path_factory.mktemp("site-packages")
    (package / "weather.py").write_text(blocks("python")[0])
    (package / "pyproject.toml").write_text(blocks("toml")[0])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(package)], check=True)
    return target


def run_kvandal(installed: Path, *arguments: str) -> Finished:
    paths = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "kvandal", *arguments], env=environment({}) | {"PYTHONPATH": paths},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def settings_file(folder: Path, url: str) -> Path:
    file = folder / "agent.toml"
    text = blocks("toml")[1].replace("http://weather.site.example/now", url)
    file.write_text(text.replace("[agent]\n", f'[agent]\nspool = "{folder}/spool.db"\n'))
    return file


def test_the_guide_s_source_gives_its_readings(installed: Path, station: str, tmp_path: Path) -> None:
    done = run_kvandal(installed, "agent", "--once", "--print", "--config", str(settings_file(tmp_path, station)))

    assert done.code == 0, done.err
    assert "outside air" in done.out
    (values,) = [line.split()[1:] for line in done.out.splitlines() if line.strip().startswith("value_own_unit")]
    (unit,) = [line.split()[1:] for line in done.out.splitlines() if line.strip().startswith("unit_state")]
    assert values == ["4.2", "0.71"]
    assert unit == ["celsius", "relative_humidi"]  # cut to the width of a column


def test_a_station_that_does_not_answer_is_a_failed_check(installed: Path, tmp_path: Path) -> None:
    file = settings_file(tmp_path, "http://127.0.0.1:9/now")
    done = run_kvandal(installed, "doctor", "--only", "agent", "--config", str(file))

    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if "source weather" in line]
    assert line.startswith("failed")
    assert "http://127.0.0.1:9/now" in line


def test_a_source_that_is_not_installed_is_one_clear_sentence(tmp_path: Path, station: str) -> None:
    done = run_kvandal(tmp_path, "agent", "--once", "--print", "--config", str(settings_file(tmp_path, station)))

    assert done.code == 2
    assert "no installed package offers a source weather" in done.err


def test_the_guide_s_file_has_types_as_our_own_code_has(tmp_path: Path) -> None:
    (tmp_path / "weather.py").write_text(blocks("python")[0])
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "weather.py")]
    done = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout
