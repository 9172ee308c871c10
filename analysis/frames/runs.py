"""Where runs come from: a runs directory or W&B, as three tidy frames, equal from both.

python -c "from analysis.frames import runs; print(runs.load('runs').runs)"    # or runs.load('ENTITY/PROJECT')
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import pull
from study.config import RESULTS_VERSION, Config, is_identity
from study.config.choices import HISTORY_METRICS, SUMMARY_METRICS
from study.record.directory import EARLY, CorruptRun, RunDirectory
from study.remote import api as wandb_api
from study.system.errors import UserError

IDENTITY = [name for name in Config.model_fields if is_identity(name)]
INFO = [
    "fingerprint",
    "group",
    "results_version",
    "state",
    "stopped_by",
    "started",
    "host",
    "device",
    "device_shared_by",
    "threads",
    "precision",
    "data_digest",
    "val_images",
    "test_images",
]


@dataclass(frozen=True)
class Frames:
    """Runs as tidy frames.

    `runs`: indexed by run, with the config's values, what `run.json` says of the state and the machine, and the
    summary. `history`: a row per run and epoch. `problems`: a sentence for each run that could not be read. `given`:
    accuracies of classes in percent from elsewhere, to compare with.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    configs: dict[str, Config] = field(repr=False)
    directories: dict[str, RunDirectory] = field(repr=False)
    problems: list[str] = field(default_factory=list)
    given: pd.Series | None = None

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Return a row per finished run and test image: target, predicted (class indices), probability."""
        return predictions(self, list(with_result(self.runs).index))

    def data(self, run: str) -> dict[str, Any]:
        """Return what run.json says of a run's data: classes, image_shape, images in each split."""
        return self.directories[run].info()["data"]

    def damage(self, run: str) -> str:
        """Say what is wrong with the evaluation.npz of a run; nothing where it can be read."""
        if run not in self._damages:
            self._damages[run] = _damage(self.directories[run])
        return self._damages[run]

    @cached_property
    def _damages(self) -> dict[str, str]:
        return {}

    def features(self, run: str) -> dict[str, np.ndarray]:
        """Return the features of validation images of a run: `targets`, `logits`, and, where the run could measure
        them, `penultimate` and `intermediate`.
        """
        arrays = self.directories[run].evaluation()
        found = {name: arrays[name] for name in ("logits", "penultimate", "intermediate") if name in arrays}
        return found | {"targets": arrays["feature_targets"]}


def load(source: str | Path, refresh: bool = False) -> Frames:
    """Read all runs below a directory, or of a project ENTITY/PROJECT or a sweep ENTITY/PROJECT/SWEEP_ID in W&B.

    Runs that cannot be read, or that another one repeats, are left out and named in `problems`. What has been pulled
    from W&B is not fetched again unless it has changed, or `refresh` says so.
    """
    if Path(source).is_dir():
        paths = [path for path in sorted(Path(source).iterdir()) if path.is_dir()]
        found = [RunDirectory(path) for path in paths if path.name != "wandb" and not path.name.startswith(".")]
        return _frames(found, [])
    if not wandb_api.path(str(source)):
        raise UserError(f"there is no directory {source}; name the one that --runs-dir named when training")
    try:
        found, problems = pull.pull(str(source), refresh)
    except UserError as error:
        raise UserError(f"there is no directory {source}, and as a project of W&B: {error}") from None
    return _frames(found, problems, is_pulled=True)


