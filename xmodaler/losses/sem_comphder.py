"""The losses of COS-Net on its semantic words."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .build import LOSSES_REGISTRY

IRRELEVANT_WEIGHT = 30.0
"""Weight of class C against any other: it is rare among the words, but what filtering is about."""

MARGIN, FOCUS = 0.05, 5
LEAST = 1e-8


@LOSSES_REGISTRY.register()
class SemComphderLoss(nn.Module):
    """Filtering of the retrieved words and reconstruction of the missing ones.

    Li et al., CVPR 2022. The filter loss is a cross-entropy over C + 1 classes of
    every retrieved word, class C (irrelevant) weighing 30. The reconstruction loss is the
    asymmetric multi-label loss of Ridnik et al. 2021 on ``x = max over slots of sigmoid(logits)``:
    per class ``-y ln x - (1 - y) (1 - n)^5 ln n`` with ``n = min(1 - x + 0.05, 1)``, the factor
    ``(1 - n)^5`` held constant; summed over classes, mean over rows.

    Args:
        num_classes: C.
        slot_size: S, number of slots in front of the words.
        filter_weight: Weight of the filter loss.
        reconstruct_weight: Weight of the reconstruction loss.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        slot_size: int,
        filter_weight: float,
        reconstruct_weight: float,
    ) -> None:
        super().__init__()
        self.num_classes, self.slot_size = num_classes, slot_size
        self.filter_weight, self.reconstruct_weight = filter_weight, reconstruct_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.get("COSNET")
        if node is None or "SLOT_SIZE" not in node:
            raise UserError(
                "LOSSES.NAMES has SemComphderLoss, which scores the semantic words of COS-Net; "
                "set MODEL.ENCODER to COSNetEncoder or remove that loss"
            )
        return {
            "num_classes": node.NUM_CLASSES,
            "slot_size": node.SLOT_SIZE,
            "filter_weight": node.FILTER_WEIGHT,
            "reconstruct_weight": node.RECONSTRUCT_WEIGHT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """Both losses.

        Args:
            outputs_dict: SEMANTICS_PRED (Bs, S + M, C + 1), SEMANTICS_LABELS (Bs, M) with -1 where
                nothing counts, SEMANTICS_MISS_LABELS (Bs, C + 1) of 0 and 1.

        Returns:
            ``filter_loss`` and ``reconstruct_loss``, weighted scalars in float32.
        """
        for key in (kfg.SEMANTICS_PRED, kfg.SEMANTICS_LABELS, kfg.SEMANTICS_MISS_LABELS):
            if key not in outputs_dict:
                raise UserError(
                    f"{key} is missing; SemComphderLoss needs COSNetEncoder and a data set that "
                    "labels its semantic words, as MSCoCoCOSNetDataset does"
                )
        logits = outputs_dict[kfg.SEMANTICS_PRED].float()
        slots, words = logits[:, : self.slot_size], logits[:, self.slot_size :]
        return {
            "filter_loss": self.filter_weight
            * self._filter(words, outputs_dict[kfg.SEMANTICS_LABELS]),
            "reconstruct_loss": self.reconstruct_weight
            * self._reconstruct(slots, outputs_dict[kfg.SEMANTICS_MISS_LABELS]),
        }

    def _filter(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean over the labelled words of all processes."""
        weights = torch.where(labels == self.num_classes, IRRELEVANT_WEIGHT, 1.0)
        weights = torch.where(labels < 0, 0.0, weights)
        losses = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none"
        )
        total = comm.mean_over_ranks(weights.sum()).clamp(min=LEAST)
        return (losses * weights.flatten()).sum() / total

    def _reconstruct(self, logits: Tensor, missing: Tensor) -> Tensor:
        """Mean over rows of the asymmetric loss."""
        present = torch.sigmoid(logits).max(dim=1).values
        absent = (1 - present + MARGIN).clamp(max=1)
        truth = missing.to(present.dtype)
        hard = (1 - absent.detach()) ** FOCUS
        losses = truth * present.clamp(min=LEAST).log()
        losses = losses + (1 - truth) * hard * absent.clamp(min=LEAST).log()
        return -losses.sum(dim=1).mean()
