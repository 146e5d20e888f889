"""The loss of generated answers."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from .build import LOSSES_REGISTRY
from .scored_rows import G_SELECTED


@LOSSES_REGISTRY.register()
class AnswerLikelihood(nn.Module):
    """``- sum over answers of weight * log P(answer) / questions`` (ALBEF, Li et al. 2021).

    The weight of an answer is the share of annotators who gave it.
    """

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """From the logits of answers, ANSWER_WEIGHTS (A,) and ANSWER_COUNTS (B,)."""
        if G_SELECTED not in outputs_dict:
            return {}
        rows = outputs_dict[G_SELECTED]
        words = F.cross_entropy(rows.logits.float(), rows.targets, reduction="none")
        weights = outputs_dict[kfg.ANSWER_WEIGHTS].float()
        shares = weights.index_select(0, rows.positions // rows.shape[1])
        return {"Answer Likelihood": (words * shares).sum() / len(outputs_dict[kfg.ANSWER_COUNTS])}
