"""One run from its config to its result: trained, resumed, or found to have been trained before.

    outcome = train(config, display, signals)

A config that has been trained is not trained again; one that was cut off resumes from its last checkpoint.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from study.config import Config
from study.data import folder, splits
from study.record.directory import DONE, EARLY, HYPERBAND, CorruptRun, RunDirectory
from study.record.display import Display
from study.record.tracker import Connect, Tracker
from study.system import devices
from study.system.errors import Interrupted, UserError, with_place
from study.system.process import Signals, exit_code


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its state, its summary, and whether it had been trained before."""

    state: str
    summary: dict[str, Any] = field(default_factory=dict)
    already: bool = False


def train(
    config: Config,
    display: Display,
    signals: Signals,
    force: bool = False,
    device_shared_by: int = 1,
    gives_up: Callable[[dict[str, float]], bool] | None = None,
    connect: Connect | None = None,
    waits: bool = False,
) -> Outcome:
    """Train one config, unless it has been trained, and return how it ended.

    `device_shared_by` is how many runs may use the device at once; it is recorded, since times then mean less.
    `gives_up` decides from the row of an epoch whether the run's sweep ends it there. `connect` makes the sink that
    gets the rows and the result too, such as W&B. With `waits`, a run that another process trains is waited for.
    Raises UserError, Busy, Interrupted (the run can go on later), or whatever made the run fail.
    """
    files = folder.of(config, display.say)
    splits.check(config, files)
    digest = folder.digest_of(config, files)
    directory = RunDirectory.of(config)
    if not force and directory.state() in DONE:  # which needs no lock, nor leave to write
        before = _read_before(directory, digest, force, display)
        if outcome := _had_before(directory, before, gives_up):
            return outcome
    with directory.locked(display.say if waits else None):
        again, sweeps = directory.has_begun(), directory.sweeps()
        before = _read_before(directory, digest, force, display)
        if outcome := _had_before(directory, before, gives_up):
            return outcome
        fresh_id = f"{config.run_name}-{int(time.time()):x}" if again else config.run_name
        if before.get("stopped_by") == HYPERBAND:
            display.say(f"a sweep had given it up after epoch {len(directory.history())}: it is trained anew")
        resumes = bool(before) and (directory.path / "last.pt").exists()
        is_forced = force and directory.state() in DONE
        if is_forced:  # the result is lost only when there is another
            directory.set_aside()
        if not resumes:
            directory.clear()
            before = {}
        tracker = Tracker(
            directory,
            config,
            display.say,
            data_digest=digest,
            device_shared_by=max(device_shared_by, before.get("device_shared_by", 1)),
            wandb_id=before.get("wandb_id", fresh_id),
            threads=before.get("threads") or config.threads or devices.cores(),
            precision=before.get("precision") or config.precision,
            **({"first_started": before.get("first_started", before.get("started"))} if before else {}),
            **({"sweeps": sweeps} if sweeps else {}),
        )
        try:
            if connect:
                tracker.sink = connect(directory, config, tracker.info["wandb_id"], resumes, display.say, tracker.note)
            outcome = _train(config, display, signals, tracker, resumes, gives_up, device_shared_by)
            if is_forced:
                directory.drop_aside()
            return outcome
        except BaseException as error:
            went_wrong = None if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            tracker.fail(exit_code(error), went_wrong, with_place(error))
            raise


def _had_before(directory: RunDirectory, before: dict[str, Any], gives_up: Any) -> Outcome | None:
    """Return the outcome of an earlier training that serves; None where the run is still to be trained."""
    if before.get("state") not in DONE or (before.get("stopped_by") == HYPERBAND and not gives_up):
        return None
    return Outcome(before["state"], directory.summary(), already=True)


