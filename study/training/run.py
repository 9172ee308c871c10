"""Train one run: start it, resume it, or return its earlier result.

    outcome = train(config, display, signals)

A config that has been trained is not trained again. An interrupted run resumes from its last checkpoint.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from study.config import Config, scores
from study.data import folder, splits
from study.data.folder import JOINED
from study.data.memory import Memory
from study.record.directory import DAMAGED, DONE, EARLY, HYPERBAND, CorruptRun, RunDirectory, check_room
from study.record.display import Display
from study.record.tracker import Connect, Tracker
from study.system import devices
from study.system.errors import Interrupted, UserError, with_place
from study.system.process import Signals, exit_code
from study.system.progress import Say


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its state, its summary, and whether it had already been trained."""

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
    memory: Memory | None = None,
) -> Outcome:
    """Train one config, unless it has been trained, and return how it ended.

    `device_shared_by` is the number of runs that may use the device at once; it is recorded because it affects times.
    `gives_up` decides from the row of an epoch whether the run's sweep stops it. `connect` makes a sink for the rows
    and the result, such as W&B. With `waits`, wait for a run that another process is training. `memory` keeps the data
    for the next run of the process.
    Raises UserError, Busy, Interrupted (the run can be resumed), or the error that made the run fail.
    """
    # Return an earlier result, which needs neither the lock nor permission to write
    files = folder.of(config, display.say)
    splits.check(config, files)
    digest = folder.digest_of(config, files)
    directory = RunDirectory.of(config)
    if not force and directory.state() in DONE:
        before = _read_before(directory, digest, force, display)
        if outcome := _had_before(directory, before, gives_up):
            return outcome

    with directory.locked(display.say if waits else None):
        check_room(directory.path)

        # Look again, now that no other process can train the run
        has_begun = directory.has_begun()
        sweeps = directory.sweeps()
        before = _read_before(directory, digest, force, display)
        if outcome := _had_before(directory, before, gives_up):
            return outcome

        # Keep the files of a run that resumes, and set aside a result that is trained again
        fresh_id = f"{config.run_name}-{int(time.time()):x}" if has_begun else config.run_name
        if before.get("stopped_by") == HYPERBAND:
            display.say(f"a sweep stopped it after epoch {len(directory.history())}: training it again from the start")
        resumes = bool(before) and (directory.path / "last.pt").exists()
        if force and directory.state() in DONE:  # the old result stays until there is a new one
            directory.keep_result()
        if not resumes:
            directory.clear()
            before = {}

        # Train; a resumed run keeps its id in W&B, its threads and its precision
        tracker = Tracker(
            directory,
            config,
            display.say,
            data_digest=before.get("data_digest") or digest,
            device_shared_by=max(device_shared_by, before.get("device_shared_by", 1)),
            wandb_id=before.get("wandb_id", fresh_id),
            threads=before.get("threads") or config.threads or devices.threads(),
            precision=before.get("precision") or config.precision,
            **({"first_started": before.get("first_started", before.get("started"))} if before else {}),
            **({"sweeps": sweeps} if sweeps else {}),
        )
        try:
            if connect:
                # a run that has begun at W&B must be able to end there too
                with signals.hold():
                    tracker.sink = connect(
                        directory, config, tracker.info["wandb_id"], resumes, display.say, tracker.note
                    )
                signals.check()
            command = "without --force, the same command" if force else "the same command"
            outcome = _train(
                config, display, signals, tracker, before, gives_up, device_shared_by, memory or Memory(), command
            )
            directory.forget_result()
            return outcome
        except BaseException as error:
            state = None if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            tracker.fail(exit_code(error), state, with_place(error))
            raise


def _had_before(directory: RunDirectory, before: dict[str, Any], gives_up: Any) -> Outcome | None:
    """Return the outcome of an earlier training, or None if the run must be trained."""
    if before.get("state") not in DONE or (before.get("stopped_by") == HYPERBAND and not gives_up):
        return None
    return Outcome(before["state"], directory.summary(), already=True)


