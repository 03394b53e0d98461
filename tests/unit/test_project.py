"""The project as a whole: names, rendered files, locked dependencies."""

import json
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest

from kvandal.render import RENDERED, ROOT, stale_files

# The folders that are import packages, those without an __init__.py among them.
OURS = frozenset(file.parent.name for file in ROOT.glob("[a-z]*/*.py"))
MAX_FILE_BYTES = 1_000_000
REPOSITORY = Path(__file__).resolve().parents[2]


def top_level_names() -> dict[str, set[str]]:
    """What each installed distribution, other than ours, puts at the top of the import path."""
    names: dict[str, set[str]] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name == "kvandal":
            continue
        for file in distribution.files or ():
            first = file.parts[0]
            if first.endswith(".py") or len(file.parts) > 1:
                names.setdefault(first.removesuffix(".py"), set()).add(name)
    return names


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name]


def test_no_dependency_ships_a_package_named_like_ours() -> None:
    assert {"catalogue", "kvandal", "storage", "stream", "tests"} <= OURS
    taken = top_level_names()
    assert "numpy" in taken  # or nothing was looked at
    assert {name: sorted(taken[name]) for name in OURS & taken.keys()} == {}


def test_no_two_dependencies_ship_the_same_module() -> None:
    """One of the two would not be what the lock file says; urllib3-future does that to urllib3."""
    shipped: dict[str, list[str]] = {}
    for distribution in distributions():
        for file in distribution.files or ():
            if file.suffix == ".py" and file.parts[0] not in ("..", "bin"):
                shipped.setdefault(str(file), []).append(distribution.metadata["Name"])
    assert "urllib3/__init__.py" in shipped  # or nothing was looked at
    assert {file: names for file, names in shipped.items() if len(names) > 1} == {}


def test_rendered_files_are_fresh() -> None:
    assert REPOSITORY == ROOT
    assert stale_files() == []


def test_a_rendered_file_that_was_edited_or_is_gone_is_stale(tmp_path: Path) -> None:
    for name in RENDERED:
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((REPOSITORY / name).read_text())
    assert stale_files(tmp_path) == []
    edited, gone, *_ = sorted(RENDERED)
    (tmp_path / edited).write_text((tmp_path / edited).read_text() + "\n")
    (tmp_path / gone).unlink()
    assert sorted(stale_files(tmp_path)) == [edited, gone]


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_a_rendered_file_says_so_at_its_top(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    head = "\n".join(text.splitlines()[:3])
    if name.startswith("dashboards/") and name.endswith(".json"):  # Grafana's form has no place but this
        head = json.loads(text)["description"].splitlines()[0]
    assert "Generated" in head


def test_no_tracked_file_is_large() -> None:
    large = [str(file) for file in tracked_files() if file.is_file() and file.stat().st_size > MAX_FILE_BYTES]
    assert large == []


def test_every_locked_dependency_has_hashes_and_no_address() -> None:
    text = (REPOSITORY / "constraints.txt").read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = text.replace("\\\n", " ").splitlines()
    locked = [entry for entry in entries if entry.strip() and not entry.lstrip().startswith("#")]
    assert len(locked) > 20
    assert [entry.split()[0] for entry in locked if "==" not in entry or "--hash=sha256:" not in entry] == []