def _train(
    config: Config,
    display: Display,
    signals: Signals,
    tracker: Tracker,
    resumes: bool,
    gives_up: Callable[[dict[str, float]], bool] | None,
    device_shared_by: int,
) -> Outcome:
    import numpy as np
    import torch

    from study.models import pretrained
    from study.training import svm as transfer

    given = pretrained.read(config, display.say)
    device = devices.pick(config.device)
    torch.set_num_threads(tracker.info["threads"])
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy before 2.4 warns where it looks at them only without denormal numbers
    torch.set_flush_denormal(True)
    data = transfer.load_data(config, given, device, display.say, device_shared_by)
    tracker.note(device=devices.describe(device), data=data.describe())
    if given:
        tracker.note(pretrained={"source": given.source, "digest": given.digest})
    if config.finetune == "svm":
        return _fit_svm(config, display, tracker, given, data, device)
    with _too_small_explained(config):
        trainer = _trainer(config, data, device, given, display, tracker, resumes)
    occupancy, stopped_by = devices.Occupancy(device), EARLY

    def log(row: dict[str, float]) -> bool:
        nonlocal stopped_by
        tracker.log(row)
        if (runs := occupancy.runs()) > tracker.info["device_shared_by"]:
            tracker.note(device_shared_by=runs)
        display.epoch(row)
        if gives_up and row["epoch"] < config.epochs and gives_up(row):
            stopped_by = HYPERBAND
            return True
        return False

    display.start(config, str(data), trainer.progress.epoch)
    with _too_small_explained(config), occupancy, signals.hold():
        state = trainer.fit(
            log, display.batch, lambda trainer: tracker.checkpoint(trainer.state_dict()),
            lambda: bool(signals.received),
        )  # fmt: skip
    try:
        if signals.received and state != "diverged":
            raise Interrupted(signals.received)
        summary, arrays = ({"last/epoch": trainer.progress.epoch}, {}) if state == "diverged" else trainer.evaluate()
    except Interrupted:
        if state != "interrupted":
            tracker.checkpoint(trainer.state_dict())
        display.say(f"ended {trainer.place}; the same command goes on from here")
        raise
    notes = {"stopped_by": stopped_by} if state == "stopped" else {}
    return _finish(config, display, tracker, state, summary, trainer.best_weights, arrays, **notes)


@contextmanager
def _too_small_explained(config: Config):
    """Name the mistake where batches are too small for batch norm."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(f"batches of {config.batch_size} are too small for the batch norm of {config.model}") from None


def _finish(
    config: Config, display: Display, tracker: Tracker, state: str, summary: dict[str, Any], weights: dict[str, Any],
    arrays: dict[str, Any], **notes: Any,
) -> Outcome:  # fmt: skip
    """Record what came of a run: its weights and its evaluation, where it has them, and its summary."""
    if arrays:
        tracker.save("best.pt", weights)
        tracker.directory.write_evaluation(arrays)
    tracker.finish(state, summary, config.keep_weights, **notes)
    display.finish(state, summary)
    return Outcome(state, summary)


def _trainer(
    config: Config, data: Any, device: Any, given: Any, display: Display, tracker: Tracker, resumes: bool
) -> Any:
    """Build the trainer of a run; one that resumes stands where its last checkpoint was written."""
    from study.training.trainer import Trainer

    build = partial(Trainer, config, data, device, tracker.info["precision"], display.say, given)
    trainer = build()
    if resumes and trainer.load(tracker.directory.path / "last.pt"):
        display.say(f"going on {trainer.place}")
    elif resumes:
        display.say("last.pt cannot be read: training begins anew")
        trainer = build()
    tracker.note(precision=str(trainer.precision).removeprefix("torch."))
    if resumes:
        tracker.resume(trainer.progress.history)
    return trainer


def _fit_svm(config: Config, display: Display, tracker: Tracker, given: Any, data: Any, device: Any) -> Outcome:
    """Fit an SVM to features of a frozen network instead of training it."""
    from study.training import svm as transfer

    display.start(config, str(data), 0)
    with devices.Occupancy(device) as occupancy:
        svm = transfer.fit_svm(config, given, device, display.say, display.batch)
        shared_by = max(tracker.info["device_shared_by"], occupancy.runs())
    tracker.note(device_shared_by=shared_by, precision="float32", svm_penalty=svm.penalty)
    tracker.log(svm.row)
    display.epoch(svm.row)
    return _finish(config, display, tracker, "finished", svm.summary, svm.weights, svm.arrays)


def _read_before(directory: RunDirectory, digest: str, force: bool, display: Display) -> dict[str, Any]:
    """Read run.json of an earlier start that can be built on; empty where there is none, or it is to be forgotten."""
    if force:
        return {}
    defect = directory.defect()
    try:
        before = directory.info()
    except CorruptRun:
        before = {}
    if defect and not (before and (directory.path / "last.pt").exists()):
        display.say(f"{directory.path} is trained anew: {defect}; what is there goes to {directory.path / 'damaged'}")
        directory.set_aside()
        return {}
    if not before or (before.get("state") not in DONE and not (directory.path / "last.pt").exists()):
        return {}  # there is nothing to build on
    if before.get("data_digest") != digest:
        raise UserError(
            f"{directory.path} was trained on other files (digest {before.get('data_digest')}, now {digest}): "
            "put them back, name another --runs-dir, or train anew with --force"
        )
    return before
