"""The layers of a network: parameters, memory, shapes and FLOPs of each.

    python -m analysis.anatomy vgg16 [--image-size 224] [--classes 1000] [--format text|md|tex|csv]
    python -m analysis.anatomy vgg --table                   # configurations A to E of the VGG paper
    python -m analysis.anatomy cnn all-conv --compare        # and a figure of the parameters of each layer
    python -m analysis.anatomy two-block --code              # the network as a class

Large networks are created on the meta device, where nothing is allocated or computed.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd

from analysis.page import tables
from analysis.page.tables import Column, Table
from analysis.wording.texts import LANGUAGES, language, mark, plural, text
from study.config import Config
from study.config.argv import OptionParser, add_option, read_argv
from study.config.checks import positive, user_path
from study.config.choices import NETWORKS
from study.system.errors import UserError, expect
from study.system.process import run_command

VGG = {
    "vgg11": "A", "vgg11-lrn": "A-LRN", "vgg13": "B", "vgg16-1x1": "C", "vgg16": "D", "vgg19": "E",
}  # fmt: skip
"""Names of the configurations in the paper (Simonyan and Zisserman 2015)."""

IMAGENET = (*VGG, "googlenet", "resnet18", "resnet34", "resnet50")

SPARED = (
    "derivation",
    "param_bits",
    "params_millions",
    "biases",
    "weights",
    "flops",
    "activation_mb",
    "dense_share",
    "weight_layers",
)
"""Columns that are left out in a narrow terminal, the least important first."""

SHAPELESS = {"activation", "dropout", "softmax_output", "pretrained", "weights", "weights_digest"}
"""Options of networks that do not change their layers."""

KINDS = {
    "Linear": mark("linear"),
    "BatchNorm1d": mark("batch norm"),
    "BatchNorm2d": mark("batch norm"),
    "AdaptiveAvgPool2d": mark("mean"),
}
"""Names of kinds of layers that have no size."""

COUNTS = ["weights", "biases", "params", "param_bits", "param_mb", "activation_mb", "flops"]


def native(model: str) -> tuple[tuple[int, int, int], int]:
    """Return the (channels, height, width) and the number of classes for which a network was designed."""
    if model.startswith("timm:"):
        import timm

        config = timm.models.get_pretrained_cfg(model.removeprefix("timm:"))
        return (tuple(config.input_size), config.num_classes) if config else ((3, 224, 224), 1000)
    if model in IMAGENET:
        return (3, 224, 224), 1000
    return ((1, 28, 28) if model == "simple-cnn" else (3, 32, 32)), 10


def layers(config: Config, image_shape: tuple[int, int, int] | None = None, classes: int | None = None) -> pd.DataFrame:
    """Return one row per layer that has parameters or changes the number of values, in the order of computation.

    `image_shape` is (channels, height, width), such as (1, 8, 8) for digits; by default it and the number of classes
    are those for which the network was designed.

    Columns: part (the path of its block), block, layer, kind, is_dense, is_weight_layer, output and block_output (their
    shapes for one image), derivation (how params are counted), weights, biases, params, param_bits and param_mb
    (float32, MB = 10⁶ bytes), activations and activation_mb (of the output, float32), flops (2 × multiply-adds of
    convolutions and matrix products, one image). Layers that only training uses (auxiliary heads) come last, without an
    output. A layer whose name is only a number is named by its kind. `attrs` has the `image_shape`, the number of
    `classes` and the `depth` of the network, see `models.depth`.
    """
    import torch

    from study import models
    from study.models.code import derivation

    # create the network
    expect(config, Config, "layers takes a Config, such as layers(Config(model='two-block'))")
    right = "image_shape is (channels, height, width), such as (3, 32, 32)"
    expect(image_shape, Sequence | None, right)
    if image_shape is not None and len(image_shape) != 3:
        raise UserError(f"{right}, not {image_shape}")
    own_shape, own_classes = native(config.model)
    image_shape = image_shape or own_shape
    classes = classes or own_classes
    is_large = config.model in IMAGENET or config.model.startswith("timm:")
    with torch.device("meta") if is_large else nullcontext():  # meta takes a second to load
        model = models.create(config, image_shape, classes).eval()
        image = torch.zeros(1, *image_shape)
    flops = models.flops(model, image_shape)

    # record the shapes of inputs and outputs in one forward pass
    paths = {module: path for path, module in model.named_modules()}
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def record(module, inputs, result) -> None:
        inside = inputs[0].shape[1:] if inputs and isinstance(inputs[0], torch.Tensor) else ()
        outside = result if isinstance(result, torch.Tensor) else next(iter(result))
        shapes.setdefault(paths[module], (tuple(inside), tuple(outside.shape[1:])))

    for module in model.modules():
        module.register_forward_hook(record)
    depth = models.depth(model(image))

    # one row per layer
    rows = []
    for path in [*shapes, *(path for path in paths.values() if path not in shapes)]:
        module = model.get_submodule(path)
        inside, outside = shapes.get(path, ((), ()))
        own = {name: parameter.numel() for name, parameter in module.named_parameters(recurse=False)}
        biases = sum(count for name, count in own.items() if "bias" in name)
        is_leaf = not any(True for _ in module.children())
        if own or flops.get(path) or (is_leaf and math.prod(inside) != math.prod(outside)):
            block, _, inner = path.removeprefix("features.").removeprefix("head.").partition(".")
            part = path.removesuffix(f".{inner}")
            rows.append(
                {
                    "part": part,
                    "block": _name(block, model.get_submodule(part)) or config.model.removeprefix("timm:"),
                    "layer": _name(inner or block, module),
                    "kind": _kind(module),
                    "is_dense": isinstance(module, torch.nn.Linear),
                    "is_weight_layer": isinstance(module, torch.nn.Linear | torch.nn.Conv2d),
                    "derivation": derivation(module),
                    "output": _shape(outside),
                    "block_output": _shape(shapes.get(part, ((), ()))[1]),
                    "weights": sum(own.values()) - biases,
                    "biases": biases,
                    "activations": math.prod(outside) if outside else 0,
                    "flops": flops.get(path, 0),
                }
            )

    # memory in float32
    frame = pd.DataFrame(rows)
    frame["params"] = frame.weights + frame.biases
    frame["param_bits"] = 32 * frame.params
    frame["param_mb"] = 4e-6 * frame.params
    frame["activation_mb"] = 4e-6 * frame.activations
    frame.attrs |= {"depth": depth, "image_shape": image_shape, "classes": classes}
    return frame


def _for_images(model: str, shape: str, classes: int) -> str:
    """Say for which images a network is."""
    return plural(
        "{model}, for images of {shape} and {n:,} class",
        "{model}, for images of {shape} and {n:,} classes",
        classes,
        model=model,
        shape=shape,
    )


def _shape(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))


def _name(word: str, module) -> str:
    """Return the name of a layer in the network, or its kind if the name is only a number."""
    return _kind(module) if word.isdecimal() else word


def _kind(module) -> str:
    """Return the kind of a layer as tables name it."""
    # kinds with sizes
    name = type(module).__name__
    if name.startswith("Conv2d"):
        height, width = module.kernel_size
        stride = f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        groups = text(", {groups} groups", groups=module.groups) if module.groups > 1 else ""
        return f"{text('conv')} {height}×{width}{stride}{groups}"
    if name == "MaxPool2d":
        return f"{text('max-pool')} {module.kernel_size}×{module.kernel_size}"

    # other kinds
    return text(KINDS[name]) if name in KINDS else name


def with_sums(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the sums of each block before its layers, and the total at the end; `level` is the kind of row."""
    # a block with a single layer is one row
    parts = []
    for _, chosen in frame.groupby("part", sort=False):
        if len(chosen) == 1:
            parts.append(chosen.assign(level="block", layer=""))
        else:
            first = chosen.iloc[0]
            sums = {"level": "block", "block": first.block, "output": first.block_output, **chosen[COUNTS].sum()}
            parts += [pd.DataFrame([sums]), chosen.assign(level="layer")]

    # the total
    parts.append(pd.DataFrame([{"level": "total", "block": text("Total"), **frame[COUNTS].sum()}]))
    result = pd.concat(parts, ignore_index=True)[["level", "block", "layer", "kind", "output", "derivation", *COUNTS]]
    return result.fillna("").astype({name: "int64" for name in COUNTS if not name.endswith("mb")})


