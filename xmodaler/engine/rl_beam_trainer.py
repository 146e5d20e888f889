"""Training on the rewards of a beam search."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xmodaler.losses import build_rl_losses
from xmodaler.utils.errors import UserError

from .build import ENGINE_REGISTRY
from .rl_trainer import RLTrainer

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@ENGINE_REGISTRY.register()
class RLBeamTrainer(RLTrainer):
    """Searches instead of sampling: the hypotheses of a beam against their mean.

    All ``DECODE_STRATEGY.BEAM_SIZE`` hypotheses of an image, found with dropout, are rewarded;
    the reward of each less their mean weighs its log-likelihood (as Cornia et al. 2020 do).

    Args:
        cfg: The complete config.
    """

    def __init__(self, cfg: "CfgNode") -> None:
        super().__init__(cfg)
        if cfg.DECODE_STRATEGY.BEAM_SIZE < 2:
            raise UserError(
                f"DECODE_STRATEGY.BEAM_SIZE is {cfg.DECODE_STRATEGY.BEAM_SIZE}, but RLBeamTrainer "
                "compares the hypotheses of a beam with each other; give 2 or more"
            )

    @classmethod
    def build_losses(cls, cfg: "CfgNode") -> list[torch.nn.Module]:
        return build_rl_losses(cfg, "BeamRewardCriterion")

    def sample(self, images: dict[str, Any]) -> dict[str, Any]:
        """The hypotheses of a beam search: G_SENTS_IDS and G_LOGP (B, K, T)."""
        asked = {"OUT_SIZE": self.cfg.DECODE_STRATEGY.BEAM_SIZE}
        return dict(self.model({**images, **asked}, use_beam_search=True))

    def rival(self, images: dict[str, Any]) -> None:
        """Nothing else is decoded."""

    def baseline(self, rewards: np.ndarray, rival: np.ndarray | None) -> np.ndarray:
        """The mean reward of the image's hypotheses, (B, 1)."""
        return rewards.mean(axis=1, keepdims=True)
