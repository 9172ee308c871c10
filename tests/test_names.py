"""Names are text wherever they go, and a part that fails takes nothing else along."""

import csv
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from sklearn.datasets import load_digits

from analysis import reporting as report
from analysis.frames import runs
from analysis.frames.sections import by_dataset
from analysis.page import characters, tables
from analysis.page import html as page
from analysis.page.blocks import Data, Heading, Paragraph, Picture
from analysis.page.figures import looks_of
from analysis.themes import about, answers, clouds, comparison, confusion, per_class
from analysis.themes.embedding import Layer, Seen
from analysis.wording import texts as wording
from study.config import Config
from study.config.setting import Listed, as_word, read_list, read_pairs, setting_of, written
from study.record.directory import RunDirectory
from study.remote import charts
from study.remote.artifacts import artifact_name
from study.system import forks
from study.system.console import console, text_column
from study.system.errors import printable
from tests.wandb_server import Server

LONG = "a name that is long " * 3 + "and has eighty char."
NAMES = ["$x_1$ & co", "[red]", ":cat:", "猫", "हिन्दी", LONG, "night, day", "a|b_c%#{~^\\", "**x** `y` <b>", "$_$"]
UNTESTED = "night, day"
DATASET = "ze:cat:"


@pytest.fixture(scope="module")
def study(tmp_path_factory, warned):
    """Train two networks, one of a single hidden unit, on digits in folders with such names; give folder and output."""
    folder = tmp_path_factory.mktemp("names")
    digits = load_digits()
    for digit, name in enumerate(NAMES):
        for index, image in enumerate(np.rint(digits.images[digits.target == digit][:40] * (255 / 16))):
            split = "train" if index < 32 or name == UNTESTED else "test"
            place = folder / "data" / DATASET / split / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(place / f"{index}.png")
    said = ""
    for words in (["--wandb=offline"], ["--wandb=disabled", "--hidden=1"]):
        said += warned("study.train", f"--dataset=folder:{DATASET}", "--model=mlp", "--epochs=2", *words, cwd=folder)
    return folder, said


@pytest.fixture(scope="session")
def warned(run_python):
    """Run `python -m …` with every warning shown, and return all that it says."""

    def run(*words, cwd: Path, fresh: bool = False) -> str:
        words = ["-W", "always", "-m", *words]
        done = run_python(words, cwd, os.environ | {"HOME": str(cwd)}, fresh=fresh)
        return done.stdout + done.stderr

    return run


@pytest.fixture
def frames(study, monkeypatch):
    monkeypatch.chdir(study[0])
    return runs.load("runs")


def test_a_terminal_shows_names_as_they_are(study, capsys):
    _, said = study
    assert f"folder:{DATASET}: " in said and "🐱" not in said
    console().print(":cat: [red]")
    assert capsys.readouterr().out.strip() == ":cat: [red]"
    task = type("Task", (), {"fields": {"name": ":cat: [red]"}})
    assert text_column("{task.fields[name]}").render(task).plain == ":cat: [red]"


def test_a_run_is_named_in_ascii_and_briefly():
    assert Config(model="mlp", dataset="folder:my photos.v2").run_name.startswith("mlp-my photos.v2-s0-")
    names = [Config(model="mlp", dataset=f"folder:{name}").run_name for name in ("猫" * 80, "犬" * 80, "é", "ü", LONG)]
    assert all(name.isascii() and len(name) <= 120 for name in names) and len(set(names)) == len(names)


