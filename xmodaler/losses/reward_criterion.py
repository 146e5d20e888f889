"""The policy-gradient loss of self-critical training."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils import comm

from .build import LOSSES_REGISTRY


@LOSSES_REGISTRY.register()
class RewardCriterion(nn.Module):
    """``-log p(word) * reward``, mean over the words of all sentences (Rennie et al. 2017).

    A sentence ends with its first end word, which counts; what follows does not.

    Args:
        eos_id: The end word.
    """

    @configurable
    def __init__(self, *, eos_id: int) -> None:
        super().__init__()
        self.eos_id = eos_id

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"eos_id": cfg.SCORER.EOS_ID}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of G_SENTS_IDS (R, T), G_LOGP (R, T) and REWARDS (R,)."""
        words, log_probs = outputs_dict[kfg.G_SENTS_IDS], outputs_dict[kfg.G_LOGP]
        rewards = torch.as_tensor(outputs_dict[kfg.REWARDS]).to(log_probs.device, torch.float32)
        ended = (words == self.eos_id).cumsum(dim=1)
        counts = ended - (words == self.eos_id).to(ended.dtype) == 0
        losses = torch.where(counts, -log_probs.float() * rewards[:, None], 0.0)
        number = comm.mean_over_ranks(counts.sum().to(torch.float32)).clamp(min=1e-6)
        return {"RewardCriterion": losses.sum() / number}
