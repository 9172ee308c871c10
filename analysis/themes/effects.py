"""Effects of the options of a sweep, averaged over the other options.

python -c "from analysis.themes import effects; from analysis.frames import runs, sections; \\
    print(effects.measure(sections.by_dataset(runs.load('runs'))[0]))"
"""

import math
from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import contrasts
from analysis.frames.sections import Section, once
from analysis.frames.statistics import ALPHA, moderated, raw_pairs, residual_degrees, with_tests
from analysis.page.tables import Column, Table, p_column
from analysis.themes import comparison
from analysis.wording.texts import mark, named, option, option_value, shown, shown_value, text
from study.config.setting import Setting

MEASURES = {"score": "score", "gap_last": contrasts.gap_last}
"""Measures that an option may change, as `contrasts.pairwise` takes them: the best validation accuracy (or what else
settings are ranked by), and the gap at the end."""

CHANGED = {
    "score": mark("{value} instead of {first} changes the validation accuracy by {change:+.2f} ± {spread:.2f} points"),
    "gap_last": mark("{value} instead of {first} changes the gap at the end by {change:+.2f} ± {spread:.2f} points"),
}

MOST_VALUES = 8
"""Options with more values than this, such as those drawn at random, have no table of effects."""


def answer(section: Section) -> list[str]:
    """Report the effect of each option, if two or more are varied in a grid."""
    effect = measure(section)
    return [] if effect.empty else [_answer(effect)]


