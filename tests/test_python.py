"""From Python: the public names, what they return, how they are interrupted, versions, packages and notebooks."""

import inspect
import json
import os
import pickle
import pydoc
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import analysis
import study
from study import Config, Run, UserError, predict, train
from study.config.setting import Setting
from study.record.results import SweepResult
from study.system import version
from study.system.errors import STOP
from study.system.process import ENDS
from tests.test_analysis import EPOCHS, make_run

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "docs" / "notebooks"
COMMANDS = (
    "study.train", "study.predict", "study.sweep", "study.sync", "study.bench.compare",
    "analysis.summarize", "analysis.anatomy", "analysis.export", "analysis.results",
)  # fmt: skip


def quick(tmp_path: Path, **more) -> Config:
    return Config(model="mlp", dataset="digits", runs_dir=str(tmp_path / "runs"), wandb="disabled", **more)


def handlers() -> dict[int, object]:
    return {signum: signal.getsignal(signum) for signum in (*ENDS, STOP)}


@pytest.mark.parametrize("package", [study, analysis], ids=lambda package: package.__name__)
def test_each_public_name_is_documented_with_its_types(package):
    assert len(package.__all__) <= 10 and set(package.__all__) <= set(dir(package))
    for name in set(package.__all__) - {"__version__"}:
        thing = getattr(package, name)
        assert inspect.getdoc(thing) and "0x" not in pydoc.render_doc(thing)
        if inspect.isfunction(thing):
            given = [parameter.annotation for parameter in inspect.signature(thing).parameters.values()]
            assert inspect.Parameter.empty not in [*given, inspect.signature(thing).return_annotation], name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = package.trian


def test_every_option_is_in_the_help_of_a_config():
    text = pydoc.plain(pydoc.render_doc(Config))
    assert all(f"{name}: {field.description[:40]}" in text for name, field in Config.model_fields.items())


@pytest.mark.parametrize(
    "order",
    [
        "from study import train; import study.train",
        "import study.train; from study import train",
        "from study.train import main; from study import train; import study.sweep, analysis.summarize",
    ],
)
def test_a_name_is_the_function_also_where_its_command_is_imported(order, run_python, tmp_path):
    ask = "import inspect, study, study.sweep; print(*map(inspect.isfunction, (train, study.train, study.sweep)))"
    assert run_python(["-c", f"{order}; {ask}"], tmp_path).stdout == "True True True\n"


def test_importing_the_packages_imports_no_library(run_python, tmp_path):
    ask = "import sys, study, analysis; print({'torch', 'pandas', 'pydantic', 'numpy', 'wandb'} & sys.modules.keys())"
    assert run_python(["-c", ask], tmp_path, fresh=True).stdout == "set()\n"


def test_train_returns_the_run_that_the_command_finds(tmp_path, call, capfd):
    import torch

    before, threads = handlers(), torch.get_num_threads()
    run = train(quick(tmp_path, epochs=2, threads=1))
    assert handlers() == before and torch.get_num_threads() == threads
    assert torch.tensor(1e-310, dtype=torch.float64) / 2 != 0  # tiny numbers are not taken for zero any more

    # What it measured
    assert run.state == "finished" and run.directory.parent == tmp_path / "runs" and run.config.epochs == 2
    assert isinstance(run.history, pd.DataFrame) and list(run.history.index) == [1, 2]
    assert run.summary["best/val_acc"] == run.history["val/acc"].max()
    assert run.info["versions"][version.PACKAGE] == study.__version__
    assert run.name in repr(run) and Run(str(run.directory)).summary == run.summary

    # It is trained once, here and on the command line, and again if forced
    assert train(quick(tmp_path, epochs=2)).info["started"] == run.info["started"]
    told = call("study.train", "--model=mlp", "--dataset=digits", "--epochs=2", "--wandb=disabled").stdout
    assert "was trained before" in told
    ended = run.directory / "run.json"
    stamp = ended.stat().st_mtime_ns
    train(quick(tmp_path, epochs=2), force=True)
    assert ended.stat().st_mtime_ns > stamp


