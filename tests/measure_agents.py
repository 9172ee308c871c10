"""Measures how long `study.sweep agents` needs for a run, on this machine as it is now, against the stand-in server.

python -m tests.measure_agents [20]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.conftest import ROOT, SMALL
from tests.wandb_server import Server


def main(runs: int) -> None:
    """Train short runs on two CPU slots, and print the seconds of each."""
    with tempfile.TemporaryDirectory() as name, Server() as server:
        # Create the sweep
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "HOME": name, "NETRC": f"{name}/none", "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": "k" * 40, "WANDB_ERROR_REPORTING": "false",
        }  # fmt: skip
        fixed = {key: {"value": value} for key, value in {"dataset": "digits", "model": "mlp", "epochs": 2}.items()}
        content = SMALL | {"parameters": fixed | {"seed": {"values": list(range(runs))}}}
        path = Path(name, "small.yaml")
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        python = (sys.executable, "-m", "study.sweep")
        created = subprocess.run(
            [*python, "create", path], cwd=name, env=environment, stdout=subprocess.PIPE, check=True
        )
        sweep = created.stdout.decode().strip()

        # Train it
        started = time.perf_counter()
        process = subprocess.Popen(
            [*python, "agents", sweep, "--cpus=2"],
            cwd=name, env=environment | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        ends = [time.perf_counter() for line in process.stdout if line.startswith("finished")]
        assert process.wait() == 0 and len(ends) == runs
        whole = time.perf_counter() - started
        each = (ends[-1] - ends[1]) / (runs - 2)
        print(f"{runs} runs on two CPU slots: {each:.2f} s a run after the first two, {whole:.1f} s in all")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
