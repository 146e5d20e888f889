"""Products of few rows with large weights on a CPU, as decoding steps are made of.

A step multiplies a few dozen rows by weights of tens of megabytes, which come from main memory
every time. ``F.linear`` has BLAS rearrange each weight first, which takes up to a third of the
product. Two ways around it, both exact:

* :func:`product` swaps the operands, ``W X`` with the rows as columns of X; best for wide inputs.
* :class:`StepWeights` are copies of the weights with the inputs outermost, made once per decoded
  batch; best for narrow inputs.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_WIDE = 1024
_FEWEST, _MOST = 8, 512
_PAGE = 4096
_PADDING = 16
_BLOCK = 128


def are_few(rows: int, like: Tensor) -> bool:
    """Whether the special ways pay: on a CPU, in single precision, without gradients."""
    return (
        _FEWEST <= rows <= _MOST
        and like.device.type == "cpu"
        and like.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def product(x: Tensor, weight: Tensor, addend: Tensor | None = None) -> Tensor:
    """``x W^T``, plus an addend, as a transposed view: features outermost in memory.

    Element-wise operations keep that layout, and the next product wants its input so.

    Args:
        x: (rows, in).
        weight: (out, in).
        addend: (out,) or (rows, out).

    Returns:
        (rows, out).
    """
    columns = x.t().contiguous()
    if addend is None:
        return torch.mm(weight, columns).t()
    addend = addend.unsqueeze(1) if addend.dim() == 1 else addend.t()
    return torch.addmm(addend, weight, columns).t()


def multiply(x: Tensor, weight: Tensor, addend: Tensor) -> Tensor:
    """``x W^T + addend`` in the layout that suits.

    Args:
        x: (rows, in).
        weight: (out, in).
        addend: (rows, out).
    """
    if are_few(x.shape[0], x):
        return product(x, weight, addend)
    return torch.addmm(addend, x, weight.t())


def input_major(weight: Tensor) -> Tensor:
    """A copy (in, out) of a weight (out, in).

    Rows a multiple of the page size apart would compete for the same cache lines, hence a gap
    behind each row of such a length.
    """
    outputs, inputs = weight.shape
    gap = _PADDING if outputs * weight.element_size() % _PAGE == 0 else 0
    copy = weight.new_empty(inputs, outputs + gap)[:, :outputs]
    for start in range(0, outputs, _BLOCK):  # in blocks that stay in the cache
        copy[:, start : start + _BLOCK] = weight[start : start + _BLOCK].t()
    return copy


class StepWeights:
    """Copies of the weights of some layers, for the steps of one decoded batch.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: Iterable[nn.Linear]) -> None:
        self._copies = {layer: input_major(layer.weight) for layer in layers}

    @classmethod
    def where_they_pay(cls, layers: Sequence[nn.Linear]) -> "StepWeights | None":
        """Copies of all layers when some are narrow; :func:`product` serves wide ones as well."""
        narrow = any(layer.in_features < _WIDE for layer in layers)
        return cls(layers) if narrow else None

    def of(self, layer: nn.Linear) -> Tensor | None:
        """The copy (in, out) of a layer's weight, if there is one."""
        return self._copies.get(layer)


def linear(layer: nn.Linear, x: Tensor, weights: StepWeights | None = None) -> Tensor:
    """``layer(x)``, in the fastest of the three ways.

    Args:
        layer: The layer.
        x: (..., in).
        weights: Copies made for decoding, or None.

    Returns:
        (..., out).
    """
    copy = weights.of(layer) if weights is not None else None
    if copy is not None:
        return x @ copy if layer.bias is None else torch.addmm(layer.bias, x, copy)
    if x.dim() == 2 and x.shape[1] >= _WIDE and are_few(x.shape[0], x):
        return product(x, layer.weight, layer.bias)
    return layer(x)


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Representatives of equal entries.

    Args:
        ids: (rows,) int64.

    Returns:
        (k,) a row of each distinct id, and (rows,) the place of each row's id among the k.
    """
    values, place = torch.unique(ids, return_inverse=True)
    rows = torch.arange(len(ids), device=ids.device)
    return torch.empty_like(values).scatter_(0, place, rows), place
