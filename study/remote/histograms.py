"""Histograms of a network's parameters and gradients for W&B, under the names that `wandb.watch` gives them.

run.log({**row, **histograms.of(model)})

`wandb.watch` itself reads them by hooks every few batches, which waits for the device and which a CUDA graph
cannot replay. Here they are read once after each epoch.
"""

import math
from typing import Any

import torch
import wandb
from torch import Tensor, nn

BINS = 32


def of(model: nn.Module) -> dict[str, Any]:
    """Return a histogram of each trained parameter, and of its gradient in the last batch, if it has one."""
    tensors = {
        f"{kind}/{name}": tensor
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for kind, tensor in (("parameters", parameter), ("gradients", parameter.grad))
        if tensor is not None
    }
    found = {name: _histogram(tensor.detach()) for name, tensor in tensors.items()}
    return {name: histogram for name, histogram in found.items() if histogram}


def _histogram(tensor: Tensor) -> Any:
    """Return the histogram of the finite values of a tensor; None if there are none."""
    values = tensor.float().flatten()
    low, high = (bound.item() for bound in values.aminmax())
    if not math.isfinite(high - low):
        values = values[values.isfinite()]
        if not len(values):
            return None
        low, high = (bound.item() for bound in values.aminmax())
    if low == high:
        return wandb.Histogram(np_histogram=([len(values)], [low, high]))
    counts = torch.histc(values.cpu() if values.device.type == "mps" else values, BINS, low, high)
    return wandb.Histogram(np_histogram=(counts.int().tolist(), torch.linspace(low, high, BINS + 1).tolist()))
