"""From runs that were really trained to the page: its words, its figures, its files, in both languages."""

import html
import importlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import typing
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import reporting as report
from analysis.frames import contrasts, endings, runs
from analysis.frames.sections import best_of_settings, by_dataset, of_sweep
from analysis.page import blocks, compact, figures, tables
from analysis.page import html as page
from analysis.page.blocks import Data, Gallery, Picture
from analysis.page.characters import Plot
from analysis.themes import (
    about,
    answers,
    clouds,
    comparison,
    confusion,
    costs,
    effects,
    embedding,
    layers,
    pareto,
    space,
    training,
)
from analysis.wording import messages
from analysis.wording import texts as wording
from study.config.setting import Listed, setting_of
from study.record.directory import RunDirectory
from study.sweeps import definition as search
from study.system import devices
from tests import many_runs
from tests.test_analysis import assert_labelled

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"

GRID = """
name: three options
description: What do they do?
method: grid
metric: {name: val/acc, goal: maximize}
parameters:
  dataset: {value: digits}
  epochs: {value: 4}
  lr: {values: [0.001, 0.01, 0.1]}
  model: {values: [mlp, single-block]}
  dropout: {values: [0.0, 0.5]}
  seed: {values: [0, 1]}
"""
ONE = GRID.replace("three options", "<one> & co").replace("values: [0.001, 0.01, 0.1]", "value: 0.1").replace(
      "values: [mlp, single-block]", "value: mlp")  # fmt: skip
TWO = (
    GRID.replace("three options", "two").replace("0.001", "0.2").replace("[0, 1]", "[1]").replace("[0.0, 0.5]", "[0.0]")
)
RATES = ONE.replace("value: 0.1", "values: [0.001, 0.01, 0.1]").replace("values: [0.0, 0.5]", "value: 0.0")


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory):
    """Keep what is computed of layers for all tests of this file: it is the same runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory, run_python):
    """Train the grid of three options, for real, and write two sweeps that need some of its runs."""
    folder = tmp_path_factory.mktemp("study")
    for name, text in (("one", ONE), ("three", GRID), ("two", TWO), ("rates", RATES)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    command = ["-m", "study.sweep", "run", "three.yaml", "--per-device=1", "--wandb=disabled"]
    with tempfile.TemporaryDirectory(prefix="s") as place:  # runs of other tests do not share their device with these
        run_python(command, folder, os.environ | {"TMPDIR": place})
    return folder


@pytest.fixture(scope="module")
def frames(study):
    return runs.load(study / "runs")


def lay_out(figure: Figure) -> None:
    """Give a figure its layout and the texts of its ticks, unless it has them."""
    if figure.stale:
        figure.draw_without_rendering()


def said(block) -> list[str]:
    """List the texts of a block, those within its figures too."""
    match block:
        case blocks.Heading(text):
            return [text]
        case blocks.Paragraph(text):
            return [text]
        case blocks.Items(texts):
            return list(texts)
        case blocks.Data(_, text):
            return [text]
        case blocks.Table():
            return [block.title, *block.header, *block.notes, *(cell.text for row in block.rows for cell in row)]
        case blocks.Picture():
            lay_out(block.figure)
            inside = [text.get_text() for text in block.figure.findobj(Text) if text.get_visible()]
            return [block.title, block.caption, *inside]
        case blocks.Gallery():
            return [block.caption, *(text for picture in block.pictures for text in said(picture))]


@pytest.fixture(scope="module")
def sections(study, frames):
    return {name: of_sweep(frames, search.read(study / f"{name}.yaml"))[0] for name in ("three", "two", "rates")}


def drawing_functions():
    """Name every function of the report's modules that returns a figure."""
    modules = [figures, clouds, pareto, *(importlib.import_module(theme.__module__) for theme in report.THEMES)]
    for module in modules:
        for name, function in vars(module).items():
            anatomy = name == "parameters_per_layer"  # is in no report
            if getattr(function, "__module__", "") == module.__name__ and callable(function) and not anatomy:
                returned = (
                    typing.get_type_hints(function).get("return") if hasattr(function, "__annotations__") else None
                )
                if returned is Figure or Figure in typing.get_args(returned):
                    yield module, name


@pytest.fixture(scope="module")
def drawn():
    """Hold the figures that are drawn, by the name of the function that draws them."""
    return {f"{module.__name__}.{name}": [] for module, name in drawing_functions()}


