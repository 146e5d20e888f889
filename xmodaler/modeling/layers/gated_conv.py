"""Gated convolutions over sequences and grids of features."""

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.utils.errors import UserError

from .causal_conv import HALF


class GatedConvLayer(nn.Module):
    """``y = sqrt(1/2) (dropout(GLU(conv(x))) + x)`` with zeros around x (Gehring et al. 2017).

    Args:
        channels: Width D.
        kernel_size: Cells along each dimension that an output sees, odd.
        two_dimensional: Whether the cells form a grid instead of a sequence.
        dropout: Dropout before the sum.
    """

    def __init__(
        self, channels: int, kernel_size: int, two_dimensional: bool, dropout: float
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"a kernel size is {kernel_size}; it must be odd")
        kind = nn.Conv2d if two_dimensional else nn.Conv1d
        self.conv = kind(channels, 2 * channels, kernel_size, padding=kernel_size // 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (B, D, N), or (B, D, H, W) for a grid.
            visible: Bool (B, 1, N) or (B, 1, H, W); hidden cells are zero to the convolution.

        Returns:
            A tensor like x.
        """
        x = x.masked_fill(~visible, 0.0)
        return (self.dropout(F.glu(self.conv(x), dim=1)) + x) * HALF
