"""Predict the classes of pictures with a trained network.

python -m study.predict runs/two-block-cifar10-s0-4968e83bec photo.jpg folder
python -m study.predict runs/two-block-cifar10-s0-4968e83bec folder --out predictions.csv --top 5
"""

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from rich.progress import Progress

from study import models
from study.config import Config
from study.config.argv import VARIABLES
from study.config.checks import positive, user_path
from study.data import pictures
from study.data.dataset import Data, Split
from study.data.listing import Skipped, counted, heic, image_files
from study.record.directory import RunDirectory
from study.record.results import Run
from study.system import devices
from study.system import files as cache
from study.system.console import console
from study.system.errors import NAMED, UserError, closest, expect, one_line, printable, some
from study.system.process import Parser, run_command
from study.training import evaluation

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 3
MOST_NAMED = 20
"""At most this many files that cannot be read are named."""

Side = Annotated[int, Field(ge=1, le=100_000)]


class Preparation(BaseModel):
    """How images were prepared: the size to which they were decoded, their range if deeper than 8 bits, the last size.

    `range` and `resized_to` are None if the images were not scaled or resized.
    """

    stored_size: tuple[Side, Side]
    range: tuple[float, float] | None = None
    resized_to: Side | None = None


class Described(BaseModel):
    """What run.json says of the images that a network learned from: (channels, height, width), mean and std."""

    classes: tuple[str, ...] = Field(min_length=2)
    image_shape: tuple[Literal[1, 3], Side, Side]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preparation: Preparation | None = None


