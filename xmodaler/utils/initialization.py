"""Initialising weights."""

import torch
from torch import Tensor


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Fill a tensor in place from a normal distribution cut to [a, b].

    Args:
        tensor: Any shape.
        mean: Mean before cutting.
        std: Standard deviation before cutting.
        a: Least value (not in units of ``std``).
        b: Greatest value.

    Returns:
        The tensor.
    """
    return torch.nn.init.trunc_normal_(tensor, mean=mean, std=std, a=a, b=b)
