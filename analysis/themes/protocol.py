"""How the study was done, as a reviewer asks: code, machines, data, learning rates, and the runs that failed.

python -c "from analysis.themes import protocol; from analysis.frames import runs, sections; \\
    frames = runs.load('runs'); print(protocol.failures(sections.by_dataset(frames)))"
"""

import shlex
from collections.abc import Sequence

import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import IDENTITY, Frames, with_result
from analysis.frames.sections import TASK, Section
from analysis.page.blocks import Block, Data, Heading, Items
from analysis.page.tables import Column, Table
from analysis.themes import about, costs
from analysis.wording.texts import mark, named, plural, shown_value, text
from study.config import Config
from study.record.directory import DONE

FAILED = ("failed", "crashed", "killed")
"""States of a run that ended with an error."""

MOST_RATES = 6
"""More learning rates than this are given as a range."""

MOST_CLASSES = 40
"""The images of each class of more classes than this are a file."""

COLUMNS = {
    "device": mark("Device"),
    "source": mark("Source"),
    "cpu": mark("CPU"),
    "cores": mark("Cores"),
    "host": mark("Host"),
    "threads": mark("Threads"),
    "device_shared_by": mark("At once"),
    "runs": mark("Runs"),
    "dataset": mark("Data set"),
    "size": mark("Pixels × channels"),
    "data_digest": mark("Digest"),
    "classes": mark("Classes"),
    "target": mark("Class"),
    "split_seed": mark("Split seed"),
    "train": mark("Training"),
    "val": mark("Validation"),
    "test": mark("Test"),
    "section": mark("Section"),
    "lr": mark("Learning rate"),
    "chosen": mark("Chosen"),
    "tried": mark("Settings"),
    "seeds": mark("Seeds"),
    "asked": mark("Runs"),
    "result": mark("With a result"),
    "collapsed": mark("Not learned"),
    "diverged": mark("Diverged"),
    "error": mark("Error"),
    "rate": mark("Failed (%)"),
}

TABLES = {
    "machines": (
        mark("The machines of the runs with a result"),
        mark(
            "Threads: CPU threads of one run. At once: runs that could use the device at the same time. Cores: "
            "those of the CPU that the run was allowed to use."
        ),
    ),
    "data": (
        mark("The data and their splits"),
        mark(
            "Data sets with test images of their own keep them, and validation images are held out of the training "
            "images. Without splits of their own, one image in five is for test, and one in five of the rest for "
            "validation. The splits keep the proportions of the classes and depend on the split seed alone, not on "
            "the seed. Copies of an image, by its pixels, are kept on one side of a split of a folder; where there are "
            "any, the digest, which is that of the files, ends with “+joined”. The test images are used once, with "
            "the weights that are best on validation."
        ),
    ),
    "class-sizes": (
        mark("The images of each class"),
        mark("Runs of earlier versions did not record these numbers."),
    ),
    "rates": (
        mark("How many configurations were tried, and how the learning rates were chosen"),
        mark(
            "Settings include those without a result. Trials that are not among these runs are not counted: a "
            "learning rate that was “given” may have been tuned elsewhere."
        ),
    ),
    "failures": (
        mark("Settings with failed runs"),
        mark(
            "Not learned: with a result, but fitting the training images hardly better at the end than in the first "
            "epoch. The rate is the percentage of runs that did not learn, diverged or ended with an error, among "
            "those that ended by themselves."
        ),
    ),
}
"""Title and note of each table."""

CHOSEN = {
    "given": mark("given, the same in all runs"),
    "own": mark("given with each setting, not compared"),
    "compared": mark("compared in this section"),
    "drawn": mark("drawn at random and compared"),
}
"""How the learning rates of a section were chosen; see `rates`."""


def brief(frames: Frames, sections: Sequence[Section]) -> list[Block]:
    """Report the data, the machines, the code and the whole effort in a few sentences."""
    described = dict.fromkeys(line for section in sections for line in about.data(frames, section))
    trained_on = about.machine_names(machines(frames)).unique()
    return [
        Items(
            [
                *described,
                text("Machines: {machines}.", machines=named(list(trained_on))),
                *code(frames),
                *costs.total(frames),
            ]
        )
    ]


