"""Download pretrained weights through timm or read them from a file, check them, and load them into a network.

    python -m study.train --model resnet50 --pretrained --dataset pets
    python -m study.train --model timm:efficientnet_lite0 --weights efficientnet_lite0.safetensors --dataset pets

The last layer of a network, its head, is specific to the classes of the pretraining and is initialized anew. All other
layers are its body.
"""

import hashlib
import logging
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from study.config import Config
from study.models import create, library
from study.system.errors import NAMED, UserError, is_out_of_memory, one_line, some
from study.system.files import file_digest
from study.system.progress import Say


@dataclass(frozen=True)
class Pretrained:
    """The weights of a network's body, and how its images are prepared.

    `image_size` is the side in pixels, that of the pretraining unless the config has another; `mean` and `std` are per
    channel (RGB), on a scale from 0 to 255.
    """

    body: dict[str, Tensor]
    source: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of the weights."""
        digest = hashlib.sha256()
        for name, value in self.body.items():
            digest.update(name.encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def read(config: Config, say: Say) -> Pretrained | None:
    """Read the pretrained weights of a config's network for images of its size; None if it is trained from scratch.

    Raises UserError if there are no such weights, or if they do not fit the network.
    """
    if not config.pretrained:
        return None
    import timm

    # Look up the weights in timm
    name = library.timm_name(config)
    pretrained_cfg = timm.models.get_pretrained_cfg(name)
    if pretrained_cfg.classifier is None:
        raise UserError(f"{config.model} has no last layer that could be replaced: it cannot be fine-tuned")

    # Build the network with them
    image_size = config.image_size or pretrained_cfg.input_size[-1]
    own = create(config, (3, image_size, image_size), 2)
    build = partial(timm.create_model, name, **({"img_size": image_size} if pretrained_cfg.fixed_input_size else {}))
    model = _from_file(config, build, own) if config.weights else _downloaded(config, build, pretrained_cfg, say)

    # Keep the body, and how images are normalised
    heads = head_names(model)
    body = {name: value for name, value in model.state_dict().items() if not is_in(name, heads)}
    mean, std = (
        tuple(round(255 * value, 4) for value in values) for values in (pretrained_cfg.mean, pretrained_cfg.std)
    )
    return Pretrained(
        body, config.weights or f"timm {pretrained_cfg.architecture}.{pretrained_cfg.tag}", image_size, mean, std
    )


def _downloaded(config: Config, build: Callable[..., nn.Module], pretrained_cfg: Any, say: Say) -> nn.Module:
    """Build the network with timm's weights, downloaded if necessary; raise UserError if that fails."""
    if not pretrained_cfg.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {config.model}; name a file of weights with --weights FILE"
        )
    say(
        f"pretrained weights: {pretrained_cfg.architecture}.{pretrained_cfg.tag} of timm, downloaded unless they "
        "already were"
    )

    # Download without the hub's warnings about every attempt
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        return build(pretrained=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"the pretrained weights of {config.model} cannot be downloaded ({one_line(error)}); on a machine with "
            f"internet, download the weights of {pretrained_cfg.hf_hub_id or pretrained_cfg.url}, and name the file "
            "here: --weights FILE, in Python weights='FILE'"
        ) from None
    finally:
        hub.setLevel(level)


def _from_file(config: Config, build: Callable[..., nn.Module], own: nn.Module) -> nn.Module:
    """Build the network with the weights of a file; raise UserError if those of the body do not fit."""
    # Check that the file is the one that the run's identity names
    try:
        found = file_digest(Path(config.weights))
    except OSError as error:
        raise UserError(f"{config.weights} cannot be read: {error.strerror}") from None
    if found != config.weights_digest:
        raise UserError(
            f"{config.weights} is not the file that the run names: its digest is {found}, not {config.weights_digest}"
        )

    # Compare its names with those of the network's body
    state = _read_file(config.weights)
    heads = head_names(own)
    expected = {name: value for name, value in own.state_dict().items() if not is_in(name, heads)}
    lacking = {name for name in expected.keys() - state.keys() if not name.endswith("num_batches_tracked")}
    unknown = {name for name in state.keys() - expected.keys() if not is_in(name, heads)}
    if lacking or unknown:
        problems = [f"it lacks {_some(lacking)}"] if lacking else []
        problems += [f"the network has no {_some(unknown)}"] if unknown else []
        raise UserError(f"{config.weights} does not fit {config.model}: {', and '.join(problems)}")

    # Let timm load it, which adapts weights for another image size
    head = state.get(f"{heads[0]}.weight")
    classes = 0 if head is None else len(head)
    overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
    try:
        return build(pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        shapes = {
            f"{name} (it is {_shape(state[name])}, not {_shape(value)})"
            for name, value in expected.items()
            if name in state and state[name].shape != value.shape
        }
        raise UserError(
            f"{config.weights} does not fit {config.model}: {_some(shapes) if shapes else one_line(error)}"
        ) from None


def _read_file(path: str) -> dict[str, Tensor]:
    """Read the named tensors of a safetensors or torch file, at the top or below a key such as state_dict."""
    import timm

    try:
        state = timm.models.load_state_dict(path, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read as weights, in safetensors' or torch's format ({type(error).__name__})"
        ) from None
    except (AttributeError, TypeError):
        state = {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no weights: it must map names to tensors, in safetensors' or torch's format")
    return state


def begin(model: nn.Module, pretraining: Pretrained, config: Config) -> tuple[str, ...]:
    """Load pretrained weights into a network, freeze the layers that are not trained, and return its `head_names`.

    A head starts with zeros, so that the first steps do not disturb the body. For grey images, the weights of the
    colours are summed. Raises UserError if the weights are not those of the network.
    """
    from timm.models import adapt_input_conv

    # Load the body
    own = model.state_dict()
    heads = head_names(model)
    body = {
        name: adapt_input_conv(own[name].shape[1], value) if _takes_other_channels(value, own.get(name)) else value
        for name, value in pretraining.body.items()
    }
    different = body.keys() ^ {name for name in own if not is_in(name, heads)}
    if different:
        raise UserError(f"the weights of {pretraining.source} are not those of the network: {_some(different)}")
    model.load_state_dict(body, strict=False)

    # Zero the head, and freeze the body unless all is trained
    for name, parameter in model.named_parameters():
        if is_in(name, heads):
            nn.init.zeros_(parameter)
        else:
            parameter.requires_grad = config.finetune == "all"

    # Note the modules that stay in eval mode during training: frozen ones, and batch norms with pretrained statistics
    frozen = [module for module in model.modules() if not any(p.requires_grad for p in module.parameters())]
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    model.in_eval = tuple(frozen if config.finetune != "all" else [] if config.batch_statistics else norms)
    return heads


def _takes_other_channels(pretrained: Tensor, own: Tensor | None) -> bool:
    return own is not None and own.ndim == pretrained.ndim == 4 and pretrained.shape[1] == 3 != own.shape[1]


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the layers that return a network's logits: one, or several for networks with more heads."""
    named = getattr(model, "pretrained_cfg", {"classifier": "fc"})["classifier"]
    return (named,) if isinstance(named, str) else tuple(named)


def is_in(name: str, modules: Iterable[str]) -> bool:
    """Return whether a parameter or buffer belongs to one of `modules`, which are paths."""
    return any(name.startswith(f"{module}.") for module in modules)


def train_mode(model: nn.Module) -> None:
    """Put a network in training mode, except the modules that `begin` noted in `in_eval`."""
    model.train()
    for module in getattr(model, "in_eval", ()):
        module.eval()


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return some(names[:NAMED], len(names))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
