"""What ends every post-norm block."""

from torch import Tensor, nn

from .drop_path import drop_path
from .few_rows import StepWeights, linear
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
    """

    def __init__(
        self,
        *,
        inputs: int,
        hidden_size: int,
        layer_norm_eps: float,
        dropout: float,
        drop_path_prob: float = 0.0,
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.drop_path_prob = drop_path_prob

    def forward(
        self,
        hidden_states: Tensor,
        input_tensor: Tensor,
        weights: StepWeights | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """x (..., inputs) and the residual (..., D) -> (..., D)."""
        x = self.dropout(linear(self.dense, hidden_states, weights))
        if self.training:
            x = drop_path(x, self.drop_path_prob, packing)
        return self.LayerNorm(x + input_tensor)
