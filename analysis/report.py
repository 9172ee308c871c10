"""The report: what it says of each section, in which order.

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
    space,
    speed,
    training,
    transfer,
)
from analysis.wording.texts import label, option, protected, sentence, settings_named, shown, spoken, texts
from study.record.directory import DONE
from study.sweeps.definition import label as option_label
from study.system.errors import printable

METHODS = ("optimizer", "lr", "momentum", "weight_decay", "schedule", "batch_size", "epochs", "augment")
"""Options that a reader wants to know, whatever their values."""

MISSING = 20
"""So many points without a result are named."""


def write(
    frames: Frames, sections: Sequence[Section], source: str, out: Path, say: Callable[[str], None] = lambda line: None
) -> Path:
    """Write `index.html`, `report.md`, `tables/` and `figures/` into a folder, and return the path of the page.

    `say` is told of each section that is begun, and how long the rest may take.
    """
    said = sentence(
        "source",
        finished=len(runs.with_result(frames.runs)),
        runs=len(frames.runs) + len(frames.problems),
        source=printable(source),
        date=date.today().isoformat(),
    )
    return page.write(_parts(frames, sections, say), label("report_title"), said, _made_with(frames), out)


def _parts(frames: Frames, sections: Sequence[Section], say: Callable[[str], None]) -> Iterator[Part]:
    """Make the parts of the report one after the other, so that one section's figures are held at a time."""
    if len(sections) > 1:
        yield Part("summary", label("summary"), "", _part("summary", lambda: [Items(_summary(frames, sections))]))
    started = time.monotonic()
    for done, (section, looks) in enumerate(zip(sections, looks_of(sections), strict=True)):
        left = f", ETA {(time.monotonic() - started) / done * (len(sections) - done):.0f} s" if done else ""
        say(f"section {done + 1}/{len(sections)}: {section.title}{left}")
        yield Part(section.name, section.title, _description(section), section_blocks(frames, section, looks))
    compared = _part(
        "data_sets", lambda: layers.beside(frames, [section for section in sections if not section.runs.empty])
    )
    if compared:
        yield Part("data-sets", label("data_sets"), "", compared)
    yield Part("study", label("study"), "", _part("study", lambda: costs.total(frames)))
    problems = _problems(frames)
    if problems:
        yield Part(
            "problems",
            label("problems"),
            "",
            [Paragraph(sentence("problems_note"), soft=True), Items(list(map(protected, problems)))],
        )


def _part(name: str, make: Callable[[], list[Block]]) -> list[Block]:
    """Make the blocks of a part, whose label is `name`; where that fails, say so in their place."""
    made = attempted(label(name), make)
    return [made] if isinstance(made, Paragraph) else made


def _description(section: Section) -> str:
    """Return what a sweep says of itself, translated where `wording.yaml` holds that text."""
    said = (known for key, known in texts().items() if key.startswith("sweep "))
    return next((known[spoken()] for known in said if known["en"] == section.description), section.description)


def looks_of(sections: Sequence[Section]) -> list[Looks]:
    """Give each section's settings their looks: one setting has one in all sections, two of one section never share."""
    groups = [_groups(section) for section in sections]
    found: dict[str, int] = {}
    for group in dict.fromkeys(group for section in groups for group in section.values()):
        beside = {found.get(other) for section in groups if group in section.values() for other in section.values()}
        found[group] = next(place for place in range(len(found) + 1) if place not in beside)
    return [{setting: look(found[group]) for setting, group in section.items()} for section in groups]


def _groups(section: Section) -> dict[str, str]:
    """Return the group that stands for each setting, the most accurate first: they get the plainest looks."""
    return section.runs.drop_duplicates("setting").set_index("setting").group[section.ranked].to_dict()


def _summary(frames: Frames, sections: Sequence[Section]) -> list[str]:
    """Answer each section in one sentence."""
    return [f"{protected(section.title)}: {_headline(frames, section)}" for section in sections]


def _headline(frames: Frames, section: Section) -> str:
    if section.runs.empty:
        return sentence("nothing")
    made = attempted(label("theme answers"), lambda: answers.headline(frames, section))
    return made.text if isinstance(made, Paragraph) else made


