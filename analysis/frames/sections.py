"""Sections of a report: the runs of a sweep or of a data set, which answer one question.

python -c "from analysis.frames import runs, sections; print(sections.by_dataset(runs.load('runs'))[0].runs)"
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames.runs import IDENTITY, Frames, with_result
from analysis.wording.texts import option_value, ranked_by, shown, text
from analysis.wording.words import RUN_STATES
from study.config import RESULTS_VERSION
from study.config.choices import OWNED
from study.config.setting import Setting, setting_of
from study.record.metrics import METRICS, PERCENT
from study.sweeps.definition import Point, Sweep

SPLIT = ("labels", "group_by", "val_share", "test_share")
"""Options that decide which images are in a split, beside the seed of the split."""

TASK = ["dataset", "classes", *SPLIT, "split_seed", "data_digest"]
"""Options that runs must share for their accuracies to be measured on the same images.

If each repeat has a split of its own, with or without a seed of its own, the split is the repeat, and settings are
compared over different images (Bouthillier et al. 2021).
"""

LEAST = 5
"""If runs differ in at least this many options, a setting is named by those in which it differs from most runs."""

FEWEST_DIGITS = 3
MOST_DIGITS = 17
"""Significant digits of a number drawn at random, in the name of a setting."""

ACCURACY = "val/acc"
"""The metric by which settings are ranked, unless all their runs chose their best epoch by another one."""

SPLITS = {"val": "best/val_", "last": "last/val_", "test": "test/"}
"""Where a run has its metric: of the validation images at its best epoch or its last one, and of the test images."""

SMALLEST = 0.5
"""The smallest difference in accuracy that matters, in points, unless the user gives another."""

GRID_VALUES = 12
"""Two options with at most this many values are a small grid."""

LOOKED_AT = 4
"""Number of settings of a section, the best ones, that are examined in detail."""

SEVERAL = ("accuracy", "overfitting", "epochs", "size", "speed")
ALONE = ("accuracy", "overfitting", "epochs", "confusion")
"""What the questions of sections with several settings, or with a single one, are about unless their sweep says it."""


@dataclass(frozen=True)
class Section:
    """The runs that answer one question.

    `runs`: the columns of Frames.runs and `setting`, a Setting; only runs of the current results version that have a
    result. `points`: one row per run of the design, with its setting, the values of the varied options, seed,
    fingerprint, and the state, `last/epoch` and best scores of the run; options that a sweep varies together are the
    option `pairs`, whose values are Settings. `states`: number of runs by state. `usual`: values of the options that
    settings leave out. `is_search`: whether the points were drawn at random. `drawn`: options whose values come
    from a distribution. `smallest`: the smallest difference in accuracy that matters, in points. `asks`: what the
    question is about, some of `study.sweeps.file.ASKS`. `words`: what names the sweep on a command line: its file and
    the `--set` with which it was read. `wanted`: the metric in that file. `computed`: results that `once` keeps.
    """

    name: str
    description: str
    varied: list[str]
    runs: pd.DataFrame
    history: pd.DataFrame
    points: pd.DataFrame
    states: dict[str, int]
    usual: Mapping[str, Any] = field(default_factory=dict)
    is_search: bool = False
    drawn: Sequence[str] = ()
    smallest: float = SMALLEST
    asks: Sequence[str] = ()
    words: Sequence[str] = ()
    wanted: str = ""
    computed: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def splits_vary(self) -> bool:
        """Return whether the repeats of a setting differ in the split of the images too."""
        return self.runs.split_seed.nunique() > 1

    @property
    def repeats(self) -> pd.Series:
        """Return which repeat of its setting each run is: its seed or, if the splits vary, that of its split."""
        return (self.runs.split_seed if self.splits_vary else self.runs.seed).rename("repeat")

    @property
    def subjects(self) -> Sequence[str]:
        """Return what the question is about: what its sweep asks, or what is usual."""
        return self.asks or (SEVERAL if len(self.ranked) > 1 else ALONE)

    @property
    def absent(self) -> pd.DataFrame:
        """Return the points without a result."""
        return self.points[~self.points.fingerprint.isin(self.runs.fingerprint)]

    @property
    def missing(self) -> list[str]:
        """Name the points without a result, and the reason if their runs have started."""
        with ranked_by(self.metric):
            return [
                shown(row["setting"].plus("seed", row["seed"])) + _why(row, self.metric)
                for row in self.absent.to_dict("records")
            ]

    @property
    def ranked(self) -> list[Setting]:
        """Return the settings in the order of the mean of their `scores`, the best first."""
        means = self.scores(self.runs).groupby(self.runs.setting, sort=False).mean()
        return list(means.sort_values(ascending=False, kind="stable").index)

    @property
    def metric(self) -> str:
        """Return the metric by which settings are ranked: that of all runs, val/acc if theirs differ."""
        metrics = self.runs.metric.dropna().unique()
        return metrics[0] if len(metrics) == 1 else ACCURACY

    @property
    def is_grid(self) -> bool:
        """Return whether two options vary over a small grid, most of whose cells have a result."""
        done = self.runs.drop_duplicates("setting")
        if len(self.varied) != 2 or {*self.varied} & {*self.drawn}:
            return False
        cells = [done[name].nunique() for name in self.varied]
        return max(cells) <= GRID_VALUES and math.prod(cells) <= 2 * len(done)

    def scores(self, runs: pd.DataFrame, split: str = "val") -> pd.Series:
        """Return the metric of runs of the section, as `scores` does."""
        return scores(runs, self.metric, split)

    @property
    def dataset(self) -> str:
        """Return the name of the data that the runs were trained on."""
        return ", ".join(name.removeprefix("folder:") for name in self.runs.dataset.unique())

    @property
    def title(self) -> str:
        """Return the name of the section with that of its data."""
        return self.name if self.dataset in self.name else f"{self.name} ({self.dataset})"


def scores(runs: pd.DataFrame | Mapping[str, Any], metric: str, split: str = "val") -> Any:
    """Return the metric of each run in percent, so that more is better: one of SPLITS.

    A loss L is shown as the likelihood e^−L, the geometric mean of the probabilities of the true classes.
    """
    name = metric.removeprefix("val/")
    values = runs[SPLITS[split] + name]
    return PERCENT * np.exp(-values) if METRICS[metric].goal == "minimize" else PERCENT * values


def once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a function of a section only once for each section; frames that it returns are copies."""

    @wraps(make)
    def kept(*args: Any, **options: Any) -> Any:
        section = next(arg for arg in args if isinstance(arg, Section))
        others = (arg for arg in args if not isinstance(arg, Section | Frames))
        key = (make.__module__, make.__name__, *others, *options.items())
        if key not in section.computed:
            section.computed[key] = make(*args, **options)
        result = section.computed[key]
        return result.copy() if isinstance(result, pd.DataFrame | pd.Series) else result

    return kept