def test_mistakes_are_one_sentence_in_a_notebook_too(tmp_path):
    with pytest.raises(UserError, match="data/nothing") as error:
        train(Config(dataset="folder:nothing", runs_dir=str(tmp_path / "runs"), data_dir=str(tmp_path / "data")))
    assert len(error.value._render_traceback_()) == 1 and not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="has no run"):
        Run(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modle": "cnn"}, ["'modle'", "'model'"]),
        ({"dropout": 2}, ["dropout", "less than 1", "2"]),
        ({"epochs": 2.5}, ["epochs", "whole number", "2.5"]),
        ({"augment": "flipp", "epochs": 0}, ["'flipp'", "'flip'", "epochs"]),
    ],
)
def test_a_mistake_in_a_config_is_a_sentence_and_a_config_is_copied_unchanged(options, words):
    with pytest.raises(UserError) as error:
        Config(**options)
    said = str(error.value)
    assert all(word in said for word in words) and "\n" not in said and type(error.value) is UserError
    config = Config(model="mlp", dropout=0.5)
    assert pickle.loads(pickle.dumps(config)) == config == config.model_copy()


WRONG = {
    "config": lambda frames: train("cnn"),
    "options": lambda frames: train({"model": "cnn"}),
    "array": lambda frames: predict("runs/none", np.zeros((2, 8, 8))),
    "run": lambda frames: predict(5, "photo.jpg"),
    "file": lambda frames: study.sweep(5),
    "sections": lambda frames: analysis.compare(analysis.sections(frames)),
    "no section": lambda frames: analysis.curves(frames),
    "swapped": lambda frames: analysis.confusion(analysis.sections(frames)[0], frames),
    "folder": lambda frames: analysis.sections("runs"),
    "option of sweep": lambda frames: study.sweep(ROOT / "sweeps" / "quickstart.yaml", epoch=3),
    "word of sweep": lambda frames: study.sweep(ROOT / "sweeps" / "quickstart.yaml", perdevice=1),
    "word of report": lambda frames: analysis.report("runs", sweeps="x.yaml"),
    "source": lambda frames: analysis.load(None),
    "empty folder": lambda frames: analysis.load(Path()),
    "frames": lambda frames: analysis.report(frames),
    "no setting": lambda frames: analysis.tsne(frames, analysis.sections(frames)[0], settings=0),
    "shape": lambda frames: analysis.layers(Config(), image_shape=8),
    "option of sections": lambda frames: analysis.sections(frames, (), {"epoch": 3}),
}
"""Calls with something of the wrong type or name."""


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_function_does_not_take_is_one_sentence(kind, tmp_path, monkeypatch, capfd):
    make_run(tmp_path / "runs", 0.8)
    frames = analysis.load(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # without sweeps and runs
    with pytest.raises(UserError) as error:
        WRONG[kind](frames)
    meant = {"option of sweep": "epochs", "word of sweep": "per_device", "word of report": "sweep"}.get(kind, "")
    said = str(error.value)
    assert repr(meant) in said if meant else len(said) < 200
    assert "\n" not in said and "--set" not in said and not capfd.readouterr().err


def test_an_image_of_pil_is_predicted_as_its_file_is(tmp_path):
    run = train(quick(tmp_path, epochs=1))
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    picture.save(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as opened:
        frame = predict(run, [picture, opened, tmp_path / "one.png"])
    assert list(frame.index) == ["image 0", *[str(tmp_path / "one.png")] * 2]
    assert (frame == frame.iloc[0]).all(axis=None) and predict(run, picture).shape == (1, 10)

    # All files that cannot be read are named at once
    for name in ("two.png", "three.png"):
        (tmp_path / name).write_bytes(b"none")
    with pytest.raises(UserError, match=r"two\.png.*three\.png"):
        predict(run, [tmp_path / name for name in ("two.png", "one.png", "three.png")])


def test_a_file_of_weights_is_digested_as_on_the_command_line(tmp_path, photo_folder):
    import timm
    from safetensors.torch import save_file

    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), file)
    options = {"model": "timm:test_efficientnet", "dataset": "folder:photos", "image_size": 32, "finetune": "svm"}
    places = {"data_dir": str(tmp_path / "data"), "runs_dir": str(tmp_path / "runs"), "wandb": "disabled"}
    run = train(Config(**options, **places, weights=str(file)))
    assert run.config.weights_digest and run.info["pretrained"]["source"] == str(file)

    # Its predictions for pictures
    pictures = sorted((photo_folder / "train" / "one").glob("*.png"))[:3]
    probabilities = predict(run, pictures)
    assert list(probabilities.index) == list(map(str, pictures)) and list(probabilities) == ["one", "two"]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    alone = predict(str(run.directory), str(pictures[0]))  # not in a batch, which rounds otherwise
    pd.testing.assert_frame_equal(alone, probabilities[:1], atol=1e-5)


