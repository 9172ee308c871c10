"""How what people type becomes the value of a knob, and the sentence they get when it cannot.

python -c "from study.config.checks import pairs; print(pairs('model=mlp epochs=50'))"
"""

import argparse
import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from study.config.choices import (
    AUGMENTATIONS,
    EARLY_STOPPING,
    FINETUNING_SCHEDULES,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULES,
    SIDES,
    SMALLEST_SIDES,
    TRANSFER,
    Table,
    own_knobs,
)
from study.system.errors import closest, nearest

FEW = 6
"""So many names that have an option are told to who gave it to another."""


def one_of(kind: str, names: Iterable[str], *prefixes: str) -> BeforeValidator:
    """Make a check that a text is one of `names`, or begins with one of the prefixes and goes on."""
    names = [name for name in names if not name.endswith(":")]

    def check(value: Any) -> Any:
        if value is None:
            return None
        begun = [prefix for prefix in prefixes if str(value).startswith(prefix) and value != prefix]
        if value not in names and not begun:
            known = [*names, *(f"{prefix}NAME" for prefix in prefixes)]
            raise ValueError(f"unknown {kind} {value!r}; {nearest(value, known)}")
        return value

    return BeforeValidator(check)


def _has_options(model: Any) -> Any:
    """Refuse a network that is in the registry only; that is read as text, since to import it takes torch a second."""
    registry = (Path(__file__).parent.with_name("models") / "__init__.py").read_text(encoding="utf-8")
    if str(model) not in NETWORKS and re.search(rf'^    "{re.escape(str(model))}": \w+\.\w+,$', registry, re.M):
        raise ValueError(
            f"model {model!r} is in study/models/__init__.py, but NETWORKS in study/config/choices.py lacks it"
        )
    return model


HasOptions = BeforeValidator(_has_options)


def list_of(kind: str, names: Iterable[str] | None = None, in_order: bool = False) -> BeforeValidator:
    """Make a check of a comma list of names; it is sorted, each name once, unless its order matters."""

    def check(value: Any) -> str | None:
        if value is None and in_order:
            return None
        words = value.split(",") if isinstance(value, str) else value or ()
        absent = ("",) if names is None else ("", "none", "None")  # a class may be called so
        wanted = [word for word in (str(word).strip() for word in words) if word not in absent]
        for word in wanted if names is not None else ():
            if word not in names:
                raise ValueError(f"unknown {kind} {word!r}; {nearest(word, names)}")
        return ",".join(wanted if in_order else sorted(set(wanted)))

    return BeforeValidator(check)


def _widths(value: Any) -> str | None:
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


def _device(value: Any) -> str:
    kind, _, index = str(value).partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, not {value!r}")
    return value


def _wandb_name(value: Any) -> str:
    if re.search(r"[/\\#?%:]", str(value)) or len(str(value)) > 128:
        raise ValueError(f"must have no /, \\, #, ?, % or : and at most 128 letters, as W&B's must, not {value!r}")
    return value


WandbName = Annotated[str, BeforeValidator(_wandb_name)]
"""The name of an entity or a project in W&B."""

Widths = Annotated[str | None, BeforeValidator(_widths)]
"""A comma list of layer widths, such as 32,64,128."""

Device = Annotated[str, BeforeValidator(_device)]


def is_true(value: Any) -> bool:
    """Tell whether a value, as people type it, is a bool's True."""
    return str(value).lower() in ("true", "1", "1.0", "t", "y", "yes", "on")


def file_digest(path: str) -> str:
    """Return 16 hexadecimal digits that stand for the content of a file; ValueError where it cannot be read."""
    try:
        stat = Path(path).stat()
        return _file_digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


