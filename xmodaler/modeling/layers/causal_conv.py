"""Convolutions over words that never look ahead."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.utils.errors import UserError

from .few_rows import are_few, product
from .weight_norm import conv1d_layer, flat_kernel

HALF = math.sqrt(0.5)
"""Keeps the variance of a sum of two terms of equal variance."""


class ShiftedConvLayer(nn.Module):
    """``y_t = sqrt(1/2) (GLU(dropout(W [x_{t-k+1}; ...; x_t] + b)) + x_t)``.

    A convolution shifted so that position t reads itself and the k - 1 positions before it, zeros
    in front (Gehring et al. 2017, section 3.2; Chen et al. 2019, section 3.3); GLU multiplies the
    first half of the channels by the sigmoid of the second (Dauphin et al. 2017).

    Args:
        in_channels: Width C.
        out_channels: Width of the output; C, since the input is added to it.
        kernel_size: k.
        stride: 1.
        padding_mode: 'zeros'.
        dropout: Dropout on the output of the convolution.
        use_norm: Whether the kernel is weight-normed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding_mode: str = "zeros",
        dropout: float = 0.0,
        use_norm: bool = True,
    ) -> None:
        super().__init__()
        if in_channels != out_channels or stride != 1 or padding_mode != "zeros":
            raise UserError(
                "a causal convolution with residual needs equal input and output widths, stride 1 "
                f"and zero padding, but got widths {in_channels} and {out_channels}, stride "
                f"{stride} and padding '{padding_mode}'"
            )
        if kernel_size < 1:
            raise UserError(f"a kernel size is {kernel_size}; it must be at least 1")
        self.kernel_size, self.channels = kernel_size, in_channels
        self.conv = conv1d_layer(in_channels, 2 * out_channels, kernel_size, use_norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """All positions: (R, T, C) -> (R, T, C)."""
        padded = F.pad(x.transpose(1, 2), (self.kernel_size - 1, 0))
        return self._finish(self.conv(padded).transpose(1, 2), x)

    def no_past(self, like: Tensor) -> Tensor:
        """What lies before the first word of B sentences: zeros (B, k - 1, C)."""
        return like.new_zeros(like.shape[0], self.kernel_size - 1, self.channels)

    def step(self, x: Tensor, past: Tensor, kernel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One position.

        Args:
            x: (R, C).
            past: The k - 1 inputs before it, (R, k - 1, C).
            kernel: What :func:`~.weight_norm.flat_kernel` makes of the convolution, where it is
                known already.

        Returns:
            The output (R, C), and the past of the next position.
        """
        kernel = flat_kernel(self.conv) if kernel is None else kernel
        window = torch.cat([past, x.unsqueeze(1)], dim=1)
        multiply = product if are_few(x.shape[0], x) else F.linear
        return self._finish(multiply(window.flatten(1), kernel, self.conv.bias), x), window[:, 1:]

    def _finish(self, convolved: Tensor, x: Tensor) -> Tensor:
        return (F.glu(self.dropout(convolved), dim=-1) + x) * HALF
