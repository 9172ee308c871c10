"""A run in W&B: the same config, rows and summary as in its directory, and what its page shows at the end.

Online where there is a key, else offline, and never a prompt.
"""

import hashlib
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from study.config import Config
from study.record.directory import RunDirectory, Say, finite
from study.remote.api import ask, check_settings, handed_out, has_key, is_missing, state_of, trouble, unless_set
from study.system.errors import UserError, one_line

PATIENCE = {"init_timeout": 30, "finish_timeout": 120}
"""Seconds; WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT say otherwise."""

SWEEP_PATIENCE = 120
"""Seconds for the same of a run that W&B itself has handed out: it cannot go on offline."""

LONGEST_TAG, LONGEST_NAME = 64, 128
"""Characters that W&B allows in a tag, and in the name of a group or an artifact."""

MOST_CELLS = 10_000
"""Rows of a table that W&B keeps: of a larger confusion matrix it gets the most frequent cells."""

CONFUSION = "test/confusion"
"""The chart of the confusion matrix; its table stands in the summary as `test/confusion_table`."""

QUIET = 5
"""Seconds after which one is told that W&B is waited for."""


class WandbRun:
    """One run in W&B; if it goes on, rows that are there are not sent again.

    `place` says where it is or was to be: entity, project and sweep. A run that an agent has handed out is where the
    agent says. `went_offline` says why the run is recorded offline though it was to be online.
    """

    def __init__(
        self, directory: RunDirectory, config: Config, run_id: str, say: Say, goes_on: bool,
        place: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self.directory, self.run_id, self.went_offline = directory, handed_out() or run_id, ""
        self.place = place if place and not handed_out() else place_of(config)
        # the log of an earlier start of this run holds nothing that is not sent again
        for name in (self.run_id, directory.path.name):
            for log in directory.offline_logs(name):
                shutil.rmtree(log, ignore_errors=True)
        chosen = mode(config)
        waiting = threading.Timer(QUIET, say, ["W&B has not answered yet; the run will continue without it"])
        waiting.daemon = True
        waiting.start()
        try:
            self.run = self._init(config, chosen)
        except wandb.Error as error:
            if chosen != "online" or handed_out():
                raise
            self.went_offline = trouble(error)
            say(f"{self.went_offline}; the run is recorded offline")
            chosen = os.environ["WANDB_MODE"] = "offline"  # this process's next runs need not wait for nothing
            self.run_id += "-offline"  # the client holds on to the id that it failed to start
            self.run = self._init(config, chosen)
        finally:
            waiting.cancel()
        self.run_id = self.run.id
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")
        self.logged = epochs_of(self.run.summary) if chosen == "online" and goes_on else 0
        if chosen == "online":
            self.place = {**self.place, "entity": self.run.entity, "project": self.run.project}
            say(f"W&B: {self.run.url}")

    def _init(self, config: Config, chosen: str):
        patience = PATIENCE | ({"init_timeout": SWEEP_PATIENCE} if handed_out() else {})
        settings = unless_set({**patience, "sweep_id": self.place["sweep"]})
        folder = _files(self.directory.path.parent, chosen)
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "wandb"))
        return wandb.init(
            id=self.run_id,
            entity=self.place["entity"],
            project=self.place["project"],
            name=os.environ.get("WANDB_NAME") or self.directory.path.name,
            group=os.environ.get("WANDB_RUN_GROUP") or _group(config),
            job_type=os.environ.get("WANDB_JOB_TYPE") or "train",
            tags=[tag.strip()[:LONGEST_TAG] for tag in config.tags.split(",") if tag.strip()] or None,
            notes=config.notes or None,
            config={**config.model_dump(), "fingerprint": config.fingerprint, "info": self._info()},
            dir=folder,
            mode=chosen,
            resume="allow" if chosen == "online" else None,
            settings=wandb.Settings(silent=True, disable_code=True, **settings),
        )

    def _info(self) -> dict[str, Any]:
        """Return what run.json says beside the config: with it a run in W&B is as complete as its directory."""
        return {name: value for name, value in self.directory.info().items() if name != "config"}

    def log(self, row: Mapping[str, Any]) -> None:
        """Send the row of one epoch."""
        if row["epoch"] > self.logged:
            self.run.log(dict(row))

    def finish(self, code: int, summary: Mapping[str, Any]) -> list[str]:
        """Send the summary and, where the run has an evaluation, its charts and that file; then end the run.

        Returns a few words for each of these that could not be sent: the summary goes first, and the run ends in any
        case. A sweep's run that is ended by SIGINT goes back into W&B's queue. SIGTERM does not do that, since it is
        how a run learns that it has been stopped in W&B.
        """
        lost = []
        try:
            self.run.config.update({"info": self._info()}, allow_val_change=True)
            self.run.summary.update(finite(summary))
            if code == 0 and (self.directory.path / "evaluation.npz").exists():
                for what, send in (("charts", self._send_charts), ("evaluation.npz", self._send_file)):
                    try:
                        send(summary["last/epoch"])
                    except Exception as error:
                        lost.append(f"{what} ({one_line(error)})")
        finally:
            if code == 128 + signal.SIGINT and "WANDB_SWEEP_ID" in os.environ:
                self.run.mark_preempting()
            self.run.finish(exit_code=code)
        return lost

    def _send_charts(self, epoch: int) -> None:
        """Send the confusion matrix of the test images and the accuracy of each class that has any."""
        arrays = self.directory.evaluation()
        names, targets = arrays["class_names"].tolist(), arrays["test_targets"]
        counts = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(counts, (targets, arrays["test_predictions"]), 1)
        cells = np.argsort(-counts, axis=None, kind="stable")[:MOST_CELLS]
        cells = [divmod(int(cell), len(names)) for cell in np.sort(cells)]
        matrix = [[names[target], names[taken], int(counts[target, taken])] for target, taken in cells]
        images = counts.sum(axis=1)
        accuracies = [[name, float(counts[k, k] / images[k])] for k, name in enumerate(names) if images[k]]
        columns = ["Actual", "Predicted", "nPredictions"]
        self.run.log(
            {
                "epoch": epoch,
                CONFUSION: wandb.plot_table(
                    "wandb/confusion_matrix/v1", wandb.Table(columns, matrix), {name: name for name in columns},
                    {"title": "Test images"},
                ),
                "test/per_class": wandb.plot.bar(
                    wandb.Table(["class", "accuracy"], accuracies), "class", "accuracy", title="Test accuracy by class"
                ),
            }
        )  # fmt: skip

    def _send_file(self, epoch: int) -> None:
        """Send evaluation.npz as an artifact."""
        artifact = wandb.Artifact(artifact_name(self.run_id), type="evaluation")
        artifact.add_file(str(self.directory.path / "evaluation.npz"))
        self.run.log_artifact(artifact)


