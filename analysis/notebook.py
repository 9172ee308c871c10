"""The comparison and single figures of a section, for a notebook; the report has the same with all others.

    python -c "from analysis import curves, load, sections; \\
        curves(sections(load('runs'))[0]).savefig('curves.png')"
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.frames import contrasts, runs
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, best_with_features
from analysis.page import figures, tables
from analysis.reporting import looks_of
from analysis.themes import clouds, embedding
from analysis.themes import confusion as confusions
from analysis.wording.texts import text
from study.system.errors import UserError, expect


def load(source: str | Path | Sequence[str | Path] = "runs", refresh: bool = False) -> Frames:
    """Read all runs in a directory, or of a project ENTITY/PROJECT or a sweep ENTITY/PROJECT/SWEEP_ID in W&B.

    Of several sources, the runs of all, with the `source` of each; a run that several have counts once. Runs that
    cannot be read are named in `.problems`. Runs pulled from W&B before are pulled again only if they have changed, or
    with `refresh`. Raises UserError if there is no such source, or no run in it.
    """
    right = "load takes the directory of runs, a project of W&B, or a list of them"
    expect(source, str | Path | Sequence, right)
    frames = runs.load(source if isinstance(source, str | Path) else list(map(str, source)), refresh)
    if frames.runs.empty and not frames.problems:
        raise UserError(f"{source} holds no run; train one, or name the directory or project that holds some")
    return frames


def compare(section: Section) -> pd.DataFrame:
    """Return one row per setting, the best first: means, intervals, and differences from the best setting.

    Columns: `setting`, the values of the varied options, `n` (seeds with a result) of `asked`; in percent, `val_acc` at
    the best epoch and `test_acc` of the same weights, each with half the width of its interval over seeds as `…_ci95`;
    where settings are ranked by another metric, that instead, such as `val_macro_f1` and `test_macro_f1`, or
    `val_likelihood` for a loss; `best_epoch`; `below`, the difference from the best setting in points, with
    `below_ci95`, `p` and `p_holm` (corrected for all pairs), and `tied`, whether the setting is not shown to be worse;
    `test_below`, `test_below_ci95` and `p_test` are the same for the test images.
    """
    _check(section)
    return tables.by_metric(contrasts.compare(section), section.metric)


def curves(section: Section) -> Figure:
    """Draw loss and accuracy over the epochs, in training and validation: a line per setting, the mean of its seeds."""
    _check(section)
    if section.runs.empty:
        raise UserError(f"none of the runs of {section.name} has a result yet")
    return figures.learning_curves(section.history, section.title, looks_of([section])[0])


def confusion(frames: Frames, section: Section, *, shares: bool = False) -> Figure:
    """Draw the confusion matrix of the best setting on the test images, summed over its seeds.

    Numbers are counts of images or, with `shares`, percentages of each true class.
    """
    _check(section, frames)
    found = confusions.of_best(frames, section)
    if found is None:
        raise UserError(f"no run of {section.name} has predictions that can be read")
    run, counts, repeats = found
    title = confusions.matrix_title(run, repeats, shares)
    return confusions.matrix_figure(counts, title, normalised=shares)


def tsne(frames: Frames, section: Section, *, settings: int = 2) -> Figure:
    """Draw t-SNE embeddings of validation images in each layer, for the best run of each of the best `settings`.

    Each panel has how well its layer separates the classes: by k nearest neighbours, by a linear probe, silhouette.
    """
    _check(section, frames)
    if settings < 1:
        raise UserError(f"settings must be at least 1, not {settings}")
    best = best_with_features(frames, section, settings)
    seen = embedding.align(embedding.see(frames, list(best.index[:settings])))
    if not seen:
        why = "features that can be read; copies lack them" if best.empty else "enough validation images for t-SNE"
        raise UserError(f"no run of {section.name} has {why}")
    words = confusions.words_of(best.iloc[0])
    rows = {str(best.setting[run]): layers for run, layers in seen.items()}
    title = text("t-SNE of the layers: validation images of {dataset}", **words)
    return clouds.tsne_figure(rows, frames.data(best.index[0])["classes"], title)


def _check(section: object, frames: Frames | None = None) -> None:
    """Raise UserError for anything but a section, such as the list of them, and for anything but frames."""
    expect(section, Section, "this takes one section, such as sections(load('runs'))[0]")
    if frames is not None:
        expect(frames, Frames, "this takes what load returned, and one section")
