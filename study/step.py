"""One training step.

step = create(model, optimizer, scheduler)
loss, correct = step(images, labels)    # tensors on the device: nothing waits for them
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def create(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    average: AveragedModel | None = None,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
) -> Step:
    """Make the step that takes images (n, channels, height, width), float32, and labels (n,), int64.

    It updates the model, its moving average where there is one, and the learning rate, and returns the mean loss and
    the number of correct predictions before the update.
    """

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(model)
        return loss.detach(), (logits.argmax(1) == labels).sum()

    return step
