"""A run in W&B: the same config, rows and summary as in its directory, and what its page shows at the end.

    python -m study.wandb_run runs/NAME …    # send runs from their directories, those that are not in W&B or not whole

Online where there is a key, else offline, and never a prompt.
"""

import os
import re
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from study.config import Config
from study.errors import UserError, run_command
from study.run_directory import DONE, RunDirectory, Say, finite
from study.wandb_api import has_key, unless_set

PATIENCE = {"init_timeout": 30, "finish_timeout": 120}
"""Seconds; WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT say otherwise."""

QUIET = 5
"""Seconds after which one is told that W&B is waited for."""


class WandbRun:
    """One run in W&B; if it goes on, rows that are there are not sent again."""

    def __init__(self, directory: RunDirectory, config: Config, run_id: str, say: Say, goes_on: bool):
        self.directory = directory
        self.run_id = os.environ.get("WANDB_RUN_ID") or run_id
        folder = directory.path.parent
        # the log of an earlier start of this run holds nothing that is not sent again
        for name in (self.run_id, directory.path.name):
            for log in directory.offline_logs(name):
                shutil.rmtree(log, ignore_errors=True)
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "wandb"))
        mode = _mode(config)
        waiting = threading.Timer(QUIET, say, ["W&B has not answered yet; without it the run will go on offline"])
        waiting.daemon = True
        waiting.start()
        try:
            self.run = self._init(config, folder, mode)
        except wandb.Error as error:
            if mode != "online":
                raise
            say(f"W&B does not answer ({' '.join(str(error).split())}): going on offline")
            mode = os.environ["WANDB_MODE"] = "offline"  # this process's next runs need not wait in vain
            self.run_id += "-offline"  # the client holds on to the id that it failed to start
            self.run = self._init(config, folder, mode)
        finally:
            waiting.cancel()
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")
        self.logged = self.run.summary.get("epoch", 0) if mode == "online" and goes_on else 0
        if mode == "online":
            say(f"W&B: {self.run.url}")

    def _init(self, config: Config, folder: Path, mode: str):
        return wandb.init(
            id=self.run_id,
            entity=config.entity or None,
            project=config.project,
            name=self.directory.path.name,
            group=_group(config),
            job_type="train",
            tags=[tag.strip() for tag in config.tags.split(",") if tag.strip()],
            notes=config.notes or None,
            config={**config.model_dump(), "fingerprint": config.fingerprint, "info": self._info()},
            dir=os.environ.get("WANDB_DIR") or folder,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, disable_code=True, **unless_set(PATIENCE)),
        )

    def _info(self) -> dict[str, Any]:
        """Return what run.json says beside the config: with it a run in W&B is as complete as its directory."""
        return {name: value for name, value in self.directory.info().items() if name != "config"}

    def log(self, row: Mapping[str, Any]) -> None:
        """Send the row of one epoch."""
        if row["epoch"] > self.logged:
            self.run.log(dict(row))

    def finish(self, code: int, summary: Mapping[str, Any]) -> None:
        """Send the summary and, where the run has an evaluation, its pictures; then end the run.

        A sweep's run that is ended by SIGINT goes back into W&B's queue. SIGTERM does not do that, since it is how a
        run learns that it has been stopped in W&B.
        """
        try:
            if code == 0 and (self.directory.path / "evaluation.npz").exists():
                self._send_evaluation()
            self.run.config.update({"info": self._info()}, allow_val_change=True)
            self.run.summary.update(finite(summary))
        finally:
            if code == 128 + signal.SIGINT and "WANDB_SWEEP_ID" in os.environ:
                self.run.mark_preempting()
            self.run.finish(exit_code=code)

    def _send_evaluation(self) -> None:
        """Send the confusion matrix and each class's accuracy as charts, and evaluation.npz as an artifact."""
        arrays = self.directory.evaluation()
        names, targets = arrays["class_names"].tolist(), arrays["test_targets"]
        predicted = arrays["test_predictions"]
        rows = [[name, float((predicted == label)[targets == label].mean())] for label, name in enumerate(names)]
        table = wandb.Table(["class", "accuracy"], rows)
        self.run.log(
            {
                "test/confusion": wandb.plot.confusion_matrix(
                    y_true=targets.tolist(), preds=predicted.tolist(), class_names=names, title="Test images"
                ),
                "test/per_class": wandb.plot.bar(table, "class", "accuracy", title="Test accuracy by class"),
            }
        )
        artifact = wandb.Artifact("evaluation-" + re.sub(r"[^\w.-]", "-", self.run_id), type="evaluation")
        artifact.add_file(str(self.directory.path / "evaluation.npz"))
        self.run.log_artifact(artifact)


def replay(directory: RunDirectory, config: Config, say: Say) -> None:
    """Send a run that has a result to W&B from its directory."""
    info = directory.info()
    run = WandbRun(directory, config, info["wandb_id"], say, goes_on=True)
    for row in directory.history():
        run.log(row)
    run.finish(0, {**directory.summary(), "state": info["state"]})


def _mode(config: Config) -> str:
    """Choose between online and offline; UserError where online is asked for and there is no key."""
    if config.wandb == "offline" or (config.wandb == "auto" and os.environ.get("WANDB_MODE") == "offline"):
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
    return name if len(name) <= 128 else f"{name[:116]}… {config.group}"


def main(argv: list[str]) -> int:
    """Send run directories to W&B."""
    if not argv or argv[0].startswith("-"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    for path in argv:
        directory = RunDirectory(path)
        state = directory.state()
        if state not in DONE:
            raise UserError(f"{path} has no result to send: it is {state}")
        config = Config.recorded(directory.info()["config"])
        if config.wandb == "disabled":
            config = config.model_copy(update={"wandb": "auto"})
        replay(directory, config.model_copy(update={"runs_dir": str(directory.path.parent)}), print)
        for log in directory.offline_logs():
            print(f"without a W&B key the run was written to a log; to upload it: wandb sync {log}")
    return 0


if __name__ == "__main__":
    run_command(main)
