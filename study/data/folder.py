"""List and digest a folder of class folders, without decoding an image and without torch.

python -c "from study.data.folder import scan; print(scan('data', 'cifar10-jpeg').digest)"
"""

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from study.config import Config
from study.system.errors import UserError, one_line, printable
from study.system.files import file_digest, replace_text
from study.system.progress import Progress

Say = Callable[[str], None]

IMAGE_SUFFIXES = {
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}

SPLIT_NAME = re.compile(
    r"(?:seg[ _-]?)?(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?))"
    r"(?:[ _-]?(?:set|data|images?|imgs?|split))?",
    re.IGNORECASE,
)
"""Usual names of the folders of training, validation and test images: Train, valid, dev, test_set, seg_train …"""

JUNK = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
"""Folders that operating systems and storage devices leave behind."""

UNREAD = "cannot be read"

Mark = tuple[int, int, int]
"""Size of a file and the times of its last changes, by which an unchanged file is recognized."""


@dataclass(frozen=True)
class Folder:
    """The image files of one data set.

    `files` maps each existing split (`train`, perhaps `val` and `test`) to a sorted list of (path relative to `root`,
    index into `classes`). `digest` is the digest of all names and contents. `unused` are folders that belong to no
    split; `skipped` counts the files that are not images, by suffix.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]
    digest: str
    unused: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)


def of(config: Config, say: Say = lambda text: None) -> Folder | None:
    """List the folder of a config's data set; None if the data set is not a folder. Raises the errors of `scan`."""
    if config.dataset.startswith("folder:"):
        return scan(config.data_dir, config.dataset.removeprefix("folder:"), say)
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


