"""The report: its sections, and the order of their themes.

python -m analysis.summarize runs --out report
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

from analysis.frames import runs
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, in_its_words
from analysis.page import html as page
from analysis.page.attempt import attempted
from analysis.page.blocks import Block, Items, Paragraph
from analysis.page.figures import Looks, look
from analysis.page.html import Part
from analysis.themes import (
    about,
    answers,
    brief,
    changes,
    comparison,
    confusion,
    costs,
    explained,
    glossary,
    layers,
    per_class,
    protocol,
    scores,
    space,
    speed,
    training,
    transfer,
)
from analysis.wording.texts import mark, plural, protected, text
from study.record.directory import DONE
from study.system.errors import printable
from study.system.progress import Say


def write(
    frames: Frames,
    sections: Sequence[Section],
    source: str,
    out: Path,
    say: Say = lambda line: None,
    show: Callable[[Section], None] = lambda section: None,
    full: bool = False,
    reload: int = 0,
    whole: bool = True,
) -> Path:
    """Write `index.html`, `report.md`, `tables/` and `figures/` into a folder, and return the path of the page.

    `report.md` and the printed page have the short form, or everything if `full`. The page reloads itself every
    `reload` seconds, unless 0; unless `whole`, it has nothing but the short form, with figures as SVG alone. `say` is
    called with a line at the start of each section, which has the time left, and `show` with each section before its
    short form is made.
    """
    summary = plural(
        "{n:,} finished run of {runs:,} in {source}; report of {date}.",
        "{n:,} finished runs of {runs:,} in {source}; report of {date}.",
        len(runs.with_result(frames.runs)),
        runs=len(frames.runs) + frames.left_out,
        source=printable(source),
        date=date.today().isoformat(),
    )
    if _problems(frames):
        summary += " " + text("Some runs are left out: see the end.")
    parts, pictures = _parts(frames, sections, say, show), page.PICTURES
    if not whole:
        parts, pictures = (replace(part, more=(), longest=()) for part in parts), page.PICTURES[:1]
    title, provenance = text("Image classifiers compared"), partial(_provenance, frames)
    return page.write(parts, title, summary, provenance, out, full, reload, pictures)


def _parts(frames: Frames, sections: Sequence[Section], say: Say, show: Callable[[Section], None]) -> Iterator[Part]:
    """Yield the parts of the report one by one, so that only the figures of one section are in memory."""
    # a summary of several sections
    names = titles(sections)
    if len(sections) > 1:
        answered = [
            f"{protected(title)} {answer(frames, section)}" for title, section in zip(names, sections, strict=True)
        ]
        yield Part("summary", text("In short"), [Items(answered)])

    # the sections
    started = time.monotonic()
    for done, (title, section, looks) in enumerate(zip(names, sections, looks_of(sections), strict=True)):
        left = f", ETA {(time.monotonic() - started) / done * (len(sections) - done):.0f} s" if done else ""
        say(f"section {done + 1}/{len(sections)}: {section.title}{left}")
        more = everything(frames, section, looks)
        themes = () if section.runs.empty else LONGEST
        longest = [1 + THEMES.index(theme) for theme in themes if theme in THEMES]  # the first makes the data

        def in_short(section: Section = section, looks: Looks = looks) -> list[Block]:
            show(section)
            return short(frames, section, looks)

        yield Part(section.name, title, in_short, more, longest)

    # all data sets, and how it was done
    name = text("Data sets side by side")
    trained = [section for section in sections if not section.runs.empty]
    if compared := _part(name, lambda: layers.beside(frames, trained)):
        yield Part("data-sets", name, [], [lambda: compared])
    name = text("How it was done")
    in_short = _part(name, lambda: protocol.brief(frames, sections))
    yield Part("protocol", name, in_short, [partial(_part, name, lambda: protocol.blocks(frames, sections))])

    # problems, and the words
    problems = _problems(frames)
    if problems:
        listed = [Paragraph(text("As the program reported them."), soft=True), Items(list(map(protected, problems)))]
        yield Part("problems", text("Runs left out"), listed)
    in_short, others = glossary.terms(sections)
    yield Part("glossary", text("Words used"), [in_short], [lambda: [others]])


def _part(name: str, make: Callable[[], list[Block]]) -> list[Block]:
    """Make the blocks of a part with this name; if that fails, return the error message instead."""
    result = attempted(name, make)
    return [result] if isinstance(result, Paragraph) else result


def titles(sections: Sequence[Section]) -> list[str]:
    """Return the question of each section, with its name if several have the same or it has none.

    The description of a sweep is translated if the catalogue has it, as it has those of `sweeps/`.
    """
    counts = Counter(section.description for section in sections)
    found = []
    for section in sections:
        if section.description:
            name = f" ({section.title})" if counts[section.description] > 1 else ""
            found.append(f"{text(section.description)}{name}")
        elif len(section.ranked) == 1:
            found.append(text("How good is it? ({name})", name=section.title))
        else:
            found.append(text("Which setting is best? ({name})", name=section.title))
    return found


def answer(frames: Frames, section: Section) -> str:
    """Return the answer of a section in one sentence."""
    if section.runs.empty:
        return text("None of its runs has finished yet.")
    result = attempted(text("The answer"), lambda: brief.recommendation(frames, section))
    return result.text if isinstance(result, Paragraph) else result


def short(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Return the short form of a section: its answer, and what a reader must know of its runs."""
    # notes, and nothing else without results
    noted = attempted(text("The data"), lambda: about.notes(section))
    noted = [noted.text] if isinstance(noted, Paragraph) else noted
    if section.runs.empty:
        return [Items([text("None of its runs has finished yet."), *noted], soft=True)]

    # the answer, and below it the options and notes
    blocks = _part(text("The answer"), lambda: brief.blocks(frames, section, looks))
    blocks += _part(text("What each source has"), lambda: about.by_source(frames, section))
    trained = attempted(text("The data"), lambda: " ".join(about.trained(frames, section)))
    trained = Paragraph(f"{protected(section.title)}. {trained}", soft=True) if isinstance(trained, str) else trained
    blocks.append(trained)
    return [*blocks, Items(noted, soft=True)] if noted else blocks


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


