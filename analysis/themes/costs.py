"""Costs of settings (parameters, memory, FLOPs, time, energy) and of the whole study.

python -c "from analysis.themes import costs; from analysis.frames import runs, sections; \\
    print(costs.measure(sections.by_dataset(runs.load('runs'))[0]))"
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, once
from analysis.frames.statistics import ALPHA, estimates
from analysis.page.blocks import Block, Heading, Items, Picture
from analysis.page.figures import Looks
from analysis.page.tables import SIGNIFICANT, Column, Table, p_value, p_words
from analysis.themes import pareto
from analysis.themes.pareto import AGAINST, front
from analysis.themes.speed import alike as alike_in_time
from analysis.themes.speed import epoch_seconds, is_timed, machines, times, work
from analysis.wording.texts import mark, named, number, plural, shown, text
from study.config.setting import Setting

COLUMNS = (
    Column("params", 0), Column("param_mb", SIGNIFICANT), Column("mflops", SIGNIFICANT),
    Column("images_per_second", 0), Column("epoch_seconds", SIGNIFICANT), Column("extra_time", 1),
    Column("p_time", 3, text=lambda row: p_value(row["p_time"])), Column("train_seconds", SIGNIFICANT),
    Column("peak_mb", 0), Column("energy_wh", SIGNIFICANT), Column("power_w", 0),
)  # fmt: skip

SCORE = Column("score", 2, is_percentage=True)

ALIKE = 1.25
"""Costs are alike if the largest is less than this many times the smallest."""

DEAREST = {
    "epoch_seconds": mark(
        "An epoch takes longest with {settings}: {value:,.2f} s, {times:,.2f} times as long as with the next."
    ),
    "peak_mb": mark("Most memory is needed by {settings}: {value:,.0f} MB, {times:,.2f} times as much as by the next."),
    "energy_wh": mark(
        "Most energy is needed by {settings}: {value:,.3f} Wh for a training, {times:,.2f} times as much as by the "
        "next."
    ),
}
"""Costs for which the most expensive setting is named, with the sentence that names it."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the costs of each setting, and the Pareto front of accuracy and cost."""
    # the table
    frame = measure(section)
    alike = measure(section, alike=True)
    content: list[Block] = [Heading(text("What it costs")), table(section)]
    against = [
        name for name in AGAINST if alike[name].notna().sum() > 1 and alike[name].max() > ALIKE * alike[name].min()
    ]

    # the front in words, and the most expensive settings
    answer = [_front(alike, name) for name in against[:1]] + dearest(section) + _slower(section, frame)
    if answer:
        content.insert(1, Items(answer))

    # the front as a figure
    if against:
        title = text("Accuracy against costs: {name}", name=section.title)
        content.append(
            Picture(
                "pareto",
                title,
                pareto.draw(alike, against, title, looks),
                text(
                    "Best validation accuracy of each setting (mean over seeds) against its cost. The dashed line and "
                    "black rings mark the Pareto front of the means (may be noise): no setting is more accurate at "
                    "the same cost or less."
                ),
            )
        )
    return content


@once
def measure(section: Section, alike: bool = False) -> pd.DataFrame:
    """Return one row per setting with its costs, the best validation score first.

    Columns: `setting`, `score` (percent), and those of COLUMNS: parameters, their memory and the peak memory in MB,
    millions of FLOPs per image, images per second in training, seconds of an epoch and of a whole training, energy of a
    training in Wh and its mean power in watts. Costs that depend on the machine come only from runs chosen by
    `speed.is_timed`. If `alike`, costs that are equal by construction, and not shown to differ, are replaced by their
    mean. `extra_time` is by how much percent an epoch takes longer than with the fastest setting, with its interval as
    `extra_time_low` and `extra_time_high`, and `p_time`, both corrected for all pairs (see `speed.times`).
    """
    # costs of each run
    by_run = _of_runs(section)
    if alike:
        for cost, kinds in _kinds(section).items():
            by_run[cost] = by_run[cost].groupby(kinds).transform("mean").where(by_run[cost].notna())

    # means over seeds; parameters and FLOPs do not vary
    names = ["score", *(column.key for column in COLUMNS if column.key in by_run)]
    frame = estimates(by_run, "setting", names, contrasts.rounding(section))
    frame = frame.drop(columns=[f"{name}_ci95" for name in ("params", "param_mb", "mflops")])
    frame = frame.join(_longer(section))
    return contrasts.in_order(section, frame).reset_index()


def _longer(section: Section) -> pd.DataFrame:
    """Return `extra_time` and the other results of the test of times, indexed by setting; see `measure`."""
    tests = times(section)
    names = ["extra_time", "extra_time_low", "extra_time_high", "p_time"]
    if tests.empty:
        return pd.DataFrame(columns=names, dtype=float)
    own = tests.xs(_fastest(tests), level="b")
    bounds = [own.difference, own.difference - own.half_width, own.difference + own.half_width]
    values = [100 * np.expm1(bound.astype(float)) for bound in bounds]
    return pd.DataFrame(dict(zip(names, [*values, own.holm], strict=True)))


