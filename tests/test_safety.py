"""What a machine refuses, what an attacker may name, and what nobody may read."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from analysis.page import tables
from analysis.page.tables import Column, Table
from study.config.setting import Setting
from study.record.directory import RunDirectory
from tests.conftest import ROOT
from tests.wandb_server import Server

QUICK = ("--dataset=digits", "--model=mlp", "--epochs=2", "--wandb=disabled")
MARK = "MARKED" + "7" * 34
"""A key of W&B that is found wherever it is written."""


@pytest.fixture
def at_most():
    """Let no file of this process become longer than some bytes, as a disk that is full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_sentence_before_training(call, sweep_file, at_most):
    path = sweep_file({"epochs": {"value": 1}})
    at_most(8_000)
    for words in (("study.train", *QUICK), ("study.sweep", "run", path, "--wandb=disabled")):
        ended = call(*words, code=2)
        assert "cannot be written (File too large); name another --runs-dir" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1 and "epoch" not in ended.stdout
    assert not list(Path("runs").glob("*/history.jsonl"))


def test_a_disk_that_becomes_full_is_the_reason_of_the_run(call, at_most):
    call("study.train", *QUICK, "--seed=1")
    (finished,) = map(RunDirectory, Path("runs").iterdir())
    before = {path.name: path.read_bytes() for path in finished.path.iterdir()}
    at_most(70_000)
    ended = call("study.train", *QUICK, code=1)
    (run,) = (RunDirectory(path) for path in Path("runs").iterdir() if path != finished.path)
    assert ended.stderr == f"error: {run.path} cannot be used: File too large\n"
    assert run.state() == "failed" and "File too large" in run.info()["error"]
    assert {path.name: path.read_bytes() for path in finished.path.iterdir()} == before
    assert not list(run.path.glob(".*.tmp"))


def test_weights_that_do_not_fit_are_no_error_of_torch(call, at_most):
    at_most(70_000)
    ended = call("study.train", *QUICK, "--hidden=400", code=1)
    assert ended.stderr.endswith("cannot be used: File too large\n") and len(ended.stderr.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_sentence(call):
    ended = call("study.train", *QUICK, "--runs-dir=/proc/nothing", code=2)
    assert "cannot be made" in ended.stderr and len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("module", ["study.train", "study.sweep", "analysis.summarize"])
def test_an_early_ctrl_c_leaves_no_traceback(module, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = {"study.train": QUICK, "study.sweep": ("check", "/dev/stdin"), "analysis.summarize": ("nothing",)}[module]
    # the command has begun once it has read its package
    trace = [sys.executable, "-v", "-m", module, *words]
    with subprocess.Popen(
        trace, cwd=tmp_path, env=environment, stdin=-1, stdout=-1, stderr=-1, encoding="utf-8", errors="replace"
    ) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if "import 'study.system.start'" in line:
                process.send_signal(signal.SIGINT)
                break
        said += process.stderr.readlines()
        assert process.wait(30) == -signal.SIGINT
    assert "Traceback" not in "".join(said)


def test_a_ctrl_c_while_python_ends_changes_nothing(tmp_path):
    trace = [sys.executable, "-v", "-m", "study.sweep", "check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        trace, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, encoding="utf-8", errors="replace"
    ) as process:
        # Python has given up its handlers when it clears its first module
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("# clear "):
                process.send_signal(signal.SIGINT)
                break
        assert said[-1].startswith("# clear ")
        said += process.stderr.readlines()
        assert process.wait(30) == 2
    assert "error: name a sweep file" in "".join(said) and "Traceback" not in "".join(said)


def test_texts_of_a_csv_file_are_no_formulas_and_numbers_stay():
    names = ["=1+1", "+x", "-x", "@x", "a=b", "-1", "", None]
    frame = pd.DataFrame({"name": names, "number": [-1.5, -2.0, 3.0, 4.0, 5.0, 6.0, float("nan"), 8.0], "=head": 1})
    frame["setting"] = [Setting((("model", "-y"),)), *[None] * 7]
    table = Table("t", "title", frame, [Column("name"), Column("number", 1)])
    lines = tables.csv(table).splitlines()
    assert lines[0] == "name,number,'=head,setting"
    assert [line.split(",")[0] for line in lines[1:]] == ["'=1+1", "'+x", "'-x", "'@x", "a=b", "-1", "", ""]
    assert [line.split(",")[1] for line in lines[1:]] == ["-1.5", "-2", "3", "4", "5", "6", "", "8"]
    assert lines[1].endswith(",'-y")


def test_a_markdown_table_shows_html_and_pipes_as_they_are():
    frame = pd.DataFrame({"name": ["<img src=x onerror=1>|a", "</td>&lt;"]})
    lines = tables.markdown(Table("t", "title", frame, [Column("name", header="<b>")])).splitlines()
    assert lines[0] == r"| \<b> |" and lines[2] == r"| \<img src=x onerror=1>\|a |" and lines[3] == r"| \</td>\&lt; |"


def started_words(pid: int) -> list[str]:
    """List the command lines of a process and of all that it has started."""
    found = []
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for part in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                found.append(" ".join(part.cmdline()))
    return found


@pytest.mark.slow
def test_the_key_of_wandb_is_written_nowhere_and_no_temporary_folder_is_left(tmp_path, sweep_file):
    path = sweep_file({"epochs": {"value": 1}, "seed": {"value": 0}, "dropout": {"value": 0.0}})
    said, seen = "", []
    with Server() as server:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_API_KEY": MARK, "WANDB_BASE_URL": server.url,
                                    "WANDB_X_GRAPHQL_RETRY_MAX": "0"}  # fmt: skip

        def run(*words: object, code: int) -> None:
            nonlocal said
            command = [sys.executable, "-m", *map(str, words)]
            output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
            with subprocess.Popen(command, cwd=tmp_path, env=environment, **output) as process:
                while process.poll() is None:
                    seen.extend(started_words(process.pid))
                    time.sleep(0.3)
                out = process.stdout.read()
            assert process.returncode == code, out
            said += out

        run("study.train", "--dataset=digits", "--model=mlp", "--epochs=1", code=0)
        run("study.sweep", "create", path, "--project=secret", code=0)
        (name,) = server.sweeps
        run("study.sweep", "agents", f"somebody/secret/{name}", "--cpus=1", code=0)
        run("study.sweep", "run", path, "--set", "seed=1", code=0)
        server.fail("Viewer", *[401] * 5)
        run("study.sweep", "status", f"somebody/secret/{name}", code=2)
        server.failures.clear()
        server.fail("UpsertBucket", *[500] * 50)
        environment["WANDB_INIT_TIMEOUT"] = "3"
        run("study.train", "--dataset=digits", "--model=mlp", "--epochs=1", "--seed=3", code=0)
        environment["WANDB_API_KEY"] = f"{MARK}\n "
        run("study.sweep", "status", f"somebody/secret/{name}", code=2)
    assert "W&B" in said and "refuses the key" in said and any("study.train" in words for words in seen)
    assert MARK not in said and not any(MARK in words for words in seen)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 10 and not [file for file in files if MARK.encode() in file.read_bytes()]
    assert not [*Path(tempfile.gettempdir()).glob("tmp*")], "where W&B's client keeps its tables"
