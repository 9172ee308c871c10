"""One training step.

step = create(model, optimizer)
loss, correct = step(images, labels)    # tensors on the device: nothing waits for them
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Make the step that takes images (n, channels, height, width), float32, and labels (n,), int64.

    It updates the model and returns the mean loss and the number of correct predictions before the update.
    """

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach(), (logits.argmax(1) == labels).sum()

    return step
