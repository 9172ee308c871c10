"""Measure the speed of training, compared with common training loops and with the limits of this machine.

    python -m study.bench                              # the assignments' network, plain and augmented; ResNet-18
    python -m study.bench --model resnet18 --batch-size 10 --dataset folder:NAME --data-dir data --out bench.json

All loops train the same network with the same batch size and augmentations. After a warm-up they take turns; the table
shows the median and the range over the turns.

- `reference`: PIL images through torchvision's transforms in a DataLoader, NCHW, `loss.item()` at every step; the
  faster of two numbers of worker processes is the reference
- `timm`: the same with timm's loader, which normalises on the device and reads ahead
- `tensors`: all images on the device as float32, batches by index, no augmentation; NCHW, float32
- `ours` and `ours auto`: this project's trainer in float32 and in the faster precision; on CUDA also compiled
- `ours auto, N at a time`: several runs at once, on a CPU one per thread as in a sweep, on CUDA 4; ms/step is the time
  of the device for one step of one run

Each loop has a process of its own, which waits while the others take their turns. TFLOP/s are those of the network's
operations. MB is the peak of memory while training; on a CPU that of the process, without the workers of loaders.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from study import models
from study.bench import loops
from study.config import Config
from study.config.checks import positive, user_path
from study.data import dataset as data_sets
from study.data.memory import Memory
from study.system import devices
from study.system.console import console
from study.system.errors import one_line
from study.system.files import check_writable, replace_text
from study.system.process import Parser, leave_garbage
from study.training import evaluation

CASES = (
    {"model": "cnn", "batch_size": 64},
    {"model": "cnn", "batch_size": 64, "augment": "flip,rotate,perspective,color"},
    {"model": "resnet18", "batch_size": 64},
    {"model": "resnet18", "batch_size": 10},
)

# Import once what takes long to import and uses no device
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["study.bench.loops", "sklearn.model_selection", "torch._dynamo"])
SIDE = {"cuda": 8192, "cpu": 2048}
PACKED_ON_CUDA = 4
WARM_UP_STEPS = 6
LEAST_STEPS = 4
TURN_SECONDS = 2.0
SETTLE_SECONDS = 0.5
"""Pause after the turn of a loader, so that its workers do not read ahead in the next turn."""


def seconds(loop: loops.Loop, steps: int, device: torch.device) -> float:
    """Return the seconds that a loop takes for a number of steps, including the work of the device."""
    devices.synchronize(device)
    started = time.perf_counter()
    for _ in itertools.islice(loop, steps):
        pass
    devices.synchronize(device)
    return time.perf_counter() - started


class Contender:
    """Runs a loop in `runs` processes at the same time, after a warm-up.

    `workers` is the number of worker processes of its loader, each of which reads two batches ahead.
    """

    def __init__(
        self,
        name: str,
        make: Callable[..., loops.Loop],
        config: Config,
        device: torch.device,
        threads: int,
        runs: int = 1,
        workers: int = 0,
    ):
        self.name = name
        self.runs = runs
        self.workers = workers
        self.ends = []
        self.processes = []

        # Start the processes, which share the threads
        for _ in range(runs):
            own_end, process_end = PROCESSES.Pipe()
            process = PROCESSES.Process(
                target=_serve, args=(process_end, make, config, device, max(1, threads // runs))
            )
            process.start()
            process_end.close()
            self.ends.append(own_end)
            self.processes.append(process)

        # Warm up, then estimate the time of a step
        self.train(WARM_UP_STEPS)
        self.step_seconds = self.train(WARM_UP_STEPS)[0] / WARM_UP_STEPS

    def turn(self, steps: int) -> tuple[float, float]:
        """Train `steps` steps; return milliseconds per step of one run and the peak of memory in MB, over all runs."""
        self.train(2 * self.workers)
        elapsed, peak = self.train(steps)
        if self.workers:
            time.sleep(SETTLE_SECONDS)
        return 1000 * elapsed / steps / self.runs, peak

    def train(self, steps: int) -> tuple[float, float]:
        """Train `steps` steps in each process; return seconds and MB of memory. Raise RuntimeError if one fails."""
        # Let all processes train at the same time
        started = time.perf_counter()
        try:
            for end in self.ends:
                end.send(steps)
            peaks = [end.recv() for end in self.ends]
        except (EOFError, ConnectionError):
            raise RuntimeError(f"{self.name}: its process was ended, perhaps out of memory") from None
        elapsed = time.perf_counter() - started

        # A process that failed sends the error instead of its memory
        if failures := [peak for peak in peaks if isinstance(peak, str)]:
            raise RuntimeError(f"{self.name}: {failures[0]}")
        return elapsed, sum(peaks)

    def close(self) -> None:
        """End the processes."""
        for end, process in zip(self.ends, self.processes, strict=True):
            end.close()
            process.join()


def _serve(connection: Connection, make: Callable[..., loops.Loop], config: Config, device: torch.device, threads: int):
    """Train the numbers of steps that come through the connection, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        try:
            # Make the loop and warm up
            torch.set_num_threads(threads)
            loop = make(config, devices.pick(str(device)))
            seconds(loop, connection.recv(), device)
            if device.type == "cpu":  # the memory of a CUDA graph counts only while it is captured
                devices.forget_peak(device)
            connection.send(0.0)

            # Train, and answer with the peak of memory
            while True:
                seconds(loop, connection.recv(), device)
                connection.send(devices.peak_megabytes(device))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            connection.send(one_line(error))
    leave_garbage()