def table(title: str, frame: pd.DataFrame) -> Table:
    """Make the table of the layers of a network, with the sums of its blocks and the total."""
    sums = with_sums(frame)
    shown = sums.assign(
        place=sums.block.where(sums.level != "layer", "  " + sums.layer.astype(str)), is_sum=sums.level != "layer"
    )
    columns = [Column("place", bold="is_sum"), Column("kind", wraps=True), Column("output")]
    columns += [Column(name, 3 if name.endswith("mb") else 0, bold="is_sum") for name in COUNTS]
    columns.insert(columns.index(next(column for column in columns if column.key == "params")), Column("derivation"))
    return Table(
        "layers",
        title,
        shown,
        columns,
        [
            text(
                "Parameters and activations in float32, 1 MB = 10⁶ bytes; FLOPs = 2 × multiply-adds of convolutions "
                "and matrix products, one image. Layers without parameters that only transform each number have no "
                "row."
            )
        ],
    )


def totals(frames: Mapping[str, pd.DataFrame]) -> Table:
    """Make the table of the totals of several networks, with the share of parameters in fully connected layers."""
    # one row per network
    rows = [
        {
            "model": f"{model} ({VGG[model]})" if model in VGG else model,
            "weight_layers": frame.attrs["depth"],
            "params": frame.params.sum(),
            "params_millions": frame.params.sum() / 1e6,
            "param_mb": frame.param_mb.sum(),
            "dense_share": 100 * frame.params[frame.is_dense].sum() / frame.params.sum(),
            "activation_mb": frame.activation_mb.sum(),
            "flops": frame.flops.sum(),
        }
        for model, frame in frames.items()
    ]

    # decimals of each column
    millions = 0 if min(row["params_millions"] for row in rows) >= 100 else 3
    digits = {
        "weight_layers": 0,
        "params": 0,
        "params_millions": millions,
        "param_mb": 3,
        "dense_share": 1,
        "activation_mb": 3,
        "flops": 0,
    }
    columns = [Column("model"), *(Column(key, places) for key, places in digits.items())]
    sizes: dict[tuple[str, int], list[str]] = {}
    for model, frame in frames.items():
        sizes.setdefault((_shape(frame.attrs["image_shape"]), frame.attrs["classes"]), []).append(model)
    notes = [
        *(_for_images(", ".join(models), shape, classes) + "." for (shape, classes), models in sizes.items()),
        text(
            "Parameters and activations in float32, 1 MB = 10⁶ bytes; FLOPs = 2 × multiply-adds of convolutions and "
            "matrix products, one image. Layers without parameters that only transform each number have no row."
        ),
        text(
            "Weight layers are the convolutions and fully connected layers on the longest path from image to logits: "
            "without auxiliary heads, projections of shortcuts and the shorter of parallel branches."
        ),
    ]
    return Table("totals", text("What the networks are made of"), pd.DataFrame(rows), columns, notes)


