"""Cross-entropy of words."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .build import LOSSES_REGISTRY
from .token_loss import present_heads, token_cross_entropy


@LOSSES_REGISTRY.register()
class CrossEntropy(nn.Module):
    """``-log softmax(logits)[target]``, mean over all positions with a target."""

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of G_LOGITS (R, L, V) and of U_LOGITS, whichever have targets."""
        return {
            f"CrossEntropy Loss({letter})": token_cross_entropy(logits, targets)
            for letter, logits, targets in present_heads(outputs_dict)
        }
