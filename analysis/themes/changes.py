"""What one change does: settings that differ in one option, of a sweep of key=value pairs or of a small product.

python -c "from analysis.themes import changes; from analysis.frames import runs, sections; \\
    print(changes.one_at_a_time(sections.by_dataset(runs.load('runs'))[0]))"
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.frames.runs import Frames
from analysis.frames.sections import Section
from analysis.frames.statistics import ALPHA, holm
from analysis.page.blocks import Block, Heading, Paragraph
from analysis.page.figures import Looks
from analysis.page.tables import Column, Table, p_column
from analysis.themes import comparison, effects
from analysis.themes.effects import ordered
from analysis.wording.texts import label, named, option_value, sentence, shown, shown_value
from study.config.checks import pairs

MOST = 24
"""The single changes of a product are left out if they, or its settings, are more."""

MEASURES = {
    "val_acc": comparison.PER_RUN["val_acc"],
    "gap_last": comparison.gap_last,
}


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show what each single change does, where a sweep's settings are such changes or a small product of options."""
    frame = one_at_a_time(section)
    if frame.empty:
        return []
    columns = [
        Column("setting"), Column("option", header=label("change"), text=_change), Column("val_acc_change", 2),
        p_column("p_holm", "changes_p"),
        Column("gap_last_change", 2),
    ]  # fmt: skip
    tested = frame.p_holm.notna().any()
    columns = [column for column in columns if tested or column.key != "p_holm"]
    notes = [sentence("changes_note"), *([sentence("changes_tests")] if tested else [])]
    table = Table("changes", sentence("changes_title", name=section.title), frame, columns, notes)
    averaged = (effects.measure(section).settings > 1).any()
    return [Heading(label("changes")), Paragraph(_answer(frame, averaged)), table]


def one_at_a_time(section: Section) -> pd.DataFrame:
    """Compare settings that differ in one option, the network apart.

    Of the values of an option in a product, each is compared with all that come before it. A setting of key=value pairs
    changes the one whose pairs it has but for one; where there is none, the first one before it that has another value
    of one option (the network apart) and itself changes none. Returns `setting` (what is changed), `changed` (what it
    becomes), `option`, `before`, `after` (empty where not said), the differences `val_acc_change` and `gap_last_change`
    in points, with half their 95 % intervals as `…_ci95` where both settings have several seeds, and `p_holm`, of the
    accuracies, corrected for the number of rows.
    """
    is_product = "pairs" not in section.varied
    if is_product and (section.is_search or len(section.varied) < 2 or section.points.setting.nunique() > MOST):
        return pd.DataFrame()
    changes = _changes(section)
    if is_product and len(changes) > MOST:
        return pd.DataFrame()
    tests = {name: comparison.pairwise(section, of) for name, of in MEASURES.items()}
    means = {name: of(section.runs).groupby(section.runs.setting).mean() for name, of in MEASURES.items()}
    rows = []
    for before, after, name, old, new in changes:
        row = {"setting": before, "changed": after, "option": name, "before": old, "after": new}
        for what, test in tests.items():
            pair = test.loc[after, before] if (after, before) in test.index else None
            row[f"{what}_change"] = means[what][after] - means[what][before]
            row[f"{what}_change_ci95"] = math.nan if pair is None else pair.half_width
            row["p" if what == "val_acc" else "gap_p"] = math.nan if pair is None else pair.p
        rows.append(row)
    frame = pd.DataFrame(rows)
    if rows:
        tested = frame.p.notna()
        frame["p_holm"] = frame.p.where(tested)
        frame.loc[tested, "p_holm"] = holm(frame.p[tested])
        frame = frame.drop(columns=["p", "gap_p"])
    return frame


def _changes(section: Section) -> list[tuple[str, str, str, str, str]]:
    """List what is changed, what it becomes, the option in which they differ, and its value before and after.

    Both settings have a result.
    """
    asked = section.points.drop_duplicates("setting").set_index("setting")[section.varied]
    steps = {
        name: {(old, new): (name, str(old), str(new)) for old, new in itertools.combinations(ordered(values), 2)}
        for name, values in asked.items() if name != "model"
    }  # fmt: skip
    if "pairs" in asked:
        steps["pairs"] = _changes_of_pairs(asked["pairs"].unique())
    done = asked[asked.index.isin(section.runs.setting)].to_dict("index")
    found = []
    for before, after in itertools.permutations(done, 2):
        differing = [name for name in section.varied if done[before][name] != done[after][name]]
        values = tuple(done[setting][differing[0]] for setting in (before, after)) if len(differing) == 1 else ()
        if step := values and steps.get(differing[0], {}).get(values):
            found.append((before, after, *step))
    return found


def _changes_of_pairs(texts: Sequence[str]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Map key=value pairs that are changed, and what they become, to the option, its value before and that after."""
    said = {text: pairs(text) for text in texts}
    found = {}
    for after, options in said.items():
        for before, fewer in said.items():
            if len(fewer) == len(options) - 1 and fewer.items() <= options.items():
                (name,) = options.keys() - fewer.keys()
                found[before, after] = name, "", options[name]
    based = {after for _, after in found}
    for place, (after, options) in enumerate(said.items()):
        for before in [] if after in based else list(said)[:place]:
            differing = [name for name in options if said[before].get(name) != options[name]]
            if said[before].keys() == options.keys() and len(differing) == 1 and differing[0] != "model":
                if before not in based:
                    found[before, after] = differing[0], said[before][differing[0]], options[differing[0]]
                break
    return found


def _change(row: Mapping[str, str]) -> str:
    name = row["option"]
    after = option_value(name, row["after"])
    return f"{after} ({sentence('instead', value=shown_value(row['before'], name))})" if row["before"] else after


def _answer(frame: pd.DataFrame, averaged: bool) -> str:
    """Say which changes help, which harm, how many can be noise, and that averages are said elsewhere."""
    if frame.p_holm.isna().all():
        return sentence("changes_single")
    said, tested = [], frame[frame.p_holm.notna()]
    shown_ones = tested[tested.p_holm < ALPHA]
    for key, rows in (("helps", shown_ones[shown_ones.val_acc_change > 0]),
                      ("harms", shown_ones[shown_ones.val_acc_change < 0])):  # fmt: skip
        if not rows.empty:
            texts = [
                sentence("changes_one", setting=shown(row["setting"]), change=_change(row),
                         points=row["val_acc_change"], spread=row["val_acc_change_ci95"])
                for row in rows.to_dict("records")
            ]  # fmt: skip
            said.append(sentence(f"changes_{key}", count=len(texts), changes=named(texts)))
    rest = len(tested) - len(shown_ones)
    if rest:
        said.append(sentence("changes_noise" if rest < len(tested) else "changes_none", n=rest, all=len(tested)))
        said += [sentence("changes_averaged")] if averaged else []
    return " ".join(said)
