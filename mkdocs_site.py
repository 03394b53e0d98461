"""What MkDocs is told beyond its settings: runbooks lie beside the alerts, and are pages of the site too.

Links between documents are written as they hold in the repository; here they are made to hold on the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
RUNBOOKS = "alerts/runbooks"  # in the repository, and `runbooks` on the site
_LINK = re.compile(r"(?<=\]\()(?P<target>\.{1,2}/[^)#\s]+)(?P<anchor>#[^)\s]+)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the runbooks, which are not under docs/."""
    for path in sorted((ROOT / RUNBOOKS).glob("*.md")):
        files.append(
            File.generated(config, f"runbooks/{path.name}", abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV)
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' own
    """Leads links between documents and runbooks to their pages."""
    at = posixpath.dirname(place_in_repository(page.file.src_uri))

    def led(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(at, found["target"]))
        return f"{site_link(target, page.file.src_uri)}{found['anchor'] or ''}"

    return _LINK.sub(led, markdown)


def place_in_repository(page: str) -> str:
    """Where the source of a page lies, from the repository's root."""
    return f"alerts/{page}" if page.startswith("runbooks/") else f"docs/{page}"


def site_link(target: str, page: str) -> str:
    """A link from `page` to a file of the repository, where that is a page; otherwise what MkDocs will complain of."""
    is_runbook = target.startswith(f"{RUNBOOKS}/")
    there = target.removeprefix("alerts/") if is_runbook else posixpath.relpath(target, "docs")
    return posixpath.relpath(there, posixpath.dirname(page) or ".")