THEMES: tuple[Callable[[Frames, Section, Looks], list[Block]], ...] = (
    answers.blocks,
    comparison.blocks,
    about.each_run,
    about.missing,
    transfer.blocks,
    space.blocks,
    changes.blocks,
    training.blocks,
    speed.blocks,
    costs.blocks,
    confusion.blocks,
    explained.blocks,
    per_class.blocks,
    scores.blocks,
    layers.blocks,
)
"""The themes of a section whose runs have results; `analysis.page.blocks` describes a theme."""

LONGEST = (layers.blocks, confusion.blocks, space.blocks, scores.blocks, training.blocks, per_class.blocks)
"""Those that take longest, the longest first: they begin first."""

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
    "explained": mark("The explained predictions"),
    "per_class": mark("The accuracy of each class"),
    "scores": mark("The scores beyond accuracy"),
    "layers": mark("The layers"),
}
"""Names of the themes, for the message on one that failed."""


def everything(frames: Frames, section: Section, looks: Looks) -> list[Callable[[], list[Block]]]:
    """Return functions that make the blocks about the data of a section and those of its themes, beside its short form.

    Of a section without results, what is missing.
    """
    if section.runs.empty:
        return [partial(about.missing, frames, section, looks)]
    data = partial(
        _part, text("The data"), lambda: [Paragraph(line, soft=True) for line in about.data(frames, section)]
    )
    themes = [(text(NAMES[_key(theme)]), partial(in_its_words(theme), frames, section, looks)) for theme in THEMES]
    return [data, *(partial(_part, name, make) for name, make in themes)]


def section_blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Return the blocks of `everything`."""
    return [block for make in everything(frames, section, looks) for block in make()]


def _key(theme: Callable) -> str:
    """Return the key of a theme in NAMES: its module or, in `about`, its function."""
    return theme.__module__.rpartition(".")[2] if theme.__name__ == "blocks" else theme.__name__


def _problems(frames: Frames) -> list[str]:
    """Report the runs that could not be read, and the number of runs of other versions of the code."""
    other = int((frames.runs.results_version != runs.RESULTS_VERSION).sum())
    if not other:
        return frames.problems
    left_out = plural(
        "{n:,} run was trained with another version of the code, whose results differ, and is left out.",
        "{n:,} runs were trained with another version of the code, whose results differ, and are left out.",
        other,
    )
    return [*frames.problems, left_out]


def _provenance(frames: Frames) -> str:
    """Report the machines and versions with which the runs were trained."""
    done = [run for run in frames.runs.index if frames.runs.state[run] in DONE]
    infos = [frames.info(run) for run in done]
    versions = sorted({f"{name} {version}" for info in infos for name, version in info.get("versions", {}).items()})
    hosts = sorted({f"{info.get('host')} ({info.get('device')})" for info in infos})
    return (
        text("Trained on {hosts} with {versions}.", hosts=", ".join(hosts), versions=", ".join(versions))
        if infos
        else ""
    )
