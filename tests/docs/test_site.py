"""The documentation as a site: every page is in its contents, and no link leads nowhere."""

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


class _Contents(yaml.SafeLoader):
    """Of mkdocs.yml, whose tags name Python functions that only MkDocs needs."""


_Contents.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda _loader, suffix, _node: suffix)


def pages_of(contents: object) -> set[str]:
    if isinstance(contents, str):
        return {contents}
    parts = contents.values() if isinstance(contents, dict) else contents
    assert isinstance(parts, list | type({}.values()))
    return {page for part in parts for page in pages_of(part)}


def test_every_page_is_in_the_contents() -> None:
    contents = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=_Contents)["nav"]  # noqa: S506 - a safe loader
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages_of(contents) == there


def test_the_site_builds_and_no_link_leads_nowhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "guides" / "kubernetes.html").exists()
