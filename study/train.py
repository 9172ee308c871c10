"""Train one run and record it.

    python -m study.train --model two-block --dataset cifar10 --dropout 0.5 --epochs 30 --seed 0

A config that has been trained is not trained again unless --force is given. An interrupted run resumes from its last
checkpoint. All results are written to RUNS_DIR/<model>-<dataset>-s<seed>-<fingerprint>/ and sent to W&B.
"""

import shlex
from functools import partial
from pathlib import Path

from study.config import Config
from study.config.argv import Command
from study.config.checks import digest_of_weights
from study.data.sheet import show_augment
from study.record import notebook
from study.record.directory import RunDirectory
from study.record.display import RunDisplay
from study.record.results import Run
from study.remote import handed, offline, sink
from study.system import devices
from study.system.errors import expect
from study.system.process import Signals, interruptible, run_command
from study.training.run import look


def train(config: Config, *, force: bool = False) -> Run:
    """Train one network, and return its run: `train(Config(model="mlp", dataset="digits", epochs=3)).summary`.

    A config that has been trained is not trained again, but read from its directory, unless `force`. Interrupting the
    cell or Ctrl-C writes a checkpoint and raises KeyboardInterrupt; the same call resumes from there. As on the command
    line, everything is written below `config.runs_dir`, and to W&B unless `wandb="disabled"`.

    Raises UserError for a mistake in the config, in the data or in the weights, such as a folder that does not exist.
    """
    expect(config, Config, "train takes a Config, such as train(Config(model='mlp', dataset='digits'))")

    # Complete the config as the command line does
    config = config.model_copy(update=digest_of_weights(config.model_dump()))

    # Train, with the handlers of signals that it needs
    display = notebook.NotebookRun() if notebook.is_notebook() else RunDisplay()
    with interruptible() as signals, devices.kept_settings():
        handed.train_command(Command(config, force), display, signals, connect=sink.Sinks().connect)
        signals.check()
    return Run(RunDirectory.of(config).path)


def main(argv: list[str]) -> int:
    """Train the config of the command line."""
    command = handed.read(argv, __doc__)
    display = RunDisplay()

    # Look at the data, draw examples of augmentation, or train
    if command.dry_run:
        look(command.config, display.say)
        return 0
    if command.sheet:
        show_augment(command.config, Path(command.sheet), display.say)
        return 0
    signals = Signals()
    handed.train_command(command, display, signals, connect=sink.Sinks().connect)

    # Report where the result is
    directory = RunDirectory.of(command.config)
    display.say(f"everything is in {directory.path}")
    for log in offline.logs(directory):
        display.say(f"to upload it to W&B: wandb sync {shlex.quote(str(log))}")
    signals.check()
    return 0


command = partial(run_command, main)
"""The console command `study-train`."""

if __name__ == "__main__":
    command()
