"""The documentation as a site: every page is in its contents, and no link leads nowhere."""

import re
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


def build(settings: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Strictly, and not quietly: MkDocs counts only the warnings that it prints."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(settings)]
    command += ["--site-dir", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_the_site_builds_and_no_link_leads_nowhere(tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "guides" / "kubernetes.html").exists()
    alerts = (tmp_path / "site" / "reference" / "alerts.html").read_text()
    runbooks = {path.name for path in (ROOT / "alerts" / "runbooks").glob("*.md")}
    for name in set(re.findall(r'href="\.\./runbooks/(\w+)\.html"', alerts)):
        assert f"{name}.md" in runbooks
        assert (tmp_path / "site" / "runbooks" / f"{name}.html").exists()
    assert "../runbooks/IngestDown.html" in alerts


def test_a_link_that_leads_nowhere_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](nowhere.md)\n")
    settings = tmp_path / "mkdocs.yml"
    settings.write_text("site_name: small\nvalidation: {links: {not_found: warn}}\n")
    done = build(settings, tmp_path / "site")
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
