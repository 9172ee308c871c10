"""Create a sweep on a W&B server from a file, and read the state of its points.

    python -m study.sweep create sweeps/dropout.yaml [--missing]
    python -m study.sweep status ENTITY/PROJECT/ID

A run belongs to the point with the fingerprint that it recorded; if it died before, with the values that W&B gave it.
"""

import json
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from rich.table import Table

from study.config import Config, check_value
from study.config.setting import Setting, read_pairs, run_title, written
from study.record.directory import DONE
from study.record.display import duration, result
from study.remote import columns
from study.remote.api import ask, content_of, is_missing, state_of, sweep_path
from study.sweeps import command, document, timm_names
from study.sweeps import definition as search
from study.sweeps.definition import Point, Sweep
from study.system.console import console
from study.system.errors import Mistakes, UserError
from study.system.progress import Say

COMMAND = ["${env}", "${interpreter}", "-m", "study.train", "${args}"]
RANKS = (*DONE, "running", "queued", "interrupted", "failed", "killed", "crashed")
"""States of runs; of several runs of a point, the one whose state comes first counts."""

IN_HAND = (*DONE, "running", "queued")
"""States of runs that have a result or will have one without further action."""

NOT_STARTED = "not handed out yet"
MISSING = "missing"
"""States of points without a run, in a sweep that W&B still hands out and in one that has ended."""

HANDS_OUT = ("RUNNING", "PENDING", "PAUSED")
"""W&B's states of sweeps that will still start runs for the remaining points."""

PAGE = 100


@dataclass(frozen=True)
class Run:
    """A run on W&B: its state, and in a few words its result or why it has none."""

    id: str
    sweep: str | None
    fingerprint: str | None
    values: Mapping[str, Any]
    state: str
    text: str


@dataclass(frozen=True)
class WandbSweep:
    """A sweep on W&B: its place, the content of its file, its runs and those of `with_project`, and W&B's state."""

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

    def title(self, values: Mapping[str, Any]) -> str:
        """Return the name in W&B of a run of the sweep from the values that W&B gave it."""
        return run_title(*self._setting(values))

    @property
    def left(self) -> int | None:
        """Count the runs that W&B will still start, including those that are queued again; None if there is no end."""
        handed_out = sum(run.state != "queued" for run in self.own_runs)
        return None if self.sweep.size is None else max(0, self.sweep.size - handed_out)

    @property
    def own_runs(self) -> list[Run]:
        """List the runs that W&B started for this sweep."""
        return [run for run in self.runs if run.sweep == self.id]

    @property
    def hands_out(self) -> bool:
        """Return whether W&B will still start runs for the points that have none."""
        return self.state.upper() in HANDS_OUT

    def label(self, values: Mapping[str, Any]) -> str:
        """Return the label of a run of the sweep from the values that W&B gave it."""
        setting, seed = self._setting(values)
        return str(setting.plus("seed", seed))

    def _setting(self, values: Mapping[str, Any]) -> tuple[Setting, Any]:
        """Return the setting and the seed of values that W&B gave a run, which may lack some."""
        known = dict.fromkeys(self.sweep.parameters, "") | dict(values) | self._constants

        # The seed as a config has it; a run with one that no config can have will fail
        seed = (known | read_pairs(known.get("setting") or "")).get("seed", Config().seed)
        with suppress(Mistakes):
            seed = check_value("seed", seed)
        return self.sweep.setting(known), seed

    @property
    def _constants(self) -> dict[str, Any]:
        """Return the options that have one value in all runs.

        W&B may have another value of them: if the command sets an option after a point's values, the command's counts.
        """
        return {name: one.choices[0] for name, one in self.sweep.parameters.items() if not one.varies}

    def points(self) -> list[Point]:
        """List the points: all of a grid, or those of a search that W&B has drawn so far."""
        if not self.sweep.is_search:
            return self.sweep.points()
        drawn = {}
        own = self._constants
        for run in self.own_runs:
            with suppress(KeyError, UserError):
                values = {name: own[name] if name in own else run.values[name] for name in self.sweep.parameters}
                point = self.sweep.point(values)
                drawn[point.config.fingerprint] = point
        return list(drawn.values())

    def runs_of(self, point: Point) -> list[Run]:
        """List the runs of a point, the one that counts first."""
        runs = self._runs_by_fingerprint.get(point.config.fingerprint, [])
        return sorted(runs, key=lambda run: RANKS.index(run.state) if run.state in RANKS else len(RANKS))

    @cached_property
    def _runs_by_fingerprint(self) -> dict[str | None, list[Run]]:
        groups: dict[str | None, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.fingerprint, []).append(run)
        return groups


