"""Writes the report of runs: tables, figures and one page.

python -m analysis.summarize runs --sweep sweeps/dropout.yaml --out report
python -m analysis.summarize ENTITY/PROJECT[/SWEEP_ID]      # runs in W&B
python -m analysis.summarize mine theirs ENTITY/PROJECT     # the runs of several sources in one report
"""

import argparse
import gc
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis import publish, report
from analysis.frames import forgotten, pull, runs
from analysis.frames.sections import SMALLEST, Section, by_dataset, of_sweep
from analysis.page import pdf, tables
from analysis.page.attempt import attempted
from analysis.page.blocks import Paragraph
from analysis.page.html import reload_tag
from analysis.themes import brief, per_class
from analysis.wording.texts import LANGUAGES, language, restored, text
from study.config import RESULTS_VERSION
from study.config.argv import parse_words
from study.config.checks import user_path
from study.remote import api as wandb_api
from study.sweeps import definition as search
from study.sweeps.definition import Sweep
from study.system.errors import UserError, printable
from study.system.files import replace_bytes
from study.system.process import Parser, run_command

WATCH_SECONDS = 10
"""Seconds between two looks at the runs with `--watch`."""


def sections(frames: runs.Frames, named: Sequence[str], values: Mapping[str, str]) -> list[Section]:
    """Make a section for each named sweep; without names, for the sweeps in `sweeps/` with runs and for the other runs.

    Without names, a sweep also has a section for each other data set on which its points were trained.

    A sweep is a file, or ENTITY/PROJECT/SWEEP_ID in W&B; `values` replace values of the sweep.
    """
    # named sweeps
    if named:
        sweeps = [
            pull.read_sweep(path).replaced(values) if wandb_api.sweep_path(path) else search.read(path, values)
            for path in named
        ]
        return [section for sweep in sweeps for section in of_sweep(frames, sweep)]

    # the sweeps in sweeps/ that have runs, on their own data or on others
    listed = []
    for path in sorted(Path("sweeps").glob("*.yaml")):
        try:
            sweep = search.read(path, values)
        except UserError as error:
            print(f"warning: no section for a sweep: {printable(error)}", file=sys.stderr)
            continue
        with suppress(UserError):  # values that do not fit it
            tasks = _on_all_data(frames, sweep)
            listed += [section for section in tasks if not section.runs.empty]

    # the other runs, by data set
    shown = {run for section in listed for run in section.runs.index}
    others = by_dataset(replace(frames, runs=frames.runs.drop(index=list(shown))))
    if listed:
        others = [replace(section, name=f"{section.name}, {text('other runs')}") for section in others]
    return listed + others


def _on_all_data(frames: runs.Frames, sweep: Sweep) -> list[Section]:
    """Make the sections of a sweep on its own data set and, if it has only one, on each other that runs are of."""
    listed = of_sweep(frames, sweep) if _has_runs(frames, sweep) else []
    dataset = sweep.parameters.get("dataset")
    if dataset is None or dataset.varies:
        return listed
    for other in sorted({*frames.runs.dataset} - {*dataset.choices}):
        with suppress(UserError):  # the sweep cannot be run on it
            on_other = sweep.replaced({"dataset": other})
            if _has_runs(frames, on_other):
                name = f"{sweep.name}, {other.removeprefix('folder:')}"
                listed += [replace(section, name=name) for section in of_sweep(frames, on_other)]
    return listed


def _has_runs(frames: runs.Frames, sweep: Sweep) -> bool:
    """Return whether a point of a sweep has a run; many times as fast as making its sections."""
    points = {point.config.fingerprint for point in sweep.points(recorded=frames.recorded)}
    return not points.isdisjoint(frames.runs.fingerprint)


