"""The names that options take, with the options and defaults that belong to each name.

    python -c "from study.config.choices import NETWORKS; print(*NETWORKS)"

A key that ends in a colon stands for all names with this prefix.
"""

from typing import Any, NamedTuple

Table = dict[str, dict[str, Any]]

_COMMON = {"activation": "relu", "batch_norm": False, "dropout": 0.0}
_DENSE = {**_COMMON, "softmax_output": False}
_PRETRAINABLE = {"stem": "auto", "weights": None, "pretrained": False, "weights_digest": None}
_VGG = {**_DENSE, "filters": "64,128,256,512,512", "hidden": "4096,4096", "dropout": 0.5}

NETWORKS: Table = {
    "single-block": {**_DENSE, "filters": "32", "hidden": "100"},
    "two-block": {**_DENSE, "filters": "32,64", "hidden": "100"},
    "cnn": {**_DENSE, "filters": "32,64,128", "hidden": "100"},
    "mlp": {**_DENSE, "hidden": "100"},
    "all-conv": {**_COMMON, "filters": "32,64,128"},
    "net": {**_DENSE, "hidden": "3072,1024,120,120,84"},
    "net1": {
        **_DENSE, "hidden": "1024,512,512,256,256,128,128,64", "activation": "relu,leaky_relu", "dropout": 0.2,
    },
    "net2": {
        **_DENSE, "hidden": "1024,512,512,256,256,128,128,64,64", "activation": "leaky_relu", "dropout": 0.4,
    },
    "net3": {**_DENSE, "hidden": "1024,512,256,128,64", "activation": "relu,elu,leaky_relu", "dropout": 0.2},
    "netconv": {**_DENSE, "filters": "6,16", "hidden": "120,120,120,120,84"},
    "simple-cnn": {**_DENSE, "filters": "32,32", "hidden": "128"},
    "alexnet": {**_DENSE, "filters": "48,128,192,192,128", "hidden": "2048,2048", "dropout": 0.5},
    "vgg11": _VGG,
    "vgg11-lrn": _VGG,
    "vgg13": _VGG,
    "vgg16-1x1": _VGG,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "googlenet": {"stem": "auto", "dropout": 0.2, "aux_weight": 0.3},
    "resnet18": _PRETRAINABLE,
    "resnet34": _PRETRAINABLE,
    "resnet50": _PRETRAINABLE,
    "timm:": _PRETRAINABLE,
}  # fmt: skip

TRANSFER: Table = {
    "from scratch": {"optimizer": "sgd"},
    "with finetune all": {"finetune": "all", "body_lr_factor": 0.1, "batch_statistics": False, "optimizer": "adamw"},
    "with finetune head": {"finetune": "all", "optimizer": "adamw"},
    "with finetune svm": {"finetune": "all"},
}
"""How training starts, which layers it trains, and the default optimizer.

Pretrained networks default to AdamW, whose steps do not grow with the scale of the features.
"""

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh")


class DataSet(NamedTuple):
    """A data set known by name: the side of its images in pixels, None if they differ, and the size of its val split.

    Without `val_images` a share of the training images is held out. `classes` are the names of its classes, where they
    are few. `has_test` is whether it has test images of its own.
    """

    side: int | None
    val_images: int | None = None
    classes: tuple[str, ...] = ()
    has_test: bool = True


_NUMERALS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DATASETS = {
    "digits": DataSet(8, None, _NUMERALS, has_test=False),
    "cifar10": DataSet(32, 10_000, _CIFAR10),
    "cifar100": DataSet(32, 10_000),
    "mnist": DataSet(28, 10_000, _NUMERALS),
    "fashion-mnist": DataSet(28, 10_000, _FASHION),
    "pets": DataSet(None),
}
"""Data sets known by name; any other is a `folder:NAME` of class folders."""

SMALLEST_SIDES = {
    "single-block": 2, "two-block": 4, "cnn": 8, "all-conv": 8, "netconv": 16, "simple-cnn": 2, "alexnet": 15,
    **{name: 32 for name in NETWORKS if name.startswith("vgg")},
}  # fmt: skip
"""Side in pixels of the smallest images that a network accepts; any other network accepts all."""

OPTIMIZERS: Table = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "nesterov": False},
    "adam": {"lr": 0.001},
    "adamw": {"lr": 0.001},
    "timm:": {"lr": 0.001},
}

SCHEDULES: Table = {
    "none": {"warmup_epochs": 0.0},
    "step": {"warmup_epochs": 0.0, "step_epochs": 5, "step_factor": 0.1},
    "cosine": {"warmup_epochs": 0.0},
    "onecycle": {},
    "timm:plateau": {"warmup_epochs": 0.0, "step_epochs": 5, "step_factor": 0.1},
    "timm:poly": {"warmup_epochs": 0.0, "poly_power": 1.0},
    "timm:cosine": {"warmup_epochs": 0.0, "cycles": 1},
    "timm:tanh": {"warmup_epochs": 0.0, "cycles": 1},
}

FINETUNING_SCHEDULES: Table = {
    name: {**options, "warmup_epochs": 1.0} if "warmup_epochs" in options else options
    for name, options in SCHEDULES.items()
}
"""The schedules of a pretrained network, with warm-up: an untrained head must not spoil the features."""

AUGMENTATIONS: Table = {
    "flip": {"alternating_flip": False},
    "crop": {"crop_share": 0.125},
    "rotate": {"rotate_degrees": 15.0},
    "perspective": {"perspective_tilt": 0.3},
    "trivialaugment": {},
    "randaugment": {"randaugment_magnitude": 9},
    "color": {"color_strength": 0.3},
    "noise": {"noise_deviation": 0.05},
    "cutout": {"cutout_share": 0.25},
    "mixup": {"mixup_alpha": 1.0},
    "cutmix": {"cutmix_alpha": 1.0},
}

EARLY_STOPPING: Table = {
    "with early stopping": {"early_stopping_metric": "val/loss"},
    "without early stopping": {},
}


EXTRAS = ("model", "checkpoint", "code", "alerts", "watch")
"""What W&B gets only if `--wandb-extras` names it."""


OWNED = frozenset(
    option
    for table in (NETWORKS, TRANSFER, OPTIMIZERS, SCHEDULES, FINETUNING_SCHEDULES, AUGMENTATIONS, EARLY_STOPPING)
    for options in table.values()
    for option in options
)
"""Options that only some networks, optimizers, schedules or augmentations have; of the others they are None."""


def own_options(table: Table, name: str) -> dict[str, Any] | None:
    """Return the options of a name with their defaults, or None if the table does not have the name."""
    if name in table:
        return table[name]
    prefix, colon, rest = name.partition(":")
    return table.get(prefix + colon) if colon and rest else None
