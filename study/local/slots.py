"""The slots of this machine for the runs of a W&B sweep: one run at a time on each.

for slot in slots(gpus=None, per_gpu=1, cpus=2): print(slot.name, slot.environment)
"""

import os
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from study.config.argv import VARIABLES
from study.record.directory import make
from study.remote.sweep import WandbSweep
from study.system import devices
from study.system.errors import UserError

FINISH_SHARE = 2 / 3
"""Share of the grace in which W&B must take the end of a run; the rest is for the checkpoint."""

CLIENT_STATE = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
"""Variables of W&B's client in this process that its workers must not have."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its name, and the environment that binds processes to its device.

    `shared_by` is the number of slots on the device.
    """

    name: str
    environment: dict[str, str]
    shared_by: int = 1


def slots(gpus: str | None, per_gpu: int, cpus: int | None) -> list[Slot]:
    """List the slots of this machine: `per_gpu` on each GPU, or `cpus` on the CPU; each gets its share of the cores.

    `gpus` is a comma list of torch's indices, by default all. Raises UserError if this machine lacks one of them.
    """
    places = [(f"cpu {index}", "") for index in range(cpus)] if cpus else _gpu_places(gpus, per_gpu)
    threads = str(devices.threads(len(places)))
    shared_by = Counter(gpu for _, gpu in places)
    return [
        Slot(name, {"CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": threads}, shared_by[gpu]) for name, gpu in places
    ]


def _gpu_places(gpus: str | None, per_gpu: int) -> list[tuple[str, str]]:
    """List the name and the CUDA_VISIBLE_DEVICES of each slot on a GPU."""
    # Map torch's indices to the identifiers of the GPUs
    number = sum(name.startswith("cuda") for name in devices.names())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    identifiers = visible.split(",")[:number] if visible else [str(index) for index in range(number)]
    available = {str(index): identifier for index, identifier in enumerate(identifiers)}
    if not available:
        raise UserError("this machine has no CUDA device; --cpus N makes N slots on its CPU")

    # Choose GPUs, and fill the first slot of each before the second of any
    chosen = list(dict.fromkeys(gpus.split(","))) if gpus else list(available)
    for index in chosen:
        if index not in available:
            raise UserError(f"GPU {index!r} is not there; this machine has {', '.join(available)}")
    places = [(place, index) for place in range(per_gpu) for index in chosen]
    return [(f"gpu {index}" + (f" #{place}" if per_gpu > 1 else ""), available[index]) for place, index in places]


def environment_of(slot: Slot, sweep: WandbSweep, folders: Mapping[str, str], grace_seconds: float) -> dict[str, str]:
    """Return the environment of a slot's workers: that of W&B's agent, with the slot's device and folders."""
    inherited = {name: value for name, value in os.environ.items() if name not in CLIENT_STATE}
    return {
        "WANDB_DIR": str(Path(folders["runs_dir"]).resolve()),
        "WANDB_FINISH_TIMEOUT": f"{FINISH_SHARE * grace_seconds:.1f}",
        **inherited,
        "WANDB_ENTITY": sweep.entity,
        "WANDB_PROJECT": sweep.project,
        "WANDB_SWEEP_ID": sweep.id,
        **slot.environment,
        **{VARIABLES[name]: folder for name, folder in folders.items()},
    }


def new_log(runs_dir: Path, sweep_id: str, slot: Slot) -> Path:
    """Create a new log file, which no other process uses, and return its path."""
    folder = runs_dir / "wandb" / "agents" / sweep_id
    make(folder)
    name = f"{socket.gethostname()}-{slot.name.replace(' ', '-').replace('#', '')}"
    numbers = count(1)
    while True:
        path = folder / f"{name}-{next(numbers)}.log"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
