"""The options of a run, checked together, and the identity of a run.

    python -c "from study.config import Config; print(Config(model='cnn', dropout=0.5).run_name)"

The same class defines the command line, the parameter space of a sweep, W&B's config and, through
`fingerprint`, the name of the run. Defaults are part of that identity, so a released default must not change.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, ValidationInfo, model_validator

from study.config.checks import (
    LONGEST_TAG,
    NONE,
    csv_columns,
    digest_of_weights,
    is_from_scratch,
    is_true,
    meant,
    own_defaults,
    owners,
    sentence,
    too_small,
    user_path,
    whole,
    wrong_classes,
)
from study.config.choices import AUGMENTATIONS, DATASETS, NETWORKS, own_options
from study.config.options import Options
from study.config.setting import read_list, read_pairs
from study.system.errors import Mistakes, Place, UserError

RESULTS_VERSION = 3
"""Increased by every change that makes the same config give other results."""

DROP_UNUSED = "drop unused options"
"""The context of a validation that drops the options that do not apply to the chosen names."""

CHOOSERS = (
    "model", "pretrained", "weights", "finetune", "dataset", "augment", "early_stopping", "optimizer", "schedule",
    "setting",
)  # fmt: skip
"""Options that decide which others apply."""

PATHS = ("weights", "data_dir", "runs_dir")
"""Options that name a file or a folder."""

MODEL_WORD = 60
DATASET_WORD = 40
"""A run's name has at most this many characters of the network and of the data set, to fit into W&B's ids."""


class _InSentences(type(Options)):
    """Lets `Config(…)` raise the sentences of `Config.parse`; a method __init__ would slow down pydantic's checks."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        with suppress(ValidationError):
            return super().__call__(*args, **options)
        try:
            return cls.parse(options)
        except Mistakes as error:
            raise UserError(str(error)) from None


