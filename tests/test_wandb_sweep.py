"""Sweeps on W&B: the real `wandb sweep`, `wandb agent` and `wandb.Api`, against the stand-in server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config import Config
from study.record.directory import RunDirectory
from study.remote import columns
from study.remote import sweep as wandb_sweep
from study.sweeps import definition as search
from study.system.process import ENDS
from study.train import main
from tests.conftest import ROOT, SMALL
from tests.forkserver import Process
from tests.test_engine import wait_for
from tests.wandb_server import Run, Server

SWEEP = {
    **SMALL,
    "parameters": {
        "dataset": {"value": "digits"},
        "epochs": {"value": 2},
        "augment": {"value": "flip,crop"},
        "setting": {"values": ["model=mlp hidden=20", "model=two-block dropout=0.5"]},
        "seed": {"values": [0, 1]},
    },
}
WITHOUT_COMMAND = {key: value for key, value in SWEEP.items() if key not in ("program", "command")}
READ = """
import json, sys, wandb
api = wandb.Api()
def read(run):
    evaluation, = [made for made in run.logged_artifacts() if made.type == "evaluation"]
    return {
        "name": run.name, "state": run.state, "group": run.group, "sweep": run.sweep_name, "config": run.config,
        "summary": run.summary_metrics, "history": list(run.scan_history(use_cache=False)),
        "evaluation": evaluation.download(root=f"downloaded/{run.id}"),
    }