@once
def measure(section: Section) -> pd.DataFrame:
    """Compare the values of each of several options, averaged over the other options and over seeds.

    All values of an option are averaged over the same combinations of the other options and the same seeds. Returns one
    row per option and value: `option`, `value`, `n` (seeds), `settings` (combinations), `score` and `gap_last`, and
    their differences from the first value of the option, `score_change` and `gap_last_change`, with half the width of
    their intervals over seeds as `…_ci95` and p as `…_p` (Holm). Values without a result are left out, and so are
    settings of which only some runs learned, as in every comparison. Changes are paired as in `contrasts.pairwise`,
    their variances are moderated over all options, and intervals and p are corrected for all differences of both
    measures; those of an option with a single combination are the ones of the comparison.
    """
    # the measures of each run; each value is wrapped in a setting, since pandas leaves None out of groups
    runs = section.runs[~section.runs.setting.isin(contrasts.partly_failed(section).index)]
    varied = section.varied
    measured = (
        runs[varied]
        .assign(repeat=section.repeats)
        .apply(lambda column: column.map(partial(_alone, column.name)))
        .assign(
            score=section.scores(runs),
            gap_last=contrasts.gap_last(runs),
            beginning=contrasts.beginnings(section),
            setting=runs.setting,
        )
    )
    rows = []
    tested: dict[str, list[pd.DataFrame]] = {what: [] for what in MEASURES}
    most = {what: {False: 0, True: 0} for what in MEASURES}
    for name in varied if len(varied) > 1 else []:
        # runs of all values in the same combinations and seeds
        have_result = set(measured[name])
        values = [one for value in ordered(section.points[name]) if (one := _alone(name, value)) in have_result]
        if not 1 < len(values) <= MOST_VALUES:
            continue
        chosen = _balanced(measured, name, values, [other for other in varied if other != name])
        if chosen.empty:
            continue

        # averages over the combinations
        settings = len(chosen.groupby(list(chosen.index.names[:-1])))
        beginnings = chosen.groupby(name).beginning.agg(frozenset)
        by_seed = chosen.groupby([name, "repeat"])[list(MEASURES)].mean()
        means = by_seed.groupby(name).mean()
        seeds = by_seed.index.get_level_values("repeat").nunique()

        # one row per value, with its difference from the first
        for value in values:
            row: dict[str, object] = {"option": name, "value": value.pairs[0][1], "n": seeds, "settings": settings}
            for what in MEASURES:
                row[what] = means[what][value]
                row[f"{what}_change"] = math.nan if value == values[0] else means[what][value] - means[what][values[0]]
            rows.append(row)

        # in a single combination, a change is a difference between two settings
        if settings == 1:
            setting_of_value = chosen.groupby(name).setting.first()
            for what, of in MEASURES.items():
                pairs = contrasts.pairwise(section, of)
                for row in rows[len(rows) - len(values) + 1 :]:
                    key = (setting_of_value[_alone(name, row["value"])], setting_of_value[values[0]])
                    if key in pairs.index:
                        row[f"{what}_change"] = pairs.difference[key]
                        row[f"{what}_change_ci95"] = pairs.half_width[key]
                        row[f"{what}_change_p"] = pairs.holm[key]

        # the pairs of each value and the first; their variance is that of a difference between single runs
        for what in MEASURES if seeds > 1 and settings > 1 else ():
            table = by_seed[what].unstack().reindex(values).to_numpy(dtype=float)
            if np.isnan(table).any():  # a run lacks this measure
                continue
            kinds = np.array([list(beginnings[values]).index(beginnings[value]) for value in values])
            pairs = raw_pairs(table, kinds, contrasts.step_of(section, MEASURES[what]) ** 2 / 12 / settings)
            pairs = pairs[pairs["first"] == 0].assign(row=range(len(rows) - len(values) + 1, len(rows)))
            scaled_up = pairs[["variance", "n"]] * settings
            tested[what].append(pairs.assign(what=what, variance=scaled_up.variance, n=scaled_up.n))
            for kind, degrees in residual_degrees(table, kinds).items():
                most[what][kind] += degrees

    # one row per option and value
    columns = [
        "option",
        "value",
        "n",
        "settings",
        *(f"{what}{more}" for what in MEASURES for more in ("", "_change", "_change_ci95", "_change_p")),
    ]
    frame = pd.DataFrame(rows, columns=columns)
    frame["value"] = pd.Series([row["value"] for row in rows], dtype=object)  # as it is: 32, not 32.0; None, not NaN

    # tests of all differences of both measures, as one family
    tests = [f"{what}_change_{more}" for what in MEASURES for more in ("ci95", "p")]
    frame = frame.astype(dict.fromkeys(tests, float))
    known = {what: pd.concat(own, ignore_index=True) for what, own in tested.items() if own}
    if known:
        family = pd.concat([moderated(pairs, most[what]) for what, pairs in known.items()])
        for what, pairs in with_tests(family).groupby("what"):
            frame.loc[pairs.row, f"{what}_change_ci95"] = pairs.half_width.to_numpy()
            frame.loc[pairs.row, f"{what}_change_p"] = pairs.holm.to_numpy()
    return frame


def _alone(name: str, value: Any) -> Setting:
    """Return the setting of one option."""
    return Setting(((name, value),))


def _balanced(measured: pd.DataFrame, name: str, values: Sequence[Setting], others: list[str]) -> pd.DataFrame:
    """Choose runs such that all values of an option have the same combinations of the others and the same seeds.

    If some runs are missing, either combinations or seeds are left out, whichever keeps more runs. The result is
    indexed by combination and seed.
    """
    whole = measured.groupby([*others, "repeat"])[name].agg(lambda present: set(values) <= set(present))
    whole = whole.unstack("repeat").eq(True)
    whole = whole.loc[whole.any(axis=1), whole.any()]
    blocks = whole.loc[:, whole.all()], whole[whole.all(axis=1)]
    kept = max(blocks, key=lambda block: block.size).stack()
    indexed = measured.set_index([*others, "repeat"])
    return indexed[indexed.index.isin(kept.index)]