def _contenders(config: Config, device: torch.device, threads: int) -> Iterator[Contender]:
    """Start the loops one after the other and yield them."""
    # The trainer of this project
    contender = partial(Contender, config=config, device=device, threads=threads)
    auto = partial(loops.ours, precision="auto")
    yield contender("ours", partial(loops.ours, precision="float32"))
    yield contender("ours auto", auto)
    if device.type == "cuda":
        yield contender("ours auto, compiled", auto, config=config.model_copy(update={"compile": True}))
    if (runs := {"cpu": threads, "cuda": PACKED_ON_CUDA}.get(device.type, 1)) > 1:
        yield contender(f"ours auto, {runs} at a time", auto, runs=runs)

    # The other loops
    if not config.augment:
        yield contender("tensors", loops.tensors)
    many = min(8, max(2, threads // 2))
    yield contender("timm", partial(loops.timm_loader, workers=many), workers=many)
    for workers in (0, many):
        yield contender(f"reference, {workers} workers", partial(loops.reference, workers=workers), workers=workers)


def compare(
    config: Config, device: torch.device, steps: int | None, turns: int, threads: int, memory: Memory
) -> dict[str, Any]:
    """Time all loops for one config in turns.

    Returns for each loop milliseconds per step, images per second, ratios to the reference, TFLOP/s and MB.
    """
    # Count the operations of the network
    data = data_sets.load(config, "cpu", memory=memory)
    model = models.create(config, data.image_shape, len(data.classes))
    flops = evaluation.measure(model, data, config.model, print).get("flops", math.nan)

    # Start the loops, and let each take its turns
    with ExitStack() as stack:
        contenders = {}
        for contender in _contenders(config, device, threads):
            stack.callback(contender.close)
            contenders[contender.name] = contender
        steps_of = {
            name: steps or max(LEAST_STEPS, round(TURN_SECONDS / contender.step_seconds))
            for name, contender in contenders.items()
        }
        rounds = [
            {name: contender.turn(steps_of[name]) for name, contender in contenders.items()} for _ in range(turns)
        ]

    # Compare each with the faster reference, turn by turn
    times = {name: [turn[name][0] for turn in rounds] for name in contenders}
    medians = {name: statistics.median(milliseconds) for name, milliseconds in times.items()}
    best = min((name for name in medians if name.startswith("reference")), key=medians.get)
    result = {}
    for name, milliseconds in times.items():
        ratios = [reference / own for reference, own in zip(times[best], milliseconds, strict=True)]
        result[name] = {
            "ms_per_step": medians[name],
            "ms_range": [min(milliseconds), max(milliseconds)],
            "images_per_second": 1000 * config.batch_size / medians[name],
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "steps": steps_of[name],
            "tflops": 3 * flops * config.batch_size / medians[name] / 1e9,
            "peak_mb": rounds[-1][name][1],
        }
    return result


def limits(device: torch.device) -> dict[str, float]:
    """Measure the limits of a device: matrix products in both precisions (TFLOP/s), copies (GB/s read and written)."""
    # Multiply large matrices
    side = SIDE.get(device.type, SIDE["cpu"])
    result = {}
    for precision in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
        best = min(seconds(_repeat(lambda a=left, b=right: a @ b), 3, device) / 3 for _ in range(4))
        result[f"{str(precision).removeprefix('torch.')}_tflops"] = 2 * side**3 / best / 1e12

    # Copy a large tensor
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    best = min(seconds(_repeat(lambda: target.copy_(source)), 3, device) / 3 for _ in range(4))
    return result | {"copy_gb_per_second": 2 * source.nbytes / best / 1e9}


def _repeat(function: Callable[[], Any]) -> loops.Loop:
    """Call a function again and again."""
    while True:
        function()
        yield


def overheads(device: torch.device) -> dict[str, float]:
    """Measure the seconds of --help, of a mistake, and of a run of one epoch on digits without its training."""
    import tempfile

    def run_seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "study.train", *words], capture_output=True, check=False)
        return time.perf_counter() - started

    # Train one run of an epoch
    with tempfile.TemporaryDirectory() as folder:
        run = ("--dataset=digits", "--model=cnn", "--epochs=1", "--wandb=disabled", f"--runs-dir={folder}")
        total = run_seconds(*run, f"--device={device}")
        summary = json.loads(next(Path(folder).glob("*/summary.json")).read_text(encoding="utf-8"))
    return {
        "help_seconds": run_seconds("--help"),
        "mistake_seconds": run_seconds("--model=nothing"),
        "seconds_beyond_training": total - summary["train_seconds"],
    }


