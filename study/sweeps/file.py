"""Check the keys of a sweep file in W&B's format.

python -c "from study.sweeps import file as sweep_file; print(sweep_file.check({'method': 'gird'}))"
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

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

from study.config import Config, aliases, check_value
from study.config.checks import meant as meant_option
from study.config.checks import one_of
from study.config.setting import read_pairs
from study.record.metrics import HISTORY, METRICS, meant
from study.sweeps import bayes, command, grid, random
from study.sweeps import distributions as space
from study.sweeps.command import AddedOptions
from study.sweeps.distributions import Parameter
from study.sweeps.hyperband import EXAMPLE, Hyperband
from study.sweeps.method import Method
from study.system.errors import Mistakes, Place, nearest

METHODS: dict[str, Method] = {
    "grid": grid.METHOD,
    "random": random.METHOD,
    "bayes": bayes.METHOD,
}
"""The methods of sweeps by their names in a file."""

ENDS = "has an end"
"""The context of a validation that refuses a search without `run_cap`."""

ASKS = ("accuracy", "overfitting", "epochs", "speed", "size", "confusion", "features")
"""What the question of a sweep can be about, as its description ends: `Asks: accuracy, speed.`"""

ASKED = re.compile(r"\s*\bAsks:\s*(.*?)\s*\.?\s*$", re.DOTALL)

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
    command: InstanceOf[AddedOptions] = Field(None, validate_default=True)
    method: Annotated[str, one_of("method", METHODS)] = Field(description=f"one of {', '.join(METHODS)}")
    metric: Metric = Field(None, description=METRIC)
    early_terminate: Hyperband | None = Field(None, description=EXAMPLE, validate_default=True)
    run_cap: int | None = Field(None, ge=1, description="a whole number from 1", validate_default=True)
    project: Text = ""
    entity: Text = ""
    controller: Controller = Field(None, description="{type: cloud} or {type: local}")
    parameters: dict[str, InstanceOf[Parameter]] = Field(
        min_length=1, description="a mapping such as {dropout: {values: [0.0, 0.5]}}"
    )

    @field_validator("command", mode="before")
    @classmethod
    def _added(cls, words: Any, info: ValidationInfo) -> AddedOptions:
        """Return the options that the command adds to each point; raise ValueError if it does not train."""
        program = info.data.get("program", "")
        try:
            return command.read(words, program)
        except ValueError as error:
            raise Mistakes([(("program",) if program and not words else (), str(error))]) from None

    @field_validator("description")
    @classmethod
    def _asks_something(cls, description: str) -> str:
        """Raise ValueError if the description asks for something that the report cannot answer."""
        for word in _asked(description):
            if word not in ASKS:
                raise ValueError(f"description: `Asks:` does not know {word!r}; {nearest(word, ASKS)}")
        return description

    @field_validator("early_terminate")
    @classmethod
    def _has_metric(cls, rule: Hyperband | None, info: ValidationInfo) -> Hyperband | None:
        """Raise Mistakes if results choose and there is no metric for it; W&B minimizes one without a goal."""
        method = info.data.get("method")
        if "metric" not in info.data or not (rule or (method and METHODS[method].next)):
            return rule
        chooser = "early_terminate" if rule else f"method {method}"
        metric = info.data["metric"]
        if not metric:
            raise Mistakes([((), f"{chooser} needs `metric`, such as {METRIC}")])
        if not metric.goal and metric.is_maximized:
            text = f"{chooser}: metric needs `goal: maximize`; without a goal, W&B minimizes it"
            raise Mistakes([(("metric",), text)])
        if rule and metric.name not in HISTORY:
            text = f"early_terminate needs a metric that is logged each epoch, not {metric.name}"
            raise Mistakes([(("metric", "name"), text)])
        return rule

    @field_validator("run_cap")
    @classmethod
    def _has_end(cls, run_cap: int | None, info: ValidationInfo) -> int | None:
        """Raise Mistakes for a search without end, with the context ENDS."""
        method = info.data.get("method")
        if info.context == ENDS and run_cap is None and method and METHODS[method].is_search:
            raise Mistakes([(("method",), no_end(method))])
        return run_cap

    @field_validator("project", "entity")
    @classmethod
    def _is_a_name(cls, name: str, info: ValidationInfo) -> str:
        """Raise ValueError for a name that W&B does not take."""
        return check_value(info.field_name, name)

    @field_validator("parameters", mode="before")
    @classmethod
    def _read(cls, content: Any, info: ValidationInfo) -> Any:
        """Read each parameter; raise Mistakes with those of all."""
        parameters = {}
        mistakes: list[tuple[Place, str]] = []
        for name, values in content.items() if isinstance(content, dict) else ():
            option = str(name).replace("-", "_")
            try:
                parameters[option] = _parameter(option, values, info.data.get("method"))
                _refuse_lost_values(option, parameters[option], info.data.get("command"))
            except Mistakes as error:
                mistakes += error.below("parameters", option)
        method = METHODS.get(info.data.get("method"))
        if parameters and method and method.next and all(p.distribution == "constant" for p in parameters.values()):
            mistakes.append((("parameters",), f"method {info.data['method']} needs a parameter that varies"))
        if mistakes:
            raise Mistakes(mistakes)
        return parameters or content

    @property
    def question(self) -> str:
        """Return the description without what it asks about."""
        return ASKED.sub("", self.description)

    @property
    def asks(self) -> tuple[str, ...]:
        """Return what the question is about, some of ASKS in the order of the description."""
        return tuple(dict.fromkeys(_asked(self.description)))

    @property
    def ignored(self) -> tuple[str, ...]:
        """List the keys of the file that have an effect only on W&B."""
        given = self.metric.model_fields_set - {"name", "goal"} if self.metric else ()
        of_metric = [name for name in Metric.model_fields if name in given]
        return (*(f"metric.{name}" for name in of_metric), *(["controller"] if self.controller else []))


PARTS = {"metric": Metric, "early_terminate": Hyperband, "controller": Controller}
"""The keys of a sweep file that have keys of their own."""


def check(content: Any, must_end: bool = False) -> SweepFile:
    """Check the content of a sweep file; raise Mistakes with the place of each.

    If it `must_end`, a search needs `run_cap`.
    """
    try:
        return SweepFile.model_validate(content, context=ENDS if must_end else None)
    except ValidationError as error:
        mistakes: list[tuple[Place, str]] = []
        for detail in error.errors():
            cause = detail.get("ctx", {}).get("error")
            own = cause.mistakes if isinstance(cause, Mistakes) else [((), _sentence(detail))]
            mistakes += [(place or detail["loc"], text) for place, text in own]
        raise Mistakes(mistakes) from None


def _asked(description: str) -> list[str]:
    """Return the words after `Asks:` at the end of a description."""
    found = ASKED.search(description)
    words = re.split(r"[\s,;]+", found[1].lower()) if found else []
    return [word for word in words if word not in ("", "and")]


def no_end(method: str) -> str:
    """Return a sentence about a search without an end, which W&B allows."""
    return f"method {method} needs `run_cap`, the number of runs; give it in the file or by --set run_cap=20"


def _sentence(detail: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence with the key, what would be right, and the value."""
    # The checks of this module raise whole sentences
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")

    # Find the model and the key
    *outer, key = detail["loc"] or [None]
    model = PARTS[outer[0]] if outer else SweepFile
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
    """Read one parameter, and check that it suits the method and the option; raise Mistakes otherwise."""
    # Options are flat
    if isinstance(content, Mapping) and isinstance(content.get("parameters"), Mapping):
        raise Mistakes(list(_nested(name, content["parameters"], method)))

    # The option must exist; of one that has another name here, the values are checked too
    mistakes: list[tuple[Place, str]] = []
    option: str | None = name
    if name not in Config.model_fields:
        mistakes.append(((), f"unknown option {name!r}; {meant_option(name, Config.model_fields)}"))
        option = None if aliases.without_option(name) else aliases.option(name)
        option = option if option in Config.model_fields else None

    # The parameter must have values, and the option take them
    parameter = None
    try:
        parameter = _readable(name, content, method)
    except Mistakes as error:
        mistakes += error.mistakes
    if parameter and option:
        is_listed = parameter.distribution == "int_uniform" or (method and not METHODS[method].is_search)
        values = parameter.grid if is_listed and parameter.grid is not None else parameter.choices
        wrong = list(_wrong_settings(values) if option == "setting" else _wrong_values(option, values or ()))
        mistakes += wrong if "values" in parameter.keys else [((), text) for _, text in wrong[:1]]
    if mistakes:
        raise Mistakes(mistakes)
    return parameter


