"""The page in a browser: figures show values, and hide a setting everywhere; without a script they are all there."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.page import figures
from analysis.page import html as page
from analysis.page.blocks import Picture
from analysis.themes import clouds, comparison, embedding, pareto
from study.config.setting import setting_of
from study.data.dataset import Split
from study.training import thumbnails

HELPERS = """<script>
const live = () => [...document.querySelectorAll("figure.awake")];
const host = figure => figure.querySelector(".host");
const data = figure => JSON.parse(figure.querySelector("figure > script").textContent);
const nodes = (figure, name) => data(figure).marks.filter(mark => data(figure).settings[mark.setting]?.name === name)
  .map(mark => host(figure).shadowRoot.getElementById(mark.id)).filter(node => node);
const hidden = figure => data(figure).settings.map(({ name }) => name)
  .filter(name => nodes(figure, name).every(node => node.style.display === "none"));
const at = (figure, [x, y]) => {
  host(figure).dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));
  const tip = document.querySelector(".tip");
  return tip.hidden ? null : [...tip.querySelectorAll("b, span")].map(line => line.textContent);
};
const end = path => {
  const length = path.getTotalLength(), { x, y } = path.getPointAtLength(length).matrixTransform(path.getScreenCTM());
  return [x, y];
};
const middle = node => {
  const { left, right, top, bottom } = node.getBoundingClientRect();
  return [(left + right) / 2, (top + bottom) / 2];
};
const press = (figure, text) => [...figure.querySelectorAll("button")].find(one => one.textContent === text).click();
const run = found => document.title = JSON.stringify(found);
watch.disconnect();  // the frames of a browser without a screen come when they like
document.querySelectorAll("figure > script").forEach(data => wake(data.parentElement));
{ SCRIPT }
</script>"""


@pytest.fixture
def browse(tmp_path):
    """Return a function that writes a page of figures, runs a script in it, and returns what it passes to `run`."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no Chromium")

    def open_page(pictures, script):
        path = page.write([page.Part("p", "p", pictures)], "title", "", lambda: "", tmp_path)
        written = path.read_text(encoding="utf-8")
        path.write_text(written.replace("</body>", f"{HELPERS.replace('SCRIPT', script)}</body>"), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                   "--window-size=1200,9000", "--virtual-time-budget=1000"]  # fmt: skip
        done = subprocess.run(
            [*command, "--dump-dom", path.as_uri()], capture_output=True, encoding="utf-8", timeout=120
        )
        title = re.search("<title>(.*?)</title>", done.stdout, flags=re.S)[1]
        return json.loads(html.unescape(title))

    return open_page


