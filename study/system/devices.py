"""The devices of this machine; torch is imported only when it is asked about them.

python -c "from study.system import devices; print(devices.names())"
"""

import gc
import math
import os
import resource
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

import filelock

from study.system.errors import UserError, one_line


def cores() -> int:
    """Count the CPU cores that this process may use: its container's share, or OMP_NUM_THREADS where that is set."""
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(there, int(quota) // int(period)))
    except (OSError, ValueError):
        return there


def names() -> list[str]:
    """List the devices, the fastest kind first: cuda:0, cuda:1…, mps, cpu."""
    import torch

    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] + mps + ["cpu"]


def find(name: str) -> str:
    """Return the full name of a device, `auto` being the first of `names`; UserError where it is not there."""
    found = names()
    wanted = {"auto": found[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in found:
        raise UserError(f"device {name} is not there; this machine has {', '.join(found)}")
    return wanted


def pick(name: str):
    """Return the torch device of a name, as `find` does.

    A CUDA device becomes the process's current one, to whose streams torch's functions refer.
    """
    import torch

    device = torch.device(find(name))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def trouble(name: str) -> str | None:
    """Compute something on a device, and say why it cannot be done; None where it can."""
    import torch

    try:
        numbers = torch.ones(8, 8, device=pick(name))
        (numbers @ numbers).sum().item()
    except Exception as error:
        return one_line(error)
    return None


def describe(device) -> str:
    """Name a torch device as its maker does."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def forget_peak(device) -> None:
    """Let the peak of memory count from now, where the system can."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_megabytes(device) -> float:
    """Return the most memory used so far: the device's, or on a CPU the process's (10⁶ bytes)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e6
    if Path("/proc/self/status").exists():
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def release(name: str) -> None:
    """Free the memory of what is no longer needed; networks and optimizers hold references to themselves."""
    gc.collect()
    gc.freeze()  # what has outlived a run stays: the next collection need not look at it
    if name.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def synchronize(device) -> None:
    """Wait until a device has done all its work."""
    import torch

    torch.get_device_module(device).synchronize()


def energy_joules(device) -> float:
    """Return the energy that a device has used since its driver was loaded; NaN where it does not tell."""
    if device.type != "cuda":
        return math.nan
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except pynvml.NVMLError:
        return math.nan


def _hardware(device) -> str:
    """Name the very device, whatever number a process sees it under."""
    import torch

    return f"cuda-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else device.type


def generators(device) -> dict:
    """Return the states of torch's own random generators."""
    import torch

    on_device = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()
    return {"cpu_generator": torch.get_rng_state(), "device_generator": on_device}


def set_generators(device, states: dict) -> None:
    """Set torch's own random generators to states that `generators` returned on the same kind of device."""
    import torch

    torch.set_rng_state(states["cpu_generator"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device_generator"])


class Occupancy:
    """Tells which runs of this user train on a device of this machine at the same time, by a lock that each holds."""

    def __init__(self, device):
        name = f"image-classifier-study-{os.getuid()}-{_hardware(device)}"
        self.folder = Path(tempfile.gettempdir()) / name
        self.folder.mkdir(exist_ok=True)
        self.own = self.folder / f"{uuid.uuid4()}.lock"  # in containers, processes share their numbers
        self.lock = filelock.FileLock(self.own)

    def __enter__(self) -> "Occupancy":
        self.lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.release()
        self.own.unlink(missing_ok=True)

    def runs(self) -> int:
        """Count the runs on the device, this one too."""
        return 1 + sum(self._is_held(path) for path in self.folder.glob("*.lock") if path != self.own)

    @staticmethod
    def _is_held(path: Path) -> bool:
        try:
            with filelock.FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
                return False
        except filelock.Timeout:
            return True
        except OSError:
            return False
