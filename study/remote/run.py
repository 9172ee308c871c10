"""Record a run in W&B: config, rows and summary as in its directory, and charts at the end.

A run is recorded online if there is a key, otherwise offline; there are no prompts.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from study.config import Config
from study.config.scores import SCORES
from study.config.setting import run_title
from study.record.directory import RunDirectory, finite
from study.record.metrics import EPOCH_METRICS
from study.remote import artifacts, charts, columns, handed, offline
from study.remote.api import (
    NO_KEY,
    RUN_PATIENCE,
    announced,
    ask,
    check_settings,
    handed_out,
    has_key,
    is_refused,
    trouble,
    unless_set,
)
from study.remote.artifacts import LONGEST_NAME
from study.system.errors import STOP, UserError, one_line
from study.system.progress import Say

SWEEP_PATIENCE = 120
"""`init_timeout` of a run that W&B's server distributed, which cannot continue offline."""

RETRIES = {"x_graphql_retry_max": 20, "x_graphql_retry_wait_min_seconds": 2, "x_graphql_retry_wait_max_seconds": 60}
"""The client's own retries, which `ask` would make fewer for the following runs of the process."""

SWEEP = "sweep"
"""Key of a run's config in W&B: the names of the sweeps of `study.sweep run` that it belongs to."""

BEST = {"maximize": "max", "minimize": "min"}
"""What W&B's summary keeps of a metric with a goal: `summary["val/acc"]` is `{"max": …}`."""

