"""What ends every post-norm block."""

from torch import Tensor, nn

from .drop_path import drop_path
from .few_rows import StepWeights, linear
from .layer_stack import run_layer
from .packing import Packing

LAYER_NORM_EPS = 1e-12
"""Epsilon of the norms inside the blocks of BERT; its embeddings have the usual 1e-5."""


class ProjectedResidual(nn.Module):
    """``LN(drop_path(dropout(W x)) + residual)``, which ends every block.

    Args:
        inputs: Width of x.
        hidden_size: Width D of the residual.
        layer_norm_eps: Epsilon of the norm.
        dropout: Dropout before the residual.
        drop_path_prob: Probability that the residual goes on alone, drawn per row in training.
        recompute: Whether to compute all but the product again for the gradient.
    """

    def __init__(
        self,
        *,
        inputs: int,
        hidden_size: int,
        layer_norm_eps: float,
        dropout: float,
        drop_path_prob: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.drop_path_prob = drop_path_prob
        self.recompute = recompute

    def forward(
        self,
        hidden_states: Tensor,
        input_tensor: Tensor,
        weights: StepWeights | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """x (..., inputs) and the residual (..., D) -> (..., D)."""
        return self.finish(linear(self.dense, hidden_states, weights), input_tensor, packing)

    def finish(
        self, projected: Tensor, input_tensor: Tensor, packing: Packing | None = None
    ) -> Tensor:
        """What follows the product: W x (..., D) and the residual (..., D) -> (..., D)."""
        recompute = self.recompute and self.training
        return run_layer(self._add, projected, input_tensor, packing, recompute=recompute)

    def _add(self, projected: Tensor, residual: Tensor, packing: Packing | None) -> Tensor:
        x = self.dropout(projected)
        if self.training:
            x = drop_path(x, self.drop_path_prob, packing)
        return self.LayerNorm(x + residual)
