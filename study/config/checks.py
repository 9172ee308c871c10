"""Convert and check the values that users type, and phrase the errors.

python -c "from study.config.checks import is_true; print(is_true('yes'))"
"""

import argparse
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from study.config import aliases
from study.config.choices import (
    AUGMENTATIONS,
    DATASETS,
    EARLY_STOPPING,
    FINETUNING_SCHEDULES,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULES,
    SMALLEST_SIDES,
    TRANSFER,
    Table,
    own_options,
)
from study.config.setting import Listed, read_list
from study.system.errors import UserError, closest, nearest
from study.system.files import composed, known_digest

NONE = (None, "None", "none", "")
"""Values that mean that an option is not set."""

LONGEST_TAG = 64
"""Most characters that W&B allows in a tag."""

FEW = 6
"""At most this many owners of an option are listed in an error."""


def one_of(
    kind: str,
    names: Iterable[str],
    *prefixes: str,
    own: str = "",
    guess: Callable[[str], str | None] | None = None,
) -> BeforeValidator:
    """Make a check that a text is one of `names`, or one of the prefixes followed by a name.

    `own` is a hint for a name that resembles none of them. `guess` returns the name that another one stands for; by
    default it looks among what other projects call such values.
    """
    guess = guess or partial(aliases.value, kind)
    names = [name for name in names if not name.endswith(":")]

    def check(value: Any) -> Any:
        if value is None:
            return None
        matches = [prefix for prefix in prefixes if str(value).startswith(prefix) and value != prefix]
        if value not in names and not matches:
            if meant := guess(str(value)):
                raise ValueError(f"unknown {kind} {value!r}; did you mean {meant!r}?")
            if prefixes and (not closest(value, names) or str(value).lower() in aliases.OTHERS):
                (prefix,) = prefixes
                other = f"{prefix}{value}" if aliases.is_name(str(value)) else f"{prefix}NAME"
                where = "DATA_DIR" if prefix == "folder:" else prefix[:-1]
                known = ", ".join(names)
                raise ValueError(f"unknown {kind} {value!r}; write {other} if {where} has it, or one of: {known}{own}")
            raise ValueError(f"unknown {kind} {value!r}; {_known(value, names, own)}")
        return value

    return BeforeValidator(check)


def _known(word: str, names: Iterable[str], own: str) -> str:
    """Return a hint for an error: the name that was probably meant, else all known names and the hint `own`."""
    hint = nearest(word, names)
    return hint if hint.startswith("did") else hint + own


def list_of(kind: str, names: Iterable[str] | None = None, in_order: bool = False, *, own: str = "") -> BeforeValidator:
    """Make a check of a comma list of names; unless it is `in_order`, drop repeats and sort it as `names` are.

    `own` is a hint for a name that resembles none of them.
    """

    def check(value: Any) -> Listed | None:
        if value is None and in_order:
            return None
        # Drop empty words; "none" is empty too, except as the name of a class
        absent = ("",) if names is None else ("", "none", "None")
        wanted = [composed(word) for word in read_list("" if value is None else value) if word not in absent]
        # Check each name
        for word in wanted if names is not None else ():
            if word not in names:
                known = aliases.value(kind, word)
                hint = f"did you mean {known!r}?" if known else _known(word, names, own)
                raise ValueError(f"unknown {kind} {word!r}; {hint}")
        return Listed(wanted if in_order else sorted(set(wanted), key=None if names is None else list(names).index))

    return BeforeValidator(check)


def _widths(value: Any) -> Listed | None:
    """Convert a comma list or a list of layer widths; raise ValueError if it is neither."""
    if value is None:
        return None
    try:
        widths = Listed(int(word.removesuffix(".0")) for word in read_list(value))
    except ValueError:
        widths = Listed([0])
    if not widths or min(widths) < 1:
        raise ValueError(f"must be whole numbers from 1 separated by commas, such as 32,64, not {value!r}")
    return widths


def _device(value: Any) -> str:
    kind, _, index = str(value).partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, not {value!r}")
    return value


def _wandb_name(value: Any) -> str:
    if re.search(r"[/\\#?%:]", str(value)) or len(str(value)) > 128:
        raise ValueError(f"must have no /, \\, #, ?, % or : and at most 128 characters (W&B's rule), not {value!r}")
    return value


def _tags(value: Any) -> Any:
    for tag in str(value).split(","):
        if len(tag.strip()) > LONGEST_TAG:
            raise ValueError(f"must each have at most {LONGEST_TAG} characters (W&B's rule), not {tag!r}")
    return value


