"""Weight gradients of a recurrence in one product instead of one per step.

A weight used at every step of a recurrence receives one gradient per step, each as large as the
weight and each added to the sum of the others. Here the steps only leave their inputs and output
gradients behind, and the weight's gradient is computed from all of them in one matrix product.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .masking import compute_dtype

_Uses = dict[int, tuple[int, Tensor, Tensor]]
"""Number of the use -> block, gradient of the output, input."""


class DeferredWeight:
    """A weight whose gradient is collected over several products.

    ``weight.linear(x)`` equals ``F.linear(x, weight)`` in value and gradient; second derivatives
    are not available. Valid for one forward and the backward passes through it.

    Args:
        weight: (out, in).
        widths: Widths of the column blocks that take separate inputs; by default one block.
    """

    def __init__(self, weight: Tensor, widths: Sequence[int] | None = None) -> None:
        self._dtype = compute_dtype(weight)
        # Autocast would cast inside the products, where the backward cannot see it.
        weight = weight.to(self._dtype)
        self._widths = list(widths or [weight.shape[1]])
        self._blocks = weight.split(self._widths, dim=1)
        self._uses: _Uses = {}
        self._count = 0
        self._handle: Tensor | None = None
        collects = torch.is_grad_enabled() and weight.requires_grad
        if collects and not torch.compiler.is_compiling():
            self._handle = _Collect.apply(weight, self._widths, self._uses)

    def linear(self, x: Tensor, addend: Tensor | None = None, block: int = 0) -> Tensor:
        """``x W^T`` with a block of the weight, plus an addend.

        Args:
            x: (rows, width of the block).
            addend: (rows, out), or (out,).
            block: Number of the block.

        Returns:
            (rows, out).
        """
        weight = self._blocks[block]
        if self._handle is None:
            product = F.linear(x, weight)
            return product if addend is None else addend + product
        self._count += 1
        x = x.to(self._dtype)
        if addend is not None:
            addend = addend.to(self._dtype).expand(x.shape[0], -1)
        use = (self._count, block)
        return _Use.apply(x, addend, self._handle, weight.detach(), self._uses, use)


class _Collect(torch.autograd.Function):
    """Yields a handle that all uses depend on, so that its backward runs after all of theirs."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, widths: list[int], uses: _Uses) -> Tensor:
        ctx.rows, ctx.widths, ctx.uses = weight.shape[0], widths, uses
        return weight.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, like: Tensor) -> tuple[Tensor, None, None]:
        grad = like.new_empty(ctx.rows, sum(ctx.widths))
        for block, part in enumerate(grad.split(ctx.widths, dim=1)):
            pairs = [pair for number, *pair in ctx.uses.values() if number == block]
            if not pairs:
                part.zero_()
                continue
            grad_output, x = (
                tensors[0] if len(pairs) == 1 else torch.cat(tensors)
                for tensors in zip(*pairs, strict=True)
            )
            torch.mm(grad_output.t(), x, out=part)
        ctx.uses.clear()
        return grad, None, None


class _Use(torch.autograd.Function):
    """One product; its backward leaves the weight's share to :class:`_Collect`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        addend: Tensor | None,
        handle: Tensor,
        weight: Tensor,
        uses: _Uses,
        use: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.uses, ctx.use, ctx.adds = uses, use, addend is not None
        if addend is None:
            return torch.mm(x, weight.t())
        return torch.addmm(addend, x, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        number, block = ctx.use
        # Keyed by the number of the use: a second backward replaces what the first left.
        ctx.uses[number] = (block, grad_output, x)
        grad_x = torch.mm(grad_output, weight) if ctx.needs_input_grad[0] else None
        grad_addend = grad_output if ctx.adds else None
        return grad_x, grad_addend, grad_output.new_empty(0), None, None, None
