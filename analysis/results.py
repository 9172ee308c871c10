"""Writes the results of the study: for each question what its source found, and what the runs answer.

python -m analysis.results docs/study --set dataset=folder:cifar10-jpeg --out docs     # results.md and resultados.md
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import reporting
from analysis.frames import contrasts, runs
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, by_network, of_sweep
from analysis.frames.statistics import ALPHA, estimates
from analysis.page import html, tables
from analysis.page.blocks import Block, Items, Paragraph, Picture
from analysis.page.tables import Table, p_words
from analysis.themes import about, asked, brief, comparison, costs, layers, pareto, sources, speed
from analysis.themes.sources import Found
from analysis.wording import texts as wording
from analysis.wording.texts import heading, number, plural, shown, text
from study.config.checks import user_path
from study.sweeps import definition as search
from study.system.errors import UserError
from study.system.process import Parser, run_command

FILES = {"en": "results.md", "es": "resultados.md"}
"""The file of each language."""

SWEEPS = Path("sweeps")

SEEN = ("simple-cnn", "alexnet")
"""Sweeps whose networks are looked at layer by layer, side by side."""

TIMED = {"mlp": {"epochs": "3"}, "architectures": {"epochs": "3", "train_images": "1000"}}
"""Sweeps whose times are measured, and the values of the short trainings for it."""

OTHERS = {
    "transfer": {
        "model": "timm:efficientnet_lite0",
        "weights": "efficientnet_lite0.safetensors",
        "weights_digest": "2b4a5f7e9a1870e2",
        "stem": "auto",
        "epochs": "20",
    }
}
"""Sweeps that the study was run with other values of, and these values."""

UNFIT = ("score", "peak_mb")
"""Columns of the costs of short trainings that say little: their accuracy, and on a CPU the peak memory of a process,
which has that of the runs before."""

OF_WHOLE_EPOCHS = ("epoch_seconds", "train_seconds")
"""Columns that say little if there are fewer training images than validation images."""

NAMED = ("confusion-counts", "tsne")
"""Pictures that a section has beside its first one."""

DOTS_PER_INCH = 80


def sections(frames: Frames, values: Mapping[str, str]) -> list[tuple[Found, Section]]:
    """Return the section of each result of the sources that has runs; `values` replace values of the sweeps."""
    found = []
    for entry in sources.FOUND:
        own = {**values, **OTHERS.get(entry.sweep, {})}
        listed = _with_runs(frames, entry.sweep, own) or _with_runs(frames, entry.sweep, {})
        found += [(entry, section) for section in listed[:1]]
    return found


def _with_runs(frames: Frames, name: str, values: Mapping[str, str]) -> list[Section]:
    """Return the sections with runs of a sweep of the study with these values; none if the values do not fit it."""
    try:
        listed = of_sweep(frames, search.read(SWEEPS / f"{name}.yaml", {}).replaced(values))
    except UserError:
        return []
    return [section for section in listed if not section.runs.empty]


def overview(found: Sequence[tuple[Found, Section]]) -> str:
    """Write a table of all questions: the best setting, its accuracy, and how far it is above the next one."""
    rows = [
        [text("Question"), text("Best setting here"), heading("score"), text("Lead over next (points)"), heading("n")]
    ]
    for entry, section in found:
        link = f"[{_question(entry)}](#{_anchor(_question(entry))})"
        answered = [part for part in _parts(entry, section).values() if _is_answered(part)]
        for part in answered:
            first, *others = [row for _, row in contrasts.compare(part).iterrows() if row.n > 0]
            score = comparison.with_interval(first, "score")
            cells = [shown(first.setting), score, _lead(first, others), str(int(first.n))]
            rows.append([link if part is answered[0] else "", *map(tables.escape_markdown, cells)])
        if not answered:
            rows.append([link, text("not answered yet"), "", "", ""])
    rows.insert(1, [":---", ":---", "---:", "---:", "---:"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _parts(entry: Found, section: Section) -> dict[str, Section]:
    """Return what a result is answered for: the part of each network by its name, or the whole section without one."""
    return (by_network(section) if entry.by_network else {}) or {"": section}


def _is_answered(section: Section) -> bool:
    """Return whether most settings of a section have a result."""
    has_result = contrasts.compare(section).n > 0
    return 2 * has_result.sum() > len(has_result)


def _lead(first: pd.Series, others: Sequence[pd.Series]) -> str:
    """Write how far the best setting is above the next one, with p if both have several seeds; empty without another.

    `first` and `others` are rows of `contrasts.compare`.
    """
    if not others:
        return ""
    second = others[0]
    if first.below == 0 and second.p_holm == second.p_holm:
        ends_at_0 = second.p_holm < ALPHA and round(second.below_ci95, 2) >= round(second.below, 2)
        points = number(second.below, ".2f") if ends_at_0 else asked.with_interval(second, "below")
        return f"{points}, {p_words(second.p_holm)}"
    return number(first.score - second.score, ".2f")


def _question(entry: Found) -> str:
    """Return the question of a result, in the current language."""
    return html.plain(text(search.read(SWEEPS / f"{entry.sweep}.yaml", {}).description))


def _anchor(title: str) -> str:
    """Return what GitHub names a heading in links."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def lines(frames: Frames, entry: Found, section: Section, timed: Sequence[Section], folder: Path) -> list[str]:
    """Write a result as paragraphs of Markdown: the question, the source's answer, ours, and why they may differ.

    `timed` are short trainings of the same sweep, whose times answer what it asks of speed. Figures are saved in the
    folder `figures` of the folder.
    """
    # the question and what the source found
    written = [f"## {_question(entry)}", html.plain(f"**{text('The source')}**: {text(entry.found)}")]

    # our answer for all together or for each network, with options and missing runs
    parts = _parts(entry, section)
    open_for = [network for network, part in parts.items() if network and not _is_answered(part)]
    for network, part in parts.items():
        if network in open_for:
            continue
        if network:
            written.append(f"### {html.plain(network)}")
        said = _said(frames, entry, part, {"speed"} if timed else set())
        said += [f"**{text('Speed')}.** {times}" for short in timed if (times := _training_times(part, short))]
        blocks: list[Block | None] = [Items(said), brief.table(frames, part)]
        if entry.figure:
            blocks.insert(1, brief.picture(part, reporting.looks_of([part])[0]))
        if "confusion" in part.subjects:
            blocks.append(brief.matrix(frames, part))
        written.append(html.plain(f"**{text('Here')}**: {_answer(frames, part)}"))
        for block in filter(None, blocks):
            written += _markdown(block, folder, entry.sweep)
        written.append(html.plain(" ".join([*about.trained(frames, part), *about.notes(part)])))
    if open_for:
        written.append(
            html.plain(
                text(
                    "Not answered yet for {networks}: half of their settings or more have no result.",
                    networks=", ".join(open_for),
                )
            )
        )

    # why there is a difference
    if entry.why:
        written.append(html.plain(f"**{text('If they differ')}**: {text(entry.why)}"))
    return written


