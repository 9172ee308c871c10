"""Runs as tidy frames, read from a directory of runs or from W&B with the same result.

python -c "from analysis.frames import runs; print(runs.load('runs').runs)"    # or runs.load('ENTITY/PROJECT')
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import pull
from study.config import RESULTS_VERSION, Config, is_identity
from study.config.scores import SCORES
from study.record.directory import DONE, EARLY, CorruptRun, RunDirectory, recorded_tags
from study.record.metrics import HISTORY, SUMMARY
from study.remote import api as wandb_api
from study.system import forks
from study.system.errors import Mistakes, UserError

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
    "cpu",
    "cores",
    "device_shared_by",
    "threads",
    "precision",
    "data_digest",
    "val_images",
    "test_images",
    "source",
    "author",
]


ALWAYS = [name for name in HISTORY if name not in SCORES]
"""Metrics of each epoch that the frames have also if no run has them."""


@dataclass(frozen=True)
class Frames:
    """Runs as tidy frames.

    `runs`: one row per run, with the values of its config, state and machine from `run.json`, and the summary.
    `history`: one row per run and epoch. `left_out`: how many runs could not be read or are copies of others;
    `problems`: sentences that say which, and why. `given`: accuracies of classes in percent from another source, to
    compare with.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    configs: dict[str, Config] = field(repr=False)
    directories: dict[str, RunDirectory] = field(repr=False)
    problems: list[str] = field(default_factory=list)
    left_out: int = 0
    given: pd.Series | None = None

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Return one row per run with a result and test image: target, predicted (class indices), probability."""
        parts = [pd.DataFrame(columns=["run", "image", "target", "predicted", "probability"])]
        for run in map(str, with_result(self.runs).index):
            arrays = self.directories[run].evaluation((*TESTED, "test_probabilities"))
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
        return pd.concat(parts[1:] or parts, ignore_index=True)

    @cached_property
    def recorded(self) -> list[dict[str, Any]]:
        """Return the config and the sweeps of each run from run.json, by which a sweep finds its runs."""
        infos = map(self.info, self.directories)
        return [{"config": info["config"], "sweeps": info.get("sweeps")} for info in infos]

    def info(self, run: str) -> dict[str, Any]:
        """Return the content of run.json of a run."""
        if run not in self._infos:
            self._infos[run] = self.directories[run].info()
        return self._infos[run]

    @cached_property
    def _infos(self) -> dict[str, dict[str, Any]]:
        return {}

    def data(self, run: str) -> dict[str, Any]:
        """Return the data of a run from run.json: classes, image_shape, images in each split."""
        return self.info(run)["data"]

    def damage(self, run: str) -> str:
        """Describe what is wrong with the evaluation.npz of a run; empty if it can be read."""
        if run not in self._damages:
            self._damages[run] = _damage(self.directories[run])
        return self._damages[run]

    @cached_property
    def _damages(self) -> dict[str, str]:
        return {}

    def has_features(self, run: str) -> bool:
        """Return whether a run has recorded features of validation images, which most exported copies lack."""
        return self.directories[run].has_evaluation("feature_targets")

    def tested(self, run: str) -> pd.DataFrame | None:
        """Return target and predicted class (indices) of each test image of a run; None if they cannot be read."""
        if run not in self._tested:
            self._tested[run] = _tested(self.directories[run])
        return self._tested[run]

    @cached_property
    def _tested(self) -> dict[str, pd.DataFrame | None]:
        return {}

    def probabilities(self, run: str) -> np.ndarray | None:
        """Return the probabilities of a run's test images, images by classes, whose rows add up to 1.

        None if they were not recorded, which exported copies lack, or cannot be read.
        """
        try:
            stored = self.directories[run].evaluation(["test_probabilities"])["test_probabilities"].astype(np.float64)
        except (CorruptRun, KeyError):
            return None
        return stored / stored.sum(axis=1, keepdims=True)

    def features(self, run: str) -> dict[str, np.ndarray]:
        """Return the features of validation images of a run.

        Keys: `targets`, `logits`, and `penultimate` and `intermediate` if the run recorded them.
        """
        arrays = self.directories[run].evaluation()
        layers = {name: arrays[name] for name in ("logits", "penultimate", "intermediate") if name in arrays}
        return layers | {"targets": arrays["feature_targets"]}


Epochs = tuple[list[str], np.ndarray]
"""Names of metrics, and a row of the epoch and their values for each epoch."""

Content = tuple[Config, dict[str, Any], Epochs]
"""What is read of a run: its config, the values of its row, and its epochs."""

Known = dict[Path, tuple[tuple[int, ...], Content]]
"""What was read of directories with a result, and when their files were written."""


def load(
    source: str | Path | Sequence[str], refresh: bool = False, known: Known | None = None, only: pull.Only = pull.ALL
) -> Frames:
    """Read all runs in a directory, or of a project ENTITY/PROJECT or a sweep ENTITY/PROJECT/SWEEP_ID in W&B.

    Of several sources, the runs of all, with the `source` of each; a run that several have counts once. The source of a
    run in W&B includes its author, if its project has several. `only` chooses runs by tag, and in W&B by group and
    author.

    Runs that cannot be read, and duplicates, are left out and named in `problems`. Runs pulled from W&B before are
    pulled again only if they have changed, or with `refresh`. With `known`, directories that have not changed since an
    earlier call with the same are not read again. Raises UserError if there is no such source.
    """
    named = [str(source)] if isinstance(source, str | Path) else map(str, source)
    names = list({Path(name).resolve() if Path(name).is_dir() else name: name for name in named}.values())
    listed: list[tuple[RunDirectory, str]] = []
    problems: list[str] = []
    for name in names:
        directories, left_out = _directories(name, refresh, only)
        listed += [(directory, name) for directory in directories]
        problems += left_out
    frames = _frames(listed, problems, known, only)
    filled = {source for _, source in listed}
    empty = [f"{name} holds no run" for name in names if name not in filled and len(names) > 1]
    return replace(frames, problems=[*frames.problems, *empty])


def _directories(source: str, refresh: bool, only: pull.Only) -> tuple[list[RunDirectory], list[str]]:
    """Return the directories of the runs of a source, and a sentence for each that could not be pulled."""
    # a directory of runs
    if Path(source).is_dir():
        if only.groups or only.authors:
            raise UserError(f"only runs in W&B have a group and an author, and {source} is a directory")
        paths = [path for path in sorted(Path(source).iterdir()) if path.is_dir()]
        paths = [path for path in paths if path.name != "wandb" and not path.name.startswith(".")]
        return [RunDirectory(path) for path in paths], []

    # a project or sweep in W&B
    if not wandb_api.path(str(source)):
        raise UserError(f"there is no directory {source}; name the one that --runs-dir named when training")
    try:
        return pull.pull(str(source), refresh, only)
    except UserError as error:
        raise type(error)(f"there is no directory {source}, and as a project of W&B: {error}") from None


OTHER_CODE = (
    "if something was removed from the code, put it back; otherwise run the same command or sweep again, or move these "
    "runs to another folder"
)
RETRAIN = "run the same command or sweep again to retrain it"
SEND = "run `python -m study.sync` on the machine with its directory to send what is missing"


def _frames(
    listed: Sequence[tuple[RunDirectory, str]], problems: Sequence[str], known: Known | None, only: pull.Only
) -> Frames:
    """Read run directories, each with the name of its source, into frames; `problems` were found before."""

    def place(directory: RunDirectory, source: str) -> str:
        return str(directory.path) if Path(source).is_dir() else "/".join(directory.path.parts[-3:])

    # read every directory; one that cannot be read is a problem, not an error; what many lack is said once
    copies: dict[str, list[tuple[RunDirectory, Config, dict[str, Any], Epochs]]] = {}
    problems = list(problems)
    left_out = len(problems)
    unknown: dict[str, list[str]] = {}
    contents = _contents([directory for directory, _ in listed], known)
    for (directory, source), content in zip(listed, contents, strict=True):
        if isinstance(content, _OtherCode):
            unknown.setdefault(content, []).append(place(directory, source))
            continue
        if isinstance(content, str):
            left_out += 1
            remedy = RETRAIN if Path(source).is_dir() else SEND
            problems.append(f"{place(directory, source)} is left out: {content}; {remedy}")
            continue
        config, row, history = content
        if Path(source).is_dir() and not only.takes(row["tags"]):
            continue
        row = {**row, "source": source}
        name = config.run_name.removesuffix(config.fingerprint) + row["fingerprint"]
        copies.setdefault(name, []).append((directory, config, row, history))

    for why, places in unknown.items():
        left_out += len(places)
        which = f"{places[0]} is" if len(places) == 1 else f"{len(places)} runs, such as {places[0]}, are"
        problems.append(f"{which} left out: {why}; {OTHER_CODE}")

    # of several copies of a run, keep the best one
    rows: list[dict[str, Any]] = []
    histories: dict[str, Epochs] = {}
    configs: dict[str, Config] = {}
    directories: dict[str, RunDirectory] = {}
    for name, same in sorted(copies.items()):
        kept = max(same, key=lambda copy: (*_rank(copy[2]), copy[0].path.name == name))
        directories[name], configs[name], row, histories[name] = kept
        rows.append(row)
        others = [place(copy[0], copy[2]["source"]) for copy in same if copy is not kept]
        left_out += len(others)
        problems += [
            f"{other} is left out: it is the same run as {place(kept[0], kept[2]['source'])}" for other in others
        ]

    # the name of a source with several authors includes the author
    authors = Counter(row["source"] for row in {(row["source"], row["author"]): row for row in rows}.values())
    for row in rows:
        if authors[row["source"]] > 1 and row["author"]:
            row["source"] = f"{row['source']}, {row['author']}"

    # numbers are floats, NaN where a run lacks one
    runs = pd.DataFrame(rows, list(directories), [*IDENTITY, *INFO, *SUMMARY], dtype=object)
    runs = runs.astype(dict.fromkeys(SUMMARY, float)).copy()  # a copy is in few blocks, to which columns are added fast
    return Frames(runs.rename_axis("run"), _joined(histories), configs, directories, problems, left_out)


def _joined(histories: Mapping[str, Epochs]) -> pd.DataFrame:
    """Join the epochs of all runs: `run`, `epoch`, and a column for each metric that any of them has."""
    present = {*ALWAYS}.union(*(names for names, _ in histories.values()))
    columns = [name for name in HISTORY if name in present]

    def with_all(names: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        if list(names) == columns:
            return numbers
        places = [0, *(1 + columns.index(name) for name in names)]
        result = np.full((len(numbers), 1 + len(columns)), math.nan)
        result[:, places] = numbers
        return result

    parts = [with_all(*epochs) for epochs in histories.values()]
    numbers = np.concatenate([np.empty((0, 1 + len(columns))), *parts])
    history = pd.DataFrame(numbers[:, 1:], columns=columns)
    history.insert(0, "epoch", numbers[:, 0].astype(int))
    history.insert(0, "run", pd.Index(list(histories), dtype=object).repeat([len(part) for part in parts]))
    return history


def _rank(row: Mapping[str, Any]) -> tuple[bool, str]:
    """Return the sort key of copies of a run: those with a result rank highest, then the latest."""
    return has_result(row["state"], row["stopped_by"]), row["started"] or ""


def _contents(directories: Sequence[RunDirectory], known: Known | None) -> Iterator[Content | str]:
    """Yield what `_read` returns of each directory, or a sentence if it cannot be read.

    `known` has what was read of directories with a result before, which counts while their files are the same.
    """
    if known is None:
        yield from forks.each(_attempt, directories)
        return

    # read what is new or has changed
    written = {directory.path: _written(directory) for directory in directories}
    same = {path for path, times in written.items() if path in known and known[path][0] == times}
    changed = [directory for directory in directories if directory.path not in same]
    fresh = dict(zip([directory.path for directory in changed], forks.each(_attempt, changed), strict=True))

    # keep what has a result
    for path, content in fresh.items():
        if not isinstance(content, str) and content[1]["state"] in DONE:
            known[path] = written[path], content
    yield from (fresh.get(directory.path) or known[directory.path][1] for directory in directories)


def _written(directory: RunDirectory) -> tuple[int, ...]:
    """Return when the files of a run were written, 0 for those that are missing."""
    paths = [directory.path / name for name in ("run.json", "history.jsonl", "summary.json")]
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


class _OtherCode(str):
    """Why this code does not take the options of a run, such as a network that was removed; often that of many runs."""

    __slots__ = ()


def _attempt(directory: RunDirectory) -> Content | str:
    """Return what `_read` returns, or a sentence if the directory cannot be read."""
    try:
        return _read(directory)
    except Mistakes as error:
        return _OtherCode(error)
    except (AttributeError, UserError, KeyError, TypeError, ValueError) as error:
        return _reason(error)


def _read(directory: RunDirectory) -> Content:
    """Return the config, the row, and the epochs; raise CorruptRun if files do not agree."""
    info, lines, summary, state, defect = directory.read()
    if defect:
        raise CorruptRun(defect)
    if state == "missing":
        raise CorruptRun("it has no run.json")

    # the config must be the one that the run was trained with
    config = Config.recorded(info["config"])
    if info["results_version"] == RESULTS_VERSION and info["fingerprint"] != config.fingerprint:
        raise CorruptRun(f"its fingerprint is {info['fingerprint']}, but that of its config is {config.fingerprint}")

    # one row: config, run.json, summary
    row = {name: getattr(config, name) for name in IDENTITY}
    images = (info.get("data") or {}).get("images") or {}
    info = {**info, "state": state, "val_images": images.get("val"), "test_images": images.get("test")}
    row |= {name: info.get(name) for name in INFO} | {"tags": recorded_tags(info)}
    row |= {name: _number(summary, name) for name in SUMMARY}

    # one line per epoch
    present = {*ALWAYS}.union(*lines)
    names = [name for name in HISTORY if name in present]
    history = [(line["epoch"], *_numbers(line, names)) for line in lines]
    return config, row, (names, np.array(history, dtype=float).reshape(-1, 1 + len(names)))


def _numbers(values: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """Return numbers as `_number` does; quickly if all are there."""
    found = list(map(values.get, names))
    return found if set(map(type, found)) == {float} else [_number(values, name) for name in names]


def _number(values: Mapping[str, Any], name: str) -> float:
    """Return a number, or NaN if it is missing; raise CorruptRun if it is anything else."""
    value = values.get(name)
    if type(value) is float:
        return value
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise CorruptRun(f"its {name} must be a number, not {value!r}")
    return math.nan if value is None else float(value)


def has_result(state: str, stopped_by: str | None) -> bool:
    """Return whether a run ended as its config asks: at the last epoch, or by its own early stopping."""
    return state == "finished" or (state == "stopped" and stopped_by == EARLY)


def with_result(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a result."""
    results = [has_result(state, by) for state, by in zip(runs.state, runs.stopped_by, strict=True)]
    return runs[np.array(results, dtype=bool)]