def pattern(text: str) -> re.Pattern:
    """Compile a regular expression; raise ValueError if it is wrong or has no group."""
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression, not {text!r}: {error}") from None
    if not compiled.groups:
        raise ValueError(f"must have a group in round brackets, such as '([a-z]+)_', not {text!r}")
    return compiled


def csv_columns(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the CSV file that a value names and, of FILE:COLUMN,COLUMN, the columns; ("", ()) if it names none."""
    match = re.fullmatch(r"(.+?\.[ct]sv)(?::(.*))?", text, re.IGNORECASE)
    return (match[1], tuple(read_list(match[2])) if match[2] else ()) if match else ("", ())


def _labels(value: Any) -> Any:
    """Check the columns of a CSV file, or a pattern."""
    if value is None:
        return None
    file, columns = csv_columns(str(value))
    if len(columns) not in (0, 2):
        raise ValueError(f"must name two columns, those of file and label, such as {file}:image,class, not {value!r}")
    if not file:
        pattern(str(value))
    return str(value)


def _group_by(value: Any) -> Any:
    """Check a pattern, or take the name of a column."""
    if "(" in str(value):
        pattern(str(value))
    return value


LabelSource = Annotated[str | None, BeforeValidator(_labels)]
"""Where labels are: a CSV file, with or without its columns, or a pattern of file names."""

Subject = Annotated[str | None, BeforeValidator(_group_by)]
"""What the images of a subject share: a pattern of file names or a column of the CSV file."""

Tags = Annotated[str, BeforeValidator(_tags)]
"""W&B's tags of a run, a comma list."""

WandbName = Annotated[str, BeforeValidator(_wandb_name)]
"""The name of an entity or a project in W&B."""

AS_TEXT = PlainSerializer(lambda value: value if value is None else str(value))
"""Records a list as a comma list."""

Names = Annotated[InstanceOf[Listed], AS_TEXT]
"""A list of names whose order matters."""

NameSet = Annotated[InstanceOf[Listed], PlainSerializer(lambda value: str(Listed(sorted(value))))]
"""A list of names whose order does not matter; it is recorded in alphabetical order."""

Widths = Annotated[InstanceOf[Listed] | None, AS_TEXT, BeforeValidator(_widths)]
"""A list of layer widths, such as 32,64,128."""

Device = Annotated[str, BeforeValidator(_device)]


FALSE = ("false", "0", "0.0", "f", "n", "no", "off")
"""What means False, as a user types it."""


def is_true(value: Any) -> bool:
    """Return whether a value, as a user types it, means True."""
    return str(value).lower() in ("true", "1", "1.0", "t", "y", "yes", "on")


def user_path(text: str) -> str:
    """Expand `~` to the home folder, which shells do not do in `--option=~/folder`."""
    return os.path.expanduser(text)  # noqa: PTH111 — Path would normalise the rest of the path


def whole(text: str) -> int | str:
    """Convert a text such as 1e2, which YAML does not read as a number, to a whole number; return others unchanged."""
    with suppress(ValueError):
        return int(number) if "e" in text.lower() and (number := float(text)).is_integer() else text
    return text


def positive(text: str) -> int:
    """Read a whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def digest_of_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digest of the file of `weights`, unless it is known or the network is trained from scratch."""
    if not values.get("weights") or values.get("weights_digest") or is_from_scratch(values):
        return {}
    try:
        return {"weights_digest": known_digest(Path(str(values["weights"])))}
    except OSError as error:
        raise UserError(f"{values['weights']} cannot be read: {error.strerror}") from None


def is_from_scratch(values: Mapping[str, Any]) -> bool:
    """Return whether values say that a network is not pretrained."""
    return values.get("pretrained") is not None and not is_true(values["pretrained"])


def owners(values: Mapping[str, Any]) -> Iterator[tuple[str, list[str], Table]]:
    """Yield each option that owns options, the names chosen for it, and the table of their options.

    The order matters: an option of one owner may choose the names of a later one.
    """
    # The network, and how its training starts
    yield "model", [str(values["model"])], NETWORKS
    pretrained = is_true(values["pretrained"])
    transfer = [f"with finetune {values['finetune'] or 'all'}" if pretrained else "from scratch"]
    yield "a network", transfer, TRANSFER
    # The optimizer and its schedule, which an SVM does not have
    svm = ["svm"] if values["finetune"] == "svm" else None  # in no table, so `own_defaults` skips it
    yield "optimizer", svm or [str(values["optimizer"])], OPTIMIZERS
    yield "schedule", svm or [str(values["schedule"])], FINETUNING_SCHEDULES if pretrained else SCHEDULES
    # Each chosen augmentation, and early stopping
    words = [str(values["augment"])]
    with suppress(ValueError):  # a list that cannot be read is a mistake of its own
        words = read_list("" if values["augment"] is None else values["augment"])
    yield "augment", [word for word in words if word not in ("", "none", "None")], AUGMENTATIONS
    yield "a run", ["with early stopping" if values["early_stopping"] else "without early stopping"], EARLY_STOPPING


def own_defaults(
    owner: str, chosen: list[str], table: Table, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return defaults for the options of a table that `values` lacks, and a sentence for each that does not apply.

    The default is that of the chosen names, or None if they do not have the option. An option applies if one of the
    chosen names has it.
    """
    # Collect the defaults of the chosen names
    known = [name for name in chosen if own_options(table, name) is not None]
    own = {option: default for name in known for option, default in own_options(table, name).items()}
    # Fill in the options that are not set, and find those that do not apply
    defaults: dict[str, Any] = {}
    misplaced: dict[str, str] = {}
    for option in dict.fromkeys(option for options in table.values() for option in options):
        value = values.get(option)
        if value in NONE:
            defaults[option] = own.get(option)
        elif option not in own and len(known) == len(chosen):
            having = [
                f"{name}NAME" if name.endswith(":") else name for name, options in table.items() if option in options
            ]
            owners_hint = f"only {', '.join(having)} {'have' if len(having) > 1 else 'has'} it"
            hint = f"it has {', '.join(own)}" if own and len(having) > FEW else owners_hint
            hint = "it needs --pretrained" if chosen == ["from scratch"] else hint
            misplaced[option] = f"{owner} {','.join(chosen) or 'none'} has no {option}; {hint}"
    return defaults, misplaced


def too_small(model: str, dataset: str, image_size: int | None) -> str:
    """Return a sentence if the images of a data set, if their size is known, are too small for a network, else ""."""
    known = DATASETS.get(dataset)
    side = image_size or (known and known.side)
    smallest = SMALLEST_SIDES.get(model, 1)
    return f"{model} needs images of at least {smallest} px, not {side}×{side}" if side and side < smallest else ""


def wrong_classes(dataset: str, chosen: Sequence[str], classes: Sequence[str]) -> str:
    """Return a sentence if a data set lacks one of the chosen classes or only one is chosen, else ""."""
    for name in chosen:
        if name not in classes:
            hint = "; quote a name that has a comma" if any("," in known for known in classes) else ""
            known = [str(Listed([name])) for name in classes]
            return f"{dataset} has no class {name!r}; {nearest(name, known)}{hint}"
    if len(set(chosen)) == 1:
        return f"classes must name two or more, such as {','.join(classes[:2])}, not only {chosen[0]}"
    return ""


def meant(
    name: str,
    fields: Mapping[str, Any],
    known: Iterable[str] = (),
    written: Callable[[str], str] = str,
    program: str = "python -m study.train",
) -> str:
    """Return a hint which option was probably meant, by the names of pydantic's fields or the start of their help.

    `known` replaces the names of the fields, where there are more options than fields. `written` writes an option as
    the reader types it; the help of `program` lists all.
    """
    # What other projects call our options, or have instead
    nothing = f"{aliases.NOTHING}; `{program} --help` lists all"
    if reason := aliases.without_option(name):
        return nothing if reason == aliases.NOTHING else reason
    if (other := aliases.option(name)) in fields:
        return f"did you mean {written(other)!r}?"

    # A typing mistake, or the start of an option's help
    guess = closest(name, known or fields)
    described = [option for option, field in fields.items() if field.description.startswith(name.replace("_", " "))]
    guess = guess or min(described, key=len, default=None)
    return f"did you mean {written(guess)!r}?" if guess else nothing


def sentence(detail: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence with the option, its bound and the value."""
    name = ".".join(map(str, detail["loc"][:1]))
    value = detail["input"]
    bounds = detail.get("ctx", {})

    # An unknown option can only come from the defaults in choices.py
    if detail["type"] == "extra_forbidden":
        return f"option {name!r} is in study/config/choices.py, but study/config/options.py lacks it"

    # Phrase the bounds and types that pydantic checks itself
    kinds = {
        "greater_than_equal": "at least {ge}", "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}", "less_than": "less than {lt}", "literal_error": "{expected}",
        "int_parsing": "a whole number", "int_from_float": "a whole number", "int_type": "a whole number",
        "float_parsing": "a number", "float_type": "a number", "finite_number": "a finite number",
        "bool_parsing": "True or False", "bool_type": "True or False", "string_type": "text",
    }  # fmt: skip
    if detail["type"] in kinds:
        return f"{name} must be {kinds[detail['type']].format(**bounds)}, not {value!r}"

    # The checks of this module raise whole sentences
    message = detail["msg"].removeprefix("Value error, ")
    return f"{name} {message}" if message.startswith("must") else message
