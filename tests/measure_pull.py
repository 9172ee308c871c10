"""Measures how long runs take to be pulled from W&B, and with how many requests, against the stand-in server.

python -m tests.many_runs runs/cnn-digits-s0-FINGERPRINT many --count 1000 --epochs 100
python -m tests.measure_pull many
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from study.record.directory import RunDirectory
from tests.wandb_server import Run, Server

PROJECT = "many"
PULL = f"""
import time
from analysis.frames import pull
started = time.perf_counter()
directories, problems = pull.pull("somebody/{PROJECT}")
print(f"{{len(directories)}} runs, {{len(problems)}} problems: {{time.perf_counter() - started:.1f}} s", end="")
"""


def serve(server: Server, path: Path) -> None:
    """Put a run directory onto the server."""
    # config, history and summary, as a run sends them
    directory = RunDirectory(path)
    info = directory.info()
    content = {**info["config"], "info": {name: value for name, value in info.items() if name != "config"}}
    run = Run(path.name, {name: {"value": value} for name, value in content.items()})
    run.fields["project"] = PROJECT
    run.lines = {step: json.dumps({"_step": step, **row}) for step, row in enumerate(directory.history())}
    run.summary = directory.summary() | {"state": info["state"]}
    run.exitcode = 0

    # evaluation.npz, whose content all runs share
    url = f"{server.url}/blob/evaluation.npz"
    made = {"id": f"artifact-{path.name}", "name": f"run-{path.name}", "type": "evaluation", "state": "COMMITTED",
            "digest": "0", "version": 0, "files": {"evaluation.npz": url}}  # fmt: skip
    run.artifacts.append(made)
    server.blobs["/blob/evaluation.npz"] = (path / "evaluation.npz").read_bytes()
    server.runs[path.name] = run


def main(folder: Path) -> None:
    """Pull the runs twice, and print the time and the number of requests of each."""
    with Server() as server, tempfile.TemporaryDirectory() as cache:
        for path in sorted(folder.iterdir()):
            serve(server, path)
        account = {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": server.url, "WANDB_ERROR_REPORTING": "false"}
        environment = os.environ | account | {"XDG_CACHE_HOME": cache, "HOME": cache}
        for _ in range(2):
            server.requests.clear()
            pulled = subprocess.run(
                [sys.executable, "-c", PULL], env=environment, stdout=subprocess.PIPE, encoding="utf-8"
            )
            print(f"{pulled.stdout}, {server.requests.total()} requests: {dict(server.requests)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
