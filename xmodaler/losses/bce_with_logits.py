"""The loss of answers with soft scores."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import LOSSES_REGISTRY


@LOSSES_REGISTRY.register()
class BCEWithLogits(nn.Module):
    """Binary cross-entropy of every answer on its own, ``-y ln s(x) - (1 - y) ln (1 - s(x))``.

    Sum over answers, mean over questions (Teney et al., CVPR 2018, equation 9). The scores y lie
    in [0, 1] and need not add up to 1: several answers may be right.
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
        """Losses of G_LOGITS and U_LOGITS (B, answers), whichever are there.

        Args:
            outputs_dict: The logits, and U_TARGET_IDS (B, answers) float: the targets of both.

        Returns:
            ``BCEWithLogits Loss(G)`` and ``BCEWithLogits Loss(U)``, scalars in float32.

        Raises:
            UserError: The targets are of another number of answers than the logits.
        """
        losses = {}
        for letter, key in (("G", kfg.G_LOGITS), ("U", kfg.U_LOGITS)):
            if key in outputs_dict:
                losses[f"BCEWithLogits Loss({letter})"] = _loss(
                    outputs_dict[key], outputs_dict[kfg.U_TARGET_IDS]
                )
        return losses


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    if logits.shape != targets.shape:
        raise UserError(
            f"the targets of BCEWithLogits have shape {tuple(targets.shape)}, the logits "
            f"{tuple(logits.shape)}; MODEL.MM_PREDICTOR.LABELS_NUM must be the number of answers "
            "that the data set knows"
        )
    total = F.binary_cross_entropy_with_logits(
        logits.float(), targets.to(logits.device, dtype=logits.float().dtype), reduction="sum"
    )
    return total / max(1, logits.shape[0])
