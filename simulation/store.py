"""Keeping a simulation on disk: arrays and one JSON document in an npz file, nothing executable."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DOCUMENT = "document"

# numpy knows no static type for an array of any dtype.
Arrays = dict[str, NDArray[Any]]


def write_store(path: Path, arrays: Mapping[str, NDArray[Any]], document: dict[str, Any]) -> None:
    """Write both; whoever reads meanwhile, or after a crash, sees the old file or the new one whole."""
    draft = path.with_name(path.name + ".new")
    text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    with draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_DOCUMENT: text}, **arrays)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_store(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the document; refuses pickled content."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != _DOCUMENT}
        document: dict[str, Any] = json.loads(stored[_DOCUMENT].tobytes())
    return arrays, document
