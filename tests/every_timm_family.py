"""Builds, counts and evaluates the smallest network of each of timm's families, as a training does.

    python -m tests.every_timm_family                # all of them: some minutes
    python -m tests.every_timm_family crossvit coat  # some

A family is a module of timm's. Its smallest network, by parameters, is made with its own stem for grey images of 64 px
or, where it does not take these, for the first larger ones that it takes, or for coloured ones. The exit code is 1
where a family fails that is not in REFUSED.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import timm
import torch

from study import models
from study.config import Config
from study.data import dataset as data_sets
from study.system.errors import UserError, one_line
from study.training import evaluation
from study.training.evaluation import Evaluator

CHANNELS, SIDES = (1, 3), (64, 128, 224)
"""Images that are tried for a network, in this order; the last side is the one that it was made for."""

IMAGES = 2

REFUSED: dict[str, str] = {}
"""Families of which no network can be built, and why."""


@dataclass(frozen=True)
class Seen:
    """What became of a family: a line, what was left out of the measurements, and whether all went well."""

    line: str
    left_out: tuple[str, ...] = ()
    is_well: bool = True


def families() -> dict[str, list[str]]:
    """List the names of the networks of each family."""
    found = {module: timm.list_models(module=module) for module in timm.list_modules()}
    return {module: names for module, names in found.items() if names}


def smallest(names: list[str]) -> Iterator[str]:
    """Yield the networks of a family, the one with the fewest parameters first."""
    sizes = {}
    for name in names:
        try:
            with torch.device("meta"):
                sizes[name] = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
        except Exception:  # some compute while they are built; they come last
            sizes[name] = sys.maxsize
    yield from sorted(sizes, key=sizes.get)


def sides(name: str) -> list[int]:
    """List the sides of images to try, in pixels."""
    told = timm.models.get_pretrained_cfg(name)
    own = told.input_size[-1] if told else 224
    return sorted({side for side in SIDES if side < own} | {own})


def look(name: str, side: int, channels: int) -> Seen:
    """Build a network for digits of a side, count it, and evaluate a batch, as a training does."""
    config = Config(model=f"timm:{name}", dataset="digits", image_size=side, stem="imagenet")
    data = data_sets.load(config, "cpu", lambda text: None)
    if channels > 1:
        train, val = (
            replace(split, images=split.images.expand(-1, channels, -1, -1)) for split in (data.train, data.val)
        )
        data = replace(data, train=train, val=val, mean=channels * data.mean, std=channels * data.std)
    started, said = time.perf_counter(), []
    torch.manual_seed(0)
    model = models.create(config, data.image_shape, len(data.classes))
    sizes = evaluation.measure(model, data, config.model, said.append)
    evaluator = Evaluator(model, data, torch.device("cpu"), torch.float32, IMAGES, flip_test=False)
    found = evaluator.activations(data.val[:IMAGES])
    logits = evaluator.logits(data.val[:IMAGES])
    seconds = time.perf_counter() - started

    # what is evaluated is what the network predicts, and each layer has a row for each image
    wrong = [] if torch.allclose(found["logits"], logits, atol=1e-4) else ["its logits differ"]
    wrong += [f"{layer} {tuple(rows.shape)}" for layer, rows in found.items() if len(rows) != IMAGES]
    wrong += [f"{layer} is not finite" for layer, rows in found.items() if not rows.isfinite().all()]
    counted = f"{sizes['params']:,} parameters, {sizes.get('flops', 0) / 1e6:,.0f} MFLOPs"
    shapes = ", ".join(f"{layer} {rows.shape[1]}" for layer, rows in found.items())
    return Seen(
        f"{name} at {channels}×{side}×{side}: {counted}; {shapes}; {seconds:.1f} s {' '.join(wrong)}",
        tuple(said),
        not wrong,
    )


def first(names: list[str]) -> Seen:
    """Look at the smallest network of a family that can be built, with the smallest images that it takes."""
    refused = []
    for name in smallest(names):
        for channels, side in product(CHANNELS, sides(name)):
            try:
                return look(name, side, channels)
            except UserError as error:
                refused.append(f"{channels}×{side}×{side}: {one_line(error)}")
            except Exception as error:
                return Seen(f"{name} at {channels}×{side}×{side}: {one_line(error)}", is_well=False)
    return Seen("; ".join(refused), is_well=False)


def main(chosen: list[str]) -> int:
    """Look at families, at all of them unless some are chosen, and print a line for each."""
    found = {}
    for family, names in families().items():
        if not chosen or family in chosen:
            found[family] = first(names)
            print(f"{'' if found[family].is_well else 'FAILED '}{family}: {found[family].line}", flush=True)
            for text in found[family].left_out:
                print(f"  {text}", flush=True)

    # the summary: what could not be had, and why
    failed = {family: seen for family, seen in found.items() if not seen.is_well}
    left_out = {family: seen for family, seen in found.items() if seen.left_out}
    unexpected = [family for family in failed if family not in REFUSED]
    done = len(found) - len(failed)
    print(f"{len(found)} families; {done} built, counted and evaluated, {len(left_out)} of them not in full")
    for family, seen in failed.items():
        print(f"could not be had: {family}: {REFUSED.get(family, seen.line)}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.every_timm_family", description=__doc__)
    parser.add_argument("family", nargs="*")
    torch.set_num_threads(1)
    sys.exit(main(parser.parse_args().family))
