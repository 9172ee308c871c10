"""List and digest a folder of images with their classes, without decoding an image and without torch.

python -c "from study.data.folder import scan; print(scan('data', 'cifar10-jpeg').digest)"
"""

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from study.config import Config
from study.config.checks import csv_columns
from study.data.labels import subjects as subjects_of
from study.data.listing import Mark, expected, in_class_folders, with_labels
from study.system.errors import NAMED, UserError, one_line, printable
from study.system.files import file_digest, replace_text, with_accents
from study.system.progress import Progress, Say

UNREAD = "cannot be read"

JOINED = "+joined"
"""The end of the digest of data whose split keeps copies of images together that would otherwise be on two sides.

Runs of earlier versions, which did not, have a digest without it: they neither resume nor share a table with others.
"""


@dataclass(frozen=True)
class Folder:
    """The image files of one data set.

    `files` maps each existing split (`train`, perhaps `val` and `test`) to a sorted list of (path relative to `root`,
    index into `classes`). `contents` is the digest of all names, labels and contents; `digest` is that and the
    subjects. `subjects` maps each file to its subject, if there are any. `unused` are folders that belong to no split;
    `skipped` counts the files that are not used, by suffix or reason, and `examples` names the first ones of each kind.
    `tables` are CSV files beside class folders, which might hold other labels.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]
    contents: str
    digest: str
    subjects: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    tables: tuple[str, ...] = ()


def of(config: Config, say: Say = lambda text: None) -> Folder | None:
    """List the folder of a config's data set; None if the data set is not a folder. Raises the errors of `scan`."""
    if config.dataset.startswith("folder:"):
        name = config.dataset.removeprefix("folder:")
        return scan(config.data_dir, name, say, config.labels, config.group_by)
    return None


def path(config: Config) -> Path:
    """Return the folder of a config's data set, which need not exist."""
    return Path(config.data_dir) / config.dataset.removeprefix("folder:")


def digest(config: Config) -> str:
    """Return the digest of a config's data."""
    return digest_of(config, of(config))


def digest_of(config: Config, files: Folder | None) -> str:
    """Return the digest of a listed folder, or the name of a data set that never changes."""
    return files.digest if files else config.dataset


def cache_stem(name: str, labels: str | None = None) -> str:
    """Return a unique name for a data set's files in `.cache` that every file system accepts."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:60]
    name = f"{name}/{labels}" if labels else name
    return stem if stem == name else f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def scan(
    data_dir: str | os.PathLike,
    name: str,
    say: Say = lambda text: None,
    labels: str | None = None,
    group_by: str | None = None,
) -> Folder:
    """List the images of `<data_dir>/<name>`: of its train, val and test folders, or of its class folders.

    `labels` and `group_by` are the options of a run: where the labels are, if not in the names of folders, and what
    the images of a subject share. `say` reports the progress if reading the files for their digest takes long. Raises
    UserError if a folder is missing, cannot be read or holds no data set.
    """
    try:
        return _scan(Path(data_dir), name, say, labels, group_by)
    except OSError as error:
        raise UserError(one_line(error)) from None


def _scan(data_dir: Path, name: str, say: Say, labels: str | None, group_by: str | None) -> Folder:
    """List the images, as `scan` does; raise OSError if a folder cannot be read."""
    # List the images with their labels, and their subjects
    root = with_accents(data_dir / name)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; {expected(name)}")
    listed = with_labels(root, labels) if labels else in_class_folders(root, name)
    paths = [path for own in listed.files.values() for path, _ in own]
    subjects = subjects_of(paths, group_by, listed.rows) if group_by else {}

    # Digest all names and contents; only new files are read
    cache = data_dir / ".cache" / f"{cache_stem(name, labels)}-digests.json"
    contents = _digests(listed.root, listed.marks, cache, say)
    combined = hashlib.sha256()
    for split, own in listed.files.items():
        for path, label in own:
            combined.update(os.fsencode(f"{split} {label} {path} {contents[path]}\n"))
    if labels:  # otherwise the paths hold the names of the classes
        combined.update(json.dumps(listed.classes).encode())
    of_contents = combined.hexdigest()[:16]

    # Digest the subjects too
    combined.update(json.dumps([subjects[path] for path in paths]).encode() if subjects else b"")

    # Count what is not used, and name the first ones
    skipped = sorted(((kind, own) for kind, own in listed.skipped.items() if own), key=lambda pair: -len(pair[1]))
    tables = () if labels else tuple(sorted(path.name for path in root.iterdir() if csv_columns(path.name)[0]))
    return Folder(
        listed.root,
        listed.classes,
        listed.files,
        of_contents,
        combined.hexdigest()[:16],
        subjects,
        listed.unused,
        {kind: len(own) for kind, own in skipped},
        {kind: [printable(path.removeprefix(f"{root}/")) for path in own[:NAMED]] for kind, own in skipped},
        tables,
    )


def _digests(root: Path, marks: dict[str, Mark], cache: Path, say: Say) -> dict[str, str]:
    """Return the digest of each file; only files whose size or times differ from the cached ones are read."""
    # Take the digests of unchanged files from the cache
    known: dict[str, list] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    digests = {path: known[path][-1] for path, mark in marks.items() if known.get(path, [])[:-1] == list(mark)}
    changed = [path for path in marks if path not in digests]
    if not changed and len(known) == len(marks):
        return digests

    # Read the other files, several at a time
    progress = Progress(len(changed), "read", f"files below {root} for their digest (once)", say)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(changed), 1000):
            part = changed[start : start + 1000]
            digests |= zip(part, pool.map(lambda path: _file_digest(root / path), part), strict=True)
            progress.show(start + len(part))

    # Write the cache, if the folder can be written
    with suppress(OSError):
        known = {path: [*mark, digests[path]] for path, mark in marks.items() if not digests[path].startswith(UNREAD)}
        replace_text(cache, json.dumps(known))
    return digests


def _file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits of a file's SHA-256; a file that cannot be read is reported when decoded."""
    try:
        return file_digest(path)
    except OSError as error:
        return f"{UNREAD}: {error.strerror}"
