"""A folder of class folders, listed and digested without opening an image (no torch in it).

python -c "from study.data.folder import scan; print(scan('data', 'cifar10-jpeg').digest)"
"""

import hashlib
import json
import os
import re
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from study.config import Config
from study.system.errors import UserError, printable

Say = Callable[[str], None]

IMAGE_SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif",
    ".tiff", ".webp",
}  # fmt: skip

SPLIT_NAME = re.compile(
    r"(?:seg[ _-]?)?(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?))"
    r"(?:[ _-]?(?:set|data|images?|imgs?|split))?",
    re.IGNORECASE,
)
"""What people call the folders of training, validation and test images: Train, valid, dev, test_set, seg_train …"""

JUNK = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
"""Folders that operating systems and storage devices leave behind."""

UNREAD = "cannot be read"
PROGRESS_SECONDS = 5.0

Mark = tuple[int, int, int]
"""A file's size and the times of its last changes: while they stay, so does its content."""


@dataclass(frozen=True)
class Folder:
    """The image files of one data set.

    `files` maps each split that is there (`train`, perhaps `val` and `test`) to (path relative to `root`,
    index into `classes`), sorted. `digest` stands for all names and contents. `unused` are folders beside the splits
    that hold no split's classes; `skipped` counts the files that are not images, by suffix.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]
    digest: str
    unused: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)


def of(config: Config, say: Say = lambda text: None) -> Folder | None:
    """List the folder of a config's data set, None if it is no folder; UserError where something is wrong with it."""
    if config.dataset.startswith("folder:"):
        return scan(config.data_dir, config.dataset.removeprefix("folder:"), say)
    return None


def digest(config: Config) -> str:
    """Return what stands for the data of a config."""
    return digest_of(config, of(config))


def digest_of(config: Config, files: Folder | None) -> str:
    """Return what stands for data whose folder was listed: its digest, or the name of a set that never changes."""
    return files.digest if files else config.dataset


