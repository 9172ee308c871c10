"""Train a W&B sweep with a `wandb agent` on each slot, which starts a process for each run.

For sweeps whose command does more than start `study.train`, and clients of W&B that lack what `study.remote.queue`
needs. What became of the runs is read from their directories.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from study.local.seat import FAILURES_IN_A_ROW, KILL_SECONDS
from study.local.slots import Slot, environment_of, new_log
from study.record.directory import DONE, CorruptRun, RunDirectory
from study.remote.sink import sync_command
from study.remote.sweep import WandbSweep, report_rest
from study.system.errors import Interrupted
from study.system.process import EndSignals, how_ended, kill_all

WITH_US = (
    sys.executable,
    "-Ic",
    "import os, signal, sys\n"
    "pipe, agent = int(sys.argv[1]), os.getpid()\n"
    "if os.fork() == 0:\n"
    "    os.read(pipe, 1)\n"
    "    if os.getppid() == agent:\n"
    "        os.kill(agent, signal.SIGINT)\n"
    "    os._exit(0)\n"
    "os.close(pipe)\n"
    "os.execv(sys.argv[2], sys.argv[2:])",
)
"""Starts a command, and sends it SIGINT when a pipe closes: when the process that holds its other end has died.

SIGINT gives the command's run back to W&B. Linux can send a signal itself when a parent dies, but it sends one for each
thread of the parent, and a second SIGINT ends a run without a checkpoint.
"""

POLL_SECONDS = 0.25


def run_wandb_agents(sweep: WandbSweep, slots: Sequence[Slot], folders: Mapping[str, str], grace_seconds: float) -> int:
    """Do as `study.local.agents.run_agents` does, with `wandb agent`."""
    # Start the agents, which end with this process, whichever way it ends
    signals = EndSignals()
    started = time.time()
    processes: list[subprocess.Popen] = []
    pipe, held = os.pipe()
    try:
        for slot in slots:
            log = new_log(Path(folders["runs_dir"]), sweep.id, slot)
            print(f"log of {slot.name}: {log}", flush=True)
            processes.append(_start(sweep, environment_of(slot, sweep, folders, grace_seconds), log, pipe))

        # Wait for their end; at a signal, end their runs, which `--forward-signals` passes it on to
        while not signals.received and _running(processes):
            time.sleep(POLL_SECONDS)
        deadline = time.monotonic() + grace_seconds
        for process in processes if signals.received else ():
            process.send_signal(signal.SIGINT)
        while _running(processes) and len(signals.received) < 2 and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            _kill(process)
        for end in (pipe, held):
            os.close(end)

    # Report how they and their runs ended
    for slot, process in zip(slots, processes, strict=True):
        print(f"{slot.name}: `wandb agent` {how_ended(process.returncode)}")
    runs = _runs(Path(folders["runs_dir"]), sweep.id, started)
    counts = Counter(info.get("state", "ended") for info in runs.values())
    print(", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no run")
    unsent = [path for path, info in runs.items() if info.get("state") in DONE and info.get("wandb_missing")]
    if unsent:
        print(f"to send W&B what it lacks: {sync_command(*map(RunDirectory, unsent))}")
    if signals.received:
        raise Interrupted(signals.received[0])
    is_incomplete = report_rest(sweep, print)
    return 1 if is_incomplete or unsent or any(process.returncode for process in processes) else 0


def _start(sweep: WandbSweep, environment: Mapping[str, str], log: Path, pipe: int) -> subprocess.Popen:
    """Start an agent in a process session of its own, with its output in a log, and this `python` for its runs.

    Where there is `fork`, it gets SIGINT when the other end of the pipe is closed.
    """
    command = [
        *((*WITH_US, str(pipe)) if hasattr(os, "fork") else ()),
        *(sys.executable, "-m", "wandb", "agent", "--forward-signals"),
        f"--max-consecutive-failed-runs={FAILURES_IN_A_ROW}",
        sweep.path,
    ]
    environment = {
        "WANDB_AGENT_DISABLE_FLAPPING": "true",
        **environment,
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(pipe,) if hasattr(os, "fork") else (),
        )


def _running(processes: Sequence[subprocess.Popen]) -> list[subprocess.Popen]:
    return [process for process in processes if process.poll() is None]


def _kill(agent: subprocess.Popen) -> None:
    """Kill an agent, its runs and their W&B services: all processes of its session, and their children."""
    pids = []
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == agent.pid:
                pids.append(pid)
    kill_all(pids, KILL_SECONDS)
    with suppress(subprocess.TimeoutExpired):  # a driver can keep a process forever
        agent.wait(KILL_SECONDS)


def _runs(runs_dir: Path, sweep_id: str, started: float) -> dict[Path, dict[str, Any]]:
    """Read run.json of the sweep's runs that were written since the start."""
    runs = {}
    for file in sorted(runs_dir.glob("*/run.json")):
        with suppress(OSError, CorruptRun):
            info = RunDirectory(file.parent).info()
            if file.stat().st_mtime >= started and (info.get("wandb") or {}).get("sweep") == sweep_id:
                runs[file.parent] = info
    return runs