def test_what_w_and_b_gets_fits_its_rules(study):
    (run,) = (one for one in study[0].glob("runs/mlp-*") if "hidden" not in Config.recorded(config(one)).identity())
    made = {artifact_name(name) for name in ("猫", "犬", "é" * 200, "x" * 200, "run-1")}
    assert all(name.isascii() and len(name) <= 128 for name in made) and len(made) == 5
    assert artifact_name("run-1") == "evaluation-run-1"
    (log,) = study[0].glob("runs/wandb/offline-run-*")
    (matrix,) = log.glob("files/media/table/test/confusion_table*.json")
    (bars,) = log.glob("files/media/table/test/per_class_table*.json")
    cells = {(row[0], row[1]): row[2] for row in json.loads(matrix.read_text(encoding="utf-8"))["data"]}
    arrays = RunDirectory(run).evaluation()
    hits = np.bincount(arrays["test_targets"][arrays["test_targets"] == arrays["test_predictions"]], minlength=10)
    assert {name: cells[name, name] for name in NAMES} == dict(zip(arrays["class_names"].tolist(), hits, strict=True))
    known = {row[0] for row in json.loads(bars.read_text(encoding="utf-8"))["data"]}
    assert known == {*NAMES} - {UNTESTED}, "a class without test images has no accuracy"


def config(run: Path) -> dict:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]


