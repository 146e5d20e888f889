"""The contrastive loss of pictures and texts."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .build import LOSSES_REGISTRY

GRADIENTS = ("exact", "local")


def contrastive_loss(
    images: Tensor, texts: Tensor, temperature: Tensor, ids: Tensor | None = None
) -> Tensor:
    """``(CE(I T^t / tau) + CE(T I^t / tau)) / 2`` (Radford et al. 2021, figure 3).

    Args:
        images: Unit vectors (R, E).
        texts: Unit vectors (R, E), row by row belonging to ``images``.
        temperature: tau.
        ids: (R,): pairs of equal ids count as belonging together, in equal shares.

    Returns:
        A scalar in float32.
    """
    logits = images.float() @ texts.float().T / temperature.float()
    if ids is None:
        targets: Tensor = torch.arange(len(logits), device=logits.device)
    else:
        same = (ids.view(-1, 1) == ids.view(1, -1)).float()
        targets = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


@LOSSES_REGISTRY.register()
class ImageTextContrastive(nn.Module):
    """:func:`contrastive_loss` over the pairs of all processes, as ``ITC``.

    Every process computes the loss of the whole batch. What reaches the vectors of a process then
    is the gradient of its own loss alone, or of those of all processes:

    * ``exact``: of all. After the average over W processes the gradient is that of the loss.
    * ``local``: its own. The gradient into the encoders is 1/W of that, as in the released X²-VLM,
      while that of the temperature is whole.

    Args:
        gradient: One of these two.
    """

    @configurable
    def __init__(self, *, gradient: str = "exact") -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise UserError(
                f"LOSSES.ITC_GRADIENT is '{gradient}'; it must be {' or '.join(GRADIENTS)}"
            )
        self.gradient = gradient

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"gradient": cfg.LOSSES.ITC_GRADIENT}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates LOSSES.ITC_GRADIENT."""
        cfg.LOSSES.ITC_GRADIENT = "exact"  # or 'local', as in the released X²-VLM

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """From IMAGE_VECTORS, TEXT_VECTORS (R, E), TEMPERATURE, and PAIR_IDS (R,) if there."""
        if kfg.IMAGE_VECTORS not in outputs_dict:
            return {}
        ids = outputs_dict.get(kfg.PAIR_IDS)
        exact = self.gradient == "exact"
        loss = contrastive_loss(
            comm.gather_rows(outputs_dict[kfg.IMAGE_VECTORS], exact),
            comm.gather_rows(outputs_dict[kfg.TEXT_VECTORS], exact),
            outputs_dict[kfg.TEMPERATURE],
            None if ids is None else comm.gather_rows(ids.view(-1), False),
        )
        return {"ITC": loss}
