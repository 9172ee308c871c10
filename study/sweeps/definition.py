"""Read a sweep file in W&B's format, and list its points, without torch.

python -c "from study.sweeps.definition import read; print(*read('sweeps/dropout.yaml').points(), sep='\\n')"
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from study.config import CHOOSERS, Config, check_value
from study.config.checks import NONE, meant
from study.config.scores import SCORES, choosing
from study.config.setting import Setting, read_pair, read_pairs, setting_of, written
from study.sweeps import distributions as space
from study.sweeps import document, grid, random
from study.sweeps import file as sweep_file
from study.sweeps.distributions import Parameter
from study.sweeps.document import Document, Lines
from study.sweeps.file import METHODS
from study.sweeps.hyperband import Hyperband
from study.system.errors import Mistakes, Place, UserError

PROBES = 100
"""Number of random points that are checked before training, if not all points are listed."""

MOST_LISTED = 10_000
"""Up to so many points are all checked before training; of more, these, PROBES random ones and each listed value."""

NEAR = 0.001
"""Distance of the checked values from the ends of a range; an end itself may not be allowed, such as lr 0."""


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    `values` are those of its parameters, as the sweep writes them, except those that do not apply to this point, such
    as the momentum of adam. `setting` holds the options that the sweep varies, except the seed, with the values of the
    config; `together` those that its parameter `setting` varies together.
    """

    values: dict[str, Any]
    config: Config
    setting: Setting
    together: Setting

    @property
    def label(self) -> str:
        """Return the setting and the seed as text."""
        return str(self.setting.plus("seed", self.config.seed))


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked.

    `method` is a key of METHODS in `study.sweeps.file`. `metric` is used by a Bayesian search and by Hyperband;
    `maximize` is whether larger values are better. `description` is the question of the sweep, and `asks` what it is
    about, some of ASKS in `study.sweeps.file`. `where` holds the W&B project and entity of the file, `ignored` the
    keys that only W&B uses, `lines` the line of each place in the file, `given` the values that replaced others. If the
    points of a search are `drawn_elsewhere`, by W&B, they are those of the recorded runs.
    """

    path: Path
    name: str
    description: str
    parameters: dict[str, Parameter]
    method: str = "grid"
    metric: str = "val/acc"
    maximize: bool = True
    asks: tuple[str, ...] = ()
    run_cap: int | None = None
    early_terminate: Hyperband | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    lines: Lines = field(default_factory=dict, repr=False)
    given: Mapping[str, str] = field(default_factory=dict)
    drawn_elsewhere: bool = False

    @property
    def varied(self) -> list[str]:
        """List the parameters with more than one value, except the seed: those that the sweep compares."""
        return [name for name, parameter in self.parameters.items() if parameter.varies and name != "seed"]

    @property
    def is_search(self) -> bool:
        """Return whether the points are drawn from distributions; on W&B, the server draws them."""
        return METHODS[self.method].is_search

    @property
    def is_adaptive(self) -> bool:
        """Return whether points are chosen from the results of previous points."""
        return METHODS[self.method].next is not None

    @property
    def size(self) -> int | None:
        """Return the number of points, including those with equal configs; None for a search without a cap."""
        return METHODS[self.method].size(self.parameters, self.run_cap)

    def points(self, base: Mapping[str, Any] | None = None, recorded: Iterable[Mapping[str, Any]] = ()) -> list[Point]:
        """List the points that are known beforehand, or have been chosen; of points with equal configs, the first.

        Chosen points are found in the `recorded` runs (contents of run.json) that name the sweep; if W&B draws the
        points, in all recorded runs that lie within the sweep. `base` holds options that the sweep does not name.
        Raises UserError if a point is no valid config.
        """
        # List the points that W&B has drawn, or those that are known beforehand and those that were chosen
        if self.drawn_elsewhere and self.is_search:
            points = self._located(recorded, base)
        else:
            points = self.checked(self.values(), base)
            if self.is_adaptive:
                points += self._located((info for info in recorded if self.name in (info.get("sweeps") or ())), base)

        # Keep the first point of each config
        unique: dict[str, Point] = {}
        for point in points:
            unique.setdefault(point.config.fingerprint, point)
        return list(unique.values())

    def values(self) -> Iterable[dict[str, Any]]:
        """Return the values of the parameters at each point that is known beforehand."""
        return METHODS[self.method].points(self.parameters, self.run_cap)

    def count(self, base: Mapping[str, Any] | None = None) -> int:
        """Check the sweep and count its points with different configs, and those that a search has still to choose.

        More than MOST_LISTED points are counted as if all configs were different. Raises UserError with what is wrong
        with the points.
        """
        if self.is_adaptive:
            self.checked(self.probes(), base)
            points = self.points(base)
            return len(points) + self.open_points(points)
        if self.size <= MOST_LISTED:
            return len(self.points(base))
        first = next(iter(self.values()))
        each = ({**first, name: value} for name, one in self.parameters.items() for value in one.choices or ())
        self.checked(itertools.chain(itertools.islice(self.values(), MOST_LISTED), self.probes(), each), base)
        return self.size

    def open_points(self, points: Sequence[Point]) -> int:
        """Count the points that an adaptive sweep has yet to choose, beside these; 0 if all are known beforehand.

        They are as many as the cap leaves or, if each parameter has a list of values, as there are different configs.
        """
        return max(0, min(self.size, self._combinations) - len(points)) if self.is_adaptive else 0

    @cached_property
    def _combinations(self) -> float:
        """Count the different configs of an adaptive sweep; without end if a parameter has no list of values."""
        if any(parameter.choices is None for parameter in self.parameters.values()):
            return math.inf
        try:
            return replace(self, method="grid", run_cap=None).count()
        except UserError:  # some combinations are no configs, and are not trained
            return grid.size(self.parameters, None)

    def checked(self, points: Iterable[dict[str, Any]], base: Mapping[str, Any] | None = None) -> list[Point]:
        """Return the points with these values of the parameters.

        Raises UserError with all that is wrong with any of them, and with the parameters that apply to no point of the
        sweep.
        """
        # Make the points; of the wrong values that were drawn from one distribution, name the first
        result = []
        mistakes: dict[tuple[Place, str], str] = {}
        for values in points:
            try:
                result.append(self._point(values, base))
            except Mistakes as error:
                for place, text in self._placed(error, values):
                    parameter = self.parameters.get(place[1])
                    is_drawn = parameter and parameter.choices is None
                    mistakes.setdefault((place, "" if is_drawn else text), text + self._shown(values))

        # Find the parameters that none of them uses
        unused = self._unused({name for point in result for name in point.values}, base) if result else {}
        found = [(place, text) for (place, _), text in mistakes.items()]
        found += [(("parameters", name), text) for name, text in unused.items()]
        if found:
            raise document.error(self.path, found, self.lines)
        return result

    def _unused(self, used: Collection[str], base: Mapping[str, Any] | None) -> dict[str, str]:
        """Map the parameters that apply to no point of the sweep to the reason; those in `used` apply to some."""
        # Look for them at each combination of the options that decide which others apply
        names = [name for name in self.parameters if name not in used]
        choosers = {name: _possible(self.parameters[name]) for name in CHOOSERS if name in self.parameters}
        choosers = {name: choices for name, choices in choosers.items() if choices}
        first = random.draw(self.parameters, 0)
        values = first
        for choices in itertools.product(*choosers.values()) if names else ():
            values = first | dict(zip(choosers, choices, strict=True))
            with suppress(Mistakes):
                point = self._point(values, base)
                names = [name for name in names if name not in point.values]

        # Let a strict check give the reason
        if names:
            try:
                Config.parse({**self.where, **(base or {}), **values})
            except Mistakes as error:
                return {place[0]: text for place, text in error.mistakes if place and place[0] in names}
        return {}

    def point(self, values: dict[str, Any], base: Mapping[str, Any] | None = None) -> Point:
        """Return the point with these values of the parameters; raise UserError if it is no valid config."""
        try:
            return self._point(values, base)
        except Mistakes as error:
            found = [(place, text + self._shown(values)) for place, text in self._placed(error, values)]
            raise document.error(self.path, found, self.lines) from None

    def _point(self, values: dict[str, Any], base: Mapping[str, Any] | None) -> Point:
        """Return the point with these values of the parameters; raise Mistakes if it is no valid config."""
        config = Config.parse({**self.where, **(base or {}), **values}, drop_unused=True)
        used = {name: value for name, value in values.items() if value in NONE or config.uses(name)}
        together = read_pairs(values.get("setting") or "")
        typed = {name: getattr(config, name) for name in {*values, *together} - {"setting"}}
        return Point(used, config, self.setting(values, typed), setting_of(typed, together))

    def _placed(self, error: Mistakes, values: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
        """Yield the mistakes of the point with these values at their places in the file."""
        for place, text in error.mistakes:
            name = place[0] if place else ""
            settings = self.parameters["setting"].choices if name in self.set_together else []
            if values.get("setting") in settings:
                yield ("parameters", "setting", "values", settings.index(values["setting"])), text
            else:
                yield ("parameters", name), text

    def _shown(self, values: Mapping[str, Any]) -> str:
        """Return the values of a point that the sweep varies, for an error."""
        shown = ", ".join(f"{name}={values[name]}" for name in values if name in [*self.varied, "seed"])
        return f" (at {shown})" if shown else ""

    def example(self, base: Mapping[str, Any] | None = None) -> Config:
        """Return the config of some point of a search."""
        return self.point(random.draw(self.parameters, 0), base).config

    @property
    def named(self) -> set[str]:
        """Return the options that the file names, including those in `setting`."""
        return {*self.parameters, *self.set_together}

    @property
    def set_together(self) -> set[str]:
        """Return the options that `setting` varies together."""
        settings = self.parameters["setting"].choices if "setting" in self.parameters else []
        return {name for text in settings for name in read_pairs(text)}

    def _located(self, recorded: Iterable[Mapping[str, Any]], base: Mapping[str, Any] | None) -> list[Point]:
        """List the points of recorded runs that lie within the sweep."""
        return [point for info in recorded if (point := self.locate(info["config"], base))]

    def locate(self, recorded: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Point | None:
        """Return the point of a recorded config, or None if the sweep has no such point."""
        try:
            config = Config.recorded(recorded)
        except UserError:  # it has options that no longer exist
            return None
        settings = self.parameters["setting"].choices if "setting" in self.parameters else [None]
        return next((point for text in settings if (point := self._locate(config, text, base))), None)

    def _locate(self, config: Config, setting: str | None, base: Mapping[str, Any] | None) -> Point | None:
        """Return the point of a config if it has this `setting`, else None."""
        # Take the values from the config; parameters that the setting overrides, or that do not apply, may have any
        recorded = config.model_dump() | {"setting": setting}
        values = {name: recorded[name] for name in self.parameters}
        overridden = read_pairs(setting or "").keys()
        free = {
            name: parameter
            for name, parameter in self.parameters.items()
            if name in overridden or not (config.uses(name) or _can_be_none(parameter))
        }
        values |= random.draw(free, 0)

        # Check that the sweep has them, and find choices that are written differently
        for name, parameter in self.parameters.items():
            if parameter.choices is None and parameter.quantile(values[name]) is None:
                return None
            if parameter.choices is not None and values[name] not in parameter.choices:
                equal = (
                    choice for choice in parameter.choices if self._point_of(config, {**values, name: choice}, base)
                )
                values[name] = next(equal, None)
        return self._point_of(config, values, base)

    def _point_of(self, config: Config, values: dict[str, Any], base: Mapping[str, Any] | None) -> Point | None:
        """Return the point with these values if its config has the same fingerprint, else None."""
        with suppress(UserError):
            point = self.point(values, base)
            return point if point.config.fingerprint == config.fingerprint else None

    def probes(self) -> Iterable[dict[str, Any]]:
        """Yield random values, and some near both ends of each range, where it applies."""
        draws = [random.draw(self.parameters, index) for index in range(PROBES)]
        yield from draws
        for name, parameter in self.parameters.items():
            for quantile in (NEAR, 1 - NEAR) if "min" in parameter.keys else ():
                draw = next((values for values in draws if self._applies(name, values)), draws[0])
                yield {**draw, name: parameter.value(quantile)}

    def _applies(self, name: str, values: dict[str, Any]) -> bool:
        """Return whether a parameter applies to the point with these values."""
        with suppress(Mistakes):
            return name in self._point(values, None).values
        return False

    def losses(self, rows: Iterable[Mapping[str, Any]]) -> list[float]:
        """Return the metric of each row, negated if it is maximized, so that less is better; skip missing values."""
        values = [row.get(self.metric) for row in rows]
        return [-value if self.maximize else value for value in values if value is not None]

    def setting(self, values: Mapping[str, Any], typed: Mapping[str, Any] | None = None) -> Setting:
        """Return the options that the sweep varies, except the seed, of the point with these values of its parameters.

        The values of `typed` replace them. If nothing varies, the setting has the name of the sweep.
        """
        varied: dict[str, Any] = {}
        for name in self.varied:
            varied |= read_pairs(values[name] or "") if name == "setting" else {name: values[name]}
        varied.pop("seed", None)
        return setting_of(varied | dict(typed or {}), varied) if varied else Setting((), self.name)

    def replaced(self, values: Mapping[str, str]) -> "Sweep":
        """Return the sweep with these values in place of its own parameters, also within `setting`.

        `run_cap` replaces the number of runs. Raises UserError if it is none, or if no run would log the metric.
        """
        # The number of runs is no parameter
        given = {**self.given, **values}
        run_cap = self.run_cap
        if "run_cap" in values:
            text = values["run_cap"]
            if not text.isdecimal() or not int(text):
                raise UserError(f"{self.path}: run_cap must be a whole number from 1, not {text!r}")
            run_cap = int(text)
            values = {name: value for name, value in values.items() if name != "run_cap"}

        # Check the values
        check_values(values, "--set: ")

        # Replace the parameters, and remove them from the values of `setting`
        parameters = {name: parameter for name, parameter in self.parameters.items() if name not in values}
        if "setting" in parameters:
            settings = [_without(text, values) for text in parameters["setting"].choices]
            parameters["setting"] = replace(
                parameters["setting"], distribution="categorical", keys={"values": settings}
            )
        parameters |= {name: space.of_choices([value]) for name, value in values.items()}
        if "metric" in values and (text := _unlogged(self.metric, parameters)):
            raise UserError(
                f"{self.path}: --set metric={values['metric']}: {text}, the metric of the sweep: leave it out"
            )
        return replace(
            self,
            parameters=parameters,
            run_cap=run_cap,
            given=given,
        )


def assignments(words: Sequence[str]) -> dict[str, str]:
    """Read the words after --set, key=value pairs; raise UserError if one is no pair, or a name has several values."""
    try:
        pairs = [read_pair(word, "--set") for word in words]
    except ValueError as error:
        raise UserError(str(error)) from None
    given = dict(pairs)
    for name, value in pairs:
        if given[name] != value:
            several = f"{name}={value} {name}={given[name]}"
            raise UserError(f"--set takes one value of an option, not {several}: write several into the file")
    return given


def check_values(values: Mapping[str, str], before: str = "", others: Collection[str] = ()) -> None:
    """Raise UserError for what is no option of a run, nor run_cap, and for values that it cannot have in any sweep.

    `before` stands before the sentence; a name may also resemble one of `others`, such as those of a function.
    """
    wrong = []
    for name, value in values.items():
        if name == "run_cap":
            continue
        if name not in Config.model_fields:
            known = [*Config.model_fields, *others]
            wrong.append(f"unknown option {name!r}; {meant(name, Config.model_fields, known)}")
            continue
        try:
            check_value(name, value)
        except Mistakes as error:
            several = "; write several values into a copy of the file" if _are_values(name, value) else ""
            wrong += [text + several for _, text in error.mistakes]
    if wrong:
        raise UserError(before + "; ".join(wrong))


def _possible(parameter: Parameter) -> list[Any]:
    """List the values that a parameter can have; [] if it draws numbers."""
    shares = parameter.keys.get("probabilities") or [1] * len(parameter.choices or ())
    return [choice for choice, share in zip(parameter.choices or (), shares, strict=True) if share]


def _are_values(name: str, text: str) -> bool:
    """Return whether a text is several values of an option, separated by commas."""
    parts = text.strip("[]").split(",")
    try:
        for part in parts:
            check_value(name, part.strip())
    except Mistakes:
        return False
    return len(parts) > 1


def _can_be_none(parameter: Parameter) -> bool:
    """Return whether a parameter has a value that means that the option is not set."""
    return any(choice in NONE for choice in parameter.choices or ())


def _without(setting: str, names: Mapping[str, Any]) -> str:
    """Return the pairs of a setting without those of some names."""
    return written({name: value for name, value in read_pairs(setting).items() if name not in names})


def _parameters(file: sweep_file.SweepFile) -> dict[str, Parameter]:
    """Return the parameters of a file with the options that its command adds."""
    before, after = (
        {name: space.of_choices([value]) for name, value in options.items()}
        for options in (file.command.before, file.command.after)
    )
    return before | file.parameters | after


def _chosen_by(file: sweep_file.SweepFile) -> dict[str, Parameter]:
    """Return the option by which the runs of a file choose their best epoch as the sweep chooses its settings."""
    metric = choosing(file.metric.name) if file.metric else None
    return {} if metric in (None, Config().metric) else {"metric": space.of_choices([metric])}


def _unlogged(name: str, parameters: Mapping[str, Parameter]) -> str:
    """Return a sentence if not all runs of a sweep with these parameters would log its metric, else ""."""
    metric = choosing(name)
    logged = {*(parameters["metric"].choices or ())} if "metric" in parameters else {Config().metric}
    if "setting" in parameters:
        logged = {
            read_pairs(pairs or "").get("metric", one) for pairs in parameters["setting"].choices for one in logged
        }
    if metric not in SCORES or logged == {metric}:
        return ""
    return f"only runs with --metric {metric} log {metric}"


def read(path: str | Path, values: Mapping[str, str] | None = None) -> Sweep:
    """Read a sweep file that has an end, and replace values of its parameters.

    Raises UserError with the file's name and what is wrong in it.
    """
    values = values or {}
    return parse(path, document.load(path), must_end="run_cap" not in values).replaced(values)


def with_end(sweep: Sweep) -> Sweep:
    """Return the sweep; raise UserError if it is a search without `run_cap`, which W&B allows."""
    if sweep.size is None:
        raise UserError(f"{sweep.path}: {sweep_file.no_end(sweep.method)}")
    return sweep


def parse(path: str | Path, content: Any, must_end: bool = False) -> Sweep:
    """Check the content of a sweep file; raise UserError with a line for each mistake, and its place in the file.

    `content` is a Document, or the content alone. Unless it `must_end`, a search may lack `run_cap`: W&B then draws
    points without end.
    """
    file = content if isinstance(content, Document) else Document(content, {}, ())
    try:
        keys = sweep_file.check(file.content, must_end)
    except Mistakes as error:
        raise document.error(path, [*file.twice, *error.mistakes], file.lines) from None
    except ValueError as error:  # a number that is too long to print
        raise UserError(f"{path}: {error}") from None
    if file.twice:
        raise document.error(path, file.twice, file.lines)

    # Runs choose their best epoch by the metric of the file; W&B's own sweeps give them only their parameters
    parameters = (_chosen_by(keys) if file is content else {}) | _parameters(keys)
    if text := _unlogged(keys.metric.name, parameters) if keys.metric else "":
        advice = f"give the parameter `metric: {{value: {choosing(keys.metric.name)}}}`"
        raise document.error(path, [(("metric", "name"), f"{text}: {advice}")], file.lines)
    return Sweep(
        path=Path(path),
        name=keys.name or Path(path).stem,
        description=keys.question,
        asks=keys.asks,
        parameters=parameters,
        method=keys.method,
        metric=keys.metric.name if keys.metric else "val/acc",
        maximize=keys.metric.is_maximized if keys.metric else True,
        run_cap=keys.run_cap,
        early_terminate=keys.early_terminate,
        where={key: value for key in ("project", "entity") if (value := getattr(keys, key))},
        ignored=keys.ignored,
        lines=file.lines,
    )
