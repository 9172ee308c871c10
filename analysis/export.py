"""Copy the results of runs without their large files, to keep them in a repository or to hand them on.

    python -m analysis.export runs docs/study
    python -m analysis.export runs copies --features 500     # with what a t-SNE needs, up to some MB a run

A copy is a run directory that `python -m analysis.summarize` reads, and that a sweep counts as trained. It holds
`run.json`, `history.jsonl`, `summary.json` and, of `evaluation.npz`, the class and the prediction of each test image:
some 20 kB for 10,000 test images. It lacks the weights, the pictures of mistakes and, without `--features`, the
features, so a report of copies has no pictures of mistakes and no t-SNE. Names of folders are left out too: they mean
nothing on another machine.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.config import Config
from study.config.checks import user_path
from study.config.setting import read_pairs, written
from study.record.directory import DONE, CorruptRun, RunDirectory, make
from study.system.errors import UserError, printable
from study.system.process import Parser, run_command

KEPT = ("class_names", "test_targets", "test_predictions")
"""What is kept of evaluation.npz."""

FEATURES = ("feature_index", "feature_targets", "logits", "penultimate", "intermediate")
"""What is kept of it for a t-SNE: of each image a number, the class and the outputs of layers that were recorded."""


def export(run: RunDirectory, folder: Path, features: int = 0) -> RunDirectory:
    """Copy a run that has a result into a folder, without what is large; a copy that is there is replaced.

    The layer outputs of at most `features` validation images are kept, as many of each class as there are.
    """
    import numpy as np

    copy = RunDirectory(folder / run.path.name)
    make(copy.path, "folder")
    copy.write_history(run.history())
    copy.write_summary(run.summary())
    if run.has_evaluation():
        arrays = run.evaluation()
        classes = len(arrays["class_names"])
        labels = {name: arrays[name].astype(np.min_scalar_type(classes)) for name in KEPT[1:]}
        copy.write_evaluation({"class_names": arrays["class_names"], **labels, **_features(arrays, features)})
    copy.write_info(_without_folders(run.info()))  # last, since it says that the run has a result
    return copy


def _features(arrays: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Choose the FEATURES of at most `count` images, one of each class in turn; empty if none were recorded."""
    import pandas as pd

    if not count or "feature_targets" not in arrays:
        return {}
    targets = pd.Series(arrays["feature_targets"])
    turns = targets.groupby(targets).cumcount()
    chosen = turns.sort_values(kind="stable").index[:count].sort_values()
    return {name: arrays[name][chosen] for name in FEATURES if name in arrays}


def _without_folders(info: dict[str, Any]) -> dict[str, Any]:
    """Return a run's description with default folders, and only the name of the weights file."""
    config = info["config"] | {name: Config.model_fields[name].default for name in ("data_dir", "runs_dir")}
    if not config.get("weights"):
        return info | {"config": config}
    name = Path(config["weights"]).name
    pairs = read_pairs(config["setting"])
    setting = written(pairs | {"weights": name}) if "weights" in pairs else config["setting"]
    pretrained = info["pretrained"] | {"source": name}
    return info | {"config": config | {"weights": name, "setting": setting}, "pretrained": pretrained}


def _is_there(run: RunDirectory, folder: Path, with_features: bool) -> bool:
    """Return whether a folder has a copy of a run, with its features if they are wanted and the run has any."""
    copy = RunDirectory(folder / run.path.name)
    lacks = with_features and run.has_evaluation("feature_targets") and not copy.has_evaluation("feature_targets")
    return copy.state() in DONE and not lacks


def main(argv: list[str]) -> int:
    """Copy all runs of a directory that have a result and are not in the folder yet, or lack features there."""
    parser = Parser(
        "python -m analysis.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=user_path, help="directory of runs")
    parser.add_argument("folder", type=user_path, help="where the copies go")
    parser.add_argument(
        "--features", type=int, default=0, metavar="N", help="keep the features of N validation images, for a t-SNE"
    )
    args = parser.parse_args(argv)
    if args.features < 0:
        raise UserError(f"--features is a number of images, 0 or more, not {args.features}")
    if not Path(args.runs).is_dir():
        raise UserError(f"there is no directory {args.runs}; name the one that --runs-dir named when training")
    folders = [path for path in sorted(Path(args.runs).iterdir()) if path.is_dir() and path.name != "wandb"]
    done = [run for run in map(RunDirectory, folders) if run.state() in DONE]
    new = [run for run in done if not _is_there(run, Path(args.folder), args.features > 0)]
    problems = []
    for run in new:
        try:
            export(run, Path(args.folder), args.features)
        except CorruptRun as error:
            problems.append(f"{run.path} is left out: {error}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{run.path} is left out: its run.json or evaluation.npz is invalid ({error!r})")
        except OSError as error:
            raise UserError(f"{args.folder} cannot be written: {error.strerror}") from None
    print(f"{printable(args.folder)}: {len(new) - len(problems)} runs copied, {len(done) - len(new)} were there")
    if problems:
        raise UserError("; ".join(problems))
    return 0


if __name__ == "__main__":
    run_command(main)
