"""A sweep on a W&B server: made from a file, and how its points stand there.

    python -m study.sweep create sweeps/dropout.yaml [--missing]
    python -m study.sweep status ENTITY/PROJECT/ID

A point is known by the fingerprint that its run has recorded; a run that died before that, by what W&B handed out.
"""

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from study.config import Config
from study.config.checks import pairs, written
from study.record.directory import DONE
from study.record.display import result
from study.remote.api import ask, content_of, is_missing, state_of, sweep_path
from study.sweeps import definition as search
from study.sweeps import file as sweep_file
from study.sweeps.definition import Point, Sweep
from study.system.console import console
from study.system.errors import UserError

COMMAND = ["${env}", "${interpreter}", "-m", "study.train", "${args}"]
RANKS = (*DONE, "running", "queued", "interrupted", "failed", "killed", "crashed")
"""The states of a run; of several runs of a point the one with the first of these counts."""
IN_HAND = (*DONE, "running", "queued")
"""States that need nobody's help."""
HANDS_OUT = ("RUNNING", "PENDING", "PAUSED")
"""W&B's states of sweeps that will hand out the points without a run."""

PAGE = 100


@dataclass(frozen=True)
class Run:
    """A run on W&B: its state, and in a few words what came of it or why nothing did."""

    id: str
    sweep: str | None
    fingerprint: str | None
    values: Mapping[str, Any]
    state: str
    text: str


@dataclass(frozen=True)
class WandbSweep:
    """A sweep on W&B: where it is, what its file said, its runs and those that `with_project` added, W&B's state."""

    entity: str
    project: str
    id: str
    content: Mapping[str, Any]
    sweep: Sweep
    runs: Sequence[Run]
    state: str = ""

    @property
    def path(self) -> str:
        """Return ENTITY/PROJECT/ID."""
        return f"{self.entity}/{self.project}/{self.id}"

    @property
    def left(self) -> int | None:
        """Count the points that W&B has yet to hand out, some of them again; None where there is no end of them."""
        handed_out = sum(run.state != "queued" for run in self.own_runs)
        return None if self.sweep.size is None else max(0, self.sweep.size - handed_out)

    @property
    def own_runs(self) -> list[Run]:
        """List the runs that W&B has handed out for this sweep."""
        return [run for run in self.runs if run.sweep == self.id]

    @property
    def hands_out(self) -> bool:
        """Tell whether W&B will yet hand out the points that have no run."""
        return self.state.upper() in HANDS_OUT

    def label(self, values: Mapping[str, Any]) -> str:
        """Name a run of the sweep by the values that it was handed."""
        known = dict.fromkeys(self.sweep.parameters, "") | dict(values)
        return f"{self.sweep.setting(known)}, seed {known.get('seed', Config().seed)}"

    def points(self) -> list[Point]:
        """List the points: of a grid all, else those that W&B has drawn so far."""
        if self.sweep.method == "grid":
            return self.sweep.points()
        drawn = {}
        for run in self.own_runs:
            with suppress(KeyError, UserError):
                point = self.sweep.point({name: run.values[name] for name in self.sweep.parameters})
                drawn[point.config.fingerprint] = point
        return list(drawn.values())

    def runs_of(self, point: Point) -> list[Run]:
        """List the runs of a point, that which counts for it first."""
        own = [run for run in self.runs if run.fingerprint == point.config.fingerprint]
        return sorted(own, key=lambda run: RANKS.index(run.state) if run.state in RANKS else len(RANKS))


def read(word: str, assignments: Mapping[str, str] | None = None) -> WandbSweep:
    """Read a sweep, ENTITY/PROJECT/ID or the address of its page, from W&B; UserError where it cannot be had."""
    named = sweep_path(word)
    if not named:
        raise UserError(f"a sweep on W&B is written ENTITY/PROJECT/ID, not {word!r}")
    entity, project, identifier = named
    content, state = content_of(named)
    sweep = search.parse("/".join(named), content).replaced(assignments or {})
    return WandbSweep(entity, project, identifier, content, sweep, _runs(entity, project, {"sweep": identifier}), state)