QUIET = 5
"""Seconds after which a line reports that W&B has not answered yet."""

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each look whether W&B shows the result that it was sent."""


@dataclass
class WandbRun:
    """A run that was started in W&B, and sends to it.

    `mode` is `online` or `offline`, and `no_answer` the reason if it is offline because W&B did not answer, else empty.
    `place` is the entity, project, sweep and name of the run, with the names of its sweeps here, if it has them. The
    first `epochs` rows are in W&B already. Rows come with histograms of the `model`, if it is set.
    """

    run: Any
    directory: RunDirectory
    config: Config
    mode: str
    no_answer: str
    place: Mapping[str, Any]
    epochs: int
    say: Say
    model: Any = None

    @property
    def run_id(self) -> str:
        """Return the id of the run in W&B."""
        return self.run.id

    def write(self, text: str) -> None:
        """Add a line to the run's log in W&B, as what this process prints is by itself."""
        self.run.write_logs(text)

    def log(self, row: Mapping[str, Any]) -> None:
        """Send the row of one epoch, with the histograms after it."""
        if row["epoch"] > self.epochs:
            self.run.log({**row, **self._histograms()})

    def _histograms(self) -> dict[str, Any]:
        """Return the histograms of the network, if they are asked for."""
        if self.model is None:
            return {}
        from study.remote import histograms

        return histograms.of(self.model)

    def finish(self, code: int, summary: Mapping[str, Any]) -> list[str]:
        """Send the summary, and if there is an evaluation, its charts and evaluation.npz; then end the run.

        Returns a few words for each of the latter that could not be sent. Raises TimeoutError if W&B does not take the
        run in time, and wandb.Error if it does not have the result then. A sweep's run that ends by SIGINT returns to
        W&B's queue. One that ends by SIGTERM does not, because W&B stops runs by SIGTERM.
        """
        lost = []
        try:
            # Send the summary first
            self.run.config.update({"info": columns.info(self.directory)}, allow_val_change=True)
            self.run.summary.update(finite(summary) | self._best())

            # Send the evaluation
            if code == 0 and (self.directory.path / "evaluation.npz").exists():
                parts = {
                    "charts": lambda: self._send_charts(summary["last/epoch"]),
                    "evaluation.npz": lambda: artifacts.send_evaluation(self.run, self.directory),
                }
                if "model" in self.config.wandb_extras:
                    parts["model"] = lambda: artifacts.send_model(self.run, self.directory, self.say)
                lost = _attempt_all(parts)

            # Send what the options ask for at other ends
            if "alerts" in self.config.wandb_extras:
                self._alert(code, summary)
        finally:
            # End the run in any case
            if code == 128 + signal.SIGINT and "WANDB_SWEEP_ID" in os.environ:
                self._requeue()
            self._end(code)

        # Look whether W&B has it: the client does not report an upload that it has given up
        if code == 0 and self.mode == "online" and not self._has_result(summary["state"]):
            raise wandb.Error("it has no result of the run")
        return lost

    def _requeue(self) -> None:
        """Return the run to W&B's queue, with its checkpoint if an option asks for it."""
        self.run.mark_preempting()
        if "checkpoint" in self.config.wandb_extras:
            send = {"checkpoint": lambda: artifacts.send_checkpoint(self.run, self.directory, self.say)}
            for lost in _attempt_all(send):
                self.say(f"W&B does not get the {lost}")

    def _alert(self, code: int, summary: Mapping[str, Any]) -> None:
        """Let W&B send an alert if the run failed or diverged; signals are no failure."""
        path = self.directory.path
        if summary.get("state") == "diverged":
            self.run.alert("A run diverged", f"{path}, after epoch {summary['last/epoch']}", level="WARN")
        elif 0 < code < 128:
            self.run.alert("A run failed", f"{path}: {self.directory.info().get('error')}", level="ERROR")

    def _end(self, code: int) -> None:
        """Send what is left, and end the run; raise TimeoutError if that takes too long."""
        limit = self.run.settings.finish_timeout
        with announced(QUIET, self.say, f"W&B has not taken the run yet; it has {limit:g} seconds for it"):
            try:
                self.run.finish(exit_code=code)
            except TimeoutError:
                raise TimeoutError(f"it did not take all of it within {limit:g} seconds") from None

    def _has_result(self, state: str) -> bool:
        """Return whether W&B shows that the run ended in this state; its server may need some seconds for that."""
        path = f"{self.place['entity']}/{self.place['project']}/{self.run_id}"
        for pause in PAUSES:
            time.sleep(pause)
            run = ask(lambda wandb_api: wandb_api.run(path), "its result cannot be looked for", attempts=1)
            with suppress(OSError):  # the client makes an empty folder for it, here in the folder of runs
                os.removedirs(run.dir)
            if run.summary_metrics.get("state") == state:
                return True
        return False

    def _best(self) -> dict[str, dict[str, float]]:
        """Return the best value of each metric with a goal; for a resumed run, the client knows only its last rows."""
        best = {}
        rows = self.directory.history()
        for metric in EPOCH_METRICS:
            values = [row[metric.key] for row in rows if row.get(metric.key) is not None]
            if metric.goal and values:
                word = BEST[metric.goal]
                best[metric.key] = {word: max(values) if word == "max" else min(values)}
        return best

    def _send_charts(self, epoch: int) -> None:
        """Send the charts of the test images."""
        self.run.log({"epoch": epoch, **charts.of(self.directory.evaluation())})


def _attempt_all(parts: Mapping[str, Callable[[], None]]) -> list[str]:
    """Send each part; return the name and the reason of each that could not be sent."""
    lost = []
    for name, send in parts.items():
        try:
            send()
        except Exception as error:
            lost.append(f"{name} ({one_line(error)})")
    return lost