def in_its_words(make: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of a section write texts that name the metric by which the section ranks its settings."""

    @wraps(make)
    def worded(*args: Any, **options: Any) -> Any:
        with ranked_by(next(arg for arg in args if isinstance(arg, Section)).metric):
            return make(*args, **options)

    return worded


def _why(point: Mapping[str, Any], metric: str) -> str:
    """Describe in brackets why a point has no result; a run that its sweep stopped has a best score, by a metric."""
    if not point["state"]:
        return ""
    if point["state"] != "stopped":
        return f" ({text(RUN_STATES[point['state']], context='of one run')})"
    stopped = text(
        "stopped by its sweep after epoch {epoch:.0f}, best val acc {val:.2f} %",
        epoch=point["last/epoch"],
        val=scores(point, metric),
    )
    return f" ({stopped})"


def best_of_settings(section: Section, without: Collection[str] = ()) -> pd.DataFrame:
    """Return the best run of each setting, ordered by the mean of the setting; runs in `without` are ignored.

    If the splits vary, only runs of the split that most runs have, so that all are of the same images.
    """
    runs = section.runs.drop(index=list(without))
    if section.splits_vary:
        runs = runs[runs.split_seed == runs.split_seed.mode()[0]]
    order = runs.assign(score=section.scores(runs)).sort_values(
        ["score", "best/val_loss"], ascending=[False, True], kind="stable"
    )
    best = runs.loc[order.index].drop_duplicates("setting")
    return best.iloc[pd.Categorical(best.setting, section.ranked).argsort()]


def best_readable(
    frames: Frames, section: Section, limit: int | None = None, without: Collection[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Return the best run of each setting with a readable evaluation.npz, and a sentence for each run left out.

    The first `limit` settings are the best one of each network, then the best others, in the order of all settings;
    `place` is that in the whole order. Only the files of these are checked. Runs in `without` are ignored.
    """
    damaged: dict[str, str] = {}
    while True:
        best = best_of_settings(section, {*without, *damaged})
        best = best.assign(place=range(len(best)))
        networks_first = best.model.duplicated().sort_values(kind="stable").index
        is_first = best.index.isin(networks_first[:limit])
        best = pd.concat([best[is_first], best[~is_first]])
        unreadable = {run: why for run in best.index[:limit] if (why := frames.damage(run))}
        if not unreadable:
            return best, [text("Left out here: {why}.", why=why) for why in damaged.values()]
        damaged |= unreadable


def best_with_features(frames: Frames, section: Section, limit: int) -> pd.DataFrame:
    """Return the best run with features of each setting, in the order of `best_readable`; empty if no run has any."""
    best, _ = best_readable(frames, section, limit)
    if all(frames.has_features(run) for run in best.index[:limit]):
        return best
    lacking = [run for run in section.runs.index if not frames.has_features(run)]
    return best.iloc[:0] if len(lacking) == len(section.runs) else best_readable(frames, section, limit, lacking)[0]


def of_sweep(frames: Frames, sweep: Sweep, points: Sequence[Point] | None = None) -> list[Section]:
    """Make a section for each task of a sweep, with the runs that have the fingerprints of its points, if known.

    A point without a run is assigned to the data files that most runs of its data were trained on.
    """
    points = sweep.points(recorded=frames.recorded) if points is None else points

    # a split for each seed is a repeat, not a task
    is_repeat = _is_repeat((point.config.seed, point.config.split_seed) for point in points)

    # count the data files of the runs, for each data set of the points
    present = frames.runs[_present(frames.runs)]
    digests = dict(zip(present.fingerprint, present.data_digest, strict=True))
    known: dict[tuple[Any, ...], Counter] = {}
    for point in points:
        if point.config.fingerprint in digests:
            known.setdefault(_data_of(point), Counter())[digests[point.config.fingerprint]] += 1

    # group the points by data set and data files
    tasks: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        counts = known.get(_data_of(point))
        usual = counts.most_common(1)[0][0] if counts else None
        *data, split_seed = _data_of(point)
        task = (*data, None if is_repeat else split_seed, digests.get(point.config.fingerprint, usual))
        tasks.setdefault(task, []).append(point)

    # with several tasks, the names of the sections include the task
    if len(tasks) < 2:
        return [_of_task(frames, sweep, points, sweep.name)]
    return [
        _of_task(frames, sweep, own, f"{sweep.name}, {_name(task, sweep.varied, len(known.get(task[:-1], ())) > 1)}")
        for task, own in tasks.items()
    ]


def _is_repeat(seeds: Iterable[tuple[int, int]]) -> bool:
    """Return whether the splits are repeats, for pairs of seed and split: each split goes with one seed only."""
    known = set(seeds)
    return len(known) > 1 and len({split for _, split in known}) == len(known)


def _data_of(point: Point) -> tuple[Any, ...]:
    """Return the options of TASK of a point: data set, classes and split."""
    return tuple(getattr(point.config, name) for name in TASK[:-1])


def _of_task(frames: Frames, sweep: Sweep, chosen_points: Sequence[Point], name: str) -> Section:
    """Make the section of those points of a sweep that have one task."""
    # name the settings by the varied options
    names = [name for name in sweep.varied if name not in TASK]
    varied = ["pairs" if name == "setting" else name for name in names]
    is_search = sweep.is_search
    drawn = [name for name in names if is_search and sweep.parameters[name].choices is None]
    left_out = {*sweep.varied} & {*TASK}
    if "setting" in sweep.varied and _is_repeat((p.config.seed, p.config.split_seed) for p in chosen_points):
        left_out |= {"seed", "split_seed"}
    whole = [point.setting.without(left_out) for point in chosen_points]
    together = [point.together.without(left_out) for point in chosen_points]
    if not any(setting.pairs for setting in together):
        varied = [name for name in varied if name != "pairs"]
    settings = _rounded([setting if setting.pairs else Setting((), sweep.name) for setting in whole], drawn)

    # one row per point
    rows = [
        {name: pairs if name == "pairs" else getattr(point.config, name) for name in varied}
        | {"setting": setting, "seed": point.config.seed, "fingerprint": point.config.fingerprint}
        for point, setting, pairs in zip(chosen_points, settings, together, strict=True)
    ]
    shown = ["setting", *varied]
    points = pd.DataFrame(rows, columns=[*shown, "seed", "fingerprint"], dtype=object)

    # the runs with these fingerprints
    present = frames.runs[_present(frames.runs)].reset_index().drop(columns=shown, errors="ignore")
    chosen = points[[*shown, "fingerprint"]].merge(present, on="fingerprint").set_index("run")
    section = _section(frames, name, sweep.description, varied, chosen, points)
    given = ["--set", *(f"{name}={value}" for name, value in sweep.given.items())] if sweep.given else []
    words = [str(sweep.path), *given] if sweep.path.is_file() else []
    return replace(section, is_search=is_search, drawn=drawn, asks=sweep.asks, words=words, wanted=sweep.metric)


@once
def by_network(section: Section) -> dict[str, Section]:
    """Return the part of a section that each network has in it, in the order of the sweep; none if it has one network.

    The p values of a part are corrected for its own comparisons.
    """
    parts = {}
    networks = section.points.setting.map(lambda setting: dict(setting.pairs).get("model"))
    for network in networks.dropna().unique():
        points = section.points[networks == network]
        runs = section.runs[section.runs.fingerprint.isin(points.fingerprint)]
        lacking = points.state[~points.fingerprint.isin(runs.fingerprint) & points.state.ne("")]
        parts[network] = replace(
            section,
            name=f"{section.name}, {network}",
            varied=[name for name in section.varied if points[name].nunique(dropna=False) > 1],
            runs=runs,
            history=section.history[section.history.run.isin(runs.index)],
            points=points,
            states=dict(Counter(lacking) + Counter({"finished": len(runs)})),
        )
    return parts


def _rounded(settings: Sequence[Setting], drawn: Sequence[str]) -> list[Setting]:
    """Round drawn numbers to the fewest digits with which all settings are different."""
    for digits in range(FEWEST_DIGITS, MOST_DIGITS):
        short = [
            replace(
                setting,
                pairs=tuple((name, _round(value, digits) if name in drawn else value) for name, value in setting.pairs),
            )
            for setting in settings
        ]
        if len(set(short)) == len(set(settings)):
            return short
    return list(settings)


def _round(value: Any, digits: int) -> Any:
    """Round a float to this many significant digits; other values are returned unchanged."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def by_dataset(frames: Frames) -> list[Section]:
    """Make a section for each data set, choice of classes and split; the settings are named by their options."""
    # tasks; a split for each seed is a repeat, if each setting has several
    tasks: list[tuple[tuple[Any, ...], pd.DataFrame]] = []
    names = [name for name in TASK if name != "split_seed"]
    for _, chosen in frames.runs[_present(frames.runs)].groupby(names, dropna=False):
        *data, digest = chosen[names].iloc[0]
        if _is_repeat(zip(chosen.seed, chosen.split_seed, strict=True)) and _has_repeats(frames, chosen):
            tasks.append(((*data, None, digest), chosen))
        else:
            of_splits = chosen.groupby("split_seed")
            tasks += [((*data, split_seed, digest), runs) for split_seed, runs in of_splits]

    sections = []
    for task, chosen in tasks:
        if with_result(chosen).empty:
            continue

        # the options in which the runs differ name the settings
        identities = [frames.configs[run].identity() for run in chosen.index]
        repeat = ("seed", "split_seed") if task[TASK.index("split_seed")] is None else ("seed",)
        varied = [
            name
            for name in IDENTITY
            if name not in repeat and len({repr(identity.get(name)) for identity in identities}) > 1
        ]
        usual = _usual(chosen, varied) if len(varied) >= LEAST else {}
        names = _settings(chosen.to_dict("records"), varied, usual)
        chosen = chosen.assign(setting=names).sort_values(["setting", "seed"])
        points = chosen[["setting", *varied, "seed", "fingerprint"]]

        # a second section of the same data set is named by its files too
        name = _name(task)
        if name in {section.name for section in sections}:
            name = _name(task, with_files=True)
        sections.append(replace(_section(frames, name, "", varied, chosen, points), usual=usual))
    return sections


def _has_repeats(frames: Frames, chosen: pd.DataFrame) -> bool:
    """Return whether all settings have several runs, if seed and split are not part of a setting."""
    identities = [frames.configs[run].identity() for run in chosen.index]
    kinds = Counter(
        repr({name: value for name, value in identity.items() if name not in ("seed", "split_seed")})
        for identity in identities
    )
    return min(kinds.values()) > 1


def _name(task: Sequence[Any], varied: Sequence[str] = (), with_files: bool = False) -> str:
    """Name a task by its data set, in the current language, and by the digest of its files if `with_files`."""
    dataset, classes, *split, split_seed, digest = task
    words = [dataset]
    if classes or "classes" in varied:
        words.append(option_value("classes", classes))
    for name, value in zip(SPLIT, split, strict=True):
        if value is not None or name in varied:
            words.append(option_value(name, value))
    if split_seed or ("split_seed" in varied and split_seed is not None):
        words.append(option_value("split_seed", split_seed))
    return ", ".join(words + [text("files {digest}", digest=digest)] * with_files)


def _usual(runs: pd.DataFrame, varied: Sequence[str]) -> dict[str, Any]:
    """Return the most frequent value of each varied option except the network."""
    return {
        name: runs[name][runs[name].map(repr) == runs[name].map(repr).mode()[0]].iloc[0]
        for name in varied
        if name != "model"
    }


def _settings(rows: Sequence[Mapping[str, Any]], varied: Sequence[str], usual: Mapping[str, Any]) -> list[Setting]:
    """Return the setting of each run, the options with unusual values, or its network if there are none.

    Options that a run does not have are left out if all settings are different without them.
    """
    unusual = [[name for name in varied if name not in usual or repr(row[name]) != repr(usual[name])] for row in rows]
    owned = [
        [name for name in names if row[name] is not None or name not in OWNED]
        for row, names in zip(rows, unusual, strict=True)
    ]
    full, short = (
        [setting_of(row, names or ["model"]) for row, names in zip(rows, chosen, strict=True)]
        for chosen in (unusual, owned)
    )
    return short if len(set(short)) == len(set(full)) else full


def _present(runs: pd.DataFrame) -> pd.Series:
    """Return for each run whether it is of the current results version."""
    return runs.results_version == RESULTS_VERSION


def _section(
    frames: Frames, name: str, description: str, varied: list[str], chosen: pd.DataFrame, points: pd.DataFrame
) -> Section:
    """Make a section of the chosen runs: those with a result, their history, and the state of every point."""
    finished = with_result(chosen).copy()  # joins the columns, of which pandas warns otherwise
    scores = [f"best/{metric.replace('/', '_')}" for metric in chosen.metric.dropna().unique()]
    known = list(dict.fromkeys(["state", "last/epoch", "best/val_acc", *scores]))
    points = points.join(chosen.set_index("fingerprint")[known], on="fingerprint")
    points["state"] = points.state.astype(object).where(points.state.notna(), "")
    history = finished[["setting", "seed"]].reset_index().merge(frames.history, on="run")
    states: Mapping[str, int] = Counter(chosen.state.drop(finished.index)) + Counter({"finished": len(finished)})
    return Section(name, description, varied, finished, history, points, dict(states))