def read(word: str, assignments: Mapping[str, str] | None = None) -> WandbSweep:
    """Read a sweep, ENTITY/PROJECT/ID or the address of its page, from W&B; raise UserError if that fails."""
    names = sweep_path(word)
    if not names:
        raise UserError(f"a sweep on W&B is written ENTITY/PROJECT/ID, not {word!r}")
    entity, project, identifier = names
    content, state = content_of(names)
    sweep = search.parse("/".join(names), content).replaced(assignments or {})
    return WandbSweep(entity, project, identifier, content, sweep, _runs(entity, project, {"sweep": identifier}), state)


def states(sweep: WandbSweep) -> Counter[str]:
    """Count the points in each state: that of the run that counts, NOT_STARTED or MISSING without one."""
    pending = NOT_STARTED if sweep.hands_out else MISSING
    runs_of = [sweep.runs_of(point) for point in sweep.points()]
    counts = Counter(runs[0].state if runs else pending for runs in runs_of)
    if sweep.sweep.is_search and sweep.left:
        counts[pending] += sweep.left - sum(run.state == "queued" for run in sweep.own_runs)
    return +counts


def without_result(sweep: WandbSweep) -> dict[str, int]:
    """Count the points that will have no result without further action, by state.

    Runs that `early_terminate` stopped are none of them.
    """
    expected = (*IN_HAND, NOT_STARTED, *(["killed"] if sweep.sweep.early_terminate else []))
    return {state: count for state, count in states(sweep).items() if state not in expected}


def report_rest(sweep: WandbSweep, say: Say) -> bool:
    """Print how many points have no result now, if any, and what to do; return whether one should have a result.

    A run that a person stopped, and a point that W&B will still hand out, need not have one.
    """
    try:
        sweep = with_project(read(sweep.path))
        counts = without_result(sweep)
        coming = sum(states(sweep)[state] for state in ("running", "queued", NOT_STARTED))
    except UserError as error:
        say(f"whether every point has a result is not known: {error}")
        return True
    if counts:
        total = sum(counts.values())
        parts = ", ".join(f"{count} {state}" for state, count in counts.items())
        say(f"{total} {'point has' if total == 1 else 'points have'} no result at W&B: {parts}")
        for line in _advice(sweep, counts):
            say(f"once all agents have ended, {line}")
    if coming:
        have = "1 more point has" if coming == 1 else f"{coming} more points have"
        say(f"{have} no result yet: python -m study.sweep status {shlex.quote(sweep.path)}")
    return any(state != "killed" for state in counts)


def with_project(sweep: WandbSweep) -> WandbSweep:
    """Return the sweep with all runs of the project at the points of a grid, also those of other sweeps."""
    if sweep.sweep.is_search:
        return sweep
    known = {run.id for run in sweep.runs}
    others = [run for run in _runs_at(sweep.points(), sweep.entity, sweep.project) if run.id not in known]
    return replace(sweep, runs=[*sweep.runs, *others])


def print_status(sweep: WandbSweep) -> None:
    """Print the state of each point of a sweep on W&B, and which runs are missing, duplicated or match no point."""
    # Make a table of the points
    points = sweep.points()
    table = Table("run", "state", "result", "on W&B", title=f"{sweep.sweep.name} ({sweep.path})", title_justify="left")
    pending = NOT_STARTED if sweep.hands_out else MISSING
    counts = states(sweep)
    for point in points:
        runs = sweep.runs_of(point)
        state, text = (runs[0].state, runs[0].text) if runs else (pending, "")
        counts["more than once"] += len(runs) > 1
        table.add_row(point.label, state, text, " ".join(run.id for run in runs))

    # Print it with the number of points in each state
    console(width=None if sys.stdout.isatty() else 200).print(table)
    print(", ".join(f"{count} {state}" for state, count in counts.most_common() if count))

    # Name runs that match no point, and the commands that complete the sweep
    path = shlex.quote(sweep.path)
    known = {point.config.fingerprint for point in points}
    foreign = [run.id for run in sweep.own_runs if run.fingerprint not in known]
    if foreign:
        print(f"runs that match no point, because its file or the code has changed: {' '.join(foreign)}")
    if waiting := [state for state in (NOT_STARTED, "queued") if counts[state]]:
        print(f"to train what is {' or '.join(waiting)}: python -m study.sweep agents {path}")
    if counts["running"]:
        print("a run whose process has died counts as running for some minutes, or an hour if it never reached W&B")
    for line in _advice(sweep, counts):
        print(line)