def test_an_interrupted_call_resumes_and_leaves_no_handler(tmp_path, capfd):
    before, config = handlers(), quick(tmp_path, epochs=300)
    history = tmp_path / "runs" / config.run_name / "history.jsonl"

    def interrupt() -> None:
        while not history.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert handlers() == before and Run(history.parent).state == "interrupted"
    capfd.readouterr()
    assert train(config).state == "finished" and "resuming " in capfd.readouterr().out


IMPORTING = """
import os, signal, sys
from study import Config, train

class Finder:
    done = False

    def find_spec(self, name, path=None, target=None):
        if name == "torch.nn" and not self.done:
            self.done = True
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
config = Config(model="mlp", dataset="digits", epochs=200, wandb="disabled")  # longer than the signal waits
try:
    train(config)
except KeyboardInterrupt:
    print("interrupted", "torch.nn" in sys.modules)
print(train(config).state)
"""


def test_an_interruption_while_libraries_are_imported_leaves_them_whole(tmp_path, run_python):
    said = run_python(["-c", IMPORTING], tmp_path, fresh=True).stdout.splitlines()
    assert "interrupted True" in said and said[-1] == "finished"


SWEEP = """
import json, signal
from study import sweep

before = [signal.getsignal(number) for number in (1, 2, 14, 15)]
result = sweep("small.yaml", wandb="disabled", epochs=1, devices="cpu", per_device=1)
assert [signal.getsignal(number) for number in (1, 2, 14, 15)] == before
print(json.dumps([list(result.summary), list(result.summary.state), len(result.history), result.errors]))
assert list(sweep("small.yaml", wandb="disabled", epochs=1).summary.index) == list(result.summary.index)
"""


def test_sweep_returns_its_runs_from_a_plain_script(tmp_path, sweep_file, run_python, capsys):
    sweep_file()
    (tmp_path / "script.py").write_text(SWEEP, encoding="utf-8")
    words = ["-c", "import runpy; runpy.run_path('script.py', run_name='__main__')", "study.sweep"]
    columns, states, rows, errors = json.loads(run_python(words, tmp_path).stdout.splitlines()[-1])
    assert columns[:3] == ["dropout", "seed", "state"] and states == ["finished"] * 4 and rows == 4 and not errors

    # The report of these runs, and its figures
    frames = analysis.load(tmp_path / "runs")
    (section,) = analysis.sections(frames, tmp_path / "small.yaml", {"epochs": 1})
    assert len(analysis.compare(section)) == 2 and not capsys.readouterr().err
    (empty,) = analysis.sections(frames, tmp_path / "small.yaml")
    assert empty.runs.empty and str({"epochs": 1}) in capsys.readouterr().err
    assert analysis.curves(section).axes and analysis.confusion(frames, section).axes
    for run in section.runs.index:
        directory = frames.directories[run]
        kept = {name: array for name, array in directory.evaluation().items() if not name.startswith("feature")}
        directory.write_evaluation(kept)  # as exported copies are
    with pytest.raises(UserError, match="features"):
        analysis.tsne(frames, section)
    with pytest.raises(UserError, match="epochs=1:"):
        analysis.report(tmp_path / "runs", sweep=tmp_path / "small.yaml", out=tmp_path / "report")


