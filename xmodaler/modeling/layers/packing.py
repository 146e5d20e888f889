"""Padding left out of the arithmetic: only the real rows of a padded batch are computed."""

import torch
from torch import Tensor


class Packing:
    """Which positions of a padded ``(rows, length, width)`` tensor are real.

    Position-wise layers run on the packed ``(count, width)`` rows; attention, which mixes
    positions, unpacks around itself. Hidden positions come back as zeros.

    Args:
        index: (count,) int64, flat positions ``row * length + column`` in rising order.
        rows: Rows of the padded tensor.
        length: Positions per row of the padded tensor.
    """

    def __init__(self, index: Tensor, rows: int, length: int) -> None:
        self.index, self.rows, self.length = index, rows, length

    @classmethod
    def of(cls, visible: Tensor) -> "Packing":
        """The packing of a bool mask (rows, length); reading it waits for the device."""
        return cls(visible.flatten().nonzero().squeeze(1), *visible.shape)

    @property
    def fill(self) -> float:
        """Share of the padded positions that is real."""
        return self.index.numel() / max(self.rows * self.length, 1)

    def followed_by(self, other: "Packing") -> "Packing":
        """The packing of longer rows: this one's positions in front, the other's behind.

        Packed, all of this one's rows come first; ``index`` then does not rise throughout.
        """
        length = self.length + other.length
        index = torch.cat(
            [
                self.index // self.length * length + self.index % self.length,
                other.index // other.length * length + self.length + other.index % other.length,
            ]
        )
        return Packing(index, self.rows, length)

    def pack(self, padded: Tensor) -> Tensor:
        """(rows, length, ...) -> (count, ...)."""
        return padded.flatten(0, 1).index_select(0, self.index)

    def unpack(self, packed: Tensor) -> Tensor:
        """(count, ...) -> (rows, length, ...), zeros where nothing is real."""
        flat = packed.new_zeros(self.rows * self.length, *packed.shape[1:])
        return flat.index_copy_(0, self.index, packed).unflatten(0, (self.rows, self.length))


def pack_or_flatten(padded: Tensor, packing: Packing | None) -> Tensor:
    """The real rows, or all of them where nothing is left out."""
    return padded if packing is None else packing.pack(padded)


def unpack_or_keep(values: Tensor, packing: Packing | None) -> Tensor:
    """The padded tensor again; the inverse of :func:`pack_or_flatten`."""
    return values if packing is None else packing.unpack(values)


def worth_packing(visible: Tensor, threshold: float = 0.9) -> Packing | None:
    """A packing when enough is padding to pay for the copies, and reading the mask is cheap.

    The number of real positions is a size of the packed tensors, so the host has to know it: on
    an accelerator that would stall the queue, hence None there and while compiling or tracing.
    """
    if visible.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    packing = Packing.of(visible)
    return packing if 0 < packing.fill < threshold else None
