"""About the runs of a section: their data and options, what is missing or mixed, and the numbers of each.

python -c "from analysis.frames import runs, sections; from analysis.themes import about; \\
    frames = runs.load('runs'); print(*about.trained(frames, sections.by_dataset(frames)[0]), sep='\\n')"
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.frames import runs
from analysis.frames.runs import Frames
from analysis.frames.sections import SPLIT, TASK, Section, in_its_words
from analysis.page.blocks import Block, Data, Items, Paragraph
from analysis.page.figures import Looks
from analysis.page.tables import Column, Table
from analysis.wording.texts import mark, named, option, plural, protected, settings_named, shown, text
from analysis.wording.words import STATES
from study.config.scores import is_unbalanced
from study.config.setting import Setting, setting_of
from study.record.directory import EARLY

MIXED = {
    "device": mark("device"),
    "threads": mark("threads"),
    "precision": mark("precision"),
    "data_digest": mark("data"),
}
"""What should be the same in all runs, unless the settings vary it."""


METHODS = ("optimizer", "lr", "momentum", "weight_decay", "schedule", "batch_size", "epochs", "augment")
"""Options that the report always gives, whatever their values."""


SHARED = {
    ("val", "train"): mark("{count:,} of {all:,} validation images are training images too."),
    ("test", "train"): mark("{count:,} of {all:,} test images are training images too."),
    ("test", "val"): mark("{count:,} of {all:,} test images are validation images too."),
}
"""Pairs of splits that should share no image, with a sentence about the images that are in both."""

SOURCES = 10
"""At most this many settings, the best ones, are shown by source."""

MISSING = 20
"""At most this many points without a result are named."""


def machine_names(runs: pd.DataFrame) -> pd.Series:
    """Name the machine of each run: its kind of GPU, otherwise its CPU and the number of its cores."""

    def name(device: str, cpu: str | None, cores: int | None) -> str:
        if device not in ("cpu", "mps"):
            return device
        own = text("CPU (model not recorded)")
        if isinstance(cpu, str):
            own = text("{cpu} ({cores:.0f} cores)", cpu=cpu, cores=cores)
        return own if device == "cpu" else f"{device}, {own}"

    return pd.Series(list(map(name, runs.device, runs.cpu, runs.cores)), runs.index, dtype=object)


def each_run(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Link to the numbers of each run, named as in summary.json, with its seed and the name of its directory."""
    rows = section.runs.sort_values(["setting", "seed"])
    rows["run"] = [frames.directories[run].path.name for run in rows.index]
    source = ["source"] if frames.runs.source.nunique() > 1 else []
    names = ["setting", *section.varied, "seed", "run", *source, *runs.SUMMARY, "device", "device_shared_by", "host"]
    logged = [name for name in names if name not in runs.SUMMARY or rows[name].notna().any()]
    return [Data("runs", text("Each run, with its seed and directory:"), rows[logged])]


@in_its_words
def by_source(frames: Frames, section: Section) -> list[Block]:
    """Show what each source has of the best settings, if there are several sources."""
    if frames.runs.source.nunique() < 2:
        return []
    rows = section.runs.assign(score=section.scores(section.runs), test_score=section.scores(section.runs, "test"))
    rows = rows[rows.setting.isin(section.ranked[:SOURCES])]
    found = rows.groupby(["setting", "source"], sort=False).agg(
        n=("seed", "size"),
        seeds=("seed", lambda seeds: ", ".join(map(str, sorted(set(seeds))))),
        score=("score", "mean"),
        test_score=("test_score", "mean"),
    )
    found = found.reset_index().sort_values("setting", key=lambda names: names.map(section.ranked.index), kind="stable")
    named = [Column("source", header=text("Source")), Column("seeds", header=text("Seeds"))]
    numbers = [Column("n", 0, header=text("Runs")), Column("score", 2), Column("test_score", 2)]
    columns = [Column("setting"), *named, *numbers]
    return [Table("sources", text("What each source has: {name}", name=section.title), found, columns, [])]


