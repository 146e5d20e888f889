"""Choosing and building a whole model."""

import torch
from torch import nn

from xmodaler.config import CfgNode
from xmodaler.losses.build import add_loss_config
from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

from ..layers.initial_weights import init_like_bert
from ..selection import required_name

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = "Whole models, built as ``cls(cfg)``."

_KEY = "MODEL.META_ARCHITECTURE"


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that the config describes and move it to ``MODEL.DEVICE``.

    No weights are loaded.

    Args:
        cfg: A config to which :func:`add_config` has been applied.

    Raises:
        UserError: A stage is missing or unknown, sizes do not fit, or the device is not there.
    """
    device = resolve_device(cfg.MODEL.DEVICE)
    model = META_ARCH_REGISTRY.get(required_name(cfg, None, _KEY, META_ARCH_REGISTRY))(cfg)
    if cfg.MODEL.BERT.INIT_STD > 0:
        init_like_bert(model, cfg.MODEL.BERT.INIT_STD)
    return model.to(device)


def add_config(cfg: CfgNode, tmp_cfg: CfgNode | None = None) -> None:
    """Create on ``cfg`` the keys of the classes that the config names.

    Args:
        cfg: The config to extend.
        tmp_cfg: The keys of the file to be merged next; a name it lacks is taken from ``cfg``.

    Raises:
        UserError: A name is missing or unknown.
    """
    tmp_cfg = cfg if tmp_cfg is None else tmp_cfg
    name = required_name(cfg, tmp_cfg, _KEY, META_ARCH_REGISTRY)
    extend = getattr(META_ARCH_REGISTRY.get(name), "add_config", None)
    if extend is not None:
        extend(cfg, tmp_cfg)
    add_loss_config(cfg, tmp_cfg)


def resolve_device(name: str) -> torch.device:
    """The device of that name; ``'auto'`` is the first of cuda, mps and cpu that is present.

    Raises:
        UserError: The name is no device, or that device is not present.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"MODEL.DEVICE '{name}' is no device; use auto, cpu, mps, cuda or cuda:N"
        ) from error
    present = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device.type in present and not present[device.type]():
        raise UserError(
            f"MODEL.DEVICE is '{name}' but no such device is available; use 'auto' or 'cpu'"
        )
    return device
