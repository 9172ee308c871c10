"""Read and check the keys of a sweep file in W&B's format.

python -c "from study.sweeps import file as sweep_file; print(sweep_file.load('sweeps/dropout.yaml'))"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from study.config.setting import read_pairs
from study.record.metrics import HISTORY, METRICS
from study.sweeps import distributions as space
from study.sweeps import hyperband
from study.sweeps.distributions import Parameter
from study.system.errors import UserError, nearest

SWEEP_KEYS = (
    "name",
    "description",
    "program",
    "command",
    "method",
    "metric",
    "parameters",
    "early_terminate",
    "run_cap",
    "project",
    "entity",
    "controller",
)
METHODS = ("grid", "random", "bayes")
METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")


class _UniqueKeys(yaml.SafeLoader):
    """Loads YAML, but refuses repeated keys, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct a dict; raise ConstructorError if two keys are equal, with - and _ alike."""
        nodes = [key for key, _ in node.value if not key.tag.endswith(":merge")]
        keys = [self.construct_object(key, deep=True) for key in nodes]
        keys = [key.replace("-", "_") if isinstance(key, str) else key for key in keys]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", nodes[index].start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Any:
    """Read a YAML file; raise UserError if it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path} is not YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def check(content: Any) -> dict[str, Any]:
    """Check the content of a sweep file, and return the fields of a Sweep; raise UserError with what is wrong."""
    # Check the keys and the texts
    if not isinstance(content, Mapping):
        raise UserError("a sweep file must hold a mapping with `method`, `metric` and `parameters`")
    for key in content:
        if key not in SWEEP_KEYS:
            raise UserError(f"unknown key {key!r}; {nearest(key, SWEEP_KEYS)}")
    for key in ("name", "description", "program", "project", "entity"):
        if not isinstance(content.get(key, ""), str):
            raise UserError(f"{key} must be a text, not {content[key]!r}")

    # Check the method, the metric and the command
    method = content.get("method")
    if method is None:
        raise UserError(f"there is no `method`; it is one of {', '.join(METHODS)}")
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}; {nearest(str(method), METHODS)}")
    metric, maximize, for_wandb = _metric(content.get("metric"))
    _check_command(content.get("command"))
    if "controller" in content and content["controller"] not in ({"type": "local"}, {"type": "cloud"}):
        raise UserError(f"controller must be {{type: cloud}} or {{type: local}}, not {content['controller']!r}")

    # Read early termination
    rule = hyperband.read(content["early_terminate"]) if "early_terminate" in content else None
    if rule and metric not in HISTORY:
        raise UserError(f"early_terminate needs a metric that is logged each epoch, not {metric}")

    # Read the parameters
    parameters = content.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        raise UserError("there are no `parameters`, such as `parameters: {dropout: {values: [0.0, 0.5]}}`")
    return {
        "name": content.get("name", ""),
        "description": content.get("description", ""),
        "parameters": {
            str(name).replace("-", "_"): _parameter(name, values, method) for name, values in parameters.items()
        },
        "method": method,
        "metric": metric,
        "maximize": maximize,
        "run_cap": _run_cap(content.get("run_cap")),
        "early_terminate": rule,
        "where": {key: content[key] for key in ("project", "entity") if content.get(key)},
        "ignored": tuple(for_wandb + ["controller"] * ("controller" in content)),
    }


def _metric(metric: Any) -> tuple[str, bool, list[str]]:
    """Return the name of a sweep's metric, whether larger values are better, and its keys that only W&B uses."""
    # Check the keys
    if not isinstance(metric, Mapping) or "name" not in metric:
        raise UserError("there is no `metric`; it must be {name: val/acc, goal: maximize}")
    for key in metric:
        if key not in METRIC_KEYS:
            raise UserError(f"metric: unknown key {key!r}; {nearest(key, METRIC_KEYS)}")
    if metric["name"] not in METRICS:
        hint = nearest(metric["name"], METRICS)
        raise UserError(f"metric {metric['name']!r} is never logged; {hint}")

    # Check that losses are minimized and accuracies maximized
    name = metric["name"]
    goal = metric.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"the goal of metric {name} must be minimize or maximize, not {goal!r}")
    right_goal = METRICS[name].goal or goal
    if goal != right_goal:
        raise UserError(f"the goal of metric {name} must be {right_goal}, not {goal}")
    return name, goal == "maximize", [f"metric.{key}" for key in METRIC_KEYS[2:] if key in metric]


def _check_command(command: Any) -> None:
    """Raise UserError for a command with which `wandb agent` would not train the points."""
    if command is None:
        return
    words = [str(word) for word in command] if isinstance(command, list) else []
    if "study.train" not in words or not {"${args}", "${args_no_boolean_flags}"} & set(words):
        example = '["${env}", "${interpreter}", "-m", "study.train", "${args}"]'
        raise UserError(f"command must be {example}, not {command!r}")


def _run_cap(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"run_cap must be a whole number from 1, not {value!r}")
    return value


def _parameter(name: str, content: Any, method: str) -> Parameter:
    """Read one parameter, and check that it suits the method and the option."""
    # A grid needs values
    parameter = space.read(name, content)
    if method == "grid" and parameter.grid is None:
        raise UserError(
            f"parameter {name}: a grid cannot have distribution {parameter.distribution}; give its `values`"
        )

    # `setting` needs key=value pairs
    if name == "setting":
        if not parameter.choices or not all(isinstance(text, str) for text in parameter.choices):
            raise UserError("parameter setting needs `values`, texts of key=value pairs")
        for text in parameter.choices:
            try:
                read_pairs(text)
            except ValueError as error:
                raise UserError(f"parameter setting: {error} in {text!r}") from None
    return parameter