def with_project(given: WandbSweep) -> WandbSweep:
    """Add the runs of the whole project at the points of a grid, whatever sweep they belong to."""
    if given.sweep.method != "grid":
        return given
    known = {run.id for run in given.runs}
    others = [run for run in _runs_at(given.points(), given.entity, given.project) if run.id not in known]
    return replace(given, runs=[*given.runs, *others])


def print_status(given: WandbSweep) -> None:
    """Print how each point of a sweep stands on W&B, and what is missing, more than once there, or foreign to it."""
    points = given.points()
    table = Table("run", "state", "result", "on W&B", title=f"{given.sweep.name} ({given.path})", title_justify="left")
    states: Counter[str] = Counter()
    without = "not handed out yet" if given.hands_out else "missing"
    for point in points:
        runs = given.runs_of(point)
        state, text = (runs[0].state, runs[0].text) if runs else (without, "")
        states[state] += 1
        states["more than once"] += len(runs) > 1
        table.add_row(point.label, state, text, " ".join(run.id for run in runs))
    console(width=None if sys.stdout.isatty() else 200).print(table)
    if given.sweep.method != "grid" and given.left:
        states[without] += given.left
    print(", ".join(f"{count} {state}" for state, count in states.most_common() if count))
    known = {point.config.fingerprint for point in points}
    foreign = [run.id for run in given.own_runs if run.fingerprint not in known]
    if foreign:
        print(f"runs that fit no point, since its file or the code has changed: {' '.join(foreign)}")
    if states["not handed out yet"]:
        print(f"to train what is not handed out yet: python -m study.sweep agents {given.path}")
    if given.sweep.method == "grid" and any(states[state] for state in ("missing", *RANKS) if state not in IN_HAND):
        print(f"what has no result: python -m study.sweep create --missing {given.path}")


def create(word: str, assignments: Mapping[str, str], missing: bool, entity: str, project: str) -> str | None:
    """Make a sweep on W&B of a file, or of another sweep there, and return ENTITY/PROJECT/ID.

    With `missing` it holds the points without a run that has a result in the project, is running or is queued, but
    not those that W&B is yet to hand out; None if there are none. Raises UserError where a point is no valid config.
    """
    origin = read(word) if sweep_path(word) else None
    if origin:
        content, sweep = origin.content, origin.sweep
        entity, project = entity or origin.entity, project or origin.project
    else:
        content = sweep_file.load(Path(word))
        sweep = search.parse(word, content)
    sweep = search.with_end(sweep).replaced(assignments)
    points = sweep.points()
    entity = entity or content.get("entity") or os.environ.get("WANDB_ENTITY")
    entity = entity or ask(lambda api: api.default_entity, "your entity cannot be had")
    if not entity:
        raise UserError("you have no default entity at W&B; say --entity NAME")
    project = project or content.get("project") or os.environ.get("WANDB_PROJECT") or Config().project
    parameters = _parameters(content, sweep, assignments)
    if missing:
        if sweep.method != "grid":
            raise UserError(f"{word}: only a grid has points that can be missing; this one is {sweep.method}")
        known = {run.fingerprint for run in _runs_at(points, entity, project) if run.state in IN_HAND}
        if origin and (origin.entity, origin.project) == (entity, project):
            known |= _in_hand(origin)
        points = [point for point in points if point.config.fingerprint not in known]
        if not points:
            return None
        parameters = remaining(sweep, points, parameters)
        content = {key: value for key, value in content.items() if key != "run_cap"}
    content = {"program": "study/train.py", "command": COMMAND, "name": sweep.name, **content, "parameters": parameters}
    search.parse(word, content).points()
    return f"{entity}/{project}/{_create(content, entity, project)}"


