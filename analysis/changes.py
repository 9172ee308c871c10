"""What one change does: settings of a sweep that is no product, each compared with the one from which it differs in one
option.

python -c "from analysis import changes, runs, sections; \\
    print(changes.one_at_a_time(sections.by_dataset(runs.load('runs'))[0]))"
"""

import math
from collections.abc import Mapping

import pandas as pd

from analysis import comparison
from analysis.blocks import Block, Heading, Paragraph
from analysis.figures import Looks
from analysis.runs import Frames
from analysis.sections import Section
from analysis.statistics import ALPHA, holm
from analysis.tables import Column, Table, p_column
from analysis.wording import label, named, option_value, sentence, shown, shown_value
from study.values import pairs

MOST = 24
"""The single changes of a product of more settings are left out."""

MEASURES = {
    "val_acc": comparison.PER_RUN["val_acc"],
    "gap_last": lambda runs: 100 * (runs["last/train_acc"] - runs["last/val_acc"]),
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
    return [Heading(label("changes")), Paragraph(_answer(frame)), table]


def one_at_a_time(section: Section) -> pd.DataFrame:
    """Compare each setting with the one that it changes in one option.

    A setting of key=value pairs changes the one whose pairs it has but for one. Where there is none, it changes the
    first one before it that has another value of one option (the network apart) and itself changes none. Returns
    `setting` (what is changed), `changed` (what it becomes), `option`, `before`, `after` (empty where not said),
    the differences `val_acc_change` and `gap_last_change` in points, with half their 95 % intervals as `…_ci95` where
    both settings have several seeds, and `p_holm`, of the accuracies, corrected for the number of rows.
    """
    asked = section.points.drop_duplicates("setting").set_index("setting")
    done = set(section.runs.setting)
    if "pairs" not in section.varied:
        if section.is_search or len(section.varied) < 2 or len(asked) > MOST:
            return pd.DataFrame()
        asked = asked[asked.index.isin(done)]
    said = {setting: _options(row, section.varied) for setting, row in asked.iterrows()}
    tests = {name: comparison.pairwise(section, of) for name, of in MEASURES.items()}
    means = {name: of(section.runs).groupby(section.runs.setting).mean() for name, of in MEASURES.items()}
    rows = []
    for before, after, name in _changes(said):
        if {before, after} <= done:
            row = {"setting": before, "changed": after, "option": name}
            row |= {"before": said[before].get(name, ""), "after": said[after].get(name, "")}
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


def _options(row: pd.Series, varied: list[str]) -> dict[str, str]:
    """Return all options that a setting names, by name."""
    return {name: str(row[name]) for name in varied if name != "pairs"} | pairs(row.get("pairs", ""))


def _changes(said: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """List what is changed, what it becomes, and the option in which they differ."""
    found, based = [], set()
    for after, options in said.items():
        for before, fewer in said.items():
            if len(fewer) == len(options) - 1 and fewer.items() <= options.items():
                (name,) = options.keys() - fewer.keys()
                found.append((before, after, name))
                based.add(after)
    for place, (after, options) in enumerate(said.items()):
        for before in [] if after in based else list(said)[:place]:
            differing = [name for name in options if said[before].get(name) != options[name]]
            if said[before].keys() == options.keys() and len(differing) == 1 and differing[0] != "model":
                if before not in based:
                    found.append((before, after, differing[0]))
                break
    order = list(said)
    return sorted(found, key=lambda change: (order.index(change[0]), order.index(change[1])))


def _change(row: Mapping[str, str]) -> str:
    name = row["option"]
    after = option_value(name, row["after"])
    return f"{after} ({sentence('instead', value=shown_value(row['before'], name))})" if row["before"] else after


def _answer(frame: pd.DataFrame) -> str:
    """Say which changes help, which harm, and how many can be noise."""
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
            said.append(sentence(f"changes_{key}", changes=named(texts)))
    rest = len(tested) - len(shown_ones)
    if rest:
        said.append(sentence("changes_noise" if rest < len(tested) else "changes_none", n=rest, all=len(tested)))
    return " ".join(said)
