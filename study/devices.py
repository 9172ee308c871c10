"""The devices of this machine; torch is imported only when it is asked about them.

python -c "from study import devices; print(devices.names())"
"""

import os

from study.errors import UserError


def cores() -> int:
    """Count the CPU cores that this process may use; OMP_NUM_THREADS says so where it is set."""
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def names() -> list[str]:
    """List the devices, the fastest kind first: cuda:0, cuda:1…, mps, cpu."""
    import torch

    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] + mps + ["cpu"]


def pick(name: str):
    """Return the torch device of a name, `auto` being the first of `names`; UserError where it is not there."""
    import torch

    found = names()
    wanted = {"auto": found[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in found:
        raise UserError(f"device {name} is not there; this machine has {', '.join(found)}")
    return torch.device(wanted)


def describe(device) -> str:
    """Name a torch device as its maker does."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
