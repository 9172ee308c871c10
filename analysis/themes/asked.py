"""What a question is about, in one line each: accuracy, overfitting, epochs, speed, size, confusion, features.

python -c "from analysis.frames import runs, sections; from analysis.themes import asked; \\
    frames = runs.load('runs'); print(*asked.lines(frames, sections.by_dataset(frames)[0]), sep='\\n')"
"""

import shlex
from collections.abc import Callable, Collection, Sequence

import pandas as pd

from analysis.frames import contrasts, endings
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, once
from analysis.frames.statistics import ALPHA, estimates
from analysis.page.attempt import attempted
from analysis.page.blocks import Paragraph
from analysis.page.tables import p_words
from analysis.themes import answers, confusion, costs, effects, layers, speed
from analysis.wording.texts import (
    mark,
    named,
    number,
    option,
    option_value,
    plural,
    protected,
    shown,
    shown_value,
    text,
)
from study.config.setting import Setting
from study.record.metrics import scaled

LEAST_GAIN = 0.1
"""Smallest gain from more epochs that is named, in points."""

LEAST_GAP = 1.0
"""Smallest difference of the gap, in points, that decides between settings."""

LEAST_TIMES = 1.25
"""Smallest ratio of the numbers of parameters that decides between settings."""

MOST_CONFUSIONS = 3
"""Number of confusions that are named."""


def lines(frames: Frames, section: Section, without: Collection[str] = ()) -> list[str]:
    """Return a line for each thing asked, but `without` some, of which something is known, each with its numbers."""
    found = []
    for ask in (ask for ask in section.subjects if ask not in without):
        name, line = LINES[ask]
        result = attempted(text(name), lambda line=line: line(frames, section))
        said = result.text if isinstance(result, Paragraph) else result
        if said:
            found.append(f"**{text(name)}.** {said}")
    return found


def accuracy(frames: Frames, section: Section) -> str:
    """Return the answer of the section, and the effects of its options if they form a grid.

    Of a single setting, the recommendation says it already.
    """
    return " ".join([answers.headline(frames, section), *_effects(section)]) if len(section.ranked) > 1 else ""


def _effects(section: Section) -> list[str]:
    """Report the effects of options on the accuracy, each averaged over the others, that are more than noise."""
    frame = effects.measure(section)
    if frame.empty or not frame.score_change_p.notna().any() or not contrasts.partly_failed(section).empty:
        return []
    first = frame.drop_duplicates("option").set_index("option")["value"]
    clear = frame[(frame.score_change_p < ALPHA) & (frame.settings > 1)]
    changes = [
        text("{value} instead of {first} {change:+.2f} ± {spread:.2f}", value=option_value(row.option, row.value),
             first=shown_value(row.option, first[row.option]), change=row.score_change,
             spread=row.score_change_ci95)
        for row in clear.itertuples()
    ]  # fmt: skip
    tested = frame.option[frame.score_change_p.notna() & (frame.settings > 1)]
    rest = [option(name) for name in dict.fromkeys(tested) if name not in set(clear.option)]
    said = (
        [text("Clear on average over the other options, in points: {changes}.", changes=named(changes))]
        if changes
        else []
    )
    return said + ([text("No clear effect on average: {options}.", options=named(rest))] if rest else [])


def overfitting(frames: Frames, section: Section) -> str:
    """Report the gaps at the end, and which differ from that of the best setting by more than noise."""
    frame = gaps(section).dropna(subset="gap_last").set_index("setting")
    if frame.empty:
        return ""
    found = [f"{shown(setting)}: {with_interval(row, 'gap_last')}" for setting, row in frame.iterrows()]
    said = text("Gap between training and validation accuracy at the end, in points: {gaps}.", gaps=named(found))
    return " ".join([said, *_gaps_that_differ(section)])


