"""Learning speed of settings: epochs, iterations and seconds to given accuracies.

python -c "from analysis.frames import runs, sections; from analysis.themes import speed; \\
    print(speed.table(sections.by_dataset(runs.load('runs'))[0]).frame)"
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import IDENTITY, Frames
from analysis.frames.sections import Section, once
from analysis.frames.statistics import ALPHA, differences, estimates
from analysis.page.blocks import Block, Heading, Paragraph
from analysis.page.figures import Looks
from analysis.page.tables import SIGNIFICANT, Column, Table
from analysis.themes import about
from analysis.wording.texts import named, plural, shown, text
from study.config import affects
from study.record.metrics import scaled

MOST_TIMED = 200
"""The times of more settings than this are not compared in pairs."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show when settings reached given accuracies."""
    reached = table(section)
    if not reached:
        return []
    timed = with_epochs(section)
    is_alike = alike(timed).nunique() == 1
    return [Heading(text("How fast it learns")), Paragraph(_first(reached.frame, thresholds(timed), is_alike)), reached]


def with_epochs(section: Section) -> Section:
    """Return the section without the SVMs, which have no epochs."""
    runs = section.runs[section.runs["iterations"].notna()]
    return replace(section, runs=runs, history=section.history[section.history.run.isin(runs.index)])


def machines(section: Section) -> pd.Series:
    """Return the machine of each run that was alone on its device: the kind of GPU, otherwise the host and its CPU."""
    alone = section.runs[section.runs.device_shared_by == 1]
    names = about.machine_names(alone)
    for run in names.index[alone.device.isin(["cpu", "mps"])]:
        names[run] = text("{machine} of host {host}", machine=names[run], host=alone.host[run])
    return names


def is_timed(section: Section) -> pd.Series:
    """Return for each run whether its times are comparable: alone on its device, on the most frequent machine."""
    machine = machines(section)
    timed = machine.index[machine == machine.value_counts().index[0]] if len(machine) else machine.index
    return pd.Series(section.runs.index.isin(timed), section.runs.index)


def epoch_seconds(section: Section) -> pd.DataFrame:
    """Return `seconds` per epoch and `images_per_second` of runs with comparable times, without the first epoch."""
    timed = section.runs.index[is_timed(section)]
    history = section.history[section.history.run.isin(timed) & (section.history.epoch > 1)]
    means = history.groupby("run")[["time/epoch", "time/images_per_second"]].mean()
    return means.set_axis(["seconds", "images_per_second"], axis=1)


@once
def work(section: Section) -> pd.Series:
    """Return for each run a key of its cost per epoch; times of runs with the same key differ only by noise."""
    names = [name for name in IDENTITY if affects(name, "work")]
    return section.runs[[*names, "threads", "precision", "params", "flops"]].map(repr).agg("; ".join, axis=1)


@once
def times(section: Section) -> pd.DataFrame:
    """Compare the seconds per epoch of all pairs of settings, as `statistics.differences` does, on their logarithms.

    Only of runs chosen by `is_timed`; settings are paired by the seeds that both have. The result is a family of its
    own, empty without two settings of several such runs, or with more than MOST_TIMED settings.
    """
    seconds = epoch_seconds(section).seconds
    seconds = seconds[seconds > 0]
    runs = pd.concat([section.runs.setting, section.repeats], axis=1).loc[seconds.index]
    counts = runs.setting.value_counts()
    if (counts > 1).sum() < 2 or len(counts) > MOST_TIMED:
        index = pd.MultiIndex.from_arrays([[], []], names=["a", "b"])
        return pd.DataFrame(columns=["difference", "half_width", "p", "holm"], index=index)
    values = np.log(seconds).set_axis(pd.MultiIndex.from_frame(runs))
    return differences(values, dict.fromkeys(runs.setting, 0))


