"""Read the labels and the subjects of image files from a CSV file or from their names.

python -c "from pathlib import Path; from study.data.labels import labels; \\
    print(labels(['cat_001.jpg', 'dog_002.jpg'], '([a-z]+)_', None))"

A pattern is a regular expression whose first group is the label or the subject. It is searched for in the name of a
file or, if it has a /, in its path below the folder of the data set.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from study.config.checks import csv_columns, pattern
from study.system.errors import UserError, nearest, printable
from study.system.files import composed, with_accents, written_text

USUAL = ("file", "label")
"""The columns of a CSV file with the name of an image and its class, unless others are named."""

SPLIT = "split"
"""The column of a CSV file that says, if there is one, in which split an image is; upper or lower case."""


@dataclass(frozen=True)
class Table:
    """A CSV file: its name, the column of labels, all columns, and the row of each image file that it names.

    `unmatched` has the image of each row that does not exist, `split` is the column of splits, if there is one. All
    texts are in Unicode's form NFC.
    """

    name: str
    label: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    unmatched: tuple[str, ...] = ()
    split: str | None = None


def table(root: Path, option: str, paths: Sequence[str]) -> Table:
    """Read the CSV file that the option `labels` names, with the row of each image of `paths`, relative to `root`.

    Raises UserError if it cannot be read, lacks a column, or does not say which image a row is about.
    """
    # Read the file; Excel writes a byte order mark and, in many countries, semicolons
    name, chosen = csv_columns(option)
    path = with_accents(root / name)
    try:
        content = composed(written_text(path).removeprefix("\ufeff"))
        delimiter = max(",;\t", key=content.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(content), delimiter=delimiter, skipinitialspace=True)
        columns = tuple(reader.fieldnames or ())
        rows = list(reader)
    except UnicodeDecodeError:
        raise UserError(
            f"labels: {path} is not written in UTF-8; save it as such (in Excel, by the type CSV UTF-8)"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"labels: {root / name} cannot be read ({reason}); name a file in {root}") from None

    # Find its columns
    usual = columns if len(columns) == 2 and not set(USUAL) <= set(columns) else USUAL
    file, label = map(composed, chosen or usual)
    for column in (file, label):
        if column not in columns:
            raise UserError(
                f"labels: {name} has no column {column!r}, but {', '.join(columns) or 'nothing'}; "
                f"name the columns of file and label: {name}:FILE,LABEL"
            )

    # Find the image of each row: by its path, or its name, with or without the suffix
    found: dict[str, dict[str, str]] = {}
    known = _by_name(paths)
    if _images(file, known):
        raise UserError(f"labels: {name} has no header, its first line names an image; write FILE,LABEL above it")
    unmatched: list[str] = []
    split = next((name for name in columns if name.casefold() == SPLIT and name not in (file, label)), None)
    for row in rows:
        written = (row[file] or "").strip().replace("\\", "/").removeprefix("./")
        same = _images(written, known)
        if len(same) > 1:
            raise UserError(
                f"labels: {name} names {printable(written)}, which may be {' or '.join(map(printable, same[:2]))}: "
                f"write the path below {root}"
            )
        if not same:
            unmatched.append(written)
        for path in same:
            before = found.setdefault(path, row)
            for column, what in [(label, "labels"), *([(split, "splits")] if split else [])]:
                both = [(one[column] or "").strip() for one in (before, row)]
                if both[0] != both[1]:
                    raise UserError(f"labels: {name} has two {what} for {printable(path)}, {' and '.join(both)}")
    if not found:
        examples = f"such as {printable(rows[0][file])}" if rows else "as it has no rows"
        raise UserError(f"labels: the column {file!r} of {name} names no image below {root}, {examples}")
    return Table(name, label, columns, found, tuple(unmatched), split)


def _by_name(paths: Sequence[str]) -> dict[str, list[str]]:
    """Map names, with and without their suffix, in the form NFC to the paths of images that have them."""
    known: dict[str, list[str]] = {}
    for path in paths:
        pure = PurePosixPath(composed(path))
        for name in {pure.name, pure.stem}:
            known.setdefault(name, []).append(path)
    return known


def _images(written: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the images that a path or name in a CSV file may mean.

    The image of exactly this path, if there is one. Otherwise those of this name whose folders are the same, from the
    last one backwards, for as many folders as both paths have.
    """
    *folders, name = PurePosixPath(written or "/").parts
    same = list(known.get(name, ()))
    if exact := [path for path in same if composed(path) == written]:
        return exact
    agree = []
    for path in same:
        own = PurePosixPath(composed(path)).parts[:-1]
        shared = min(len(own), len(folders))
        if list(own[len(own) - shared :]) == folders[len(folders) - shared :]:
            agree.append(path)
    return agree


def labels(paths: Sequence[str], option: str, rows: Table | None) -> dict[str, str]:
    """Return the label of each image that has one, from the table or by the pattern of the option `labels`.

    Raises UserError if no name matches, or a label cannot be printed.
    """
    if rows:
        found = {path: (rows.rows[path][rows.label] or "").strip() for path in paths if path in rows.rows}
    else:
        found = _matches(paths, option)
        if not any(found.values()):
            example = f"such as {printable(paths[0])}" if paths else "as there is none"
            raise UserError(f"labels: the pattern {option!r} matches no image, {example}")
    named = {path: composed(label) for path, label in found.items() if label}
    for path, label in named.items():
        if printable(label) != label:
            raise UserError(f"labels: {printable(path)} has the label {printable(label)}; it must be one line of text")
    return named


def subjects(paths: Sequence[str], group_by: str, rows: Table | None) -> dict[str, str]:
    """Return the subject of each image, from a column of the table or by the pattern of the option `group_by`.

    Raises UserError if an image has none: it might be one of a subject on the other side of the split.
    """
    group_by = composed(group_by)
    if rows and group_by in rows.columns:
        found = {path: (rows.rows[path][group_by] or "").strip() for path in paths}
        what = f"the column {group_by!r} of {rows.name} is empty for"
    elif "(" in group_by:
        found = _matches(paths, group_by)
        what = f"the pattern {group_by!r} does not match"
    else:
        raise UserError(f"group_by: {rows.name} has no column {group_by!r}; {nearest(group_by, rows.columns)}")
    if lost := [path for path in paths if not found[path]]:
        raise UserError(f"group_by: {what} {len(lost):,} of {len(paths):,} images, such as {printable(lost[0])}")
    return found


def _matches(paths: Sequence[str], text: str) -> dict[str, str]:
    """Return the first group of a pattern in each name, or in each path if the pattern has a /; "" without a match."""
    compiled = pattern(composed(text))
    names = map(composed, paths)
    places = names if "/" in text else [PurePosixPath(name).name for name in names]
    matches = map(compiled.search, places)
    return {path: (match.group(1) or "") if match else "" for path, match in zip(paths, matches, strict=True)}
