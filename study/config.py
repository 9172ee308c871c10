"""Every knob of a run, typed: from argv, a file or a sweep; and the run's identity.

    python -c "from study.config import Config; print(Config(model='cnn', dropout=0.5).run_name)"

The same class is the command line, the parameter space of a sweep, W&B's config and, through
`fingerprint`, the name of the run. A default is part of that identity: once released it stays.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from study.errors import UserError, nearest

RESULTS_VERSION = 1
"""Raised whenever a change makes the same config compute something else."""

NETWORKS: dict[str, dict[str, Any]] = {
    "single-block": {"filters": "32", "hidden": "100", "dropout": 0.0},
    "two-block": {"filters": "32,64", "hidden": "100", "dropout": 0.0},
    "cnn": {"filters": "32,64,128", "hidden": "100", "dropout": 0.0},
    "mlp": {"hidden": "100", "dropout": 0.0},
    "all-conv": {"filters": "32,64,128", "dropout": 0.0},
}
"""The networks, each with the knobs that it has and its own defaults for them."""

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.01, "momentum": 0.9},
    "adam": {"lr": 0.001},
}
"""The optimizers, each with the knobs that it has and its own defaults for them."""

DATASETS = ("digits", "cifar10")
"""The data sets known by name; any other is a `folder:NAME` of class folders."""

AUGMENTATIONS = ("flip", "crop")
"""In the order in which they are applied."""

HISTORY_METRICS = (
    "train/loss", "train/acc", "val/loss", "val/acc", "lr",
    "time/epoch", "time/images_per_second", "memory/peak_mb",
)  # fmt: skip
"""Logged once per epoch, beside `epoch`."""

SUMMARY_METRICS = (
    "best/epoch", "best/val_acc", "best/val_loss", "best/train_acc", "best/train_loss",
    "test/acc", "test/loss",
    "last/epoch", "last/val_acc", "last/val_loss", "last/train_acc", "last/train_loss",
    "params", "param_bytes", "flops", "iterations", "train_seconds",
)  # fmt: skip
"""Written once, at the end of a run."""


def _name_of(kind: str, names: tuple[str, ...], prefix: str = "") -> BeforeValidator:
    """Make a check that a text is one of `names`, or begins with `prefix`."""

    def check(value: Any) -> str:
        if value in names or (prefix and isinstance(value, str) and value.removeprefix(prefix) not in ("", value)):
            return value
        known = [*names, f"{prefix}NAME"] if prefix else names
        raise ValueError(f"unknown {kind} {value!r}; {nearest(value, known)}")

    return BeforeValidator(check)


def _listed_augmentations(value: Any) -> str:
    """Put a comma list of augmentations into one order, each once."""
    words = value.split(",") if isinstance(value, str) else value or ()
    wanted = {str(word).strip() for word in words} - {"", "none", "None"}
    for word in sorted(wanted - set(AUGMENTATIONS)):
        raise ValueError(f"unknown augmentation {word!r}; {nearest(word, AUGMENTATIONS)}")
    return ",".join(sorted(wanted))


def _listed_widths(value: Any) -> str | None:
    """Check a comma list of layer widths, such as 32,64,128; a single number will do."""
    if value is None:
        return None
    words = value if isinstance(value, list | tuple) else str(value).removesuffix(".0").split(",")
    try:
        widths = [int(word) for word in words]
    except ValueError:
        widths = [0]
    if min(widths) < 1:
        raise ValueError(f"must be whole numbers from 1 separated by commas, such as 32,64, not {value!r}")
    return ",".join(map(str, widths))


def _mode(value: Any) -> str:
    modes = ("auto", "online", "offline", "disabled")
    if value not in modes:
        raise ValueError(f"must be one of {', '.join(modes)}, not {value!r}")
    return value


def _device(value: Any) -> str:
    kind, _, index = str(value).partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, not {value!r}")
    return value


Widths = Annotated[str | None, BeforeValidator(_listed_widths)]


def _knob(default: Any, group: str, text: str, **bounds: Any) -> Any:
    """Declare a knob that decides what a run computes."""
    return Field(default, description=text, json_schema_extra={"group": group, "identity": True}, **bounds)


def _note(default: Any, group: str, text: str, **bounds: Any) -> Any:
    """Declare a knob that changes where or how a run is computed or recorded, not what."""
    return Field(default, description=text, json_schema_extra={"group": group, "identity": False}, **bounds)


class Config(BaseModel):
    """One run. Frozen; every value has its declared type and lies within its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: Annotated[str, _name_of("model", tuple(NETWORKS))] = _knob(
        "two-block", "network", f"network: {', '.join(NETWORKS)}"
    )
    filters: Widths = _knob(None, "network", "filters of each convolution block, such as 32,64,128")
    hidden: Widths = _knob(None, "network", "units of each hidden fully connected layer, such as 100")
    dropout: float | None = _knob(None, "network", "probability of dropping a unit, 0 <= p < 1", ge=0, lt=1)

    dataset: Annotated[str, _name_of("data set", DATASETS, "folder:")] = _knob(
        "cifar10", "data", f"data set: {', '.join(DATASETS)}, or folder:NAME for DATA_DIR/NAME/train/CLASS/*"
    )
    image_size: int | None = _knob(
        None, "data", "side in pixels to which images are resized (a folder's are also centre-cropped); "
        "none keeps their own", ge=1, le=1024,
    )  # fmt: skip
    augment: Annotated[str, BeforeValidator(_listed_augmentations)] = _knob(
        "", "data", f"comma list of augmentations: {', '.join(AUGMENTATIONS)}; empty is none"
    )
    split_seed: int = _knob(0, "data", "seed of the split into training, validation and test images", ge=0)

    epochs: int = _knob(30, "training", "passes over the training images", ge=1)
    batch_size: int = _knob(64, "training", "images per step", ge=1)
    optimizer: Annotated[str, _name_of("optimizer", tuple(OPTIMIZERS))] = _knob(
        "sgd", "training", f"optimizer: {', '.join(OPTIMIZERS)}"
    )
    lr: float | None = _knob(None, "training", "learning rate; sgd 0.01, adam 0.001 unless given", gt=0)
    momentum: float | None = _knob(None, "training", "momentum of sgd; 0.9 unless given", ge=0, lt=1)
    weight_decay: float = _knob(0.0, "training", "L2 penalty on all parameters", ge=0)
    seed: int = _knob(0, "training", "seed of the initial weights, the data order, dropout and augmentation", ge=0)

    device: Annotated[str, BeforeValidator(_device)] = _note(
        "auto", "execution", "auto (cuda, else mps, else cpu), cpu, mps, cuda or cuda:N"
    )
    threads: int = _note(0, "execution", "CPU threads; 0 is one per core", ge=0)
    data_dir: str = _note("data", "execution", "folder that holds the data sets, and where downloads go")

    runs_dir: str = _note("runs", "records", "folder in which every run gets a directory of its own")
    keep_weights: bool = _note(True, "records", "keep the best weights in the run directory at the end")
    wandb: Annotated[str, BeforeValidator(_mode)] = _note(
        "auto", "records", "W&B: online, offline, disabled; auto is online where there is a key, else offline"
    )
    entity: str = _note("", "records", "W&B entity; empty is your default")
    project: str = _note("image-classifier-study", "records", "W&B project")
    tags: str = _note("", "records", "comma list of W&B tags")
    notes: str = _note("", "records", "W&B notes")
    setting: str = _note(
        "", "records", "key=value pairs that a sweep varies together; they override the options beside it"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> dict[str, Any]:
        """Apply `setting`, refuse unknown keys, and fill in the network's and the optimizer's own defaults."""
        values = {key.replace("-", "_"): value for key, value in dict(given).items()}
        values |= pairs(values.get("setting") or "")
        for name, value in values.items():
            field = cls.model_fields.get(name)
            if field is None:
                raise ValueError(f"unknown option {name!r}; {nearest(name, cls.model_fields)}")
            if isinstance(value, bool) and field.annotation is not bool:
                raise ValueError(f"{name} needs a value, such as --{name.replace('_', '-')}=…, not {value!r}")
            if isinstance(value, Mapping):
                raise ValueError(f"{name} cannot hold nested parameters; write them flat")
            if isinstance(value, int | float) and field.annotation is str:
                values[name] = str(value)
        for owner, table in (("model", NETWORKS), ("optimizer", OPTIMIZERS)):
            values |= _own_knobs(owner, values.get(owner, cls.model_fields[owner].default), table, values)
        return values

    @model_validator(mode="after")
    def _blocks(self) -> "Config":
        own = NETWORKS[self.model].get("filters")
        if own and len(self.filters.split(",")) != len(own.split(",")):
            raise ValueError(
                f"filters of {self.model} must be as many as its blocks, such as {own}, not {self.filters}"
            )
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Config":
        """Convert and check a mapping from anywhere; a UserError says in a sentence what is wrong with it."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError("; ".join(_sentence(detail) for detail in error.errors())) from None

    def identity(self) -> dict[str, Any]:
        """Return the values that decide what is computed and that differ from the defaults."""
        own = NETWORKS[self.model] | OPTIMIZERS[self.optimizer]
        return {
            name: value
            for name, value in self.model_dump().items()
            if is_identity(name) and value != own.get(name, type(self).model_fields[name].default)
        }

    @property
    def fingerprint(self) -> str:
        """Return 10 hexadecimal digits that stand for everything the result depends on."""
        return _digest(self.identity())

    @property
    def group(self) -> str:
        """Return the fingerprint but for the seed: runs of one group are repeats."""
        return _digest({name: value for name, value in self.identity().items() if name != "seed"})

    @property
    def run_name(self) -> str:
        """Return the name of the run's directory."""
        dataset = self.dataset.removeprefix("folder:").replace("/", "-")
        return f"{self.model}-{dataset}-s{self.seed}-{self.fingerprint}"


def is_identity(name: str) -> bool:
    """Tell whether a field decides what is computed."""
    return Config.model_fields[name].json_schema_extra["identity"]


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({"results_version": RESULTS_VERSION, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _own_knobs(owner: str, name: str, table: dict[str, dict[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the knobs that belong to one network or optimizer; refuse those that it lacks."""
    own = table.get(name, {})
    result = {}
    for knob in dict.fromkeys(knob for knobs in table.values() for knob in knobs):
        value = values.get(knob)
        if value in (None, "None", ""):
            result[knob] = own.get(knob)
        elif knob not in own and name in table:
            raise ValueError(f"{owner} {name} has no {knob}; it has {', '.join(own)}")
    return result


def pairs(text: str) -> dict[str, str]:
    """Read `key=value` pairs separated by spaces."""
    result = {}
    for word in shlex.split(str(text)):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"setting must hold key=value pairs, such as 'model=mlp epochs=50', not {word!r}")
        if key.replace("-", "_") == "setting":
            raise ValueError("setting cannot hold another setting")
        result[key.replace("-", "_")] = value
    return result


def _sentence(detail: Mapping[str, Any]) -> str:
    """Say what is wrong with one value."""
    name, given, bounds = ".".join(map(str, detail["loc"][:1])), detail["input"], detail.get("ctx", {})
    kinds = {
        "greater_than_equal": "at least {ge}", "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}", "less_than": "less than {lt}",
        "int_parsing": "a whole number", "int_from_float": "a whole number", "int_type": "a whole number",
        "float_parsing": "a number", "float_type": "a number", "finite_number": "a finite number",
        "bool_parsing": "True or False", "bool_type": "True or False", "string_type": "text",
    }  # fmt: skip
    if detail["type"] in kinds:
        return f"{name} must be {kinds[detail['type']].format(**bounds)}, not {given!r}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{name} {message}" if message.startswith("must") else message
