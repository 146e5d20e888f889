"""Convolutions over frames that choose where they look."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.utils.errors import UserError

from .causal_conv import HALF
from .create_act import get_act_layer
from .weight_norm import WeightNorm, conv1d_layer, flat_kernel

_PADDING_MODES = ("border", "reflection", "zeros")


class TemporalDeformableBlock(nn.Module):
    """A temporal convolution whose k taps are moved by learned offsets (Chen et al. 2019, eq. 2-4).

    A first convolution gives every frame t an offset ``o_tj`` in [-1, 1] for each tap j, in units
    of half a clip. The tap reads the features between frames by linear interpolation at frame
    ``p_tj``, and a linear map of the k samples is the output.

    ``compatible`` computes what released weights were trained with, in a batch of F frames:
    ``p_tj = clamp(((u_tj + 1) F - 1) / 2, 0, F - 1)`` with
    ``u_tj = clamp(2 (t + j - k//2) / (F - 1) - 1 + o_tj, -1, 1)``. Coordinates whose ends are the
    first and the last frame are thus read as if their ends were the outer edges of these frames,
    padding frames are frames like others, and the same sampling is applied to the channels: output
    channel c reads channel position ``clamp(c C / (C - 1) - 1/2, 0, C - 1)``. A clip's output
    depends on the padding behind it.

    Otherwise ``p_tj = clamp(t + j - k//2 + o_tj (n - 1) / 2, 0, n - 1)`` for a clip of n frames,
    channels stay as they are, frames behind the n-th are zero at the input and ignored, and offsets
    begin at zero (Dai et al. 2017): a clip's output depends on nothing but the clip.

    Args:
        in_channels: Width C of the features.
        out_channels: Width of the output.
        kernel_size: Number k of taps, odd.
        stride: 1.
        padding_mode: What lies beyond the clip when ``compatible``: 'border' (its first or last
            frame; 'reflection' is the same) or 'zeros'.
        offset_act: Activation of the offsets.
        min_idx: Unused; accepted for old configs, as are the next two.
        max_idx: Unused.
        clamp_idx: Unused.
        use_norm: Whether kernels are weight-normed.
        compatible: See above.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding_mode: str = "border",
        offset_act: str = "tanh",
        min_idx: float = -1.0,
        max_idx: float = 1.0,
        clamp_idx: bool = True,
        use_norm: bool = True,
        compatible: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0 or stride != 1:
            raise UserError(
                f"a temporal deformable convolution has kernel size {kernel_size} and stride "
                f"{stride}; the kernel size must be odd and the stride 1"
            )
        if padding_mode not in _PADDING_MODES:
            raise UserError(
                f"padding mode '{padding_mode}' of a temporal deformable convolution is unknown; "
                f"use one of {', '.join(_PADDING_MODES)}"
            )
        self.kernel_size, self.compatible = kernel_size, compatible
        self.zeros_outside = compatible and padding_mode == "zeros"
        self.offset_conv = conv1d_layer(
            in_channels, kernel_size, kernel_size, use_norm, padding=kernel_size // 2
        )
        nn.init.zeros_(self.offset_conv.bias)
        if not compatible:
            normed = isinstance(self.offset_conv, WeightNorm)
            nn.init.zeros_(self.offset_conv.weight_g if normed else self.offset_conv.weight)
        activation = get_act_layer(offset_act)
        self.offset_act = activation() if activation is not None else nn.Identity()
        self.conv = conv1d_layer(in_channels, out_channels, kernel_size, use_norm)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            x: (B, F, C).
            mask: (B, F) bool, True for the n frames of a clip, which come first; None for all.
                Not used when ``compatible``.

        Returns:
            (B, F, out_channels).
        """
        frames = x.shape[1]
        if frames == 0:
            return x.new_zeros(x.shape[0], 0, self.conv.bias.shape[0])
        if mask is not None and not self.compatible:
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        offsets = self.offset_act(self.offset_conv(x.transpose(1, 2)).transpose(1, 2))
        # Half precision could not say where between two of many frames a tap is.
        offsets = offsets.to(_at_least_single(offsets))
        if self.compatible:
            positions = self._released_positions(offsets)
            x = _resampled_channels(x, self.zeros_outside)
        else:
            lengths = x.new_full((x.shape[0],), frames) if mask is None else mask.sum(dim=1)
            positions = self._positions(offsets, lengths)
        weights = interpolation(positions.flatten(1), frames, self.zeros_outside)
        samples = torch.bmm(weights.to(x.dtype), x).unflatten(1, (frames, self.kernel_size))
        return F.linear(samples.flatten(2), flat_kernel(self.conv), self.conv.bias)

    def _taps(self, frames: int, device: torch.device) -> Tensor:
        """(F, k): where the taps are without offsets, in frames."""
        taps = torch.arange(self.kernel_size, device=device) - self.kernel_size // 2
        return torch.arange(frames, device=device)[:, None] + taps

    def _released_positions(self, offsets: Tensor) -> Tensor:
        """(B, F, k) frame positions from offsets (B, F, k); a single frame is at 0."""
        frames = offsets.shape[1]
        scale = 2 / max(frames - 1, 1)
        u = (self._taps(frames, offsets.device) * scale - 1 + offsets).clamp(-1, 1)
        return ((u + 1) * frames - 1) / 2

    def _positions(self, offsets: Tensor, lengths: Tensor) -> Tensor:
        """(B, F, k) frame positions in clips of (B,) frames."""
        last = (lengths.to(offsets.dtype) - 1).clamp(min=0)[:, None, None]
        taps = self._taps(offsets.shape[1], offsets.device)
        return torch.minimum((taps + offsets * last / 2).clamp(min=0), last)


class TemporalDeformableLayer(nn.Module):
    """``y = sqrt(1/2) (dropout(GLU(deform(x))) + x)`` (Chen et al. 2019, eq. 5).

    Args:
        in_channels: Width C.
        out_channels: Width of the output; C, since the input is added to it.
        dropout: Dropout before the sum.
        kernel_size: As for :class:`TemporalDeformableBlock`, and so are the others.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding_mode: str = "border",
        offset_act: str = "tanh",
        min_idx: float = -1.0,
        max_idx: float = 1.0,
        clamp_idx: bool = True,
        dropout: float = 0.0,
        use_norm: bool = True,
        compatible: bool = True,
    ) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise UserError(
                "a temporal deformable layer adds its input to its output, but their widths are "
                f"{in_channels} and {out_channels}"
            )
        self.conv = TemporalDeformableBlock(
            in_channels,
            2 * out_channels,
            kernel_size,
            stride,
            padding_mode,
            offset_act,
            min_idx,
            max_idx,
            clamp_idx,
            use_norm,
            compatible,
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, F, C), and (B, F) bool as for the block -> (B, F, C)."""
        return (self.dropout(F.glu(self.conv(x, mask), dim=-1)) + x) * HALF


def interpolation(positions: Tensor, length: int, zeros_outside: bool = False) -> Tensor:
    """The matrix that reads a sequence between its entries.

    Args:
        positions: (B, Q) in [-1, length].
        length: L, number of entries.
        zeros_outside: Entries before the first and behind the last are zero; otherwise they
            repeat these.

    Returns:
        (B, Q, L): ``1 - f`` at ``floor(p)`` and ``f = p - floor(p)`` at the next entry.
    """
    if not zeros_outside:
        positions = positions.clamp(0, length - 1)
    lower = positions.detach().floor()
    fraction = positions - lower
    matrix = positions.new_zeros(*positions.shape, length)
    for entry, weight in ((lower.long(), 1 - fraction), (lower.long() + 1, fraction)):
        inside = (entry >= 0) & (entry < length)
        index = entry.clamp(0, length - 1).unsqueeze(-1)
        matrix = matrix.scatter_add(-1, index, (weight * inside).unsqueeze(-1))
    return matrix


def _resampled_channels(x: Tensor, zeros_outside: bool) -> Tensor:
    """The channels (..., C) as the released sampling reads them."""
    channels = x.shape[-1]
    c = torch.arange(channels, device=x.device, dtype=_at_least_single(x))
    positions = c * (channels / max(channels - 1, 1)) - 0.5
    if not zeros_outside:
        positions = positions.clamp(0, channels - 1)
    lower = positions.floor()
    fraction = positions - lower
    sampled = torch.zeros_like(x)
    for entry, weight in ((lower.long(), 1 - fraction), (lower.long() + 1, fraction)):
        weight = (weight * ((entry >= 0) & (entry < channels))).to(x.dtype)
        sampled = sampled + x.index_select(-1, entry.clamp(0, channels - 1)) * weight
    return sampled


def _at_least_single(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)