def cache_stem(name: str) -> str:
    """Return a unique name for a data set's files in `.cache` that every file system accepts."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:60]
    return stem if stem == name else f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def scan(data_dir: str | os.PathLike, name: str, say: Say = lambda text: None) -> Folder:
    """List the images of `<data_dir>/<name>`: of its train, val and test folders, or of its class folders.

    `say` reports the progress if reading the files for their digest takes long. Raises UserError if a folder is
    missing, cannot be read or holds no data set.
    """
    try:
        return _scan(Path(data_dir), name, say)
    except OSError as error:
        raise UserError(one_line(error)) from None


def _scan(data_dir: Path, name: str, say: Say) -> Folder:
    """List the images, as `scan` does; raise OSError if a folder cannot be read."""
    # Find the folders of the splits
    root = data_dir / name
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; {_expected(name)}")
    root, folders, unused = _find_splits(root, name)

    # List the images of each class in each split
    skipped: Counter[str] = Counter()
    images_of = {
        split: {
            class_name: [image for place in places for image in _images(place, root, skipped)]
            for class_name, places in _class_folders(folder).items()
        }
        for split, folder in folders.items()
    }
    for folder in folders.values():
        if outside := sum(map(_is_image_file, os.scandir(folder))):
            skipped["image outside the class folders"] += outside
    if folders["train"] == root:  # a folder without images need not be a class
        unused += tuple(class_name for class_name, images in images_of["train"].items() if not images)
        images_of["train"] = {class_name: images for class_name, images in images_of["train"].items() if images}

    # Take the classes from the training folder
    classes = tuple(sorted(images_of["train"]))
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']} holds {len(classes)} of the two or more classes that are needed: {_expected(name)}"
        )
    for split, own in images_of.items():
        if unknown := own.keys() - set(classes):
            raise UserError(f"{folders[split]} holds classes that train does not: {', '.join(sorted(unknown))}")

    # Replace the classes by their labels
    files: dict[str, list[tuple[str, int]]] = {}
    marks: dict[str, Mark] = {}
    for split, own in images_of.items():
        files[split] = []
        for label, class_name in enumerate(classes):
            if split == "train" and not own[class_name]:
                raise UserError(f"{folders[split] / class_name} holds no images: {_expected(name)}")
            for path, mark in sorted(own.get(class_name, ())):
                relative = path[len(str(root)) + 1 :]
                files[split].append((relative, label))
                marks[relative] = mark
        if not files[split]:
            raise UserError(f"{folders[split]} holds no images: {_expected(name)}")

    # Digest all names and contents; only new files are read
    contents = _digests(root, marks, data_dir / ".cache" / f"{cache_stem(name)}-digests.json", say)
    combined = hashlib.sha256()
    for split, listed in files.items():
        for path, label in listed:
            combined.update(os.fsencode(f"{split} {label} {path} {contents[path]}\n"))
    return Folder(root, classes, files, combined.hexdigest()[:16], unused, dict(skipped.most_common()))


def _expected(name: str) -> str:
    return (
        "it must hold train/CLASS/IMAGE files, and may hold val and test likewise, or CLASS/IMAGE files "
        f"(--dataset folder:{name})"
    )


def _find_splits(root: Path, name: str) -> tuple[Path, dict[str, Path], tuple[str, ...]]:
    """Return the folder of the data set, the folder of each split, and the names of unused folders."""
    # Find the folders that are named like a split
    root, folders, unused = _descend(root)
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if _split_of(folder) and _folders(folder):
            named.setdefault(_split_of(folder), []).append(folder)
    if not named and not all(map(_split_of, folders)):
        return root, {"train": root}, unused  # only class folders, one of which may be called dev

    # Check that there is one folder of each split, and training images at least
    if "train" not in named:
        present = ", ".join(folder.name for folder in folders) or "nothing"
        raise UserError(f"there is no folder {root / 'train'} with class folders, but {present}: {_expected(name)}")
    for split, same in named.items():
        if len(same) > 1:
            raise UserError(
                f"{root} holds {len(same)} folders of {split} images, {' and '.join(folder.name for folder in same)}: "
                "keep one of them, or rename the other"
            )

    # Check that none of them is empty, and note the others
    splits = {split: _innermost(named[split][0]) for split in ("train", "val", "test") if split in named}
    for folder in folders:
        if (split := _split_of(folder)) and split not in splits and not _holds_images(folder):
            raise UserError(f"{folder} holds no images: {_expected(name)}")
    used = {same[0] for same in named.values()}
    return root, splits, (*unused, *(folder.name for folder in folders if folder not in used))


def _descend(root: Path) -> tuple[Path, list[Path], tuple[str, ...]]:
    """Find the folder that holds splits or classes; return it, its folders, and the names of the folders beside it.

    Archives are often unpacked into a folder of their own, and images often have a folder beside their annotations.
    """
    folders = _folders(root)
    unused = ()
    while folders and not any(map(_split_of, folders)):
        inner = [folder for folder in folders if any(map(_split_of, _folders(folder)))]
        if len(inner) != 1 and not (len(folders) == 1 and _folders(folders[0])):
            break
        root = (inner or folders)[0]
        unused += tuple(folder.name for folder in folders if folder != root)
        folders = _folders(root)
    return root, folders, unused


def _split_of(folder: Path) -> str | None:
    """Return train, val or test if a folder has one of their usual names, else None."""
    match = SPLIT_NAME.fullmatch(folder.name)
    return match.lastgroup if match else None


def _innermost(folder: Path) -> Path:
    """Return the folder that holds a split's classes, which may be nested (train/train)."""
    inner = _folders(folder)
    return _innermost(inner[0]) if len(inner) == 1 and _folders(inner[0]) else folder


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder by name, except hidden ones and JUNK."""
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
    """Map the names of classes to their folders: one, or several if Unicode has several forms of the name."""
    folders_of: dict[str, list[Path]] = {}
    for path in _folders(folder):
        if printable(path.name) != path.name:
            raise UserError(
                f"{folder}: a class is named {printable(path.name)}; rename it, with UTF-8 characters and no line ends"
            )
        folders_of.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    return folders_of


def _images(folder: Path, root: Path, skipped: Counter[str]) -> list[tuple[str, Mark]]:
    """List the images in a folder and those below it; count the other files in `skipped` by suffix.

    Links to folders outside `root`, the folder of the data set, are followed. Links within it are not: their images
    would count twice or the links would form a circle.
    """
    images = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        # Hidden files and junk do not count; a broken link does
        try:
            state = entry.stat()
        except OSError:
            skipped["link to nowhere"] += 1
            continue
        # Descend into folders, list images, count anything else
        if stat.S_ISDIR(state.st_mode):
            if entry.is_symlink() and _is_within(entry.path, root, folder):
                skipped["link to a folder of the data set"] += 1
            else:
                images += _images(Path(entry.path), root, skipped)
        elif _is_image_file(entry) and stat.S_ISREG(state.st_mode):
            images.append((entry.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns)))
        else:
            skipped[Path(entry.name).suffix.lower() or "no suffix"] += 1
    return images


def _is_within(link: str, root: Path, folder: Path) -> bool:
    """Return whether a link in `folder` leads into the data set `root` or to a folder that contains `folder`."""
    target = Path(link).resolve()
    return target.is_relative_to(root.resolve()) or folder.resolve().is_relative_to(target)


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
