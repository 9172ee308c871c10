"""Optimizers in CUDA graphs, on a CPU: a recording of torch's operations stands for the graph."""

import copy
import importlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from study.config import Config
from study.config.choices import AUGMENTATIONS
from study.data.augment import augment, mix
from study.training import optim, step

CPU = torch.device("cpu")
WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")


class Operations(TorchDispatchMode):
    """Keeps the operations that run; those that would wait for a GPU fail, as they do while a graph is captured."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name in WAITING:
            raise RuntimeError(f"{function} waits")
        result = function(*args, **(kwargs or {}))
        self.kept.append((function, args, kwargs or {}, result))
        return result


class Recorded(step.Captured):
    """Repeats the operations of a call, with the numbers of the host as they were then."""

    def __init__(self, function, size, device, generators=(), say=print):
        self.function, self.graph, self.plain_calls = function, None, 0
        self.indices = torch.zeros(size, dtype=torch.int64)

    def __call__(self, indices):
        self.indices.copy_(indices)
        if self.plain_calls < self.PLAIN_CALLS:
            self.plain_calls += 1
            self.function(self.indices)
        elif self.graph is None:
            with Operations() as operations:
                self.function(self.indices)
            self.graph = operations.kept
        else:
            with torch.no_grad():
                for function, args, kwargs, result in self.graph:
                    self._put(tree_leaves(function(*args, **kwargs)), tree_leaves(result))

    @staticmethod
    def _put(values, places):
        for value, place in zip(values, places, strict=True):
            if isinstance(place, torch.Tensor) and value.data_ptr() != place.data_ptr():
                place.detach().copy_(value)


@pytest.fixture
def recorded(monkeypatch):
    """Record in place of capturing, and let optimizers count their steps on a CPU as they do on a GPU."""
    monkeypatch.setattr(step, "Captured", Recorded)
    modules = [f"torch.optim.{name}" for name in ("adam", "adamw", "nadam", "radam", "optimizer")]
    for name in [*modules, "timm.optim._helpers"]:
        module = importlib.import_module(name)
        if hasattr(module, "_get_capturable_supported_devices"):
            monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *args, **options: ["cpu"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("lion", "muon", "adamuon", "nadamw", "adopt", "radam", "cadamw", "rmsproptf")),
        *((name, False) for name in ("lamb", "laprop", "adafactor", "kron", "sgdp", "adahessian")),
    ],
)
def test_an_optimizer_is_captured_if_it_then_computes_the_same(recorded, name, expected):
    """Of those that are not, some wait for the device, others count steps or scale the learning rate on the host."""
    before = torch.get_rng_state()
    assert step.can_be_captured(optim.timm_builder(Config(optimizer=f"timm:{name}")), CPU) == expected
    assert torch.equal(before, torch.get_rng_state())


def test_no_augmentation_waits_for_the_device():
    images, labels = torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.arange(8)
    strengths = Config(augment=",".join(AUGMENTATIONS)).augmentations
    with Operations() as operations:
        mix(augment(images, strengths, torch.Generator()), labels, 8, strengths, torch.Generator())
    assert len(operations.kept) > 100


def test_running_out_of_memory_is_no_answer():
    def build(weights, lr):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        step.can_be_captured(build, CPU)


@pytest.mark.parametrize("name", ["adopt", "nadamw"])
def test_a_graph_goes_on_with_the_steps_of_a_run_without_one(recorded, name):
    """Resuming on a GPU what began on a CPU."""
    build = optim.timm_builder(Config(optimizer=f"timm:{name}", weight_decay=0.1))

    def steps(optimizer, weight, gradients, captured=False):
        def take(indices):
            weight.grad = gradients.index_select(0, indices)[0]
            optimizer.step()

        take = Recorded(take, 1, CPU) if captured else take
        for at in range(len(gradients)):
            optim.set_learning_rate(optimizer, 1 / (1 + at))
            take(torch.tensor([at]))

    first, second = torch.randn(2, 9, 5)
    weight = torch.ones(5, requires_grad=True)
    plain = build([weight])
    steps(plain, weight, first)
    twin = weight.detach().clone().requires_grad_()
    captured = build([twin])
    optim.load(captured, copy.deepcopy(plain.state_dict()))
    optim.prepare_capture(captured, CPU)
    steps(plain, weight, second)
    steps(captured, twin, second, captured=True)
    assert torch.allclose(weight, twin, atol=1e-6)
