"""Single-stream models that score pairs of pictures and texts."""

import torch

from xmodaler.config import kfg

from .batches import Batch
from .build import META_ARCH_REGISTRY
from .uniter_for_mm_understanding import UniterForMMUnderstanding


@META_ARCH_REGISTRY.register()
class UniterRetrieval(UniterForMMUnderstanding):
    """As :class:`UniterForMMUnderstanding`, with one score for each pair (R, 1).

    The score of a pre-trained model is its logit of "matched".

    Args:
        **parts: As for :class:`UniterForMMUnderstanding`.
    """

    @torch.no_grad()
    def bind_or_init_weights(self) -> None:
        """Also start the score from the first row, "matched", of the matching head."""
        super().bind_or_init_weights()
        matched = self.itm_predictor.is_match_cls
        score = getattr(self.predictor, "cls", None)
        if score is not None:
            score.weight.copy_(matched.weight[:1])
            score.bias.copy_(matched.bias[:1])

    def _forward(self, batched_inputs: Batch) -> Batch:
        """U_LOGITS (R, 1), and outside of training the same as OUTPUT."""
        outputs = super()._forward(batched_inputs)
        if not self.training:
            outputs[kfg.OUTPUT] = outputs[kfg.U_LOGITS]
        return outputs
