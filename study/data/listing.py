"""Find the image files of a data set: in folders of splits and classes, or by labels in a CSV file or in their names.

python -c "from pathlib import Path; from study.data.listing import in_class_folders; \\
    print(in_class_folders(Path('data/cifar10-jpeg'), 'cifar10-jpeg').classes)"
"""

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.config.checks import csv_columns
from study.data.labels import Table, labels, table
from study.system.errors import NAMED, UserError, printable, some
from study.system.files import composed

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
    r"(?:seg[ _-]?)?(?:(?P<train>train(?:ing)?|entrenamiento)|(?P<val>val(?:id(?:ation|aci[oó]n)?)?|dev)|"
    r"(?P<test>test(?:ing)?|pruebas?))"
    r"(?:[ _-]?(?:set|data|images?|imgs?|split))?",
    re.IGNORECASE,
)
"""Usual names of the folders of training, validation and test images: Train, valid, dev, test_set, prueba …"""

JUNK = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
"""Folders that operating systems and storage devices leave behind."""

NO_SUFFIX = "no suffix"

HEIC_SUFFIXES = {".heic", ".heif"}
"""Suffixes of photographs of iPhones, which are not read."""

SPLITS = ("train", "val", "test")

Mark = tuple[int, int, int]
"""Size of a file and the times of its last changes, by which an unchanged file is recognized."""

Skipped = dict[str, list[str]]
"""The paths of what is not used, by suffix or reason."""


