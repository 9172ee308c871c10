"""The report: its sections, and the order of their themes.

python -m analysis.summarize runs --out report
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path

from analysis.frames import runs
from analysis.frames.runs import Frames
from analysis.frames.sections import TASK, Section
from analysis.page import html as page
from analysis.page.attempt import attempted
from analysis.page.blocks import Block, Data, Items, Paragraph
from analysis.page.figures import Looks, look
from analysis.page.html import Part
from analysis.themes import (
    answers,
    changes,
    comparison,
    confusion,
    costs,
    layers,
    per_class,
    protocol,
    space,
    speed,
    training,
    transfer,
)
from analysis.wording.texts import mark, option, plural, protected, settings_named, shown, text
from analysis.wording.words import STATES
from study.config.setting import setting_of
from study.record.directory import DONE
from study.system.errors import printable

METHODS = ("optimizer", "lr", "momentum", "weight_decay", "schedule", "batch_size", "epochs", "augment")
"""Options that the report always gives, whatever their values."""

MISSING = 20
"""At most this many points without a result are named."""


def write(
    frames: Frames, sections: Sequence[Section], source: str, out: Path, say: Callable[[str], None] = lambda line: None
) -> Path:
    """Write `index.html`, `report.md`, `tables/` and `figures/` into a folder, and return the path of the page.

    `say` is called with a line at the start of each section, which has the time left.
    """
    summary = plural(
        "{n:,} finished run of {runs:,} in {source}; report of {date}.",
        "{n:,} finished runs of {runs:,} in {source}; report of {date}.",
        len(runs.with_result(frames.runs)),
        runs=len(frames.runs) + len(frames.problems),
        source=printable(source),
        date=date.today().isoformat(),
    )
    return page.write(
        _parts(frames, sections, say), text("Image classifiers compared"), summary, _provenance(frames), out
    )


def _parts(frames: Frames, sections: Sequence[Section], say: Callable[[str], None]) -> Iterator[Part]:
    """Yield the parts of the report one by one, so that only the figures of one section are in memory."""
    # a summary of several sections
    if len(sections) > 1:
        yield Part(
            "summary", text("In short"), "", _part(mark("In short"), lambda: [Items(_summary(frames, sections))])
        )

    # the sections
    started = time.monotonic()
    for done, (section, looks) in enumerate(zip(sections, looks_of(sections), strict=True)):
        left = f", ETA {(time.monotonic() - started) / done * (len(sections) - done):.0f} s" if done else ""
        say(f"section {done + 1}/{len(sections)}: {section.title}{left}")
        yield Part(section.name, section.title, _description(section), _section_blocks(frames, section, looks))

    # all data sets, the whole study, and problems
    compared = _part(
        mark("Data sets side by side"),
        lambda: layers.beside(frames, [section for section in sections if not section.runs.empty]),
    )
    if compared:
        yield Part("data-sets", text("Data sets side by side"), "", compared)
    yield Part("study", text("The whole study"), "", _part(mark("The whole study"), lambda: costs.total(frames)))
    yield Part(
        "protocol",
        text("How it was done"),
        "",
        _part(mark("How it was done"), lambda: protocol.blocks(frames, sections)),
    )
    problems = _problems(frames)
    if problems:
        yield Part(
            "problems",
            text("Runs left out"),
            "",
            [Paragraph(text("As the program reported them."), soft=True), Items(list(map(protected, problems)))],
        )


def _part(name: str, make: Callable[[], list[Block]]) -> list[Block]:
    """Make the blocks of a part with this name; if that fails, return the error message instead."""
    result = attempted(text(name), make)
    return [result] if isinstance(result, Paragraph) else result


def _description(section: Section) -> str:
    """Return the description of a sweep, translated if the catalogue has it, as it has those of `sweeps/`."""
    return text(section.description) if section.description else ""


def looks_of(sections: Sequence[Section]) -> list[Looks]:
    """Return the look of each setting in each section: the same in all sections, and different within a section."""
    groups = [_groups(section) for section in sections]
    places: dict[str, int] = {}
    for group in dict.fromkeys(group for section in groups for group in section.values()):
        # the first look that no other setting in the same sections has
        beside = {places.get(other) for section in groups if group in section.values() for other in section.values()}
        places[group] = next(place for place in range(len(places) + 1) if place not in beside)
    return [{setting: look(places[group]) for setting, group in section.items()} for section in groups]


def _groups(section: Section) -> dict[str, str]:
    """Return the group of each setting, the most accurate first, so that these get the plainest looks."""
    return section.runs.drop_duplicates("setting").set_index("setting").group[section.ranked].to_dict()


def _summary(frames: Frames, sections: Sequence[Section]) -> list[str]:
    """Return one sentence per section."""
    return [f"{protected(section.title)}: {_headline(frames, section)}" for section in sections]


def _headline(frames: Frames, section: Section) -> str:
    """Return the answer of a section in one sentence."""
    if section.runs.empty:
        return text("None of its runs has finished yet.")
    result = attempted(text("The answer"), lambda: answers.headline(frames, section))
    return result.text if isinstance(result, Paragraph) else result


def each_run(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Link to the numbers of each run, named as in summary.json, with its seed and the name of its directory."""
    rows = section.runs.sort_values(["setting", "seed"])
    rows["run"] = [frames.directories[run].path.name for run in rows.index]
    names = ["setting", *section.varied, "seed", "run", *runs.SUMMARY, "device", "device_shared_by", "host"]
    return [Data("runs", text("Each run, with its seed and directory:"), rows[names])]