def answer(frames: Mapping[str, pd.DataFrame]) -> str:
    """Report the smallest and largest network, and the share of parameters in fully connected layers of each."""
    # sizes of the networks
    params = {model: int(frame.params.sum()) for model, frame in frames.items()}
    small = min(params, key=params.get)
    large = max(params, key=params.get)

    # a part per network, then the ratio
    shares = "; ".join(
        text(
            "{model} has {params:,} parameters, {mb:,.3f} MB, {share:.1f} % of them in fully connected layers",
            model=model,
            params=params[model],
            mb=4e-6 * params[model],
            share=100 * frame.params[frame.is_dense].sum() / params[model],
        )
        for model, frame in frames.items()
    )
    ratio = text(
        "{large} has {ratio:.2f} times as many parameters as {small}.",
        small=small,
        large=large,
        ratio=params[large] / params[small],
    )
    return f"{shares}. {ratio}"


def _configs(args: argparse.Namespace, options: Mapping[str, object]) -> list[Config]:
    """Return a config per network of the command line; `vgg` stands for all its configurations."""
    names = [name for word in args.models for name in (VGG if word == "vgg" else [word])]
    configs = [Config.parse({"model": name, **options}) for name in names]
    if len(configs) > 1 and not (args.table or args.compare or args.code):
        raise UserError("several networks need --table, --compare or --code")
    if args.compare and len(configs) < 2:
        raise UserError("--compare needs two networks or more, such as cnn all-conv")
    return configs


