"""One training step.

step = create(model, optimizer, scheduler)
loss, correct = step(images, labels)    # tensors on the device: nothing waits for them
"""

from collections.abc import Callable
from functools import partial

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
    aux_weight: float = 0.0,
) -> Step:
    """Make the step that takes images (n, channels, height, width), float32, and labels (n,), int64.

    A model that returns a tuple has auxiliary heads: their losses count `aux_weight` each.
    It updates the model, its moving average where there is one, and the learning rate, and returns the mean loss and
    the number of correct predictions before the update.
    """

    loss_of = partial(nn.functional.cross_entropy, label_smoothing=label_smoothing)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        output = model(images)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        loss = loss_of(logits, labels)
        for other in auxiliary:
            loss = loss + aux_weight * loss_of(other, labels)
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