print(json.dumps([read(run) for run in api.sweep(sys.argv[1]).runs]))
"""
PULLED = """
import json, sys
from analysis.frames import pull
print(json.dumps([run.info()["config"]["crop_share"] for run in pull.pull(sys.argv[1])[0]]))
"""


class Machine:
    """A folder with a W&B server; commands run in it as in a terminal."""

    def __init__(self, server: Server, folder: Path, sockets: str, python: Callable):
        self.server, self.folder, self.python = server, folder, python
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        self.environment = kept | {
            "HOME": str(folder), "NETRC": str(folder / "none"), "TMPDIR": sockets, "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
            "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "WANDB_ERROR_REPORTING": "false",
        }  # fmt: skip

    def start(self, *words: object, folder: str = ".") -> subprocess.Popen | Process:
        (self.folder / folder).mkdir(exist_ok=True)
        return self.python(words, self.folder / folder, self.environment)

    def run(self, *words: object, code: int = 0, folder: str = ".") -> subprocess.CompletedProcess:
        process = self.start(*words, folder=folder)
        out, err = process.communicate(timeout=400)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, code, out, err)

    def write(self, name: str, content: dict, **parameters: object) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content | {"parameters": content["parameters"] | parameters}), encoding="utf-8")
        return path

    def states(self, sweep: str) -> Counter:
        """Count the states that the runs of a sweep have on W&B."""
        return Counter(run.state for run in self.runs(sweep))

    def runs(self, sweep: str) -> list[Run]:
        """List the runs of a sweep on W&B."""
        return [run for run in list(self.server.runs.values()) if run.sweep == sweep.split("/")[-1]]

    def processes(self, folder: str = "") -> list[int]:
        """List all processes that were started in a folder, whatever their parents are now."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if path.readlink().is_relative_to(self.folder / folder):
                    found.append(int(path.parent.name))
        return found

    def the_worker(self, folder: str) -> int:
        """Return the only worker that was started in a folder; each leads a session of its own."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.processes(folder)}
        (pid,) = (pid for pid, command in commands.items() if b"forkserver" in command and os.getsid(pid) == pid)
        return pid


@pytest.fixture(scope="module")
def machine(tmp_path_factory, python):
    if not Path("/proc/self/cwd").exists():
        pytest.skip("finds processes below /proc")
    sockets = tempfile.mkdtemp(prefix="s")  # a short path
    with Server() as server:
        machine = Machine(server, tmp_path_factory.mktemp("wandb"), sockets, python)
        yield machine
        for process in machine.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    assert not server.unknown
    shutil.rmtree(sockets, ignore_errors=True)


@dataclass
class Ending:
    """What was left when agents had been asked to end."""

    exit_code: int
    output: str
    processes: list[int]
    states: Counter
    epochs: int


@dataclass
class Day:
    """What was seen while `study.sweep agents` trained two sweeps, of which one was interrupted twice."""

    sweep: str
    trained_before: str
    written_before: int
    runs: list[dict]
    endless: RunDirectory
    endings: list[Ending]


@pytest.fixture(scope="module")
def day(machine):
    """Train a grid on two slots, while others train one with a point that fails and one without end.

    Those are asked to end, and once more, when they have gone on and the run is deaf.
    """
    setting = ["model=cnn train_images=5000", "model=mlp hidden=20 epochs=100000"]
    path = machine.write("endless.yaml", WITHOUT_COMMAND, setting={"values": setting}, seed={"value": 0})
    sweep = machine.run("-m", "study.sweep", "create", path, "--project=other").stdout.strip()
    agents = ("-m", "study.sweep", "agents", sweep, "--runs-dir=kept", "--cpus=2", "--grace=60")
    supervisor = machine.start(*agents, folder="endless")
    trained_before, written_before = train_one(machine)
    endings = []

    def end() -> None:
        supervisor.send_signal((signal.SIGTERM, signal.SIGINT)[len(endings)])
        output, _ = supervisor.communicate(timeout=120)
        left = machine.processes("endless")
        endings.append(Ending(supervisor.returncode, output, left, machine.states(sweep), len(endless.history())))

    wait_for(lambda: machine.states(sweep)["failed"] and list(machine.folder.glob("endless/kept/mlp-*/history.jsonl")))
    endless = RunDirectory(next(machine.folder.glob("endless/kept/mlp-*")))
    end()

    supervisor = machine.start(*agents[:-2], "--cpus=1", "--grace=2", folder="endless")
    told = machine.run("-m", "wandb", "sweep", "--project=proj", machine.write("small.yaml", SWEEP)).stderr
    grid = told.split("wandb agent ")[1].strip()
    others = machine.start("-m", "study.sweep", "agents", grid, "--cpus=2")
    wait_for(lambda: len(endless.history()) > endings[0].epochs + 1)  # so that it has told of one
    os.kill(machine.the_worker("endless"), signal.SIGSTOP)
    end()
    output, errors = others.communicate(timeout=180)
    assert others.returncode == 0, output + errors
    assert "│ no point was left" in output
    runs = json.loads(machine.run("-c", READ, grid).stdout.splitlines()[-1])
    return Day(grid, trained_before, written_before, runs, endless, endings)


def train_one(machine: Machine) -> tuple[str, int]:
    """Train a point of the grid; return its name and when its summary was written."""
    handlers = {signum: signal.getsignal(signum) for signum in ENDS}
    main(["--dataset=digits", "--epochs=2", "--augment=crop,flip", "--model=mlp", "--hidden=20", "--seed=1",
                "--wandb=disabled", f"--runs-dir={machine.folder / 'runs'}"])  # fmt: skip
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    (path,) = (machine.folder / "runs").glob("*/summary.json")
    return path.parent.name, path.stat().st_mtime_ns


def test_two_slots_train_every_point_once_and_it_reads_back_whole(machine, day):
    points = search.read(machine.folder / "small.yaml").points()
    assert Counter(run["config"]["fingerprint"] for run in day.runs) == Counter(p.config.fingerprint for p in points)
    for run in day.runs:
        directory = RunDirectory(machine.folder / run["config"]["info"]["directory"])
        assert directory.state() == "finished" == run["state"] == run["summary"]["state"]
        recorded = Config.recorded(directory.info()["config"])
        read = Config.parse(columns.options_of(run["config"]))
        assert read.identity() == recorded.identity(), "with the values that W&B handed out in place of ours"
        assert run["config"]["setting"] in SWEEP["parameters"]["setting"]["values"]
        rows = [{key: row[key] for key in row if key[0] != "_"} for row in run["history"] if "val/loss" in row]
        assert rows == directory.history()
        assert directory.summary().items() <= run["summary"].items()
        assert run["sweep"] == day.sweep.split("/")[-1] and run["group"].startswith(recorded.model)
        assert (machine.folder / run["evaluation"] / "evaluation.npz").read_bytes() == (
            directory.path / "evaluation.npz"
        ).read_bytes()
    assert len({run["group"] for run in day.runs}) == 2
    settings = ("mlp, hidden 20", "two-block, dropout 0.5")
    assert sorted(run["name"] for run in day.runs) == [f"{setting}, s0{k}" for setting in settings for k in (0, 1)]


def test_a_point_that_had_finished_here_is_replayed_and_not_trained(machine, day):
    summary = machine.folder / "runs" / day.trained_before / "summary.json"
    assert summary.stat().st_mtime_ns == day.written_before
    names = [Path(run["config"]["info"]["directory"]).name for run in day.runs]
    assert names.count(day.trained_before) == 1


def test_status_knows_missing_failed_and_double_points_and_create_makes_a_sweep_of_what_is_missing(machine, day):
    whole = [run for run in machine.server.runs.values() if run.sweep == day.sweep.split("/")[-1]]
    crashed, failed, double, lost = whole
    crashed.exitcode, crashed.crashed = None, True
    del crashed.config["info"]["value"]["state"]
    failed.exitcode = 1
    failed.config["info"]["value"] |= {"state": "failed", "error": "the disk is full"}
    copy = machine.server.runs["copy"] = Run("copy", double.config, "another")
    copy.fields |= {"project": "proj"}
    del machine.server.runs[lost.name]
    told = machine.run("-m", "study.sweep", "status", day.sweep).stdout
    assert "1 finished" in told and "the disk is full" in told
    assert all(f"1 {word}" in told for word in ("failed", "crashed", "missing", "more than once"))
    made = machine.run("-m", "study.sweep", "create", "--missing", day.sweep).stdout.split()
    assert [path.rpartition("/")[0] for path in made] == ["somebody/proj"]
    new = search.parse("new", machine.server.sweeps[made[0].split("/")[-1]].config)
    wanted = {run.config["fingerprint"]["value"] for run in (crashed, failed, lost)}
    assert {point.config.fingerprint for point in new.points()} == wanted

    machine.server.sweeps[day.sweep.split("/")[-1]].state = "RUNNING"
    told = machine.run("-m", "study.sweep", "status", day.sweep).stdout
    assert "1 not handed out yet" in told and f"python -m study.sweep agents {day.sweep}" in told
    begun = {name: crashed.config[name] for name in SWEEP["parameters"]}
    crashed.config, crashed.crashed = begun, False
    page = f"https://wandb.ai/{day.sweep.rpartition('/')[0]}/sweeps/{day.sweep.rpartition('/')[2]}"
    made = machine.run("-m", "study.sweep", "create", "--missing", page).stdout.strip()
    new = search.parse("new", machine.server.sweeps[made.split("/")[-1]].config)
    wanted = {failed.config["fingerprint"]["value"]}
    assert {point.config.fingerprint for point in new.points()} == wanted, "the others run, or are yet to be handed out"


def test_agents_that_are_asked_to_end_leave_no_process_and_tell_what_failed(day):
    first, second = day.endings
    assert (first.exit_code, first.processes) == (143, [])
    assert (second.exit_code, second.processes) == (-signal.SIGINT, []), "the deaf run too"
    assert "failed    cpu" in first.output and "train_images must be at most 1,151" in first.output
    assert "ended by SIGINT" in first.output
    assert "died after epoch" in second.output
    assert all(f"│ 1 {state}" in first.output for state in ("failed", "ended")), "the table of exits"


def test_a_run_that_was_ended_with_its_agent_is_handed_out_again_and_goes_on(machine, day):
    first, second = day.endings
    assert first.states == {"failed": 1, "preempted": 1}
    assert second.states == {"failed": 1, "running": 1}, "a run that was killed cannot tell"
    assert second.epochs > first.epochs
    assert [path.name for path in (machine.folder / "endless").iterdir()] == ["kept"], "W&B's files too"
    epochs = [row["epoch"] for row in machine.server.runs[day.endless.info()["wandb_id"]].history]
    assert epochs == list(range(1, len(epochs) + 1)), "none is sent twice"
    assert len(epochs) >= first.epochs
    assert day.endless.state() == "interrupted"


@pytest.mark.slow
def test_wandb_agent_itself_trains_a_sweep_also_with_lists_as_values(machine):
    """One option does not apply to one of the points, and the project has a name that needs quotes."""
    lists = {"filters": {"values": [[4, 8]]}, "augment": {"values": [["flip"], ["flip", "crop"]]}}
    path = machine.write("own.yaml", SWEEP, setting={"value": "model=two-block"}, seed={"value": 3}, **lists,
                         crop_share={"value": 0.2})  # fmt: skip
    sweep = machine.run("-m", "study.sweep", "create", path, "--project=my own (2)").stdout.strip()
    assert sweep.split("/")[1] == "my own (2)"
    both = [machine.start("-m", "wandb", "agent", sweep) for _ in range(2)]
    assert [agent.communicate(timeout=400) and agent.returncode for agent in both] == [0, 0]
    assert machine.states(sweep) == {"finished": 2}
    assert "0 of 2 runs would be trained" in machine.run("-m", "study.sweep", "run", path, "--dry-run").stderr
    assert "2 finished" in machine.run("-m", "study.sweep", "status", sweep).stdout
    shares = json.loads(machine.run("-c", PULLED, sweep).stdout)
    assert sorted(share or 0 for share in shares) == [0, 0.2]


@pytest.mark.slow
def test_a_run_of_sweep_run_that_is_stopped_at_wandb_ends_and_the_next_begins(machine):
    path = machine.write("stop.yaml", SWEEP, setting={"value": "model=cnn epochs=9999"}, seed={"values": [7, 8]})
    sweep = machine.start("-m", "study.sweep", "run", path, "--per-device=1", "--wandb=online", folder="stopped")

    def runs() -> list[Run]:
        return [run for run in list(machine.server.runs.values()) if "-s7-" in run.name or "-s8-" in run.name]

    deadline = time.monotonic() + 300
    while len(runs()) < 2 and time.monotonic() < deadline:  # the client looks every 15 seconds
        for run in runs():
            run.stop = len(run.lines) > 3
        time.sleep(0.2)
    assert len(runs()) == 2
    sweep.send_signal(signal.SIGINT)
    output, _ = sweep.communicate(timeout=180)
    assert "interrupted" in output and "stopped at W&B" in output
    assert Counter(run.state for run in runs()) == {"failed": 2}


@pytest.mark.slow
def test_agents_start_wandb_agent_where_the_command_does_more_than_train(machine):
    command = ["${env}", "STUDY_NOTES=x", "${interpreter}", "-m", "study.train", "${args}"]
    path = machine.write("env.yaml", SWEEP | {"command": command}, setting={"value": "model=mlp hidden=26"},
                         seed={"value": 0})  # fmt: skip
    sweep = machine.run("-m", "study.sweep", "create", path, "--project=own").stdout.strip()
    output = machine.run("-m", "study.sweep", "agents", sweep, "--cpus=1", folder="env").stdout
    assert "`wandb agent` ended with exit code 0" in output and "1 finished" in output
    assert machine.states(sweep) == {"finished": 1}


@pytest.mark.slow
def test_a_run_of_wandb_agent_returns_to_the_queue_when_agents_is_killed(machine):
    command = ["${env}", "STUDY_NOTES=x", "${interpreter}", "-m", "study.train", "${args}"]
    path = machine.write("long.yaml", SWEEP | {"command": command}, epochs={"value": 100000}, seed={"value": 0},
                         setting={"value": "model=mlp hidden=27"})  # fmt: skip
    sweep = machine.run("-m", "study.sweep", "create", path, "--project=own").stdout.strip()
    agents = machine.start("-m", "study.sweep", "agents", sweep, "--cpus=1", folder="orphan")

    # Kill it while its run trains; all that it has started ends
    wait_for(lambda: any(len(run.lines) > 3 for run in machine.runs(sweep)))
    agents.kill()
    agents.communicate(timeout=60)
    assert agents.returncode == -9
    wait_for(lambda: not machine.processes("orphan"))

    # The run is resumed from its checkpoint once W&B hands it out again
    (run,) = (machine.folder / "orphan" / "runs").glob("mlp-*")
    assert RunDirectory(run).state() == "interrupted" and (run / "last.pt").exists()
    assert machine.states(sweep) == {"preempted": 1}


def test_a_random_sweep_lists_what_was_drawn_and_how_much_is_left(capsys):
    content = SWEEP | {"method": "random", "run_cap": 4}
    content["parameters"] = SWEEP["parameters"] | {"lr": {"min": 0.01, "max": 0.1}, "setting": {"value": "model=mlp"}}

    def run(name: str, state: str, **values: object) -> wandb_sweep.Run:
        config = Config.parse(values)
        return wandb_sweep.Run(name, "xyz", config.fingerprint, config.model_dump() | values, state, "in a few words")

    drawn = {"dataset": "digits", "epochs": 2, "augment": "flip,crop", "setting": "model=mlp", "seed": 0, "lr": 0.05}
    runs = [run("a", "failed", **drawn), run("b", "finished", **drawn), run("c", "queued", **drawn | {"lr": 0.02}),
            run("d", "a new word", **drawn | {"lr": 0.03})]  # fmt: skip
    sweep = wandb_sweep.WandbSweep("me", "proj", "xyz", content, search.parse("me/proj/xyz", content), runs)
    assert sweep.left == 1, "the one that is queued"
    endless = {key: value for key, value in content.items() if key != "run_cap"}
    assert replace(sweep, sweep=search.parse("me/proj/xyz", endless)).left is None, "W&B draws on and on"
    assert [[run.id for run in sweep.runs_of(point)] for point in sweep.points()] == [["b", "a"], ["c"], ["d"]]
    wandb_sweep.print_status(replace(sweep, runs=[*runs[1:3], replace(runs[0], id="e", fingerprint="older")]))
    told = capsys.readouterr().out
    assert "1 missing" in told and "1 queued" in told and "lr 0.05, seed 0" in told
    assert "runs that match no point, because its file or the code has changed: e" in told


def test_a_run_that_died_at_once_belongs_to_its_point_although_an_option_does_not_apply_to_it():
    values = {"optimizer": "adam", "momentum": 0.9, "dataset": "digits"}
    content = {"method": "grid", "parameters": {name: {"value": value} for name, value in values.items()}
               | {"optimizer": {"values": ["sgd", "adam"]}}}  # fmt: skip
    died = SimpleNamespace(id="a", sweep_name="xyz", config=values, state="crashed", summary_metrics={})
    sweep = wandb_sweep.WandbSweep("me", "p", "xyz", content, search.parse("x", content), [wandb_sweep._run(died)])
    assert [[run.id for run in sweep.runs_of(point)] for point in sweep.points()] == [[], ["a"]]


@pytest.mark.slow
def test_what_is_missing_of_a_random_sweep_is_a_grid_of_the_points_that_wandb_drew(machine):
    content = SWEEP | {"method": "random", "run_cap": 4, "project": "drawn"}
    drawn = {"min": 0.01, "max": 0.1}
    path = machine.write("random.yaml", content, lr=drawn, setting={"value": "model=mlp"}, seed={"value": 0})
    sweep = machine.run("-m", "study.sweep", "create", path).stdout.strip()
    own = machine.server.sweeps[sweep.split("/")[-1]]
    base = {"dataset": "digits", "epochs": 2, "augment": "flip,crop", "setting": "model=mlp", "seed": 0}
    for place, state in enumerate(("finished", "failed", "failed")):
        values = base | {"lr": 0.0123456789 * (1 + place)}
        config = Config.parse(values)
        run = machine.server.runs[f"drawn{place}"] = Run(
            f"drawn{place}",
            {name: {"value": value} for name, value in {**config.model_dump(), **values}.items()}
            | {"fingerprint": {"value": config.fingerprint}, "info": {"value": {"state": state}}},
            own.name,
        )
        run.fields |= {"project": "drawn"}
        run.exitcode = int(state == "failed")
        run.summary |= {"state": state}
    own.state = "CANCELED"
    told = machine.run("-m", "study.sweep", "status", sweep).stdout
    assert "1 finished" in told and "2 failed" in told and "1 missing" in told and "--set run_cap=1" in told
    made = machine.run("-m", "study.sweep", "create", "--missing", sweep).stdout.strip()
    new = search.parse("new", machine.server.sweeps[made.split("/")[-1]].config)
    assert new.method == "grid" and sorted(point.config.lr for point in new.points()) == [
        0.0123456789 * 2, 0.0123456789 * 3]  # fmt: skip
    assert "give ENTITY/PROJECT/ID" in machine.run("-m", "study.sweep", "create", "--missing", path, code=2).stderr

    # a second sweep of the same points is a mistake, one with other values or in another project is not
    sweeps = len(machine.server.sweeps)
    told = machine.run("-m", "study.sweep", "create", made, code=2).stderr
    assert "--missing" in told and "--set" in told and "--project" in told and len(machine.server.sweeps) == sweeps
    machine.run("-m", "study.sweep", "create", made, "--set", "epochs=3")

    # status tells when W&B last heard of a run
    run.exitcode = None
    run.fields["heartbeatAt"] = (datetime.now(UTC) - timedelta(hours=2, minutes=5)).isoformat()
    run.config.pop("info")
    assert "2h05m ago" in machine.run("-m", "study.sweep", "status", sweep).stdout


GRID = SWEEP["parameters"] | {
    "augment": {"values": ["", "flip,crop"]},
    "crop_share": {"value": 0.2},
    "weight_decay": {"values": [0.0, 1e-4]},
    "label_smoothing": {"value": 0.1},
}


@settings(max_examples=30)
@given(st.data())
def test_what_is_missing_of_a_grid_is_a_grid_of_just_that(data):
    whole = search.parse("whole", SWEEP | {"parameters": GRID})
    chosen = data.draw(st.lists(st.sampled_from(whole.points()), min_size=1, unique_by=lambda p: p.config.fingerprint))
    parameters = wandb_sweep.remaining(whole, chosen, GRID)
    found = search.parse("rest", SWEEP | {"parameters": parameters}).points()
    assert {p.config.fingerprint for p in found} == {p.config.fingerprint for p in chosen}
    seeds_of_one = [p for p in whole.points() if p.label.startswith(chosen[0].label.partition(", seed")[0])]
    assert "weight_decay" in wandb_sweep.remaining(whole, seeds_of_one, GRID), "a product stays one"