def _answer(frames: Frames, section: Section) -> str:
    """Return our answer as the short form of the report has it, if most settings have a result."""
    if _is_answered(section):
        return brief.recommendation(frames, section)
    has_result = contrasts.compare(section).n > 0
    return plural(
        "Not answered yet: {n} of {all} settings has a result.",
        "Not answered yet: {n} of {all} settings have a result.",
        int(has_result.sum()),
        all=len(has_result),
    )


def _said(frames: Frames, entry: Found, section: Section, without: set[str]) -> list[str]:
    """Return a line for each thing asked but `without` some.

    Of one network, the change by each setting says more than its ranking.
    """
    if not _is_answered(section):
        return []
    said = []
    if entry.by_network:
        without = without | {"accuracy"}
        changed = asked.changes(section)
        said = [f"**{text('Changes')}.** {changed}"] if changed else []
    said += asked.lines(frames, section, without)
    if entry.loss:
        said.append(f"**{text('Loss')}.** {asked.losses(section)}")
    if entry.last:
        said.append(f"**{text('Last epoch')}.** {asked.at_the_end(section)}")
    return said


def beside(frames: Frames, found: Sequence[tuple[Found, Section]], folder: Path) -> list[str]:
    """Write what the layers of the networks of SEEN separate, side by side, and what could be cut from each network.

    Empty if fewer than two of them have runs with features.
    """
    seen = [section for entry, section in found if entry.sweep in SEEN]
    content = layers.beside(frames, seen)
    if not content:
        return []
    written = [
        f"## {html.plain(text('What do the layers of these two networks separate, and what could be cut from them?'))}",
        html.plain(f"**{text('The source')}**: {text(sources.LAYERS)}"),
    ]
    content += [block for section in seen for block in layers.cuts(frames, section)]
    for block in content:
        written += _markdown(block, folder, "layers")
    return written


