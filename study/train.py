"""Train one run and record it.

    python -m study.train --model two-block --dataset cifar10 --dropout 0.5 --epochs 30 --seed 0

A config that has been trained is not trained again unless --force is given. An interrupted run resumes from its last
checkpoint. All results are written to RUNS_DIR/<model>-<dataset>-s<seed>-<fingerprint>/ and sent to W&B.
"""

from pathlib import Path
from typing import Any

from study.config import Config
from study.config.argv import parser, read_argv, read_config
from study.config.checks import is_true, user_path
from study.data.sheet import show_augment
from study.record.directory import RunDirectory
from study.record.display import RunDisplay
from study.record.tracker import Sink
from study.remote import events, handed, offline, sink
from study.remote.api import handed_out
from study.system.errors import UserError
from study.system.process import Signals, run_command
from study.training.run import train


def main(argv: list[str]) -> int:
    """Train the config of the command line, and report it to `study.sweep agents` if that started this process."""
    # Read the command line
    argv = handed.own_words(argv)
    events.start(argv)
    options = parser("python -m study.train", __doc__)
    commands = options.add_argument_group("command")
    commands.add_argument(
        "--config", type=user_path, metavar="FILE", help="start from the config of a run.json; options override it"
    )
    commands.add_argument(
        "--show-augment",
        type=user_path,
        metavar="FILE",
        help="draw an image and augmented copies of it (--augment), and exit",
    )
    commands.add_argument(
        "--force", nargs="?", const="True", metavar="TRUE|FALSE", help="train again a run that has a result"
    )
    values = read_argv(options, argv)
    file = values.pop("config", None)
    sheet = values.pop("show_augment", None)
    force = is_true(values.pop("force", False))
    config = Config.parse((read_config(file) if file else {}) | values)
    display = RunDisplay()
    directory = RunDirectory.of(config)
    is_new = not directory.path.exists()
    sinks = sink.Sinks()
    events.append("directory", path=str(directory.path))

    def connect(*run: Any) -> Sink | None:
        """Make the sink of the run, and report that it has one or does without."""
        made = sinks.connect(*run)
        events.append("connected")
        return made

    # Train, or draw examples of augmentation
    if sheet:
        show_augment(config, Path(sheet), display.say)
        return 0
    try:
        outcome = train(config, display, Signals(), force, connect=connect, waits=bool(handed_out()))
    except UserError:
        if is_new and directory.path.exists() and not directory.history():
            directory.remove()  # a mistake leaves no run behind
        raise
    finally:
        display.close()

    # Report the result
    if outcome.already:
        sink.send_again(directory, config, display.say)
        display.say(f"{directory.path} was trained before; --force trains it again")
        display.finish(outcome.state, outcome.summary)
    display.say(f"everything is in {directory.path}")
    for log in offline.logs(directory):
        display.say(f"to upload it to W&B: wandb sync {log}")
    return 0


if __name__ == "__main__":
    run_command(main, at_end=events.end)