def _show(title: str, result: dict[str, Any]) -> None:
    """Print the results of a config as a table."""
    head = ("loop", "ms/step", "range", "images/s", "× reference", "range", "TFLOP/s", "MB")
    table = Table(*head, title=title, title_justify="left")
    # Add a row for each loop
    for name, row in result.items():
        table.add_row(
            name,
            f"{row['ms_per_step']:.2f}",
            "{:.2f} to {:.2f}".format(*row["ms_range"]),
            f"{row['images_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            "{:.2f} to {:.2f}".format(*row["ratio_range"]),
            f"{row['tflops']:.2f}",
            f"{row['peak_mb']:,.0f}",
        )
    console(width=None if sys.stdout.isatty() else 140).print(table)


def main(argv: list[str]) -> int:
    """Run the benchmark of the command line."""
    # Read the command line
    parser = Parser("python -m study.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "augment", "dataset", "data-dir", "device"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help="as in study.train")
    parser.add_argument("--batch-size", type=positive, metavar="N", default=argparse.SUPPRESS, help="as in study.train")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: one per core)")
    parser.add_argument("--steps", type=positive, metavar="N", help="steps per turn (default: about 2 seconds)")
    parser.add_argument("--turns", type=positive, metavar="N", default=5, help="turns of each loop (default: 5)")
    parser.add_argument("--out", type=lambda text: Path(user_path(text)), help="write all numbers to this JSON file")
    args = parser.parse_args(argv)
    if args.out:
        check_writable(args.out, "--out")

    # Choose the cases: one from the options, or the default ones
    options = {name: value for name, value in vars(args).items() if name in Config.model_fields and name != "threads"}
    is_one_case = {"model", "batch_size", "augment"} & set(options)
    cases = ({},) if is_one_case else CASES
    configs = [Config.parse({**case, **options}) for case in cases]
    device = devices.pick(configs[0].device)
    threads = args.threads or devices.threads()
    torch.set_num_threads(threads)
    memory = Memory()
    data = data_sets.load(configs[0], "cpu", memory=memory)
    for config in configs:
        loops.check(config, data)

    # Measure the machine
    figures = {
        "device": devices.describe(device),
        "machine": platform.platform(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "turns": args.turns,
        "limits": limits(device),
        "overheads": overheads(device),
        "cases": {},
    }
    torch.cuda.empty_cache()
    print(json.dumps({name: value for name, value in figures.items() if name != "cases"}, indent=1))

    # Compare the loops in each case
    for config in configs:
        title = f"{config.model}, batch {config.batch_size}, augment {config.augment or 'none'}"
        figures["cases"][title] = compare(config, device, args.steps, args.turns, threads, memory)
        _show(title, figures["cases"][title])
        if args.out:
            replace_text(args.out, json.dumps(figures, indent=1) + "\n")
    return 0