def times(
    frames: Frames, found: Sequence[tuple[Found, Section]], timed: Mapping[str, Sequence[Section]], folder: Path
) -> list[str]:
    """Write what the networks cost, from the short trainings TIMED that had the machine alone; empty without any."""
    written = []
    whole = {entry.sweep: section for entry, section in found}
    for name, listed in timed.items():
        for section in listed if name in whole else ():
            if not (said := _training_times(whole[name], section)):
                continue
            written.append(html.plain(f"- {said}"))
            if picture := _accuracy_and_time(whole[name], section):
                written += _markdown(picture, folder, f"costs-{name}")
            unfit = UNFIT + OF_WHOLE_EPOCHS * bool(section.runs.train_images.notna().any())
            table = costs.table(section, unfit)
            table = replace(table, frame=table.frame.sort_values("images_per_second", ascending=False))
            written += _markdown(table, folder, "costs")
            written.append(html.plain(" ".join(about.trained(frames, section))))
    title = [
        f"## {html.plain(text('What do the networks cost in time?'))}",
        html.plain(f"**{text('The source')}**: {text(sources.COSTS)}"),
    ]
    why = html.plain(f"**{text('If they differ')}**: {text(sources.COSTS_DIFFER)}")
    return [*title, *written, why] if written else []


def _seconds(whole: Section, short: Section) -> pd.DataFrame:
    """Return the time of training on all images of the whole trainings once, from the speed of the short ones.

    `seconds` and `n` of each setting of the short trainings, the fastest first. Validation is left out: the short
    trainings may have fewer training images, but as many validation images.
    """
    images = (whole.runs.iterations / whole.runs["last/epoch"] * whole.runs.batch_size).median()
    by_run = short.runs[["setting"]].assign(seconds=images / speed.epoch_seconds(short).images_per_second).dropna()
    frame = estimates(by_run, "setting", ["seconds"]).assign(n=by_run.groupby("setting").size())
    return frame.sort_values("seconds")


def _training_times(whole: Section, short: Section) -> str:
    """Report the seconds of `_seconds`; "" if no run has any."""
    frame = _seconds(whole, short)
    if frame.empty:
        return ""
    times = [
        text("{setting}: {seconds} s", setting=shown(setting), seconds=asked.with_interval(row, "seconds", ",.1f"))
        for setting, row in frame.iterrows()
    ]
    said = text("Training on all images once, without validation: {times}.", times="; ".join(times))
    runs = plural("One short run of each.", "Mean of {n} short runs of each.", int(frame.n.min()))
    return f"{said} {runs}"


def _accuracy_and_time(whole: Section, short: Section) -> Picture | None:
    """Draw the accuracy of the settings of a section against the time of training on all images once.

    None if most settings have no accuracy, or fewer than two have both.
    """
    # a setting of the short trainings lacks the epochs that settings of the whole ones may differ in
    rows = [
        {"setting": row.setting, "score": row.score, "score_ci95": row.score_ci95, "epoch_seconds": value}
        for row in costs.measure(whole).itertuples()
        for setting, value in _seconds(whole, short).seconds.items()
        if set(setting.pairs) <= set(row.setting.pairs)
    ]
    frame = pd.DataFrame(rows)
    if len(frame) < 2 or not _is_answered(whole):
        return None

    # drawn as the costs of a report are
    title = text("Accuracy against time: {name}", name=whole.title)
    caption = text(
        "Best validation accuracy of the whole trainings (mean over seeds) against the time of training on all images "
        "once, without validation, from the speed of the short ones. The dashed line joins the settings that no "
        "faster one beats on average."
    )
    figure = pareto.draw(frame, ["epoch_seconds"], title)
    figure.axes[0].set_xlabel(text("Training on all images once (s)"))
    return Picture("pareto", title, figure, caption)


