"""Writes the report of runs: tables, figures and one page.

python -m analysis.summarize runs --sweep sweeps/dropout.yaml --out report
python -m analysis.summarize ENTITY/PROJECT[/SWEEP_ID]      # runs in W&B
python -m analysis.summarize mine theirs ENTITY/PROJECT     # the runs of several sources in one report
"""

import argparse
import gc
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis import publish, reporting, watch
from analysis.frames import forgotten, pull, runs
from analysis.frames.sections import SMALLEST, Section, by_dataset, of_sweep
from analysis.page import kept, pdf, tables
from analysis.page.attempt import attempted
from analysis.page.blocks import Paragraph
from analysis.themes import brief, per_class
from analysis.wording.texts import LANGUAGES, language, restored, text
from study.config import RESULTS_VERSION
from study.config.argv import parse_words
from study.config.checks import user_path
from study.config.setting import as_word
from study.remote import api as wandb_api
from study.sweeps import definition as search
from study.sweeps.definition import Sweep
from study.system.errors import UserError, expect, printable
from study.system.process import Parser, run_command


@dataclass(frozen=True)
class Report:
    """A report that was written: its page, and the answer of each section by its question; a notebook shows these."""

    page: Path
    answers: dict[str, str]

    def _repr_markdown_(self) -> str:
        return "\n\n".join([*(f"**{title}** {said}" for title, said in self.answers.items()), f"`{self.page}`"])


def report(
    source: str | Path | Sequence[str | Path] = "runs",
    sweep: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path = "report",
    lang: str = "en",
    full: bool = False,
    **values: Any,
) -> Report:
    """Write the report of runs as one page, and return its answers: `report("runs", sweep="sweeps/depth.yaml")`.

    `source` is a directory of runs, ENTITY/PROJECT or ENTITY/PROJECT/SWEEP_ID in W&B, or a list of these. Each sweep
    gets a section; without sweeps, those in the folder `sweeps` that have runs, and the others by data set. `values`
    replace values of the sweeps, such as `epochs=5`, as they did when the runs were trained. The page is
    OUT/index.html, in English or with `lang="es"` in Spanish; with `full`, report.md has everything that it has.

    Raises UserError if there is no such source or no run with a result.
    """
    # Read the runs, print how many there are, and group them
    expect(source, str | Path | Sequence, "report takes a directory of runs or a project of W&B, such as 'runs'")
    search.check_values(
        {name: as_word(value) for name, value in values.items()}, others=("sweep", "out", "lang", "full")
    )
    sweeps = [sweep] if isinstance(sweep, str | Path) else sweep
    pairs = [f"--set={name}={as_word(value)}" for name, value in values.items()]
    args = _read_argv([f"--out={out}", f"--lang={lang}", *(["--full"] if full else []), *pairs])
    args.sources = [str(one) for one in ([source] if isinstance(source, str | Path) else source)]
    args.sweep = [str(one) for one in sweeps]
    args.as_options = lambda values: ", ".join(f"{name}={value!r}" for name, value in values.items())
    frames, listed = _gathered(args)

    # Write the page
    with language(lang):
        page = reporting.write(frames, listed, _source(args), Path(args.out), full=full)
        said = [restored(reporting.answer(frames, section)) for section in listed]
        return Report(page.resolve(), dict(zip(map(restored, reporting.titles(listed)), said, strict=True)))