def losses(section: Section) -> str:
    """Report the validation loss of each setting at its lowest and after the last epoch, each a mean over seeds."""
    by_run = section.history.groupby("run")["val/loss"].agg(lowest="min", last="last")
    by_run["setting"] = section.runs.setting
    means = estimates(by_run, "setting", ["lowest", "last"]).loc[section.ranked]
    found = [
        text("{setting}: {lowest} and {last}", setting=shown(setting), lowest=with_interval(row, "lowest"),
             last=with_interval(row, "last"))
        for setting, row in means.iterrows()
    ]  # fmt: skip
    return text("Validation loss at its lowest and at the end: {losses}.", losses="; ".join(found))


def at_the_end(section: Section) -> str:
    """Report the validation accuracy of each setting after the last epoch, a mean over seeds."""
    by_run = pd.DataFrame({"setting": section.runs.setting, "last": scaled(section.runs, "last/val_acc")})
    means = estimates(by_run, "setting", ["last"]).loc[section.ranked]
    found = [f"{shown(setting)}: {with_interval(row, 'last')}" for setting, row in means.iterrows()]
    return text("Validation accuracy after the last epoch, in percent: {accuracies}.", accuracies="; ".join(found))


def changes(section: Section) -> str:
    """Report how far each setting is from the first one of the section, in points of accuracy; empty without a test."""
    first = section.points.setting.iloc[0]
    pairs = contrasts.pairwise(section, reference=first)
    pairs = pairs[pairs.holm.notna()]
    if first not in pairs.index.get_level_values("b"):
        return ""
    from_first = pairs.xs(first, level="b")
    ranked = [setting for setting in section.ranked if setting in from_first.index]
    found = [
        text("{setting} {change:+.2f} ± {spread:.2f} ({p})", setting=shown(_own(setting, first)), change=row.difference,
             spread=row.half_width, p=p_words(row.holm))
        for setting, row in from_first.loc[ranked].iterrows()
    ]  # fmt: skip
    return text("From {first}, in points: {changes}.", first=shown(first), changes="; ".join(found)) if found else ""


def _own(setting: Setting, other: Setting) -> Setting:
    """Return the setting without the pairs that another one has too, unless none is left."""
    own = tuple(pair for pair in setting.pairs if pair not in other.pairs)
    return Setting(own) if own else setting


@once
def gaps(section: Section) -> pd.DataFrame:
    """Return the gap between training and validation accuracy at the end, of settings of which every run learned."""
    frame = endings.gaps(section)
    failed = contrasts.failures(section).failed
    learned = frame[~frame.setting.isin(failed.index[failed > 0])]
    return learned[["setting", "gap_last", "gap_last_ci95"]]


def _gaps_that_differ(section: Section) -> list[str]:
    """Report the settings whose gap is clearly smaller or larger than that of the best one."""
    frame = contrasts.compare(section).set_index("setting")
    if not frame.p_holm.notna().any():
        return []
    best = contrasts.reference(frame)
    pairs = contrasts.pairwise(section, contrasts.gap_last, "val", best)
    tested = pairs[pairs.holm.notna()]
    tested = tested.xs(best, level="b") if len(tested) else tested
    tested = tested[tested.index.isin(gaps(section).setting)] if len(tested) else tested
    clear = tested[tested.holm < ALPHA] if len(tested) else tested
    if not len(tested):
        return []
    if clear.empty:
        return [text("Of those with several seeds, none differs clearly from {setting}.", setting=shown(best))]
    said = []
    for rows, message in (
        (clear[clear.difference < 0], mark("Clearly smaller than that of {setting} (p < 0.05): {others}.")),
        (clear[clear.difference > 0], mark("Clearly larger than that of {setting} (p < 0.05): {others}.")),
    ):
        others = [
            text("{setting} by {points:.2f} ± {spread:.2f}", setting=shown(row.Index), points=abs(row.difference),
                 spread=row.half_width)
            for row in rows.itertuples()
        ]  # fmt: skip
        if others:
            said.append(text(message, setting=shown(best), others=named(others)))
    return said


