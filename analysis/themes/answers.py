"""The answer of a section in words: the best setting, by how much it is better, and what may be noise.

    python -c "from analysis.frames import runs, sections; from analysis.themes import answers; \\
        frames = runs.load('runs'); print(*answers.sentences(frames, sections.by_dataset(frames)[0]), sep='\\n')"

Differences between settings are judged only with two seeds of each. A setting is worse if p, corrected for all pairs of
the section, is below 5 %; it is as good if the interval of the difference lies within the smallest difference that
matters (`Section.smallest`); otherwise it is undecided.
"""

import math

import pandas as pd

from analysis.frames.runs import Frames
from analysis.frames.sections import Section
from analysis.frames.statistics import ALPHA, LEAST_DEGREES, range_of_deviation, seeds_to_show
from analysis.page.blocks import Block, Heading, Items
from analysis.page.figures import Looks
from analysis.page.tables import p_words
from analysis.themes import comparison, effects
from analysis.wording.texts import NAMED, label, named, sentence, shown

OVERFITTING = {
    "gap_last": (comparison.gap_last, "val"),
    "val_loss_last": (lambda runs: runs["last/val_loss"], None),
}
"""Measures of overfitting, computed for each run, and the split whose images limit their resolution."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Report the best setting, and the effect of the options."""
    return [Heading(label("answer")), Items([*sentences(frames, section), *effects.answer(section)])]


def sentences(frames: Frames, section: Section) -> list[str]:
    """Return the answer in sentences, the most important first."""
    # the main answer depends on how many settings have several seeds
    frame = comparison.with_images(frames, section)
    frame = frame[frame.n > 0].set_index("setting")
    if len(frame) == 1:
        answer = [_alone(frame.iloc[0])]
    elif ((frame.n > 1) & (frame.failed == 0)).sum() > 1:
        answer = _several(section, frame)
    else:
        advice = sentence("answer_seeds_search" if section.is_search else "answer_seeds")
        answer = [_ahead(frame), *_networks(frames, section, frame), advice]

    # settings without a result, and diverged runs of the best ones, belong to the first sentence
    diverged = section.points.setting[section.points.state == "diverged"].value_counts()
    without = [shown(setting) for setting in dict.fromkeys(section.points.setting) if setting not in frame.index]
    if without:
        key = "answer_without" if len(without) <= NAMED else "table_without"
        answer[0] += " " + sentence(key, count=len(without), settings=named(without))
    first = list(dict.fromkeys([frame.index[0], comparison.reference(frame)]))
    for setting in first:
        if setting in diverged:
            counts = {"count": int(diverged[setting]), "all": int(frame.asked[setting])}
            key = "answer_diverged_most" if 2 * counts["count"] >= counts["all"] else "answer_diverged"
            answer[0] += " " + sentence(key, setting=shown(setting), **counts)
    others = [
        sentence("diverged_one", setting=shown(setting), count=int(diverged[setting]), all=int(frame.asked[setting]))
        for setting in frame.index
        if setting in diverged and setting not in first
    ]
    if others:
        answer[0] += " " + sentence("answer_diverged_others", others=named(others))
    return answer


def headline(frames: Frames, section: Section) -> str:
    """Return the first sentence of the answer."""
    return sentences(frames, section)[0]


def _alone(row: pd.Series) -> str:
    """Report the accuracies of the only setting."""
    return sentence("answer_alone", setting=shown(row.name), **_accuracies(row))