def _advice(sweep: WandbSweep, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the commands that complete a sweep; of a search that was stopped, some points were never drawn."""
    path = shlex.quote(sweep.path)
    missing = counts.get(MISSING, 0)
    if any(counts.get(state) for state in RANKS if state not in IN_HAND) or (missing and not sweep.sweep.is_search):
        yield f"to train what has no result: python -m study.sweep create --missing {path}"
    if missing and sweep.sweep.is_search:
        yield f"to draw as many points as W&B did not: python -m study.sweep create {path} --set run_cap={missing}"


def create(word: str, assignments: Mapping[str, str], missing: bool, entity: str, project: str) -> str | None:
    """Create a sweep on W&B from a file or from another sweep on W&B, and return ENTITY/PROJECT/ID.

    With `missing`, it holds only the points that neither have a result in the project nor are running, queued or still
    to be started by W&B; return None if there are none. Raises UserError if a point is no valid config.
    """
    # Read the file or the other sweep
    origin = read(word) if sweep_path(word) else None
    if origin:
        content = origin.content
        sweep = origin.sweep
        entity = entity or origin.entity
        project = project or origin.project
    else:
        file = document.load(word)
        content = file.content
        sweep = search.parse(word, file, must_end="run_cap" not in assignments)
    sweep = search.with_end(sweep.replaced(assignments))
    sweep.count()
    timm_names.check(sweep)
    if missing and sweep.is_search and not origin:
        raise UserError(f"only W&B knows the points that it drew for {word}: give ENTITY/PROJECT/ID")

    # Choose the entity and the project
    entity = entity or content.get("entity") or os.environ.get("WANDB_ENTITY")
    entity = entity or ask(lambda api: api.default_entity, "your entity cannot be read")
    if not entity:
        raise UserError("you have no default entity at W&B; give --entity NAME")
    project = project or content.get("project") or os.environ.get("WANDB_PROJECT") or Config().project
    for name, value in (("entity", entity), ("project", project)):
        check_value(name, value)
    is_in_place = origin and (origin.entity, origin.project) == (entity, project)
    if is_in_place and not (missing or assignments or sweep.is_search):
        raise UserError(
            f"{word} is on W&B already, and a second sweep would train its points again: --missing creates one of the "
            "points without a result, --set one with other values, --project one in another project"
        )

    # Write the parameters, with `missing` those of the remaining points
    content = content | ({"run_cap": sweep.run_cap} if sweep.run_cap else {}) | _command(content, assignments)
    parameters = _parameters(content, sweep, assignments)
    if missing:
        points = replace(origin, sweep=sweep).points() if sweep.is_search else sweep.points()
        known = {run.fingerprint for run in _runs_at(points, entity, project) if run.state in IN_HAND}
        if is_in_place:
            known |= _in_hand(origin)
        points = [point for point in points if point.config.fingerprint not in known]
        if not points:
            return None
        parameters = remaining(sweep, points, parameters)
        content = {key: value for key, value in content.items() if key != "run_cap"} | {"method": "grid"}

    # Check the sweep and create it
    content = {"program": "study/train.py", "command": COMMAND, "name": sweep.name, **content, "parameters": parameters}
    search.parse(word, content, must_end=True).count()
    return f"{entity}/{project}/{_create(content, entity, project)}"


def _in_hand(origin: WandbSweep) -> set[str]:
    """Return the fingerprints of points whose run W&B will still start, or whose run is done, running or queued."""
    started = {run.fingerprint for run in origin.own_runs}
    pending = {point.config.fingerprint for point in origin.points()} - started if origin.hands_out else set()
    return pending | {run.fingerprint for run in origin.own_runs if run.state in IN_HAND}


def _create(content: dict[str, Any], entity: str, project: str) -> str:
    import wandb

    with redirect_stdout(sys.stderr):
        return ask(lambda api: wandb.sweep(content, entity=entity, project=project), "W&B does not take the sweep", 1)


def _command(content: Mapping[str, Any], assignments: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the command of a sweep with the assigned values that it sets after those of the point; {} without any."""
    after = command.read(content.get("command"), content.get("program", "")).after
    words = [f"--{name}={assignments[name]}" for name in after if name in assignments]
    return {"command": [*content["command"], *words]} if words else {}


def _parameters(content: Mapping[str, Any], sweep: Sweep, assignments: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a sweep in W&B's format, with the assigned values."""
    result = {name.replace("-", "_"): value for name, value in content["parameters"].items()}
    for name, parameter in sweep.parameters.items():
        if name in assignments:
            result[name] = {"value": _typed(parameter.choices[0])}
        elif name == "setting":
            result[name] = {"values": parameter.choices}
        elif parameter.choices is None:  # numbers that YAML reads as texts, such as 1e-5
            result[name] = {key: parameter.keys.get(key, value) for key, value in result[name].items()}
        elif name == "metric":  # which follows from the metric of the file
            result.setdefault(name, {"value": parameter.choices[0]})
    return result


def _typed(text: str) -> Any:
    """Convert a number or a bool, so that W&B can compare and plot it; return any other text as it is."""
    with suppress(ValueError):
        value = json.loads(text.lower() if text in ("True", "False") else text)
        return value if isinstance(value, int | float) else text
    return text


def remaining(sweep: Sweep, points: Sequence[Point], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters whose grid is exactly these points of a grid.

    `written` holds the parameters of the full grid. If the points are a full grid of some values, only the values
    change. Otherwise each point becomes a value of `setting`.
    """
    names = [name for name, parameter in sweep.parameters.items() if parameter.varies]
    values = {name: _unique(point.values[name] for point in points if name in point.values) for name in names}
    used = {name for point in points for name in point.values}
    constant = {
        name: {"value": sweep.parameters[name].choices[0]} for name in written if name in used and name not in names
    }
    apply_always = all(name in point.values for point in points for name in names)
    if apply_always and math.prod(map(len, values.values())) == len(points):
        return constant | {name: {"values": choices} for name, choices in values.items()}
    constant.pop("setting", None)
    return constant | {"setting": {"values": [_as_setting(point, names) for point in points]}}


def _as_setting(point: Point, names: Sequence[str]) -> str:
    """Return the values of a point as key=value pairs."""
    config = point.config.model_dump()
    words = {name: config[name] for name in names if name != "setting" and name in point.values}
    words |= read_pairs(point.values.get("setting") or "")
    return written(words)


def _unique(values: Iterable[Any]) -> list[Any]:
    unique: list[Any] = []
    for value in values:
        if value not in unique:
            unique.append(value)
    return unique


def _runs_at(points: Sequence[Point], entity: str, project: str) -> list[Run]:
    """List the runs of a project at these points, of any sweep or none."""
    fingerprints = [point.config.fingerprint for point in points]
    runs = []
    for start in range(0, len(fingerprints), PAGE):
        runs += _runs(entity, project, {"config.fingerprint.value": {"$in": fingerprints[start : start + PAGE]}})
    return runs


def _runs(entity: str, project: str, filters: Mapping[str, Any]) -> list[Run]:
    """List the runs of a project that match W&B's filters; none if there is no such project."""

    def load(api: Any) -> list[Any]:
        try:
            return list(api.runs(f"{entity}/{project}", dict(filters), per_page=PAGE, lazy=False))
        except ValueError as error:
            if is_missing(error):
                return []
            raise

    return [_run(run) for run in ask(load, f"the runs of {entity}/{project} cannot be read")]


def _last_sign(run: Any) -> str:
    """Say how long ago W&B last heard of a run; "" if it does not tell."""
    try:
        heard = datetime.fromisoformat(run.heartbeat_at)
    except (AttributeError, TypeError, ValueError):
        return ""
    heard = heard if heard.tzinfo else heard.replace(tzinfo=UTC)
    return f", last heard of {duration(max(0.0, (datetime.now(UTC) - heard).total_seconds()))} ago"


def _run(run: Any) -> Run:
    """Convert a run of W&B's client."""
    # Find its point
    values = columns.options_of(run.config)
    fingerprint = run.config.get("fingerprint") or _fingerprint(values)

    # Describe its result
    state = state_of(run)
    if state in DONE:
        text = result(run.summary_metrics, str(values.get("metric", "val/acc")))
    elif state == "failed":
        text = (run.config.get("info") or {}).get("error", "it did not say why; see its log on W&B")
    else:
        text = f"after epoch {run.summary_metrics.get('epoch', 0)}"
    if state == "running":
        text += _last_sign(run)
    return Run(run.id, run.sweep_name, fingerprint, values, state, text)


def _fingerprint(values: Mapping[str, Any]) -> str | None:
    with suppress(UserError):
        return Config.parse(values, drop_unused=True).fingerprint
    return None
