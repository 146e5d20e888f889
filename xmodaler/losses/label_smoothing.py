"""Cross-entropy of words against smoothed targets."""

import math
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable
from xmodaler.utils.errors import UserError

from .build import LOSSES_REGISTRY
from .token_loss import present_heads, token_cross_entropy


@LOSSES_REGISTRY.register()
class LabelSmoothing(nn.Module):
    """``KL(q || p)`` with ``q = 1 - e`` on the target and ``e / (V - 1)`` on every other word.

    Szegedy et al. 2016, section 7, with the entropy of q included, so that a perfect model
    reaches 0. Mean over all positions with a target. Targets are left as they are.

    Args:
        label_smoothing: e in [0, 1).
        excluded: A word that gets nothing while the others share e, ``e / (V - 2)`` each, as
            X²-VLM's captioner (Zeng et al. 2023) has it of the begin of sentence; -1 for none.
    """

    @configurable
    def __init__(self, *, label_smoothing: float, excluded: int = -1) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"LOSSES.LABELSMOOTHING is {label_smoothing}; it must be at least 0 and below 1"
            )
        self.label_smoothing = label_smoothing
        self.excluded = excluded

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        losses = cfg.LOSSES
        return {"label_smoothing": losses.LABELSMOOTHING, "excluded": losses.SMOOTHING_EXCLUDES}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of G_LOGITS (R, L, V) and of U_LOGITS, whichever have targets."""
        return {
            f"LabelSmoothing({letter}) loss": self._loss(logits, targets)
            for letter, logits, targets in present_heads(outputs_dict)
        }

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        epsilon, words = self.label_smoothing, logits.shape[-1]
        others = words - 1 if self.excluded < 0 else words - 2
        # q as a mixture: e / others everywhere, the rest of the mass on the target.
        uniform = epsilon * words / others
        if uniform > 1:
            raise UserError(
                f"LOSSES.LABELSMOOTHING {epsilon} leaves the target less than any other of "
                f"{words} words; it must be at most {others / words:.3g}"
            )
        log_q = (1 - epsilon) * math.log(1 - epsilon)
        if epsilon > 0:
            log_q += epsilon * math.log(epsilon / others)
        return token_cross_entropy(logits, targets, uniform, log_q, self.excluded)