def _frames(found: Sequence[RunDirectory], problems: Sequence[str], is_pulled: bool = False) -> Frames:
    remedy = "the same command or sweep trains it anew"
    if is_pulled:
        remedy = "where its directory is, `python -m study.sync` sends what is missing"

    def place(directory: RunDirectory) -> str:
        return "/".join(directory.path.parts[-3:]) if is_pulled else str(directory.path)

    read: dict[str, list[tuple[RunDirectory, Config, dict[str, Any], list[dict[str, Any]]]]] = {}
    problems = list(problems)
    for directory in found:
        try:
            config, row, history = _read(directory)
        except (AttributeError, UserError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{place(directory)} is left out: {_reason(error)}; {remedy}")
            continue
        name = config.run_name.removesuffix(config.fingerprint) + row["fingerprint"]
        read.setdefault(name, []).append((directory, config, row, history))
    rows, lines, configs, directories = [], [], {}, {}
    for name, same in sorted(read.items()):
        counted = max(same, key=lambda one: (*_rank(one[2]), one[0].path.name == name))
        directories[name], configs[name] = counted[:2]
        rows.append(counted[2])
        lines += [{"run": name, **line} for line in counted[3]]
        others = [place(one[0]) for one in same if one is not counted]
        problems += [f"{other} is left out: it is the same run as {place(counted[0])}" for other in others]
    runs = pd.DataFrame(rows, list(directories), [*IDENTITY, *INFO, *SUMMARY_METRICS], dtype=object)
    runs[list(SUMMARY_METRICS)] = runs[list(SUMMARY_METRICS)].astype(float)
    history = pd.DataFrame(lines, columns=["run", "epoch", *HISTORY_METRICS])
    history[list(HISTORY_METRICS)] = history[list(HISTORY_METRICS)].astype(float)
    return Frames(runs.rename_axis("run"), history, configs, directories, problems)


def _rank(row: Mapping[str, Any]) -> tuple[bool, str]:
    """Order runs of one fingerprint: one with a result counts before one without, a later before an earlier one."""
    return has_result(row["state"], row["stopped_by"]), row["started"] or ""


def _read(directory: RunDirectory) -> tuple[Config, dict[str, Any], list[dict[str, Any]]]:
    state = directory.state()
    if state == "corrupt":
        raise CorruptRun(directory.defect())
    if state == "missing":
        raise CorruptRun("it has no run.json")
    info, summary, history = directory.info(), directory.summary(), directory.history()
    config = Config.recorded(info["config"])
    if info["results_version"] == RESULTS_VERSION and info["fingerprint"] != config.fingerprint:
        raise CorruptRun(
            f"its config is not that of its fingerprint {info['fingerprint']}, but of {config.fingerprint}"
        )
    row = {name: getattr(config, name) for name in IDENTITY}
    images = (info.get("data") or {}).get("images") or {}
    told = {**info, "state": state, "val_images": images.get("val"), "test_images": images.get("test")}
    row |= {name: told.get(name) for name in INFO}
    history = [{"epoch": line["epoch"], **{name: _number(line, name) for name in HISTORY_METRICS}} for line in history]
    return config, row | {name: _number(summary, name) for name in SUMMARY_METRICS}, history


def _number(values: Mapping[str, Any], name: str) -> float:
    """Return a number; NaN where there is none, CorruptRun where it is something else."""
    value = values.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise CorruptRun(f"its {name} is no number, but {value!r}")
    return math.nan if value is None else float(value)


def has_result(state: str, stopped_by: str | None) -> bool:
    """Tell whether a run came to the end that its config asks for: the last epoch, or its own early stopping."""
    return state == "finished" or (state == "stopped" and stopped_by == EARLY)


def with_result(runs: pd.DataFrame) -> pd.DataFrame:
    """Choose the runs that have a result."""
    results = [has_result(state, by) for state, by in zip(runs.state, runs.stopped_by, strict=True)]
    return runs[np.array(results, dtype=bool)]


def chosen(frames: Frames, fingerprints: Collection[str]) -> Frames:
    """Return the frames of runs with these fingerprints, and of those of other versions, whose fingerprints differ."""
    kept = frames.runs[frames.runs.fingerprint.isin(fingerprints) | (frames.runs.results_version != RESULTS_VERSION)]
    return replace(frames, runs=kept, history=frames.history[frames.history.run.isin(kept.index)])


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"its run.json is not as it must be ({error!r})"


def _damage(directory: RunDirectory) -> str:
    try:
        arrays = directory.evaluation()
        classes = len(arrays["class_names"])
        targets, predicted = arrays["test_targets"], arrays["test_predictions"]
    except CorruptRun as error:
        return str(error)
    except KeyError as error:
        return f"{directory.path / 'evaluation.npz'} has no {error.args[0]}"
    is_sound = len(targets) == len(predicted) and all(
        len(labels) and labels.min() >= 0 and labels.max() < classes for labels in (targets, predicted)
    )
    return "" if is_sound else f"{directory.path / 'evaluation.npz'} holds predictions that do not fit its classes"


def predictions(frames: Frames, names: Sequence[str]) -> pd.DataFrame:
    """Return a row per run and test image: target, predicted (class indices), probability of the predicted or NaN."""
    parts = []
    for run in names:
        arrays = frames.directories[run].evaluation()
        probabilities = arrays.get("test_probabilities")  # which an exported copy lacks
        parts.append(
            pd.DataFrame(
                {
                    "run": run,
                    "image": np.arange(len(arrays["test_targets"])),
                    "target": arrays["test_targets"],
                    "predicted": arrays["test_predictions"],
                    "probability": np.nan if probabilities is None else probabilities.astype(np.float32).max(1),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(
        columns=["run", "image", "target", "predicted", "probability"]
    )  # fmt: skip