class Config(Options, metaclass=_InSentences):
    """The options of one run, each with a default: `Config(model="cnn", dataset="digits", dropout=0.5)`.

    Frozen; every value has its declared type and lies within its bounds. Where an option has no default below, that of
    the chosen network, optimizer, schedule or augmentation counts, or it is off. Values may also be text, as on the
    command line, and lists comma lists: `augment="flip,crop"`. Raises UserError with what is wrong.
    """

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, options: Any, info: ValidationInfo) -> dict[str, Any]:
        """Apply `setting`, refuse unknown keys, and fill in the defaults that depend on the chosen names.

        With the context DROP_UNUSED, options that do not apply to the chosen names are dropped, except in `setting`.
        """
        # Let the pairs of `setting` override the other options
        setting, values = _flat(options)

        # Find unknown options, and convert what YAML and the command line write differently
        mistakes: dict[str, str] = {}
        for name, value in values.items():
            try:
                values[name] = _converted(name, value)
            except ValueError as error:
                mistakes[name] = str(error)

        # Pretrained weights mean that the network is pretrained
        if values.get("weights"):
            values |= {"weights": None, "weights_digest": None} if is_from_scratch(values) else {"pretrained": True}

        # Drop a way to fine-tune where nothing is pretrained, before it decides what else applies
        drops = info.context == DROP_UNUSED
        if drops and "finetune" not in setting and not _is_pretrained(values):
            values["finetune"] = None

        # Fit an SVM in one epoch; if `setting` chose it, drop the options that it does not use
        if values.get("finetune") == "svm":
            unused = set(UNUSED_BY_SVM) - setting.keys() if drops or "finetune" in setting else ()
            values = {"epochs": 1} | {name: value for name, value in values.items() if name not in unused}

        # Fill in the defaults, first the fixed ones, then those of the chosen names
        values = {name: field.default for name, field in cls.model_fields.items()} | values
        for owner, chosen, table in owners(values):
            defaults, misplaced = own_defaults(owner, chosen, table, values)
            if drops:
                dropped = misplaced.keys() - setting.keys()
                defaults |= dict.fromkeys(dropped)
                misplaced = {name: text for name, text in misplaced.items() if name not in dropped}
            mistakes |= misplaced
            values |= defaults
        if mistakes:
            raise Mistakes([((name,), text) for name, text in mistakes.items()])
        return values

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        """Raise Mistakes for values that exclude each other."""
        conflicts = [((name,), text) for name, text in self._conflicts()]
        if conflicts:
            raise Mistakes(conflicts)
        return self

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield each option whose value does not suit the others, with a sentence."""
        # The network: one width per block, images that are large enough
        default = own_options(NETWORKS, self.model).get("filters")
        if default and len(self.filters) != len(read_list(default)):
            text = f"filters of {self.model} must be as many as its blocks, such as {default}, not {self.filters}"
            yield "filters", text
        if text := too_small(self.model, self.dataset, self.image_size):
            yield "image_size" if self.image_size else "model", text

        # The optimization
        if self.warmup_epochs and self.warmup_epochs > self.epochs:
            yield "warmup_epochs", f"warmup_epochs must be at most epochs, {self.epochs}, not {self.warmup_epochs:g}"
        if self.nesterov and not self.momentum:
            yield "nesterov", "nesterov needs a momentum greater than 0"
        if self.class_weights and self.sampling:
            text = "would compensate twice for classes of different sizes: leave out one of them"
            yield "sampling", f"class_weights and sampling together {text}"

        # Pretrained networks
        if self.finetune == "svm":
            values = self.model_dump()
            for name in UNUSED_BY_SVM:
                if values[name] != (1 if name == "epochs" else type(self).model_fields[name].default):
                    yield name, f"finetune svm has no {name}: it only fits an SVM to the features, once"
        if self.pretrained and self.stem == "cifar":
            yield "stem", "a pretrained network keeps its own stem: leave --stem at auto"
        if self.weights_digest and not self.pretrained:
            yield "weights_digest", "weights_digest needs --pretrained"

        # The records
        if "model" in self.wandb_extras and not self.keep_weights:
            yield "wandb_extras", "wandb_extras model needs the weights: leave --keep-weights at True"

        # The data
        if self.dataset in DATASETS:
            known = DATASETS[self.dataset].classes or self.classes
            if text := wrong_classes(self.dataset, self.classes, known):
                yield "classes", text
            for name in ("labels", "group_by"):
                if getattr(self, name):
                    yield name, f"{name} is only for a folder of your own, folder:NAME, not for {self.dataset}"
            if self.test_share and DATASETS[self.dataset].has_test:
                yield "test_share", f"{self.dataset} has test images of its own: leave out --test-share"
        if self.dataset == "pets" and not self.image_size and not self.pretrained:
            yield "dataset", "pets are photographs of many sizes; give --image-size, such as 224"
        if self.group_by and "(" not in self.group_by and not csv_columns(self.labels or "")[0]:
            text = f"must have a group in round brackets, such as '(patient[0-9]+)', not {self.group_by!r}"
            yield "group_by", f"group_by {text}; a column needs a CSV file, --labels labels.csv"
        if (self.val_share or 0) + (self.test_share or 0) >= 1:
            shares = f"{self.val_share:g} and {self.test_share:g}"
            yield "val_share", f"val_share and test_share must leave images for training, not be {shares}"

    @classmethod
    def parse(cls, values: Mapping[str, Any], drop_unused: bool = False) -> "Config":
        """Convert and check a mapping of options, with the digest of a file of weights.

        With `drop_unused`, options that do not apply to the chosen names, such as the momentum of adam, are dropped,
        except those in `setting`; without, they are mistakes. Raises Mistakes with a sentence for each wrong option, at
        the place (name,).
        """
        try:
            flat = _flat(values)[1]
            values = {**values, **digest_of_weights(flat)}
        except ValueError as error:  # of `setting`
            raise Mistakes([(("setting",), str(error))]) from None

        context = DROP_UNUSED if drop_unused else None
        try:
            return cls.model_validate(values, context=context)
        except ValidationError as error:
            mistakes = dict(_mistakes(error))
        if ("weights",) in mistakes:  # it implies others
            mistakes = {place: text for place, text in mistakes.items() if not place or place[0] in flat}

        # Options that are unknown or do not apply hide wrong values of the others; look only for these
        known = {name: value for name, value in flat.items() if (name,) not in mistakes and name != "setting"}
        try:
            cls.model_validate(known, context=DROP_UNUSED)
        except ValidationError as error:
            mistakes = {detail["loc"][:1]: sentence(detail) for detail in error.errors() if detail["loc"]} | mistakes
        raise Mistakes(list(mistakes.items()))

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> "Config":
        """Read the config that a run recorded, without `setting`: its pairs are among the other values.

        Values that did not apply to the run, which W&B keeps for a sweep, are dropped, and so is the end of a tag that
        is too long, which was once allowed.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"a recorded config is a mapping of options, not {str(values)[:40]!r}")
        values = {name: value for name, value in values.items() if name != "setting"}
        if values.get("tags"):
            values["tags"] = ",".join(tag.strip()[:LONGEST_TAG] for tag in str(values["tags"]).split(","))
        return cls.parse(values, drop_unused=True)

    def uses(self, name: str) -> bool:
        """Return whether an option that was given a value applies to the chosen names."""
        return getattr(self, name) is not None and not (self.finetune == "svm" and name in UNUSED_BY_SVM)

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
        """Return the chosen augmentations with their strengths; None for those that have no strength."""
        strengths = {
            name: [option for option, default in AUGMENTATIONS[name].items() if default is not False]
            for name in self.augment
        }
        return {name: getattr(self, options[0]) if options else None for name, options in strengths.items()}


