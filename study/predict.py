"""Predict the classes of pictures with a trained network.

python -m study.predict runs/two-block-cifar10-s0-4968e83bec photo.jpg other.png
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from study import models
from study.config import Config
from study.config.checks import user_path
from study.data import pictures
from study.data.dataset import Data, Split
from study.record.directory import RunDirectory
from study.record.results import Run
from study.system import devices
from study.system import files as cache
from study.system.errors import UserError, printable
from study.system.process import Parser, run_command
from study.training import evaluation

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 3

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
        raise UserError(f"{path} is no run: it has no run.json")
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


def prepare(path: str, data: Data) -> torch.Tensor:
    """Read a picture and prepare it like the run's images; return (1, channels, height, width), float32."""
    channels, height, width = data.train.images.shape[1:]
    try:
        pixels = pictures.read(path, (height, width), data.range)
    except pictures.Unreadable as error:
        raise UserError(f"{printable(path)} cannot be read as an image: it is {error}") from None
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    return data.prepared(Split(image, torch.zeros(1, dtype=torch.int64)))


def predict(run: Run | str | Path, images: str | Path | Sequence[str | Path], *, device: str = "cpu") -> "pd.DataFrame":
    """Return the probability of each class for pictures: a row per file, a column per class.

    `run` is what `train` returned, or the directory of a run; `images` is a file or a list of files, prepared like the
    images that the network learned from. `predict(run, "photo.jpg").idxmax(axis=1)` names the most probable class.

    Raises UserError if there is no run, no weights, or a file that cannot be read as an image.
    """
    import pandas as pd

    model, data, config = load(str(run.directory if isinstance(run, Run) else run))
    model.to(devices.pick(device))
    paths = [str(path) for path in ([images] if isinstance(images, str | Path) else images)]
    rows = [_probabilities(model, prepare(path, data), config).numpy() for path in paths]
    return pd.DataFrame(rows, index=pd.Index(paths, name="image"), columns=list(data.classes))


def _probabilities(model: torch.nn.Module, image: torch.Tensor, config: Config) -> torch.Tensor:
    """Return the probabilities of one prepared image, (classes,), on the CPU."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return evaluation.logits(model, image.to(device), config.flip_test).softmax(1)[0].cpu()


def main(argv: list[str]) -> int:
    """Print the most probable classes of each image."""
    # Read the command line, and load the network
    parser = Parser("python -m study.predict", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=user_path, help="directory of a finished run")
    parser.add_argument("images", nargs="+", metavar="image", help="image files")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    args = parser.parse_args(argv)
    device = devices.pick(args.device)
    model, data, config = load(args.run)
    model.to(device)
    channels, height, width = data.train.images.shape[1:]
    grey = " and made grey" if channels == 1 else ""
    print(
        f"pictures of other sizes are cropped and resized to {height}×{width} px{grey}, as in training", file=sys.stderr
    )

    # Predict image by image; name those that cannot be read at the end
    unreadable = []
    for path in args.images:
        try:
            image = prepare(path, data)
        except UserError as error:
            unreadable.append(str(error))
            continue
        values, labels = _probabilities(model, image, config).topk(min(SHOWN, len(data.classes)))
        predictions = (f"{data.classes[label]} {value:.1%}" for value, label in zip(values, labels, strict=True))
        print(f"{printable(path)}: {', '.join(predictions)}")
    if unreadable:
        raise UserError("; ".join(unreadable))
    return 0


command = partial(run_command, main)
"""The console command `study-predict`."""

if __name__ == "__main__":
    command()
