"""Find and delete W&B's logs of runs that were recorded offline.

python -c "from study.record.directory import RunDirectory; from study.remote import offline; \\
    print(offline.logs(RunDirectory('runs/NAME')))"
"""

import glob
import os
import shutil
from pathlib import Path

from study.record.directory import RunDirectory

MORE = ("", "-offline", f"-{'[0-9a-f]' * 8}")
"""What may follow the id in the name of a log: of a run without an answer, or one whose id was refused."""


def logs(directory: RunDirectory, run_id: str = "") -> list[Path]:
    """List the offline logs of a run; `run_id` is its id in W&B, by default its name.

    They lie in the folder of the runs or, if it is set, in WANDB_DIR.
    """
    name = run_id or directory.path.name
    folders = [Path(os.environ.get("WANDB_DIR") or directory.path.parent), directory.path.parent]
    places = {folder.resolve(): folder for folder in folders}  # the folder as it was named
    start = f"wandb/offline-run-{'[0-9]' * 8}_{'[0-9]' * 6}-{glob.escape(name)}"
    return sorted(log for folder in places.values() for more in MORE for log in folder.glob(f"{start}{more}"))


def delete_logs(directory: RunDirectory, run_id: str) -> None:
    """Delete the offline logs of a run, those with its id in W&B and those with its name."""
    for name in {run_id, directory.path.name}:
        for log in logs(directory, name):
            shutil.rmtree(log, ignore_errors=True)