def _train(
    config: Config,
    display: Display,
    signals: Signals,
    tracker: Tracker,
    before: dict[str, Any],
    gives_up: Callable[[dict[str, float]], bool] | None,
    device_shared_by: int,
    memory: Memory,
    command: str,
) -> Outcome:
    """Train a run whose tracker exists: load its data, build its network, train and evaluate it.

    `before` is what run.json held if the run resumes, and `command` what resumes it after an interruption.
    """
    import numpy as np
    import torch

    from study.models import pretrained
    from study.training import svm as transfer

    # Set up the device and torch
    pretraining = pretrained.read(config, display.say)
    device = devices.pick(config.device)
    devices.set_deterministic(device, config.deterministic)
    torch.set_num_threads(tracker.info["threads"])
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy before 2.4 warns if it first reads them without denormal numbers
    torch.set_flush_denormal(True)

    # Load the data, and build the network
    data = transfer.load_data(config, pretraining, device, display.say, device_shared_by, memory)
    digest = tracker.info["data_digest"].removesuffix(JOINED) + JOINED * data.is_joined
    if before and not data.is_moved:
        digest = before["data_digest"]
    elif before and before["data_digest"] != digest:
        raise UserError(
            f"{tracker.directory.path} was begun on another split, before copies of images were kept together: train "
            "it again with --force"
        )
    _check_metrics(config, data)
    tracker.note(device=devices.describe(device), data_digest=digest, data=data.describe())
    if pretraining:
        tracker.note(pretrained={"source": pretraining.source, "digest": pretraining.digest})
    if config.finetune == "svm":
        return _fit_svm(config, display, signals, tracker, pretraining, data, device, memory)
    with _explained(config):
        trainer = _trainer(config, data, device, pretraining, display, tracker, bool(before))
    tracker.watch(trainer.model)
    occupancy = devices.Occupancy(device)
    stopped_by = EARLY

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

    # Train
    part = trainer.progress.batch / (trainer.batches + 1)  # the validation counts as a batch
    display.start(config, str(data), trainer.progress.epoch + part)
    with _explained(config), occupancy, signals.hold():
        state = trainer.fit(
            log,
            display.batch,
            lambda trainer: tracker.checkpoint(trainer.state_dict()),
            lambda: bool(signals.received),
        )

    # Evaluate, unless a signal ends the run first
    try:
        if state == "diverged":
            summary = {"last/epoch": trainer.progress.epoch}
            arrays = {}
        else:
            signals.check()
            summary, arrays = trainer.evaluate()
    except Interrupted:
        if state != "interrupted":
            tracker.checkpoint(trainer.state_dict())
        has_other = (tracker.directory.path / "last.pt").exists()
        otherwise = "resumes from the previous checkpoint" if has_other else "starts again"
        display.say(f"ended {trainer.place}; {command} {'resumes from here' if tracker.is_saved else otherwise}")
        raise
    notes = {"stopped_by": stopped_by} if state == "stopped" else {}
    return _finish(config, display, signals, tracker, state, summary, trainer.best_weights, arrays, **notes)


def look(config: Config, say: Say) -> None:
    """Load the data of a config as its training would, and print what was found; neither train nor write a run.

    Raises the UserErrors of a training that are about its data.
    """
    # Load them
    splits.check(config, folder.of(config, say))
    from study.data import notes
    from study.models import pretrained
    from study.training import svm as transfer

    data = transfer.load_data(config, pretrained.read(config, say), devices.pick("cpu"), say)
    _check_metrics(config, data)

    # Print what was found
    say(notes.title(data))
    say(notes.table(data))
    say("nothing is trained (--dry-run)")


def _check_metrics(config: Config, data: Any) -> None:
    """Raise UserError if a metric that decides anything cannot be computed for the classes of the data."""
    for metric in filter(None, (config.metric, config.early_stopping_metric)):
        scores.check(metric, len(data.classes))