def blocks(frames: Frames, sections: Sequence[Section]) -> list[Block]:
    """Show code and command, machines, data, how learning rates were chosen, and which runs failed."""
    shown = [section for section in sections if not section.runs.empty]
    return [
        Items(code(frames)),
        Heading(text("Machines")),
        _table("machines", machines(frames), (*_source(frames), "device", "cpu", "host"),
               ("cores", "threads", "device_shared_by", "runs")),
        Heading(text("Data")),
        _table("data", data(frames), ("dataset", "size", "data_digest"),
               ("classes", "split_seed", "train", "val", "test", "runs")),
        *_class_sizes(class_sizes(frames)),
        Heading(text("Configurations and learning rates")),
        _table("rates", rates(shown), ("section", "lr", "chosen"), ("tried", "seeds")),
        Heading(text("Runs that failed")),
        *_failures(failures(shown)),
    ]  # fmt: skip


def _table(name: str, frame: pd.DataFrame, words: Sequence[str], numbers: Sequence[str]) -> Table:
    """Make a table with columns of words, then of numbers; TABLES has its title and note."""
    title, note = TABLES[name]
    columns = [Column(key, header=text(COLUMNS[key])) for key in words]
    columns += [Column(key, 0, header=text(COLUMNS[key])) for key in numbers]
    return Table(name, text(title), frame, columns, [text(note)])


def code(frames: Frames) -> list[str]:
    """Report the commits of the code, and the command that trains a run again."""
    # commits with the number of runs; + marks changed files
    done = [run for run in frames.runs.index if frames.runs.state[run] in DONE]
    commits = pd.Series([frames.info(run).get("git_commit") for run in done], dtype=object)
    texts = [
        plural(
            "commit {commit} with changed files ({n:,} run)",
            "commit {commit} with changed files ({n:,} runs)",
            count,
            commit=commit.rstrip("+"),
        )
        if commit.endswith("+")
        else plural("commit {commit} ({n:,} run)", "commit {commit} ({n:,} runs)", count, commit=commit)
        for commit, count in commits.value_counts().items()
    ]
    unknown = int(commits.isna().sum())
    texts += [plural("commit not recorded ({n:,} run)", "commit not recorded ({n:,} runs)", unknown)] if unknown else []

    # an example of the command
    finished = with_result(frames.runs).index
    run = finished[0] if len(finished) else None
    if run is None:
        return [text("Code: {commits}.", commits=named(texts))] if texts else []
    example = text(
        "Every run can be trained again from the options in its `run.json`; for example {run}: `{command}`",
        run=frames.directories[run].path.name,
        command=command(frames.configs[run]),
    )
    return [*([text("Code: {commits}.", commits=named(texts))] if texts else []), example]


def command(config: Config) -> str:
    """Return the command that trains a run again: every option that its result depends on and is not the default."""
    values = config.identity() | ({"weights": config.weights} if config.weights else {})
    words = [f"--{name}={value}" for name, value in values.items()]
    return shlex.join(["python", "-m", "study.train", *words])


def _source(frames: Frames) -> list[str]:
    """Return the name of the column of sources, if there are several."""
    return ["source"] if frames.runs.source.nunique() > 1 else []


def machines(frames: Frames) -> pd.DataFrame:
    """Return one row per kind of machine: its parts, threads of a run, runs at once on the device, and `runs`."""
    keys = [*_source(frames), "device", "cpu", "host", "cores", "threads", "device_shared_by"]
    return _counted(with_result(frames.runs)[keys])


def data(frames: Frames) -> pd.DataFrame:
    """Return one row per data set and split: name, classes, images of each split, their size, and digest of files."""
    rows = []
    finished = with_result(frames.runs)
    for run, split_seed, dataset, digest in finished[["split_seed", "dataset", "data_digest"]].itertuples():
        known = frames.data(str(run))
        row = {"dataset": dataset, "classes": len(known["classes"]), "split_seed": split_seed}
        row |= {split: known["images"].get(split) for split in ("train", "val", "test")}
        channels, height, width = known["image_shape"]
        rows.append(row | {"size": f"{height}×{width}×{channels}", "data_digest": digest})
    return _counted(pd.DataFrame(rows))


def class_sizes(frames: Frames) -> pd.DataFrame:
    """Return one row per data set, split and class: the number of its images, where the runs recorded it."""
    columns = ["dataset", "target", "train", "val", "test"]
    rows = []
    for _, runs in with_result(frames.runs).groupby([*TASK, "train_images"], dropna=False, sort=False):
        # all runs on the same images have the same, and reading one is enough
        known = next((data for data in map(frames.data, runs.index) if data.get("images_per_class")), None)
        if known:
            counts = known["images_per_class"]
            sizes = zip(known["classes"], *(counts[split] for split in columns[2:]), strict=True)
            rows += [(runs.dataset.iloc[0], *own) for own in sizes]
    return pd.DataFrame(list(dict.fromkeys(rows)), columns=columns)


