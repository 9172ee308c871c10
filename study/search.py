"""A sweep file in W&B's own format, and its points (no torch in it).

python -c "from study.search import read; print(*read('sweeps/dropout.yaml').points(), sep='\\n')"
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from study.config import Config
from study.errors import UserError, nearest
from study.names import HISTORY_METRICS, SUMMARY_METRICS
from study.values import pairs

SWEEP_KEYS = (
    "name", "description", "program", "command", "method", "metric", "parameters", "early_terminate",
    "run_cap", "project", "entity",
)  # fmt: skip
METHODS = ("grid", "random", "bayes")


@dataclass(frozen=True)
class Point:
    """One point of a sweep: what its parameters say, the config that follows from it, and its name among the others."""

    values: dict[str, Any]
    config: Config
    label: str


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked.

    `parameters` maps each parameter to the list of its values.
    """

    path: Path
    name: str
    description: str
    parameters: dict[str, list[Any]]

    @property
    def varied(self) -> list[str]:
        """List the parameters with more than one value, the seed left out: what the sweep compares."""
        return [name for name, values in self.parameters.items() if len(values) > 1 and name != "seed"]

    def points(self, base: Mapping[str, Any] | None = None) -> list[Point]:
        """Expand the grid, the last parameter varying fastest; points that compute the same appear once.

        `base` holds options that the sweep does not name. Raises UserError where a point is no valid config.
        """
        found: dict[str, Point] = {}
        for combination in itertools.product(*self.parameters.values()):
            values = dict(zip(self.parameters, combination, strict=True))
            try:
                config = Config.parse({**(base or {}), **values})
            except UserError as error:
                shown = ", ".join(f"{name}={values[name]}" for name in values if name in [*self.varied, "seed"])
                raise UserError(f"{self.path}: {error}" + (f" (at {shown})" if shown else "")) from None
            point = Point(values, config, f"{self.setting(values)}, seed {config.seed}")
            found.setdefault(config.fingerprint, point)
        return list(found.values())

    def size(self) -> int:
        """Count the combinations of the grid, those that compute the same too."""
        return len(list(itertools.product(*self.parameters.values())))

    def setting(self, values: Mapping[str, Any]) -> str:
        """Name what the sweep varies at a point: its label in tables and figures."""
        return label(values, self.varied) or self.name

    def replaced(self, values: Mapping[str, str]) -> "Sweep":
        """Return the sweep with these values in place of its own, wherever it says them."""
        parameters = {name: given for name, given in self.parameters.items() if name not in values}
        if "setting" in parameters:
            parameters["setting"] = [_without(text, values) for text in parameters["setting"]]
        return replace(self, parameters=parameters | {name: [value] for name, value in values.items()})


def label(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """Name a setting by its values of some parameters, such as `cnn, dropout 0.5, augment none`."""
    bare = ("model", "setting")
    return ", ".join(
        f"{values[name]}"
        if name in bare
        else f"{name.replace('_', ' ')} {'none' if values[name] in (None, '') else values[name]}"
        for name in names
    )


def assignments(words: Sequence[str]) -> dict[str, str]:
    """Read the words after --set: key=value pairs that replace a sweep's own."""
    try:
        return {key: value for word in words for key, value in pairs(word).items()}
    except ValueError as error:
        raise UserError(str(error).replace("setting", "--set")) from None


def _without(setting: str, names: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs(setting).items() if name not in names)


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice", node.value[place][0].start_mark
                )
        return super().construct_mapping(node, deep)


def read(path: str | Path) -> Sweep:
    """Read a sweep file; a UserError names the file and says what in it is wrong."""
    path = Path(path)
    try:
        content = yaml.load(path.read_text(), _UniqueKeys)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path} is no YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        return _checked(path, content)
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None


def _checked(path: Path, content: Any) -> Sweep:
    if not isinstance(content, Mapping):
        raise UserError("a sweep file must hold a mapping with `method`, `metric` and `parameters`")
    for key in content:
        if key not in SWEEP_KEYS:
            raise UserError(f"unknown key {key!r}; {nearest(key, SWEEP_KEYS)}")
    method = content.get("method")
    if method is None:
        raise UserError("there is no `method`; here it is grid")
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}; {nearest(str(method), METHODS)}")
    if method != "grid":
        raise UserError(f"method {method} is run by `wandb agent` only; here it must be grid")
    _check_metric(content.get("metric"))
    parameters = content.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        raise UserError("there are no `parameters`, such as `parameters: {dropout: {values: [0.0, 0.5]}}`")
    values = {str(name).replace("-", "_"): _values(name, given) for name, given in parameters.items()}
    return Sweep(path, str(content.get("name") or path.stem), str(content.get("description") or ""), values)


def _check_metric(metric: Any) -> None:
    if not isinstance(metric, Mapping) or "name" not in metric:
        raise UserError("there is no `metric`; it must be {name: val/acc, goal: maximize}")
    if metric["name"] not in HISTORY_METRICS + SUMMARY_METRICS:
        close = nearest(metric["name"], HISTORY_METRICS + SUMMARY_METRICS)
        raise UserError(f"metric {metric['name']!r} is never logged; {close}")
    smaller = metric["name"].endswith("loss") or metric["name"] in ("time/epoch", "train_seconds", "memory/peak_mb")
    wanted = "minimize" if smaller else "maximize"
    if metric.get("goal", "minimize") != wanted:
        raise UserError(f"the goal of metric {metric['name']} must be {wanted}, not {metric.get('goal', 'minimize')}")


def _values(name: str, given: Any) -> list[Any]:
    """Return the values of a grid's parameter."""
    if not isinstance(given, Mapping) or len({"value", "values"} & set(given)) != 1:
        raise UserError(f"parameter {name} needs `value: …` or `values: […]` in a grid, not {given!r}")
    for key in given:
        if key not in ("value", "values", "distribution"):
            raise UserError(f"parameter {name} has an unknown key {key!r}; {nearest(key, ('value', 'values'))}")
    values = given["values"] if "values" in given else [given["value"]]
    if not isinstance(values, list) or not values:
        raise UserError(f"the values of parameter {name} must be a list that is not empty, not {values!r}")
    return values
