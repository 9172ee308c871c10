"""Where runs come from: a runs directory, as three tidy frames.

python -c "from analysis import runs; print(runs.load('runs').runs)"
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.config import RESULTS_VERSION, Config, is_identity
from study.errors import UserError
from study.names import HISTORY_METRICS, SUMMARY_METRICS
from study.run_directory import EARLY, CorruptRun, RunDirectory
from study.search import Sweep, label

IDENTITY = [name for name in Config.model_fields if is_identity(name)]
INFO = [
    "fingerprint",
    "group",
    "results_version",
    "state",
    "stopped_by",
    "host",
    "device",
    "device_shared_by",
    "threads",
    "data_digest",
    "test_images",
]


@dataclass(frozen=True)
class Frames:
    """Runs as tidy frames.

    `runs`: indexed by run, with the config's values, what `run.json` says of the state and the machine, and the
    summary. `history`: a row per run and epoch. `problems`: a sentence for each run that could not be read.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    configs: dict[str, Config] = field(repr=False)
    directories: dict[str, RunDirectory] = field(repr=False)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Return a row per finished run and test image: target, predicted (class indices), probability."""
        return predictions(self, list(_with_result(self.runs).index))

    def data(self, run: str) -> dict[str, Any]:
        """Return what run.json says of a run's data: classes, image_shape, images in each split."""
        return self.directories[run].info()["data"]

    def features(self, run: str) -> dict[str, np.ndarray]:
        """Return the features of validation images of a run: `logits`, `penultimate`, `intermediate`, `targets`."""
        arrays = self.directories[run].evaluation()
        return {name: arrays[name] for name in ("logits", "penultimate", "intermediate")} | {
            "targets": arrays["feature_targets"]
        }


@dataclass(frozen=True)
class Section:
    """The runs that answer one question.

    `runs` has, beside the columns of Frames.runs, `setting`: the label of what is compared. Only runs of the present
    results version with a result are in it. `missing` names points without one, `states` counts runs by state.
    """

    name: str
    description: str
    varied: list[str]
    runs: pd.DataFrame
    history: pd.DataFrame
    missing: list[str]
    states: dict[str, int]

    @property
    def dataset(self) -> str:
        """Name the data that its runs were trained on."""
        return ", ".join(name.removeprefix("folder:") for name in self.runs.dataset.unique())

    @property
    def title(self) -> str:
        """Name the section and its data."""
        return self.name if self.dataset in self.name else f"{self.name} ({self.dataset})"


def load(source: str | Path) -> Frames:
    """Read all runs below a directory; those that cannot be read are left out and named in `problems`."""
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"there is no directory {source}; name the one that --runs-dir named when training")
    rows, histories, configs, directories, problems = {}, [], {}, {}, []
    for path in sorted(source.iterdir()):
        if path.is_dir() and path.name != "wandb" and not path.name.startswith("."):
            directory = RunDirectory(path)
            try:
                config, row, history = _read(directory)
            except (UserError, KeyError, TypeError, ValueError) as error:
                problems.append(f"{path} is left out: {_reason(error)}; the same command or sweep trains it anew")
                continue
            if path.name != config.run_name:
                problems.append(f"{path} is left out: its config belongs to a run named {config.run_name}")
                continue
            rows[path.name], configs[path.name], directories[path.name] = row, config, directory
            histories += [{"run": path.name, **line} for line in history]
    columns = [*IDENTITY, *INFO, *SUMMARY_METRICS]
    runs = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object).rename_axis("run")
    runs[list(SUMMARY_METRICS)] = runs[list(SUMMARY_METRICS)].astype(float)
    history = pd.DataFrame(histories, columns=["run", "epoch", *HISTORY_METRICS])
    return Frames(runs, history, configs, directories, problems)