@lru_cache
def _file_digest(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def user_path(text: str) -> str:
    """Read a path as a shell does: `~` is the home folder; where a word has `=` in it, shells leave that to us."""
    return os.path.expanduser(text)  # noqa: PTH111 — a path that is typed stays as it was typed


def positive(text: str) -> int:
    """Read a whole number from 1, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def pairs(text: str) -> dict[str, str]:
    """Read `key=value` pairs separated by spaces; a value with a space stands in quotes."""
    return dict(pair(word) for word in shlex.split(str(text)))


def written(values: Mapping[str, Any]) -> str:
    """Write values as `pairs` reads them."""
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in values.items())


def pair(word: str) -> tuple[str, str]:
    """Read one `key=value`."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ValueError(f"setting takes key=value pairs, such as model=mlp epochs=50, not {word!r}")
    if key.replace("-", "_") == "setting":
        raise ValueError("setting cannot hold another setting")
    return key.replace("-", "_"), value


def weights_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Say where pretrained weights come from: a file is known by its digest, and not looked at from scratch."""
    if not values.get("weights"):
        return {}
    if values.get("pretrained") is not None and not is_true(values["pretrained"]):
        return {"weights": None, "weights_digest": None}
    return {"pretrained": True, "weights_digest": values.get("weights_digest") or file_digest(values["weights"])}


def owners(values: Mapping[str, Any]) -> Iterator[tuple[str, list[str], Table]]:
    """Name the owners of knobs, with the names that were chosen of each, and their table.

    What an owner's knobs say may choose the names of a later one.
    """
    yield "model", [str(values["model"])], NETWORKS
    pretrained = is_true(values["pretrained"])
    way = [f"with finetune {values['finetune'] or 'all'}" if pretrained else "from scratch"]
    yield "a network", way, TRANSFER
    svm = ["svm"] if values["finetune"] == "svm" else None  # no name of these tables: what is given is refused later
    yield "optimizer", svm or [str(values["optimizer"])], OPTIMIZERS
    yield "schedule", svm or [str(values["schedule"])], FINETUNING_SCHEDULES if pretrained else SCHEDULES
    augmentations = values["augment"]
    words = augmentations.split(",") if isinstance(augmentations, str) else augmentations or []
    yield "augment", [word for word in map(str.strip, words) if word not in ("", "none", "None")], AUGMENTATIONS
    yield "a run", ["with early stopping" if values["early_stopping"] else "without early stopping"], EARLY_STOPPING


def fill_own_knobs(owner: str, chosen: list[str], table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs of a table: the chosen names' own defaults where none is given, None where they have none.

    Raises ValueError where a knob is given that none of the chosen names has.
    """
    known = [name for name in chosen if own_knobs(table, name) is not None]
    own = {knob: default for name in known for knob, default in own_knobs(table, name).items()}
    result = {}
    for knob in dict.fromkeys(knob for knobs in table.values() for knob in knobs):
        value = values.get(knob)
        if value in (None, "None", "none", ""):
            result[knob] = own.get(knob)
        elif knob not in own and len(known) == len(chosen):
            having = [f"{name}NAME" if name.endswith(":") else name for name, knobs in table.items() if knob in knobs]
            only = f"only {', '.join(having)} {'have' if len(having) > 1 else 'has'} it"
            has = f"it has {', '.join(own)}" if own and len(having) > FEW else only
            raise ValueError(f"{owner} {','.join(chosen) or 'none'} has no {knob}; {has}")
    return result


def refuse_small_images(model: str, dataset: str, image_size: int | None) -> None:
    """Raise ValueError where images, whose side is known, are too small for a network."""
    side, smallest = image_size or SIDES.get(dataset), SMALLEST_SIDES.get(model, 1)
    if side and side < smallest:
        raise ValueError(f"{model} needs images of at least {smallest} px, not {side}×{side}")


def meant(name: str, fields: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """Say which of pydantic's fields was probably meant, by its name or its description; `known` are more names."""
    described = [one for one, field in fields.items() if field.description.startswith(name.replace("_", " "))]
    if described and not closest(name, known or fields):
        return f"did you mean {min(described, key=len)!r}?"
    return nearest(name, known or fields)


def sentence(detail: Mapping[str, Any]) -> str:
    """Say what pydantic found wrong with one value."""
    name, given, bounds = ".".join(map(str, detail["loc"][:1])), detail["input"], detail.get("ctx", {})
    kinds = {
        "greater_than_equal": "at least {ge}", "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}", "less_than": "less than {lt}", "literal_error": "{expected}",
        "int_parsing": "a whole number", "int_from_float": "a whole number", "int_type": "a whole number",
        "float_parsing": "a number", "float_type": "a number", "finite_number": "a finite number",
        "bool_parsing": "True or False", "bool_type": "True or False", "string_type": "text",
    }  # fmt: skip
    if detail["type"] in kinds:
        return f"{name} must be {kinds[detail['type']].format(**bounds)}, not {given!r}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{name} {message}" if message.startswith("must") else message
