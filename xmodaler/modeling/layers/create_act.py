"""Activations by the names that configs use."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.utils.errors import UserError, did_you_mean
from xmodaler.utils.registry import RegistryKeyError

_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "swish": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "gelu_new": _gelu_tanh,
    "mish": F.mish,
}


def get_act_layer(name: str = "none") -> type[nn.Module] | None:
    """The activation module class of that name, or None for ``'none'`` and ``''``.

    Args:
        name: relu, elu, celu, sigmoid, tanh or none, in any case.

    Raises:
        UserError: The name is none of these.
    """
    key = (name or "none").lower()
    if key == "none":
        return None
    if key not in _LAYERS:
        raise UserError(
            f"no activation is called '{name}'{did_you_mean(key, _LAYERS)}; "
            f"known are none, {', '.join(_LAYERS)}"
        )
    return _LAYERS[key]


def build_act_layer(name: str, elu_alpha: float) -> nn.Module | None:
    """The activation module of that name; ``elu_alpha`` reaches elu and celu only."""
    layer = get_act_layer(name)
    if layer is None:
        return None
    return layer(elu_alpha) if layer in (nn.ELU, nn.CELU) else layer()


def get_activation(activation_string: str) -> Callable[[Tensor], Tensor]:
    """The activation function of that name: relu, swish, gelu, tanh, gelu_new or mish.

    Raises:
        RegistryKeyError: (a KeyError) the name is none of these.
    """
    if activation_string not in _FUNCTIONS:
        raise RegistryKeyError(
            f"no activation function is called '{activation_string}'"
            f"{did_you_mean(str(activation_string), _FUNCTIONS)}; "
            f"known are {', '.join(_FUNCTIONS)}"
        )
    return _FUNCTIONS[activation_string]
