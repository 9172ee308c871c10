"""The answer of a section in words: the best setting, by how much it is better, and what may be noise.

    python -c "from analysis.frames import runs, sections; from analysis.themes import answers; \\
        frames = runs.load('runs'); print(*answers.sentences(frames, sections.by_dataset(frames)[0]), sep='\\n')"

Differences between settings are judged only with two seeds of each. A setting is worse if p, corrected for all pairs of
the section, is below 5 %; it is as good if the interval of the difference lies within the smallest difference that
matters (`Section.smallest`); otherwise it is undecided.
"""

import math
from collections.abc import Sequence

import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, in_its_words
from analysis.frames.statistics import ALPHA, LEAST_DEGREES, range_of_deviation, seeds_to_show
from analysis.page.blocks import Block, Heading, Items
from analysis.page.figures import Looks
from analysis.page.tables import p_words
from analysis.themes import comparison, effects
from analysis.wording.texts import NAMED, mark, named, plural, shown, text
from study.config.setting import Setting

OVERFITTING = (
    (
        contrasts.gap_last,
        "val",
        {
            "less": mark(
                "Overfit less than {setting}, judged by the gap between training and validation accuracy at the end: "
                "{others}."
            ),
            "more": mark(
                "Overfit more than {setting}, judged by the gap between training and validation accuracy at the end: "
                "{others}."
            ),
            "one": mark("{setting} by {size:.2f} ± {spread:.2f} points, {p}"),
        },
    ),
    (
        lambda runs: runs["last/val_loss"],
        None,
        {
            "less": mark("Lower validation loss at the end than {setting}: {others}."),
            "more": mark("Higher validation loss at the end than {setting}: {others}."),
            "one": mark("{setting} by {size:.3f} ± {spread:.3f}, {p}"),
        },
    ),
)
"""Measures of overfitting: computed for each run, the split whose images limit their resolution, and sentences."""

