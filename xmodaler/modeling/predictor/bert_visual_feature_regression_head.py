"""The head that restores the features of masked regions."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.head_transform import BertPredictionHeadTransform
from .build import PREDICTOR_REGISTRY
from .states import last_state


@PREDICTOR_REGISTRY.register()
class BertVisualFeatureRegressionHead(nn.Module):
    """``transform(h) W + b``, with W the weight of the visual embedding.

    Masked region feature regression of Chen et al. (ECCV 2020, section 3.2). The embedding maps F
    features to D with a weight (D, F), so the same tensor maps states back without a transpose.

    Args:
        hidden_size: Width D of the states.
        feature_size: Width F of the features.
        transform: What happens to a state before.
    """

    position_wise = True
    """The result at a position depends on its own state alone."""

    @configurable
    def __init__(
        self, *, hidden_size: int, feature_size: int, transform: BertPredictionHeadTransform
    ) -> None:
        super().__init__()
        self.transform = transform
        bound = 1 / math.sqrt(hidden_size)
        self.weight = nn.Parameter(torch.empty(hidden_size, feature_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(feature_size))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "feature_size": cfg.MODEL.VISUAL_EMBED.IN_DIM,
            "transform": BertPredictionHeadTransform(cfg),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def tie(self, weight: nn.Parameter) -> None:
        """Use the weight (D, F) of another module from now on.

        Raises:
            ValueError: It has another shape.
        """
        if weight.shape != self.weight.shape:
            raise ValueError(
                f"the regression head has a weight {tuple(self.weight.shape)}, the one to tie it "
                f"to is {tuple(weight.shape)}"
            )
        self.weight = weight

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """V_REGRESS (..., F) from ATT_FEATS (..., D), the last entry if it is a list."""
        states = self.transform(last_state(batched_inputs[kfg.ATT_FEATS]))
        return {kfg.V_REGRESS: nn.functional.linear(states, self.weight.t(), self.bias)}
