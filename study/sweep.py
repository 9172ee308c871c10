"""Run sweeps, files in W&B's format, on this machine, with or without W&B.

    python -m study.sweep check sweeps/*.yaml
    python -m study.sweep run sweeps/dropout.yaml [--devices cuda:0,cuda:1] [--per-device 2] [--set epochs=2]
    python -m study.sweep status sweeps/dropout.yaml | ENTITY/PROJECT/ID
    python -m study.sweep clean sweeps/dropout.yaml

`run` trains the runs that are missing. Running it again completes a sweep, or does nothing if it is complete. To let
W&B's server distribute the runs to any number of machines:

    python -m study.sweep create sweeps/dropout.yaml [--missing]
    python -m study.sweep agents ENTITY/PROJECT/ID [--gpus 0,1 --per-gpu 2 | --cpus 4]
"""

import argparse
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from study.config import Config, is_identity
from study.config.argv import parse_words
from study.config.checks import positive, user_path
from study.config.setting import as_word
from study.local import forecast
from study.local import slots as local_slots
from study.local import status as local_status
from study.local.agents import run_agents
from study.local.engine import Engine, Outcome
from study.local.plan import Plan, check_folders, refuse_other_data
from study.local.wandb_agents import run_wandb_agents
from study.record import notebook
from study.record.directory import DONE, RunDirectory, check_room
from study.record.display import SweepDisplay
from study.record.results import Run, SweepResult
from study.remote import api as wandb_api
from study.remote import offline, queue
from study.remote import sweep as wandb_sweep
from study.remote.sink import sync_command
from study.sweeps import definition as search
from study.sweeps import standing, timm_names
from study.sweeps.definition import Sweep
from study.system import devices
from study.system.errors import Interrupted, UserError, expect
from study.system.process import Parser, handle_ends, interruptible, run_command


def sweep(
    file: str | Path,
    *,
    runs_dir: str | Path = "runs",
    data_dir: str | Path = "data",
    wandb: str = "auto",
    devices: str | None = None,
    per_device: int | None = None,
    force: bool = False,
    **values: Any,
) -> SweepResult:
    """Train the runs of a sweep file that have no result, and return all its runs: `sweep("depth.yaml", epochs=5)`.

    `values` replace values of the file, each by one. `devices` is `cpu` or a comma list such as
    `cuda:0,cuda:1` (default: all of the fastest kind), `per_device` the number of runs at a time on each (default: 1;
    on the CPU one per core). With `force`, runs that have a result are trained again. Interrupting the cell or
    Ctrl-C ends all runs after they have written a checkpoint and raises KeyboardInterrupt; the same call resumes.

    A run that fails does not stop the others: its row in `.summary` has the state failed, and `.errors` says why.

    Raises UserError for a mistake in the file, in a value or in the data.
    """
    # Check what is given
    expect(file, str | Path, "sweep takes the name of a sweep file, such as 'sweeps/quickstart.yaml'")
    words = {name: as_word(value) for name, value in values.items()}
    search.check_values(words, others=("runs_dir", "data_dir", "wandb", "devices", "per_device", "force"))

    # Plan the runs
    chosen = search.read(file, words)
    base = {"runs_dir": user_path(str(runs_dir)), "data_dir": user_path(str(data_dir)), "wandb": wandb}
    runs = standing.Runs(base["runs_dir"])
    plan = _plan([chosen], base, runs, force)
    count = len(plan.todo()) + plan.coming

    # Train those without a result
    if count:
        check_room(runs.path)
        used, at_once = _places(devices, per_device, count)
        shown = notebook.NotebookSweep if notebook.is_notebook() else SweepDisplay
        with interruptible(), shown(count) as display:
            Engine(used, at_once, display).run(plan.jobs(), count)

    # Read the runs of all its points
    points = runs.points(chosen, base)
    begun = [point for point in points if (RunDirectory.of(point.config).path / "run.json").exists()]
    return SweepResult([Run(RunDirectory.of(point.config).path) for point in begun], [p.setting for p in begun])