def sections(
    frames: runs.Frames, named: str | Path | Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> list[Section]:
    """Make a section for each named sweep; without names, for the sweeps in `sweeps/` with runs and for the other runs.

    Without names, a sweep also has a section for each other data set on which its points were trained.

    A sweep is a file, or ENTITY/PROJECT/SWEEP_ID in W&B; `values` replace values of the sweep. If none of the named
    sweeps has a run with a result, but would have some with other values, a line on standard error has these.
    """
    expect(frames, runs.Frames, "sections takes what load returned, such as sections(load('runs'))")
    given = {name: as_word(value) for name, value in (values or {}).items()}
    named = [str(named)] if isinstance(named, str | Path) else list(map(str, named))
    listed = _sections(frames, named, given)
    files = [path for path in named if not wandb_api.sweep_path(path)]
    if files and all(section.runs.empty for section in listed):
        others, points = forgotten.values(frames, [search.read(path, given) for path in files])
        if others:
            wanted = {**(values or {}), **others}
            print(f"note: these sweeps have no finished run, but {points} with the values {wanted}", file=sys.stderr)
    return listed


def _sections(frames: runs.Frames, named: Sequence[str], values: Mapping[str, str]) -> list[Section]:
    """Make the sections of the named sweeps or, without any, those of the sweeps in `sweeps/` and of the other runs."""
    # named sweeps
    search.check_values(values)
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

    # the other runs, by data set; a section has counted its own without a result
    shown = {run for section in listed for run in section.runs.index}
    counted = {fingerprint for section in listed for fingerprint in section.absent.fingerprint}
    is_known = frames.runs.index.isin(shown)
    is_known |= frames.runs.fingerprint.isin(counted) & (frames.runs.state != "finished")
    others = by_dataset(replace(frames, runs=frames.runs[~is_known]))
    if listed:
        others = [replace(section, name=f"{section.name}, {text('other runs')}") for section in others]
    return listed + others


def _on_all_data(frames: runs.Frames, sweep: Sweep) -> list[Section]:
    """Make the sections of a sweep on its own data set and, if it has only one, on each other that runs are of."""
    listed = _with_runs(frames, sweep)
    dataset = sweep.parameters.get("dataset")
    if dataset is None or dataset.varies:
        return listed
    for other in sorted({*frames.runs.dataset} - {*dataset.choices}):
        with suppress(UserError):  # the sweep cannot be run on it
            on_other = sweep.replaced({"dataset": other})
            name = f"{sweep.name}, {other.removeprefix('folder:')}"
            listed += [replace(section, name=name) for section in _with_runs(frames, on_other)]
    return listed


def _with_runs(frames: runs.Frames, sweep: Sweep) -> list[Section]:
    """Make the sections of a sweep if any of its points has a run."""
    networks = sweep.parameters.get("model")
    if networks is not None and networks.choices is not None and not {*networks.choices} & {*frames.runs.model}:
        return []
    points = sweep.points(recorded=frames.recorded)
    has_runs = not {point.config.fingerprint for point in points}.isdisjoint(frames.runs.fingerprint)
    return of_sweep(frames, sweep, points) if has_runs else []


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
    for name, where in (("tag", ""), ("group", " in W&B"), ("author", " in W&B")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar=name.upper(), help=f"only runs{where} with this {name}; "
            "given several times, with one of them",
        )  # fmt: skip
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
        help="smallest difference that matters, in points of accuracy or of the metric that settings are ranked by "
        f"(default: {SMALLEST}): settings are as good as each other if their difference is shown to be smaller",
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
    args.as_options = lambda values: f"`--set {' '.join(f'{name}={as_word(value)}' for name, value in values.items())}`"
    return args


def _print(frames: runs.Frames, section: Section) -> None:
    """Print the answer of a section and its best settings, if it has results."""
    if section.runs.empty:
        return
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
    files = [path for path in named if not wandb_api.sweep_path(path)]
    if files and len(runs.with_result(everything.runs)) > outdated:
        given = search.assignments(args.set)
        values, points = forgotten.values(everything, [search.read(path, given) for path in files])
        if values:
            words = args.as_options({**given, **values})
            return f"there is no finished run{what} in {source}, but {points} with {words}: give it here too"
        if strays := _strays(everything, frames, files, given):
            return f"there is no finished run{what} in {source}; {strays[0]}: list these in the sweep file"
        remedy += ", or give the `--set` with which they were run"
    if args.tag or args.group or args.author:
        remedy = "check the names given by --tag, --group and --author"
    elif not any(Path(word).is_dir() for word in args.sources):
        has_any = named or not everything.runs.empty
        remedy = "W&B has no others" if has_any else "check its name in W&B, and that your key has access"
    return f"there is no finished run{what} in {source}{others}; {remedy}"


def _strays(everything: runs.Frames, frames: runs.Frames, named: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Say how many runs are left out although only their seeds or epochs are not those of the named sweeps."""
    sweeps = [search.read(path, values) for path in named if not wandb_api.sweep_path(path)]
    count, values = forgotten.strays(everything, frames, sweeps)
    if not count:
        return []
    with_these = [f"{name} {', '.join(map(str, found))}" for name, found in values.items()]
    runs_are = f"{count} finished run{'s are' if count > 1 else ' is'}"
    return [f"{runs_are} left out, with values that the sweeps do not have: {'; '.join(with_these)}"]


def main(argv: list[str]) -> int:
    """Print the answers and write the report, as the command line asks."""
    args = _read_argv(argv)
    gc.set_threshold(200_000, 50, 50)  # tables have millions of objects, few of them garbage: 10 % faster
    if args.watch:
        _watch(args)
    else:
        _report(args)
    return 0


def _report(args: argparse.Namespace) -> None:
    """Print the answer of each section, write the report, and print or publish it if that is asked for."""
    browser = pdf.browser() if args.pdf else None
    place = publish.place(args.sources) if args.publish else None
    frames, listed = _gathered(args)
    with language(args.lang):
        show = partial(_print, frames)
        page = reporting.write(frames, listed, _source(args), Path(args.out), _say, show, args.full)
    print(f"report: {printable(page.resolve())}")
    if browser:
        printed = pdf.print_page(page, browser)
        print(f"report: {printable(printed)}")
    elif kept.is_ours(page.parent, pdf.NAME):
        print(
            f"note: {printable(page.with_name(pdf.NAME))} is of an earlier report; --pdf prints it anew",
            file=sys.stderr,
        )
    if place:
        with language(args.lang):
            print(printable(publish.send(place, _source(args), frames, listed, page, _say)))


def _watch(args: argparse.Namespace) -> None:
    """Renew the page until Ctrl-C: in its short form while runs are missing, which is quick, and then the whole."""
    if args.pdf or args.publish:
        raise UserError("--watch renews the page alone; give --pdf or --publish when the runs have ended")
    for path in args.sweep:  # a mistake ends it at once
        if not wandb_api.sweep_path(path):
            search.read(path, search.assignments(args.set))
    known: runs.Known = {}

    def renew(whole: bool) -> bool:
        frames, listed = _gathered(args, known)
        whole = whole or not _has_more_to_come(frames, listed if args.sweep else [])
        with language(args.lang):
            reporting.write(
                frames, listed, _source(args), Path(args.out), full=args.full, reload=watch.SECONDS, whole=whole
            )
        return whole

    watch.watch(list(map(str, args.sources)), Path(args.out) / "index.html", renew)


def _has_more_to_come(frames: runs.Frames, named: Sequence[Section]) -> bool:
    """Return whether runs are being trained, or points of named sweeps have not been."""
    return bool((frames.runs.state == "running").any()) or any(
        section.absent.state.isin(["", "running", "interrupted"]).any() for section in named
    )


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _source(args: argparse.Namespace) -> str:
    return ", ".join(map(str, args.sources))


def _gathered(args: argparse.Namespace, known: runs.Known | None = None) -> tuple[runs.Frames, list[Section]]:
    """Read the runs, print how many there are, and group them into sections; `known` are those read before."""
    # read the runs
    everything = runs.load(
        list(map(str, args.sources)), args.refresh, known, pull.Only(args.tag, args.group, args.author)
    )
    if args.compare_per_class:
        everything = replace(everything, given=per_class.read_accuracies(args.compare_per_class))
        per_class.check_classes(everything.given, everything)

    # print the number of runs by state, and what could not be read
    counts = [
        *everything.runs.state.value_counts().items(),
        *([("left out", everything.left_out)] * bool(everything.left_out)),
    ]
    print(f"{printable(_source(args))}: {', '.join(f'{count} {what}' for what, count in counts) or 'no runs'}")
    for problem in everything.problems:
        print(f"warning: {printable(problem)}", file=sys.stderr)

    # group the runs into sections
    of_sweeps = [word for word in args.sources if wandb_api.sweep_path(word)]
    named = args.sweep or (of_sweeps if len(of_sweeps) == len(args.sources) else [])
    with language(args.lang):
        listed = _sections(everything, named, search.assignments(args.set))
        listed = [replace(section, smallest=args.smallest) for section in listed]
    frames = everything
    if named:
        frames = runs.chosen(
            everything, {fingerprint for section in listed for fingerprint in section.points.fingerprint}
        )

        strays = [] if frames.runs.empty else _strays(everything, frames, named, search.assignments(args.set))
        for problem in strays:
            print(f"warning: {printable(problem)}", file=sys.stderr)
        frames = replace(frames, problems=[*frames.problems, *strays])

    # without results there is no report
    if all(section.runs.empty for section in listed):
        raise UserError(_nothing(_source(args), args, everything, frames, named))
    return frames, listed


command = partial(run_command, main)
"""The console command `study-report`."""

if __name__ == "__main__":
    command()
