"""Tensors that take long to make, kept in a file for the next time.

content = cache.through(path, make, "the features", say)
"""

import pickle
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import filelock
import torch


def through(path: Path, make: Callable[[], dict[str, Any]], what: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Read a file of tensors; where it is not there or broken, make them and keep them there, one process at a time.

    Where the folder cannot be written, a line says `what` is made anew at every start.
    """
    temporary = path.with_suffix(".tmp")
    with _held(path.with_suffix(".lock")):
        content = read(path)
        if content is None:
            content = make()
            try:
                torch.save(content, temporary)
                temporary.replace(path)
            except (OSError, RuntimeError):  # no permission; where the disk is full, torch raises the latter
                say(f"{path.parent} cannot be written: {what} are made anew at every start")
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
    return content


def _held(path: Path) -> AbstractContextManager:
    """Hold a lock, where the folder can be written."""
    try:
        path.parent.mkdir(exist_ok=True)
        return filelock.FileLock(path).acquire()
    except OSError:
        return nullcontext()


def read(path: Path) -> dict[str, Any] | None:
    """Read a file of torch's into the host's memory; None where it is not there, is broken or holds no mapping."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch does not look at checksums
                return None
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None
    return content if isinstance(content, dict) else None