def check(args: argparse.Namespace) -> int:
    """Check sweep files and print the number of runs of each."""
    wrong = 0
    for path in args.files:
        # Report a mistake and go on with the next file
        try:
            sweep = _read(path, args)
            count = sweep.count(_base(args))
            check_folders(sweep, _base(args))
            timm_names.check(sweep)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            wrong += 1
            continue

        # Print the number of runs
        if sweep.is_adaptive:
            note = " (each is chosen from the results of the previous ones)"
        else:
            same = sweep.size - count
            note = f" ({same} more {'point computes' if same == 1 else 'points compute'} the same)" if same else ""
        print(f"{path}: {count} {'run' if count == 1 else 'runs'}{note}")
    return 2 if wrong else 0


def run(args: argparse.Namespace) -> int:
    """Train the points of sweeps that have no result yet."""
    # Plan the runs, and check their data
    sweeps = [_read(path, args) for path in args.files]
    plan = _plan(sweeps, _base(args), standing.Runs(args.runs_dir), args.force)
    todo = plan.todo()
    total = len(plan.known) + plan.coming
    count = len(todo) + plan.coming
    runs = "1 run" if total == 1 else f"{total} runs"

    # With --dry-run, print them
    if args.dry_run:
        shown = {name for sweep in sweeps for name in sweep.named}
        for job in todo:
            print(_command(job.config, shown))
        later = f", {plan.coming} of them still to be chosen" if plan.coming else ""
        print(f"{count} of {runs} would be trained{later}", file=sys.stderr)
        return 0
    if not count:
        print(f"{runs}, all trained already: nothing to do")
        return 0

    # Choose the devices
    for sweep in sweeps:
        if sweep.ignored:
            print(f"{sweep.path}: {', '.join(sweep.ignored)} is used only by W&B")
    check_room(Path(args.runs_dir))
    used, per_device = _places(args.devices, args.per_device, count)

    # Train the runs, and report the outcomes
    where = used[0] if len(used) == 1 else f"each of {', '.join(used)}"
    print(f"{runs}, {count} to train, {per_device} at a time on {where}")
    if len(sweeps) > 1:
        forecast.show(plan, standing.Runs(args.runs_dir), used != ["cpu"], min(count, per_device * len(used)))
    handle_ends(_raise_interrupted)
    signal.signal(signal.SIGALRM, _raise_interrupted)
    signal.setitimer(signal.ITIMER_REAL, 3600 * args.hours)
    try:
        with SweepDisplay(count) as display:
            outcomes = Engine(used, per_device, display).run(plan.jobs(), count)
    except Interrupted as end:
        if end.signum == signal.SIGALRM:
            print(f"{args.hours:g} hours are over; {_resumes(args)}")
            return 0
        print(f"ended; {_resumes(args)}", file=sys.stderr)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return _conclude(outcomes, count, args)


def status(args: argparse.Namespace) -> int:
    """Print which runs of sweeps have a result, which failed and why, and which are missing."""
    for path in args.files:
        if wandb_api.sweep_path(path):
            sweep = wandb_sweep.read(path, search.assignments(args.set))
            wandb_sweep.print_status(wandb_sweep.with_project(sweep))
        else:
            local_status.show(_read(path, args), standing.Runs(args.runs_dir), _base(args))
    return 0


def create(args: argparse.Namespace) -> int:
    """Create a sweep on W&B from a file, or from the missing runs of another sweep, and print ENTITY/PROJECT/ID."""
    # Check the options
    if len(args.files) > 1:
        raise UserError(f"create takes one file or sweep at a time, not {', '.join(args.files)}")
    assignments = search.assignments(args.set)
    for name in assignments.keys() & {"entity", "project"}:
        raise UserError(
            f"{name} is where the sweep is created, not a value of its runs: give --{name} {assignments[name]}"
        )

    # Create the sweep
    path = wandb_sweep.create(args.files[0], assignments, args.missing, args.entity, args.project)
    if path:
        print(path)
    else:
        print("nothing is missing: each point that was started has a result, is running or queued", file=sys.stderr)
    return 0