def chosen(frames: Frames, fingerprints: Collection[str]) -> Frames:
    """Return the frames of the runs with these fingerprints, and of all runs of other versions of the code."""
    kept = frames.runs[frames.runs.fingerprint.isin(fingerprints) | (frames.runs.results_version != RESULTS_VERSION)]
    return replace(frames, runs=kept, history=frames.history[frames.history.run.isin(kept.index)])


def _reason(error: Exception) -> str:
    """Describe why a run could not be read."""
    return str(error) if isinstance(error, UserError) else f"its run.json is invalid ({error!r})"


TESTED = ("class_names", "test_targets", "test_predictions")
"""Arrays of evaluation.npz with what a run predicts for the test images."""


def _damage(directory: RunDirectory) -> str:
    """Describe what is wrong with evaluation.npz: it cannot be read, or its predictions are of other classes."""
    try:
        arrays = directory.evaluation()
    except CorruptRun as error:
        return str(error)
    path = directory.path / "evaluation.npz"
    if absent := [name for name in TESTED if name not in arrays]:
        return f"{path} has no {absent[0]}"
    return "" if _are_sound(arrays) else f"{path} holds predictions that do not fit its classes"


def _are_sound(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether targets and predictions are equally many indices of classes."""
    classes, *labels = (arrays[name] for name in TESTED)
    return len(labels[0]) == len(labels[1]) and all(
        len(own) and own.min() >= 0 and own.max() < len(classes) for own in labels
    )


def _tested(directory: RunDirectory) -> pd.DataFrame | None:
    """Read targets and predictions of the test images; None if they are broken."""
    try:
        arrays = directory.evaluation(TESTED)
    except CorruptRun:
        return None
    if not arrays.keys() >= {*TESTED} or not _are_sound(arrays):
        return None
    return pd.DataFrame({"target": arrays["test_targets"], "predicted": arrays["test_predictions"]})
