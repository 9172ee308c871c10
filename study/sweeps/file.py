"""Read and check the keys of a sweep file in W&B's format.

python -c "from study.sweeps import file as sweep_file; print(sweep_file.load('sweeps/dropout.yaml'))"
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from study.config import Config
from study.config.checks import one_of
from study.config.setting import read_pairs
from study.record.metrics import HISTORY, METRICS, meant
from study.sweeps import bayes, command, grid, random
from study.sweeps import distributions as space
from study.sweeps.command import AddedOptions
from study.sweeps.distributions import Parameter
from study.sweeps.hyperband import EXAMPLE, Hyperband
from study.sweeps.method import Method
from study.system.errors import UserError, nearest

METHODS: dict[str, Method] = {
    "grid": grid.METHOD,
    "random": random.METHOD,
    "bayes": bayes.METHOD,
}
"""The methods of sweeps by their names in a file."""

METRIC = "{name: val/acc, goal: maximize}"
"""An example of a metric, for errors."""

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
Text = Annotated[str, Field(description="a text")]


class Metric(BaseModel):
    """The metric of a sweep; only W&B uses `target`, `impute` and `impute_while_running`."""

    model_config = STRICT

    name: Annotated[str, one_of("metric", METRICS, guess=meant)] = Field(
        description="the name of a metric, such as val/acc"
    )
    goal: Literal["minimize", "maximize"] | None = Field(None, description="minimize or maximize")
    target: Any = None
    impute: Any = None
    impute_while_running: Any = None

    @model_validator(mode="after")
    def _fits(self) -> "Metric":
        """Raise ValueError if a loss is maximized or an accuracy minimized."""
        right = METRICS[self.name].goal
        if self.goal and right and self.goal != right:
            raise ValueError(f"the goal of metric {self.name} must be {right}, not {self.goal}")
        return self

    @property
    def is_maximized(self) -> bool:
        """Return whether larger values are better."""
        return (self.goal or METRICS[self.name].goal) == "maximize"


class Controller(BaseModel):
    """Who distributes the points of a sweep on W&B."""

    model_config = STRICT

    type: Literal["cloud", "local"] = Field(description="cloud or local")


class SweepFile(BaseModel):
    """The keys of a sweep file; only W&B uses `controller`.

    The description of a key says in errors what would be right.
    """

    model_config = STRICT

    name: Text = ""
    description: Text = ""
    program: Text = ""
    command: Any = None
    method: Annotated[str, one_of("method", METHODS)] = Field(description=f"one of {', '.join(METHODS)}")
    metric: Metric = Field(None, description=METRIC)
    early_terminate: Hyperband = Field(None, description=EXAMPLE)
    run_cap: int | None = Field(None, ge=1, description="a whole number from 1")
    project: Text = ""
    entity: Text = ""
    controller: Controller = Field(None, description="{type: cloud} or {type: local}")
    parameters: dict[str, InstanceOf[Parameter]] = Field(
        min_length=1, description="a mapping such as {dropout: {values: [0.0, 0.5]}}"
    )

    @field_validator("parameters", mode="before")
    @classmethod
    def _read(cls, content: Any, info: ValidationInfo) -> Any:
        """Read each parameter; raise ValueError with all mistakes."""
        parameters = {}
        mistakes = []
        for name, values in content.items() if isinstance(content, dict) else ():
            try:
                parameters[str(name).replace("-", "_")] = _parameter(name, values, info.data.get("method"))
            except UserError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return parameters or content

    @model_validator(mode="after")
    def _fits(self) -> "SweepFile":
        """Raise ValueError for keys that need or exclude each other."""
        # The command must train, and start the points as they are
        omits_false = self.training.omits_false
        for name in self.parameters.keys() & Config.model_fields.keys():
            is_lost = omits_false and Config.model_fields[name].default is not False
            if is_lost and any(choice is False for choice in self.parameters[name].choices or ()):
                raise ValueError(f"command: ${{args_no_boolean_flags}} leaves out {name}=False; use ${{args}}")

        # A method that chooses by results needs a metric; W&B minimizes one without a goal
        chooser = "early_terminate" if self.early_terminate else f"method {self.method}"
        if self.early_terminate or METHODS[self.method].next:
            if not self.metric:
                raise ValueError(f"{chooser} needs `metric`, such as {METRIC}")
            if not self.metric.goal and self.metric.is_maximized:
                raise ValueError(f"{chooser}: metric needs `goal: maximize`; without a goal, W&B minimizes it")
        if self.early_terminate and self.metric.name not in HISTORY:
            raise ValueError(f"early_terminate needs a metric that is logged each epoch, not {self.metric.name}")
        return self

    @cached_property
    def training(self) -> AddedOptions:
        """Return the options that the command adds to each point; raise ValueError if it does not train."""
        return command.read(self.command, self.program)

    @property
    def ignored(self) -> tuple[str, ...]:
        """List the keys of the file that have an effect only on W&B."""
        given = self.metric.model_fields_set - {"name", "goal"} if self.metric else ()
        of_metric = [name for name in Metric.model_fields if name in given]
        return (*(f"metric.{name}" for name in of_metric), *(["controller"] if self.controller else []))


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
    except Exception as error:  # PyYAML raises errors of every kind for tags such as !!timestamp
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def check(content: Any) -> SweepFile:
    """Check the content of a sweep file; raise UserError with a sentence for each mistake."""
    try:
        return SweepFile.model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence with the key, what would be right, and the value."""
    # The checks of this module raise whole sentences
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")

    # Find the model and the key
    *outer, key = detail["loc"] or [None]
    model = SweepFile.model_fields[outer[0]].annotation if outer else SweepFile
    prefix = f"{outer[0]}: " if outer else ""

    # Use the description of the field
    if key is None:
        return "a sweep file must hold a mapping with `method` and `parameters`"
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return f"{prefix}unknown key {key!r}; {nearest(str(key), model.model_fields)}"
    right = f"must be {model.model_fields[key].description}"
    if detail["type"] == "missing":
        return f"{prefix}`{key}` is missing; it {right}"
    return f"{prefix}{key} {right}, not {detail['input']!r}"


def _parameter(name: str, content: Any, method: str | None) -> Parameter:
    """Read one parameter, and check that it suits the method and the option."""
    # A grid needs values
    parameter = space.read(name, content)
    if method and not METHODS[method].is_search and parameter.grid is None:
        raise UserError(
            f"parameter {name}: a {method} cannot have distribution {parameter.distribution}; give its `values`"
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
