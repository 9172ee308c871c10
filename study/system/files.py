"""Write files whole, and cache tensors that take long to compute.

replace_text(path, text)
content = files.cached(path, make, "the features", say)
"""

import errno
import hashlib
import os
import pickle
import unicodedata
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import filelock

from study.system.errors import UserError
from study.system.progress import Say


def check_writable(path: Path, option: str) -> None:
    """Raise UserError if a file that an option names cannot be written later, before anything is computed for it."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path} cannot be written; name a file in a folder that is there")


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 under a temporary name, then rename it; the folder is made if it is missing."""
    path.parent.mkdir(exist_ok=True)
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def composed(name: str) -> str:
    """Return a name in Unicode's form NFC, with é as one character; macOS and its archives write e and an accent."""
    return unicodedata.normalize("NFC", name)


def with_accents(path: Path) -> Path:
    """Return a file's path in the form of Unicode in which its folder has its name; the path itself if it has none."""
    if path.exists() or path.name.isascii() or not path.parent.is_dir():
        return path
    return next((other for other in path.parent.iterdir() if composed(other.name) == composed(path.name)), path)


MOST_CHARACTERS = 10_000_000
"""The longest text that a person can have written; devices such as /dev/zero never end."""


def written_text(path: Path) -> str:
    """Read a text file that a person wrote, in UTF-8; raise OSError or ValueError if it cannot be one."""
    with path.open(encoding="utf-8") as file:
        text = file.read(MOST_CHARACTERS + 1)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it is longer than {MOST_CHARACTERS:,} characters")
    return text


def tail(path: Path, size: int, start: int = 0) -> bytes:
    """Read the last `size` bytes of a file, but none before `start`."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - size))
        return file.read()


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits of a file's SHA-256; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def known_digest(path: Path) -> str:
    """Return the digest of a file, which is read again only if it has changed; raise OSError if it cannot be read."""
    stat = path.stat()
    return _known_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _known_digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


def cached(path: Path, make: Callable[[], dict[str, Any]], what: str, say: Say) -> dict[str, Any]:
    """Read a file of tensors; if it is missing or broken, call `make` and write the file, one process at a time.

    If the folder cannot be written, `say` reports that `what` will be computed at every start.
    """
    import torch  # not needed to write a text

    temporary = path.with_suffix(".tmp")
    wait = partial(say, f"another process computes {what}: waiting for it")
    with held(path.with_suffix(".lock"), wait):
        content = read(path)
        if content is None:
            # Compute the tensors and write them under a temporary name first
            content = make()
            try:
                torch.save(content, temporary)
                temporary.replace(path)
            except (OSError, RuntimeError):  # no permission; torch raises the latter if the disk is full
                say(f"{path.parent} cannot be written: {what} are computed again at every start")
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
    return content


def held(path: Path, wait: Callable[[], None] = lambda: None) -> AbstractContextManager:
    """Hold a lock file as `lock` does; do nothing if the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock(path, wait)
    except OSError:
        return nullcontext()


def lock(path: Path, wait: Callable[[], None]) -> AbstractContextManager:
    """Hold a lock file; if another process holds it for more than a second, call `wait`, which may raise, and wait.

    Raises OSError if the file cannot be written.
    """
    file = filelock.FileLock(path)
    with suppress(filelock.Timeout):
        return file.acquire(timeout=1)
    wait()
    return file.acquire()


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock file of filelock; False if the file is missing or cannot be read.

    Processes that only ask whether it is held are not taken for one that holds it.
    """
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in (errno.ENOSYS, errno.EOPNOTSUPP) and _is_held_softly(path)
    return False


def _is_held_softly(path: Path) -> bool:
    """Ask filelock, which uses another kind of lock on a file system without flock."""
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


def read(path: Path) -> dict[str, Any] | None:
    """Read a file of torch into the host's memory; return None if it is missing, broken or holds no dict."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch does not look at checksums
                return None
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None
    return content if isinstance(content, dict) else None