def _in_hand(origin: WandbSweep) -> set[str]:
    """List the fingerprints of points that a sweep will hand out, or has, also to runs that did not tell theirs yet."""
    begun = {run.fingerprint for run in origin.own_runs}
    coming = {point.config.fingerprint for point in origin.points()} - begun if origin.hands_out else set()
    return coming | {run.fingerprint for run in origin.own_runs if run.state in IN_HAND}


def _create(content: dict[str, Any], entity: str, project: str) -> str:
    import wandb

    with redirect_stdout(sys.stderr):
        return ask(lambda api: wandb.sweep(content, entity=entity, project=project), "W&B does not take the sweep", 1)


def _parameters(content: Mapping[str, Any], sweep: Sweep, assignments: Mapping[str, str]) -> dict[str, Any]:
    """Write the parameters of a sweep, with other values where they were assigned, as W&B wants them."""
    written = {name.replace("-", "_"): given for name, given in content["parameters"].items()}
    for name, parameter in sweep.parameters.items():
        if name in assignments:
            written[name] = {"value": _typed(parameter.choices[0])}
        elif name == "setting":
            written[name] = {"values": parameter.choices}
    return written


def _typed(text: str) -> Any:
    """Read a number or a truth value, so that W&B can compare and plot it; the rest stays text."""
    with suppress(ValueError):
        value = json.loads(text.lower() if text in ("True", "False") else text)
        return value if isinstance(value, int | float) else text
    return text


def remaining(sweep: Sweep, points: Sequence[Point], written: Mapping[str, Any]) -> dict[str, Any]:
    """Write parameters whose grid is just these points of a grid: a product if they are one, else with `setting`.

    `written` holds those of the whole grid.
    """
    names = [name for name, parameter in sweep.parameters.items() if parameter.varies]
    values = {name: _unique(point.values[name] for point in points) for name in names}
    if math.prod(map(len, values.values())) == len(points):
        return {**written, **{name: {"values": own} for name, own in values.items()}}
    constant = {name: given for name, given in written.items() if name not in (*names, "setting")}
    settings = [_as_setting(point, names) for point in points]
    return constant | {"setting": {"values": settings}}


def _as_setting(point: Point, names: Sequence[str]) -> str:
    config = point.config.model_dump()
    words = {name: config[name] for name in names if name != "setting"} | pairs(point.values.get("setting") or "")
    return written(words)


def _unique(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _runs_at(points: Sequence[Point], entity: str, project: str) -> list[Run]:
    """List the runs of a project at these points, whatever sweep they belong to."""
    fingerprints, found = [point.config.fingerprint for point in points], []
    for begin in range(0, len(fingerprints), PAGE):
        found += _runs(entity, project, {"config.fingerprint.value": {"$in": fingerprints[begin : begin + PAGE]}})
    return found


def _runs(entity: str, project: str, filters: Mapping[str, Any]) -> list[Run]:
    def load(api: Any) -> list[Any]:
        try:
            return list(api.runs(f"{entity}/{project}", dict(filters), per_page=PAGE, lazy=False))
        except ValueError as error:
            if is_missing(error):
                return []
            raise

    return [_run(run) for run in ask(load, f"the runs of {entity}/{project} cannot be had")]


def _run(run: Any) -> Run:
    values = {name: value for name, value in run.config.items() if name in Config.model_fields}
    fingerprint = run.config.get("fingerprint") or _fingerprint(values)
    state = state_of(run)
    if state in DONE:
        text = result(run.summary_metrics)
    elif state == "failed":
        text = (run.config.get("info") or {}).get("error", "it did not say why; see its log on W&B")
    else:
        text = f"after epoch {run.summary_metrics.get('epoch', 0)}"
    return Run(run.id, run.sweep_name, fingerprint, values, state, text)


def _fingerprint(values: Mapping[str, Any]) -> str | None:
    with suppress(UserError):
        return Config.parse(values).fingerprint
    return None