def _several(section: Section, frame: pd.DataFrame) -> list[str]:
    """Compare settings that have several seeds with the best of them."""
    # divide the other settings by what is known of their difference from the best
    best = comparison.reference(frame)
    others = frame[frame.p_holm.notna()]
    values: dict[str, object] = {"setting": shown(best), "smallest": section.smallest, **_accuracies(frame.loc[best])}
    values["highest"] = label("highest" if best == frame.index[0] else "highest several")
    worse = others[others.p_holm < ALPHA]
    is_equal = others.below.abs() + others.below_ci95 < section.smallest
    equal = others[(others.p_holm >= ALPHA) & is_equal]
    undecided = others[(others.p_holm >= ALPHA) & ~is_equal]

    # the first sentence
    if others.empty:
        answer = [sentence("answer_untested", **values)]
    elif (others.below == 0).all():
        answer = [sentence("answer_same", n=len(others), **values)]
    elif len(worse) == len(others):
        answer = [sentence("answer_best", others=_below(worse), **values)]
    elif len(equal) == len(others):
        answer = [sentence("answer_level_all", n=len(others), on=_on(others), **values)]
    elif len(undecided) == len(others):
        answer = [sentence("answer_noise", n=len(others), **values)]
    else:
        counts = {"worse": len(worse), "equal": len(equal), "open": len(undecided)}
        on = {"worse": _on(worse), "equal": _on(equal), "open": ""}
        parts = named([sentence(f"answer_{kind}_count", n=n, on=on[kind], **values) for kind, n in counts.items() if n])
        answer = [sentence("answer_counts", n=len(others), counts=parts, **values)]

    # what the test images show against it belongs to the first sentence
    against = others[(others.test_below < 0) & (others.p_test < ALPHA)]
    if not against.empty:
        answer[0] += " " + sentence("answer_against", others=_better_on_test(against), n=len(against))

    # one sentence per kind of difference, unless the first sentence has them
    kinds = {"worse": worse if len(worse) < len(others) else worse[:0], "equal": equal, "open": undecided}
    if (others.below != 0).any():
        listed = {kind: rows for kind, rows in kinds.items() if len(rows)}
        answer += [sentence(f"answer_{kind}", others=_below(rows), **values) for kind, rows in listed.items()]

    answer += _images(pd.concat([worse, equal]))

    # overfitting, the test accuracy, the seeds that are needed
    answer += _overfitting(section, best, others.index[others.p_holm >= ALPHA])
    answer.append(_tested(others, values))
    if len(undecided):
        answer.append(_needed(section, best, undecided))

    # settings that are not compared
    single = frame[frame.n == 1]
    above = single[single.below < 0]
    if not above.empty:
        top = {"other": shown(above.index[0]), "points": -float(above.below.iloc[0])}
        answer.append(sentence("answer_single_above", setting=shown(best), **top))
    failed = frame[frame.failed > 0]
    constant = frame[(frame.n > 1) & (frame.failed == 0) & frame.p_holm.isna() & (frame.index != best)]
    kinds = {"single": single, "constant": constant if not others.empty else constant[:0]}
    for kind, rows in kinds.items():
        if not rows.empty:
            settings = named([shown(setting) for setting in rows.index])
            answer.append(sentence(f"answer_{kind}", setting=shown(best), settings=settings))
    if not failed.empty:
        answer.append(sentence("answer_failed", settings=comparison.failed_named(failed)))
    return answer


def _overfitting(section: Section, best: str, settings: pd.Index) -> list[str]:
    """Report which of the settings overfit less or more than the best one."""
    parts = []
    for name, (of, split) in OVERFITTING.items():
        # differences from the best that are proven; a run may lack one of these numbers
        pairs = comparison.pairwise(section, of, split, best)
        proven = pairs.loc[[pair for setting in settings if (pair := (setting, best)) in pairs.index]]
        proven = proven[proven.holm < ALPHA].droplevel("b")

        # a sentence for those that overfit less, and for those that overfit more
        for kind, rows in (("less", proven[proven.difference < 0]), ("more", proven[proven.difference > 0])):
            texts = [
                sentence(
                    f"{name}_difference",
                    setting=shown(row.Index),
                    size=abs(row.difference),
                    spread=row.half_width,
                    p=p_words(row.holm),
                )
                for row in rows.itertuples()
            ]
            if texts:
                parts.append(sentence(f"{name}_{kind}", setting=shown(best), others=named(texts)))
    return parts


def _tested(others: pd.DataFrame, values: dict[str, object]) -> str:
    """Report the test accuracy of the best setting, and the highest one unless the first sentence has it."""
    higher = others[(others.test_below < 0) & ~(others.p_test < ALPHA)]
    text = sentence("answer_test", **values)
    if not higher.empty:
        text += " " + sentence("answer_test_other", other=_better_on_test(higher.nsmallest(1, "test_below")))
    return text


def _is_on_images(rows: pd.DataFrame) -> pd.Series:
    """Return for each difference whether it would vary more with other images than with other seeds."""
    return rows.below_images > rows.below_ci95


def _on(rows: pd.DataFrame) -> str:
    """Return the words that restrict a claim on settings to these images, if that is so for any of them."""
    return label("on_images") if _is_on_images(rows).any() else ""


def _images(rows: pd.DataFrame) -> list[str]:
    """Say what other images would change, for the claimed differences of which these are the larger uncertainty."""
    larger = rows[_is_on_images(rows)]
    if larger.empty:
        return []
    text = sentence("answer_images", most=larger.below_images.max())
    gone = larger[(larger.p_holm < ALPHA) & (larger.below.abs() <= larger.below_images)]
    if not gone.empty:
        text += " " + sentence("answer_images_gone", settings=named([shown(setting) for setting in gone.index]))
    return [text]