@lru_cache(maxsize=20_000)
def _fingerprint(config: Config) -> str:
    return _digest(config.identity())


def _is_pretrained(values: Mapping[str, Any]) -> bool:
    """Return whether values ask for pretrained weights of a network that can have them."""
    model = str(values.get("model", Config.model_fields["model"].default))
    return "pretrained" in (own_options(NETWORKS, model) or {}) and is_true(values.get("pretrained"))


def check_value(name: str, value: Any) -> Any:
    """Return a value of one option as a config has it; raise Mistakes if the option is unknown or cannot have it.

    What depends on other options is not checked.
    """
    try:
        converted = _converted(name, value)
        return _adapter(name).validate_python(converted)
    except ValidationError as error:
        raise Mistakes([((), text) for _, text in _mistakes(error, name)]) from None
    except ValueError as error:
        raise Mistakes([((), str(error))]) from None


@cache
def _adapter(name: str) -> TypeAdapter:
    """Return pydantic's check of one option."""
    field = Config.model_fields[name]
    return TypeAdapter(Annotated[field.annotation, field], config=ConfigDict(allow_inf_nan=False))


def _converted(name: str, value: Any) -> Any:
    """Convert what YAML and the command line write differently; raise ValueError for what no option takes."""
    field = Config.model_fields.get(name)
    if field is None:
        raise ValueError(f"unknown option {name!r}; {meant(name, Config.model_fields)}")
    if isinstance(value, bool) and field.annotation not in (bool, bool | None):
        hint = f"such as --{name.replace('_', '-')}=…" if value else "not False, as YAML reads no and off: quote names"
        raise ValueError(f"{name} needs a value, {hint}")
    if isinstance(value, Mapping):
        raise ValueError(f"{name} cannot hold nested parameters; write them flat")
    if value in NONE and field.default is None:
        return None
    if value is None and field.default in ("none", ""):
        return field.default
    if isinstance(value, int | float) and field.annotation is str:
        return str(value)
    if isinstance(value, str) and field.annotation in (int, int | None):
        return whole(value)
    return value


def _mistakes(error: ValidationError, name: str = "") -> list[tuple[Place, str]]:
    """Return pydantic's errors as places and sentences; `name` is the option, where pydantic does not know it."""
    result = []
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Mistakes):
            result += cause.mistakes
        else:
            place = (name,) if name else detail["loc"][:1]
            result.append((place, sentence(detail | {"loc": place})))
    return result


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
    if field.json_schema_extra["group"] in ("augmentation", "training", "optimization")
    and name not in ("seed", "metric")
]


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({"results_version": RESULTS_VERSION, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