def each_run(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Give the numbers of each run, named as in its summary.json, with its seed and the name of its directory."""
    found = section.runs.sort_values(["setting", "seed"])
    found["run"] = [frames.directories[run].path.name for run in found.index]
    names = ["setting", *section.varied, "seed", "run", *runs.SUMMARY_METRICS, "device", "device_shared_by", "host"]
    return [Data("runs", sentence("each_run"), found[names])]


def _missing(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Name the points without a result."""
    names, rest = section.missing[:MISSING], len(section.missing) - MISSING
    more = [sentence("more", count=rest)] if rest > 0 else []
    return [Paragraph(label("missing"), soft=True), Items([*map(protected, names), *more], soft=True)] if names else []


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
"""What is said of a section whose runs have results; `analysis.blocks` describes a theme."""


def section_blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Say what a section's runs were trained on, what a reader must know of them, and what each theme finds."""
    notes = attempted(label("theme data"), lambda: _notes(section))
    notes = [notes.text] if isinstance(notes, Paragraph) else notes
    if section.runs.empty:
        return [Items([sentence("nothing"), *notes], soft=True), *_missing(frames, section, looks)]
    found = _part("theme data", lambda: [Paragraph(text, soft=True) for text in _data(frames, section)])
    if notes:
        found.append(Items(notes, soft=True))
    return found + [block for theme in THEMES for block in _part(_label(theme), partial(theme, frames, section, looks))]


def _label(theme: Callable) -> str:
    """Return the key of a theme's name."""
    return f"theme {theme.__module__.rpartition('.')[2] if theme.__name__ == 'blocks' else theme.__name__.strip('_')}"


def _data(frames: Frames, section: Section) -> list[str]:
    """Describe the data of a section's runs."""
    described = {}
    for run, dataset in section.runs.dataset.items():
        data = frames.data(str(run))
        channels, height, width = data["image_shape"]
        described[
            sentence(
                "data", dataset=dataset.removeprefix("folder:"), **data["images"],
                channels=channels, height=height, width=width, classes=len(data["classes"]),
            )
        ] = None  # fmt: skip
    return list(described) + _trained(frames, section)


def _trained(frames: Frames, section: Section) -> list[str]:
    """Say with which options the runs were trained, as far as the names of the settings do not."""
    first = section.runs.iloc[0]
    chosen = frames.configs[str(first.name)].identity()
    told = [name for name in runs.IDENTITY if name in METHODS or (name in chosen and name not in TASK)]
    same = [name for name in told if first[name] is not None and section.runs[name].map(repr).nunique() == 1]
    said = {"trained": option_label(first, [name for name in same if name not in (*section.varied, "seed")])}
    said["trained_usual"] = option_label(section.usual, list(section.usual))
    found = [sentence(key, options=shown(options)) for key, options in said.items() if options]
    rounded = [option(name) for name in section.drawn if isinstance(first[name], float)]
    return [*found, sentence("rounded", options=", ".join(rounded))] if rounded else found


def _notes(section: Section) -> list[str]:
    """Say what a reader must know of a section's runs: what is missing, what is left out, what is mixed."""
    notes = []
    if absent := len(section.absent):
        states = {state: count for state, count in section.states.items() if state != "finished"}
        states |= {"missing": absent - sum(states.values())}
        counts = ", ".join(f"{label(f'state {state}')}: {count}" for state, count in states.items() if count)
        notes.append(sentence("missing_count", count=absent, all=len(section.points), states=counts))
    by_setting = section.runs.groupby("setting", sort=False)
    for what in ("device", "threads", "precision", "data_digest"):
        values = by_setting[what].agg(lambda found: ", ".join(sorted(map(str, found.unique()))))
        mixed = values[by_setting[what].nunique(dropna=False) > 1]
        for found, settings in mixed.groupby(mixed, sort=False):
            notes.append(
                sentence(
                    "mixed",
                    settings=settings_named(list(settings.index), len(values)),
                    what=label(f"run {what}"),
                    values=found,
                )
            )
    return notes


def _problems(frames: Frames) -> list[str]:
    """Say which runs could not be read, and how many were made by another version of the code."""
    other = int((frames.runs.results_version != runs.RESULTS_VERSION).sum())
    return [*frames.problems, *([sentence("other_version", count=other)] if other else [])]


def _made_with(frames: Frames) -> str:
    """Say on which machines and with which versions the runs were made."""
    done = [run for run in frames.runs.index if frames.runs.state[run] in DONE]
    infos = [frames.directories[run].info() for run in done]
    versions = sorted({f"{name} {version}" for info in infos for name, version in info.get("versions", {}).items()})
    hosts = sorted({f"{info.get('host')} ({info.get('device')})" for info in infos})
    return sentence("made_with", hosts=", ".join(hosts), versions=", ".join(versions)) if infos else ""
