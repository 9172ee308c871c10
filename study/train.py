"""Train one run and record it.

    python -m study.train --model two-block --dataset cifar10 --dropout 0.5 --epochs 30 --seed 0

A config that has been trained is not trained again unless --force is given. An interrupted run resumes from its last
checkpoint. All results are written to RUNS_DIR/<model>-<dataset>-s<seed>-<fingerprint>/ and sent to W&B.
"""

from pathlib import Path

from study.data.sheet import show_augment
from study.record.directory import RunDirectory
from study.record.display import RunDisplay
from study.remote import handed, offline, sink
from study.system.process import Signals, run_command


def main(argv: list[str]) -> int:
    """Train the config of the command line."""
    command = handed.read(argv, __doc__)
    display = RunDisplay()

    # Draw examples of augmentation, or train
    if command.sheet:
        show_augment(command.config, Path(command.sheet), display.say)
        return 0
    handed.train_command(command, display, Signals(), connect=sink.Sinks().connect)

    # Report where the result is
    directory = RunDirectory.of(command.config)
    display.say(f"everything is in {directory.path}")
    for log in offline.logs(directory):
        display.say(f"to upload it to W&B: wandb sync {log}")
    return 0


if __name__ == "__main__":
    run_command(main)
