"""The cache folder, for what can be pulled or computed again.

python -c "from analysis.frames import cache; print(cache.folder())"
"""

import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from study.system.files import held


def folder() -> Path:
    """Return the cache folder, which XDG_CACHE_HOME can move."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "image-classifier-study"


def arrays(kind: str, key: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Load arrays from the cache, or compute and save them, one process at a time.

    If the cache is not writable they are only computed.
    """
    # a missing or damaged file is computed again, unless another process has done so meanwhile
    path = folder() / kind / f"{key}.npz"
    if saved := _read(path):
        return saved
    with held(path.with_suffix(".lock")):
        if saved := _read(path):
            return saved
        computed = dict(compute())

        # written under a temporary name, so that another process never reads half a file
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
                np.savez_compressed(file, allow_pickle=False, **computed)
            Path(file.name).replace(path)
    return computed


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read a file of arrays; empty if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return {}
