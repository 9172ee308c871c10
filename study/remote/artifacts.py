"""Files of a run in W&B: its evaluation, and if `--wandb-extras` names them its best weights, checkpoint and code.

artifacts.send_model(run, directory, print)
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from study.config import Config
from study.record.directory import RunDirectory, make
from study.remote import contents
from study.system.errors import one_line
from study.system.progress import Say

LARGEST_MB = 500
"""Size of the largest file of weights that is sent."""

LONGEST_NAME = 128
"""Most characters that W&B allows in the name of a group or an artifact."""

CHECKPOINT = ("run.json", "last.pt")
"""What another machine needs to resume a run."""


def artifact_name(run_id: str, kind: str = "evaluation") -> str:
    """Return a unique name for an artifact of a run that W&B accepts: ASCII, at most 128 characters."""
    name = f"{kind}-" + re.sub(r"[^A-Za-z0-9_.-]", "-", run_id)
    digest = hashlib.sha256(run_id.encode("utf-8", "backslashreplace")).hexdigest()[:10]
    is_kept = name == f"{kind}-{run_id}" or run_id.isascii()
    return name if is_kept and len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 11]}-{digest}"


def send_evaluation(run: Any, directory: RunDirectory) -> None:
    """Send evaluation.npz."""
    run.log_artifact(_artifact(run, directory, "evaluation", ["evaluation.npz"]))


def send_model(run: Any, directory: RunDirectory, say: Say) -> None:
    """Send the best weights, with the run.json that `study.predict` needs beside them, unless they are too large."""
    if _is_too_large(directory.path / "best.pt", say):
        return
    summary = directory.summary()
    metadata = {name: summary[name] for name in ("best/val_acc", "best/epoch", "test/acc", "params") if name in summary}
    artifact = _artifact(run, directory, "model", ["best.pt", "run.json"], metadata)
    run.log_artifact(artifact, aliases=["best", "latest"])


def send_checkpoint(run: Any, directory: RunDirectory, say: Say) -> None:
    """Send the checkpoint of a run that another machine may resume, unless it is too large."""
    if (directory.path / "last.pt").exists() and not _is_too_large(directory.path / "last.pt", say):
        run.log_artifact(_artifact(run, directory, "checkpoint", CHECKPOINT))


def fetch_checkpoint(directory: RunDirectory, config: Config, place: str, run_id: str, say: Say) -> None:
    """Make the directory of a run from the checkpoint that it has in W&B, if any, in the project `place`.

    If that fails, print why: the run then starts again.
    """
    make(directory.path.parent)
    folder = Path(tempfile.mkdtemp(dir=directory.path.parent, prefix=".checkpoint-"))
    try:
        contents.download(contents.of_run(place, run_id), "checkpoint", folder)
        fetched = RunDirectory(folder)
        if all((folder / name).exists() for name in CHECKPOINT):
            if fetched.info().get("fingerprint") != config.fingerprint:
                raise ValueError("it is that of another config")
            folder.rename(directory.path)
            say(f"{directory.path}: continues from its checkpoint in W&B")
    except Exception as error:
        say(f"no checkpoint could be read from W&B ({one_line(error)}): training starts again")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def send_code(run: Any, say: Say) -> None:
    """Send the code of this package; runs with the same code share a version of it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"code-{run.project}")[:LONGEST_NAME]
    try:
        run.log_code(str(Path(__file__).parents[1]), name=name, include_fn=lambda path: path.endswith(".py"))
    except Exception as error:
        say(f"W&B does not get the code ({one_line(error)})")


def _artifact(
    run: Any, directory: RunDirectory, kind: str, names: Sequence[str], metadata: dict[str, Any] | None = None
) -> wandb.Artifact:
    """Return an artifact of some files of a run."""
    artifact = wandb.Artifact(artifact_name(run.id, kind), type=kind, metadata=metadata)
    for name in names:
        artifact.add_file(str(directory.path / name))
    return artifact


def _is_too_large(path: Path, say: Say) -> bool:
    """Return whether a file is too large to be sent, and print that."""
    size = path.stat().st_size / 1e6
    if size > LARGEST_MB:
        say(f"W&B does not get {path}: it has {size:,.0f} MB, and at most {LARGEST_MB} MB are sent")
    return size > LARGEST_MB
