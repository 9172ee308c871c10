"""The folder of what can be pulled or computed again.

python -c "from analysis.frames import cache; print(cache.folder())"
"""

import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def folder() -> Path:
    """Return the folder; XDG_CACHE_HOME moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "image-classifier-study"


def arrays(kind: str, key: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return arrays from the cache, or compute and keep them; where nothing can be written they are only computed."""
    path = folder() / kind / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass
    made = dict(compute())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez_compressed(file, allow_pickle=False, **made)
        Path(file.name).replace(path)
    except OSError:
        pass
    return made
