"""Self-critical training with the other samples as the baseline."""

from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.utils.errors import UserError

from .build import ENGINE_REGISTRY
from .rl_trainer import RLTrainer

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@ENGINE_REGISTRY.register()
class RLMeanTrainer(RLTrainer):
    """Measures each sampled sentence against the mean of the image's others (Luo 2020).

    With S sentences of an image, the baseline of the i-th is
    ``sum_{j != i} r_j / (S - 1)``. No greedy sentence is decoded.

    Args:
        cfg: The complete config; ``DATALOADER.SEQ_PER_SAMPLE`` is S, at least 2.
    """

    def __init__(self, cfg: "CfgNode") -> None:
        super().__init__(cfg)
        if self.samples_per_image < 2:
            raise UserError(
                f"DATALOADER.SEQ_PER_SAMPLE is {cfg.DATALOADER.SEQ_PER_SAMPLE}, but RLMeanTrainer "
                "compares the sentences of an image with each other; give 2 or more"
            )

    def rival(self, images: dict[str, Any]) -> None:
        """Nothing is decoded."""

    def baseline(self, rewards: np.ndarray, rival: np.ndarray | None) -> np.ndarray:
        """The mean reward of the other sentences of the image, (B, S)."""
        others = rewards.sum(axis=1, keepdims=True) - rewards
        return others / (rewards.shape[1] - 1)