def _readable(name: str, content: Any, method: str | None) -> Parameter:
    """Read one parameter; raise Mistakes if it has no values, or none that suit the method."""
    parameter = space.read(name, content)
    if method and not METHODS[method].is_search and parameter.grid is None:
        text = f"parameter {name}: a {method} cannot have distribution {parameter.distribution}; give its `values`"
        raise Mistakes([((), text)])
    return parameter


def _nested(name: str, content: Mapping[Any, Any], method: str | None) -> Iterator[tuple[Place, str]]:
    """Yield a mistake for each parameter that stands in another one, and what else is wrong with it."""
    for key, value in content.items():
        path = f"{name}.{key}"
        known = str(key).replace("-", "_")
        known = known if known in Config.model_fields else aliases.option(path)
        known = known if known in Config.model_fields else None
        if not (isinstance(value, Mapping) and isinstance(value.get("parameters"), Mapping)):
            hint = f"write {known} by itself" if known else "write each option by itself"
            yield ("parameters", key), f"parameter {path} is nested, but the options of a run are flat: {hint}"
        try:
            _parameter(known or path, value, method)
        except Mistakes as error:
            yield from error.below("parameters", key) if known or "parameters" in value else ()


def _wrong_values(name: str, values: Sequence[Any]) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with each value of an option."""
    for index, value in enumerate(values):
        try:
            check_value(name, value)
        except Mistakes as error:
            yield from ((("values", index), text) for _, text in error.mistakes)


def _wrong_settings(values: Sequence[Any] | None) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with the values of `setting`, texts of key=value pairs."""
    if not values or not all(isinstance(text, str) for text in values):
        yield (), "parameter setting needs `values`, texts of key=value pairs"
        return
    for index, text in enumerate(values):
        place = ("values", index)
        try:
            pairs = read_pairs(text)
        except ValueError as error:
            yield place, f"parameter setting: {error} in {text!r}"
            continue
        for name, value in pairs.items():
            try:
                check_value(name, value)
            except Mistakes as error:
                yield from ((place, f"parameter setting: {text}") for _, text in error.mistakes)


def _refuse_lost_values(name: str, parameter: Parameter, added: AddedOptions | None) -> None:
    """Raise Mistakes if the command does not pass on a value False of an option whose default is not False."""
    is_option = name in Config.model_fields and Config.model_fields[name].default is not False
    if added and added.omits_false and is_option and any(choice is False for choice in parameter.choices or ()):
        raise Mistakes([((), f"command: ${{args_no_boolean_flags}} leaves out {name}=False; use ${{args}}")])
