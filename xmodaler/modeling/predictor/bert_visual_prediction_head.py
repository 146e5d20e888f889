"""The head that classifies regions."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.head_transform import BertPredictionHeadTransform
from .build import PREDICTOR_REGISTRY
from .states import last_state


@PREDICTOR_REGISTRY.register()
class BertVisualPredictionHead(nn.Module):
    """``logits = W LN(act(W_t v + b_t)) + b`` over the classes of the detector, for every region.

    Args:
        hidden_size: Width D of the states.
        v_target_size: Number of classes K.
        transform: What comes before the projection.
    """

    @configurable
    def __init__(
        self, *, hidden_size: int, v_target_size: int, transform: BertPredictionHeadTransform
    ) -> None:
        super().__init__()
        self.transform = transform
        self.decoder = nn.Linear(hidden_size, v_target_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "v_target_size": cfg.MODEL.BERT.V_TARGET_SIZE,
            "transform": BertPredictionHeadTransform(cfg),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """V_LOGITS (..., K) from ATT_FEATS (..., D), the last entry if it is a list."""
        feats = last_state(batched_inputs[kfg.ATT_FEATS])
        return {kfg.V_LOGITS: self.decoder(self.transform(feats))}
