"""TDEN for questions and choices."""

from typing import Any

from xmodaler.config import CfgNode

from .batches import Batch, without_internal
from .build import META_ARCH_REGISTRY
from .tden_encoded import TDENEncoded


@META_ARCH_REGISTRY.register()
class TDENBiTransformer(TDENEncoded):
    """Answers from both stacks of the decoder, which read the same text in both directions.

    Li et al., AAAI 2021, section 4. A picture's regions are encoded once for all its texts and
    repeated only where understanding layers attend over regions and words together.
    """

    causal = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "v_predictor": None}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """U_LOGITS and G_LOGITS (R, C) of the stacks that exist; in evaluation also OUTPUT."""
        batch = self._encode_both(batched_inputs)
        batch.update(self.decoder(batch))
        self._padded(batch)
        batch.update(self.predictor(batch))
        return without_internal(batch)
