"""Says what a trained network sees in pictures.

python -m study.predict runs/two-block-cifar10-s0-d2520b0261 photo.jpg other.png
"""

import sys
from pathlib import Path

import torch

from study import cache, devices, evaluation, models
from study.config import Config
from study.data import Data, Split
from study.errors import Parser, UserError, printable, run_command
from study.run_directory import RunDirectory
from study.sources import read_image

SHOWN = 3


def load(path: str) -> tuple[torch.nn.Module, Data, Config]:
    """Load the best weights of a run, and how it prepared its images (the splits of the data are empty)."""
    directory = RunDirectory(path)
    info, weights = directory.info(), directory.path / "best.pt"
    if not info:
        raise UserError(f"{path} is no run: it has no run.json")
    if not weights.exists():
        raise UserError(f"{path} has no best.pt: it is {directory.state()}, or was trained with --keep-weights False")
    config = Config.recorded(info["config"])
    told = info["data"]
    channels, height, width = told["image_shape"]
    nothing = Split(torch.empty(0, channels, height, width, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    data = Data(
        config.dataset, tuple(told["classes"]), nothing, nothing, nothing, tuple(told["mean"]), tuple(told["std"]),
        image_size=None,
    )  # fmt: skip
    model = models.create(config, data.image_shape, len(data.classes))
    state = cache.read(weights)
    if state is None:
        raise UserError(f"{weights} is broken: train the run anew, with --force")
    model.load_state_dict(state)
    return model.eval(), data, config


def prepare(path: str, data: Data) -> torch.Tensor:
    """Read a picture as the run's images were: upright, cropped to its shape, normalised; (1, channels, h, w)."""
    channels, height, width = data.image_shape
    pixels = read_image(Path(path), (width, height))
    if isinstance(pixels, str):
        raise UserError(f"{path} cannot be read as an image: {pixels}")
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    if channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # luma, ITU-R BT.601
        image = (image * weights).sum(1, keepdim=True)
    return data.normalise(image)


def main(argv: list[str]) -> int:
    """Print the likeliest classes of each image."""
    parser = Parser("python -m study.predict", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="directory of a finished run")
    parser.add_argument("images", nargs="+", metavar="image", help="image files")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    args = parser.parse_args(argv)
    device = devices.pick(args.device)
    model, data, config = load(args.run)
    model.to(device)
    channels, height, width = data.image_shape
    kind = f"{height}×{width} px" + (" and grey" if channels == 1 else "")
    print(f"pictures are made {kind}, as those of {config.dataset} that it has learned", file=sys.stderr)
    unreadable = []
    for path in args.images:
        try:
            image = prepare(path, data)
        except UserError as error:
            unreadable.append(str(error))
            continue
        with torch.inference_mode():
            probabilities = evaluation.logits(model, image.to(device), config.flip_test).softmax(1)[0].cpu()
        values, labels = probabilities.topk(min(SHOWN, len(data.classes)))
        likeliest = (f"{data.classes[label]} {value:.1%}" for value, label in zip(values, labels, strict=True))
        print(f"{printable(path)}: {', '.join(likeliest)}")
    if unreadable:
        raise UserError("; ".join(unreadable))
    return 0


if __name__ == "__main__":
    run_command(main)
