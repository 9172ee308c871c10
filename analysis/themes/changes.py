"""The effect of single changes: settings that differ in one option, in a sweep of key=value pairs or a small grid.

python -c "from analysis.themes import changes; from analysis.frames import runs, sections; \\
    print(changes.one_at_a_time(sections.by_dataset(runs.load('runs'))[0]))"
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import Frames
from analysis.frames.sections import Section
from analysis.frames.statistics import ALPHA
from analysis.page.blocks import Block, Heading, Paragraph
from analysis.page.figures import Looks
from analysis.page.tables import Column, Table, p_column
from analysis.themes import effects
from analysis.themes.effects import ordered
from analysis.wording.texts import named, option_value, plural, shown, shown_value, text
from study.config.setting import Setting

MOST = 24
"""Single changes of a grid are shown only up to this many changes and settings."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the effect of each single change, for a sweep of key=value pairs or a small grid."""
    frame = one_at_a_time(section)
    if frame.empty:
        return []

    # p values exist only with several seeds
    columns = [
        Column("setting"),
        Column("option", header=text("Change"), text=_change),
        Column("score_change", 2),
        p_column("p_holm"),
        Column("gap_last_change", 2),
    ]
    tested = frame.p_holm.notna().any()
    columns = [column for column in columns if tested or column.key != "p_holm"]
    notes = [
        text(
            "Each row changes one option of a setting, other than the network: by how many points the best validation "
            "accuracy changes, and the gap between training and validation at the end."
        ),
        *([text("± and p are those of the comparison: corrected for all pairs of settings.")] if tested else []),
    ]
    table = Table(
        "changes", text("Settings of {name} that differ in one option", name=section.title), frame, columns, notes
    )

    # the answer refers to averages if there are any
    averaged = (effects.measure(section).settings > 1).any()
    has_repeats = section.runs.setting.duplicated().any()
    return [Heading(text("One change at a time")), Paragraph(_answer(frame, averaged, has_repeats)), table]


def one_at_a_time(section: Section) -> pd.DataFrame:
    """Compare settings that differ in one option other than the network.

    In a grid, each value of an option is compared with all values before it. In a sweep of key=value pairs, a setting
    is compared with the one that has the same pairs except one; if there is none, with the first setting before it that
    has another value of a single option and is not itself such a change.

    Returns one row per change: `setting` (the setting that is changed), `changed` (the result), `option`, `before` and
    `after` (empty if not given), the differences `score_change` and `gap_last_change` in points, with half the width
    of their intervals as `…_ci95` if both settings have several seeds, and `p_holm` of the accuracies; intervals and p
    are those of the comparison of all pairs of settings.
    """
    # a large grid has too many single changes
    is_grid = "pairs" not in section.varied
    if is_grid and (section.is_search or len(section.varied) < 2 or section.points.setting.nunique() > MOST):
        return pd.DataFrame()
    changes = _changes(section)
    if is_grid and len(changes) > MOST:
        return pd.DataFrame()

    # differences of both measures
    tests = {name: contrasts.pairwise(section, of) for name, of in effects.MEASURES.items()}
    measured = {"score": section.scores(section.runs), "gap_last": contrasts.gap_last(section.runs)}
    means = {name: values.groupby(section.runs.setting).mean() for name, values in measured.items()}
    rows = []
    for before, after, name, old, new in changes:
        row = {"setting": before, "changed": after, "option": name, "before": old, "after": new}
        for what, test in tests.items():
            pair = test.loc[after, before] if (after, before) in test.index else None
            row[f"{what}_change"] = means[what][after] - means[what][before]
            row[f"{what}_change_ci95"] = math.nan if pair is None else pair.half_width
            if what == "score":
                row["p_holm"] = math.nan if pair is None else pair.holm
        rows.append(row)
    frame = pd.DataFrame(rows)
    for name in ("before", "after") if rows else ():
        frame[name] = pd.Series([row[name] for row in rows], dtype=object)  # as they are: 10, not 10.0; None, not NaN
    return frame


