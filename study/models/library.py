"""Build networks of torchvision and timm: ResNets, GoogLeNet, and any network of timm as `timm:NAME`.

    python -m study.train --model timm:convnext_atto --dataset digits --image-size 32

A `cifar` stem lacks the stride and the pooling at the start of ImageNet's networks, so that feature maps of small
images stay large enough.
"""

from contextlib import suppress
from typing import Any

import torch
from torch import nn

from study.config import Config
from study.models.layers import AveragePool, TooSmall
from study.system.errors import UserError, is_out_of_memory, nearest

CIFAR_STEM_UP_TO = 64
"""Largest side in pixels of the images for which `stem: auto` is a cifar stem."""

STEM_POOLS = ("maxpool", "features.pool0", "stem.pool")
"""Paths of the stem's pooling in timm's networks."""

Shape = tuple[int, int, int]


def resnet(config: Config, image_shape: Shape, classes: int) -> nn.Module:
    """Build torchvision's ResNet (He et al. 2015, https://arxiv.org/abs/1512.03385)."""
    import torchvision

    # Replace the first convolution, for small or grey images
    model = getattr(torchvision.models, config.model)(num_classes=classes)
    if _wants_cifar_stem(config, image_shape):
        model.conv1 = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif image_shape[0] != 3:
        model.conv1 = nn.Conv2d(image_shape[0], 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def googlenet(config: Config, image_shape: Shape, classes: int) -> nn.Module:
    """Build torchvision's GoogLeNet (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).

    In training mode it returns its logits and those of two auxiliary heads, unless their weight is 0.
    """
    import torchvision

    model = torchvision.models.googlenet(
        num_classes=classes, aux_logits=config.aux_weight > 0, init_weights=True, dropout=config.dropout
    )

    # Replace the first convolution, for small or grey images
    if _wants_cifar_stem(config, image_shape):
        model.conv1.conv = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        model.maxpool1 = model.maxpool2 = nn.Identity()
    elif image_shape[0] != 3:
        model.conv1.conv = nn.Conv2d(image_shape[0], 64, 7, stride=2, padding=3, bias=False)

    # Let the auxiliary heads work on MPS
    for name in ("aux1", "aux2"):
        if getattr(model, name) is not None:
            setattr(model, name, nn.Sequential(AveragePool(4), getattr(model, name)))
    return model


def from_timm(config: Config, image_shape: Shape, classes: int) -> nn.Module:
    """Build a network of timm by name for images (channels, height, width); raise TooSmall if it cannot be built."""
    import timm

    # Give networks with a fixed input size the size of the images
    name = timm_name(config)
    options = {"num_classes": classes, "in_chans": image_shape[0]}
    pretrained_cfg = timm.models.get_pretrained_cfg(name)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options["img_size"] = image_shape[1:]

    # Build it, and try it on an image
    try:
        model = timm.create_model(name, **options)
        if _wants_cifar_stem(config, image_shape):
            model = _with_cifar_stem(config, model, options, image_shape)
        with torch.no_grad():
            model.eval()(torch.zeros(1, *image_shape))
    except (AssertionError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise TooSmall(str(error)) from None
    return model.train()


def timm_name(config: Config) -> str:
    """Return timm's name of a config's network; raise UserError if timm does not have it.

    For a ResNet of torchvision it is the name of the same weights in timm.
    """
    if not config.model.startswith("timm:"):
        return f"{config.model}.tv_in1k"
    return known_name(config.model.removeprefix("timm:"))


def known_name(name: str) -> str:
    """Return a name of timm's networks, perhaps with a tag of weights; raise UserError if timm does not have it."""
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}; {nearest(name, timm.list_models())}")
    architecture, _, tag = name.partition(".")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in known:
        raise UserError(f"timm has no weights {name!r}; {nearest(name, known)}")
    return name


def _wants_cifar_stem(config: Config, image_shape: Shape) -> bool:
    if config.pretrained:
        return False
    return config.stem == "cifar" or (config.stem == "auto" and max(image_shape[1:]) <= CIFAR_STEM_UP_TO)


def _with_cifar_stem(config: Config, model: nn.Module, options: dict[str, Any], image_shape: Shape) -> nn.Module:
    """Remove the stride and the pooling from the stem of a timm network; let a stem of patches use smaller patches."""
    import timm

    # Find the first convolution
    first = model.pretrained_cfg.get("first_conv")
    convolution = model.get_submodule(first) if isinstance(first, str) else None
    if not isinstance(convolution, nn.Conv2d) or convolution.stride == (1, 1):
        return _unchanged(config, model)

    # A stem that cuts patches is built again with smaller ones
    if convolution.stride == convolution.kernel_size:
        patch = max(1, convolution.stride[0] * image_shape[1] // 224)
        try:
            return timm.create_model(config.model.removeprefix("timm:"), patch_size=patch, **options)
        except (KeyError, TypeError):
            return _unchanged(config, model)

    # Any other loses its stride and its pooling
    convolution.stride = (1, 1)
    for path in STEM_POOLS:
        parent, _, name = path.rpartition(".")
        with suppress(AttributeError):
            if isinstance(getattr(model.get_submodule(parent), name), nn.Module):
                setattr(model.get_submodule(parent), name, nn.Identity())
    return model


def _unchanged(config: Config, model: nn.Module) -> nn.Module:
    if config.stem == "cifar":
        raise UserError(f"{config.model} has no stem that can be changed; leave --stem at auto")
    return model
