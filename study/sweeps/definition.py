"""Read a sweep file in W&B's format, and list its points, without torch.

python -c "from study.sweeps.definition import read; print(*read('sweeps/dropout.yaml').points(), sep='\\n')"
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from study.config import Config
from study.config.setting import Setting, read_pair, read_pairs, setting_of, written
from study.sweeps import distributions as space
from study.sweeps import file as sweep_file
from study.sweeps import random
from study.sweeps.distributions import Parameter
from study.sweeps.file import METHODS
from study.sweeps.hyperband import Hyperband
from study.system.errors import UserError

PROBES = 100
"""Number of random points of an adaptive sweep that are checked before any is trained."""

NEAR = 0.001
"""Distance of the checked values from the ends of a range; an end itself may not be allowed, such as lr 0."""


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    `values` are those of its parameters, as the sweep writes them. `setting` holds the options that the sweep varies,
    except the seed, with the values of the config; `together` those that its parameter `setting` varies together.
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
    `maximize` is whether larger values are better. `where` holds the W&B project and entity of the file, `ignored` the
    keys that only W&B uses. If the points of a search are `drawn_elsewhere`, by W&B, they are those of the recorded
    runs.
    """

    path: Path
    name: str
    description: str
    parameters: dict[str, Parameter]
    method: str = "grid"
    metric: str = "val/acc"
    maximize: bool = True
    run_cap: int | None = None
    early_terminate: Hyperband | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
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
            known = METHODS[self.method].points(self.parameters, self.run_cap)
            points = [self.point(values, base) for values in known]
            if self.is_adaptive:
                for values in self._probes():
                    self.point(values, base)
                points += self._located((info for info in recorded if self.name in (info.get("sweeps") or ())), base)

        # Keep the first point of each config
        unique: dict[str, Point] = {}
        for point in points:
            unique.setdefault(point.config.fingerprint, point)
        return list(unique.values())

    def open_points(self, points: Sequence[Point]) -> int:
        """Count the points that an adaptive sweep has yet to choose, beside these; 0 if all are known beforehand."""
        return max(0, self.size - len(points)) if self.is_adaptive else 0

    def point(self, values: dict[str, Any], base: Mapping[str, Any] | None = None) -> Point:
        """Return the point with these values of the parameters; raise UserError if it is no valid config."""
        try:
            config = Config.parse({**self.where, **(base or {}), **values})
        except UserError as error:
            shown = ", ".join(f"{name}={values[name]}" for name in values if name in [*self.varied, "seed"])
            raise UserError(f"{self.path}: {error}" + (f" (at {shown})" if shown else "")) from None
        together = read_pairs(values.get("setting") or "")
        typed = {name: getattr(config, name) for name in {*values, *together} - {"setting"}}
        return Point(values, config, self.setting(values, typed), setting_of(typed, together))

    def example(self, base: Mapping[str, Any] | None = None) -> Config:
        """Return the config of some point of a search."""
        return self.point(random.draw(self.parameters, 0), base).config

    @property
    def named(self) -> set[str]:
        """Return the options that the file names, including those in `setting`."""
        settings = self.parameters["setting"].choices if "setting" in self.parameters else []
        return {*self.parameters, *(name for text in settings for name in read_pairs(text))}

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
        # Take the values from the config; parameters that the setting overrides may have any value
        recorded = config.model_dump() | {"setting": setting}
        values = {name: recorded[name] for name in self.parameters}
        overridden = {name: self.parameters[name] for name in read_pairs(setting or "") if name in values}
        values |= random.draw(overridden, 0)

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

    def _probes(self) -> Iterable[dict[str, Any]]:
        """Yield values to check before an adaptive search: random ones, and some near both ends of each range."""
        draws = [random.draw(self.parameters, index) for index in range(PROBES)]
        yield from draws
        for name, parameter in self.parameters.items():
            for quantile in (NEAR, 1 - NEAR) if "min" in parameter.keys else ():
                yield {**draws[0], name: parameter.value(quantile)}

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

        `run_cap` replaces the number of runs. Raises UserError if it is none.
        """
        # The number of runs is no parameter
        run_cap = self.run_cap
        if "run_cap" in values:
            text = values["run_cap"]
            if not text.isdecimal() or not int(text):
                raise UserError(f"{self.path}: run_cap must be a whole number from 1, not {text!r}")
            run_cap = int(text)
            values = {name: value for name, value in values.items() if name != "run_cap"}

        # Replace the parameters, and remove them from the values of `setting`
        parameters = {name: parameter for name, parameter in self.parameters.items() if name not in values}
        if "setting" in parameters:
            settings = [_without(text, values) for text in parameters["setting"].choices]
            parameters["setting"] = replace(
                parameters["setting"], distribution="categorical", keys={"values": settings}
            )
        return replace(
            self,
            parameters=parameters | {name: space.of_choices([value]) for name, value in values.items()},
            run_cap=run_cap,
        )


def assignments(words: Sequence[str]) -> dict[str, str]:
    """Read the words after --set, key=value pairs; raise UserError if one is no pair."""
    try:
        return dict(read_pair(word, "--set") for word in words)
    except ValueError as error:
        raise UserError(str(error)) from None


def _without(setting: str, names: Mapping[str, Any]) -> str:
    """Return the pairs of a setting without those of some names."""
    return written({name: value for name, value in read_pairs(setting).items() if name not in names})


def _parameters(file: sweep_file.SweepFile) -> dict[str, Parameter]:
    """Return the parameters of a file with the options that its command adds."""
    before, after = (
        {name: space.of_choices([value]) for name, value in options.items()}
        for options in (file.training.before, file.training.after)
    )
    return before | file.parameters | after


def read(path: str | Path, values: Mapping[str, str] | None = None) -> Sweep:
    """Read a sweep file that has an end, and replace values of its parameters.

    Raises UserError with the file's name and what is wrong in it.
    """
    return with_end(parse(path, sweep_file.load(Path(path))).replaced(values or {}))


def with_end(sweep: Sweep) -> Sweep:
    """Return the sweep; raise UserError if it is a search without `run_cap`, which W&B allows."""
    if sweep.size is None:
        raise UserError(
            f"{sweep.path}: method {sweep.method} needs `run_cap`, the number of runs; "
            "give it in the file or by --set run_cap=20"
        )
    return sweep


def parse(path: str | Path, content: Any) -> Sweep:
    """Check the content of a sweep file; raise UserError with the file's name and what is wrong in it.

    A search may lack `run_cap`: W&B then draws points without end.
    """
    try:
        file = sweep_file.check(content)
    except (UserError, ValueError) as error:  # ValueError: a number that is too long to print
        raise UserError(f"{path}: {error}") from None
    return Sweep(
        path=Path(path),
        name=file.name or Path(path).stem,
        description=file.description,
        parameters=_parameters(file),
        method=file.method,
        metric=file.metric.name if file.metric else "val/acc",
        maximize=file.metric.is_maximized if file.metric else True,
        run_cap=file.run_cap,
        early_terminate=file.early_terminate,
        where={key: value for key in ("project", "entity") if (value := getattr(file, key))},
        ignored=file.ignored,
    )