def epochs(frames: Frames, section: Section) -> str:
    """Report the epochs to the highest accuracy that most settings always reach, and whether more would help."""
    said = []
    reached = speed.table(section)
    if reached is not None:
        keys = [key for key in reached.frame if key.startswith("epochs_") and not key.endswith("_ci95")]
        counts = {key: int(reached.frame[key].notna().sum()) for key in keys}
        if any(counts.values()):
            most = max(counts.values())
            best = [key for key in keys if counts[key] == most]
            said.append(_epochs_to(reached.frame, best[-1] if most > 1 or len(reached.frame) == 1 else best[0]))
    longer = endings.verdicts(section)
    for verdicts, message in MORE_EPOCHS:
        rows = longer[longer.verdict.isin(verdicts)]
        if len(rows):
            settings = [f"{shown(row.setting)}{_gain(row)}" for row in rows.itertuples()]
            said.append(text(message, settings=named(settings)))
    return " ".join(said)


MORE_EPOCHS = (
    (("rises", "mixed"), mark("At the end, validation accuracy is still rising: {settings}.")),
    (("perhaps", "unclear"), mark("The last epochs do not show whether more would help: {settings}.")),
    (("overfits", "falls"), mark("More epochs would not help: {settings}.")),
    (("decayed",), mark("The learning rate has decayed, so more epochs need a longer schedule: {settings}.")),
    (("early",), mark("Ended by early stopping: {settings}.")),
    (("few",), mark("Too few epochs to see a trend: {settings}.")),
)
"""Verdicts on whether more epochs would help, see `training.VERDICTS`, and what is said of their settings."""


def _gain(row) -> str:
    """Write what twice the epochs would bring by the whole curve, in brackets, if seeds show how sure that is."""
    can_rise = row.verdict in ("rises", "mixed", "perhaps", "unclear")
    if not can_rise or not row.gain >= LEAST_GAIN or row.gain_ci95 != row.gain_ci95:
        return ""
    message = (
        mark("(twice the epochs would gain about {gain:.1f} ± {spread:.1f} points, if the curve continues as before)")
        if row.verdict in ("rises", "mixed")
        else mark("(twice the epochs would gain at most about {gain:.1f} ± {spread:.1f} points)")
    )
    return " " + text(message, gain=row.gain, spread=row.gain_ci95)


def _epochs_to(frame: pd.DataFrame, key: str) -> str:
    """Report the epochs until an accuracy, the fewest first, and the settings that do not always reach it."""
    rows = frame[frame[key].notna()].sort_values(key)
    needed = [f"{shown(row['setting'])}: {with_interval(row, key, '.1f')}" for _, row in rows.iterrows()]
    accuracy = float(key.removeprefix("epochs_"))
    said = text("Epochs to a validation accuracy of {accuracy:g} %: {needed}.", accuracy=accuracy, needed=named(needed))
    never = [shown(setting) for setting in frame.setting[frame[key].isna()]]
    return said + (" " + text("Not reached by every run of: {settings}.", settings=named(never)) if never else "")


def size(frames: Frames, section: Section) -> str:
    """Report the parameters of the settings, the smallest first."""
    frame = costs.measure(section).sort_values("params", kind="stable")
    frame = frame[frame.params.notna()]
    if frame.empty:
        return ""
    if frame.params.nunique() == 1:
        row = frame.iloc[0]
        return text("{params:,.0f} parameters ({mb:.3g} MB) in every setting.", params=row.params, mb=row.param_mb)
    kinds = []
    for params, rows in frame.groupby("params", sort=False):
        values = {"params": params, "mb": rows.param_mb.iloc[0], "setting": common(rows.setting, frame.setting)}
        kinds.append(text("{setting}: {params:,.0f} ({mb:.3g} MB)", **values))
    return text("Parameters: {kinds}.", kinds=named(kinds))