def _read_argv(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    # the runs
    parser = Parser(
        "python -m analysis.summarize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sources",
        nargs="*",
        type=user_path,
        metavar="SOURCE",
        help="directory of runs (default: runs), or ENTITY/PROJECT[/SWEEP_ID] in W&B; of several, the runs of all",
    )
    parser.add_argument("--refresh", action="store_true", help="fetch all runs from W&B again, unchanged ones too")

    # the sections
    parser.add_argument(
        "--sweep",
        nargs="+",
        action="extend",
        default=[],
        metavar="SWEEP",
        help="a section for each of these sweeps, files or ENTITY/PROJECT/SWEEP_ID (default: those in sweeps/ that "
        "have runs, others by data set)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE …",
        help="values that replace those of the sweeps, as given to `study.sweep run`",
    )

    # the report
    parser.add_argument(
        "--smallest",
        type=_points,
        default=SMALLEST,
        metavar="POINTS",
        help=f"smallest difference in accuracy that matters, in points (default: {SMALLEST}): settings are as good as "
        "each other if their difference is shown to be smaller",
    )
    parser.add_argument(
        "--out", type=user_path, default="report", metavar="DIR", help="folder to write (default: report)"
    )
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="English or Spanish (default: en)")
    parser.add_argument(
        "--compare-per-class",
        type=user_path,
        metavar="FILE",
        help="compare each class's accuracy with another run's, by its directory, or with a CSV file: class,accuracy",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="put everything that the page has into report.md and report.pdf, not the short form alone, and write each "
        "figure in all formats",
    )
    parser.add_argument(
        "--watch", action="store_true", help="renew the page as runs finish, and let it reload itself, until Ctrl-C"
    )
    parser.add_argument("--pdf", action="store_true", help="also print report.pdf (needs Chromium or Chrome)")
    parser.add_argument("--publish", action="store_true", help="also publish the report in ENTITY/PROJECT at W&B")
    args, more = parse_words(parser, argv)

    # a directory is no sweep: after --sweep it is the source, as is a word after other options
    folders = [word for word in args.sweep if Path(word).is_dir()]
    for word in folders:
        args.sweep.remove(word)
    args.sources = [*args.sources, *map(user_path, [*folders, *more])] or ["runs"]
    return args


def _print(frames: runs.Frames, section: Section) -> None:
    """Print the answer of a section and its best settings."""
    said = attempted(text("The answer"), lambda: brief.recommendation(frames, section))
    table = attempted(text("The comparison of the settings"), lambda: brief.table(frames, section))
    print(restored(f"{section.name}\n\n{said.text if isinstance(said, Paragraph) else said}\n".replace("**", "")))
    if isinstance(table, tables.Table):
        print(restored("\n".join([tables.markdown(table), *table.notes])))


def _points(text: str) -> float:
    """Convert the value of `--smallest`; raise ValueError unless it is a number above 0, at most 100."""
    points = float(text)
    if not 0 < points <= 100:
        raise ValueError(text)
    return points


def _nothing(
    source: str, args: argparse.Namespace, everything: runs.Frames, frames: runs.Frames, named: Sequence[str]
) -> str:
    """Say that there is no run to report, why, and what to do."""
    # runs of other versions, and runs that are those of a named sweep but for a forgotten `--set`
    what = " of these sweeps" if named else ""
    outdated = int((frames.runs.results_version != RESULTS_VERSION).sum())
    others = f": the results of {outdated} are of another version of the code and not comparable" if outdated else ""
    remedy = "train some with `python -m study.sweep run`"
    for path in named if named and len(runs.with_result(everything.runs)) > outdated else ():
        if not wandb_api.sweep_path(path):
            values, points = forgotten.values(everything, search.read(path, search.assignments(args.set)))
            words = " ".join(f"{name}={_word(value)}" for name, value in values.items())
            if words:
                return f"{source} holds no finished run{what}, but {points} with `--set {words}`: give it here too"
            remedy += ", or give the `--set` with which they were run"
            break
    if not any(Path(word).is_dir() for word in args.sources):
        has_any = named or not everything.runs.empty
        remedy = "W&B has no others" if has_any else "check its name in W&B, and that your key has access"
    return f"{source} holds no finished run{what}{others}; {remedy}"