@contextmanager
def _explained(config: Config):
    """Raise UserError in place of torch's errors for what a network cannot do with the options of its run."""
    try:
        yield
    except RuntimeError as error:
        operation, is_it, _ = str(error).partition(" does not have a deterministic implementation")
        if not is_it:
            raise
        raise UserError(f"{config.model} needs {operation}, which is not deterministic; omit --deterministic") from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(f"batches of {config.batch_size} are too small for the batch norm of {config.model}") from None


def _finish(
    config: Config,
    display: Display,
    signals: Signals,
    tracker: Tracker,
    state: str,
    summary: dict[str, Any],
    weights: dict[str, Any],
    arrays: dict[str, Any],
    **notes: Any,
) -> Outcome:
    """Record the result of a run: its summary, and unless it diverged its weights and evaluation."""
    with signals.hold():  # a signal must not cost the training now
        if arrays:
            tracker.save("best.pt", weights)
            tracker.directory.write_evaluation(arrays)
        tracker.finish(state, summary, config.keep_weights, **notes)
    tracker.send_result(state, summary)
    display.finish(state, summary, config.metric)
    return Outcome(state, summary)


def _trainer(
    config: Config, data: Any, device: Any, pretraining: Any, display: Display, tracker: Tracker, resumes: bool
) -> Any:
    """Build the trainer of a run; if the run resumes, load its last checkpoint."""
    from study.training.trainer import Trainer

    # Build it, and load the checkpoint if it can be read
    build = partial(Trainer, config, data, device, tracker.info["precision"], display.say, pretraining)
    trainer = build()
    if resumes and trainer.load(tracker.directory.path / "last.pt"):
        display.say(f"resuming {trainer.place}")
    elif resumes:
        display.say("last.pt cannot be read: training starts again")
        trainer = build()

    # Record its precision, and the rows that it continues
    tracker.note(precision=str(trainer.precision).removeprefix("torch."))
    if resumes:
        tracker.resume(trainer.progress.history)
    return trainer


def _fit_svm(
    config: Config,
    display: Display,
    signals: Signals,
    tracker: Tracker,
    pretraining: Any,
    data: Any,
    device: Any,
    memory: Memory,
) -> Outcome:
    """Fit an SVM to the features of a frozen network, and record the result."""
    from study.training import svm as transfer

    display.start(config, str(data), 0)
    with devices.Occupancy(device) as occupancy:
        svm = transfer.fit_svm(config, pretraining, device, display.say, display.batch, memory)
        shared_by = max(tracker.info["device_shared_by"], occupancy.runs())
    tracker.note(device_shared_by=shared_by, precision="float32", svm_penalty=svm.penalty)
    tracker.log(svm.row)
    display.epoch(svm.row)
    return _finish(config, display, signals, tracker, "finished", svm.summary, svm.weights, svm.arrays)


def _read_before(directory: RunDirectory, digest: str, force: bool, display: Display) -> dict[str, Any]:
    """Read run.json of an earlier start that has a result or can be resumed; return {} if there is none.

    Raises UserError if that start trained on other files.
    """
    if force:
        return {}

    # Set damaged files aside, unless a checkpoint can repair them
    defect = directory.defect()
    try:
        before = directory.info()
    except CorruptRun:
        before = {}
    if defect and not (before and (directory.path / "last.pt").exists()):
        display.say(f"{directory.path} is trained again: {defect}; its files are moved to {directory.path / DAMAGED}")
        directory.set_aside()
        return {}

    # Ignore a start that left neither a result nor a checkpoint
    if not before or (before.get("state") not in DONE and not (directory.path / "last.pt").exists()):
        return {}
    if str(before.get("data_digest")).removesuffix(JOINED) != digest:
        raise UserError(
            f"{directory.path} was trained on other files (digest {before.get('data_digest')}, now {digest}): "
            "usually pictures were added or removed; put them back, name another --runs-dir, or train again with "
            "--force, which replaces the old result"
        )
    return before
