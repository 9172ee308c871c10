"""The options of a run, checked together, and the identity of a run.

    python -c "from study.config import Config; print(Config(model='cnn', dropout=0.5).run_name)"

The same class defines the command line, the parameter space of a sweep, W&B's config and, through
`fingerprint`, the name of the run. Defaults are part of that identity, so a released default must not change.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic import ValidationError, model_validator

from study.config.checks import (
    digest_of_weights,
    fill_own_options,
    is_from_scratch,
    meant,
    owners,
    refuse_small_images,
    sentence,
    user_path,
    whole,
)
from study.config.choices import AUGMENTATIONS, NETWORKS, own_options
from study.config.options import Options
from study.config.setting import read_list, read_pairs
from study.system.errors import UserError

RESULTS_VERSION = 3
"""Increased by every change that makes the same config give other results."""

PATHS = ("weights", "data_dir", "runs_dir")
"""Options that name a file or a folder."""

MODEL_WORD = 60
DATASET_WORD = 40
"""A run's name has at most this many characters of the network and of the data set, to fit into W&B's ids."""


class Config(Options):
    """The options of one run. Frozen; every value has its declared type and lies within its bounds."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, options: Any) -> dict[str, Any]:
        """Apply `setting`, refuse unknown keys, and fill in the defaults that depend on the chosen names."""
        # Let the pairs of `setting` override the other options
        setting, values = _flat(options)

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
            if isinstance(value, str) and field.annotation in (int, int | None):
                values[name] = whole(value)
            if value in ("None", "none", "") and field.default is None:
                values[name] = None

        # Pretrained weights mean that the network is pretrained
        if values.get("weights"):
            values |= {"weights": None, "weights_digest": None} if is_from_scratch(values) else {"pretrained": True}

        # Fit an SVM in one epoch; if `setting` chose it, drop the options that it does not use
        if values.get("finetune") == "svm":
            unused = set(UNUSED_BY_SVM) - setting.keys() if "finetune" in setting else ()
            values = {"epochs": 1} | {name: value for name, value in values.items() if name not in unused}

        # Fill in the defaults, first the fixed ones, then those of the chosen names
        values = {name: field.default for name, field in cls.model_fields.items()} | values
        for owner, chosen, table in owners(values):
            values |= fill_own_options(owner, chosen, table, values)
        return values

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        """Raise ValueError for values that exclude each other."""
        # The network: one width per block, images that are large enough
        default = own_options(NETWORKS, self.model).get("filters")
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
        """Convert and check a mapping of options, with the digest of a file of weights.

        Raises UserError with one sentence for each wrong value.
        """
        try:
            return cls.model_validate({**values, **digest_of_weights(_flat(values)[1])})
        except ValidationError as error:
            raise UserError("; ".join(sentence(detail) for detail in error.errors())) from None
        except ValueError as error:  # of `setting`
            raise UserError(str(error)) from None

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
                defaults |= own_options(table, name) or {}
        return {name: value for name, value in values.items() if is_identity(name) and value != defaults[name]}

    @property
    def fingerprint(self) -> str:
        """Return 10 hexadecimal digits: the digest of every option that the result depends on."""
        return _fingerprint(self)

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


@lru_cache(maxsize=20_000)
def _fingerprint(config: Config) -> str:
    return _digest(config.identity())


def _flat(options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the pairs of `setting`, and the options that they override.

    Names have underscores, and `~` in paths becomes the home folder.
    """
    values = {key.replace("-", "_"): value for key, value in dict(options).items()}
    setting = read_pairs(values.get("setting") or "")
    values |= setting
    return setting, values | {name: user_path(values[name]) for name in PATHS if isinstance(values.get(name), str)}


@cache
def affects(name: str, what: str) -> bool:
    """Return whether an option affects the `result`, the `start` or the `work` of a step."""
    return what in Config.model_fields[name].json_schema_extra["affects"]


def is_identity(name: str) -> bool:
    """Return whether an option is part of a run's identity."""
    return affects(name, "result")


UNUSED_BY_SVM = [
    name
    for name, field in Config.model_fields.items()
    if field.json_schema_extra["group"] in ("augmentation", "training", "optimization") and name != "seed"
]


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({"results_version": RESULTS_VERSION, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