@pytest.fixture(scope="module")
def made(frames, sections, drawn):
    """Make all that the report says of the sections, and of the larger one in Spanish too."""

    def watched(name, function):
        def call(*args, **kwargs):
            drawn[name].append(function(*args, **kwargs))
            return drawn[name][-1]

        return call

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for module, name in list(drawing_functions()):
            patch.setattr(module, name, watched(f"{module.__name__}.{name}", getattr(module, name)))
        for language in wording.LANGUAGES:
            with wording.language(language):
                for name in ("three", "two") if language == "en" else ("three",):
                    looks = report.looks_of([sections[name]])[0]
                    whole = (report.short, report.section_blocks)
                    found[language, name] = [block for part in whole for block in part(frames, sections[name], looks)]
        shown = best_of_settings(sections["three"]).index[:1]  # which is not to be the best of both data sets
        other = sections["two"].runs.drop(index=shown, errors="ignore").assign(dataset="folder:other")
        found["en", "beside"] = layers.beside(frames, [sections["three"], replace(sections["two"], runs=other)])
        found["en", "rates"] = space.blocks(frames, sections["rates"], {})
        two = list(sections["three"].runs.index[:2])  # as transfer draws the ways to use a pretrained network
        clouds.side_by_side(embedding.see(frames, two), "penultimate", frames.data(two[0])["classes"], "two runs")
    return found


def said_in(made, language):
    with wording.language(language):
        return [text for block in made[language, "three"] for text in said(block)]


def tables_in(made, language):
    return [block for block in made[language, "three"] if isinstance(block, tables.Table)]


def test_a_sweep_becomes_a_page(study, call, tmp_path, monkeypatch):
    themes = (answers.blocks, comparison.blocks, about.each_run, costs.blocks, confusion.blocks)
    monkeypatch.setattr(report, "THEMES", themes)  # test_names.py makes a report of all
    shutil.copytree(study / "runs", tmp_path / "runs")
    shutil.copy(study / "one.yaml", tmp_path)
    result = call("analysis.summarize", "--sweep", "one.yaml", "--full")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path / "report" / "index.html") in result.stdout
    assert "&lt;one&gt; &amp; co" in page and "<one>" not in page
    assert "What do they do?" in page
    assert not re.search(r"src=\"?https?:|<link|@import|url\(", page), "it needs no network"
    for folder, kinds in (("tables", {".csv", ".md", ".tex"}), ("figures", {".pdf", ".png", ".svg"})):
        made = list((tmp_path / "report" / folder).iterdir())
        stems = {path.name.removesuffix(path.suffix) for path in made}
        assert stems and all(stem.startswith(("one-co-", "protocol-")) for stem in stems)
        data = {"one-co-runs.csv", "protocol-all-settings.csv"} if folder == "tables" else set()
        drawn = {stem + kind for stem in stems - {name.removesuffix(".csv") for name in data} for kind in kinds}
        assert {path.name for path in made} == drawn | data
        assert {f"{folder}/{path.name}" for path in made} <= set(re.findall('href="([^"#]+)"', page))
    for anchor in re.findall('href="#([^"]+)"', page):
        assert page.count(f'id="{anchor}"') == 1
    figure_count = len(list((tmp_path / "report" / "figures").glob("*.svg")))
    assert page.count("data:image/svg+xml;base64,") == figure_count
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert markdown.count("](figures/") == figure_count and r"\<one> & co" in markdown
    frame = pd.read_csv(tmp_path / "report" / "tables" / "one-co-comparison.csv")
    directories = [RunDirectory(path) for path in (tmp_path / "runs").iterdir()]
    configs = {d: d.info()["config"] for d in directories}
    for dropout, value in zip(frame.dropout, frame.val_acc, strict=True):
        found = [
            d.summary()["best/val_acc"]
            for d, config in configs.items()
            if (config["model"], config["lr"], config["dropout"]) == ("mlp", 0.1, dropout)
        ]
        assert value == pytest.approx(100 * np.mean(found), rel=1e-5)
    single = pd.read_csv(tmp_path / "report" / "tables" / "one-co-runs.csv")
    assert len(single) == 4 and list(single.seed) == [0, 1, 0, 1]
    for row in single.to_dict("records"):
        summary = RunDirectory(tmp_path / "runs" / row["run"]).summary()
        assert all(row[name] == pytest.approx(summary[name]) for name in ("best/val_acc", "test/acc", "params"))
    found = pd.read_csv(tmp_path / "report" / "tables" / "one-co-costs.csv")
    assert found.images_per_second.min() > 0