def load(path: str) -> tuple[torch.nn.Module, Data, Config]:
    """Load the network of a run with its best weights, its data without images, and its config.

    Raises UserError if there is no run or no weights.
    """
    # Find the run and its weights
    directory = RunDirectory(path)
    info = directory.info()
    weights = directory.path / "best.pt"
    if not info:
        raise UserError(f"{path} is not a run: {_meant(directory.path)}")
    if not weights.exists():
        raise UserError(
            f"{path} has no best.pt: the run is {directory.state()}, and its weights were not kept (--keep-weights "
            "False) or not copied (analysis.export)"
        )
    config = Config.recorded(info.get("config"))

    # Restore how it prepared images; runs of version 2 did not record it and resized directly to the network's input
    try:
        described = Described.model_validate(info.get("data"))
    except ValidationError as error:
        place = ".".join(map(str, ("data", *error.errors()[0]["loc"])))
        raise UserError(f"{directory.path / 'run.json'} is broken: its {place} cannot be used") from None
    channels, *side = described.image_shape
    preparation = described.preparation or Preparation(stored_size=side)
    empty = Split(
        torch.empty(0, channels, *preparation.stored_size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    )
    data = Data(
        config.dataset,
        described.classes,
        train=empty,
        val=empty,
        test=empty,
        mean=described.mean,
        std=described.std,
        image_size=preparation.resized_to,
        range=preparation.range,
    )

    # Build the network with the weights
    model = models.create(config, data.image_shape, len(data.classes))
    state = cache.read(weights)
    if state is None:
        raise UserError(f"{weights} is broken: train the run again with --force")
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{weights} does not fit the {config.model} that run.json describes") from None
    return model.eval(), data, config


def _meant(path: Path) -> str:
    """Return a hint which run was meant by a path that is none: one in it, around it or with nearly its name."""
    # A run around the path, or in it
    if (path.parent / "run.json").exists():
        return f"did you mean {printable(path.parent)}?"
    if inside := _runs(path):
        return f"name a run in it, such as {printable(inside[0])}"

    # Runs with this name, with or without its fingerprint, beside it or where runs are by default
    for folder in dict.fromkeys((path.parent, Path(os.environ.get(VARIABLES["runs_dir"]) or Config().runs_dir))):
        runs = _runs(folder)
        for start in (path.name, path.name.rpartition("-")[0]):
            if alike := [printable(run) for run in runs if start and run.name.startswith(start)]:
                return f"did you mean {some(alike[:NAMED], len(alike))}?"
        if guess := closest(path.name, [run.name for run in runs]):
            return f"did you mean {printable(folder / guess)}?"
    return "it has no run.json"


def _runs(folder: Path) -> list[Path]:
    """List the runs in a folder, the newest first; none if it is no folder."""
    times = {}
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                times[path] = (path / "run.json").stat().st_mtime
    return sorted(times, key=times.__getitem__, reverse=True)


def read(path: str | Image.Image, data: Data) -> torch.Tensor:
    """Read a picture in the size and the colours of the run's images; return (channels, height, width), uint8."""
    channels, height, width = data.train.images.shape[1:]
    try:
        pixels = pictures.read(path, (height, width), data.range)
    except pictures.Unreadable as error:
        raise UserError(f"{printable(path)} cannot be read as an image: it is {error}") from None
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@torch.inference_mode()
def probabilities(
    model: torch.nn.Module, data: Data, config: Config, images: Sequence[torch.Tensor], device: torch.device
) -> torch.Tensor:
    """Return the probabilities (n, classes) of images that `read` has read, as the run evaluated its test images."""
    batch = Split(torch.stack(list(images)), torch.zeros(len(images), dtype=torch.int64)).to(device)
    return evaluation.logits(model, data.prepared(batch), config.flip_test).softmax(1).cpu()


def listed(paths: Sequence[str]) -> list[str]:
    """Replace folders by the images in them and below, sorted, and print which files of them are not used.

    Raises UserError if a folder holds no images.
    """
    found = []
    skipped: Skipped = {}
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
            continue
        try:
            below = sorted(image for image, _ in image_files(Path(path), [Path(path)], skipped))
        except OSError as error:
            raise UserError(one_line(error)) from None
        if not below:
            advice = heic(skipped)
            raise UserError(f"{printable(path)} holds no images" + (f": {advice}" if advice else ""))
        found += below
    if skipped:
        counts = [counted(kind, len(own), own) for kind, own in skipped.items()]
        print("; ".join(filter(None, [f"not used: {', '.join(counts)}", heic(skipped)])), file=sys.stderr)
    return found


def each(
    model: torch.nn.Module,
    data: Data,
    config: Config,
    paths: Sequence[str | Image.Image],
    device: torch.device,
    has_bar: bool,
) -> Iterator[tuple[str | Image.Image, torch.Tensor | UserError]]:
    """Yield each path with its probabilities (classes,) or the reason why it cannot be read.

    Pictures are read in threads and predicted in batches. `has_bar` shows a bar on a terminal, for callers that print
    nothing meanwhile.
    """

    def caught(path: str | Image.Image) -> torch.Tensor | UserError:
        try:
            return read(path, data)
        except UserError as error:
            return error

    size = evaluation.batch_size(data.image_shape, 1, device)
    shown_on = console(stderr=True)
    is_shown = has_bar and shown_on.is_terminal
    bar = Progress(console=shown_on, transient=True, redirect_stdout=False, disable=not is_shown)
    with ThreadPoolExecutor() as pool, bar as progress:
        task = progress.add_task("images", total=len(paths))
        for start in range(0, len(paths), size):
            part = paths[start : start + size]
            results = list(pool.map(caught, part))
            readable = [image for image in results if isinstance(image, torch.Tensor)]
            predicted = iter(probabilities(model, data, config, readable, device) if readable else ())
            for path, result in zip(part, results, strict=True):
                yield path, next(predicted) if isinstance(result, torch.Tensor) else result
            progress.advance(task, len(part))


def predict(
    run: Run | str | Path,
    images: str | Path | Image.Image | Sequence[str | Path | Image.Image],
    *,
    device: str = "cpu",
) -> "pd.DataFrame":
    """Return the probability of each class for pictures: a row per picture, a column per class.

    `run` is what `train` returned, or the directory of a run; `images` is a file, a folder, an image of PIL or a list
    of them, prepared like the images that the network learned from. `predict(run, "photo.jpg").idxmax(axis=1)` names
    the most probable class. The index holds the names of the files; an image of PIL without a file is named by its
    position, such as `image 0`.

    Raises UserError if there is no run, no weights, or with the files that cannot be read as an image.
    """
    import pandas as pd

    # Load the network, and list the files in folders
    expect(run, Run | str | Path, "the run must be what train returned, or the directory of a run")
    model, data, config = load(str(run.directory if isinstance(run, Run) else run))
    is_list = isinstance(images, Iterable) and not isinstance(
        images, str | Path | Image.Image | np.ndarray | torch.Tensor
    )
    pictures: list[str | Image.Image] = []
    for picture in images if is_list else [images]:
        right = "images must be files, folders or images of PIL (PIL.Image.fromarray makes one of an array)"
        expect(picture, str | Path | Image.Image, right)
        if isinstance(picture, Image.Image):
            try:
                picture.load()  # here, because threads would read one file together
            except (OSError, ValueError, SyntaxError) as error:
                raise UserError(f"image {len(pictures)} cannot be read: {one_line(error)}") from None
            pictures.append(picture)
        else:
            pictures += listed([str(picture)])

    # Predict them
    found = devices.pick(device)
    model.to(found)
    results = [result for _, result in each(model, data, config, pictures, found, has_bar=False)]
    _refuse([str(result) for result in results if isinstance(result, UserError)])
    names = [
        (getattr(picture, "filename", "") or f"image {place}") if isinstance(picture, Image.Image) else picture
        for place, picture in enumerate(pictures)
    ]
    rows = [result.numpy() for result in results if isinstance(result, torch.Tensor)]
    return pd.DataFrame(rows, index=pd.Index(names, name="image"), columns=list(data.classes))


def _refuse(unreadable: Sequence[str]) -> None:
    """Raise UserError with the files that cannot be read, if there are any; of many, the first."""
    if unreadable:
        more = f"; and {len(unreadable) - MOST_NAMED:,} more" if len(unreadable) > MOST_NAMED else ""
        raise UserError("; ".join(unreadable[:MOST_NAMED]) + more)


def main(argv: list[str]) -> int:
    """Print the most probable classes of each image, or write them into a CSV file."""
    # Read the command line, and load the network
    parser = Parser("python -m study.predict", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=user_path, help="directory of a finished run")
    parser.add_argument("images", nargs="+", metavar="image", help="image files, and folders of them")
    parser.add_argument("--top", type=positive, metavar="K", default=SHOWN, help=f"classes listed (default: {SHOWN})")
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="FILE",
        help="write a CSV file: file, class_1, probability_1, class_2 …; a row for each picture that can be read",
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")
    args = parser.parse_args(argv)
    device = devices.pick(args.device)
    if args.out and Path(args.out).suffix.lower() != ".csv":
        raise UserError(f"--out {args.out} must end in .csv, the only kind of table that is written")
    if args.out:
        cache.check_writable(Path(args.out), "--out")
    model, data, config = load(args.run)
    paths = listed(args.images)
    model.to(device)
    channels, height, width = data.train.images.shape[1:]
    grey = " and made grey" if channels == 1 else ""
    print(
        f"pictures of other sizes are cropped and resized to {height}×{width} px{grey}, as in training", file=sys.stderr
    )

    # Predict batch by batch; name the files that cannot be read at the end
    top = min(args.top, len(data.classes))
    unreadable = []
    rows = []
    for path, result in each(model, data, config, paths, device, bool(args.out)):
        if isinstance(result, UserError):
            unreadable.append(str(result))
            continue
        values, labels = result.topk(top)
        best = [(data.classes[label], value) for value, label in zip(values.tolist(), labels.tolist(), strict=True)]
        if args.out:
            rows.append([printable(path), *(item for name, value in best for item in (name, f"{value:.6f}"))])
        else:
            print(f"{printable(path)}: {', '.join(f'{name} {value:.1%}' for name, value in best)}")

    # Write the CSV file, by whose first character Excel knows that it is in UTF-8
    if args.out:
        text = io.StringIO()
        header = [f"{name}_{place}" for place in range(1, top + 1) for name in ("class", "probability")]
        csv.writer(text, lineterminator="\n").writerows([["file", *header], *rows])
        cache.replace_text(Path(args.out), "\ufeff" + text.getvalue())
        rest = f"; those that cannot be read, {len(unreadable):,}, have no row" if unreadable else ""
        print(f"{args.out}: {len(rows):,} of {len(paths):,} images{rest}")
    _refuse(unreadable)
    return 0


command = partial(run_command, main)
"""The console command `study-predict`."""

if __name__ == "__main__":
    command()
