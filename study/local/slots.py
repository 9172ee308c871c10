"""The slots of this machine for the runs of a W&B sweep: one run at a time on each.

for slot in slots(gpus=None, per_gpu=1, cpus=2): print(slot.name, slot.environment)
"""

import os
from collections import Counter
from dataclasses import dataclass

from study.system import devices
from study.system.errors import UserError


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
    threads = str(max(1, devices.cores() // len(places)))
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
