"""Measures how fast this trains, side by side with the loops that others use, and what this machine could do at most.

    python -m study.bench                              # the assignments' network, plain and augmented; ResNet-18
    python -m study.bench --model resnet18 --batch-size 10 --dataset folder:NAME --data-dir data --out bench.json

The same network, batch size and augmentations in each loop, warm-up apart, in turns; median and range over turns.

- `reference`: PIL images through torchvision's transforms in a DataLoader, NCHW, `loss.item()` at every step; with the
  number of worker processes that is fastest here
- `timm`: the same with timm's loader, which normalises on the device and reads ahead
- `tensors`: all images on the device as float32, batches by index, no augmentation; NCHW, float32
- `ours` and `ours auto`: this project's trainer in float32, and in the faster precision; on CUDA compiled, too
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from study import data as data_sets
from study import devices, models
from study.config import Config
from study.data import Data
from study.errors import UserError, run_command
from study.trainer import Trainer

CASES = (
    {"model": "cnn", "batch_size": 64},
    {"model": "cnn", "batch_size": 64, "augment": "flip,rotate,perspective,color"},
    {"model": "resnet18", "batch_size": 64},
    {"model": "resnet18", "batch_size": 10},
)

Loop = Iterator[None]
"""Each `next` trains on one batch; on a device, its work may still be under way."""


class Pictures(torch.utils.data.Dataset):
    """Images as PIL pictures with their labels, as torchvision's data sets give them."""

    def __init__(self, data: Data, transform: Callable | None = None):
        from PIL import Image

        arrays = data.train.images.permute(0, 2, 3, 1).cpu().numpy()
        self.images = [Image.fromarray(image.squeeze()) for image in arrays]
        self.labels = data.train.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


def _transform(config: Config, data: Data) -> Callable:
    """Compose torchvision's transforms for the augmentations of a config."""
    from torchvision import transforms

    strengths = config.augmentations
    color = strengths.get("color")
    known = {
        "flip": lambda: transforms.RandomHorizontalFlip(),
        "crop": lambda: transforms.RandomCrop(data.image_shape[1], round(data.image_shape[1] * strengths["crop"])),
        "rotate": lambda: transforms.RandomRotation(strengths["rotate"]),
        "perspective": lambda: transforms.RandomPerspective(strengths["perspective"], p=1.0),
        "color": lambda: transforms.ColorJitter(brightness=color, contrast=color, saturation=color),
    }
    if unknown := set(strengths) - set(known):
        raise UserError(f"torchvision's transforms have no {', '.join(sorted(unknown))} to compare with")
    scaled = [tuple(value / 255 for value in values) for values in (data.mean, data.std)]
    return transforms.Compose(
        [known[name]() for name in strengths] + [transforms.ToTensor(), transforms.Normalize(*scaled)]
    )


def _plain(config: Config, data: Data, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = models.create(config, data.image_shape, len(data.classes)).to(device).train()
    return model, torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)