def _missing(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Name the points without a result."""
    names = section.missing[:MISSING]
    rest = len(section.missing) - MISSING
    if not names:
        return []
    more = [plural("{n:,} other", "{n:,} others", rest)] if rest > 0 else []
    return [Paragraph(text("Without a result:"), soft=True), Items([*map(protected, names), *more], soft=True)]


THEMES: tuple[Callable[[Frames, Section, Looks], list[Block]], ...] = (
    answers.blocks,
    comparison.blocks,
    each_run,
    _missing,
    transfer.blocks,
    space.blocks,
    changes.blocks,
    training.blocks,
    speed.blocks,
    costs.blocks,
    confusion.blocks,
    per_class.blocks,
    layers.blocks,
)
"""The themes of a section whose runs have results; `analysis.page.blocks` describes a theme."""

NAMES = {
    "answers": mark("The answer"),
    "comparison": mark("The comparison of the settings"),
    "each_run": mark("The numbers of each run"),
    "missing": mark("What is missing"),
    "transfer": mark("The ways to use a pretrained network"),
    "space": mark("What the options do"),
    "changes": mark("The effect of single changes"),
    "training": mark("The learning curves"),
    "speed": mark("The time to an accuracy"),
    "costs": mark("The costs"),
    "confusion": mark("The confusions"),
    "per_class": mark("The accuracy of each class"),
    "layers": mark("The layers"),
}
"""Names of the themes, for the message on one that failed."""

MIXED = {
    "device": mark("device"),
    "threads": mark("threads"),
    "precision": mark("precision"),
    "data_digest": mark("data"),
}
"""What should be the same in all runs of a setting."""


def section_blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Return the blocks of a section: its data, notes on its runs, and its themes."""
    return list(_section_blocks(frames, section, looks))


def _section_blocks(frames: Frames, section: Section, looks: Looks) -> Iterator[Block]:
    """Yield the blocks of a section, so that figures of one theme are drawn while the next is computed."""
    # notes, and nothing else without results
    notes = attempted(text("The data"), lambda: _notes(section))
    notes = [notes.text] if isinstance(notes, Paragraph) else notes
    if section.runs.empty:
        yield Items([text("None of its runs has finished yet."), *notes], soft=True)
        yield from _missing(frames, section, looks)
        return

    # data, notes, themes
    yield from _part(mark("The data"), lambda: [Paragraph(line, soft=True) for line in _data(frames, section)])
    if notes:
        yield Items(notes, soft=True)
    for theme in THEMES:
        yield from _part(NAMES[_key(theme)], partial(theme, frames, section, looks))


def _key(theme: Callable) -> str:
    """Return the key of a theme in NAMES: its module or, in this one, its function."""
    return theme.__module__.rpartition(".")[2] if theme.__name__ == "blocks" else theme.__name__.strip("_")


def _data(frames: Frames, section: Section) -> list[str]:
    """Describe the data and the training of the runs of a section."""
    # one sentence per kind of data, each only once
    described = {}
    for run, dataset in section.runs.dataset.items():
        data = frames.data(str(run))
        channels, height, width = data["image_shape"]
        described[
            text(
                "{dataset}: {train:,} training, {val:,} validation and {test:,} test images of {height}×{width} "
                "pixels; channels: {channels}, classes: {classes}.",
                dataset=dataset.removeprefix("folder:"),
                **data["images"],
                channels=channels,
                height=height,
                width=width,
                classes=len(data["classes"]),
            )
        ] = None
    return list(described) + _trained(frames, section)


def _trained(frames: Frames, section: Section) -> list[str]:
    """List the options of the runs that the names of the settings do not include."""
    # options with one value in all runs
    first = section.runs.iloc[0]
    chosen = frames.configs[str(first.name)].identity()
    relevant = [name for name in runs.IDENTITY if name in METHODS or (name in chosen and name not in TASK)]
    same = [name for name in relevant if first[name] is not None and section.runs[name].map(repr).nunique() == 1]

    # options with a usual value
    always = setting_of(first, [name for name in same if name not in (*section.varied, "seed")])
    usual = setting_of(section.usual, section.usual)
    sentences = [text("All runs: {options}.", options=shown(always))] if always.pairs else []
    sentences += (
        [text("Unless the name of a setting says otherwise: {options}.", options=shown(usual))] if usual.pairs else []
    )

    # numbers that the names round
    rounded = [option(name) for name in section.drawn if isinstance(first[name], float)]
    return (
        [
            *sentences,
            text(
                "Rounded in the names of settings, but in full in the CSV file of the comparison: {options}.",
                options=", ".join(rounded),
            ),
        ]
        if rounded
        else sentences
    )


def _notes(section: Section) -> list[str]:
    """Return notes on the runs of a section: missing runs, and settings with mixed devices or data."""
    # runs without a result
    notes = []
    if absent := len(section.absent):
        states = {state: count for state, count in section.states.items() if state != "finished"}
        states |= {"missing": absent - sum(states.values())}
        counts = ", ".join(f"{text(STATES[state])}: {count}" for state, count in states.items() if count)
        notes.append(
            plural(
                "{n} of the {all} runs has no result and is not included in any mean ({states}).",
                "{n} of the {all} runs have no result and are not included in any mean ({states}).",
                absent,
                all=len(section.points),
                states=counts,
            )
        )

    # settings whose runs differ in something that should be the same
    by_setting = section.runs.groupby("setting", sort=False)
    for what, name in MIXED.items():
        values = by_setting[what].agg(lambda column: ", ".join(sorted(map(str, column.unique()))))
        mixed = values[by_setting[what].nunique(dropna=False) > 1]
        for differing, settings in mixed.groupby(mixed, sort=False):
            notes.append(
                text(
                    "Runs of {settings} differ in {what}: {values}.",
                    settings=settings_named(list(settings.index), len(values)),
                    what=text(name),
                    values=differing,
                )
            )
    return notes


def _problems(frames: Frames) -> list[str]:
    """Report the runs that could not be read, and the number of runs of other versions of the code."""
    other = int((frames.runs.results_version != runs.RESULTS_VERSION).sum())
    return [
        *frames.problems,
        *(
            [
                plural(
                    "{n:,} run was trained with another version of the code, whose results differ, and is left out.",
                    "{n:,} runs were trained with another version of the code, whose results differ, and are left out.",
                    other,
                )
            ]
            if other
            else []
        ),
    ]


def _provenance(frames: Frames) -> str:
    """Report the machines and versions with which the runs were trained."""
    done = [run for run in frames.runs.index if frames.runs.state[run] in DONE]
    infos = [frames.directories[run].info() for run in done]
    versions = sorted({f"{name} {version}" for info in infos for name, version in info.get("versions", {}).items()})
    hosts = sorted({f"{info.get('host')} ({info.get('device')})" for info in infos})
    return (
        text("Trained on {hosts} with {versions}.", hosts=", ".join(hosts), versions=", ".join(versions))
        if infos
        else ""
    )
