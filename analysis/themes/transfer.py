"""What pretraining is worth: training from scratch, features of a frozen network, and fine-tuning, side by side.

python -c "from analysis.frames import runs, sections; from analysis.themes import transfer; \\
    print(transfer.compare(sections.by_dataset(runs.load('runs'))[0], {}))"
"""

from collections.abc import Callable, Mapping

import pandas as pd

from analysis.frames.runs import Frames
from analysis.frames.sections import Section, best_readable
from analysis.frames.statistics import ALPHA, estimates
from analysis.page.blocks import Block, Heading, Items, Picture
from analysis.page.figures import Looks
from analysis.page.tables import SIGNIFICANT, Column, Table, p_words
from analysis.themes import clouds, comparison, embedding
from analysis.themes.embedding import Seen
from analysis.themes.speed import is_timed
from analysis.wording.texts import label, named, sentence, shown

LAYER = "penultimate"
"""The features whose separability is compared: what the last layer gets."""

WAYS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "scratch": lambda runs: ~runs.pretrained.eq(True),
    "svm": lambda runs: runs.finetune == "svm",
    "head": lambda runs: runs.finetune == "head",
    "tuned": lambda runs: (runs.finetune == "all") & (runs.augment == ""),
    "augmented": lambda runs: (runs.finetune == "all") & (runs.augment != ""),
}
"""How a network is used, by the keys of their names, and the runs that do so; each run does one of these."""

SHOWN = 8
"""So many settings, the best, are looked at; the table holds all."""

QUESTIONS = {
    "pretrained": (("svm", "head", "tuned", "augmented"), ("scratch",)),
    "tuned": (("tuned",), ("svm", "head")),
    "augmented": (("augmented",), ("tuned",)),
}
"""Between these ways the best settings are compared."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Compare the ways to use a pretrained network, where a section has any."""
    if not section.runs.pretrained.eq(True).any():
        return []
    best = best_readable(frames, section, SHOWN)[0].setting[:SHOWN]
    seen, names = embedding.see(frames, list(best.index)), way_names(section)
    seen = {run: one for run, one in seen.items() if LAYER in one.layers}
    frame = compare(section, {best[run]: one for run, one in seen.items()})
    columns = [
        Column("way", text=lambda row: label(f"way {row['way']}")), Column("setting"), Column("n", 0),
        Column("val_acc_last", 2), Column("val_acc", 2), Column("test_acc", 2), Column("probe", 1),
        Column("silhouette", 3), Column("train_seconds", SIGNIFICANT),
    ]  # fmt: skip
    columns = [column for column in columns if frame[column.key].notna().any()]
    layer = label(f"layer {LAYER}")
    notes = [sentence("transfer_note", layer=layer)]
    if same := seedless(section):
        notes.append(sentence("transfer_seedless", settings=named([names[setting] for setting in same])))
    found: list[Block] = [
        Heading(label("transfer")),
        Items(answers(section)),
        Table("transfer", sentence("transfer_title", name=section.title), frame, columns, notes),
    ]
    classes = frames.data(best.index[0])["classes"]
    if len(seen) > 1:
        title = sentence("transfer_tsne_title", layer=layer, name=section.title)
        panels: dict[int, list[str]] = {}  # settings with the same features are drawn once
        for run, one in seen.items():
            panels.setdefault(id(one.layers[LAYER]), []).append(run)
        aligned = embedding.align({runs[0]: seen[runs[0]] for runs in panels.values()})
        drawn = {"; ".join(names[best[run]] for run in runs): aligned[runs[0]] for runs in panels.values()}
        figure = clouds.side_by_side(drawn, LAYER, classes, title)
        found.append(Picture("transfer-tsne", title, figure, sentence("transfer_tsne_caption")))
    return found


def ways(section: Section) -> pd.Series:
    """Tell of each setting which of WAYS it is."""
    runs = section.runs
    found = pd.Series("", runs.index).case_when([(is_way(runs), way) for way, is_way in WAYS.items()])
    return found.groupby(runs.setting).first()


def way_names(section: Section) -> dict[str, str]:
    """Name each setting by its way, and with the setting where several are of one way."""
    found = ways(section)
    words, alone = {way: label(f"way {way}") for way in WAYS}, ~found.duplicated(keep=False)
    return {
        setting: words[way] if alone[setting] else sentence("way_of", way=words[way], setting=shown(setting))
        for setting, way in found.items()
    }


def seedless(section: Section) -> list[str]:
    """List settings of SVMs whose runs all gave one result, as where they learned from the same images."""
    svms = section.runs[WAYS["svm"](section.runs)].groupby("setting")
    results = svms[["best/val_acc", "test/acc"]].nunique().max(axis=1)
    return [setting for setting in section.ranked if setting in results.index[(results == 1) & (svms.size() > 1)]]


def compare(section: Section, seen: Mapping[str, Seen]) -> pd.DataFrame:
    """Return a row per setting, the best validation accuracy first.

    Columns: `way` (one of WAYS), `setting`, `n`; in percent with half the width of their intervals over seeds,
    `…_ci95`, the validation accuracy at the last epoch and at the best, and the test accuracy of the best; the
    separability of the features that the last layer gets (`probe` in percent, `silhouette`), for settings in `seen`;
    `train_seconds` of the runs that `speed.is_timed` names.
    """
    runs = section.runs
    measured = pd.DataFrame(
        {
            "setting": runs.setting,
            "val_acc_last": 100 * runs["last/val_acc"],
            "val_acc": 100 * runs["best/val_acc"],
            "test_acc": 100 * runs["test/acc"],
            "train_seconds": runs["train_seconds"].where(is_timed(section)),
        }
    )
    found = estimates(measured, "setting", list(measured.columns[1:]), comparison.rounding(runs))
    found["n"], found["way"] = runs.groupby("setting").size(), ways(section)
    features = {setting: one.layers[LAYER] for setting, one in seen.items()}
    found["probe"] = pd.Series({setting: 100 * one.probe.mean() for setting, one in features.items()}, dtype=float)
    found["silhouette"] = pd.Series({setting: one.silhouette for setting, one in features.items()}, dtype=float)
    return comparison.in_order(section, found).reset_index()


def answers(section: Section) -> list[str]:
    """Say whether pretraining helps, whether it must be fine-tuned, and whether with augmentation."""
    pairs, of_setting, names = comparison.pairwise(section), ways(section), way_names(section)
    said = []
    for question, asked in QUESTIONS.items():
        a, b = (next((one for one in section.ranked if of_setting[one] in some), None) for some in asked)
        if (a, b) in pairs.index:
            pair = pairs.loc[a, b]
            result = "alike" if abs(pair.difference) <= pair.half_width else "open" if pair.holm >= ALPHA else "shown"
            said.append(
                sentence(
                    f"transfer_{question}", setting=names[a], other=names[b], result=label(f"transfer {result}"),
                    difference=pair.difference, low=pair.difference - pair.half_width,
                    high=pair.difference + pair.half_width, p=p_words(pair.holm),
                )
            )  # fmt: skip
    return said or [sentence("transfer_single")]
