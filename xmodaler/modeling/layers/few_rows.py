"""Products of few rows with large weights on a CPU, as decoding steps are made of.

A step multiplies a few dozen rows by weights of tens of megabytes, which come from main memory
every time. ``F.linear`` has BLAS rearrange each weight first, which takes up to a third of the
product. Three ways around it, all exact:

* :class:`StepWeights` are copies of the weights with the inputs outermost. They are kept from one
  decoded batch to the next, as long as the model stays in evaluation mode.
* :class:`PackedWeights` are copies as oneDNN lays them out for its own products of few rows.
* :func:`product` swaps the operands, ``W X`` with the rows as columns of X, and needs no copy.
"""

from collections.abc import Iterable
from weakref import WeakKeyDictionary

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


def multiply(
    x: Tensor,
    weight: Tensor,
    addend: Tensor | None = None,
    weights: "StepWeights | None" = None,
    columns: slice = slice(None),
) -> Tensor:
    """``x W^T + addend`` with some columns of a weight, in the way that suits.

    Args:
        x: (rows, width of the columns).
        weight: (out, in).
        addend: (out,) or (rows, out).
        weights: Copies made for decoding, or None.
        columns: Which inputs of the weight x stands for.

    Returns:
        (rows, out).
    """
    copy = weights.of(weight) if weights is not None else None
    if copy is None and are_few(x.shape[0], x):
        return product(x, weight[:, columns], addend)
    factor = copy[columns] if copy is not None else weight[:, columns].t()
    return x @ factor if addend is None else torch.addmm(addend, x, factor)


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


_Fingerprint = tuple[tuple[int, int], ...]
_KEPT: "WeakKeyDictionary[nn.Module, tuple[_Fingerprint, StepWeights]]" = WeakKeyDictionary()


class StepWeights:
    """Input-major copies of weights, for the steps of decoding.

    Args:
        weights: Weights (out, in), or layers that have one.
    """

    def __init__(self, weights: Iterable[nn.Linear | Tensor]) -> None:
        self._copies = {id(weight): input_major(weight) for weight in map(_weight, weights)}

    @classmethod
    def kept(cls, model: nn.Module, weights: Iterable[nn.Linear | Tensor]) -> "StepWeights | None":
        """The copies of a model: those of the last call if nothing has changed, else new ones.

        Args:
            model: The owner, in evaluation mode. It has to call :func:`forget` when it begins to
                train: fused optimizers change weights without telling.
            weights: Its weights; without any there are no copies.
        """
        tensors = [_weight(weight) for weight in weights]
        if not tensors:
            return None
        if any(tensor.is_inference() for tensor in tensors):  # their changes cannot be seen
            return cls(tensors)
        now = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        before, copies = _KEPT.get(model, (None, None))
        if copies is None or before != now:
            copies = cls(tensors)
            _KEPT[model] = (now, copies)
        return copies

    def of(self, weight: nn.Linear | Tensor) -> Tensor | None:
        """The copy (in, out) of a weight, if there is one."""
        return self._copies.get(id(_weight(weight)))

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor | None:
        """``layer(x)`` of (rows, in) with the copy of its weight, if there is one."""
        copy = self.of(layer)
        if copy is None:
            return None
        return x @ copy if layer.bias is None else torch.addmm(layer.bias, x, copy)


class PackedWeights(StepWeights):
    """As :class:`StepWeights`, for the products of whole layers alone: in blocks of oneDNN.

    They pay from the first row on, where :class:`StepWeights` want several.

    Args:
        weights: As there.
    """

    def __init__(self, weights: Iterable[nn.Linear | Tensor]) -> None:
        super().__init__(())
        pack = torch.ops.mkldnn._reorder_linear_weight
        tensors = [_weight(weight) for weight in weights]
        self._packed = {id(weight): pack(weight.detach(), _FEWEST) for weight in tensors}

    @staticmethod
    def pay(like: Tensor) -> bool:
        """Whether there are such products, and nothing needs gradients or another precision."""
        return (
            are_few(_FEWEST, like)
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor | None:
        packed = self._packed.get(id(layer.weight))
        if packed is None:
            return None
        return torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, "none", [], "")


def forget(model: nn.Module) -> None:
    """Drop the copies that :meth:`StepWeights.kept` keeps of a model."""
    _KEPT.pop(model, None)


def _weight(owner: nn.Linear | Tensor) -> Tensor:
    return owner if isinstance(owner, Tensor) else owner.weight


def linear(layer: nn.Linear, x: Tensor, weights: StepWeights | None = None) -> Tensor:
    """``layer(x)``, in the fastest way.

    Args:
        layer: The layer.
        x: (..., in).
        weights: Copies made for decoding, or None.

    Returns:
        (..., out).
    """
    made = weights.linear(layer, x) if weights is not None else None
    if made is not None:
        return made
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


def multiply_shared(
    x: Tensor,
    ids: Tensor,
    weight: Tensor,
    addend: Tensor | None = None,
    weights: StepWeights | None = None,
    columns: slice = slice(None),
) -> Tensor:
    """As :func:`multiply`, once for all rows that are equal where their ids are.

    Args:
        x: (rows, width of the columns).
        ids: (rows,) int64, for example words, or numbers of states.
        weight: (out, in).
        addend: (out,).
        weights: Copies made for decoding, or None.
        columns: Which inputs of the weight x stands for.
    """
    row, place = distinct(ids)
    rows = x.index_select(0, row)
    if not torch.equal(rows.index_select(0, place), x):  # they depend on more than the id
        return multiply(x, weight, addend, weights, columns)
    return multiply(rows, weight, addend, weights, columns).index_select(0, place)
