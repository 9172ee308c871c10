"""Create a training step, and capture a function as a CUDA graph.

step = create(model, optimizer)
loss, correct = step(images, labels)    # tensors on the device, without waiting for it

batch = Captured(function, size=10)     # `function` trains a whole batch, given by a tensor of indices
batch(indices)
can_be_captured(build, device)          # whether an optimizer computes the same in such a graph
"""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from study.system import devices
from study.system.errors import UserError, is_out_of_memory, one_line, reason
from study.system.progress import Say
from study.training import optim
from study.training.optim import MovingAverage

TRIAL_SECONDS = 0.5
TRIAL_TURNS = 3
"""Precisions are tried for at least this time and this number of turns."""

CAPTURE_TURNS = 16
ROUNDING = 0.005
"""Number of steps for which an optimizer is tried in a CUDA graph, and by how much a change may differ then."""

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
    class_weights: Tensor | None = None,
) -> Step:
    """Return the step, a function of images (n, channels, height, width), float32, and labels (n,), int64.

    Mixed images have, in place of labels, the share of each class (n, classes); the class to predict is then that with
    the largest share.

    The step updates the model and its moving `average`, if any. It returns the mean cross-entropy of the main logits
    without smoothing and weights, as validation measures it, and the number of correct predictions, both before the
    update.

    A model that returns a tuple has auxiliary heads, whose losses are weighted by `aux_weight`. `class_weights`
    (classes,) weigh the losses of the images of each class. Convolutions and matrix products compute in `precision`,
    everything else in float32. The network is compiled for batches of `compile_for` images. Raises UserError if it
    cannot be compiled.
    """
    # Compile the network, if wanted
    if compile_for:
        torch.compiler.reset()  # networks that the process compiled before count towards a limit
        _try_compiler(next(model.parameters()).device)
    compiled = _compiled(model) if compile_for else model
    loss_of = partial(nn.functional.cross_entropy, weight=class_weights, label_smoothing=label_smoothing)
    is_plain = class_weights is None and not label_smoothing

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # Compute the loss
        with autocast(images.device, precision):
            output = (compiled if len(images) == compile_for else model)(images)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        logits = logits.float()
        unsmoothed = nn.functional.cross_entropy(logits, labels)
        loss = unsmoothed if is_plain else loss_of(logits, labels)
        for aux_logits in auxiliary:
            loss = loss + aux_weight * loss_of(aux_logits.float(), labels)

        # Update the weights
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if average is not None:
            average.update(model)
        classes = labels if labels.ndim == 1 else labels.argmax(1)
        return unsmoothed.detach(), (logits.argmax(1) == classes).sum()

    return step


def _try_compiler(device: torch.device) -> None:
    """Compile a small function and its gradient; raise UserError if the compiler does not work on this machine."""
    numbers = torch.ones(8, device=device, requires_grad=True)
    try:
        torch.compile(lambda values: (2 * values).sin().sum(), dynamic=False)(numbers).backward()
    except Exception as error:
        raise _uncompiled("torch's compiler does not work on this machine", error) from None


