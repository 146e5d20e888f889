"""The policy-gradient loss of training on the hypotheses of a beam search."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from .build import LOSSES_REGISTRY


@LOSSES_REGISTRY.register()
class BeamRewardCriterion(nn.Module):
    """``-reward * sum_t log p(word_t) / T``, mean over all hypotheses.

    The log-probabilities behind the end of a sentence are 0, as beam search leaves them, and T is
    the greatest length of a sentence: every sentence counts alike, whatever its length.
    """

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
        """The loss of G_LOGP (B, K, T) and REWARDS (B, K) or (B * K,)."""
        log_probs = outputs_dict[kfg.G_LOGP].float().flatten(0, -2)
        rewards = torch.as_tensor(outputs_dict[kfg.REWARDS]).to(log_probs.device, torch.float32)
        # A beam that is wider than the vocabulary has slots without a sentence.
        log_probs = log_probs.masked_fill(log_probs.isneginf(), 0.0)
        return {"BeamRewardCriterion": -(log_probs.mean(dim=1) * rewards.flatten()).mean()}
