"""A sweep file in W&B's own format, and its points (no torch in it).

python -c "from study.sweeps.definition import read; print(*read('sweeps/dropout.yaml').points(), sep='\\n')"
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from study.config import Config
from study.config.checks import pair, pairs, written
from study.sweeps import distributions as space
from study.sweeps import file as sweep_file
from study.sweeps.distributions import Parameter
from study.sweeps.hyperband import Hyperband
from study.system.errors import UserError

PROBES = 100
"""Points of a bayes sweep that are tried for being valid configs before any is trained."""


@dataclass(frozen=True)
class Point:
    """One point of a sweep: what its parameters say, the config that follows from it, and its name among the others."""

    values: dict[str, Any]
    config: Config
    label: str


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked.

    `metric` is what a Bayesian search and Hyperband look at, `maximize` whether more of it is better; `where` holds the
    W&B project and entity that the file names, `ignored` the keys that W&B alone heeds. Of a search that is
    `drawn_elsewhere`, on W&B, the points are those of its runs.
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
        """List the parameters with more than one value, the seed left out: what the sweep compares."""
        return [name for name, parameter in self.parameters.items() if parameter.varies and name != "seed"]

    @property
    def size(self) -> int | None:
        """Count the points, those of a grid or of a random search that compute the same too; None without an end."""
        if self.method != "grid":
            return self.run_cap
        every = math.prod(len(parameter.grid) for parameter in self.parameters.values())
        return min(every, self.run_cap or every)

    def points(self, base: Mapping[str, Any] | None = None, recorded: Iterable[Mapping[str, Any]] = ()) -> list[Point]:
        """List the points; those that compute the same appear once.

        A grid's last parameter varies fastest. A random search's points follow from the file. Those of a Bayesian
        search, or of any that W&B draws, are the runs, among those that `recorded` (what run.json says of each)
        describes, which name the sweep, unless W&B drew them, and lie within it. `base` holds options that the sweep
        does not name. Raises UserError where a point is no valid config.
        """
        match self.method:
            case "grid":
                every = itertools.product(*(parameter.grid for parameter in self.parameters.values()))
                combinations = (dict(zip(self.parameters, one, strict=True)) for one in every)
                found = [self.point(values, base) for values in itertools.islice(combinations, self.run_cap)]
            case "random" if not self.drawn_elsewhere:
                found = [self.point(self.draw(index), base) for index in range(self.run_cap)]
            case _:
                for values in () if self.drawn_elsewhere else self._probes():
                    self.point(values, base)
                ours = (info for info in recorded if self.drawn_elsewhere or self.name in (info.get("sweeps") or ()))
                own = [info["config"] for info in ours]
                found = [point for values in own if (point := self.locate(values, base))]
        unique: dict[str, Point] = {}
        for point in found:
            unique.setdefault(point.config.fingerprint, point)
        return list(unique.values())

    def point(self, values: dict[str, Any], base: Mapping[str, Any] | None = None) -> Point:
        """Make the point at which the parameters have these values; UserError where it is no valid config."""
        try:
            config = Config.parse({**self.where, **(base or {}), **values})
        except UserError as error:
            shown = ", ".join(f"{name}={values[name]}" for name in values if name in [*self.varied, "seed"])
            raise UserError(f"{self.path}: {error}" + (f" (at {shown})" if shown else "")) from None
        return Point(values, config, f"{self.setting(values)}, seed {config.seed}")

    def example(self, base: Mapping[str, Any] | None = None) -> Config:
        """Return the config of some point of a search."""
        return self.point(self.draw(0), base).config

    @property
    def named(self) -> set[str]:
        """Return the options that the file names, those within `setting` too."""
        settings = self.parameters["setting"].choices if "setting" in self.parameters else []
        return {*self.parameters, *(name for text in settings for name in pairs(text))}

    def draw(self, index: int) -> dict[str, Any]:
        """Draw the values of a random search's point.

        Each follows from what the file says of its parameter, and from the index: other parameters may change, and the
        cap be raised, without another draw.
        """
        return {
            name: parameter.value(_share(name, parameter.distribution, dict(parameter.keys), index))
            for name, parameter in self.parameters.items()
        }

    def locate(self, recorded: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Point | None:
        """Return the point at which a recorded config stands, None where the sweep has no such point."""
        try:
            config = Config.recorded(recorded)
        except UserError:  # options that there are no more
            return None
        settings = self.parameters["setting"].choices if "setting" in self.parameters else [None]
        return next((point for text in settings if (point := self._locate(config, text, base))), None)

    def _locate(self, config: Config, setting: str | None, base: Mapping[str, Any] | None) -> Point | None:
        values = {name: setting if name == "setting" else getattr(config, name) for name in self.parameters}
        overridden = {name for name in pairs(setting or "") if name in values}
        values |= {name: self.draw(0)[name] for name in overridden}  # what was drawn for them is not known, nor matters
        for name, parameter in self.parameters.items():
            if parameter.choices is None and parameter.quantile(values[name]) is None:
                return None
            if parameter.choices is not None and values[name] not in parameter.choices:  # written in another way
                same = (one for one in parameter.choices if self._point_of(config, {**values, name: one}, base))
                values[name] = next(same, None)
        return self._point_of(config, values, base)

    def _point_of(self, config: Config, values: dict[str, Any], base: Mapping[str, Any] | None) -> Point | None:
        """Return the point at which the parameters have these values if it computes what the config does."""
        with suppress(UserError):
            point = self.point(values, base)
            return point if point.config.fingerprint == config.fingerprint else None

    def _probes(self) -> Iterable[dict[str, Any]]:
        """Yield points of a Bayesian search: random ones, and those at the ends of each range."""
        yield from map(self.draw, range(PROBES))
        for name, parameter in self.parameters.items():
            for quantile in (0.0, 1.0) if "min" in parameter.keys else ():
                yield {**self.draw(0), name: parameter.value(quantile)}

    def losses(self, rows: Iterable[Mapping[str, Any]]) -> list[float]:
        """Return the metric after each epoch, its sign changed where more is better; what is no number is left out."""
        found = [row.get(self.metric) for row in rows]
        return [-value if self.maximize else value for value in found if value is not None]

    def setting(self, values: Mapping[str, Any]) -> str:
        """Name what the sweep varies at a point: its label in tables and figures."""
        return label(values, self.varied) or self.name

    def replaced(self, values: Mapping[str, str]) -> "Sweep":
        """Return the sweep with these values in place of its own, wherever it says them."""
        parameters = {name: given for name, given in self.parameters.items() if name not in values}
        if "setting" in parameters:
            settings = [_without(text, values) for text in parameters["setting"].choices]
            parameters["setting"] = replace(
                parameters["setting"], distribution="categorical", keys={"values": settings}
            )
        return replace(
            self, parameters=parameters | {name: space.of_choices([value]) for name, value in values.items()}
        )


def label(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """Name a setting by its values of some parameters, such as `cnn, dropout 0.5, augment none`."""
    bare, whole = ("model", "setting"), ("classes", "train_images")
    return ", ".join(
        f"{values[name]}"
        if name in bare
        else f"{name.replace('_', ' ')} {'all' if name in whole else 'none'}"
        if values[name] in (None, "")
        else f"{name.replace('_', ' ')} {values[name]}"
        for name in names
    )


def assignments(words: Sequence[str]) -> dict[str, str]:
    """Read the words after --set: key=value pairs that replace a sweep's own."""
    try:
        return dict(pair(word) for word in words)
    except ValueError as error:
        raise UserError(str(error).replace("setting", "--set")) from None


def _share(*keys: Any) -> float:
    """Derive a number from 0 to 1, 1 left out, from what it is for; it is the same with any library and machine."""
    digest = hashlib.sha256(json.dumps(keys, sort_keys=True, default=str).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def _without(setting: str, names: Mapping[str, Any]) -> str:
    return written({name: value for name, value in pairs(setting).items() if name not in names})


def read(path: str | Path) -> Sweep:
    """Read a sweep file; a UserError names the file and says what in it is wrong."""
    return with_end(parse(path, sweep_file.load(Path(path))))


def with_end(sweep: Sweep) -> Sweep:
    """Return the sweep; UserError where it is a search that does not say when it ends, as W&B allows."""
    if sweep.size is None:
        raise UserError(f"{sweep.path}: method {sweep.method} needs `run_cap`, the number of runs")
    return sweep


def parse(path: str | Path, content: Any) -> Sweep:
    """Check what a sweep file holds; a UserError names the file and says what in it is wrong.

    W&B draws points of a search without end, where the file has no `run_cap`.
    """
    try:
        fields = sweep_file.check(content)
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    return Sweep(Path(path), **fields | {"name": fields["name"] or Path(path).stem})
