"""A head of two layers."""

from torch import nn


class MlpHead(nn.Sequential):
    """``W_2 gelu(LN(W_1 h + b_1)) + b_2``: (..., inputs) -> (..., outputs).

    Args:
        inputs: Width of h.
        outputs: Number of outputs.
        hidden: Inner width; by default twice the inputs.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int | None = None) -> None:
        hidden = 2 * inputs if hidden is None else hidden
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs),
        )