def _markdown(block: Block, folder: Path, stem: str) -> list[str]:
    """Write a block as paragraphs; a picture is saved as `figures/<stem>-<language>.png`.

    A matrix or a t-SNE has its name behind the stem.
    """
    match block:
        case Paragraph():
            return [html.plain(block.text)]
        case Picture():
            kind = f"-{block.name}" if block.name in NAMED else ""
            name = f"figures/{stem}{kind}-{wording.spoken()}.png"
            block.figure.savefig(folder / name, dpi=DOTS_PER_INCH)
            return [f"![{html.plain(block.title)}]({name})", html.plain(block.caption)]
        case Items():
            return ["\n".join(f"- {html.plain(line)}" for line in block.texts)]
        case Table():
            said_above = {text(note) for note in brief.INTERVALS.values()}
            notes = [note for note in block.notes if note not in said_above]
            return [tables.markdown(block).rstrip(), html.plain(" ".join(notes))]
    return []


def write(source: str, values: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the results in each language into a folder, and return the paths of the files."""
    # group the runs once: what is computed of a section serves both languages
    frames = runs.load(source)
    found = sections(frames, values)
    if not found:
        raise UserError(f"{source} holds no finished run of a sweep with a source")
    timed = {name: _with_runs(frames, name, {**values, **short}) for name, short in TIMED.items()}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    options = "".join(f" --set {name}={value}" for name, value in values.items())
    command = f"python -m analysis.results {source}{options}"

    # a page for each language
    paths = []
    for language, name in FILES.items():
        with wording.language(language):
            written = _page(frames, found, timed, folder, source, command)
        html.save(folder / name, "\n\n".join(line for line in written if line) + "\n")
        paths.append(folder / name)
    return paths


def _page(
    frames: Frames, found: Sequence[tuple[Found, Section]], timed: Mapping[str, Sequence[Section]], folder: Path,
    source: str, command: str,
) -> list[str]:  # fmt: skip
    """Write the paragraphs of a page in the current language."""
    shown_here = [section for _, section in found] + [section for listed in timed.values() for section in listed]
    used = {run for section in shown_here for run in section.runs.index}
    machines = about.machine_names(frames.runs.loc[list(used)]).unique()
    written = [
        f"# {text('Results')}",
        text(
            "What the sources of the experiments found, and what the {count:,} runs here answer. This page is "
            "written by `{command}`; the whole report of the same runs is made by `python -m analysis.summarize "
            "{source}`.",
            count=len(used),
            command=command,
            source=source,
        ),
        text(
            "Accuracies in percent, mean ± half the 95 % interval over seeds; p and the intervals of differences "
            "are corrected for all comparisons in a table ([statistics.md](statistics.md)). Settings are ranked "
            "by the best validation accuracy of each run; each was tested once, after its training. A difference “on "
            "these images” may be another one on other validation images: its interval is over seeds only. Trained on "
            "{machines}.",
            machines=", ".join(sorted(machines)),
        ),
        text(brief.INTERVALS[True]),
        overview(found),
    ]
    for entry, section in found:
        written += lines(frames, entry, section, timed.get(entry.sweep, ()), folder)
    return written + beside(frames, found, folder) + times(frames, found, timed, folder)


def main(argv: list[str]) -> int:
    """Write the results in each language."""
    parser = Parser(
        "python -m analysis.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", type=user_path, default="docs/study", help="runs (default: docs/study)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE …", help="values of the sweeps")
    parser.add_argument("--out", type=user_path, default="docs", metavar="DIR", help="folder to write (default: docs)")
    args = parser.parse_args(argv)
    for path in write(args.source, search.assignments(args.set), Path(args.out)):
        print(path)
    return 0


if __name__ == "__main__":
    run_command(main)
