"""Files that reports are written to."""

from pathlib import Path


def replace_text(path: Path, text: str) -> Path:
    """Write a file whole: who reads it sees the one before or this one. OSError."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)