MCNEMAR_DIFFER = mark(
    "On the {images:,} test images, these trained networks differ by more than the choice of images explains "
    "(McNemar's test; it says nothing about other seeds): {setting} and {others}."
)
MCNEMAR_ALIKE = mark(
    "On the {images:,} test images, even these trained networks cannot be distinguished (McNemar's test): {setting} "
    "and {others}."
)


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Report the best setting, and the effect of the options."""
    return [Heading(text("The answer")), Items([*sentences(frames, section), *effects.answer(section)])]


@in_its_words
def sentences(frames: Frames, section: Section) -> list[str]:
    """Return the answer in sentences, the most important first."""
    # the main answer depends on how many settings have several seeds
    frame = contrasts.with_images(frames, section)
    frame = frame[frame.n > 0].set_index("setting")
    if len(frame) == 1:
        answer = [_alone(frame.iloc[0])]
    elif ((frame.n > 1) & (frame.failed == 0)).sum() > 1:
        answer = _several(section, frame)
    else:
        answer = [_ahead(frame), *_networks(frames, section, frame), _advice(section)]

    # settings without a result, and diverged runs of the best ones, belong to the first sentence
    diverged = section.points.setting[section.points.state == "diverged"].value_counts()
    without = [shown(setting) for setting in dict.fromkeys(section.points.setting) if setting not in frame.index]
    if without:
        answer[0] += " " + _without(without)
    first = list(dict.fromkeys([frame.index[0], contrasts.reference(frame)]))
    for setting in first:
        if setting in diverged:
            answer[0] += " " + _diverged(setting, int(diverged[setting]), int(frame.asked[setting]))
    others = [
        text(
            "{setting} ({count} of {all})",
            setting=shown(setting),
            count=int(diverged[setting]),
            all=int(frame.asked[setting]),
        )
        for setting in frame.index
        if setting in diverged and setting not in first
    ]
    if others:
        answer[0] += " " + text(
            "Runs of other settings diverged and are not included in their means: {others}.", others=named(others)
        )
    return answer


def headline(frames: Frames, section: Section) -> str:
    """Return the first sentence of the answer."""
    return sentences(frames, section)[0]


def _advice(section: Section) -> str:
    """Say how to find out which setting is better, without enough seeds."""
    if section.is_search:
        return text(
            "To find out, train the best of these points again, in a grid of their own with five seeds or more."
        )
    return text(
        "To find out, train five seeds or more of each setting, for example with `seed: {values: [0, 1, 2, 3, 4]}` in "
        "the sweep."
    )


def _without(names: Sequence[str]) -> str:
    """Name the settings that have no result, or count them if they are many."""
    if len(names) > NAMED:
        return comparison.without_result(len(names))
    return plural(
        "{n} more setting has no result: {settings}.",
        "{n} more settings have no result: {settings}.",
        len(names),
        settings=named(names),
    )


def _diverged(setting: Setting, count: int, asked: int) -> str:
    """Report how many of the runs of a setting diverged, and what that means for its mean."""
    values = {"setting": shown(setting), "all": asked}
    if 2 * count >= asked:
        return plural(
            "{n} of the {all} runs of {setting} diverged: its mean is only that of the other, and a new run may well "
            "diverge.",
            "{n} of the {all} runs of {setting} diverged: its mean is only that of the others, and a new run may well "
            "diverge.",
            count,
            **values,
        )
    return plural(
        "{n} of the {all} runs of {setting} diverged and is not included in its mean.",
        "{n} of the {all} runs of {setting} diverged and are not included in its mean.",
        count,
        **values,
    )


def _alone(row: pd.Series) -> str:
    """Report the accuracies of the only setting."""
    return plural(
        "**{setting}** reached a validation accuracy of {val} and, on the test images, {test} ({n} seed). There is no "
        "other setting to compare it with.",
        "**{setting}** reached a validation accuracy of {val} and, on the test images, {test} ({n} seeds). There is "
        "no other setting to compare it with.",
        int(row.n),
        setting=shown(row.name),
        **_accuracies(row),
    )


def _several(section: Section, frame: pd.DataFrame) -> list[str]:
    """Compare settings that have several seeds with the best of them."""
    # divide the other settings by what is known of their difference from the best
    best = contrasts.reference(frame)
    tested = frame[frame.p_holm.notna()]
    better = tested[(tested.p_holm < ALPHA) & (tested.below < 0)]  # over the seeds that both have
    others = tested.drop(better.index)
    values: dict[str, object] = {"setting": shown(best), "smallest": section.smallest, **_accuracies(frame.loc[best])}
    values["highest"] = (
        text("has the highest validation accuracy")
        if best == frame.index[0]
        else text("has the highest validation accuracy of the settings that can be compared")
    )
    tied = [shown(setting) for setting in others.index[others.below == 0]]
    if best == frame.index[0] and tied:
        values["highest"] = text("has the highest validation accuracy, together with {others}", others=named(tied))
    worse = others[others.p_holm < ALPHA]
    is_equal = others.below.abs() + others.below_ci95 < section.smallest
    equal = others[(others.p_holm >= ALPHA) & is_equal]
    undecided = others[(others.p_holm >= ALPHA) & ~is_equal]

    # the first sentence
    if others.empty and not better.empty:
        answer = [text("**{setting}** {highest}, {val} over {seeds} seeds.", **values)]
    elif others.empty:
        answer = [
            text(
                "**{setting}** {highest}, {val} over {seeds} seeds, but each setting gives the same result with every "
                "seed, so the seeds do not show whether a difference is more than noise.",
                **values,
            )
        ]
    elif (others.below == 0).all():
        answer = [
            plural(
                "The other setting has the same mean validation accuracy as **{setting}**, {val} over {seeds} seeds.",
                "All {n} other settings have the same mean validation accuracy as **{setting}**, {val} over {seeds} "
                "seeds.",
                len(others),
                **values,
            )
        ]
    elif len(worse) == len(others):
        answer = [
            text(
                "**{setting}** {highest}, {val} over {seeds} seeds, clearly above {others}.",
                others=_below(worse),
                **values,
            )
        ]
    elif len(equal) == len(others):
        answer = [
            plural(
                "**{setting}** {highest}, {val} over {seeds} seeds, but the other setting is as good{on}: no true "
                "difference from it is likely to reach {smallest:g} points.",
                "**{setting}** {highest}, {val} over {seeds} seeds, but the {n} other settings are as good{on}: no "
                "true difference from it is likely to reach {smallest:g} points.",
                len(others),
                on=_on(others),
                **values,
            )
        ]
    elif len(undecided) == len(others):
        answer = [
            plural(
                "**{setting}** {highest}, {val} over {seeds} seeds, but the difference from the other setting may be "
                "noise.",
                "**{setting}** {highest}, {val} over {seeds} seeds, but all differences from the {n} other settings "
                "may be noise.",
                len(others),
                **values,
            )
        ]
    else:
        parts = named(_counts(section, worse, equal, undecided))
        answer = [
            plural(
                "**{setting}** {highest}, {val} over {seeds} seeds. Of the {n} setting compared with it, {counts}.",
                "**{setting}** {highest}, {val} over {seeds} seeds. Of the {n} settings compared with it, {counts}.",
                len(others),
                counts=parts,
                **values,
            )
        ]

    # what contradicts it belongs to the first sentence: other seeds, and the test images
    if not better.empty:
        answer[0] += " " + text(
            "Over the seeds that both have, it is clearly less accurate than {others}.",
            others=named([shown(setting) for setting in better.index]),
        )
    against = others[(others.test_below < 0) & (others.p_test < ALPHA)]
    if not against.empty:
        answer[0] += " " + plural(
            "The test images show the opposite: there, another setting is better: {others}.",
            "The test images show the opposite: there, {n} other settings are better: {others}.",
            len(against),
            others=_better_on_test(against),
        )

    # one sentence per kind of difference, unless the first sentence has them
    if (others.below != 0).any():
        if 0 < len(worse) < len(others):
            answer.append(text("Clearly worse than {setting} (p < 0.05): {others}.", others=_below(worse), **values))
        if len(equal):
            answer.append(
                text(
                    "As good as {setting}, because the interval of the difference lies within ±{smallest:g} points: "
                    "{others}.",
                    others=_below(equal),
                    **values,
                )
            )
        if len(undecided):
            answer.append(
                text(
                    "Lower than {setting} on average, but neither shown to be worse nor to be as good (to within "
                    "{smallest:g} points): {others}.",
                    others=_below(undecided),
                    **values,
                )
            )

    answer += _images(pd.concat([worse, equal]))

    # overfitting, the test accuracy, the seeds that are needed
    answer += _overfitting(section, best, others.index[others.p_holm >= ALPHA])
    answer.append(_tested(others, values))
    if len(undecided):
        answer.append(needed(section, best, undecided))

    # settings that are not compared
    single = frame[frame.n == 1]
    above = single[single.below < 0]
    if not above.empty:
        top = {"other": shown(above.index[0]), "points": -float(above.below.iloc[0])}
        answer.append(
            text(
                "{other} is {points:.2f} points above {setting}, but with its only seed; more seeds of it would show "
                "whether it is better.",
                setting=shown(best),
                **top,
            )
        )
    failed = frame[frame.failed > 0]
    constant = frame[(frame.n > 1) & (frame.failed == 0) & frame.p_holm.isna() & (frame.index != best)]
    if not single.empty:
        answer.append(
            plural(
                "Not compared, because it has only one seed: {settings}.",
                "Not compared, because they have only one seed: {settings}.",
                len(single),
                settings=named(list(map(shown, single.index))),
            )
        )
    if not (constant.empty or others.empty):
        names = named(list(map(shown, constant.index)))
        answer.append(
            plural(
                "Not compared with {setting}, because it gives the same result with every seed, which does not show "
                "how much results vary: {settings}.",
                "Not compared with {setting}, because every seed of each gives the same result, which does not show "
                "how much results vary: {settings}.",
                len(constant),
                setting=shown(best),
                settings=names,
            )
        )
    if not failed.empty:
        answer.append(
            plural(
                "Not compared, because only some of its runs learned, so that its mean says little: {settings}. A "
                "failed run fits its training images hardly better at the end than in the first epoch.",
                "Not compared, because only some of their runs learned, so that their mean says little: {settings}. A "
                "failed run fits its training images hardly better at the end than in the first epoch.",
                len(failed),
                settings=comparison.failed_named(failed),
            )
        )
    return answer


def _counts(section: Section, worse: pd.DataFrame, equal: pd.DataFrame, undecided: pd.DataFrame) -> list[str]:
    """Count the settings that are worse than the best one, as good as it, and undecided."""
    counts = []
    if len(worse):
        counts.append(
            plural(
                "{n} is clearly worse{on} (p < 0.05)", "{n} are clearly worse{on} (p < 0.05)", len(worse), on=_on(worse)
            )
        )
    if len(equal):
        counts.append(
            plural(
                "{n} is as good{on} (to within {smallest:g} points)",
                "{n} are as good{on} (to within {smallest:g} points)",
                len(equal),
                on=_on(equal),
                smallest=section.smallest,
            )
        )
    if len(undecided):
        counts.append(plural("{n} is undecided", "{n} are undecided", len(undecided)))
    return counts


def _overfitting(section: Section, best: str, settings: pd.Index) -> list[str]:
    """Report which of the settings overfit less or more than the best one."""
    parts = []
    for of, split, words in OVERFITTING:
        # differences from the best that are proven; a run may lack one of these numbers
        pairs = contrasts.pairwise(section, of, split, best)
        proven = pairs.loc[[pair for setting in settings if (pair := (setting, best)) in pairs.index]]
        proven = proven[proven.holm < ALPHA].droplevel("b")

        # a sentence for those that overfit less, and for those that overfit more
        for kind, rows in (("less", proven[proven.difference < 0]), ("more", proven[proven.difference > 0])):
            differences = [
                text(
                    words["one"],
                    setting=shown(row.Index),
                    size=abs(row.difference),
                    spread=row.half_width,
                    p=p_words(row.holm),
                )
                for row in rows.itertuples()
            ]
            if differences:
                parts.append(text(words[kind], setting=shown(best), others=named(differences)))
    return parts


def _tested(others: pd.DataFrame, values: dict[str, object]) -> str:
    """Report the test accuracy of the best setting, and the highest one unless the first sentence has it."""
    higher = others[(others.test_below < 0) & ~(others.p_test < ALPHA)]
    answer = text("On the test images, which were not used for the choice, {setting} reaches {test}.", **values)
    if not higher.empty:
        answer += " " + text(
            "Higher on average on the test images, which may be noise: {other}.",
            other=_better_on_test(higher.nsmallest(1, "test_below")),
        )
    return answer


def _is_on_images(rows: pd.DataFrame) -> pd.Series:
    """Return for each difference whether it would vary more with other images than with other seeds."""
    return rows.below_images > rows.below_ci95


def _on(rows: pd.DataFrame) -> str:
    """Return the words that restrict a claim on settings to these images, if that is so for any of them."""
    return text(" on these images") if _is_on_images(rows).any() else ""


def _images(rows: pd.DataFrame) -> list[str]:
    """Say what other images would change, for the claimed differences of which these are the larger uncertainty."""
    larger = rows[_is_on_images(rows)]
    if larger.empty:
        return []
    answer = text(
        "“On these images”: the difference would vary more with other images of the same kind (up to ± {most:.2f} "
        "points) than with other seeds; see the column “± images” of the comparison.",
        most=larger.below_images.max(),
    )
    gone = larger[(larger.p_holm < ALPHA) & (larger.below.abs() <= larger.below_images)]
    if not gone.empty:
        answer += " " + text(
            "With other images there might be no difference from {settings}.",
            settings=named([shown(setting) for setting in gone.index]),
        )
    return [answer]


def _better_on_test(rows: pd.DataFrame) -> str:
    """Name settings that are better than the best one on the test images, with the differences there."""
    swapped = rows.assign(below=-rows.test_below, below_ci95=rows.test_below_ci95, p_holm=rows.p_test)
    return _below(swapped.assign(below_images=rows.test_below_images))


def _ahead(frame: pd.DataFrame) -> str:
    """Report the setting with the highest accuracy, without enough seeds for a comparison."""
    # the best two settings
    first, second = frame.index[:2]
    points = float(frame.score[first] - frame.score[second])
    values = {"setting": shown(first), "other": shown(second), "points": points, **_accuracies(frame.loc[first])}
    if frame.n.max() > 1:
        return plural(
            "**{setting}** is ahead: its validation accuracy is {val} ({n} seed), {points:.2f} points above {other}; "
            "on the test images it reaches {test}. No two settings have several seeds and learn with all of them, so "
            "it is not known whether this is more than luck.",
            "**{setting}** is ahead: its validation accuracy is {val} ({n} seeds), {points:.2f} points above {other}; "
            "on the test images it reaches {test}. No two settings have several seeds and learn with all of them, so "
            "it is not known whether this is more than luck.",
            int(frame.n[first]),
            **values,
        )
    if points > 0:
        return text(
            "With one seed each, **{setting}** is ahead: its validation accuracy is {val}, {points:.2f} points above "
            "{other}; on the test images it reaches {test}. It is not known whether this is more than the luck of a "
            "seed.",
            **values,
        )

    # settings with exactly the same accuracy are all named
    level = [shown(setting) for setting in frame.index[frame.score == frame.score[first]]]
    return text(
        "With one seed each, **{settings}** share the highest validation accuracy, {val}; on the test images "
        "{setting} reaches {test}. It is not known whether this is more than the luck of a seed.",
        settings=named(level),
        **values,
    )


def _networks(frames: Frames, section: Section, frame: pd.DataFrame) -> list[str]:
    """Compare the trained networks themselves, on the test images."""
    # McNemar's tests against the best network
    tests = contrasts.with_best(frames, section, frame.reset_index())
    if tests.empty:
        return []
    differ = tests[tests.p < ALPHA]
    alike = tests[tests.p >= ALPHA]

    # a sentence for the networks that differ, and for those that do not
    parts = []
    for words, rows in ((MCNEMAR_DIFFER, differ), (MCNEMAR_ALIKE, alike)):
        if not rows.empty:
            others = [
                text(
                    "{setting} ({first:,} images that only the first classifies correctly, {second:,} only the "
                    "second, {p})",
                    setting=shown(row.Index),
                    first=row.only_best,
                    second=row.only_this,
                    p=p_words(row.p),
                )
                for row in rows.itertuples()
            ]
            images = int(rows.images.iloc[0])
            parts.append(text(words, setting=shown(frame.index[0]), others=named(others), images=images))
    return parts


def needed(section: Section, best: str, undecided: pd.DataFrame) -> str:
    """Report how many seeds would show the smallest difference that matters, from the undecided settings.

    The range is due to the spread between seeds, which is known only roughly.
    """
    # the usual spread of the differences from the best, and the degrees of freedom that it is known with
    pairs = contrasts.pairwise(section, reference=best).loc[best].loc[undecided.index]
    degrees = float(pairs.degrees.median())
    if degrees < LEAST_DEGREES:
        return text("There are too few seeds to estimate how many are needed; train five or more of each setting.")
    deviation = math.sqrt((pairs.deviation**2).mean())

    # the seeds that it needs, if the spread is rather small or rather large
    fewest, most = (
        seeds_to_show(section.smallest, bound, pairs["share"].median(), int(pairs.pairs.iloc[0]), pairs.prior.median())
        for bound in range_of_deviation(deviation, degrees)
    )
    values = {"points": section.smallest, "fewest": fewest, "most": most}
    if fewest is None:
        return text(
            "To show a difference of {points:g} points, more than 100 seeds of each setting are needed (power 80 %).",
            **values,
        )
    if most is None:
        return text(
            "To show a difference of {points:g} points, at least {fewest} seeds of each setting are needed, perhaps "
            "more than 100 (power 80 %).",
            **values,
        )
    if fewest == most:
        return text(
            "To show a difference of {points:g} points, about {fewest} seeds of each setting are needed (power 80 %).",
            **values,
        )
    return text(
        "To show a difference of {points:g} points, about {fewest} to {most} seeds of each setting are needed (power "
        "80 %; the range is due to the spread between seeds, which is known only roughly).",
        **values,
    )


def _accuracies(row: pd.Series) -> dict[str, object]:
    """Return the values of a setting that the sentences need: accuracies and number of seeds."""
    return {"val": _with_interval(row, "score"), "seeds": int(row.n), "test": _with_interval(row, "test_score")}


def _with_interval(row: pd.Series, key: str) -> str:
    """Write an accuracy with its interval, if there is one."""
    mean, *brackets = comparison.with_interval(row, key).split(" [")
    return " [".join([f"{mean} %", *brackets])


def _below(rows: pd.DataFrame) -> str:
    """Name settings with their differences from the best one, intervals and corrected p values."""
    texts = [
        text(
            "{setting} by {points:.2f} points{on} [{low:.2f}, {high:.2f}], {p}",
            setting=shown(setting),
            points=float(row.below),
            p=p_words(row.p_holm),
            on=text(" on these images") if is_on_images else "",
            low=float(row.below - row.below_ci95),
            high=float(row.below + row.below_ci95),
        )
        for (setting, row), is_on_images in zip(rows.iterrows(), _is_on_images(rows), strict=True)
    ]
    return named(texts)