def connect(
    directory: RunDirectory,
    config: Config,
    run_id: str,
    say: Say,
    resumes: bool,
    place: Mapping[str, Any] | None = None,
    no_answer: str = "",
    trains: bool = True,
) -> WandbRun:
    """Start a run in W&B: online, or offline without a key or an answer.

    If it `resumes`, rows that W&B has are not sent again. For a run of an agent, the agent sets its id and its place.
    With `no_answer`, the reason why W&B did not answer an earlier run, W&B is not asked again. A run whose id W&B
    refuses, as that of a deleted run, gets another id. Unless it `trains`, there is nothing that continues without W&B.
    Raises UserError if W&B's settings are wrong, and the client's error if the run cannot be started.
    """
    # Choose where it is recorded
    run_id = handed_out() or run_id
    place = place if place and not handed_out() else place_of(config)
    place = {**place, "name": os.environ.get("WANDB_NAME") or place.get("name") or _name(directory, config)}
    chosen = mode(config)
    no_answer = no_answer if chosen == "online" and not handed_out() else ""
    if no_answer:
        chosen = "offline"

    # Start it without the offline logs of earlier starts, whose content is sent again
    offline.delete_logs(directory, run_id)
    waiting = "W&B has not answered yet" + ("; the run will continue without it" if trains else "")
    with announced(QUIET, say, waiting) if chosen == "online" else nullcontext():
        try:
            run = _start(directory, config, run_id, place, chosen)
        except wandb.Error as error:
            # Use another id, since the client keeps the one that it failed to start; an agent's run has no other
            if chosen != "online" or handed_out():
                raise
            run = None
            if is_refused(error):
                say(f"{trouble(error)}; it gets another id")
                with suppress(wandb.Error):
                    run = _start(directory, config, f"{run_id}-{int(time.time()):x}", place, chosen)

            # Without an answer, record it offline
            if run is None:
                chosen = "offline"
                no_answer = trouble(error)
                say(f"{no_answer}; the run is recorded offline")
                run = _start(directory, config, f"{run_id}-offline", place, chosen)

    # Plot against epochs, rank runs by their best epoch, and find the rows that W&B has
    run.define_metric("epoch", hidden=True)
    run.define_metric("*", step_metric="epoch")
    for metric in EPOCH_METRICS:
        if metric.goal and (metric.key not in SCORES or metric.key == config.metric):
            run.define_metric(metric.key, step_metric="epoch", summary=BEST[metric.goal])
    if "code" in config.wandb_extras:
        artifacts.send_code(run, say)
    if chosen == "offline":
        return WandbRun(run, directory, config, chosen, no_answer, place, 0, say)
    say(f"W&B: {run.url}")
    place = {**place, "entity": run.entity, "project": run.project}
    epochs = epochs_of(run.summary) if resumes else 0
    return WandbRun(run, directory, config, chosen, no_answer, place, epochs, say)


def _start(directory: RunDirectory, config: Config, run_id: str, place: Mapping[str, Any], chosen: str) -> Any:
    """Start a run by W&B's client in the chosen mode."""
    # Collect the settings that no environment variable sets
    for_agent = {"init_timeout": SWEEP_PATIENCE} if handed_out() else {}
    settings = unless_set({**RUN_PATIENCE, **RETRIES, **for_agent, "sweep_id": place["sweep"], "stop_fn": _end_at_stop})

    # Collect the config
    keys = handed.sweep_keys() if handed_out() else []
    sweep_keys = {handed.SWEEP_KEYS: ",".join(keys)} if keys else {}
    sweeps = {SWEEP: ", ".join(place["sweeps"])} if place.get("sweeps") else {}
    replaced = handed.replaced(config)
    folder = _files(directory.path.parent, chosen)
    _stage_artifacts_in(folder)

    # Start the run
    return wandb.init(
        id=run_id,
        entity=place["entity"],
        project=place["project"],
        name=place["name"],
        group=os.environ.get("WANDB_RUN_GROUP") or _group(config),
        job_type=os.environ.get("WANDB_JOB_TYPE") or "train",
        tags=directory.info().get("tags") or columns.tags(config, place.get("sweeps") or ()) or None,
        notes=config.notes or None,
        config={
            **columns.columns(config, keys),
            "fingerprint": config.fingerprint,
            "info": columns.info(directory),
            **sweep_keys,
            **sweeps,
            **({columns.REPLACED: replaced} if replaced else {}),
        },
        dir=folder,
        mode=chosen,
        resume="allow" if chosen == "online" else None,
        settings=wandb.Settings(silent=True, disable_code=True, **settings),
    )


