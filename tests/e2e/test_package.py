"""The wheel and the sdist: what a stranger installs runs, with everything that it needs in it."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from kvandal import __version__

ROOT = Path(__file__).resolve().parents[2]
OURS = {"alerts", "catalogue", "collectors", "dashboards", "kvandal", "reports", "simulation", "storage", "stream"}
TOOL = Path(sys.executable).parent / "uv"

pytestmark = pytest.mark.timeout(900)


def run(*command: str | Path, cwd: Path, timeout_s: float = 600) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of what git tracks, and the wheel made from that sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in (name for name in tracked if name and (ROOT / name).exists()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run(TOOL, "build", "--no-build-isolation", "--python", sys.executable, "--out-dir", out, cwd=source)
    return out


def test_the_wheel_has_our_packages_and_their_data_and_no_more(built: Path) -> None:
    names = ZipFile(built / f"kvandal-{__version__}-py3-none-any.whl").namelist()
    tops = {name.split("/")[0] for name in names}
    assert {
        "alerts",
        "catalogue",
        "collectors",
        "dashboards",
        "kvandal",
        "reports",
        "simulation",
        "storage",
        "stream",
    } == {top for top in tops if not top.endswith(".dist-info")}
    packaged = {p.relative_to(ROOT) for top in tops for p in (ROOT / top).rglob("*") if p.is_file()}
    left_out = {str(p) for p in packaged if "__pycache__" not in p.parts} - set(names)
    assert left_out == set()


def test_the_sdist_makes_the_same_wheel(built: Path) -> None:
    with tarfile.open(built / f"kvandal-{__version__}.tar.gz") as sdist:
        members = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "kvandal/cli.py"} <= members


def test_it_runs_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    run(TOOL, "venv", "--python", sys.executable, environment, cwd=tmp_path)
    locked = ROOT / "constraints.txt"
    run(TOOL, "pip", "install", "--python", python, "--require-hashes", "-r", locked, cwd=tmp_path)
    run(
        TOOL,
        "pip",
        "install",
        "--python",
        python,
        "--no-deps",
        built / f"kvandal-{__version__}-py3-none-any.whl",
        cwd=tmp_path,
    )
    program = environment / "bin" / "kvandal"
    assert __version__ in run(program, "--version", cwd=tmp_path)
    out = run(program, "demo", "--gpus", "16", "--days", "2", "--seconds", "2", "--once", "--out", tmp_path / "demo",
              cwd=tmp_path)  # fmt: skip
    assert "every row that was produced is stored, once" in out