def agents(args: argparse.Namespace) -> int:
    """Train a sweep of W&B with one or more agents on each GPU, or on the CPU."""
    slots = local_slots.slots(args.gpus, args.per_gpu, args.cpus)
    folders = {"runs_dir": args.runs_dir, "data_dir": args.data_dir}
    sweep = wandb_sweep.read(args.sweep)
    train = run_agents if queue.can_serve(sweep.content) else run_wandb_agents
    if train is run_wandb_agents:
        reason = "its command does more than start study.train, or W&B's client is too old"
        print(f"`wandb agent` starts a new process for each run, which takes some seconds, because {reason}")
    return train(sweep, slots, folders, args.grace)


def clean(args: argparse.Namespace) -> int:
    """Remove the directories of failed and interrupted runs of sweeps, after asking."""
    sweeps = [_read(path, args) for path in args.files]
    local_status.clean(sweeps, standing.Runs(args.runs_dir), _base(args), args.yes)
    return 0


def _resumes(args: argparse.Namespace) -> str:
    """Say which command goes on after an interruption."""
    if args.force:
        return "without --force, the same command resumes the interrupted runs; with it, all are trained again"
    return "the same command resumes from here"


def _plan(sweeps: Sequence[Sweep], base: Mapping[str, str], runs: standing.Runs, is_forced: bool) -> Plan:
    """Plan the runs of some sweeps, and check their data."""
    plan = Plan(sweeps, base, runs, is_forced)
    for sweep in sweeps:
        timm_names.check(sweep)
    examples = [sweep.example(base) for sweep in sweeps if sweep.is_adaptive]
    refuse_other_data([*(job.config for job in plan.known.values()), *examples], is_forced)
    return plan


def _places(named: str | None, per_device: int | None, count: int) -> tuple[list[str], int]:
    """Return the devices for a number of runs, and how many runs each trains at once."""
    used = named.split(",") if named else _fastest()
    for name in set(used) - {"cpu"}:
        devices.find(name)
    return used, per_device or (min(devices.cores(), count) if used == ["cpu"] else 1)


def _conclude(outcomes: Sequence[Outcome], count: int, args: argparse.Namespace) -> int:
    """Print the outcomes of a sweep; return 0 if every run has a result, and W&B too where it should, else 1."""
    # Count the states, and name the runs without a result
    counts = Counter(outcome.state for outcome in outcomes)
    counts["missing"] = max(0, count - len(outcomes))
    print(", ".join(f"{number} {state}" for state, number in counts.most_common() if number))
    for outcome in outcomes:
        if outcome.state not in DONE:
            print(f"{outcome.state}: {outcome.config.run_name}: {outcome.text}", file=sys.stderr)

    # Print what can be done next
    logs = [log for outcome in outcomes for log in offline.logs(RunDirectory.of(outcome.config))]
    for folder in sorted({log.parent for log in logs}):
        print(f"W&B: offline; to upload the runs: wandb sync {shlex.quote(str(folder))}/offline-run-*")
    done = [RunDirectory.of(outcome.config) for outcome in outcomes if outcome.state in DONE]
    unsent = [directory for directory in done if not directory.is_sent()]
    if unsent:
        print(f"to send W&B what it lacks: {sync_command(*unsent)}")
    if any(number for state, number in counts.items() if state not in DONE):
        return 1
    folders = dict.fromkeys(outcome.config.runs_dir for outcome in outcomes) or [args.runs_dir]
    words = [*folders, "--sweep", *args.files, *(["--set", *args.set] if args.set else [])]
    print(f"report: python -m analysis.summarize {shlex.join(words)}")
    return 1 if unsent else 0


def _read(path: str, args: argparse.Namespace) -> Sweep:
    return search.read(path, search.assignments(args.set))


def _base(args: argparse.Namespace) -> dict[str, str]:
    return {"runs_dir": args.runs_dir, "data_dir": args.data_dir, "wandb": args.wandb}


def _command(config: Config, shown: set[str]) -> str:
    """Return the command that trains a config alone, with the options `shown` and those that are not defaults."""
    defaults = Config().model_dump()
    options = {
        name: value
        for name, value in config.model_dump(exclude={"setting"}).items()
        if (name in shown and value is not None)
        or name in config.identity()
        or (not is_identity(name) and value != defaults[name])
    }
    return shlex.join(
        ["python", "-m", "study.train", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]
    )


