"""Layers whose weights are stored as length and direction."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightNorm(nn.Module):
    """``W = g v / |v|``, a length and a direction for every output (Salimans & Kingma 2016, eq. 2).

    The parameters are called ``weight_g`` and ``weight_v``, as in released weights.

    Args:
        layer: Gives the weight (out, ...) to start from and the bias; it is not kept.
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.weight_g = nn.Parameter(_norm(weight))
        self.weight_v = nn.Parameter(weight.clone())
        self.register_parameter("bias", layer.bias)

    @property
    def weight(self) -> Tensor:
        """The weight (out, ...); computed anew at every access."""
        return self.weight_v * (self.weight_g / _norm(self.weight_v))


class WeightNormLinear(WeightNorm):
    """``y = W x + b`` with a weight-normed W.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether there is a b.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(nn.Linear(in_features, out_features, bias=bias))
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.weight, self.bias)


class WeightNormConv1d(WeightNorm):
    """A convolution over the last axis, stride 1, with a weight-normed kernel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Width k of the kernel.
        padding: Zeros on either side.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0
    ) -> None:
        super().__init__(nn.Conv1d(in_channels, out_channels, kernel_size))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T) -> (B, out, T')."""
        return F.conv1d(x, self.weight, self.bias, padding=self.padding)


def linear_layer(
    in_features: int, out_features: int, use_norm: bool, bias: bool = True
) -> nn.Linear | WeightNormLinear:
    """A Linear with or without weight normalisation."""
    kind = WeightNormLinear if use_norm else nn.Linear
    return kind(in_features, out_features, bias=bias)


def conv1d_layer(
    in_channels: int, out_channels: int, kernel_size: int, use_norm: bool, padding: int = 0
) -> nn.Conv1d | WeightNormConv1d:
    """A Conv1d with or without weight normalisation."""
    kind = WeightNormConv1d if use_norm else nn.Conv1d
    return kind(in_channels, out_channels, kernel_size, padding=padding)


def flat_kernel(conv: nn.Conv1d | WeightNormConv1d) -> Tensor:
    """The kernel (out, in, k) as (out, k * in), to be multiplied with k stacked inputs."""
    return conv.weight.transpose(1, 2).flatten(1)


def _norm(weight: Tensor) -> Tensor:
    """(out, 1, ...): the length of every output's weights."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)
