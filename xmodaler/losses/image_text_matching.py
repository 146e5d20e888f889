"""Whether a picture and a text belong together."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from .build import LOSSES_REGISTRY


@LOSSES_REGISTRY.register()
class ImageTextMatching(nn.Module):
    """Cross-entropy of ITM_LOGITS (K, 2) with ITM_LABELS (K,), 1 = together, as ``ITM``."""

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """Nothing where the outputs hold no such labels."""
        if kfg.ITM_LABELS not in outputs_dict:
            return {}
        logits = outputs_dict[kfg.ITM_LOGITS].float()
        return {"ITM": F.cross_entropy(logits, outputs_dict[kfg.ITM_LABELS])}