def artifact_name(run_id: str) -> str:
    """Name the artifact of a run in what W&B allows: ASCII, at most 128 characters, and one name for each run."""
    name = "evaluation-" + re.sub(r"[^A-Za-z0-9_.-]", "-", run_id)
    digest = hashlib.sha256(run_id.encode("utf-8", "backslashreplace")).hexdigest()[:10]
    is_kept = name == f"evaluation-{run_id}" or run_id.isascii()
    return name if is_kept and len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 11]}-{digest}"


def place_of(config: Config) -> dict[str, str | None]:
    """Say where in W&B a run is to be: as its options say, else the environment, which is where an agent says it."""
    entity, project = os.environ.get("WANDB_ENTITY"), os.environ.get("WANDB_PROJECT")
    if not handed_out():
        entity = config.entity or entity
        project = project if project and config.project == Config().project else config.project
    return {"entity": entity or None, "project": project, "sweep": handed_out() and os.environ["WANDB_SWEEP_ID"]}


def epochs_of(summary: Mapping[str, Any]) -> int:
    """Tell how many epochs of a run W&B has, by its summary of the run."""
    return max(summary.get("epoch") or 0, summary.get("last/epoch") or 0)


def replay(directory: RunDirectory, config: Config, say: Say) -> None:
    """Send a run that has a result to W&B from its directory, which is only read; UserError where W&B fails."""
    info = directory.info()
    try:
        run = WandbRun(directory, config, info["wandb_id"], say, goes_on=True, place=info.get("wandb"))
        for row in directory.history():
            run.log(row)
        lost = run.finish(0, {**directory.summary(), "state": info["state"]})
        if lost:
            raise UserError(f"{directory.path} is sent without {' and '.join(lost)}; the same command sends them")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{directory.path} cannot be sent; {trouble(error)}") from None


def is_whole(directory: RunDirectory, config: Config) -> bool:
    """Tell whether W&B has all of a run that has a result."""
    info = directory.info()
    place = info.get("wandb") or place_of(config)

    def look(api: Any) -> bool:
        try:
            run = api.run(f"{place['entity'] or api.default_entity}/{place['project']}/{info['wandb_id']}")
        except (wandb.Error, ValueError) as error:
            if is_missing(error):
                return False
            raise
        return (
            run.state == "finished"
            and state_of(run) == info["state"]
            and epochs_of(run.summary_metrics) >= directory.summary()["last/epoch"]
            and (not directory.has_evaluation() or _has_pictures(run))
        )

    return ask(look, f"{directory.path} cannot be looked for at W&B")


def _has_pictures(run: Any) -> bool:
    """Tell whether W&B has the charts and the artifact of a run."""
    return f"{CONFUSION}_table" in run.summary_metrics and any(
        made.type == "evaluation" for made in run.logged_artifacts()
    )


def _files(folder: Path, chosen: str) -> Path:
    """Choose where W&B's own files go: WANDB_DIR, else beside the runs, else, where they are only passed on, anywhere.

    An agent sets WANDB_DIR to where it was started.
    """
    given = Path(os.environ.get("WANDB_DIR", ""))
    if "WANDB_DIR" in os.environ and not (handed_out() and given.resolve() == Path.cwd()):
        return given
    place = folder / "wandb" if (folder / "wandb").exists() else folder
    is_writable = place.is_dir() and os.access(place, os.W_OK)
    return folder if is_writable or chosen == "offline" else Path(tempfile.mkdtemp(prefix="wandb-"))


def mode(config: Config) -> str:
    """Choose between online and offline; UserError where online is asked for and there is no key."""
    told = {check_settings(), os.environ.get("WANDB_MODE")}
    if config.wandb == "offline" or (config.wandb == "auto" and told & {"offline", "dryrun"}):
        return "offline"
    try:
        if has_key():
            return "online"
    except wandb.Error as error:
        raise UserError(f"W&B: {' '.join(str(error).split())}; mend it, or say --wandb offline") from None
    if config.wandb == "online":
        raise UserError("there is no W&B key: type `wandb login` once, or set WANDB_API_KEY; or say --wandb offline")
    return "offline"


def _group(config: Config) -> str:
    """Name a run's setting by what differs from the defaults, the seed apart, in the 128 characters that W&B allows."""
    words = {name: value for name, value in config.identity().items() if name not in ("seed", "model", "dataset")}
    name = " ".join([config.model, config.dataset, *(f"{name}={value}" for name, value in words.items())])
    return name if len(name) <= LONGEST_NAME else f"{name[:116]}… {config.group}"