def _changes(section: Section) -> list[tuple[Setting, Setting, str, Any, Any]]:
    """List the changes between settings with a result: both settings, the option, its value before and after."""
    # the steps of each option that count as a change
    asked = section.points.drop_duplicates("setting").set_index("setting")[section.varied]
    steps = {
        name: {(old, new): (name, old, new) for old, new in itertools.combinations(ordered(values), 2)}
        for name, values in asked.items()
        if name != "model"
    }
    if "pairs" in asked:
        steps["pairs"] = _changes_of_pairs(asked["pairs"].unique())

    # pairs of settings with a result that differ by one such step
    done = asked[asked.index.isin(section.runs.setting)].to_dict("index")
    changes = []
    for before, after in itertools.permutations(done, 2):
        differing = [name for name in section.varied if done[before][name] != done[after][name]]
        values = tuple(done[setting][differing[0]] for setting in (before, after)) if len(differing) == 1 else ()
        if step := values and steps.get(differing[0], {}).get(values):
            changes.append((before, after, *step))
    return changes


def _changes_of_pairs(settings: Sequence[Setting]) -> dict[tuple[Setting, Setting], tuple[str, Any, Any]]:
    """Map two settings, before and after a change, to the option and its two values."""
    # a change adds one pair
    known = {setting: dict(setting.pairs) for setting in settings}
    steps = {}
    for after, options in known.items():
        for before, fewer in known.items():
            if len(fewer) == len(options) - 1 and fewer.items() <= options.items():
                (name,) = options.keys() - fewer.keys()
                steps[before, after] = name, "", options[name]

    # otherwise it gives one pair another value
    based = {after for _, after in steps}
    for place, (after, options) in enumerate(known.items()):
        for before in [] if after in based else list(known)[:place]:
            differing = [name for name in options if known[before].get(name) != options[name]]
            if known[before].keys() == options.keys() and len(differing) == 1 and differing[0] != "model":
                if before not in based:
                    steps[before, after] = differing[0], known[before][differing[0]], options[differing[0]]
                break
    return steps


def _change(row: Mapping[str, Any]) -> str:
    """Write a change: the new value, and the old one in brackets if it is given."""
    name = row["option"]
    after = option_value(name, row["after"])
    if row["before"] == "":
        return after
    return f"{after} ({text('instead of {value}', value=shown_value(name, row['before']))})"


def _answer(frame: pd.DataFrame, averaged: bool, has_repeats: bool) -> str:
    """Report which changes help, which harm, how many may be noise, and where averaged effects are given."""
    # a single seed proves nothing, nor do settings that are not compared
    if frame.p_holm.isna().all():
        return (
            text("None of these changes can be tested: a setting has a single seed, or only some of its runs learned.")
            if has_repeats
            else text("With one seed, the effect of a change cannot be distinguished from the luck of that seed.")
        )

    # changes with a proven effect
    sentences = []
    tested = frame[frame.p_holm.notna()]
    proven = tested[tested.p_holm < ALPHA]
    helps = proven[proven.score_change > 0]
    harms = proven[proven.score_change < 0]
    if not helps.empty:
        sentences.append(
            plural(
                "One change helps (p < 0.05): {changes}.",
                "{n} changes help (p < 0.05): {changes}.",
                len(helps),
                changes=_listed(helps),
            )
        )
    if not harms.empty:
        sentences.append(
            plural(
                "One change harms (p < 0.05): {changes}.",
                "{n} changes harm (p < 0.05): {changes}.",
                len(harms),
                changes=_listed(harms),
            )
        )

    # the other changes
    rest = len(tested) - len(proven)
    if rest:
        sentences.append(
            text(
                "For {n} of the {all} changes there is no clear evidence of an effect on the accuracy (p ≥ 0.05).",
                n=rest,
                all=len(tested),
            )
            if rest < len(tested)
            else plural(
                "There is no clear evidence of an effect on the accuracy of the one change (p ≥ 0.05).",
                "There is no clear evidence of an effect on the accuracy of any of the {n} changes on its own (p ≥ "
                "0.05).",
                len(tested),
            )
        )
        if averaged:
            sentences.append(
                text(
                    "Each change compares the runs of two settings. The effect of an option averaged over the others, "
                    "given above, uses more runs and can be clear where that of a single change is not."
                )
            )
    return " ".join(sentences)


def _listed(rows: pd.DataFrame) -> str:
    """Name changes with the settings that they are made in, and their effects."""
    return named(
        [
            text(
                "{change} for {setting} ({points:+.2f} ± {spread:.2f} points)",
                setting=shown(row["setting"]),
                change=_change(row),
                points=row["score_change"],
                spread=row["score_change_ci95"],
            )
            for row in rows.to_dict("records")
        ]
    )
