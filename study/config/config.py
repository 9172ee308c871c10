"""Every option of a run with its type, bounds and help, and the identity of a run.

    python -c "from study.config import Config; print(Config(model='cnn', dropout=0.5).run_name)"

The same class defines the command line, the parameter space of a sweep, W&B's config and, through
`fingerprint`, the name of the run. Defaults are part of that identity, so a released default must not change.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from study.config.checks import (
    Device,
    HasOptions,
    Names,
    WandbName,
    Widths,
    fill_own_knobs,
    list_of,
    meant,
    one_of,
    owners,
    refuse_small_images,
    sentence,
    user_path,
    weights_of,
)
from study.config.choices import ACTIVATIONS, AUGMENTATIONS, DATASETS, NETWORKS, OPTIMIZERS, SCHEDULES, own_knobs
from study.config.setting import read_list, read_pairs
from study.system.errors import UserError

RESULTS_VERSION = 3
"""Increased by every change that makes the same config give other results."""

PATHS = ("weights", "data_dir", "runs_dir")
"""Options that name a file or a folder."""

MODEL_WORD = 60
DATASET_WORD = 40
"""A run's name has at most this many characters of the network and of the data set, to fit into W&B's ids."""


def _knob(default: Any, group: str, text: str, **bounds: Any) -> Any:
    """Declare a knob that decides what a run computes."""
    return Field(default, description=text, json_schema_extra={"group": group, "identity": True}, **bounds)


def _note(default: Any, group: str, text: str, **bounds: Any) -> Any:
    """Declare a knob that decides only where or how a run is computed or recorded."""
    return Field(default, description=text, json_schema_extra={"group": group, "identity": False}, **bounds)


class Config(BaseModel):
    """The options of one run. Frozen; every value has its declared type and lies within its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: Annotated[str, one_of("model", NETWORKS, "timm:"), HasOptions] = _knob(
        "two-block",
        "network",
        f"{', '.join(name for name in NETWORKS if name != 'timm:')}, or timm:NAME for any "
        "other network of timm, such as timm:convnext_atto",
    )
    filters: Widths = _knob(None, "network", "filters of each convolution block, such as 32,64,128")
    hidden: Widths = _knob(None, "network", "units of each hidden fully connected layer, such as 100")
    dropout: float | None = _knob(None, "network", "probability of dropping a unit, 0 <= p < 1", ge=0, lt=1)
    activation: Annotated[Names | None, list_of("activation", ACTIVATIONS, in_order=True)] = _knob(
        None, "network", f"{', '.join(ACTIVATIONS)}; the layers cycle through a comma list"
    )
    batch_norm: bool | None = _knob(None, "network", "batch norm after each convolution and hidden layer")
    softmax_output: bool | None = _knob(
        None, "network", "a softmax at the end, although the cross-entropy loss already includes one"
    )
    stem: Literal["auto", "cifar", "imagenet"] | None = _knob(
        None, "network", "cifar has no stride and pooling, for small images; auto is cifar up to 64 px"
    )
    aux_weight: float | None = _knob(
        None, "network", "weight of the losses of GoogLeNet's two auxiliary heads; 0 trains without them", ge=0
    )

    pretrained: bool | None = _knob(
        None,
        "transfer",
        "start from pretrained weights: those of timm, downloaded (timm:NAME.TAG chooses which), "
        "or the file of --weights",
    )
    weights: str | None = _note(None, "transfer", "file of pretrained weights, .safetensors or saved by torch")
    weights_digest: str | None = _knob(None, "transfer", "digest of the content of that file; computed if not given")
    finetune: Literal["all", "head", "svm"] | None = _knob(
        None,
        "transfer",
        "all trains the whole pretrained network; head trains its last layer and freezes the rest; "
        "svm fits a linear SVM to the frozen network's features",
    )
    body_lr_factor: float | None = _knob(
        None, "transfer", "learning rate of the pretrained layers, as a share of that of the new last layer", gt=0, le=1
    )
    batch_statistics: bool | None = _knob(
        None,
        "transfer",
        "batch norm uses the statistics of the batches; otherwise the pretrained statistics are kept, which is "
        "better with few images",
    )

    dataset: Annotated[str, one_of("data set", DATASETS, "folder:")] = _knob(
        "cifar10", "data", f"{', '.join(DATASETS)}, or folder:NAME for DATA_DIR/NAME/train/CLASS/*"
    )
    classes: Annotated[Names, list_of("class")] = _knob(
        "", "data", "comma list of classes to keep, such as cat,dog; empty keeps all"
    )
    train_images: int | None = _knob(
        None, "data", "training images to keep, in proportion to the classes, drawn by seed; none keeps all", ge=2
    )
    image_size: int | None = _knob(
        None,
        "data",
        "side in pixels to which images are resized (photographs are also centre-cropped); none keeps their own",
        ge=1,
        le=1024,
    )
    split_seed: int = _knob(0, "data", "seed of the split into training, validation and test images", ge=0)

    augment: Annotated[Names, list_of("augmentation", AUGMENTATIONS)] = _knob(
        "", "augmentation", f"comma list of {', '.join(AUGMENTATIONS)}; empty is none"
    )
    alternating_flip: bool | None = _knob(
        None, "augmentation", "flip mirrors each image in every second epoch instead of at random"
    )
    crop_share: float | None = _knob(None, "augmentation", "largest shift, as a share of the side", gt=0, le=1)
    rotate_degrees: float | None = _knob(None, "augmentation", "largest angle in degrees", gt=0, le=180)
    perspective_tilt: float | None = _knob(None, "augmentation", "largest tilt, 0 < t < 1", gt=0, lt=1)
    color_strength: float | None = _knob(
        None, "augmentation", "largest change of brightness, contrast and saturation, as a share", gt=0, le=1
    )
    noise_deviation: float | None = _knob(
        None, "augmentation", "standard deviation of noise, as a share of the scale", gt=0, le=1
    )
    cutout_share: float | None = _knob(None, "augmentation", "side of the square cut out, as a share", gt=0, le=1)

    epochs: int = _knob(30, "training", "passes over the training images", ge=1)
    batch_size: int = _knob(64, "training", "images per step", ge=1)
    seed: int = _knob(0, "training", "seed of the initial weights, the data order, dropout and augmentation", ge=0)
    label_smoothing: float = _knob(0.0, "training", "share of the target spread over all classes", ge=0, lt=1)
    flip_test: bool = _knob(
        False, "training", "average the predictions for an image and its mirror image (test-time augmentation)"
    )
    early_stopping: int | None = _knob(
        None, "training", "end after this many epochs without a better value; none trains to the last epoch", ge=1
    )
    early_stopping_metric: Literal["val/loss", "val/acc"] | None = _knob(
        None, "training", "what early stopping watches: val/loss or val/acc"
    )

    optimizer: Annotated[str | None, one_of("optimizer", OPTIMIZERS, "timm:")] = _knob(
        None,
        "optimization",
        "sgd, adam, adamw, or timm:NAME for any other optimizer of timm, such as timm:lion "
        "(default: sgd; adamw for pretrained networks)",
    )
    lr: float | None = _knob(None, "optimization", "learning rate (default: 0.01 for sgd, otherwise 0.001)", gt=0)
    momentum: float | None = _knob(None, "optimization", "momentum of sgd (default: 0.9)", ge=0, lt=1)
    nesterov: bool | None = _knob(None, "optimization", "Nesterov's momentum for sgd")
    weight_decay: float = _knob(0.0, "optimization", "weight decay", ge=0)
    decay_norm_bias: bool = _knob(True, "optimization", "weight decay on norms and biases too")
    clip_norm: float | None = _knob(None, "optimization", "largest norm of the gradient; none does not clip", gt=0)
    ema_decay: float | None = _knob(
        None,
        "optimization",
        "validate and keep an exponential moving average of the weights, with this decay",
        gt=0,
        lt=1,
    )
    schedule: Annotated[str, one_of("schedule", SCHEDULES)] = _knob(
        "none", "optimization", f"schedule of the learning rate: {', '.join(SCHEDULES)}"
    )
    warmup_epochs: float | None = _knob(None, "optimization", "epochs of linear warm-up (not for onecycle)", ge=0)
    step_epochs: int | None = _knob(None, "optimization", "epochs between the steps of schedule step", ge=1)
    step_factor: float | None = _knob(None, "optimization", "factor of each step of schedule step", gt=0, lt=1)

    device: Device = _note("auto", "execution", "auto (cuda, else mps, else cpu), cpu, mps, cuda or cuda:N")
    precision: Literal["float32", "bfloat16", "auto"] = _note(
        "float32",
        "execution",
        "precision of convolutions and matrix products: float32 (TF32 for convolutions on NVIDIA GPUs, as torch's "
        "default), bfloat16, or auto, the faster of the two on this machine",
    )
    compile: bool = _note(
        False, "execution", "compile the network before training; takes half a minute and pays in long runs on CUDA"
    )
    cuda_graph: bool = _note(
        True, "execution", "on CUDA, launch all kernels of a batch at once, if the network supports it"
    )
    threads: int = _note(0, "execution", "CPU threads; 0 is one per core", ge=0)
    data_dir: str = _note("data", "execution", "folder of the data sets, into which they are downloaded")

    runs_dir: str = _note("runs", "records", "folder with a directory for every run")
    keep_weights: bool = _note(True, "records", "keep the best weights in the run directory after training")
    wandb: Literal["auto", "online", "offline", "disabled"] = _note(
        "auto", "records", "W&B: online, offline, disabled; auto is online if there is an API key, else offline"
    )
    entity: WandbName = _note("", "records", "W&B entity; empty is your default")
    project: WandbName = _note("image-classifier-study", "records", "W&B project")
    tags: str = _note("", "records", "comma list of W&B tags")
    notes: str = _note("", "records", "W&B notes")
    setting: str = _note("", "records", "key=value pairs that a sweep varies together; they override the other options")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, options: Any) -> dict[str, Any]:
        """Apply `setting`, refuse unknown keys, and fill in the defaults that depend on the chosen names."""
        # Let the pairs of `setting` override the other options
        values = {key.replace("-", "_"): value for key, value in dict(options).items()}
        setting = read_pairs(values.get("setting") or "")
        values |= setting

        # Refuse unknown options, and convert what YAML and the command line write differently
        for name, value in values.items():
            field = cls.model_fields.get(name)
            if field is None:
                raise ValueError(f"unknown option {name!r}; {meant(name, cls.model_fields)}")
            if isinstance(value, bool) and field.annotation not in (bool, bool | None):
                raise ValueError(f"{name} needs a value, such as --{name.replace('_', '-')}=…")
            if isinstance(value, Mapping):
                raise ValueError(f"{name} cannot hold nested parameters; write them flat")
            if isinstance(value, int | float) and field.annotation is str:
                values[name] = str(value)
            if value in ("None", "none", "") and field.default is None:
                values[name] = None

        # Expand paths, and find the digest of a file of weights
        values |= {name: user_path(values[name]) for name in PATHS if isinstance(values.get(name), str)}
        values |= weights_of(values)

        # Fit an SVM in one epoch; if `setting` chose it, drop the options that it does not use
        if values.get("finetune") == "svm":
            unused = set(UNUSED_BY_SVM) - setting.keys() if "finetune" in setting else ()
            values = {"epochs": 1} | {name: value for name, value in values.items() if name not in unused}

        # Fill in the defaults, first the fixed ones, then those of the chosen names
        values = {name: field.default for name, field in cls.model_fields.items()} | values
        for owner, chosen, table in owners(values):
            values |= fill_own_knobs(owner, chosen, table, values)
        return values

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        """Raise ValueError for values that exclude each other."""
        # The network: one width per block, images that are large enough
        default = own_knobs(NETWORKS, self.model).get("filters")
        if default and len(self.filters) != len(read_list(default)):
            raise ValueError(
                f"filters of {self.model} must be as many as its blocks, such as {default}, not {self.filters}"
            )
        refuse_small_images(self.model, self.dataset, self.image_size)

        # The optimization
        if self.warmup_epochs and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs must be at most epochs, {self.epochs}, not {self.warmup_epochs:g}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum greater than 0")

        # Pretrained networks
        if self.finetune == "svm":
            values = self.model_dump()
            for name in UNUSED_BY_SVM:
                if values[name] != (1 if name == "epochs" else type(self).model_fields[name].default):
                    raise ValueError(f"finetune svm has no {name}: it only fits an SVM to the features, once")
        if self.pretrained and self.stem == "cifar":
            raise ValueError("a pretrained network keeps its own stem: leave --stem at auto")
        if self.weights_digest and not self.pretrained:
            raise ValueError("weights_digest needs --pretrained")

        # The data
        if self.dataset == "pets" and not self.image_size and not self.pretrained:
            raise ValueError("pets are photographs of many sizes; give --image-size, such as 224")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Config":
        """Convert and check a mapping of options; raise UserError with one sentence for each wrong value."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError("; ".join(sentence(detail) for detail in error.errors())) from None

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> "Config":
        """Read the config that a run recorded, without `setting`: its pairs are among the other values."""
        return cls.parse({name: value for name, value in values.items() if name != "setting"})

    def identity(self) -> dict[str, Any]:
        """Return the values that decide what is computed and that differ from the defaults."""
        values = self.model_dump()
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        for _, chosen, table in owners(values):
            for name in chosen:
                defaults |= own_knobs(table, name) or {}
        return {name: value for name, value in values.items() if is_identity(name) and value != defaults[name]}

    @property
    def fingerprint(self) -> str:
        """Return 10 hexadecimal digits: the digest of every option that the result depends on."""
        return _digest(self.identity())

    @property
    def group(self) -> str:
        """Return the fingerprint without the seed: the runs of a group are repeats."""
        return _digest({name: value for name, value in self.identity().items() if name != "seed"})

    @property
    def run_name(self) -> str:
        """Return the name of the run's directory."""
        words = (self.model[:MODEL_WORD], self.dataset.removeprefix("folder:")[:DATASET_WORD])
        name = "-".join([*words, f"s{self.seed}", self.fingerprint])
        return re.sub(r"[^A-Za-z0-9_. -]", "-", name)  # only characters that file systems, globs and W&B's ids allow

    @property
    def augmentations(self) -> dict[str, float | None]:
        """Return the chosen augmentations with their strengths; None for a flip, which has no strength."""
        return {
            name: None if name == "flip" else getattr(self, next(iter(AUGMENTATIONS[name]))) for name in self.augment
        }


def is_identity(name: str) -> bool:
    """Return whether an option is part of a run's identity."""
    return Config.model_fields[name].json_schema_extra["identity"]


UNUSED_BY_SVM = [
    name
    for name, field in Config.model_fields.items()
    if field.json_schema_extra["group"] in ("augmentation", "training", "optimization") and name != "seed"
]


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({"results_version": RESULTS_VERSION, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