def alike(section: Section) -> pd.Series:
    """Return a key of the time of an epoch of each run: that of `work`, and the setting if times are shown to differ.

    Iterations that compute nearly the same, such as with and without dropout, should take equally long, but need not.
    """
    kinds = work(section)
    names = section.runs.setting.map(str)
    of_setting = dict(zip(section.runs.setting, kinds, strict=True))
    shown = times(section)
    pairs = shown.index[shown.holm.to_numpy(dtype=float) < ALPHA]
    differing = {of_setting[a] for a, b in pairs if of_setting[a] == of_setting[b]}
    return kinds.where(~kinds.isin(differing), kinds + "; " + names)


def thresholds(section: Section) -> list[float]:
    """Choose round accuracies in percent at half, four fifths and nearly all of the way to the best."""
    # from the accuracy after the first epoch to that of the best setting
    first = scaled(section.history[section.history.epoch == 1], "val/acc").median()
    best = scaled(section.runs, "best/val_acc").groupby(section.runs.setting).mean().max()
    span = best - first
    if not span > 0:
        return []

    # round them down to a step that suits the span
    step = next(step for step in (5, 1, 0.5, 0.1, 0.02, 0) if span >= 4 * step)
    wanted = {
        round(math.floor((first + share * span) / size + 1e-9) * size, 3)
        for share, size in ((0.5, step), (0.8, step), (0.95, step / 5))
        if size
    }
    return sorted(value for value in wanted if value > first)


def table(section: Section) -> Table | None:
    """Compare the epochs, iterations and seconds after which given validation accuracies were first reached.

    If not every run of a setting reached the accuracy, the cell has the number of runs that did. An SVM has no epochs
    and is left out.
    """
    # runs with epochs
    section = with_epochs(section)
    wanted = thresholds(section)
    if not wanted:
        return None
    measured = section.runs[["setting"]].assign(
        epochs=section.runs["last/epoch"],
        iterations_all=section.runs["iterations"],
        iterations=section.runs["iterations"] / section.runs["last/epoch"],
    )

    # seconds per epoch, the mean of runs that do the same work
    seconds = epoch_seconds(section).seconds
    kinds = alike(section)
    measured["seconds"] = kinds.map(seconds.groupby(kinds[seconds.index]).mean())

    # first epoch of each run that reached each accuracy
    counted: dict[str, pd.Series] = {}
    columns = [Column("setting")]
    for value in wanted:
        name = f"{value:g}"
        hit = section.history[scaled(section.history, "val/acc") >= value].groupby("run").epoch.min()
        measured[f"epochs_{name}"] = hit.reindex(measured.index).astype(float)
        measured[f"iterations_{name}"] = measured[f"epochs_{name}"] * measured.iterations
        measured[f"seconds_{name}"] = measured[f"epochs_{name}"] * measured.seconds
        columns += [
            Column(f"epochs_{name}", 1, header=text("Epochs to {accuracy:g} %", accuracy=value), text=_reached(name)),
            Column(f"seconds_{name}", SIGNIFICANT, header=text("Seconds to {accuracy:g} %", accuracy=value)),
        ]
        counted[f"reached_{name}"] = measured[f"epochs_{name}"].notna().groupby(measured.setting, sort=False).sum()

    # means over seeds
    keys = [f"{what}_{value:g}" for value in wanted for what in ("epochs", "iterations", "seconds")]
    whole = {f"epochs_{value:g}": 1 / math.sqrt(12) for value in wanted}
    means = ["epochs", "iterations_all", "iterations", "seconds"]
    frame = estimates(measured, "setting", [*means, *keys], whole).assign(**counted)
    frame["n"] = measured.groupby("setting", sort=False).size()

    # the intervals of iterations and seconds are at least those of the epochs; without all runs there is no mean
    for name in map("{:g}".format, wanted):
        incomplete = frame[f"reached_{name}"] < frame.n
        for what in ("iterations", "seconds"):
            least = frame[f"epochs_{name}_ci95"] * frame[what]
            frame[f"{what}_{name}_ci95"] = frame[f"{what}_{name}_ci95"].clip(lower=least)
        for what in ("epochs", "iterations", "seconds"):
            frame.loc[incomplete, [f"{what}_{name}", f"{what}_{name}_ci95"]] = math.nan

    # the columns that are known
    kept = [
        "n",
        "epochs",
        "iterations_all",
        "iterations",
        *(name for key in keys for name in (key, f"{key}_ci95")),
        *counted,
    ]
    frame = contrasts.in_order(section, frame[kept]).reset_index()
    columns = [column for column in columns if column.key == "setting" or frame[column.key].notna().any()]
    columns[1:1] = [Column("epochs", 1), Column("iterations_all", 0), Column("iterations", 0)]
    notes = [
        text(
            "First epoch that reaches the validation accuracy, mean ± half the 95 % interval over seeds. The ± is "
            "never smaller than rounding to whole epochs allows. If not every seed reaches it, the table says how "
            "many do. The accuracies are round numbers between that of the first epoch and the best one."
        )
    ]
    if any(column.key.startswith("seconds") for column in columns):
        notes.append(
            text(
                "Seconds are epochs times seconds per epoch. The seconds per epoch are from runs that did not share "
                "their device, the mean of all settings whose iterations compute the same."
            )
        )
    return Table(
        "speed",
        text("Epochs and seconds to reach a validation accuracy: {name}", name=section.title),
        frame,
        columns,
        notes,
    )