def test_report_writes_the_page_and_returns_its_answers(tmp_path, undrawn):
    runs = [train(quick(tmp_path, epochs=1, dropout=share)) for share in (0.0, 0.5)]
    made = analysis.report(tmp_path / "runs", out=tmp_path / "report", lang="es")
    ((question, answer),) = made.answers.items()
    assert made.page == tmp_path / "report" / "index.html" and made.page.exists()
    assert question.startswith("¿") and "dropout" in answer and question in made._repr_markdown_()
    frame = analysis.layers(runs[0].config, (1, 8, 8), 10)
    assert frame.params.sum() == runs[0].summary["params"]


@pytest.mark.parametrize("module", COMMANDS)
def test_each_command_prints_its_version(module, call):
    assert call(module, "--version").stdout == f"{version.line()}\n"


def test_the_commit_is_that_of_this_code_or_of_its_installation(tmp_path, monkeypatch):
    """A repository of the user's, in whose folder the package is installed, is not that of this code."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    copy = tmp_path / "site-packages" / "study" / "system" / "version.py"
    copy.parent.mkdir(parents=True)
    monkeypatch.setattr(version, "__file__", str(copy))
    version.commit.cache_clear()
    monkeypatch.setattr(version, "_installed_from", lambda: "0123")
    try:
        assert version.commit() == "0123"
    finally:
        version.commit.cache_clear()


@pytest.mark.parametrize("words", [["-m", "study.sweep", "check"], ["-m", "analysis.summarize"]])
def test_a_command_in_a_python_without_the_libraries_says_how_to_get_them(words):
    done = subprocess.run([sys.executable, "-S", *words], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and ".venv/bin/activate" in done.stderr and len(done.stderr.splitlines()) == 1


def test_windows_is_told_what_is_needed(tmp_path):
    code = "import sys; sys.platform = 'win32'; import study"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and "WSL" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_installed_package_has_its_commands_and_files(tmp_path):
    """Build from the files that git knows, install into an environment of its own, and use it in an empty folder."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")

    # Build
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    for name in listed.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools import build_meta as b; print(b.build_wheel('.'), b.build_sdist('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, encoding="utf-8", check=True)
    wheel, sdist = (source / name for name in done.stdout.split()[-2:])
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.namelist()
    assert {"analysis/page/report.html", "analysis/wording/es.po", "study/remote/run.py"} <= set(packed)
    assert {name.split("/")[0].split("-")[0] for name in packed} == {"analysis", "study", "image_classifier_study"}
    listed = subprocess.run(["tar", "tzf", sdist], capture_output=True, encoding="utf-8", check=True).stdout
    assert all(
        f"/{name}\n" in listed for name in ("sweeps/dropout.yaml", "tests/conftest.py", "Makefile", "CHANGELOG.md")
    )

    # Install it, beside the libraries of this environment
    place = tmp_path / "venv"
    venv.create(place)
    words = ["pip", "--python", place, "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run([sys.executable, "-m", *words], check=True)
    (packages,) = place.glob("lib/*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")

    # Use it
    def run(name: str, *words: str, code: int = 0) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [place / "bin" / name, *words], cwd=tmp_path, capture_output=True, encoding="utf-8", env=environment
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    for name in ("train", "sweep", "predict", "report", "sync", "anatomy"):
        assert run(f"study-{name}", "--version") == f"{version.PACKAGE} {study.__version__}\n"
    run("study-train", "--model=mlp", "--dataset=digits", "--epochs=1", "--wandb=disabled")
    assert run("python", "-c", "import study; print(study.__file__)").startswith(str(packages))
    assert "finished" in run("study-report")
    assert "come with the repository" in run("study-sweep", "run", "sweeps/quickstart.yaml", code=2)


SHORTER = {
    "epochs=10": "epochs=2",
    "epochs: {value: 10}": "epochs: {value: 2}",
    "seed: {values: [0, 1, 2, 3, 4]}": "seed: {values: [0, 1]}",
}


@pytest.fixture
def kernel_environment(monkeypatch):
    """Let kernels use this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that run notebooks
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, kernel_environment):
    import nbclient
    import nbformat

    # They are kept without outputs; weights come from a file instead of a download
    book = nbformat.read(path, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    if path.stem == "own-images":
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.safetensors")
        (cell,) = (cell for cell in cells if "WEIGHTS = None" in cell.source)
        cell.source = cell.source.replace("WEIGHTS = None", "WEIGHTS = 'weights.safetensors'")

    # Shorter trainings than a reader's, of fewer seeds, lead through every cell too
    for cell in cells:
        for long, short in SHORTER.items():
            cell.source = cell.source.replace(long, short)

    # Run them; a training shows one bar, and no line for each epoch
    nbclient.NotebookClient(
        book, timeout=1200, startup_timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for cell in cells:
        bars = sum("<progress" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
        assert bars == cell.source.count("train(") + cell.source.count("sweep(")
        assert not any("epoch" in output.get("text", "") for output in cell.outputs)
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_install_the_study_in_colab_beside_its_torch(path, monkeypatch):
    from IPython.core.inputtransformer2 import TransformerManager

    (cell, *_) = (cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code")
    code = TransformerManager().transform_cell("".join(cell["source"]))
    asked = []

    class Shell:
        def run_line_magic(self, magic: str, line: str) -> None:
            asked.append((magic, line))

    for is_colab in (False, True):
        if is_colab:
            monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        exec(code, {"get_ipython": Shell})
    ((magic, line),) = asked
    assert magic == "pip" and "{kept}" in line and "torch" in code and "==" in code


@contextmanager
def kernel(folder: Path):
    """Start a kernel in a folder, and end it after the block."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(cwd=str(folder))
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_interrupting_a_cell_stops_cleanly(tmp_path, kernel_environment):
    """As the stop button of a notebook does, in a training and in a sweep; both resume."""
    (tmp_path / "small.yaml").write_text(
        "method: grid\nparameters: {dataset: {value: digits}, model: {value: mlp}, epochs: {value: 3000}, "
        "seed: {values: [1, 2]}}\n",
        encoding="utf-8",
    )
    calls = (
        "train(Config(model='mlp', dataset='digits', epochs=3000, wandb='disabled'))",
        "sweep('small.yaml', wandb='disabled')",
    )
    with kernel(tmp_path) as (manager, client):

        def run(code: str, on_begin=lambda: None) -> dict:
            told = client.execute(code, stop_on_error=False)  # which would abort what is asked next
            on_begin()
            while (reply := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != told:
                pass
            return reply["content"]

        def interrupt(count: int) -> None:
            end = time.monotonic() + 100
            while len(list(tmp_path.glob("runs/*/history.jsonl"))) < count and time.monotonic() < end:
                time.sleep(0.1)
            manager.interrupt_kernel()

        first = "import signal; from study import Config, sweep, train; before = signal.getsignal(15)"
        assert run(first)["status"] == "ok"
        for count, call in enumerate(calls, 1):
            reply = run(call, lambda count=count: interrupt(count))
            assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
            assert run("assert signal.getsignal(15) is before")["status"] == "ok"
        states = [Run(path.parent).state for path in tmp_path.glob("runs/*/run.json")]
        assert set(states) == {"interrupted"}


def test_the_history_of_a_sweep_over_the_learning_rate_has_both(tmp_path):
    """The option and the rate of each epoch have columns of their own; a run without an epoch has no row."""
    for lr in (0.1, 0.01, 0.3):
        make_run(tmp_path, 0.7, lr=lr)
    paths = sorted(tmp_path.iterdir(), key=lambda path: Run(path).config.lr)
    (paths[-1] / "history.jsonl").unlink()
    settings = [Setting((("lr", lr),)) for lr in (0.01, 0.1, 0.3)]
    history = SweepResult([Run(path) for path in paths], settings).history
    assert list(history.lr) == [0.01] * EPOCHS + [0.1] * EPOCHS
    assert set(history["epoch/lr"]) == {0.01} and history.seed.dtype.kind == history.epoch.dtype.kind == "i"