def common(settings: Sequence[Setting], of: Sequence[Setting]) -> str:
    """Name some settings of all `of` a section, by the options that only they have in common if there are any."""
    first, *others = settings
    shared = Setting(tuple(pair for pair in first.pairs if all(pair in other.pairs for other in others)))
    has_shared = [set(shared.pairs) <= set(setting.pairs) for setting in of]
    if others and shared.pairs and sum(has_shared) == len(settings):
        return shown(shared)
    return named([shown(setting) for setting in settings], 2)


def seconds(frames: Frames, section: Section) -> str:
    """Report the time of an epoch of each setting, by how much it is longer than that of the fastest, and who has none.

    Without any time, say how to measure it.
    """
    frame = costs.measure(section)
    timed = frame[frame.epoch_seconds.notna()].sort_values("epoch_seconds")
    if timed.empty:
        words = shlex.join(section.words)
        most = int(section.runs.device_shared_by.astype(float).fillna(1).max())
        if most == 1:
            return text("Not known: every run had a single epoch, and the first one is not measured.")
        return text(
            "Not known: every run shared its device (up to {most} at once) or had a single epoch. To measure it, train "
            "while nothing else does: `{command}`, then `{report}`.",
            most=most,
            command=f"python -m study.sweep run {words or 'SWEEP.yaml'} --per-device 1 --runs-dir alone",
            report=f"python -m analysis.summarize alone{f' --sweep {words}' if words else ''}",
        )
    times = []
    for row in timed.itertuples():
        more = ""
        if row.p_time < ALPHA and row.extra_time > 0:
            more = text(" (+{percent:.0f} %, {p})", percent=row.extra_time, p=p_words(row.p_time))
        times.append(text("{setting}: {seconds:.3g} s{more}", setting=shown(row.setting), seconds=row.epoch_seconds,
                          more=more))  # fmt: skip
    said = text("Time of an epoch: {times}.", times=named(times))
    missing = [shown(setting) for setting in frame.setting[frame.epoch_seconds.isna()]]
    if missing:
        message = text(
            "Without a time (not alone on the device, on another machine, or a single epoch): {settings}.",
            settings=named(missing),
        )
        return f"{said} {message}"
    return said


def confusions(frames: Frames, section: Section) -> str:
    """Report the mistakes of the best setting: how many, the most frequent ones, and the worst class."""
    known = confusion.of_best(frames, section)
    if not known:
        return text("Not known: no predictions of these runs can be read.")
    best, counts, repeats = known
    images = int(counts.to_numpy().sum())
    wrong = images - int(counts.to_numpy().diagonal().sum())
    said = plural(
        "{setting} misclassifies {share:.1f} % of the {images:,} test images.",
        "{setting} misclassifies {share:.1f} % of the {images:,} test images (mean of {n} seeds).",
        repeats, setting=shown(best.setting), share=100 * wrong / images, images=images // repeats,
    )  # fmt: skip
    pairs = [
        text("{target} with {predicted} ({share:.1f} % of its images; the other way round {back_share:.1f} %)", **row)
        for row in confusion.frequent(counts).head(MOST_CONFUSIONS).to_dict("records")
    ]
    if pairs:
        said += " " + text("Most often confused: {pairs}.", pairs="; ".join(pairs))
    rates = confusion.rates(counts, repeats).dropna(subset="accuracy")
    worst = rates.loc[rates.accuracy.idxmin()]
    return said + " " + text("Least well recognised: {name} ({share:.1f} %).", name=protected(str(worst["class"])),
                             share=float(worst.accuracy))  # fmt: skip