def _reached(name: str) -> Callable[[dict], str | None]:
    """Return a function that writes the number of runs of a setting that reached an accuracy, if not all did."""

    def reached(row: dict) -> str | None:
        some = row[f"reached_{name}"] < row["n"]
        return text("{some} of {all} seeds", some=row[f"reached_{name}"], all=row["n"]) if some else None

    return reached


def _first(frame: pd.DataFrame, wanted: Sequence[float], is_alike: bool) -> str:
    """Report the fastest settings, in epochs and in seconds, to the highest accuracy that some setting always reaches.

    If the epochs of all settings cost the same (`is_alike`), the setting with the fewest epochs is also the fastest.
    """
    # the highest accuracy that all runs of a setting reach
    accuracy = next((value for value in reversed(wanted) if frame[f"epochs_{value:g}"].notna().any()), None)
    if accuracy is None:
        return text("No setting reached any of these accuracies with all its seeds.")
    name = f"{accuracy:g}"

    # fewest epochs
    first = frame[frame[f"epochs_{name}"] == frame[f"epochs_{name}"].min()]
    first = first[first[f"iterations_{name}"] == first[f"iterations_{name}"].min()]
    values = {key: first[f"{key}_{name}"].iloc[0] for key in ("epochs", "iterations")} | {"accuracy": accuracy}
    values["settings"] = named([shown(setting) for setting in first.setting])
    sentences = [
        text(
            "{settings} needs {epochs:.1f} epochs, or {iterations:,.0f} iterations, to reach {accuracy:g} % "
            "validation accuracy.",
            **values,
        )
        if len(frame) == 1
        else plural(
            "Of the settings whose runs all reach {accuracy:g} % validation accuracy, {settings} needs the fewest "
            "epochs ({epochs:.1f} on average, or {iterations:,.0f} iterations; may be noise).",
            "Of the settings whose runs all reach {accuracy:g} % validation accuracy, {settings} need the fewest "
            "epochs ({epochs:.1f} on average, or {iterations:,.0f} iterations; may be noise).",
            len(first),
            **values,
        )
    ]

    # fewest seconds
    if frame[f"seconds_{name}"].notna().any():
        seconds = frame[f"seconds_{name}"]
        fastest = [shown(setting) for setting in frame.setting[seconds <= seconds.min() * (1 + 1e-9)]]
        sentences.append(
            text("That takes {seconds:,.2f} s.", seconds=seconds.min())
            if is_alike
            else plural(
                "In time, {settings} is fastest on average: {seconds:,.2f} s.",
                "In time, {settings} are fastest on average: {seconds:,.2f} s.",
                len(fastest),
                settings=named(fastest),
                seconds=seconds.min(),
            )
        )

    # settings that never reach it
    never = [shown(row.setting) for _, row in frame.iterrows() if row[f"reached_{name}"] == 0]
    if never:
        sentences.append(text("Never reached by {settings}.", settings=named(never)))
    return " ".join(sentences)