def _fastest(tests: pd.DataFrame) -> Setting:
    """Return the setting of `speed.times` whose epochs take the shortest time on average."""
    return tests.groupby(level="a", sort=False).difference.mean().idxmin()


def _slower(section: Section, frame: pd.DataFrame) -> list[str]:
    """Report with which settings an epoch is shown to take longer than with the fastest one, and with which not."""
    tested = frame[frame.p_time.notna()]
    if tested.empty:
        return []
    fastest = shown(_fastest(times(section)))
    slower = tested[(tested.p_time < ALPHA) & (tested.extra_time > 0)].sort_values("extra_time", ascending=False)
    others = tested.setting[~tested.index.isin(slower.index)]
    sentences = []
    if not slower.empty:
        texts = [
            text(
                "{setting} by {percent:,.1f} % [{low:,.1f}, {high:,.1f}], {p}",
                setting=shown(row.setting),
                percent=row.extra_time,
                low=row.extra_time_low,
                high=row.extra_time_high,
                p=p_words(row.p_time),
            )
            for row in slower.itertuples()
        ]
        sentences.append(
            text(
                "An epoch takes clearly longer than with {fastest} (p < 0.05): {others}.",
                fastest=fastest,
                others=named(texts),
            )
        )
    if not others.empty:
        sentences.append(
            text(
                "No clear difference in time from {fastest}: {settings}.",
                fastest=fastest,
                settings=named([shown(name) for name in others]),
            )
        )
    return sentences


def _of_runs(section: Section) -> pd.DataFrame:
    """Return the columns of `measure` for each run."""
    # heads that only training uses are not counted as parameters
    runs = section.runs
    alone = is_timed(section)
    kept = runs["params_logits"].fillna(runs["params"])

    # machine-dependent costs are empty for runs that were not alone on the device
    costs = pd.DataFrame(
        {
            "setting": runs.setting,
            "score": section.scores(runs),
            "params": kept,
            "param_mb": runs["param_bytes"] * kept / runs["params"] / 1e6,
            "mflops": runs["flops"] / 1e6,
            "train_seconds": runs["train_seconds"].where(alone),
            "peak_mb": section.history.groupby("run")["memory/peak_mb"].max().where(alone),
            "energy_wh": runs["energy_joules"].where(alone) / 3600,
            "power_w": (runs["energy_joules"] / runs["train_seconds"]).where(alone),
        }
    )
    return costs.loc[runs.index].join(epoch_seconds(section).rename(columns={"seconds": "epoch_seconds"}))


def _kinds(section: Section) -> dict[str, pd.Series]:
    """Return for each cost in DEAREST a key of each run: runs with the same key have the same cost."""
    kinds = work(section)
    in_time = alike_in_time(section)
    epochs = section.runs["last/epoch"].groupby(section.runs.setting).transform("mean")
    return {"epoch_seconds": in_time, "peak_mb": kinds, "energy_wh": in_time + " " + epochs.map(str)}


def dearest(section: Section) -> list[str]:
    """Report the settings with the highest costs, if they exceed the next by more than the intervals.

    A single run has no interval; half the range of ALIKE is used instead.
    """
    by_run = _of_runs(section)
    timed = is_timed(section)
    sentences = []
    for cost, kinds in _kinds(section).items():
        if cost == "peak_mb" and section.runs.device[timed].eq("cpu").all():
            continue  # the peak of a process includes the runs that it trained before

        # mean cost of each kind of run
        known = by_run[[cost]].assign(kind=kinds).dropna()
        frame = estimates(known, "kind", [cost]).sort_values(cost, ascending=False)
        margins = frame[f"{cost}_ci95"].fillna((ALIKE - 1) / 2 * frame[cost])

        # the highest cost must exceed all others by more than both margins
        if len(frame) > 1 and frame[cost].iloc[0] - margins.iloc[0] > (frame[cost] + margins).iloc[1:].max():
            settings = by_run.setting[kinds == frame.index[0]].unique()
            value = frame[cost].iloc[0]
            times = value / frame[cost].iloc[1]
            names = named([shown(setting) for setting in section.ranked if setting in settings])
            sentences.append(text(DEAREST[cost], settings=names, value=value, times=times))
    return sentences


