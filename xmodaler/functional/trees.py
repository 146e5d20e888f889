"""Trees of tensors: nested dicts, lists, tuples whose leaves are tensors or anything else."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """A tree of the same form with ``function`` applied to every tensor.

    Args:
        function: Called with each tensor.
        tree: Nested dicts, lists, tuples and named tuples; leaves that are no tensors are kept.

    Returns:
        New containers; the given ones are not changed.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return type(tree)((key, map_tensors(function, value)) for key, value in tree.items())
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(function, value) for value in tree)
    return tree


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors of a tree, depth first, in the order of their containers.

    Args:
        tree: As for :func:`map_tensors`.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors(value)


def reorder(tree: Any, index: Tensor) -> Any:
    """Take rows ``index`` of every tensor of a tree along its first dimension.

    Args:
        tree: A tree of tensors, each with as many rows as the others; 0-d tensors are kept.
        index: (R',) int64 row numbers; they may repeat, so a tree can grow from B to B*K rows.

    Returns:
        A tree of the same form whose tensors have R' rows.
    """

    def take(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0:
            return tensor
        return tensor.index_select(0, index.to(tensor.device))

    return map_tensors(take, tree)


def to_device(tree: Any, device: torch.device | str) -> Any:
    """Move every tensor of a tree, without waiting where the memory is pinned.

    Args:
        tree: A tree of tensors.
        device: Where to.
    """
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), tree)
