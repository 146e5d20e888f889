"""The encoder of Up-Down: the mean region as global feature."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from .build import ENCODER_REGISTRY


@ENCODER_REGISTRY.register()
class UpDownEncoder(nn.Module):
    """``g = sum_n m_n f_n / sum_n m_n`` over embedded regions (Anderson et al. 2018, section 3.2).

    A global feature that the batch brings along is kept. An image without regions gets zeros.
    """

    accepts_packing = True

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """GLOBAL_FEATS (B, D) from ATT_FEATS (B, N, D) and ATT_MASKS (B, N), in mode 'v'."""
        if (mode is not None and "v" not in mode) or kfg.GLOBAL_FEATS in batched_inputs:
            return {}
        feats = batched_inputs[kfg.ATT_FEATS]
        weights = batched_inputs[kfg.ATT_MASKS].to(feats.dtype).unsqueeze(-1)
        return {kfg.GLOBAL_FEATS: (feats * weights).sum(1) / weights.sum(1).clamp(min=1)}