def reference(config: Config, data: Data, device: torch.device, workers: int) -> Loop:
    """Train as a tutorial does."""
    loader = torch.utils.data.DataLoader(
        Pictures(data, _transform(config, data)), config.batch_size, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0, drop_last=True, pin_memory=device.type == "cuda",
    )  # fmt: skip
    model, optimizer = _plain(config, data, device)
    while True:
        for images, labels in loader:
            output = model(images.to(device))
            loss = nn.functional.cross_entropy(output[0] if isinstance(output, tuple) else output, labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def timm_loader(config: Config, data: Data, device: torch.device, workers: int) -> Loop:
    """Train from timm's loader; it has the flip, and its own crop and colour jitter in place of the others."""
    from timm.data import create_loader

    scaled = [tuple(value / 255 for value in values) for values in (data.mean, data.std)]
    loader = create_loader(
        Pictures(data), data.image_shape, config.batch_size, is_training=True, no_aug=not config.augment,
        color_jitter=config.color_strength or 0.0, mean=scaled[0], std=scaled[1], num_workers=workers, device=device,
        persistent_workers=workers > 0,
    )  # fmt: skip
    model, optimizer = _plain(config, data, device)
    while True:
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def tensors(config: Config, data: Data, device: torch.device) -> Loop:
    """Train from tensors on the device, without augmentation."""
    images = data.normalise(data.train.images).contiguous()
    model, optimizer = _plain(config, data, device)
    while True:
        for indices in torch.randperm(len(images), device=device).split(config.batch_size)[:-1]:
            loss = nn.functional.cross_entropy(model(images[indices]), data.train.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def ours(config: Config, data: Data, device: torch.device, precision: str) -> Loop:
    """Train with this project's trainer."""
    trainer = Trainer(config, data, device, precision)
    while True:
        for _ in trainer.train_epoch():
            yield
        trainer.progress.batch = 0
        trainer.progress.epoch += 1


def seconds(loop: Loop, steps: int, device: torch.device) -> float:
    """Return how long a loop takes for so many steps, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in itertools.islice(loop, steps):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def compare(config: Config, data: Data, device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    """Time all loops for one config, in turns, and return milliseconds per step and ratios to the reference."""
    workers = [0, min(8, max(2, devices.cores() // 2))]
    loops = {f"reference, {count} workers": reference(config, data, device, count) for count in workers}
    loops |= {"timm": timm_loader(config, data, device, workers[1])}
    loops |= {"tensors": tensors(config, data, device)} if not config.augment else {}
    loops |= {"ours": ours(config, data, device, "float32"), "ours auto": ours(config, data, device, "auto")}
    if device.type == "cuda":
        compiled = config.model_copy(update={"compile": True})
        loops |= {"ours auto, compiled": ours(compiled, data, device, "auto")}
    for loop in loops.values():
        seconds(loop, max(6, args.steps // 4), device)
    turns: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(args.turns):
        for name, loop in loops.items():
            turns[name].append(1000 * seconds(loop, args.steps, device) / args.steps)
    best = min(
        (name for name in loops if name.startswith("reference")), key=lambda name: statistics.median(turns[name])
    )
    image = models.count(models.create(config, data.image_shape, len(data.classes)), data.image_shape)
    result = {}
    for name, times in turns.items():
        ratios = [theirs / own for theirs, own in zip(turns[best], times, strict=True)]
        median = statistics.median(times)
        result[name] = {
            "ms_per_step": median,
            "ms_range": [min(times), max(times)],
            "images_per_second": 1000 * config.batch_size / median,
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "tflops": 3 * image["flops"] * config.batch_size / median / 1e9,
        }
        loops[name].close()
    return result


def limits(device: torch.device) -> dict[str, float]:
    """Measure what a device can do: matrix products in both precisions (TFLOP/s), copies (GB/s read and written)."""
    side = 8192 if device.type == "cuda" else 2048
    found = {}
    for precision in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
        took = min(seconds(_repeat(lambda a=left, b=right: a @ b), 3, device) / 3 for _ in range(4))
        found[f"{str(precision).removeprefix('torch.')}_tflops"] = 2 * side**3 / took / 1e12
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    took = min(seconds(_repeat(lambda: target.copy_(source)), 3, device) / 3 for _ in range(4))
    return found | {"copy_gb_per_second": 2 * source.nbytes / took / 1e9}


def _repeat(function: Callable[[], Any]) -> Loop:
    while True:
        function()
        yield


def overheads(device: torch.device) -> dict[str, float]:
    """Measure seconds that are not training: of --help, of a mistake, and of a whole run of one epoch on digits."""
    import tempfile

    def took(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "study.train", *words], capture_output=True, check=False)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        run = [
            "--dataset=digits",
            "--model=cnn",
            "--epochs=1",
            "--wandb=disabled",
            f"--runs-dir={folder}",
            f"--device={device}",
        ]
        whole = took(*run)
        summary = json.loads(next(Path(folder).glob("*/summary.json")).read_text())
    return {
        "help_seconds": took("--help"),
        "mistake_seconds": took("--model=nothing"),
        "seconds_beyond_training": whole - summary["train_seconds"],
    }


def _show(title: str, result: dict[str, Any]) -> None:
    table = Table(
        "loop", "ms/step", "range", "images/s", "× reference", "range", "TFLOP/s", title=title, title_justify="left"
    )
    for name, row in result.items():
        table.add_row(
            name, f"{row['ms_per_step']:.2f}", "{:.2f} to {:.2f}".format(*row["ms_range"]),
            f"{row['images_per_second']:,.0f}", f"{row['ratio']:.2f}", "{:.2f} to {:.2f}".format(*row["ratio_range"]),
            f"{row['tflops']:.2f}",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main(argv: list[str]) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        "python -m study.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "augment", "dataset", "data-dir", "device"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    for name, default in (("batch-size", argparse.SUPPRESS), ("threads", 0), ("steps", 30), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="a JSON file for all figures")
    args = parser.parse_args(argv)
    asked = {name: value for name, value in vars(args).items() if name in Config.model_fields and name != "threads"}
    one = {"model", "batch_size", "augment"} & set(asked)
    configs = [Config.parse({**({} if one else case), **asked}) for case in (CASES[:1] if one else CASES)]
    device = devices.pick(configs[0].device)
    torch.set_num_threads(args.threads or devices.cores())
    data = data_sets.load(configs[0], device)
    found = {
        "device": devices.describe(device), "machine": platform.platform(), "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__, "turns": args.turns, "steps": args.steps,
        "limits": limits(device), "overheads": overheads(device), "cases": {},
    }  # fmt: skip
    print(json.dumps({name: value for name, value in found.items() if name != "cases"}, indent=1))
    for config in configs:
        title = f"{config.model}, batch {config.batch_size}, augment {config.augment or 'none'}"
        found["cases"][title] = compare(config, data, device, args)
        _show(title, found["cases"][title])
    if args.out:
        temporary = args.out.with_name(f".{args.out.name}.tmp")
        temporary.write_text(json.dumps(found, indent=1) + "\n")
        temporary.replace(args.out)
    return 0


if __name__ == "__main__":
    run_command(main)