def _read(directory: RunDirectory) -> tuple[Config, list[Any], list[dict[str, Any]]]:
    state = directory.state()
    if state == "corrupt":
        raise CorruptRun(directory.defect())
    if state == "missing":
        raise CorruptRun("it has no run.json")
    info, summary, history = directory.info(), directory.summary(), directory.history()
    config = Config.recorded(info["config"])
    values = [getattr(config, name) for name in IDENTITY]
    told = {**info, "state": state, "test_images": info.get("data", {}).get("images", {}).get("test")}
    values += [told.get(name) for name in INFO]
    return config, values + [summary.get(name, np.nan) for name in SUMMARY_METRICS], history


def has_result(state: str, stopped_by: str | None) -> bool:
    """Tell whether a run came to the end that its config asks for: the last epoch, or its own early stopping."""
    return state == "finished" or (state == "stopped" and stopped_by == EARLY)


def _with_result(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[[has_result(state, by) for state, by in zip(runs.state, runs.stopped_by, strict=True)]]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"its run.json is not as it must be ({error!r})"


def predictions(frames: Frames, names: Sequence[str]) -> pd.DataFrame:
    """Return a row per run and test image: target, predicted (class indices), probability of the predicted."""
    parts = []
    for run in names:
        arrays = frames.directories[run].evaluation()
        probabilities = arrays["test_probabilities"].astype(np.float32)
        parts.append(
            pd.DataFrame(
                {
                    "run": run,
                    "image": np.arange(len(probabilities)),
                    "target": arrays["test_targets"],
                    "predicted": arrays["test_predictions"],
                    "probability": probabilities.max(1),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(
        columns=["run", "image", "target", "predicted", "probability"]
    )  # fmt: skip


def of_sweep(frames: Frames, sweep: Sweep) -> Section:
    """Choose the runs that a sweep's points describe, by their fingerprints."""
    points = {point.config.fingerprint: point for point in sweep.points()}
    chosen = frames.runs[frames.runs.fingerprint.isin(points) & _present(frames.runs)]
    labels = chosen.fingerprint.map(lambda fingerprint: sweep.setting(points[fingerprint].values))
    values = {
        name: chosen.fingerprint.map(lambda fingerprint, name=name: points[fingerprint].values[name])
        for name in sweep.varied
        if name != "setting"
    }
    order = {fingerprint: place for place, fingerprint in enumerate(points)}
    chosen = chosen.assign(**values, setting=labels).sort_values("fingerprint", key=lambda column: column.map(order))
    finished = _with_result(chosen)
    missing = [point.label for fingerprint, point in points.items() if fingerprint not in set(finished.fingerprint)]
    return _section(frames, sweep.name, sweep.description, sweep.varied, chosen, missing)


def by_dataset(frames: Frames) -> list[Section]:
    """Make one section for each data set; its settings are named by the options in which its runs differ."""
    sections = []
    for dataset, chosen in frames.runs[_present(frames.runs)].groupby("dataset"):
        if _with_result(chosen).empty:
            continue
        identities = [frames.configs[run].identity() for run in chosen.index]
        varied = [name for name in IDENTITY if name != "seed" and len({repr(one.get(name)) for one in identities}) > 1]
        chosen = chosen.assign(setting=[label(row, varied) or row["model"] for row in chosen.to_dict("records")])
        sections.append(_section(frames, str(dataset), "", varied, chosen.sort_values(["setting", "seed"]), []))
    return sections


def _present(runs: pd.DataFrame) -> pd.Series:
    return runs.results_version == RESULTS_VERSION


def _section(
    frames: Frames, name: str, description: str, varied: list[str], chosen: pd.DataFrame, missing: list[str]
) -> Section:
    finished = _with_result(chosen)
    history = finished[["setting", "seed"]].reset_index().merge(frames.history, on="run")
    states: Mapping[str, int] = Counter(chosen.state.drop(finished.index)) + Counter({"finished": len(finished)})
    return Section(name, description, varied, finished, history, missing, dict(states))