def _class_sizes(frame: pd.DataFrame) -> list[Block]:
    """Show the number of images of each class or, if they are many, link to it."""
    if frame.empty:
        return []
    if len(frame) > MOST_CLASSES:
        return [Data("class-sizes", text("The number of images of each class:"), frame)]
    return [_table("class-sizes", frame, ("dataset", "target"), ("train", "val", "test"))]


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each different row once, with its number of `runs`, the most frequent first."""
    names = list(frame.columns)
    return (
        frame.groupby(names, dropna=False, sort=False)
        .size()
        .rename("runs")
        .reset_index()
        .sort_values("runs", ascending=False)
    )


def rates(sections: Sequence[Section]) -> pd.DataFrame:
    """Return one row per section: `tried`, its settings, most `seeds` of one, learning rates, and how they were chosen.

    Drawn: at random. Compared: settings that are equal but for the learning rate have several. Given: one for all.
    Own: each setting has one, which these runs did not compare with others.
    """
    others = [name for name in IDENTITY if name not in ("lr", "seed", "split_seed")]
    rows = []
    for section in sections:
        values = section.runs.lr.dropna().astype(float)
        listed = sorted(values.unique())
        alike = section.runs[others].map(repr).agg("; ".join, axis=1)
        chosen = "given" if len(listed) < 2 else "own"
        if (values.groupby(alike[values.index]).nunique() > 1).any():
            chosen = "compared"
        if "lr" in section.drawn:
            chosen = "drawn"
        ends = [listed[0], listed[-1]] if len(listed) > MOST_RATES else listed
        words = (text(" to ") if len(listed) > MOST_RATES else f"{text(',')} ").join(
            shown_value("lr", float(f"{value:.3g}")) for value in ends
        )
        rows.append(
            {
                "section": section.title,
                "tried": section.points.setting.nunique(),
                "seeds": int(section.points.groupby("setting").size().max()),
                "lr": words,
                "chosen": text(CHOSEN[chosen]),
            }
        )
    return pd.DataFrame(rows, columns=["section", "tried", "seeds", "lr", "chosen"])


def failures(sections: Sequence[Section]) -> pd.DataFrame:
    """Return one row per section and setting: how many of its runs, of `asked`, ended in which way.

    `result`: with a result, of which `collapsed` failed to learn (see `contrasts.collapsed`); `diverged`; `error`:
    ended with an error; `stopped` by the sweep; `rest`: not ended or never started. `rate` is the percentage of
    diverged, failed and collapsed runs among those that have ended by themselves.
    """
    rows = []
    for section in sections:
        learned = contrasts.failures(section)
        for setting, points in section.points.groupby("setting", sort=False):
            result = points.fingerprint.isin(section.runs.fingerprint)
            lost = points.state[~result]
            row = {"asked": len(points), "result": int(result.sum())}
            row["collapsed"] = int(learned.failed[setting]) if setting in learned.index else 0
            row["diverged"] = int((lost == "diverged").sum())
            row["error"] = int(lost.isin(FAILED).sum())
            row["stopped"] = int((lost == "stopped").sum())
            row["rest"] = row["asked"] - row["result"] - row["diverged"] - row["error"] - row["stopped"]
            ended = row["result"] + row["diverged"] + row["error"]
            bad = row["collapsed"] + row["diverged"] + row["error"]
            row["rate"] = 100 * bad / ended if ended else float("nan")
            rows.append({"section": section.title, "setting": setting} | row)
    counts = ["asked", "result", "collapsed", "diverged", "error", "stopped", "rest", "rate"]
    return pd.DataFrame(rows, columns=["section", "setting", *counts])


def _failures(frame: pd.DataFrame) -> list[Block]:
    """Show the settings of which runs failed, and count the others."""
    bad = frame[frame.rate > 0]
    known = int(frame.rate.notna().sum())
    content: list[Block] = [
        Items(
            [
                text(
                    "In {count:,} of {all:,} settings whose runs have ended, no run diverged, ended with an error or "
                    "failed to learn.",
                    count=known - len(bad),
                    all=known,
                )
            ]
        )
    ]
    if not bad.empty:
        table = _table("failures", bad, ("section",), ("asked", "result", "collapsed", "diverged", "error"))
        columns = [
            table.columns[0],
            Column("setting"),
            *table.columns[1:],
            Column("rate", 0, header=text(COLUMNS["rate"])),
        ]
        content.append(Table(table.name, table.title, bad, columns, table.notes))
    return [*content, Data("all-settings", text("Every setting, with the number of its runs by outcome:"), frame)]
