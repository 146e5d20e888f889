"""What heads of BERT do to a hidden state before they project it (Devlin et al. 2019)."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .create_act import get_activation
from .few_rows import StepWeights, linear
from .projected_residual import LAYER_NORM_EPS


class BertPredictionHeadTransform(nn.Module):
    """``LN(act(W h + b))``, with as many outputs as inputs.

    Args:
        hidden_size: Width D.
        hidden_act: Name of the activation.
        layer_norm_eps: Epsilon of the norm.
    """

    @configurable
    def __init__(
        self, *, hidden_size: int, hidden_act: str, layer_norm_eps: float = LAYER_NORM_EPS
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = get_activation(hidden_act)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE, "hidden_act": cfg.MODEL.BERT.HIDDEN_ACT}

    def forward(self, hidden_states: Tensor, weights: StepWeights | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.LayerNorm(self.activation(linear(self.dense, hidden_states, weights)))
