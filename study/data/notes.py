"""What is printed of a data set: what of it is not used, and how many images each class has.

python -m study.train --dataset digits --dry-run
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from study.config import Config
from study.config.scores import is_unbalanced
from study.config.setting import Listed
from study.data import duplicates
from study.data.folder import Folder
from study.data.listing import counted, heic, named_split
from study.data.sources import Source
from study.data.splits import Plan
from study.system.errors import NAMED, printable

if TYPE_CHECKING:
    from study.data.dataset import Data

SHARE_MISSED = 0.1
"""A share of images that is missed by more than this part of it is reported."""

NAMED_CLASSES = 10
"""At most this many classes of a folder are named when a training starts."""


def left_out(source: Source, files: Folder | None) -> Iterator[str]:
    """Yield a line for each kind of file or folder that is not used."""
    if source.unreadable:
        many = "1 file" if len(source.unreadable) == 1 else f"{len(source.unreadable):,} files"
        where = " (run.json names all)" if len(source.unreadable) > NAMED else ""
        yield f"{many} cannot be read{where}: {'; '.join(source.unreadable[:NAMED])}"
    if not files:
        return
    without_classes = [name for name in files.unused if named_split(name)]
    if without_classes:
        yield f"not used, because they hold no class folders: {', '.join(without_classes)}"
    if others := [name for name in files.unused if name not in without_classes]:
        yield f"folders that are not used, neither train, val nor test: {', '.join(others)}"
    if files.skipped:
        counts = [counted(kind, n, files.examples[kind]) for kind, n in files.skipped.items()]
        yield f"not used: {', '.join(counts)}"
    if advice := heic(files.skipped):
        yield advice
    if files.tables:
        yield f"the labels are the names of folders; --labels {files.tables[0]} would take them from that file"


def shares(config: Config, plan: Plan) -> Iterator[str]:
    """Yield a line for each share that a config asks for and that the split misses by more than SHARE_MISSED of it."""
    divided = sum(len(plan.labels[name]) for name, (origin, _) in plan.parts.items() if origin == "train")
    for name, share in (("val", config.val_share), ("test", config.test_share)):
        images, wanted = len(plan.labels[name]), (share or 0.0) * divided
        if share and abs(images - wanted) > max(1.0, SHARE_MISSED * wanted):
            is_grouped = plan.is_joined or config.group_by
            why = "images of a subject, or alike, stay together" if is_grouped else "each class has one in each split"
            yield f"{name} has {images:,} of {divided:,} images, {images / divided:.0%} instead of {share:.0%}: {why}"


def spellings(classes: Sequence[str]) -> Iterator[str]:
    """Yield a line for classes whose names differ only in upper case and spaces."""
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(" ".join(name.casefold().split()), []).append(name)
    for names in same.values():
        if len(names) > 1:
            yield f"{' and '.join(map(repr, names))} are {len(names)} classes: if they are one, give them one name"


def examples(source: Source, plan: Plan, shared: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Name some copies of images, as pairs of paths, and some subjects in two splits."""

    def path(split: str, place: int) -> str:
        origin, index = plan.parts[split]
        return printable(source.names[origin][place if index is None else index[place]])

    pairs = duplicates.pairs(plan.divided(source.pixels), plan.labels, NAMED)
    found = {kind: [f"{path(*one)} = {path(*other)}" for one, other in own] for kind, own in pairs.items()}
    found |= {kind: sorted(own)[:NAMED] for kind, own in shared.items() if " and " in kind}
    return {kind: names for kind, names in found.items() if names}


def title(data: "Data") -> str:
    """Return a line with the images of each split and the classes, those of a folder by name if they are few."""
    channels, height, width = data.image_shape
    are_few = data.name.startswith("folder:") and len(data.classes) <= NAMED_CLASSES
    names = f" ({Listed(data.classes)})" if are_few else ""
    return (
        f"{data.name}: {len(data.train):,} training, {len(data.val):,} validation and {len(data.test):,} test images "
        f"of {channels}×{height}×{width}, {len(data.classes)} classes{names}"
    )


def class_sizes(data: "Data") -> str:
    """Return a line with the number of images of each class in each split or, of many classes, the extremes."""
    sizes = list(zip(*data.per_class().values(), strict=True))
    written = ["/".join(f"{count:,}" for count in counts) for counts in sizes]
    start = "images of each class (training/validation/test):"
    if len(set(sizes)) == 1:
        return f"{start} {written[0]}"
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    if len(order) <= NAMED_CLASSES and is_unbalanced(sizes[place][0] for place in order):
        return f"{start} {', '.join(f'{data.classes[place]} {written[place]}' for place in order)}"
    first, last = order[0], order[-1]
    return f"{start} from {written[first]} ({data.classes[first]}) to {written[last]} ({data.classes[last]})"


def table(data: "Data") -> str:
    """Return a table of the number of images of each class in each split."""
    sizes = zip(*data.per_class().values(), strict=True)
    rows = [("images", "training", "validation", "test")]
    rows += [(name, *(f"{count:,}" for count in own)) for name, own in zip(data.classes, sizes, strict=True)]
    first = max(len(name) for name, *_ in rows)
    return "\n".join(f"{name:<{first}}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in rows)
