"""The answer of a section in words: which setting is best, by how much, and what is no more than noise.

    python -c "from analysis.frames import runs, sections; from analysis.themes import answers; \\
        frames = runs.load('runs'); print(*answers.sentences(frames, sections.by_dataset(frames)[0]), sep='\\n')"

Nothing is claimed that the repeats do not carry. Differences between settings need two seeds of each. One is shown
where p, corrected for all pairs of the section, is below 5 %; it can be noise where its own interval contains 0.
"""

import math

import pandas as pd

from analysis.frames.runs import Frames
from analysis.frames.sections import Section
from analysis.frames.statistics import ALPHA, seeds_to_show
from analysis.page.blocks import Block, Heading, Items
from analysis.page.figures import Looks
from analysis.page.tables import p_words
from analysis.themes import comparison, effects
from analysis.wording.texts import NAMED, label, named, number, sentence, shown

OVERFITTING = {
    "gap_last": (comparison.gap_last, "val"),
    "val_loss_last": (lambda runs: runs["last/val_loss"], None),
}
"""What tells overfitting, of each run, and the split whose images it is measured in."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Say which setting is best, and what the options do."""
    return [Heading(label("answer")), Items([*sentences(frames, section), *effects.answer(section)])]


def sentences(frames: Frames, section: Section) -> list[str]:
    """Answer in sentences, the most important first."""
    frame = comparison.compare(section)
    frame = frame[frame.n > 0].set_index("setting")
    if len(frame) == 1:
        said = [_alone(frame.iloc[0])]
    elif (frame.n > 1).sum() > 1:
        said = _several(section, frame)
    else:
        advice = sentence("answer_seeds_search" if section.is_search else "answer_seeds")
        said = [_ahead(frame), *_networks(frames, section, frame), advice]
    diverged = section.points.setting[section.points.state == "diverged"].value_counts()
    without = [shown(setting) for setting in dict.fromkeys(section.points.setting) if setting not in frame.index]
    if without:
        key = "answer_without" if len(without) <= NAMED else "table_without"
        said[0] += " " + sentence(key, count=len(without), settings=named(without))
    for setting in dict.fromkeys([frame.index[0], comparison.reference(frame)]):
        if setting in diverged:
            counts = {"count": int(diverged[setting]), "all": int(frame.asked[setting])}
            said[0] += " " + sentence("answer_diverged", setting=shown(setting), **counts)
    return said


def headline(frames: Frames, section: Section) -> str:
    """Answer in one sentence."""
    return sentences(frames, section)[0]


def _alone(row: pd.Series) -> str:
    return sentence("answer_alone", setting=shown(row.name), **_accuracies(row))


def _several(section: Section, frame: pd.DataFrame) -> list[str]:
    """Compare settings that have several seeds with the best of them."""
    best = comparison.reference(frame)
    others = frame[frame.p_holm.notna()]
    worse, open_ones = others[others.p_holm < ALPHA], others[others.p_holm >= ALPHA]
    likely, alike = open_ones[~open_ones.tied], open_ones[open_ones.tied]
    scope = label("highest several") if frame.n.iloc[0] == 1 else label("highest")
    values = {"setting": shown(best), "highest": scope, **_accuracies(frame.loc[best])}
    if len(worse) == len(others):
        said = [sentence("answer_best", others=_below(worse), **values)]
    elif len(alike) == len(others):
        said = [sentence("answer_noise", n=len(others), **values)]
    else:
        counts = {"worse": len(worse), "likely": len(likely), "alike": len(alike)}
        told = named([sentence(f"answer_{kind}_count", n=count) for kind, count in counts.items() if count])
        said = [sentence("answer_counts", n=len(others), told=told, **values)]
    pairs = (len(others) + 1) * len(others) // 2
    kinds = {"worse": worse if len(worse) < len(others) else worse[:0], "likely": likely, "alike": alike}
    said += [
        sentence(f"answer_{kind}", others=_below(rows), pairs=pairs, **values) for kind, rows in kinds.items()
        if len(rows)
    ]  # fmt: skip
    said += [*_overfitting(section, best, open_ones.index), _tested(section, best, values)]
    if len(open_ones):
        said.append(_needed(section, best, open_ones))
    single = frame[frame.n == 1]
    if not single.empty:
        said.append(sentence("answer_single", settings=named([shown(setting) for setting in single.index])))
    return said