def table(section: Section, without: Collection[str] = ()) -> Table:
    """Make the table of costs, `without` some columns, with notes on where they were measured."""
    frame = measure(section)

    # notes on the machine only if there are times
    columns = [column for column in (SCORE, *COLUMNS) if frame[column.key].notna().any() and column.key not in without]
    keys = {column.key for column in columns}
    notes = [
        text("FLOPs: twice the multiply-adds of convolutions and matrix products for one image. 1 MB = 10⁶ bytes.")
    ]
    if frame.epoch_seconds.notna().any():
        first, *others = machines(section).value_counts().index
        notes.append(
            text(
                "What depends on the machine was measured in runs on {machine} that did not share their device.",
                machine=first,
            )
        )
        if others:
            notes.append(text("Those from runs on {others} are not comparable and are left out.", others=named(others)))
        notes.append(
            text("Images and seconds per epoch leave out the first epoch; an epoch includes its validation.")
            if "epoch_seconds" in keys
            else text("Images per second leave out the first epoch.")
        )
        if "peak_mb" in keys and section.runs.device.eq("cpu").any():
            notes.append(text("On a CPU, the peak memory is that of the whole process."))
        if "p_time" in keys:
            notes.append(
                text(
                    "Extra time: how much longer an epoch takes than with the fastest setting, in percent, with its 95 "
                    "% interval. The t test is on the logarithms of the seconds per epoch, paired by the seeds that "
                    "both settings have; p and interval are corrected for all pairs of settings (Holm, Bonferroni). "
                    "Runs that followed each other may share the state of the machine, so differences of a few "
                    "percent can be due to it."
                )
            )
        if work(section).nunique() < len(frame):
            notes.append(
                text(
                    "Settings whose iterations compute the same, or nearly the same, should cost about the same: they "
                    "differ only in learning rate, momentum, activation, dropout, schedule and the like. A front over "
                    "time, memory or, for equally many epochs, energy uses their mean, unless their times are shown "
                    "to differ. Differences in memory and energy are not tested, so they may be noise."
                )
            )
    if frame.epoch_seconds.isna().any():
        notes.append(
            text(
                "Times, peak memory and energy are empty, or their columns left out, where runs shared their device "
                "with others, were on another machine or had a single epoch. To measure them, train with --per-device "
                "1 on one machine."
            )
        )
    title = text("Accuracy and costs: {name}", name=section.title)
    return Table("costs", title, frame, [Column("setting"), *columns], notes)


def _front(frame: pd.DataFrame, cost: str) -> str:
    """Report the settings on the front, and compare its two ends."""
    best = front(frame, cost)

    # from the cheapest to the most accurate setting
    cheapest = best.iloc[0]
    dearest = best.iloc[-1]

    # a front of one setting has nothing to compare
    if len(best) == 1:
        return text(
            "{setting} is on average both the most accurate setting and the cheapest in {cost}.",
            setting=shown(cheapest.setting),
            cost=text(AGAINST[cost]),
        )
    return text(
        "Measured in {cost}, no cheaper setting is on average as accurate as {settings} (the Pareto front). On it, "
        "{dearest} is {points:.2f} points more accurate than {cheapest}, for {times:,.1f} times its cost in {cost}.",
        settings=named([shown(setting) for setting in best.setting]),
        cost=text(AGAINST[cost]),
        dearest=shown(dearest.setting),
        cheapest=shown(cheapest.setting),
        points=dearest.score - cheapest.score,
        times=dearest[cost] / cheapest[cost],
    )


def total(frames: Frames) -> list[str]:
    """Report the costs of all runs together, including those without a result."""
    # number, epochs and time
    runs = frames.runs
    hours = frames.history["time/epoch"].sum() / 3600
    time = next(
        f"{number(hours * size, ',.1f')} {unit}"
        for size, unit in ((1, "h"), (60, "min"), (3600, "s"))
        if hours * size >= 1 or unit == "s"
    )
    sentences = [
        plural(
            "{n:,} run, {epochs:,} epochs, {time} of training and validation, including runs without a result.",
            "{n:,} runs, {epochs:,} epochs, {time} of training and validation, including runs without a result.",
            len(runs),
            time=time,
            epochs=len(frames.history),
        )
    ]
    shared = int((runs.device_shared_by.astype(float) > 1).sum())
    if shared:
        sentences.append(
            plural(
                "{n:,} of them shared a device and so took longer than it would have alone.",
                "{n:,} of them shared a device and so took longer than they would have alone.",
                shared,
            )
        )

    # energy, of runs that were alone on their device
    joules = runs["energy_joules"].where(runs.device_shared_by == 1).dropna()
    kwh = joules.sum() / 3.6e6
    energy = f"{number(kwh, ',.2f')} kWh" if kwh >= 0.1 else f"{number(1000 * kwh, '.2f')} Wh"
    measured = text(
        "{energy}, measured by the device in {count:,} of {runs:,} runs.",
        energy=energy,
        count=len(joules),
        runs=len(runs),
    )
    sentences.append(measured if len(joules) else text("The devices did not report their energy."))
    return sentences