def _compiled(model: nn.Module) -> Callable[[Tensor], Any]:
    """Return a network that is compiled at its first call, which raises UserError if that fails."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(model, dynamic=False)

    def forward(images: Tensor) -> Any:
        try:
            return compiled(images)
        except TorchDynamoException as error:
            raise _uncompiled("torch cannot compile this network", error) from None

    return forward


def _uncompiled(problem: str, error: Exception) -> Exception:
    """Return a UserError with the problem and its reason, or the error itself if memory ran out."""
    return error if is_out_of_memory(error) else UserError(f"{problem} ({reason(error)}); omit --compile")


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Return a context in which convolutions and matrix products compute in a precision."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def faster_precision(model: nn.Module, images: Tensor, labels: Tensor) -> torch.dtype:
    """Return the precision, float32 or bfloat16, in which a training step is faster.

    On CUDA it is bfloat16 if the GPU supports it, on MPS float32. On a CPU both are tried on copies of the network and
    one batch. They take turns, and the shortest time of each counts, so that other processes matter little.
    """
    # Decide without a trial on GPUs
    if images.is_cuda:
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if images.device.type != "cpu":
        return torch.float32
    with torch.random.fork_rng(devices=[]):
        # Make a step for each precision, and warm it up
        steps = {}
        for precision in (torch.float32, torch.bfloat16):
            trial_model = copy.deepcopy(model).train()
            steps[precision] = create(
                trial_model, torch.optim.SGD(trial_model.parameters(), lr=0.0), precision=precision
            )
            steps[precision](images, labels)

        # Time them in turns
        times: dict[torch.dtype, list[float]] = {precision: [] for precision in steps}
        end = time.perf_counter() + TRIAL_SECONDS
        while time.perf_counter() < end or len(times[torch.bfloat16]) < TRIAL_TURNS:
            for precision, step in steps.items():
                started = time.perf_counter()
                step(images, labels)
                times[precision].append(time.perf_counter() - started)
    return min(times, key=lambda precision: min(times[precision]))


class Captured:
    """Captures a function of a tensor of `size` indices as a CUDA graph, which launches all its kernels at once.

    The first calls run the function itself, to warm up. If it cannot be captured, `say` gets a line and all calls run
    the function itself. `generators` are those that it draws from, in addition to torch's.
    """

    PLAIN_CALLS = 3

    def __init__(
        self,
        function: Callable[[Tensor], None],
        size: int,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        say: Say = print,
    ):
        self.function = function
        self.generators = generators
        self.say = say
        self.indices = torch.zeros(size, dtype=torch.int64, device=device)
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.plain_calls = 0
        self.can_be_captured = True

    def __call__(self, indices: Tensor) -> None:
        """Call the function, through the graph if there is one."""
        if len(indices) != len(self.indices) or not self.can_be_captured:
            self.function(indices)
            return

        # Warm up on the stream of the capture
        self.indices.copy_(indices)
        if self.plain_calls < self.PLAIN_CALLS:
            self.plain_calls += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.function(self.indices)
            torch.cuda.current_stream().wait_stream(self.stream)
            return

        # Replay the graph, captured at the first such call
        if self.graph is None and not self._capture():
            self.function(indices)
            return
        self.graph.replay()

    def _capture(self) -> bool:
        """Capture the function, and return whether that succeeded."""
        # Register the generators, whose states change even if the capture fails
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        generators = [*self.generators, torch.cuda.default_generators[self.indices.device.index]]
        states = [generator.clone_state() for generator in generators]

        # Capture
        try:
            with (
                torch.cuda.stream(self.stream),  # is left even if the capture fails
                torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                self.function(self.indices)
        except RuntimeError as error:
            self.can_be_captured = False
            for generator, state in zip(generators, states, strict=True):  # otherwise they wait for the capture's end
                generator.graphsafe_set_state(state)
            self.say(
                f"without CUDA graphs: the training step cannot be captured ({one_line(error.__context__ or error)})"
            )
            return False
        self.graph = graph
        return True


def can_be_captured(build: Callable[..., torch.optim.Optimizer], device: torch.device) -> bool:
    """Return whether an optimizer computes the same in a CUDA graph as without, tried on a few weights.

    It does not if it waits for the device, or if it counts steps or reads the learning rate on the host. `build` builds
    it for a list of weights. Torch's random generators keep their state.
    """
    # Draw the weights of a convolution and a linear layer, and gradients for each step
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 3, 3, 3), (4,), (5, 4), (5,))
    start = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    gradients = [torch.randn(CAPTURE_TURNS, *shape, generator=generator).to(device) for shape in shapes]

    def changes(is_captured: bool) -> list[Tensor]:
        """Take all steps, each with its own learning rate, and return by how much the weights changed."""
        weights = [weight.clone().requires_grad_() for weight in start]
        optimizer = build(weights, lr=0.01)

        def take(indices: Tensor) -> None:
            for weight, table in zip(weights, gradients, strict=True):
                weight.grad = table.index_select(0, indices)[0]
            optimizer.step()

        if is_captured:
            optim.prepare_capture(optimizer, device)
            take = Captured(take, 1, device, say=lambda text: None)
        for turn in range(CAPTURE_TURNS):
            optim.set_learning_rate(optimizer, 1 / (1 + turn))
            take(torch.tensor([turn], device=device))
        if is_captured and not take.graph:
            raise RuntimeError("it cannot be captured")
        return [weight.detach() - before for weight, before in zip(weights, start, strict=True)]

    # Compare the changes, with and without a graph; Muon rounds to bfloat16
    states = devices.generators(device)
    try:
        pairs = list(zip(changes(False), changes(True), strict=True))
        return all((plain - captured).abs().max() <= ROUNDING * plain.abs().max() for plain, captured in pairs)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return False
    finally:
        devices.set_generators(device, states)