def _overfitting(section: Section, best: str, settings: pd.Index) -> list[str]:
    """Say which settings, not told apart from the best by their accuracy, overfit less or more than it."""
    said = []
    for name, (of, split) in OVERFITTING.items():
        pairs = comparison.pairwise(section, of, split)
        # a run may lack one of these numbers
        found = pairs.loc[[pair for setting in settings if (pair := (setting, best)) in pairs.index]]
        found = found[found.holm < ALPHA].droplevel("b")
        for kind, rows in (("less", found[found.difference < 0]), ("more", found[found.difference > 0])):
            texts = [
                sentence(f"{name}_difference", setting=shown(row.Index), size=abs(row.difference),
                         spread=row.half_width, p=p_words(row.holm))
                for row in rows.itertuples()
            ]  # fmt: skip
            if texts:
                said.append(sentence(f"{name}_{kind}", setting=shown(best), others=named(texts)))
    return said


def _tested(section: Section, best: str, values: dict[str, object]) -> str:
    """Say what the best setting reaches on the test images, and which one is above it there."""
    said = sentence("answer_test", **values)
    pairs = comparison.pairwise(section, comparison.PER_RUN["test_acc"], "test").xs(best, level="b")
    other = pairs.loc[pairs.difference.idxmax()]
    if other.difference > 0:
        low, high = other.difference - other.half_width, other.difference + other.half_width
        values = {"other": shown(other.name), "points": other.difference, "low": low, "high": high}
        said += " " + sentence("answer_test_other", **values)
    return said


def _ahead(frame: pd.DataFrame) -> str:
    """Say which setting is ahead where seeds do not allow a comparison."""
    first, second = frame.index[:2]
    points = float(frame.val_acc[first] - frame.val_acc[second])
    key = "answer_ahead_mixed" if frame.n.max() > 1 else "answer_ahead" if points > 0 else "answer_level"
    level = [shown(setting) for setting in frame.index[frame.val_acc == frame.val_acc[first]]]
    return sentence(
        key, setting=shown(first), settings=named(level), count=len(level), other=shown(second), points=points,
        **_accuracies(frame.loc[first]),
    )  # fmt: skip


def _networks(frames: Frames, section: Section, frame: pd.DataFrame) -> list[str]:
    """Compare the trained networks themselves, on the test images."""
    found = comparison.with_best(frames, section, frame.reset_index())
    if found.empty:
        return []
    differ, alike = found[found.p < ALPHA], found[found.p >= ALPHA]
    said = []
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
            said.append(sentence(key, setting=shown(frame.index[0]), others=named(others), images=images))
    return said


def _needed(section: Section, best: str, open_ones: pd.DataFrame) -> str:
    """Say how many seeds would show the widest difference that is open, if it is what it seems.

    Its deviation is that of all pairs, since that of a few seeds of one pair says little, and is small by luck in some.
    """
    pairs, had = comparison.pairwise(section), section.runs.setting.value_counts()
    widest = open_ones.below.idxmax()
    pair, fewest = pairs.loc[best, widest], min(had[best], had[widest])
    deviation = max(pair.deviation, math.sqrt((pairs.deviation**2).mean()))
    seeds = seeds_to_show(pair.difference, deviation, pair.share, len(pairs) // 2, fewest)
    if seeds is None:
        return sentence("answer_needed_many")
    points = float(open_ones.below[widest])
    return sentence("answer_needed", seeds=seeds, other=shown(widest), points=points, setting=shown(best))


def _accuracies(row: pd.Series) -> dict[str, object]:
    return {"val": _with_interval(row, "val_acc"), "seeds": int(row.n), "test": _with_interval(row, "test_acc")}


def _with_interval(row: pd.Series, key: str) -> str:
    """Write an accuracy with what is known of its spread."""
    text = f"{number(row[key], '.2f')} %"
    if row.n > 1:
        return f"{number(row[key], '.2f')} ± {number(row[f'{key}_ci95'], '.2f')} %"
    if key == "test_acc":
        low, high = number(row.test_acc_low, ".2f"), number(row.test_acc_high, ".2f")
        return f"{text} [{low}{label('between')} {high}]"
    return text


def _below(rows: pd.DataFrame) -> str:
    """List settings with their differences from the best one, intervals and corrected p."""
    texts = [
        sentence(
            "answer_difference", setting=shown(setting), points=float(row.below), p=p_words(row.p_holm),
            low=float(row.below - row.below_ci95), high=float(row.below + row.below_ci95),
        )
        for setting, row in rows.iterrows()
    ]  # fmt: skip
    return named(texts)