def history(settings, epochs=4):
    rows = [
        {"run": f"{place}-{seed}", "setting": setting, "epoch": epoch, "train/loss": 2 / epoch, "train/acc": 0.5,
         "val/loss": 2.5 / epoch, "val/acc": 0.6 + 0.02 * place + 0.03 * epoch + 0.011 * seed}
        for place, setting in enumerate(settings) for seed in (0, 1) for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def pictures(settings):
    """Draw the curves, the ranking and the costs of some settings."""
    curves = history(settings)
    last = curves[curves.epoch == 4].set_index("run")
    runs = pd.DataFrame(
        {"setting": last.setting, "seed": [int(run[-1]) for run in last.index], "best/val_acc": last["val/acc"]}
    )
    means = (100 * last.groupby("setting", sort=False)["val/acc"].mean()).to_numpy()
    frame = pd.DataFrame({"setting": settings, "n": 2, "score": means, "score_ci95": 1.25, "test_score": means - 1.5,
                          "params": 1000.0 * (1 + np.arange(len(settings)))})  # fmt: skip
    looks = figures.looks_of(settings)
    return [
        Picture("curves", "curves", figures.learning_curves(curves, "curves", looks)),
        Picture("each", "each", figures.curves_by_setting(curves, settings, "each", looks)),
        Picture("ranking", "ranking", comparison.ranking(frame, runs, "ranking", looks)),
        Picture("pareto", "pareto", pareto.draw(frame, ["params"], "costs", looks)),
    ], frame


def named(*values):
    return [setting_of({"model": value}, ["model"]) for value in values]


def test_figures_show_values_and_a_click_hides_a_setting_in_all_of_them(browse):
    drawn, frame = pictures(named("one", "two", "<b>& 'three'"))
    values, *steps, pressed = browse(
        drawn,
        """const [curves, each, ranking, pareto] = live();
        const marked = (figure, name, is) => nodes(figure, name)
          .find(node => data(figure).marks.some(mark => mark.id === node.id && is(mark)));
        const line = marked(curves, "one", mark => mark.line && data(curves).panels[mark.panel].labels[1][0] === "A");
        const point = (figure, name) => marked(figure, name, mark => mark.values?.length === 1).querySelector("use");
        const values = [at(curves, end(line.querySelector("path"))), at(ranking, middle(point(ranking, "two"))),
                        at(pareto, middle(point(pareto, "<b>& 'three'"))), at(ranking, [1, 1])];
        const steps = ["two", "<b>& 'three'", "two", "Hide all", "Show all"].map(text => {
          press(ranking, text);
          return live().map(figure => hidden(figure).toSorted());
        });
        const pressed = live().map(figure => figure.querySelectorAll(".legend [aria-pressed=true]").length);
        run([values, ...steps, pressed]);""",
    )

    # the value of the frame stands beside the pointer
    curve, dot, cost, far = values
    one, two, three = frame.score
    assert curve[:2] == ["one", "Epoch: 4"] and curve[2].startswith(f"Validation accuracy (%): {one:.2f} ± ")
    assert dot == ["two", f"Best val acc (%): {two:.2f} ± 1.25"] and far is None
    assert cost == ["<b>& 'three'", "Parameters: 3,000", f"Validation accuracy (%): {three:.2f} ± 1.25"]

    # all four figures hide the same
    every = ["<b>& 'three'", "one", "two"]
    assert steps == [[step] * 4 for step in (["two"], every[::2], every[:1], every, [])]
    assert pressed == [3] * 4


def test_every_setting_of_many_can_be_found(browse):
    settings = named(*(f"net {n:02d}" for n in range(30)))
    found = browse(
        [Picture("curves", "curves", figures.learning_curves(history(settings), "curves"))],
        """const figure = live()[0], buttons = [...figure.querySelectorAll(".legend button")];
        const { marks, panels, settings } = data(figure);
        const grey = marks.find(mark => mark.child === 3 && panels[mark.panel].labels[1][0] === "A");
        const path = host(figure).shadowRoot.getElementById(grey.id).querySelectorAll("path")[3];
        const name = settings[grey.setting].name, shown = at(figure, end(path));
        buttons.find(one => one.textContent === name).click();
        const kept = JSON.parse(sessionStorage.getItem(sessionStorage.key(0)));
        run([buttons.length, name, shown, path.style.display, at(figure, end(path)), kept]);""",
    )
    count, name, shown, display, afterwards, kept = found
    assert kept == [name], "for the next time that the page reloads itself"
    assert count == 30 and shown[0] == name and display == "none" and (afterwards is None or afterwards[0] != name)


def test_a_point_of_a_tsne_shows_image_class_and_prediction(browse, tmp_path):
    draw = np.random.default_rng(0)
    targets, predicted = np.arange(40) % 2, np.r_[1, np.arange(1, 40) % 2]
    layers = {
        name: embedding.Layer(9, draw.normal(size=(40, 2)) * 9, 0.9, targets == 0, 0.2) for name in embedding.LAYERS
    }
    greys = torch.arange(40, dtype=torch.uint8)[:, None, None, None] * 6
    sheet = thumbnails.sheet(Split(greys.expand(40, 1, 8, 8), torch.zeros(40)))
    shown = embedding.Seen(np.arange(40), targets, predicted, layers, sheet)
    old = embedding.Seen(np.arange(40), targets, predicted, layers)
    names = ["cat", "dog"]
    drawn = [clouds.tsne_figure({"a run": run}, names, "t-SNE") for run in (shown, shown, old)]
    first, later, without = browse(
        [Picture("tsne", "tsne", figure) for figure in drawn],
        """const look = (figure, which) => {
          const { panels, marks } = data(figure), [left, top, right, bottom] = panels[0].box;
          const svg = host(figure).shadowRoot.querySelector("svg"), [x, y] = marks[0].values[which];
          const share = (value, [low, high]) => (value - low) / (high - low);
          const across = left + share(x, panels[0].x) * (right - left);
          const down = bottom - share(y, panels[0].y) * (bottom - top);
          const place = new DOMPoint(across, down).matrixTransform(svg.getScreenCTM());
          const lines = at(figure, [place.x, place.y]), canvas = document.querySelector(".tip canvas");
          const pixel = canvas?.getContext("2d").getImageData(4, 4, 1, 1).data[0];
          return [lines, svg.querySelectorAll("circle").length, canvas && [canvas.width, canvas.height, pixel]];
        };
        onload = () => run([look(live()[0], 0), look(live()[1], 33), look(live()[2], 0)]);""",
    )

    # a ring around the image in each of three layers, and the image itself where the run has recorded it
    assert first[:2] == [["class cat", "predicted as dog"], 3] and later[:2] == [["class dog"], 3]
    assert first[2] == pytest.approx([8, 8, 0], abs=3) and later[2] == pytest.approx([8, 8, 6 * 33], abs=3)
    assert without == [["class cat", "predicted as dog"], 3, None]

    # the images are stored once
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("data:image/jpeg") == 1


def test_zoom_has_a_way_back_and_a_figure_becomes_large(browse):
    drawn, _ = pictures(named("one", "two"))
    found = browse(
        drawn[2:3],
        """const figure = live()[0], box = figure.querySelector(".box");
        const svg = host(figure).shadowRoot.querySelector("svg"), width = () => svg.viewBox.baseVal.width;
        const widths = [width()];
        for (const text of ["+", "Whole figure"]) { press(box, text); widths.push(width()); }
        press(box, "Enlarge");
        const dialog = document.querySelector("dialog"), large = dialog.open && box.parentElement === dialog;
        const back = () => setTimeout(() => run([widths, large, box.parentElement === figure]), 10);
        dialog.addEventListener("close", back);
        press(box, "Close");""",
    )
    (whole, zoomed, again), large, back = found
    assert zoomed < whole == again and large and back


def test_the_axes_of_a_zoomed_figure_have_numbers_for_what_is_in_view(browse):
    drawn, _ = pictures(named("one", "two", "three"))
    found = browse(
        [drawn[2], drawn[3]],
        """const found = (figure, what) => [...host(figure).shadowRoot.querySelectorAll(what)];
        const written = figure => found(figure, "svg text").map(one => one.textContent);
        const isShown = one => getComputedStyle(one).display !== "none";
        const ticks = figure => found(figure, "[id*=tick_]").filter(isShown).length;
        const seen = figure => [written(figure), ticks(figure)], steps = live().map(figure => [seen(figure)]);
        const points = [];
        live().forEach((figure, place) => {
          for (let n = 0; n < 6; n++) press(figure, "+");
          steps[place].push(seen(figure));
          const point = nodes(figure, "three").flatMap(node => [...node.querySelectorAll("use.point")])[0];
          points.push([at(figure, middle(point)), point.getBoundingClientRect().width]);
          press(figure, "Whole figure");
          steps[place].push(seen(figure));
        });
        run([steps, live().map(figure => data(figure).panels[0]), points]);""",
    )
    (ranking, costs), panels, points = found
    for (before, inside, after), panel in zip((ranking, costs), panels, strict=True):
        assert before == after and before[0] == [] and before[1] > 0, "the whole figure has its own axes"
        low, high = panel["x"][:2]
        numbers = [float(text.replace(",", "")) for text in inside[0] if text[0].isdigit()]
        assert len(numbers) >= 3 and inside[1] < before[1], "other ticks are drawn in place of the file's"
        across = [value for value in numbers if low <= value <= high]
        assert across and max(across) - min(across) < (high - low) / 5, "of the small part that is in view"
    assert "two" in ranking[1][0] and not {"one", "three"} & {*ranking[1][0]}, "the setting in the middle"
    assert all(tip[0] == "three" and width < 20 for tip, width in points), "points stay at their values, and small"


def test_without_a_script_all_figures_are_there(tmp_path):
    drawn, _ = pictures(named("one", "two"))
    path = page.write([page.Part("p", "p", drawn)], "title", "", lambda: "", tmp_path)
    body = re.sub("<script.*?</script>", "", path.read_text(encoding="utf-8").partition("<body>")[2], flags=re.S)
    assert body.count('<img src="data:image/svg+xml;base64,') == 4 and "<button" not in body
    assert not re.search(r'class="[^"]*(awake|box)', body), "only a script hides the images"


@pytest.mark.parametrize(("rows", "layer"), [(2, True), (1, False)])
def test_panels_of_a_tsne_are_equal(rows, layer):
    draw = np.random.default_rng(0)
    points = {
        name: embedding.Layer(9, draw.normal(size=(40, 2)), 0.9, np.ones(40, bool), 0.2) for name in embedding.LAYERS
    }
    fewer = {name: points[name] for name in embedding.LAYERS[1:]}
    runs = {
        f"{'a long name ' * 12 if place else 'a'} {place}": embedding.Seen(
            np.arange(40), np.arange(40) % 3, np.arange(40) % 3, points if layer and place else fewer
        )
        for place in range(rows)
    }
    figure = clouds.tsne_figure(runs, ["a", "b", "c"], "t-SNE")
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert len(boxes) == (5 if rows == 2 else 2)
    assert np.ptp([box.width for box in boxes]) < 0.5 and np.ptp([box.height for box in boxes]) < 0.5