def _sized(config: Config, args: argparse.Namespace) -> tuple[tuple[int, int, int], int]:
    """Return the image shape and the number of classes of the command line, by default those of the network."""
    (channels, height, width), classes = native(config.model)
    sides = (args.image_size, args.image_size) if args.image_size else (height, width)
    return (args.channels or channels, *sides), args.classes or classes


def _code(config: Config, image_shape: tuple[int, int, int], classes: int) -> str:
    """Return the code of a network."""
    import torch

    from study import models
    from study.models import code

    with torch.device("meta"):
        return code.written(models.create(config, image_shape, classes), config.model)


def _print(table: Table, form: str) -> None:
    """Print a table in one of tables.FORMATS, or for the terminal."""
    if form == "text":
        tables.show(table, SPARED)
    else:
        notes = f"\n{' '.join(table.notes)}\n" if form == "md" else ""
        print(tables.FORMATS[form](table) + notes, end="")


def _draw(frames: Mapping[str, pd.DataFrame], out: Path) -> Path:
    """Draw the parameters of each layer of networks in every format, and return the path of the PNG."""
    from analysis.page import figures
    from analysis.page import html as page

    figure = figures.parameters_per_layer(frames, text("Parameters of each layer"))
    stem = "anatomy-" + "-".join(frames).replace(":", "-").replace("/", "-")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix in page.PICTURES:
            page.save(out / f"{stem}.{suffix}", page.drawn(figure, suffix, stem))
    except OSError as error:
        raise UserError(f"the picture cannot be written to {out}: {error.strerror}") from None
    return out / f"{stem}.png"


def main(argv: list[str]) -> int:
    """Print the layers, totals or comparison of the networks of the command line."""
    # options of this command
    parser = OptionParser("python -m analysis.anatomy", "MODEL… [--option VALUE | --option=VALUE]…", __doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{', '.join(NETWORKS)}NAME, or vgg for every VGG")
    parser.add_argument("--table", action="store_true", help="a row per network: parameters, memory, FLOPs")
    parser.add_argument("--compare", action="store_true", help="as --table, with a comparison in words and a figure")
    parser.add_argument("--code", action="store_true", help="print the network as PyTorch code")
    parser.add_argument(
        "--image-size", type=positive, metavar="PX", help="side of the images (default: as the network was designed)"
    )
    parser.add_argument("--channels", type=positive, metavar="N", help="1 for grey images (default: as designed)")
    parser.add_argument("--classes", type=positive, metavar="N", help="number of classes (default: as designed)")
    parser.add_argument("--format", choices=("text", *tables.FORMATS), default="text")
    parser.add_argument("--lang", choices=LANGUAGES, default="en")
    parser.add_argument(
        "--out",
        type=lambda text: Path(user_path(text)),
        default=Path("report"),
        metavar="DIR",
        help="folder of the picture (default: report)",
    )

    # options of the networks
    options = sorted({option for own in NETWORKS.values() for option in own})
    for option in options:
        add_option(parser, option, is_shown=option not in SHAPELESS)
    args = argparse.Namespace(**read_argv(parser, argv))

    # one network: its layers; several: their totals
    configs = _configs(args, {option: value for option, value in vars(args).items() if option in options})
    if args.code:
        print("\n\n".join(_code(config, *_sized(config, args)) for config in configs), end="")
        return 0
    with language(args.lang):
        frames = {config.model: layers(config, *_sized(config, args)) for config in configs}
        if not (args.table or args.compare):
            [(model, frame)] = frames.items()
            title = _for_images(model, _shape(frame.attrs["image_shape"]), frame.attrs["classes"])
            _print(table(title, frame), args.format)
            return 0
        _print(totals(frames), args.format)
        if args.compare:
            print(f"\n{answer(frames)}\n{_draw(frames, args.out)}")
    return 0


command = partial(run_command, main)
"""The console command `study-anatomy`."""

if __name__ == "__main__":
    command()