def _fastest() -> list[str]:
    """List all devices of the fastest kind on this machine."""
    names = devices.names()
    return [name for name in names if name.partition(":")[0] == names[0].partition(":")[0]]


def _hours(text: str) -> float:
    """Read a number of hours greater than 0, for argparse."""
    try:
        if 0 < float(text) < 1e6:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number of hours greater than 0, not {text!r}")


def _raise_interrupted(signum: int, frame: object) -> None:
    raise Interrupted(signum)


def main(argv: list[str]) -> int:
    """Read the command line and run its command."""
    # Options that several commands have
    parser = Parser("python -m study.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sweeps = Parser(add_help=False)
    sweeps.add_argument(
        "files", nargs="*", metavar="SWEEP", help="a sweep file; for status and create also ENTITY/PROJECT/ID"
    )
    sweeps.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE …",
        help="values that replace those of the sweep",
    )
    place = Parser(add_help=False)
    place.add_argument("--runs-dir", type=user_path, default="runs", metavar="DIR", help="default: runs")
    place.add_argument("--data-dir", type=user_path, default="data", metavar="DIR", help="default: data")
    common = Parser(add_help=False, parents=[sweeps, place])
    common.add_argument("--wandb", default="auto", metavar="MODE", help="auto, online, offline or disabled")

    # The commands
    commands = parser.add_subparsers(required=True, metavar="check | run | status | clean | create | agents")
    parents = {check: common, run: common, status: common, clean: common, create: sweeps, agents: place}
    for function, parent in parents.items():
        command = commands.add_parser(
            function.__name__, parents=[parent], description=function.__doc__, help=function.__doc__
        )
        command.set_defaults(function=function)

    # Options of single commands
    command = commands.choices["run"]
    command.add_argument("--devices", metavar="LIST", help="cpu, or a comma list such as cuda:0,cuda:1 (default: all)")
    command.add_argument(
        "--per-device", type=positive, metavar="N", help="runs at a time on each device (default: 1; cpu: one per core)"
    )
    command.add_argument(
        "--hours",
        type=_hours,
        default=0,
        metavar="N",
        help="end after N hours; the same command resumes (default: no end)",
    )
    command.add_argument("--dry-run", action="store_true", help="print the commands of the runs that would be trained")
    command.add_argument("--force", action="store_true", help="train again runs that have a result")
    commands.choices["clean"].add_argument("--yes", action="store_true", help="remove without asking")
    command = commands.choices["create"]
    command.add_argument("--missing", action="store_true", help="only the points that have no result in the project")
    command.add_argument(
        "--entity", default="", metavar="NAME", help="default: that of the file, WANDB_ENTITY or your default entity"
    )
    command.add_argument("--project", default="", metavar="NAME", help="default: that of the file, else WANDB_PROJECT")
    command = commands.choices["agents"]
    command.add_argument(
        "sweep", metavar="ENTITY/PROJECT/ID", help="a sweep on W&B, as `create` prints it, or the address of its page"
    )
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--gpus", metavar="LIST", help="indices, such as 0,1 (default: all)")
    kind.add_argument("--cpus", type=positive, metavar="N", help="N agents on the CPU instead; needed without a GPU")
    command.add_argument("--per-gpu", type=positive, default=1, metavar="N", help="agents on each GPU (default: 1)")
    command.add_argument(
        "--grace", type=positive, default=60, metavar="SECONDS", help="time for runs to end (default: 60)"
    )

    # Read it
    args, more = parse_words(parser, argv)
    if args.function is agents:
        if more:
            parser.refuse(more)
        return agents(args)
    args.files += more
    if "runs_dir" in vars(args):
        args.runs_dir = user_path(search.assignments(args.set).get("runs_dir", args.runs_dir))
    if not args.files:
        raise UserError("name a sweep file, such as sweeps/quickstart.yaml")
    return args.function(args)


command = partial(run_command, main)
"""The console command `study-sweep`."""

if __name__ == "__main__":
    command()
