"""A folder of class folders, listed and digested without opening an image (no torch in it).

python -c "from study.folder import scan; print(scan('data', 'cifar10-jpeg').digest)"
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from study.config import Config
from study.errors import UserError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Folder:
    """The image files of one data set.

    `files` maps each split that is there (`train`, perhaps `val` and `test`) to (path relative to `root`,
    index into `classes`), sorted. `digest` stands for all names and sizes; `stamp` also for the times of change.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]
    digest: str
    stamp: str


def of(config: Config) -> Folder | None:
    """List the folder of a config's data set, None if it is no folder; UserError where something is wrong with it."""
    if config.dataset.startswith("folder:"):
        return scan(config.data_dir, config.dataset.removeprefix("folder:"))
    return None


def digest(config: Config) -> str:
    """Return what stands for the data of a config: a folder's file list, or the name of a set that never changes."""
    files = of(config)
    return files.digest if files else config.dataset


def scan(data_dir: str | os.PathLike, name: str) -> Folder:
    """List `<data_dir>/<name>/train/<class>/*` and, where they exist, `val` and `test`."""
    root = Path(data_dir) / name
    expected = f"it must hold train/CLASS/IMAGE files, and may hold val and test likewise (--dataset folder:{name})"
    if not (root / "train").is_dir():
        raise UserError(f"there is no folder {root / 'train'}: {expected}")
    classes = tuple(sorted(entry.name for entry in os.scandir(root / "train") if _is_visible_folder(entry)))
    for name in classes:
        if not name.isprintable():
            raise UserError(f"{root / 'train'}: a class is named {name!r}; use letters of UTF-8")
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} holds {len(classes)} of the two or more classes that are needed: {expected}")

    files, names, times = {}, hashlib.sha256(), hashlib.sha256()
    for split in ("train", "val", "test"):
        if not (root / split).is_dir():
            continue
        unknown = {entry.name for entry in os.scandir(root / split) if _is_visible_folder(entry)} - set(classes)
        if unknown:
            raise UserError(f"{root / split} holds classes that train does not: {', '.join(sorted(unknown))}")
        files[split] = []
        for label, class_name in enumerate(classes):
            found = _images(root, f"{split}/{class_name}")
            if split == "train" and not found:
                raise UserError(f"{root / split / class_name} holds no images: {expected}")
            for path, stat in found:
                files[split].append((path, label))
                names.update(os.fsencode(f"{path} {stat.st_size}\n"))
                times.update(os.fsencode(f"{path} {stat.st_size} {stat.st_mtime_ns}\n"))
        if not files[split]:
            raise UserError(f"{root / split} holds no images: {expected}")
    return Folder(root, classes, files, names.hexdigest()[:16], times.hexdigest()[:16])


def _is_visible_folder(entry: os.DirEntry) -> bool:
    return not entry.name.startswith(".") and Path(entry.path).is_dir()  # which a link in a circle is not


def _images(root: Path, below: str) -> list[tuple[str, os.stat_result]]:
    """List the images in a folder and those below it, but for what is hidden and for links to folders or nowhere."""
    found = []
    for entry in os.scandir(root / below) if (root / below).is_dir() else ():
        path = f"{below}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _images(root, path)
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            with suppress(OSError):
                if entry.is_file():
                    found.append((path, entry.stat()))
    return sorted(found)