def _better_on_test(rows: pd.DataFrame) -> str:
    """Name settings that are better than the best one on the test images, with the differences there."""
    swapped = rows.assign(below=-rows.test_below, below_ci95=rows.test_below_ci95, p_holm=rows.p_test)
    return _below(swapped.assign(below_images=rows.test_below_images))


def _ahead(frame: pd.DataFrame) -> str:
    """Report the setting with the highest accuracy, without enough seeds for a comparison."""
    # the best two settings
    first, second = frame.index[:2]
    points = float(frame.val_acc[first] - frame.val_acc[second])
    single = "answer_ahead" if points > 0 else "answer_level"
    key = "answer_ahead_mixed" if frame.n.max() > 1 else single

    # settings with exactly the same accuracy are all named
    level = [shown(setting) for setting in frame.index[frame.val_acc == frame.val_acc[first]]]
    return sentence(
        key,
        setting=shown(first),
        settings=named(level),
        count=len(level),
        other=shown(second),
        points=points,
        **_accuracies(frame.loc[first]),
    )


def _networks(frames: Frames, section: Section, frame: pd.DataFrame) -> list[str]:
    """Compare the trained networks themselves, on the test images."""
    # McNemar's tests against the best network
    tests = comparison.with_best(frames, section, frame.reset_index())
    if tests.empty:
        return []
    differ = tests[tests.p < ALPHA]
    alike = tests[tests.p >= ALPHA]

    # a sentence for the networks that differ, and for those that do not
    parts = []
    for key, rows in (("answer_mcnemar_differ", differ), ("answer_mcnemar_alike", alike)):
        if not rows.empty:
            others = [
                sentence(
                    "mcnemar_other",
                    setting=shown(row.Index),
                    first=row.only_best,
                    second=row.only_this,
                    p=p_words(row.p),
                )
                for row in rows.itertuples()
            ]
            images = int(rows.images.iloc[0])
            parts.append(sentence(key, setting=shown(frame.index[0]), others=named(others), images=images))
    return parts


def _needed(section: Section, best: str, undecided: pd.DataFrame) -> str:
    """Report how many seeds would show the smallest difference that matters, from the undecided settings.

    The range is due to the spread between seeds, which is known only roughly.
    """
    # the usual spread of the differences from the best, and the degrees of freedom that it is known with
    pairs = comparison.pairwise(section, reference=best).loc[best].loc[undecided.index]
    degrees = float(pairs.degrees.median())
    if degrees < LEAST_DEGREES:
        return sentence("answer_needed_unknown")
    deviation = math.sqrt((pairs.deviation**2).mean())

    # the seeds that it needs, if the spread is rather small or rather large
    fewest, most = (
        seeds_to_show(section.smallest, bound, pairs["share"].median(), int(pairs.pairs.iloc[0]), pairs.prior.median())
        for bound in range_of_deviation(deviation, degrees)
    )
    values = {"points": section.smallest, "fewest": fewest, "most": most}
    if fewest is None:
        return sentence("answer_needed_many", **values)
    if most is None:
        return sentence("answer_needed_least", **values)
    return sentence("answer_needed" if fewest < most else "answer_needed_exactly", **values)


def _accuracies(row: pd.Series) -> dict[str, object]:
    """Return the values of a setting that the sentences need: accuracies and number of seeds."""
    return {"val": _with_interval(row, "val_acc"), "seeds": int(row.n), "test": _with_interval(row, "test_acc")}


def _with_interval(row: pd.Series, key: str) -> str:
    """Write an accuracy with its interval, if there is one."""
    text, *brackets = comparison.with_interval(row, key).split(" [")
    return " [".join([f"{text} %", *brackets])


def _below(rows: pd.DataFrame) -> str:
    """Name settings with their differences from the best one, intervals and corrected p values."""
    texts = [
        sentence(
            "answer_difference",
            setting=shown(setting),
            points=float(row.below),
            p=p_words(row.p_holm),
            on=label("on_images") if is_on_images else "",
            low=float(row.below - row.below_ci95),
            high=float(row.below + row.below_ci95),
        )
        for (setting, row), is_on_images in zip(rows.iterrows(), _is_on_images(rows), strict=True)
    ]
    return named(texts)
