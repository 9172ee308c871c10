"""Grad-CAM: which parts of an image speak for a class, by the gradients of its logit in the last feature maps.

    maps = gradcam.heat_maps(model, images, [targets, predictions])

Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391. The last feature maps are the last block of features that
`models.activations` knows, before a pooling at its end, which would leave too few of them on small images.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from study.models.measure import as_it_predicts, feature_block, is_channels_last, watched

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def heat_maps(model: nn.Module, images: Tensor, classes: Sequence[Tensor]) -> list[Tensor] | None:
    """Return for each tensor of classes (n,) a map (n, height, width) from 0 to 1, scaled to its own maximum.

    `images` are prepared images (n, channels, height, width); the network and its gradients stay as they are. None if
    the network has no feature maps that lead to its logits, such as a transformer. A map of zeros says that nothing in
    the last feature maps speaks for the class.
    """
    # Run the network, and keep what each pooling gets and returns
    caught: dict[str, Any] = {}
    pooled: list[tuple[Tensor, Tensor]] = []
    pools = [module for module in model.modules() if isinstance(module, POOLS)]
    hooks = [pool.register_forward_hook(lambda _, inputs, out: pooled.append((out, inputs[0]))) for pool in pools]
    images = images.detach().clone().requires_grad_()  # so that frozen layers have gradients too
    try:
        with as_it_predicts(model, gradients=False), torch.enable_grad(), watched(model, caught):
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()

    # Take the maps before the last pooling
    maps = feature_block(caught)
    while (before := next((got for out, got in pooled if out is maps), None)) is not None:
        maps = before
    if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != len(images) or not maps.requires_grad:
        return None
    last = is_channels_last(model)
    size = maps.shape[1:3] if last else maps.shape[2:]
    if size.numel() < 2:
        return None

    # Weigh each map by the mean gradient of the logit in it
    result = []
    for labels in classes:
        logit = logits.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(logit, maps, retain_graph=True, allow_unused=True)
        if gradient is None:
            return None
        spatial, channels = ((1, 2), 3) if last else ((2, 3), 1)
        weighted = (gradient.mean(spatial, keepdim=True) * maps).sum(channels).relu().detach()
        result.append(weighted / weighted.amax((1, 2), keepdim=True).clamp(min=torch.finfo(weighted.dtype).tiny))
    return result