@pytest.mark.slow
def test_a_report_says_every_name_in_every_format(study, warned):
    folder, _ = study
    said = warned(
        "analysis.summarize", "runs", "--out", "report", "--full", cwd=folder, fresh=True
    )  # warnings of imports too
    # which characters can be drawn depends on the fonts of the machine
    warnings = [line for line in said.splitlines() if "warning" in line.lower() and "no installed font" not in line]
    assert not warnings and "could not be made" not in said, said
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    html = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert html.count("<img src=") == 14, "of hidden 1 too"
    assert "$x_1$ &amp; co" in html and "**x** `y` &lt;b&gt;" in html and "\ufdd0" not in text + html
    assert r"\*\*x\*\* \`y\` \<b>" in text
    (path,) = (folder / "report" / "tables").glob("*-per-class.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["class"]: row["accuracy"] for row in csv.DictReader(file)}
    assert set(rows) == {*NAMES} and [name for name in rows if not rows[name]] == [UNTESTED]
    table = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 12 and {line.replace(r"\|", "").count("|") for line in table} == {5}
    assert r"\$x\_1\$ \& co" in path.with_suffix(".tex").read_text(encoding="utf-8")


def test_classes_with_commas_are_options_of_a_sweep(study, command, call, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(study[0] / "data")
    listed = ('"night, day",**x** `y` <b>', 'a|b_c%#{~^\\,"night, day",[red]')
    spec = {
        "method": "grid",
        "metric": {"name": "val/acc", "goal": "maximize"},
        "parameters": {
            "dataset": {"value": f"folder:{DATASET}"},
            "epochs": {"value": 1},
            "setting": {"values": [written({"model": "mlp", "hidden": "8,4", "classes": text}) for text in listed]},
        },
    }
    (tmp_path / "commas.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    command("study.sweep", "run", "commas.yaml", "--wandb=disabled")
    configs = [config(run) for run in sorted((tmp_path / "runs").glob("mlp*"))]
    chosen = [Config.recorded(values).classes for values in configs]
    assert set(chosen) == {("**x** `y` <b>", "night, day"), ("[red]", "a|b_c%#{~^\\", "night, day")}
    monkeypatch.setattr(report, "THEMES", (answers.blocks, comparison.blocks))
    call("analysis.summarize", "--sweep=commas.yaml", "--lang=es")
    tables = (tmp_path / "report" / "tables").glob("*-comparison.csv")
    rows = [row for path in tables for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    settings = {row["setting"] for row in rows}
    assert settings == {f"mlp, hidden 8,4, classes {Listed(names)}" for names in chosen}
    spanish = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "mlp · ocultas 8,4 · clases" in spanish and "night · day" not in spanish


TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: text != "none")  # which is no value, as a config reads it


@given(st.dictionaries(st.sampled_from(["weights", "notes", "tags"]), TEXTS, min_size=1))
@example({"weights": "checkpoints/epoch=3-step=100.ckpt", "notes": "a;b, c=d\ne 'f' \"g\""})
def test_values_of_any_text_arrive_unharmed(values):
    assert read_pairs(written(values)) == values
    setting = setting_of(values, values)
    assert len({setting, setting_of(values, values)}) == 1
    for language in wording.LANGUAGES:
        with wording.language(language):
            assert all(value in wording.shown(setting) for value in values.values())


@given(st.lists(st.text(min_size=1, max_size=12).filter(lambda text: text == text.strip()), min_size=1, max_size=4))
def test_a_list_of_any_names_is_read_as_it_was_written(names):
    assert read_list(as_word(names)) == names


def test_a_line_end_in_a_name_ends_no_row():
    table = tables.Table("t", "t", pd.DataFrame({"class": ["one\ntwo | $a$ _b_"]}), [tables.Column("class")])
    assert tables.markdown(table).splitlines()[2:] == [r"| one two \| \$a\$ \_b\_ |"]
    assert len(tables.latex(table).splitlines()) == 7


def figures_of(names):
    """Draw every figure that names classes."""
    rng = np.random.default_rng(0)
    counts = pd.DataFrame(rng.integers(0, 9, (len(names), len(names))), index=names, columns=names)
    targets = np.arange(len(names)).repeat(9)
    layer = Layer(4, rng.normal(size=(len(targets), 2)), 0.5, targets > 3, 0.1)
    seen = Seen(np.arange(len(targets)), targets, targets, {"penultimate": layer, "logits": layer})
    yield confusion.matrix_figure(counts, f"Confusion matrix of {'n' * 80}: {LONG}")
    yield per_class.accuracy_figure({"mlp": confusion.rates(counts)}, None, "n" * 90, looks_of(["mlp"]))
    yield clouds.tsne_figure({LONG: seen}, names, f"t-SNE of {'n' * 80}")
    yield clouds.beside_figure({LONG: (seen, names), "mlp": (seen, names)}, LONG)


@pytest.mark.slow
@pytest.mark.parametrize("names", [NAMES, [f"{k} {LONG} {k}" for k in range(10)], ["漢字" * 40, "mm" * 40, "$" * 80]])
def test_figures_show_names_as_text_and_cut_none_off(names):
    for figure in figures_of(names):
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        for text in figure.findobj(characters.Text):
            # numbers beyond the end of an axis are not drawn
            is_number = text.get_text().replace(".", "").isnumeric()
            if text.get_visible() and text.get_text() and text.get_in_layout() and not is_number:
                box = text.get_window_extent()
                place = f"{text.get_text()!r} at {box} of {width:.0f} x {height:.0f}"
                assert not text.get_parse_math(), place
                assert box.x0 > -3 and box.y0 > -3 and box.x1 < width + 3 and box.y1 < height + 3, place


def test_long_names_lose_their_middle():
    for name in [*NAMES, "漢字" * 40, "हिन्दी भाषा " * 7]:
        short = characters.shortened(name, 20)
        assert cell_len(short) <= 20 and (short == name or "…" in short)
        assert name.startswith(short.split("…")[0]) and name.endswith(short.split("…")[-1])
    assert len(set(characters.short_names([f"{'x' * 40}{k}{'y' * 40}" for k in range(12)], 20))) == 12


def test_characters_that_no_font_has_are_named_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(characters, "_installed", tuple)
    counts = pd.DataFrame([[3, 1], [0, 4]], index=["猫", "தமிழ்"], columns=["猫", "தமிழ்"])
    figure = confusion.matrix_figure(counts, "猫")
    part = page.Part("p", "p", [Picture("a", "a", figure), Picture("b", "b", confusion.matrix_figure(counts, "b"))])
    page.write([part], "title", "source", lambda: "", tmp_path)
    said, text = capsys.readouterr().err.splitlines(), (tmp_path / "report.md").read_text(encoding="utf-8")
    assert len(said) == 1 and "猫" in said[0]
    assert text.count("Noto Sans CJK") == 1 and "Noto Sans Tamil" in text


def test_a_damaged_run_takes_only_its_own_pictures_along(study, frames):
    (section,) = by_dataset(frames)
    looks = report.looks_of([section])[0]
    best = section.ranked[0]
    (run,) = section.runs.index[section.runs.setting == best]
    path = frames.directories[run].path / "evaluation.npz"
    whole = path.read_bytes()
    try:
        path.write_bytes(
            whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 255]) + whole[len(whole) // 2 + 1 :]
        )
        blocks = report.section_blocks(runs.load("runs"), section, looks)
    finally:
        path.write_bytes(whole)
    said = [text for block in blocks for text in getattr(block, "texts", ())]
    assert [run in text for text in said if "evaluation.npz is broken" in text] == [True]
    names = [block.name for block in blocks if isinstance(block, Picture)]
    assert {"curves", "class-accuracy", "tsne"} <= set(names), "the other setting is looked at"
    whole_report = report.section_blocks(frames, section, looks)
    headings = [block.text for block in whole_report if isinstance(block, Heading)]
    assert [block.text for block in blocks if isinstance(block, Heading)] == headings


def test_a_theme_that_fails_is_named_and_the_others_stand(frames, monkeypatch, capsys):
    (section,) = by_dataset(frames)

    def broken(frames, section, looks):
        raise error

    broken.__name__, broken.__module__ = "blocks", "analysis.costs"
    monkeypatch.setattr(report, "THEMES", (report.THEMES[1], broken, about.each_run))
    error = ValueError("no **such** number")
    blocks = report.section_blocks(frames, section, report.looks_of([section])[0])
    (place,) = (k for k, block in enumerate(blocks) if isinstance(block, Paragraph) and "ValueError" in block.text)
    assert isinstance(blocks[place + 1], Data) and isinstance(blocks[place - 1], tables.Table | Picture)
    assert "warning: The costs" in capsys.readouterr().err
    for error in (KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)):
            report.section_blocks(frames, section, report.looks_of([section])[0])


@pytest.mark.parametrize("cores", [1, 4])
def test_a_figure_that_cannot_be_drawn_is_named_and_the_others_stand(tmp_path, monkeypatch, capfd, cores):
    monkeypatch.setattr(forks, "cores", lambda: cores)
    counts = pd.DataFrame([[3, 1], [0, 4]], index=["a", "b"], columns=["a", "b"])
    whole, broken, other = (confusion.matrix_figure(counts, name) for name in ("whole", "broken", "other"))
    broken.add_artist(Unwilling(visible=True))
    other.add_artist(Unwilling(visible=True))
    pictures = [
        Picture("one", "The first", broken),
        Picture("two", "The second", whole),
        Picture("three", "The third", other),
    ]
    page.write([page.Part("p", "p", pictures)], "title", "", lambda: "", tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.index("The first: ") < text.index("(figures/p-two.png)") < text.index("The third: ")
    assert text.count("cannot be drawn") == 2
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["p-two.pdf", "p-two.png", "p-two.svg"]
    assert capfd.readouterr().err.count("cannot be drawn") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems draw in one process")
def test_what_a_killed_process_leaves_undone_is_done_here(monkeypatch):
    monkeypatch.setattr(forks, "cores", lambda: 2)
    here, running = os.getpid(), forks.Forks()

    def killed_elsewhere() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return 7

    results = [running.start(make) for make in (os.getpid, killed_elsewhere, os.getpid, os.getpid)]
    first, killed, *others = [result() for result in results]
    assert killed == 7 and here not in (first, *others)


class Unwilling(characters.Text):
    def draw(self, renderer):
        raise ValueError("cannot be drawn")


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["last/val_loss", "val/loss"])
def test_one_number_that_is_missing_ends_no_theme(frames, lost, capsys):
    of_runs, history = frames.runs.copy(), frames.history.copy()
    (of_runs if lost in of_runs else history)[lost] = np.nan
    (section,) = by_dataset(replace(frames, runs=of_runs, history=history))
    report.section_blocks(frames, section, report.looks_of([section])[0])
    assert not capsys.readouterr().err


FAILING = """
import sys, wandb
from study.train import main
from study.system.process import run_command
def refuse(*words, **more): raise ValueError("no charts today")
wandb.plot_table = refuse
run_command(main)
"""


@pytest.mark.slow
def test_w_and_b_keeps_the_summary_of_a_run_whose_charts_it_does_not_get(command, tmp_path, monkeypatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        said = command(
            "-c", FAILING, "--dataset=digits", "--model=mlp", "--epochs=1", "--wandb=online", f"--tags={'long' * 16}"
        ).stdout
        (path,) = (path for path in (tmp_path / "runs").iterdir() if path.name != "wandb")
        (sent,) = server.runs.values()
        summary = RunDirectory(path).summary()
        assert sent.exitcode == 0 and sent.summary["test/acc"] == summary["test/acc"]
        assert {made["type"] for made in sent.artifacts} == {"evaluation"}, "the charts do not take it along"
        missing = RunDirectory(path).info()["wandb_missing"]
        assert "charts" in missing and [line for line in said.splitlines() if "no charts today" in line] == [missing]
        assert "is sent" in command("study.sync", path).stdout
        assert "test/confusion_table" in sent.summary
        assert "is in W&B already" in command("study.sync", path).stdout


@pytest.mark.slow
def test_a_confusion_matrix_of_many_classes_fits_a_table(tmp_path, command):
    folder = tmp_path / "data" / "many" / "train"
    for label in range(120):
        for index in range(8):
            (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
            pixels = np.full((4, 4), (label * 2 + index) % 256, np.uint8)
            pixels[0, 0] = 255
            Image.fromarray(pixels).save(folder / f"class {label}" / f"{index}.png")
    done = command("study.train", "--dataset=folder:many", "--model=mlp", "--epochs=1", "--wandb=offline")
    assert "10000" not in done.stderr and "truncat" not in done.stderr.lower()
    (matrix,) = tmp_path.glob("runs/wandb/offline-run-*/files/media/table/test/confusion_table*.json")
    (shares,) = tmp_path.glob("runs/wandb/offline-run-*/files/media/table/test/confusion_shares_table*.json")
    (path,) = (path for path in (tmp_path / "runs").iterdir() if path.name != "wandb")

    # The 100 classes that take part in most mistakes
    arrays = RunDirectory(path).evaluation()
    pairs = np.stack([arrays["test_targets"], arrays["test_predictions"]], axis=1)
    mistakes = np.bincount(pairs[pairs[:, 0] != pairs[:, 1]].ravel(), minlength=120)
    cells = {(row[0], row[1]): row[2] for row in json.loads(matrix.read_text(encoding="utf-8"))["data"]}
    names = arrays["class_names"]
    shown = [k for k, name in enumerate(names) if (name, name) in cells]
    assert len(cells) == 10_000 and len(shown) == 100
    assert mistakes[shown].min() >= np.delete(mistakes, shown).max()
    counts = dict.fromkeys(cells, 0) | Counter((names[a], names[b]) for a, b in pairs if {a, b} <= {*shown})
    assert cells == counts
    rates = {(row[0], row[1]): row[2] for row in json.loads(shares.read_text(encoding="utf-8"))["data"]}
    images = Counter(names[pairs[:, 0]].tolist())
    assert rates == {cell: count / max(1, images[cell[0]]) for cell, count in cells.items()}
    assert charts.of(arrays)[charts.CONFUSION].spec.string_fields["title"].startswith("Test images of the 100 of 120")


def test_file_names_that_are_not_utf_8_are_printed(study, call, tmp_path, warned, monkeypatch):
    folder, _ = study
    (run, *_) = folder.glob("runs/mlp-*")
    (source, *_) = (folder / "data" / DATASET / "train" / "猫").iterdir()
    name = tmp_path / os.fsdecode(b"caf\xe9\nau lait, [red].png")
    name.write_bytes(source.read_bytes())
    said = warned("study.predict", run, name, cwd=folder)
    assert rf"{tmp_path}/caf\xe9\nau lait, [red].png: " in said
    assert printable("\u0915\u094d\u200d\u0937 \udcff\x1b") == "\u0915\u094d\u200d\u0937 \\xff\\x1b", "joiners stay"
    copy = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9ns"))
    copy.mkdir()
    (copy / run.name).symlink_to(run)
    monkeypatch.setattr(report, "THEMES", (comparison.blocks,))
    call("analysis.summarize", copy, "--out", tmp_path / "report")
    assert r"r\\xe9ns" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