def features(frames: Frames, section: Section) -> str:
    """Report how separable the classes are in the last features of the best run of the best settings."""
    best, seen = layers.see(frames, section)
    if best.empty:
        return text("Not known: no run has features that can be read; copies lack them.")
    if not seen:
        return text("Not known: these runs have too few validation images.")
    last = {run: images.layers[layers.FEATURES] for run, images in seen.items() if layers.FEATURES in images.layers}
    kinds = [
        text("{setting}: {probe:.1f} % (silhouette {silhouette:.2f})", setting=shown(best.setting[run]),
             probe=100 * layer.probe.mean(), silhouette=layer.silhouette)
        for run, layer in last.items()
    ]  # fmt: skip
    if not kinds:
        return text("Not known: no run has features that can be read; copies lack them.")
    said = text(
        "A linear classifier on the last features of {images:,} validation images recognises: {kinds}.",
        images=len(next(iter(seen.values())).targets),
        kinds=named(kinds),
    )
    return " ".join([said, *layers.lacking(section, best)])


LINES: dict[str, tuple[str, Callable[[Frames, Section], str]]] = {
    "accuracy": (mark("Accuracy"), accuracy),
    "overfitting": (mark("Overfitting"), overfitting),
    "epochs": (mark("Epochs"), epochs),
    "speed": (mark("Speed"), seconds),
    "size": (mark("Size"), size),
    "confusion": (mark("Confusions"), confusions),
    "features": (mark("Features"), features),
}
"""The name of each thing that a sweep can ask, and the function that returns its line."""


def with_interval(row: pd.Series, key: str, spec: str = ".2f") -> str:
    """Write a number with half its interval, if it has one."""
    spread = row[f"{key}_ci95"]
    return number(row[key], spec) + (f" ± {number(spread, spec)}" if spread == spread else "")


def reasons(section: Section, setting: Setting, others: Sequence[Setting]) -> list[str]:
    """Return what speaks for a setting against all others, beside accuracy, if it is asked: overfitting, time, size."""
    found = []
    for ask in section.subjects:
        why = REASONS[ask](section, setting, others) if ask in REASONS else None
        if why:
            found.append(why)
    return found


def _less_overfitting(section: Section, setting: Setting, others: Sequence[Setting]) -> str | None:
    """Say that the gap of a setting is clearly smaller than that of each other, by how much at least."""
    rows = _clearly_less(contrasts.pairwise(section, contrasts.gap_last, "val", setting), setting, others)
    if rows is None or rows.difference.abs().min() < LEAST_GAP:
        return None
    least = rows.loc[rows.difference.abs().idxmin()]
    return text(
        "its gap between training and validation accuracy at the end is {points:.1f} ± {spread:.1f} points smaller",
        points=-float(least.difference),
        spread=float(least.half_width),
    )


def _less_time(section: Section, setting: Setting, others: Sequence[Setting]) -> str | None:
    """Say that an epoch of a setting clearly takes less time than that of each other."""
    rows = _clearly_less(speed.times(section), setting, others)
    return None if rows is None else text("an epoch takes clearly less time")


def _clearly_less(pairs: pd.DataFrame, setting: Setting, others: Sequence[Setting]) -> pd.DataFrame | None:
    """Return the differences of a setting from all others if each is below 0 with a corrected p below 5 %."""
    wanted = [(setting, other) for other in others]
    if not wanted or not all(pair in pairs.index for pair in wanted):
        return None
    rows = pairs.loc[wanted]
    return rows if ((rows.holm < ALPHA) & (rows.difference < 0)).all() else None


def _fewer_parameters(section: Section, setting: Setting, others: Sequence[Setting]) -> str | None:
    """Say that no other setting has fewer parameters, and how many times as many the next larger one has."""
    params = costs.measure(section).set_index("setting").params
    of_others = params[list(others)]
    larger = of_others[of_others > params[setting]]
    if larger.empty or of_others.isna().any() or (of_others < params[setting]).any():
        return None
    times = larger.min() / params[setting]
    if times < LEAST_TIMES:
        return None
    return text(
        "{other} has {times} times as many parameters",
        other=shown(larger.idxmin()),
        times=number(times, ",.0f" if times >= 10 else ".1f"),
    )


REASONS = {"overfitting": _less_overfitting, "speed": _less_time, "size": _fewer_parameters}
"""What may decide between settings of which none is clearly more accurate."""
