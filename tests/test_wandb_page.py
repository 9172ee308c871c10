"""What somebody sees on W&B's page of a run or a sweep, as the stand-in server has it."""

import io
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from study.config import Config
from study.config.setting import run_title
from study.record.directory import RunDirectory
from study.remote import artifacts, columns
from study.remote.sweep import WandbSweep
from study.sweeps import definition as search
from study.system.errors import UserError
from tests.conftest import SMALL
from tests.test_train import hand_out
from tests.wandb_server import Run, Server

KEY = "k" * 40


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server
    assert not server.unknown


def values(run: Run) -> dict:
    """Return the config of a run on the server, as the client reads it."""
    return {key: value["value"] for key, value in run.config.items()}


def test_what_wandb_gets_of_the_data_names_no_image(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    data = {"images": {"train": 9}, "examples": {"train": ["doe.png"]}, "unreadable": ["doe.png: damaged (too short)"]}
    directory.path.mkdir()
    directory.write_info({"config": {}, "state": "finished", "data": data})
    sent = columns.info(directory)["data"]
    assert "doe" not in str(sent) and len(sent["unreadable"]) == 1 and sent["images"] == data["images"]


def test_names_sort_by_the_seed_and_fit():
    names = [run_title("dropout 0.5", seed) for seed in (10, 2, 100)]
    assert names == ["dropout 0.5, s10", "dropout 0.5, s02", "dropout 0.5, s100"] and sorted(names)[0] == names[1]
    assert len(run_title("x" * 500, 7)) <= 128 and run_title("x" * 500, 7).endswith("…, s07")


@pytest.mark.parametrize(
    ("command", "parameters", "given", "title", "label"),
    [
        (["--seed=3"], {}, {"dropout": "0.5"}, "dropout 0.5, s03", "dropout 0.5, seed 3"),
        (["${args}", "--seed=7"], {"seed": {"values": [1, 2]}}, {"dropout": "0.5", "seed": "1"}, "dropout 0.5, s07",
         "dropout 0.5, seed 7"),
        ([], {"seed": {"values": ["1e1", 2.0]}}, {"dropout": "0.5", "seed": "1e1"}, "dropout 0.5, s10",
         "dropout 0.5, seed 10"),
        ([], {"seed": {"values": [1, 2.0]}}, {"dropout": "0.5", "seed": "2.0"}, "dropout 0.5, s02",
         "dropout 0.5, seed 2"),
        ([], {"dropout": {"value": 0.1}, "setting": {"values": ["lr=0.1 seed=4", "lr=0.2 seed=5"]}},
         {"setting": "lr=0.1 seed=4"}, "lr 0.1, s04", "lr 0.1, seed 4"),
        ([], {}, {"dropout": "0.5", "seed": "none"}, "dropout 0.5, snone", "dropout 0.5, seed none"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_the_seed_of_its_config(command, parameters, given, title, label):
    content = SMALL | {"command": [*SMALL["command"][:-1], *command, *([] if "${args}" in command else ["${args}"])]}
    content["parameters"] = {"model": {"value": "mlp"}, "dropout": {"values": [0.0, 0.5]}} | parameters
    sweep = WandbSweep("us", "proj", "id", content, search.parse("wandb", content), [])
    assert (sweep.title(given), sweep.label(given)) == (title, label)


def test_an_older_run_has_all_options_as_columns():
    config = Config(notes="hello", data_dir="pictures")
    old = {**config.model_dump(), "info": {"state": "finished"}}
    assert Config.recorded(columns.options_of(old)) == config and columns.read_info(old) == {"state": "finished"}


@pytest.mark.slow
def test_runs_of_a_sweep_here_have_its_name_their_setting_and_a_log(command, sweep_file, tmp_path, server):
    path = sweep_file({"dropout": {"values": [0.5, 0.0]}, "seed": {"value": 2}, "epochs": {"value": 1}}, name="n" * 70)
    command("study.sweep", "run", path, "--data-dir=pictures", "--devices=cpu", "--per-device=1")
    runs = {run.fields["displayName"]: run for run in server.runs.values()}
    assert set(runs) == {"dropout 0.5, s02", "dropout 0.0, s02"}
    for run in runs.values():
        config = values(run)
        directory = RunDirectory(tmp_path / config["info"]["directory"])
        assert run.fields["tags"] == directory.info()["tags"] == ["n" * 64] and config["sweep"] == "n" * 70
        assert not config.keys() & columns.NO_COLUMNS
        assert config["info"]["records"]["data_dir"] == "pictures"
        assert Config.recorded(columns.options_of(config)) == Config.recorded(directory.info()["config"])
        log = [line for _, line in sorted(run.log.items())]
        assert any("digits: 1,151 training" in line for line in log), log
        assert any("epoch 1/1  train/val loss" in line for line in log), log

    # Sent again, it keeps its name and the sweep
    run.fields = {"project": Config().project}
    run.summary.clear()
    command("study.sync", directory.path)
    assert run.fields["displayName"] in runs and run.fields["tags"] == ["n" * 64]


def test_a_run_has_charts_and_what_its_options_ask_for(command, tmp_path, server):
    words = ("--dataset=digits", "--model=mlp", "--epochs=1", "--wandb-extras=model,code,alerts")
    command("study.train", *words)
    (run,) = server.runs.values()
    directory = RunDirectory(tmp_path / values(run)["info"]["directory"])
    arrays = directory.evaluation()

    # The confusion matrix in counts and in shares
    names = arrays["class_names"].tolist()
    counts = np.zeros((10, 10))
    np.add.at(counts, (arrays["test_targets"], arrays["test_predictions"]), 1)
    for key, matrix in (("confusion", counts), ("confusion_shares", counts / counts.sum(axis=1, keepdims=True))):
        cells = {(row[0], row[1]): row[2] for row in table(server, run, f"test/{key}_table")["data"]}
        assert cells == {(a, b): matrix[k, j] for k, a in enumerate(names) for j, b in enumerate(names)}

    # The surest mistakes, with their images
    mistakes = table(server, run, "test/mistakes")
    assert mistakes["columns"] == ["image", "truth", "prediction", "probability"]
    wrong = zip(
        *(arrays[f"mistake_{part}"] for part in ("images", "targets", "predictions", "confidences")), strict=True
    )
    for (pixels, target, predicted, confidence), row in zip(list(wrong)[:25], mistakes["data"], strict=True):
        assert row[1:] == [names[target], names[predicted], pytest.approx(float(confidence))]
        picture = Image.open(io.BytesIO(blob(server, run, row[0]["path"])))
        assert np.array_equal(np.array(picture), pixels[0])

    # The weights, which predict takes, and the code
    made = {artifact["type"]: artifact for artifact in run.artifacts}
    assert set(made) == {"run_table", "evaluation", "model", "code"} and "checkpoint" not in made
    model = made["model"]
    assert set(model["aliases"]) == {"best", "latest"} and model["state"] == "COMMITTED"
    assert model["metadata"]["test/acc"] == directory.summary()["test/acc"]
    for name in ("best.pt", "run.json"):
        content = server.blobs[model["files"][name].removeprefix(server.url)]
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    assert (tmp_path / "model" / "best.pt").read_bytes() == (directory.path / "best.pt").read_bytes()
    Image.fromarray(arrays["mistake_images"][0, 0]).save(tmp_path / "digit.png")
    assert names[arrays["mistake_predictions"][0]] in command("study.predict", "model", "digit.png").stdout
    assert {"train.py", "config/options.py"} <= made["code"]["files"].keys()
    assert not server.alerts


def test_a_run_that_is_watched_has_histograms_in_its_rows_and_the_same_result(command, tmp_path, server):
    words = ("--dataset=digits", "--model=cnn", "--filters=4,8,8", "--epochs=3")
    command("study.train", *words, "--wandb-extras=watch", "--runs-dir=watched")
    (run,) = server.runs.values()
    command("study.train", *words, "--wandb=disabled", "--runs-dir=plain")

    # The same rows, weights and predictions
    watched, plain = (RunDirectory(next((tmp_path / name).glob("cnn-*"))) for name in ("watched", "plain"))
    measured = ("time/epoch", "time/images_per_second", "memory/peak_mb")
    rows = [[{key: row[key] for key in row if key not in measured} for row in each.history()]
            for each in (watched, plain)]  # fmt: skip
    assert rows[0] == rows[1] and len(rows[0]) == 3
    assert (watched.path / "best.pt").read_bytes() == (plain.path / "best.pt").read_bytes()
    arrays = [each.evaluation() for each in (watched, plain)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[1])

    # W&B has a row for each epoch, with all histograms
    weights = torch.load(watched.path / "best.pt", weights_only=True)
    epochs = [row for row in run.history if "val/acc" in row]
    assert [row["epoch"] for row in epochs] == [1, 2, 3] and len(run.history) == 4, "and the charts"
    for row in epochs:
        found = {key: value for key, value in row.items() if isinstance(value, dict)}
        assert {key.partition("/")[0] for key in found} == {"parameters", "gradients"}
        for key, histogram in found.items():
            assert histogram["_type"] == "histogram" and len(histogram["bins"]) == len(histogram["values"]) + 1
            if key.startswith("parameters/"):
                assert sum(histogram["values"]) == weights[key.partition("/")[2]].numel()
    assert watched.summary()["best/epoch"] in (1, 2, 3)
    best = epochs[watched.summary()["best/epoch"] - 1]
    for name, tensor in weights.items():
        if f"parameters/{name}" in best:
            bins = best[f"parameters/{name}"]["bins"]
            assert (bins[0], bins[-1]) == pytest.approx((tensor.min().item(), tensor.max().item()))

    # What is pulled has the numbers alone
    code = (
        "from analysis.frames import pull; import json; (run,), _ = pull.pull('somebody/image-classifier-study'); "
        "print(json.dumps(run.history()))"
    )
    pulled = json.loads(command("-c", code).stdout)
    assert pulled == watched.history()


def table(server: Server, run: Run, key: str) -> dict:
    """Return a table of a run."""
    return json.loads(blob(server, run, Path(run.summary[key]["artifact_path"]).name, f"{key}.table.json"))


def blob(server: Server, run: Run, *names: str) -> bytes:
    """Return a file of an artifact of a run, by the end of its name."""
    (url,) = (
        url for made in run.artifacts for name, url in made["files"].items() if any(name.endswith(end) for end in names)
    )
    return server.blobs[url.removeprefix(server.url)]


def test_a_run_that_diverges_has_an_alert(command, server):
    words = ("--dataset=digits", "--model=mlp", "--epochs=1", "--batch-size=2000", "--lr=1e35")
    command("study.train", *words, "--wandb-extras=alerts")
    (sent,) = server.alerts
    assert (sent["title"], sent["severity"]) == ("A run diverged", "WARN") and "after epoch 1" in sent["text"]


def test_weights_that_are_too_large_are_named_and_not_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "LARGEST_MB", 1e-6)
    (tmp_path / "best.pt").write_bytes(b"weights")
    said: list[str] = []
    artifacts.send_model(None, RunDirectory(tmp_path), said.append)
    assert len(said) == 1 and "best.pt" in said[0] and "are sent" in said[0]
    with pytest.raises(UserError, match="leave --keep-weights at True"):
        Config.parse({"wandb_extras": "model", "keep_weights": False})
    assert Config(wandb_extras="alerts,model").fingerprint == Config().fingerprint


@pytest.mark.slow
def test_a_run_that_returns_from_the_queue_continues_from_its_checkpoint_on_another_machine(
    start, command, tmp_path, server, monkeypatch
):
    values = {"dataset": "digits", "model": "mlp", "epochs": 200, "wandb_extras": "checkpoint"}
    run = server.runs["handed"] = Run("handed", {name: {"value": value} for name, value in values.items()}, "sweep")
    run.fields["project"] = "proj"
    names = {"SWEEP_ID": "sweep", "RUN_ID": "handed", "PROJECT": "proj", "ENTITY": "somebody"}
    for name, value in names.items():
        monkeypatch.setenv(f"WANDB_{name}", value)

    # The first machine is interrupted, and its folder is lost
    process = start("study.train", "--runs-dir=first", *hand_out(tmp_path, run.config, monkeypatch))
    while "epoch 5/" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and run.state == "preempted"
    assert [made["type"] for made in run.artifacts] == ["checkpoint"]
    (first,) = (path for path in (tmp_path / "first").iterdir() if path.name != "wandb")
    rows = RunDirectory(first).history()

    # The second goes on where it ended
    told = command("study.train", "--runs-dir=second", *hand_out(tmp_path, run.config, monkeypatch)).stdout
    second = RunDirectory(tmp_path / "second" / first.name)
    assert f"second/{first.name}: continues from its checkpoint in W&B" in told and "resuming" in told
    assert second.state() == "finished" and second.history()[: len(rows)] == rows
    epochs = [row["epoch"] for row in run.history if "val/loss" in row]
    assert epochs == list(range(1, 201)), "W&B has each row once"
    assert not list((tmp_path / "second").glob(".checkpoint-*"))
