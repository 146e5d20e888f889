"""The ranking loss of groups of one match and its mismatches."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .build import LOSSES_REGISTRY


@LOSSES_REGISTRY.register()
class Triplet(nn.Module):
    """``max(0, margin - s(match) + s(mismatch))``, mean over those that are above 0.

    Pairs are scored one by one (Chen et al., ECCV 2020, appendix A.3: ranking with
    mismatches). The mean is over the violations of all processes; without any the loss is a 0
    that can be back-propagated.

    Args:
        margin: By how much a match should be ahead.
    """

    @configurable
    def __init__(self, *, margin: float) -> None:
        super().__init__()
        self.margin = margin

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"margin": cfg.LOSSES.MARGIN}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """``Triplet Loss`` of U_LOGITS (B * P, 1), SAMPLE_PER_SAMPLE P, the match first of each P.

        Raises:
            UserError: A group has no mismatch, or the scores are no whole number of groups.
        """
        pairs = int(outputs_dict.get(kfg.SAMPLE_PER_SAMPLE, 1))
        scores = outputs_dict[kfg.U_LOGITS].float()
        if pairs < 2 or scores.numel() % pairs:
            raise UserError(
                f"Triplet has {scores.numel()} scores and {kfg.SAMPLE_PER_SAMPLE} {pairs}; it "
                "needs groups of a match and at least one mismatch, so set "
                "DATALOADER.NEGATIVE_SIZE to 1 or more"
            )
        groups = scores.reshape(-1, pairs)
        costs = (self.margin - groups[:, :1] + groups[:, 1:]).clamp(min=0)
        number = comm.mean_over_ranks((costs > 0).sum().to(costs.dtype))
        # A mean of less than one per process is right as it is; only 0 has to be replaced.
        return {"Triplet Loss": costs.sum() / number.where(number > 0, 1.0)}
