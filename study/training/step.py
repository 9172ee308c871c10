"""One training step, and the same step captured as a CUDA graph.

step = create(model, optimizer)
loss, correct = step(images, labels)    # tensors on the device: nothing waits for them

batch = Captured(function, size=10)     # the function of a tensor of indices that does a whole batch
batch(indices)
"""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from study.system.errors import UserError, is_out_of_memory, one_line, reason
from study.training.optim import MovingAverage

TRIAL_SECONDS = 0.5
TRIAL_TURNS = 3
"""The least time, and the least turns, for which precisions are tried."""

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None = None,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    aux_weight: float = 0.0,
    precision: torch.dtype = torch.float32,
    compile_for: int | None = None,
) -> Step:
    """Make the step that takes images (n, channels, height, width), float32, and labels (n,), int64.

    A model that returns a tuple has auxiliary heads: their losses count `aux_weight` each. Convolutions and matrix
    products compute in `precision`, all else in float32. The network is compiled for batches of `compile_for` images.
    It updates the model and its moving average where there is one, and returns the mean cross-entropy of the main
    logits, without smoothing, as validation measures it, and the number of correct predictions, before the update.
    """
    if compile_for:
        torch.compiler.reset()  # what a process compiles for earlier networks counts towards a limit
        _try_compiler(next(model.parameters()).device)
    compiled = _compiled(model) if compile_for else model
    loss_of = partial(nn.functional.cross_entropy, label_smoothing=label_smoothing)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(images.device, precision):
            output = (compiled if len(images) == compile_for else model)(images)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        logits = logits.float()
        plain = nn.functional.cross_entropy(logits, labels)
        loss = loss_of(logits, labels) if label_smoothing else plain
        for other in auxiliary:
            loss = loss + aux_weight * loss_of(other.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if average is not None:
            average.update(model)
        return plain.detach(), (logits.argmax(1) == labels).sum()

    return step


def _try_compiler(device: torch.device) -> None:
    """Compile a small function and its gradient; UserError where this machine lacks what that takes."""
    numbers = torch.ones(8, device=device, requires_grad=True)
    try:
        torch.compile(lambda given: (2 * given).sin().sum(), dynamic=False)(numbers).backward()
    except Exception as error:
        raise _uncompiled("torch's compiler does not work on this machine", error) from None


def _compiled(model: nn.Module) -> Callable[[Tensor], Any]:
    """Compile a network at its first call; UserError where it cannot be compiled."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(model, dynamic=False)

    def forward(images: Tensor) -> Any:
        try:
            return compiled(images)
        except TorchDynamoException as error:
            raise _uncompiled("torch cannot compile this network", error) from None

    return forward


def _uncompiled(what: str, error: Exception) -> Exception:
    """Return a UserError that says what failed and why; an error of memory stays what it is."""
    return error if is_out_of_memory(error) else UserError(f"{what} ({reason(error)}); leave --compile away")


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Let convolutions and matrix products compute in a precision."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def faster_precision(model: nn.Module, images: Tensor, labels: Tensor) -> torch.dtype:
    """Return the precision in which a step takes less time here, tried on copies of the network and one batch.

    Both have turns, and the shortest of each counts, so that it matters little what else the machine does meanwhile.
    On CUDA devices with units for bfloat16 that is bfloat16, untried; on MPS float32.
    """
    if images.is_cuda:
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if images.device.type != "cpu":
        return torch.float32
    with torch.random.fork_rng(devices=[]):
        steps = {}
        for precision in (torch.float32, torch.bfloat16):
            tried = copy.deepcopy(model).train()
            steps[precision] = create(tried, torch.optim.SGD(tried.parameters(), lr=0.0), precision=precision)
            steps[precision](images, labels)
        times: dict[torch.dtype, list[float]] = {precision: [] for precision in steps}
        end = time.perf_counter() + TRIAL_SECONDS
        while time.perf_counter() < end or len(times[torch.bfloat16]) < TRIAL_TURNS:
            for precision, step in steps.items():
                started = time.perf_counter()
                step(images, labels)
                times[precision].append(time.perf_counter() - started)
    return min(times, key=lambda precision: min(times[precision]))


class Captured:
    """A function of one tensor of `size` indices as a CUDA graph: all its kernels are launched at once.

    The first calls run it plainly, so that memory and libraries settle; one that cannot be captured goes on so, and
    `say` gets a line. `generators` are those from which it draws, besides torch's own.
    """

    PLAIN_CALLS = 3

    def __init__(
        self,
        function: Callable[[Tensor], None],
        size: int,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        say: Callable[[str], None] = print,
    ):
        self.function, self.generators, self.say = function, generators, say
        self.indices = torch.zeros(size, dtype=torch.int64, device=device)
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.plain_calls, self.can_be_captured = 0, True

    def __call__(self, indices: Tensor) -> None:
        if len(indices) != len(self.indices) or not self.can_be_captured:
            self.function(indices)
            return
        self.indices.copy_(indices)
        if self.plain_calls < self.PLAIN_CALLS:
            self.plain_calls += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.function(self.indices)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None and not self._capture():
            self.function(indices)
            return
        self.graph.replay()

    def _capture(self) -> bool:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        drawing = [*self.generators, torch.cuda.default_generators[self.indices.device.index]]
        before = [generator.clone_state() for generator in drawing]
        try:
            with (
                torch.cuda.stream(self.stream),  # which is also left where the capture ends in an error
                torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                self.function(self.indices)
        except RuntimeError as error:
            self.can_be_captured = False
            for generator, state in zip(drawing, before, strict=True):  # else they wait for the capture's end
                generator.graphsafe_set_state(state)
            self.say(
                f"without CUDA graphs: the training step cannot be captured ({one_line(error.__context__ or error)})"
            )
            return False
        self.graph = graph
        return True