def cache_stem(name: str) -> str:
    """Return a name for a data set's files in `.cache` that any file system can hold, and no other data set has."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:60]
    return stem if stem == name else f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def scan(data_dir: str | os.PathLike, name: str, say: Say = lambda text: None) -> Folder:
    """List the images of `<data_dir>/<name>`: of its train, val and test folders, or of its class folders.

    `say` gets a line now and then where reading the files for their digest takes long. UserError where there is no such
    folder, or it holds no data set.
    """
    root = Path(data_dir) / name
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; {_expected(name)}")
    root, folders, unused = _find_splits(root, name)

    # List the images of each class in each split
    skipped: Counter[str] = Counter()
    found = {
        split: {
            class_name: [image for place in places for image in _images(place, root, skipped)]
            for class_name, places in _class_folders(folder).items()
        }
        for split, folder in folders.items()
    }
    for folder in folders.values():
        if loose := sum(map(_is_image_file, os.scandir(folder))):
            skipped["image outside the class folders"] += loose
    if folders["train"] == root:  # what lies beside the classes need not be one
        unused += tuple(own for own, images in found["train"].items() if not images)
        found["train"] = {own: images for own, images in found["train"].items() if images}

    # The classes of training are the data set's
    classes = tuple(sorted(found["train"]))
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']} holds {len(classes)} of the two or more classes that are needed: {_expected(name)}"
        )
    for split, own in found.items():
        if unknown := own.keys() - set(classes):
            raise UserError(f"{folders[split]} holds classes that train does not: {', '.join(sorted(unknown))}")

    # Number the images' classes, and read what is new of the files for the digest
    files: dict[str, list[tuple[str, int]]] = {}
    marks: dict[str, Mark] = {}
    for split, own in found.items():
        files[split] = []
        for label, class_name in enumerate(classes):
            if split == "train" and not own[class_name]:
                raise UserError(f"{folders[split] / class_name} holds no images: {_expected(name)}")
            for path, mark in sorted(own.get(class_name, ())):
                below = path[len(str(root)) + 1 :]
                files[split].append((below, label))
                marks[below] = mark
        if not files[split]:
            raise UserError(f"{folders[split]} holds no images: {_expected(name)}")
    contents = _digests(root, marks, Path(data_dir) / ".cache" / f"{cache_stem(name)}-digests.json", say)
    whole = hashlib.sha256()
    for split, listed in files.items():
        for path, label in listed:
            whole.update(os.fsencode(f"{split} {label} {path} {contents[path]}\n"))
    return Folder(root, classes, files, whole.hexdigest()[:16], unused, dict(skipped.most_common()))


def _expected(name: str) -> str:
    return (
        "it must hold train/CLASS/IMAGE files, and may hold val and test likewise, or CLASS/IMAGE files "
        f"(--dataset folder:{name})"
    )


def _find_splits(root: Path, name: str) -> tuple[Path, dict[str, Path], tuple[str, ...]]:
    """Return the folder that holds the data set, the folder of each split, and the names of folders not used."""
    root, folders, unused = _descend(root)
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if _split_of(folder) and _folders(folder):
            named.setdefault(_split_of(folder), []).append(folder)
    if not named and not all(map(_split_of, folders)):
        return root, {"train": root}, unused  # class folders alone, one of which may be called dev
    if "train" not in named:
        there = ", ".join(folder.name for folder in folders) or "nothing"
        raise UserError(f"there is no folder {root / 'train'} with class folders, but {there}: {_expected(name)}")
    for split, same in named.items():
        if len(same) > 1:
            raise UserError(
                f"{root} holds {len(same)} folders of {split} images, {' and '.join(one.name for one in same)}: "
                "keep one of them, or rename the other"
            )
    splits = {split: _innermost(named[split][0]) for split in ("train", "val", "test") if split in named}
    for folder in folders:
        if (split := _split_of(folder)) and split not in splits and not _holds_images(folder):
            raise UserError(f"{folder} holds no images: {_expected(name)}")
    used = {same[0] for same in named.values()}
    return root, splits, (*unused, *(folder.name for folder in folders if folder not in used))


def _descend(root: Path) -> tuple[Path, list[Path], tuple[str, ...]]:
    """Go down to the folder that holds splits or classes; return it, what it holds, and folders that were passed by.

    An archive is often unpacked into a folder of its own, and images often lie in one beside their annotations.
    """
    folders, unused = _folders(root), ()
    while folders and not any(map(_split_of, folders)):
        inner = [folder for folder in folders if any(map(_split_of, _folders(folder)))]
        if len(inner) != 1 and not (len(folders) == 1 and _folders(folders[0])):
            break
        root = (inner or folders)[0]
        unused += tuple(folder.name for folder in folders if folder != root)
        folders = _folders(root)
    return root, folders, unused


def _split_of(folder: Path) -> str | None:
    """Return train, val or test where a folder is called so, in one of the usual ways."""
    match = SPLIT_NAME.fullmatch(folder.name)
    return match.lastgroup if match else None


def _innermost(folder: Path) -> Path:
    """Return the folder of the classes where a split's folder holds but one, which holds them (train/train)."""
    below = _folders(folder)
    return _innermost(below[0]) if len(below) == 1 and _folders(below[0]) else folder


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder by name, without hidden ones and those of JUNK."""
    return sorted(
        Path(entry.path)
        for entry in os.scandir(folder)
        if not entry.name.startswith(".") and entry.name not in JUNK and Path(entry.path).is_dir()
    )


def _holds_images(folder: Path) -> bool:
    return any(list(map(_is_image_file, os.scandir(folder))))


def _is_image_file(entry: os.DirEntry) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 — twice as fast as a Path for each file
    return suffix in IMAGE_SUFFIXES and not entry.name.startswith(".")


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """Map the names of classes to their folders: one each, unless a name is written in two ways in Unicode."""
    found: dict[str, list[Path]] = {}
    for path in _folders(folder):
        if printable(path.name) != path.name:
            raise UserError(
                f"{folder}: a class is named {printable(path.name)}; rename it, with letters of UTF-8 and no line ends"
            )
        found.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    return found


def _images(folder: Path, root: Path, skipped: Counter[str]) -> list[tuple[str, Mark]]:
    """List the images in a folder and those below it; other files are counted in `skipped` by their suffix.

    Links to folders are followed out of the data set, whose folder is `root`, but not within it, where images would
    count twice, and not in circles.
    """
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        try:
            state = entry.stat()
        except OSError:
            skipped["link to nowhere"] += 1
            continue
        if stat.S_ISDIR(state.st_mode):
            if entry.is_symlink() and _is_within(entry.path, root, folder):
                skipped["link to a folder of the data set"] += 1
            else:
                found += _images(Path(entry.path), root, skipped)
        elif _is_image_file(entry) and stat.S_ISREG(state.st_mode):
            found.append((entry.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns)))
        else:
            skipped[Path(entry.name).suffix.lower() or "no suffix"] += 1
    return found


def _is_within(link: str, root: Path, folder: Path) -> bool:
    """Tell whether a link in a folder leads into the data set, or to a folder that holds the one it is in."""
    target = Path(link).resolve()
    return target.is_relative_to(root.resolve()) or folder.resolve().is_relative_to(target)


def _digests(root: Path, marks: dict[str, Mark], cache: Path, say: Say) -> dict[str, str]:
    """Return the digest of each file's content; only those are read whose size or times differ from the last time."""
    known: dict[str, list] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    found = {path: known[path][-1] for path, mark in marks.items() if known.get(path, [])[:-1] == list(mark)}
    changed = [path for path in marks if path not in found]
    if not changed and len(known) == len(marks):
        return found

    # Read what is new, several files at a time
    started = said = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(changed), 1000):
            part = changed[start : start + 1000]
            found |= zip(part, pool.map(lambda path: _file_digest(root / path), part), strict=True)
            if time.monotonic() - said > PROGRESS_SECONDS:
                said, done = time.monotonic(), start + len(part)
                left = (said - started) / done * (len(changed) - done)
                say(f"read {done:,} of {len(changed):,} files below {root} for their digest (once), ETA {left:.0f} s")

    # Keep the digests for the next time, where that can be done
    with suppress(OSError):
        cache.parent.mkdir(exist_ok=True)
        temporary = cache.with_suffix(f".{os.getpid()}.tmp")
        known = {path: [*mark, found[path]] for path, mark in marks.items() if not found[path].startswith(UNREAD)}
        text = json.dumps(known)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(cache)
    return found


def _file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits for the content of a file; one that cannot be read is reported when decoded."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        return f"{UNREAD}: {error.strerror}"
