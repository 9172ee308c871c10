"""A folder of class folders, listed and digested without opening an image (no torch in it).

python -c "from study.folder import scan; print(scan('data', 'cifar10-jpeg').digest)"
"""

import hashlib
import os
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
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} holds {len(classes)} class folders, not 2 or more: {expected}")

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
                names.update(f"{path} {stat.st_size}\n".encode())
                times.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        if not files[split]:
            raise UserError(f"{root / split} holds no images: {expected}")
    return Folder(root, classes, files, names.hexdigest()[:16], times.hexdigest()[:16])


def _is_visible_folder(entry: os.DirEntry) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images(root: Path, below: str) -> list[tuple[str, os.stat_result]]:
    if not (root / below).is_dir():
        return []
    return sorted(
        (f"{below}/{entry.name}", entry.stat())
        for entry in os.scandir(root / below)
        if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    )
