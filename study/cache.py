"""Tensors that take long to make, kept in a file for the next time.

content = cache.through(path, make, "the features", say)
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import torch


def through(path: Path, make: Callable[[], dict[str, Any]], what: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Read a file of tensors; where it is not there or broken, make them and keep them there, one process at a time.

    Where the folder cannot be written, a line says `what` is made anew at every start.
    """
    made = None
    try:
        path.parent.mkdir(exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            content = _read(path)
            if content is None:
                content = made = make()
                torch.save(made, path.with_suffix(".tmp"))
                path.with_suffix(".tmp").replace(path)
        return content
    except OSError:  # a read-only file system, or no permission
        say(f"{path.parent} cannot be written: {what} are made anew at every start")
        return make() if made is None else made


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = torch.load(path, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError):
        return None
    return content if isinstance(content, dict) else None