def _word(value: Any) -> str:
    """Write the value of an option as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def main(argv: list[str]) -> int:
    """Print the answers and write the report, as the command line asks."""
    args = _read_argv(argv)
    gc.set_threshold(200_000, 50, 50)  # tables have millions of objects, few of them garbage: 10 % faster
    if args.watch:
        _watch(args)
    else:
        _report(args)
    return 0


def _watch(args: argparse.Namespace) -> None:
    """Write the page again whenever runs have changed, until Ctrl-C; then it no longer reloads itself."""
    if args.pdf or args.publish:
        raise UserError("--watch renews the page alone; give --pdf or --publish when the runs have ended")
    print(f"watching {', '.join(map(printable, args.sources))} every {WATCH_SECONDS} s; Ctrl-C ends it", flush=True)
    seen = None
    try:
        while True:
            # an error, such as no finished run yet or W&B being away, does not end it
            try:
                state = [_state(str(source)) for source in args.sources]
                if state != seen:
                    began = time.monotonic()
                    seen = state
                    _report(args)
                    print(f"{time.strftime('%H:%M:%S')}  renewed in {time.monotonic() - began:.1f} s", flush=True)
            except UserError as error:
                print(f"{time.strftime('%H:%M:%S')}  not yet: {error}", flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return
    finally:
        page = Path(args.out) / "index.html"
        if page.exists():
            replace_bytes(page, page.read_bytes().replace(reload_tag(WATCH_SECONDS).encode(), b""))


def _state(source: str) -> list[tuple[str, ...]]:
    """Return what changes when a run of a source begins, ends or is deleted."""
    if not Path(source).is_dir():
        return [(str(run), str(state)) for run, state in runs.load(source).runs.state.items()]
    found = []
    for path in sorted(Path(source).iterdir()):
        for name in ("run.json", "summary.json"):
            with suppress(OSError):  # not there, or deleted just now
                found.append((str(path / name), str((path / name).stat().st_mtime_ns)))
    return found


def _report(args: argparse.Namespace) -> None:
    """Read the runs, print the answers and write the report once."""
    # read the runs
    browser = pdf.browser() if args.pdf else None
    place = publish.place(args.sources) if args.publish else None
    source = ", ".join(map(str, args.sources))
    frames = runs.load(list(map(str, args.sources)), args.refresh)
    if args.compare_per_class:
        frames = replace(frames, given=per_class.read_accuracies(args.compare_per_class))
        per_class.check_classes(frames.given, frames)

    # print the number of runs by state, and what could not be read
    counts = [
        *frames.runs.state.value_counts().items(),
        *([("left out", len(frames.problems))] * bool(frames.problems)),
    ]
    print(f"{printable(source)}: {', '.join(f'{count} {what}' for what, count in counts) or 'no runs'}")
    for problem in frames.problems:
        print(f"warning: {printable(problem)}", file=sys.stderr)

    # group the runs into sections
    everything = frames
    of_sweeps = [word for word in args.sources if wandb_api.sweep_path(word)]
    named = args.sweep or (of_sweeps if len(of_sweeps) == len(args.sources) else [])
    with language(args.lang):
        listed = sections(everything, named, search.assignments(args.set))
        listed = [replace(section, smallest=args.smallest) for section in listed]
    if named:
        frames = runs.chosen(
            everything, {fingerprint for section in listed for fingerprint in section.points.fingerprint}
        )

    # without results there is no report
    if all(section.runs.empty for section in listed):
        raise UserError(_nothing(source, args, everything, frames, named))

    def say(line: str) -> None:
        if not args.watch:
            print(printable(line), file=sys.stderr, flush=True)

    # print the answer of each section, write the report
    with language(args.lang):
        for section in listed:
            if not section.runs.empty and not args.watch:
                _print(frames, section)
        reload = WATCH_SECONDS if args.watch else 0
        page = report.write(frames, listed, source, Path(args.out), say, args.full, reload)
    print(f"report: {printable(page.resolve())}")
    if browser:
        print(f"report: {printable(pdf.print_page(page, browser))}")
    if place:
        with language(args.lang):
            print(printable(publish.send(place, source, frames, listed, page, say)))


if __name__ == "__main__":
    run_command(main)