@pytest.mark.slow
def test_a_page_of_six_settings_as_the_quickstart_has_stays_under_4_megabytes(study, call, tmp_path):
    shutil.copytree(study / "runs", tmp_path / "runs")
    shutil.copy(study / "two.yaml", tmp_path)
    call("analysis.summarize", "--sweep", "two.yaml")
    page = tmp_path / "report" / "index.html"
    written = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 3_000_000, "it has 2 MB, and so has the quickstart, whose settings have five seeds"
    assert written.count("data:image/svg+xml") > 12 and written.count("data:image/jpeg") == 1, "with everything"
    figures = tmp_path / "report" / "figures"
    drawn = sum(path.stat().st_size for path in figures.glob("*.svg"))
    shown = sum(3 * len(text) // 4 for text in re.findall('data:image/svg[^,]*,([^"]*)"', written))
    assert shown < 0.8 * drawn, "the page has a shorter form of them"


def test_without_sweeps_those_in_the_folder_that_have_runs_are_shown(study, call, tmp_path, monkeypatch):
    shutil.copytree(study / "runs", tmp_path / "runs")
    (tmp_path / "sweeps").mkdir()
    shutil.copy(study / "one.yaml", tmp_path / "sweeps")
    (tmp_path / "sweeps" / "other.yaml").write_text(
        ONE.replace("<one> & co", "other").replace("value: 4", "value: 50"), encoding="utf-8"
    )
    elsewhere = ONE.replace("<one> & co", "elsewhere").replace("value: digits", "value: mnist").replace("0.5]", "0.1]")
    (tmp_path / "sweeps" / "elsewhere.yaml").write_text(elsewhere, encoding="utf-8")
    (tmp_path / "sweeps" / "broken.yaml").write_text("method: [", encoding="utf-8")
    shown = {}
    monkeypatch.setattr(report, "write", lambda frames, found, *rest: shown.update(found=found) or tmp_path)
    result = call("analysis.summarize")
    assert "broken.yaml" in result.stderr
    assert [section.name for section in shown["found"]] == ["elsewhere, digits", "<one> & co", "digits, other runs"]
    assert [len(section.runs) for section in shown["found"]] == [2, 4, 20], "a sweep of other data has its points too"


def words(texts) -> set[str]:
    return {word.casefold() for text in texts for word in re.findall(r"[^\W\d_]{4,}", text)}


def pairs() -> list[tuple[str, str]]:
    """Return all English texts with their Spanish."""
    both = [(message.id, message.string) for message in messages.catalogue("es") if message.id]
    return [pair for texts in both for pair in ([texts] if isinstance(texts[0], str) else zip(*texts, strict=True))]


@pytest.mark.slow
def test_nothing_is_said_in_english_in_a_spanish_report(made):
    """Any word of four characters that both languages' reports hold must be Spanish somewhere, or a name."""
    english, spanish = (said_in(made, language) for language in wording.LANGUAGES)
    names = {"digits", "three", "options", "single", "block", *words([devices.cpu()])}  # of data, sweep, machine
    known = words(text for _, text in pairs())
    assert len(words(english) - words(spanish)) > 200
    assert words(english) & words(spanish) <= known | names
    assert not [text for text in spanish if re.search(r"\d\.\d", text)], "the decimal comma"
    assert [text for text in spanish if re.search(r"\d,\d", text)]


@pytest.mark.slow
def test_the_spanish_page(study, call, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", report.THEMES[:7])  # the texts of the others were read above
    (tmp_path / "runs").symlink_to(study / "runs")
    shutil.copy(study / "one.yaml", tmp_path)
    call("analysis.summarize", "--sweep", "one.yaml", "--lang", "es", "--out", "informe")
    english = {re.sub(r"\s+", " ", text.split("{")[0]).strip().casefold() for text, _ in pairs()}
    spanish = " | ".join(text for _, text in pairs()).casefold()
    english = {text for text in english if len(text) > 3 and text not in spanish}
    for path in [tmp_path / "informe" / "index.html", tmp_path / "informe" / "report.md",
                 *tmp_path.glob("informe/tables/*.tex"), *tmp_path.glob("informe/figures/*.svg")]:  # fmt: skip
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".svg":  # matplotlib writes each text as a comment beside its outlines
            text = "\n".join(re.findall(r"<!-- (.*?) -->", text))
        unseen = r"<style>.*?</style>|<script.*?</script>|data:image[^\"]*|<[^>]*>|\(figures/.*?\)"
        unseen += r"|\(https?:.*?\)|python -m study\.train[^`<]*"
        text = re.sub(r"\s+", " ", html.unescape(re.sub(unseen, " ", text, flags=re.S)).replace(r"\%", "%")).casefold()
        assert not [one for one in english if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text)], path
        assert not re.findall(r"\d\.\d", text.split("entrenado en")[0]), path  # versions of libraries follow
    assert '<html lang="es">' in (tmp_path / "informe" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_csv_is_the_same_in_every_language(made):
    english, spanish = ([tables.csv(table) for table in tables_in(made, language)] for language in wording.LANGUAGES)
    assert len(english) > 10 and english == spanish


@pytest.mark.slow
def test_every_figure_can_be_read(made, drawn):
    """Every figure has a title and labels, its legend outside, thousands separated, and names that cover nothing."""
    assert not [name for name, found in drawn.items() if not found], "every kind of figure is in these reports"
    for name, figures_of_a_kind in drawn.items():
        for figure in list(filter(None, figures_of_a_kind))[:2]:
            assert_labelled(figure)
            lay_out(figure)
            renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
            panels = [axes.get_window_extent(renderer) for axes in figure.axes]
            for legend in figure.legends:
                box = legend.get_window_extent(renderer)
                assert not any(box.overlaps(panel) for panel in panels), f"the legend of {name} covers something"
            for axes in figure.axes:
                assert axes.get_legend() is None, f"{name} has a legend within its axes"
                ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
                whole = [tick.get_text().partition(".")[0] for tick in ticks]  # 0.0075 has no thousands
                assert not [text for text in whole if re.search(r"\d{4}", text)], f"{name} writes 1000"
    for figure in drawn["analysis.themes.pareto.draw"]:
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.texts]
            pairs = [(a, b) for place, a in enumerate(boxes) for b in boxes[:place]]
            assert boxes and not any(a.overlaps(b) for a, b in pairs), "names cover each other"


@pytest.mark.slow
def test_data_sets_are_shown_side_by_side(made, frames, sections):
    said, table, picture = made["en", "beside"]
    assert [text.split(":")[0].split()[-1] for text in said.texts] == ["digits", "other"]
    assert list(table.frame.dataset.unique()) == ["digits", "other"] and "logits" not in set(table.frame.layer)
    assert len(picture.figure.axes) == len(table.rows) and len(picture.figure.subfigs) == 2
    assert layers.beside(frames, [sections["three"], sections["two"]]) == [], "one data set"


def test_one_setting_has_one_colour_in_all_sections(sections):
    looks = report.looks_of(list(sections.values()))
    of_group: dict[str, set] = {}
    for section, look in zip(sections.values(), looks, strict=True):
        assert len(set(look.values())) == len(look), "two settings of a section never look the same"
        for setting, group in section.runs.drop_duplicates("setting").set_index("setting").group.items():
            of_group.setdefault(group, set()).add(look[setting])
    assert all(len(found) == 1 for found in of_group.values())
    assert len(of_group) == 12


@pytest.mark.slow
def test_missing_points_are_empty_cells_and_listed(made, sections):
    section = sections["two"]
    assert section.missing == ["lr 0.2, mlp, seed 1", "lr 0.2, single-block, seed 1"]
    table = comparison.table(section)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["lr 0.2, mlp"] == ["0", *[""] * (len(table.columns) - 2)]
    with_result = [texts for name, texts in rows.items() if "lr 0.2" not in name]
    assert len(with_result) == 4 and all(texts[1] for texts in with_result)
    texts = [text for block in made["en", "two"] if isinstance(block, blocks.Items) for text in block.texts]
    assert any("lr 0.2, mlp, seed 1" in text for text in texts)
    figure = space.heat_map(contrasts.compare(section), ["lr", "model"], "Title")
    assert len(figure.axes[0].texts) == 4, "two cells of six are empty"
    assert {label.get_text() for label in figure.axes[0].get_yticklabels()} == {"0.01", "0.1", "0.2"}


def test_a_single_seed_claims_nothing(frames, sections):
    texts = " ".join(answers.sentences(frames, sections["two"]))
    assert "With one seed each" in texts and "McNemar" in texts and "five seeds or more" in texts
    assert "±" not in texts and "shown" not in texts
    table = comparison.table(sections["two"], networks=contrasts.with_best(frames, sections["two"],
                             contrasts.compare(sections["two"])))  # fmt: skip
    assert "±" not in tables.markdown(table) and "p (Holm)" not in table.header and "p (McNemar)" in table.header
    effect = effects.measure(sections["two"])
    assert effect.score_change_p.isna().all()


@pytest.mark.slow
def test_latex_compiles(made, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("there is no pdflatex")
    odd = pd.DataFrame({"setting": ["100 % & #1_x ^~ {$\\} <a> “b” — c", "[d]"], "n": [1234.5, -6.0]})
    every = [*tables_in(made, "en"), *tables_in(made, "es")]
    every.append(tables.Table("odd", "", odd, [tables.Column("setting"), tables.Column("n", 1)]))
    lines = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", r"\tiny"]
    for table, language in zip(every, ["en"] * (len(every) // 2) + ["es"] * len(every), strict=False):
        with wording.language(language):
            lines.append(tables.latex(table) + "\n")
    (tmp_path / "tables.tex").write_text("\n".join([*lines, r"\end{document}"]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-2000:]


def test_numbers_and_settings_are_written_as_the_language_does():
    values = {"dropout": 0.5, "augment": Listed(), "batch_size": 64, "model": "timm:vgg", "lr": 1e-5}
    setting = setting_of(values, values)
    assert wording.shown(setting) == "dropout 0.5, augment none, batch size 64, timm:vgg, lr 1e-05"
    assert wording.number(-1234.5, ",.2f") == "−1,234.50"
    with wording.language("es"):
        assert wording.shown(setting) == (
            "dropout 0,5 · sin aumento de datos · tamaño de lote 64 · timm:vgg · tasa de aprendizaje 1e-05"
        )
        assert wording.number(-1234.5, ",.2f") == "−1\u202f234,50"
        assert wording.text("Epoch") == "Época"
    assert wording.text("Epoch") == "Epoch"


def test_a_pdf_is_printed_or_said_to_be_impossible(study, call, tmp_path, monkeypatch):
    (tmp_path / "runs").symlink_to(study / "runs")
    shutil.copy(study / "one.yaml", tmp_path)
    monkeypatch.setattr(report, "THEMES", (answers.blocks, comparison.blocks))
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        message = call("analysis.summarize", "--sweep", "one.yaml", "--pdf", code=2).stderr
    assert "--pdf needs Chromium or Chrome" in message and not (tmp_path / "report").exists(), "said before any work"
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("there is no Chromium")
    result = call("analysis.summarize", "--sweep", "one.yaml", "--pdf")
    pdf = tmp_path / "report" / "report.pdf"
    assert str(pdf) in result.stdout
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000


@pytest.mark.slow
def test_equal_runs_make_equal_files(frames, sections, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", (comparison.blocks,))
    made = []
    for name in ("one", "two"):
        report.write(frames, [sections["two"]], "runs", tmp_path / name, full=True)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        made.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert len(made[0]) == 28 and made[0] == made[1]


def test_what_people_wrote_into_the_folder_of_a_report_is_not_lost(tmp_path, capsys):
    """A file that no report wrote, or that was changed since, is renamed; the others are replaced in silence."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.md").write_text("my essay", encoding="utf-8")

    def write():
        page.write([page.Part("part", "Part", [blocks.Paragraph("words")])], "title", "runs", lambda: "", out)
        return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir() if path.is_file()}

    files = write()
    assert files["report.old.md"] == "my essay" and "words" in files["report.md"]
    assert "report.old.md" in capsys.readouterr().err
    assert set(write()) == set(files) and not capsys.readouterr().err
    (out / "report.md").write_text("words, and mine", encoding="utf-8")
    (out / "report.pdf").write_bytes(b"to hand in")
    again = write()
    assert again["report.old2.md"] == "words, and mine" and again["report.old.md"] == "my essay"
    assert again["report.pdf"] == "to hand in" and "index.old.html" not in again


@pytest.mark.slow
def test_figures_that_are_folded_are_svg_alone(frames, sections, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", (costs.blocks, confusion.blocks))
    page = report.write(frames, [sections["three"]], "runs", tmp_path)
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    pictures = [block for block in report.short(frames, sections["three"], {}) if isinstance(block, Picture)]
    in_short = {f"three-options-{picture.name}.{kind}" for picture in pictures for kind in ("png", "pdf")}
    assert {name for name in written if not name.endswith(".svg")} == in_short and len(written) > 3 * len(in_short) / 2
    assert {f"figures/{name}" for name in written} == set(
        re.findall('href="(figures/[^"]+)"', page.read_text(encoding="utf-8"))
    )


@pytest.mark.slow
def test_no_two_blocks_have_the_same_files(made):
    for content in made.values():
        pictures = [block for block in content if isinstance(block, Picture)]
        pictures += [picture for block in content if isinstance(block, Gallery) for picture in block.pictures]
        titles = {(picture.name, picture.title) for picture in pictures}
        assert len(titles) == len({name for name, _ in titles})
        data = [block.name for block in content if isinstance(block, tables.Table | Data)]
        assert len(data) == len(set(data))


def test_the_page_has_a_shorter_form_of_an_svg():
    drawn = Plot()
    axes = drawn.subplots()
    axes.plot([1, 2, 3], label='-->  <b> x²  translate(1 2) d="1.23456"')
    axes.fill_between([0, 1], [1, 2], [2, 3])
    axes.imshow(np.arange(64).reshape(8, 8), extent=(0, 1, 0, 1))
    axes.set_title(r"$10^{-3}$")
    axes.legend()
    long = page.drawn(drawn, "svg", "name")
    short = compact.svg(long)
    assert len(short) < 0.8 * len(long)

    # the same elements, and every name that is used is there
    before, after = (list(ElementTree.fromstring(content).iter()) for content in (long, short))
    kinds = [element.tag for element in before if element.tag.startswith(SVG) and element.tag != f"{SVG}metadata"]
    assert [element.tag for element in after] == kinds
    used = {address for element in after for address in (element.get("href"), element.get(LINK)) if address}
    names = {address for address in used if address.startswith("#")}
    assert names and names <= {f"#{element.get('id')}" for element in after}

    # every line at its place
    exact, rounded = ([e.get("d") for e in tree if e.get("d")] for tree in (before, after))
    for one, other in zip(exact, rounded, strict=True):
        places = [[float(word) for word in line.split() if word[-1].isdigit()] for line in (one, other)]
        assert places[0] == pytest.approx(places[1], abs=0.0051)


def test_hundreds_of_runs_are_compared_in_a_second_or_two(study, tmp_path):
    many_runs.write(next((study / "runs").glob("mlp-*")), tmp_path / "many", count=200, epochs=30)
    started = time.process_time()
    section = by_dataset(runs.load(tmp_path / "many"))[0]
    table = comparison.table(section)
    assert tables.markdown(table).count("\n") == 2 + 40 and table.frame.n.eq(5).all()
    measured = endings.measure(section)
    assert len(training.more_epochs(section).rows) == 40 and len(measured) == 200
    assert time.process_time() - started < 5


def test_a_text_above_a_long_table_hides_the_other_rows(tmp_path):
    """The field is there only with a script, for tables of more than ten rows, and matches any cell."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no Chromium")
    columns = [tables.Column("setting"), tables.Column("score", 1)]
    long, short = (
        tables.Table(name, name, pd.DataFrame({"setting": [f"net {n}" for n in range(count)], "score": 90.5}), columns)
        for name, count in (("long", 14), ("short", 3))
    )
    path = page.write([page.Part("p", "p", [long, short])], "title", "", lambda: "", tmp_path)
    written = path.read_text(encoding="utf-8")
    assert "<input" not in written
    typed = """<script>
      const fields = document.querySelectorAll("input[type=search]");
      fields[0].value = "NET 1"; fields[0].dispatchEvent(new Event("input"));
      document.title = fields.length + " " + document.querySelectorAll("tbody tr:not([hidden])").length;
    </script></body>"""
    path.write_text(written.replace("</body>", typed), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dumped = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, encoding="utf-8", timeout=60)
    assert "<title>1 8</title>" in dumped.stdout, "net 1, net 10 to 13, and the short table"