@dataclass(frozen=True)
class Listed:
    """The image files of one data set with their marks, before they are digested; see `Folder`.

    `skipped` may name a folder too, or a row of the table.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]
    marks: dict[str, Mark]
    unused: tuple[str, ...]
    skipped: Skipped
    rows: Table | None = None


def with_labels(root: Path, option: str) -> Listed:
    """List the images below a folder that have a label in a CSV file or in their names; see the option `labels`.

    The splits are those of the column `split` of the CSV file. Without it, a folder that is named like a split holds
    the images of this split; other folders do not matter.
    """
    # List all images, without the CSV file
    skipped: Skipped = {}
    marks = {path[len(str(root)) + 1 :]: mark for path, mark in image_files(root, [root], skipped)}
    rows = table(root, option, list(marks)) if csv_columns(option)[0] else None
    if rows:
        for own in skipped.values():
            own[:] = [path for path in own if composed(path) != composed(str(root / rows.name))]
        skipped["row without an image"] = list(rows.unmatched)

    # Take those that have a label and, if there are splits, are in one
    label_of = labels(list(marks), option, rows)
    split_of = _splits_in(rows, list(label_of)) if rows else {}
    if not split_of:
        split_of = {path: next(filter(None, map(named_split, path.split("/")[:-1])), None) for path in label_of}
    outside = None if "train" in split_of.values() else "train"
    classes = tuple(sorted({label_of[path] for path in label_of if (split_of[path] or outside) == "train"}))
    places = {name: place for place, name in enumerate(classes)}
    files: dict[str, list[tuple[str, int]]] = {}
    for split in SPLITS:
        own = sorted(path for path in label_of if (split_of[path] or outside) == split)
        if unknown := {label_of[path] for path in own} - set(classes):
            raise UserError(f"{root}: images of {split} have labels that train lacks: {', '.join(sorted(unknown))}")
        if own:
            files[split] = [(path, places[label_of[path]]) for path in own]

    # Count those that are left out, and refuse a data set without two classes
    used = {path for own in files.values() for path, _ in own}
    skipped["image without a label"] = [path for path in marks if path not in label_of]
    skipped["image outside train, val and test"] = [path for path in label_of if path not in used]
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(
            f"labels: {option!r} must give two or more labels to the training images in {root}, not {found}"
        )
    return Listed(root, classes, files, {path: marks[path] for path in used}, (), skipped, rows)


def _splits_in(rows: Table, paths: Sequence[str]) -> dict[str, str | None]:
    """Return the split that the CSV file gives each image, None if it gives none; {} without a column of splits.

    A column whose values name no split at all, such as numbers of folds, is none. Raises UserError if only some do.
    """
    written = {path: (rows.rows[path][rows.split] or "").strip() for path in paths} if rows.split else {}
    found = {path: named_split(value) if value else None for path, value in written.items()}
    if not any(found.values()):
        return {}
    for path, value in written.items():
        if value and not found[path]:
            raise UserError(
                f"labels: the column {rows.split} of {rows.name} has {printable(value)} for {printable(path)}; write "
                "train, val or test, or give the column another name"
            )
    return found


def in_class_folders(root: Path, name: str) -> Listed:
    """List the images in the class folders of each split of a data set."""
    # Find the folders of the splits
    root, folders, unused = _find_splits(root, name)
    if folders["train"] == root:
        _refuse_splits_of_classes(root)

    # List the images of each class in each split
    skipped: Skipped = {}
    images_of = {
        split: {
            class_name: [image for place in places for image in image_files(place, [root, folder, place], skipped)]
            for class_name, places in _class_folders(folder).items()
        }
        for split, folder in folders.items()
    }
    for folder in folders.values():
        outside = [entry.path for entry in os.scandir(folder) if _is_image_file(entry)]
        skipped.setdefault("image outside the class folders", []).extend(sorted(outside))
    if folders["train"] == root:  # a folder without images need not be a class
        skipped["folder without images"] = [class_name for class_name, own in images_of["train"].items() if not own]
        images_of["train"] = {class_name: own for class_name, own in images_of["train"].items() if own}

    # Take the classes from the training folder
    classes = tuple(sorted(images_of["train"]))
    if len(classes) < 2:
        reason = heic(skipped) or expected(name)
        raise UserError(f"{folders['train']} must hold two classes or more, not {len(classes)}: {reason}")
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
                reason = heic(skipped) or expected(name)
                raise UserError(f"{folders[split] / class_name} holds no images: {reason}")
            for path, mark in sorted(own.get(class_name, ())):
                relative = path[len(str(root)) + 1 :]
                files[split].append((relative, label))
                marks[relative] = mark
        if not files[split]:
            raise UserError(f"{folders[split]} holds no images: {expected(name)}")
    return Listed(root, classes, files, marks, unused, skipped)


def _refuse_splits_of_classes(root: Path) -> None:
    """Raise UserError if a class folder has folders of several splits, whose images would be mixed."""
    for folder in _folders(root):
        splits = sorted(named_split(inner) for inner in _folders(folder) if named_split(inner) and _holds_images(inner))
        if "train" in splits and len(splits) > 1:
            raise UserError(
                f"{folder} holds folders of splits ({', '.join(splits)}): put the splits above the classes, as in "
                "train/CLASS/IMAGE"
            )


def counted(kind: str, count: int, names: Sequence[str]) -> str:
    """Return a count of what is skipped, with its first names: 4 rows without an image (a, b, c and 1 more)."""
    noun, *rest = ["file", "without a suffix"] if kind == NO_SUFFIX else kind.split(" ", 1)
    ending = "s" * (count != 1 and not noun.startswith("."))
    return " ".join([f"{count:,}", noun + ending, *rest, f"({some([*map(printable, names[:NAMED])], count)})"])


def heic(skipped: Iterable[str]) -> str:
    """Return a sentence if HEIC is among the kinds of files that are not used, else ""."""
    found = sorted(HEIC_SUFFIXES.intersection(skipped))
    return f"{' and '.join(found)} photographs cannot be read: export them as JPEG" if found else ""


def expected(name: str) -> str:
    return (
        "it must hold train/CLASS/IMAGE files, and may hold val and test likewise, or CLASS/IMAGE files "
        f"(--dataset folder:{name}); without class folders, --labels names a CSV file or a pattern of file names"
    )


def _find_splits(root: Path, name: str) -> tuple[Path, dict[str, Path], tuple[str, ...]]:
    """Return the folder of the data set, the folder of each split, and the names of unused folders."""
    # Find the folders that are named like a split
    root, folders, unused = _descend(root)
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if named_split(folder) and _folders(folder):
            named.setdefault(named_split(folder), []).append(folder)
    if not named and not all(map(named_split, folders)):
        return root, {"train": root}, unused  # only class folders, one of which may be called dev

    # Check that there is one folder of each split, and training images at least
    if "train" not in named:
        for folder in (root, *folders):
            if _holds_images(folder) and not _folders(folder):
                raise UserError(f"{folder} holds images, but no folder for each class: {expected(name)}")
        present = ", ".join(folder.name for folder in folders) or "nothing"
        raise UserError(f"there is no folder {root / 'train'} with class folders, but {present}: {expected(name)}")
    for split, same in named.items():
        if len(same) > 1:
            raise UserError(
                f"{root} holds {len(same)} folders of {split} images, {' and '.join(folder.name for folder in same)}: "
                "keep one of them, or rename the other"
            )

    # Check that none of them is empty, and note the others
    splits = {split: _innermost(named[split][0]) for split in SPLITS if split in named}
    for folder in folders:
        if (split := named_split(folder)) and split not in splits and not _holds_images(folder):
            raise UserError(f"{folder} holds no images: {expected(name)}")
    used = {same[0] for same in named.values()}
    return root, splits, (*unused, *(folder.name for folder in folders if folder not in used))


def _descend(root: Path) -> tuple[Path, list[Path], tuple[str, ...]]:
    """Find the folder that holds splits or classes; return it, its folders, and the names of the folders beside it.

    Archives are often unpacked into a folder of their own, and images often have a folder beside their annotations.
    """
    folders = _folders(root)
    unused = ()
    while folders and not any(map(named_split, folders)):
        inner = [folder for folder in folders if any(map(named_split, _folders(folder)))]
        trained = [folder for folder in inner if "train" in map(named_split, _folders(folder))]
        inner = trained or (inner if not any(_holds_images(folder) for folder in folders) else [])
        if len(inner) != 1 and not (len(folders) == 1 and _folders(folders[0])):
            break
        root = (inner or folders)[0]
        unused += tuple(folder.name for folder in folders if folder != root)
        folders = _folders(root)
    return root, folders, unused


def named_split(folder: Path | str) -> str | None:
    """Return train, val or test if a folder has one of their usual names, else None."""
    match = SPLIT_NAME.fullmatch(composed(Path(folder).name))
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
        if not entry.name.startswith(".") and entry.name not in JUNK and _is_folder(entry)
    )


def _is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder or a link to one; the system is asked about links alone, not every image."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry.path).is_dir())


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
        folders_of.setdefault(composed(path.name), []).append(path)
    return folders_of


def image_files(folder: Path, roots: Sequence[Path], skipped: Skipped) -> list[tuple[str, Mark]]:
    """List the images in a folder and those below it; add the other files to `skipped`, by suffix.

    `roots` are the folder of the data set and the links that were followed on the way. Links to folders outside them
    are followed. Links within them are not: their images would count twice or the links would form a circle.
    """
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        # Hidden files and junk do not count; a broken link does
        try:
            state = entry.stat()
        except OSError:
            skipped.setdefault("link to nowhere", []).append(entry.path)
            continue
        # Descend into folders, list images, count anything else
        if stat.S_ISDIR(state.st_mode):
            if not entry.is_symlink():
                found += image_files(Path(entry.path), roots, skipped)
            elif _is_within(entry.path, roots, folder):
                skipped.setdefault("link to a folder of the data set", []).append(entry.path)
            else:
                found += image_files(Path(entry.path), [*roots, Path(entry.path)], skipped)
        elif _is_image_file(entry) and stat.S_ISREG(state.st_mode):
            found.append((entry.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns)))
        else:
            skipped.setdefault(Path(entry.name).suffix.lower() or NO_SUFFIX, []).append(entry.path)
    return found


def _is_within(link: str, roots: Sequence[Path], folder: Path) -> bool:
    """Return whether a link in `folder` leads into one of the `roots` or to a folder that contains `folder`."""
    target = Path(link).resolve()
    return any(target.is_relative_to(root.resolve()) for root in roots) or folder.resolve().is_relative_to(target)