def missing(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Name the points without a result."""
    names = section.missing[:MISSING]
    rest = len(section.missing) - MISSING
    if not names:
        return []
    more = [plural("{n:,} other", "{n:,} others", rest)] if rest > 0 else []
    return [Paragraph(text("Without a result:"), soft=True), Items([*map(protected, names), *more], soft=True)]


def data(frames: Frames, section: Section) -> list[str]:
    """Describe the data of the runs of a section."""
    # one sentence per kind of data, each only once
    described = {}
    for run, dataset in section.runs.dataset.items():
        known = frames.data(str(run))
        channels, height, width = known["image_shape"]
        images = text(
            "{dataset}: {train:,} training, {val:,} validation and {test:,} test images of {height}×{width} "
            "pixels; channels: {channels}, classes: {classes}.",
            dataset=dataset.removeprefix("folder:"),
            **known["images"],
            channels=channels,
            height=height,
            width=width,
            classes=len(known["classes"]),
        )
        described[" ".join([images, *checked(known)])] = None
    return list(described)


def checked(known: Mapping[str, Any]) -> list[str]:
    """Report what run.json knows of images per class, copies of images and subjects; runs of long ago know nothing."""
    # classes of different sizes
    sentences = []
    counts = known.get("images_per_class", {}).get("train", [])
    if is_unbalanced(counts):
        fewest, most = (pick(range(len(counts)), key=counts.__getitem__) for pick in (min, max))
        sentences.append(
            text(
                "The classes are unbalanced: from {fewest:,} training images ({one}) to {most:,} ({other}).",
                fewest=counts[fewest],
                one=protected(known["classes"][fewest]),
                most=counts[most],
                other=protected(known["classes"][most]),
            )
        )

    # what two splits share
    for (one, other), sentence in SHARED.items():
        if count := known.get("copies", {}).get(f"{one} in {other}"):
            sentences.append(text(sentence, count=count, all=known["images"][one]))
    subjects = known.get("subjects", {})
    if subjects:
        across = max(subjects.get(f"{one} and {other}", 0) for one, other in SHARED)
        sentences.append(
            text(
                "Subjects: {train:,} in the training images, {val:,} in the validation images, {test:,} in the test "
                "images; at most {across:,} in two of them.",
                across=across,
                **{split: subjects[split] for split in ("train", "val", "test")},
            )
            if across
            else text(
                "All images of a subject are on one side of the split: {train:,} subjects in the training images, "
                "{val:,} in the validation images, {test:,} in the test images.",
                **{split: subjects[split] for split in ("train", "val", "test")},
            )
        )
    if count := known.get("copies", {}).get("other labels"):
        sentences.append(
            plural("{n:,} image has a copy with another label.", "{n:,} images have a copy with another label.", count)
        )
    return sentences


def trained(frames: Frames, section: Section) -> list[str]:
    """List the options of the runs that the names of the settings do not include."""
    # options with one value in all runs
    first = section.runs.iloc[0]
    chosen = frames.configs[str(first.name)].identity()
    left_out = {*TASK} - {*SPLIT}
    relevant = [name for name in runs.IDENTITY if name in METHODS or (name in chosen and name not in left_out)]
    same = [name for name in relevant if first[name] is not None and section.runs[name].map(repr).nunique() == 1]

    # options with a usual value
    always = setting_of(first, [name for name in same if name not in (*section.varied, "seed")])
    usual = setting_of(section.usual, section.usual)
    sentences = []
    if always.pairs:
        sentences.append(text("All runs: {options}.", options=shown(always)))
    if usual.pairs:
        sentences.append(text("Unless the name of a setting says otherwise: {options}.", options=shown(usual)))

    # options that differ without being in the names, such as the optimizer of a pretrained network
    if kinds := _unnamed(section):
        sentences.append(text("Their names leave out: {options}.", options="; ".join(kinds)))

    # numbers that the names round
    rounded = [option(name) for name in section.drawn if isinstance(first[name], float)]
    if rounded:
        sentences.append(
            text(
                "Rounded in the names of settings, but in full in the CSV file of the comparison: {options}.",
                options=", ".join(rounded),
            )
        )
    return sentences


def _unnamed(section: Section) -> list[str]:
    """Write the options of METHODS that differ between settings, though no name of a setting has them."""
    named_options = {*section.varied, *section.usual, *(name for one in section.ranked for name, _ in one.pairs)}
    differing = [name for name in METHODS if name not in named_options and section.runs[name].map(repr).nunique() > 1]
    kinds: dict[Setting, list[Setting]] = {}
    for row in section.runs.drop_duplicates("setting").to_dict("records"):
        kind = setting_of(row, [name for name in differing if row[name] is not None])
        kinds.setdefault(kind, []).append(row["setting"])
    listed = {kind: named([shown(setting) for setting in settings]) for kind, settings in kinds.items() if kind.pairs}
    return [f"{shown(kind)} ({settings})" for kind, settings in listed.items()]


def notes(section: Section) -> list[str]:
    """Return notes on the runs of a section: missing runs, and settings with mixed devices or data."""
    # runs without a result
    found = []
    if absent := len(section.absent):
        states = {state: count for state, count in section.states.items() if state != "finished"}
        states |= {"missing": absent - sum(states.values())}
        counts = ", ".join(f"{text(STATES[state])}: {count}" for state, count in states.items() if count)
        found.append(
            plural(
                "{n} of the {all} runs has no result and is not included in any mean ({states}).",
                "{n} of the {all} runs have no result and are not included in any mean ({states}).",
                absent,
                all=len(section.points),
                states=counts,
            )
        )

    # settings that early stopping left as they are
    by_setting = section.runs.groupby("setting", sort=False)
    waits = by_setting.early_stopping.agg(lambda patience: patience.notna().all())
    stopped = by_setting.stopped_by.agg(lambda by: by.eq(EARLY).any())
    if unstopped := list(waits.index[waits & ~stopped]):
        found.append(
            text("Early stopping ended no run of {settings}.", settings=named([shown(one) for one in unstopped]))
            if len(unstopped) < len(by_setting)
            else text("Early stopping ended no run.")
        )

    # settings or runs of a setting that differ in something that should be the same
    stated = {name for setting in by_setting.groups for name, _ in setting.pairs}
    for what, name in MIXED.items():
        values = by_setting[what].agg(lambda column: ", ".join(sorted(map(str, column.unique()))))
        if what not in stated and values.nunique() > 1:
            kinds = [
                f"{value} ({named([shown(setting) for setting in settings.index])})"
                for value, settings in values.groupby(values)
            ]
            found.append(
                text(
                    "Settings differ in {what} too: {kinds}. Part of a difference between them may come from that.",
                    what=text(name),
                    kinds="; ".join(kinds),
                )
            )
            continue
        mixed = values[by_setting[what].nunique(dropna=False) > 1]
        for differing, settings in mixed.groupby(mixed, sort=False):
            found.append(
                text(
                    "Runs of {settings} differ in {what}: {values}.",
                    settings=settings_named(list(settings.index), len(values)),
                    what=text(name),
                    values=differing,
                )
            )
    return found