def _end_at_stop() -> None:
    """End a run that is stopped at W&B; one of an agent by SIGTERM, as the agent does: SIGINT would requeue it.

    A run in another thread, where no signals are handled, goes on: the signal would end the whole process.
    """
    signum = signal.SIGTERM if handed_out() else STOP
    if signal.getsignal(signum) is not signal.SIG_DFL:
        signal.pthread_kill(threading.main_thread().ident, signum)


def _stage_artifacts_in(folder: Path) -> None:
    """Let W&B's client copy artifacts to a folder before they are sent, instead of to the user's home folder.

    The client reads this from the environment only, none of its settings has it (wandb.env.get_data_dir).
    """
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "wandb"))


def place_of(config: Config) -> dict[str, str | None]:
    """Return the entity, project and sweep of a run in W&B: from its options, else from the environment.

    For a run of an agent, the environment comes first: it is where the agent sets them.
    """
    entity = os.environ.get("WANDB_ENTITY")
    project = os.environ.get("WANDB_PROJECT")
    if not handed_out():
        entity = config.entity or entity
        project = project if project and config.project == Config().project else config.project
    return {"entity": entity or None, "project": project, "sweep": handed_out() and os.environ["WANDB_SWEEP_ID"]}


def epochs_of(summary: Mapping[str, Any]) -> int:
    """Return the number of epochs of a run that W&B has, from W&B's summary of the run."""
    return max(summary.get("epoch") or 0, summary.get("last/epoch") or 0)


def _files(folder: Path, chosen: str) -> Path:
    """Return the folder for W&B's files: WANDB_DIR, else that of the runs, else a temporary one.

    An agent sets WANDB_DIR to the current folder, which does not count. A temporary folder suffices for an online run.
    """
    wandb_dir = Path(os.environ.get("WANDB_DIR", ""))
    if "WANDB_DIR" in os.environ and not (handed_out() and wandb_dir.resolve() == Path.cwd()):
        return wandb_dir
    place = folder / "wandb" if (folder / "wandb").exists() else folder
    is_writable = place.is_dir() and os.access(place, os.W_OK)
    return folder if is_writable or chosen == "offline" else Path(tempfile.mkdtemp(prefix="wandb-"))


def wants_offline(config: Config) -> bool:
    """Return whether the config or W&B's settings want the run offline, with a key or without."""
    settings = {check_settings(), os.environ.get("WANDB_MODE")}
    return config.wandb == "offline" or (config.wandb == "auto" and bool(settings & {"offline", "dryrun"}))


def mode(config: Config) -> str:
    """Return `online` or `offline`; raise UserError if the config wants online and there is no key."""
    # Offline, if that is wanted
    if wants_offline(config):
        return "offline"

    # Online, if there is a key
    try:
        if has_key():
            return "online"
    except wandb.Error as error:
        raise UserError(f"W&B: {' '.join(str(error).split())}; fix it, or give --wandb offline") from None
    if config.wandb == "online":
        raise UserError(f"{NO_KEY}; or give --wandb offline")
    return "offline"


def _name(directory: RunDirectory, config: Config) -> str:
    """Return the name of a run: its directory's, or for an agent, which does not say what varies, its group's."""
    return run_title(_group(config), config.seed) if handed_out() else directory.path.name


def _group(config: Config) -> str:
    """Return the name of a run's group: its options that differ from the defaults, except the seed."""
    words = {name: value for name, value in config.identity().items() if name not in ("seed", "model", "dataset")}
    name = " ".join([config.model, config.dataset, *(f"{name}={value}" for name, value in words.items())])
    return name if len(name) <= LONGEST_NAME else f"{name[:116]}… {config.group}"
