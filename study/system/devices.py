"""The devices of this machine; functions that need torch import it themselves.

python -c "from study.system import devices; print(devices.names())"
"""

import ctypes
import gc
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import filelock

from study.system.errors import UserError, one_line
from study.system.files import is_held

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from glibc's malloc.h."""

KEPT_BYTES, OLD_KEPT_BYTES = 2**30, 2**25
"""Freed memory up to this size is kept during training on a CPU; glibc before 2.35 takes no more than the second."""


def cores() -> int:
    """Count the CPU cores that this process may use: its container's share."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(available, int(quota) // int(period)))
    except (OSError, ValueError):
        return available


@cache
def cpu() -> str:
    """Return the model of the CPU, such as `AMD EPYC 7763 64-Core Processor`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5).stdout.strip()
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(models, platform.processor() or platform.machine())


def threads(runs: int = 1) -> int:
    """Return the CPU threads of each of some runs at a time: an equal share of the cores, at most OMP_NUM_THREADS."""
    share = max(1, cores() // max(1, runs))
    most = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, max(1, int(most))) if most.isdecimal() else share


def names() -> list[str]:
    """List the devices, the fastest kind first: cuda:0, cuda:1…, mps, cpu."""
    import torch

    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] + mps + ["cpu"]


def find(name: str) -> str:
    """Return the full name of a device; `auto` is the first of `names`. Raise UserError if the machine lacks it."""
    available = names()
    full_name = {"auto": available[0], "cuda": "cuda:0"}.get(name, name)
    if full_name not in available:
        raise UserError(f"device {name} is not there; this machine has {', '.join(available)}")
    return full_name


def pick(name: str):
    """Return the torch device of a name that `find` takes.

    A CUDA device becomes the process's current one, because torch's functions use the streams of that. Its matrix
    products can then be deterministic, which `set_deterministic` needs. For a CPU, the process keeps freed memory.
    """
    import torch

    device = torch.device(find(name))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read only once, at the first product
        torch.cuda.set_device(device)
    elif device.type == "cpu" and (c_library := _glibc()):
        # By default it returns blocks over 32 MB to the system, which clears them again for each step
        if not c_library.mallopt(MMAP_THRESHOLD, KEPT_BYTES):
            c_library.mallopt(MMAP_THRESHOLD, OLD_KEPT_BYTES)
        c_library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    return device


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process if it is glibc."""
    c_library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return c_library if hasattr(c_library, "gnu_get_libc_version") else None


def set_deterministic(device, wanted: bool) -> None:
    """Turn on or off that CUDA uses only deterministic algorithms; torch raises RuntimeError where there is none."""
    import torch

    wanted = wanted and device.type == "cuda"
    if wanted != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted)
        torch.backends.cudnn.deterministic = wanted


def trouble(name: str) -> str | None:
    """Multiply two matrices on a device; return the error as one line, or None if it works."""
    import torch

    try:
        numbers = torch.ones(8, 8, device=pick(name))
        (numbers @ numbers).sum().item()
    except Exception as error:
        return one_line(error)
    return None


@contextmanager
def kept_settings() -> Iterator[None]:
    """Restore torch's threads, denormal numbers and determinism after a training, for a process that goes on."""
    loaded = sys.modules.get("torch")
    count = loaded and loaded.get_num_threads()
    try:
        yield
    finally:
        if torch := sys.modules.get("torch"):
            torch.set_flush_denormal(False)
            torch.set_num_threads(count or torch.get_num_threads())
            set_deterministic(torch.device("cpu"), wanted=False)


def describe(device) -> str:
    """Return the model name of a GPU, such as `NVIDIA H100`; the kind of any other device."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def forget_peak(device) -> None:
    """Reset the peak of used memory, where the system supports it."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_megabytes(device) -> float:
    """Return the peak of used memory in MB (10⁶ bytes): of the device, or on a CPU of the process."""
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
    """Free unused memory; networks and optimizers hold reference cycles, which only the collector frees."""
    gc.collect()
    gc.freeze()  # objects that outlived a run stay: the next collection can skip them
    if name == "cpu" and (c_library := _glibc()):
        c_library.malloc_trim(0)
    elif name.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def synchronize(device) -> None:
    """Wait until a device has finished all queued work."""
    import torch

    torch.get_device_module(device).synchronize()


def energy_joules(device) -> float:
    """Return the energy in joules that a GPU has used since its driver was loaded; NaN if it does not report it."""
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
    """Return an id of the physical device, which does not depend on CUDA_VISIBLE_DEVICES."""
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
    """Counts the runs of this user that train on a device of this machine; each holds a lock file."""

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
        """Count the runs on the device, including this one."""
        return 1 + sum(self._is_held(path) for path in self.folder.glob("*.lock") if path != self.own)

    @staticmethod
    def _is_held(path: Path) -> bool:
        """Return whether a process holds a lock file; delete it if not."""
        if is_held(path):
            return True
        try:
            with filelock.FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except filelock.Timeout:  # a run has begun meanwhile
            return True
        except OSError:  # it is another user's
            pass
        return False
