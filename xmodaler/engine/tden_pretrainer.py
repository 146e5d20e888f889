"""The two passes of TDEN's pre-training."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.losses import G_SELECTED, U_SELECTED

from .build import ENGINE_REGISTRY
from .default_trainer import DefaultTrainer, Scalars

SIMILARITY = "tden_pretrain_similarity"
"""Key of a batch: whether the model also scores images against texts."""

SECOND_PASS = "second_pass/"


@ENGINE_REGISTRY.register()
class TDENPretrainer(DefaultTrainer):
    """Scheduled sampling with two passes (Li et al., AAAI 2021, section 3.3).

    Every iteration trains twice on a batch, with an optimizer step each: on the masked text, with
    image-text ranking; then on the same text in which the words that the first pass predicted, by
    the weights before its step, stand at the masked positions. The learning rate is the same for
    both. The losses of the second pass are shown as ``second_pass/...``.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self._second_batches: list[dict[str, Any]] = []

    def run_step(self) -> None:
        """One iteration: both passes."""
        self.batches.reset_timer()
        self._second_batches = []
        self.update(self.first_batch)
        # With accumulation, the second pass takes the batches of the first in their order.
        second = iter(self._second_batches)
        self.update(lambda: next(second), SECOND_PASS)

    def first_batch(self) -> dict[str, Any]:
        """The next training batch, for the first pass."""
        return {**self.next_batch(), SIMILARITY: True}

    def compute_losses(self, data: dict[str, Any]) -> Scalars:
        """The losses of a pass; the first one also makes the batch of the second.

        Returns:
            Name -> 0-d tensor.
        """
        outputs = self.forward(data)
        if data[SIMILARITY]:
            self._second_batches.append(second_batch(data, outputs))
        return self.losses_of(outputs)


@torch.no_grad()
def second_batch(data: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """The batch of the second pass.

    Args:
        data: The batch of the first: U_TOKENS_IDS and G_TOKENS_IDS (R, T), U_TARGET_IDS (R, T),
            negative where a position is not masked.
        outputs: What the model made of it: U_LOGITS and G_LOGITS (R, T, V), or the rows of
            selected positions.

    Returns:
        A new batch. At masked positions U_TOKENS_IDS has the word that the understanding stream
        predicts there, G_TOKENS_IDS the word that the generation stream predicts as the next one
        of the position before. All else is as it was, but no similarity is asked for.
    """
    masked = data[kfg.U_TARGET_IDS] >= 0
    understood = _predictions(outputs, U_SELECTED, kfg.U_LOGITS, masked)
    generated = _predictions(outputs, G_SELECTED, kfg.G_LOGITS, masked)
    # The first position is never masked, so what moves into it does not matter.
    generated = torch.nn.functional.pad(generated[:, :-1], (1, 0))
    return {
        **data,
        kfg.U_TOKENS_IDS: torch.where(masked, understood, data[kfg.U_TOKENS_IDS]),
        kfg.G_TOKENS_IDS: torch.where(masked, generated, data[kfg.G_TOKENS_IDS]),
        SIMILARITY: False,
    }


def _predictions(outputs: dict[str, Any], selected: str, logits: str, masked: Tensor) -> Tensor:
    """The likeliest word of every position (R, T) int64; 0 where the model did not look."""
    if selected not in outputs:
        return outputs[logits].argmax(dim=-1)
    rows = outputs[selected]
    words = masked.new_zeros(masked.numel(), dtype=torch.int64)
    words[rows.positions] = rows.logits.argmax(dim=-1)
    return words.view(masked.shape)