def table(section: Section, effect: pd.DataFrame) -> Table:
    """Make the table of the results of `measure`."""
    columns = [
        Column("option", text=lambda row: option(row["option"])),
        Column("value", text=lambda row: shown_value(row["option"], row["value"])),
        Column("settings", 0),
        Column("n", 0),
        Column("score", 2),
        Column("score_change", 2),
        p_column("score_change_p"),
        Column("gap_last", 2),
        Column("gap_last_change", 2),
        p_column("gap_last_change_p"),
    ]

    # p values exist only with several seeds
    tested = effect.score_change_p.notna().any()
    columns = [column for column in columns if tested or not column.key.endswith("_p")]
    notes = [
        text(
            "Every value of an option is averaged over the same combinations of the other options and the same seeds. "
            "Changes are from the option's first value."
        ),
    ]
    if tested:
        notes.append(
            text(
                "± is half the interval over seeds, paired by seed where the values start from the same weights "
                "and see the images in the same order, otherwise Welch's, with moderated variances. ± and p "
                "(Holm) are corrected for all changes in this table, of the accuracy and of the gap: the risk of "
                "a false claim is about 5 % for the whole table. A change in a single combination is a difference "
                "between two settings; its ± and p are those of the comparison."
            )
        )
    absent = []
    for name in dict.fromkeys(effect.option):
        have_result = set(section.runs[name])
        absent += [_alone(name, value) for value in ordered(section.points[name]) if value not in have_result]
    if absent:
        notes.append(
            text("Values without a result are left out: {values}.", values=named([shown(one) for one in absent]))
        )
    partly = contrasts.partly_failed(section)
    if not partly.empty:
        notes.append(comparison.failed_note(partly.rename(columns={"all": "n"}).reset_index()))
    return Table(
        "options", text("Each option of {name}, averaged over the others", name=section.title), effect, columns, notes
    )


def _answer(effect: pd.DataFrame) -> str:
    """Report which effects are more than noise."""
    # effects with a corrected p below 5 %
    changes = effect[effect.score_change.notna()]
    first = effect.drop_duplicates("option").set_index("option")["value"]
    certain = []
    for row in changes.itertuples():
        for what in MEASURES:
            change = getattr(row, f"{what}_change")
            half_width = getattr(row, f"{what}_change_ci95")
            if getattr(row, f"{what}_change_p") < ALPHA:
                values = {"value": option_value(row.option, row.value), "change": change, "spread": half_width}
                values |= {"first": shown_value(row.option, first[row.option])}
                certain.append(text(CHANGED[what], **values))

    # the sentence depends on the number of seeds and of proven effects
    if (changes.n < 2).all():
        return text(
            "With one seed, the differences between the values of an option cannot be distinguished from the luck of "
            "that seed."
        )
    if not certain:
        return text(
            "Averaged over the other options, there is no clear evidence of an effect on the accuracy or the gap: "
            "{options}.",
            options=named([option(name) for name in dict.fromkeys(changes.option)]),
        )
    known = set(changes.option[changes.score_change_p < ALPHA])
    rest = [option(name) for name in dict.fromkeys(changes.option) if name not in known]
    answer = text(
        "Averaged over the other options, these effects are more than noise (p < 0.05, corrected by Holm): {changes}. "
        "An average can hide that an effect is larger in one combination than in another.",
        changes=named(certain),
    )
    if rest:
        answer += " " + text(
            "No clear evidence of an effect on the accuracy, on average: {options}.", options=named(rest)
        )
    return answer


def is_numeric(values: pd.Series) -> bool:
    """Return whether all values of an option are single numbers."""
    return all(len(_numbers(value) or ()) == 1 for value in values)


def sizes(values: pd.Series) -> pd.Series:
    """Return the numbers of an option for which `is_numeric` is true."""
    return values.map(lambda value: _numbers(value)[0])


def ordered(values: pd.Series) -> list:
    """Return the different values: first numbers and lists of numbers in ascending order, then the others."""
    return sorted(dict.fromkeys(values), key=lambda value: (_numbers(value) is None, _numbers(value) or []))


def _numbers(value: object) -> list[float] | None:
    """Return a number, or a list of numbers, as a list; None for anything else."""
    numbers = list(value) if isinstance(value, tuple) else [value]
    are_numbers = all(isinstance(number, Real) and not isinstance(number, bool) for number in numbers)
    return [float(number) for number in numbers] if numbers and are_numbers else None
