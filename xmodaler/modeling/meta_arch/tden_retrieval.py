"""TDEN for retrieval."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable

from .batches import Batch, without_internal
from .build import META_ARCH_REGISTRY
from .tden_encoded import TDENEncoded


@META_ARCH_REGISTRY.register()
class TDENRetrieval(TDENEncoded):
    """Pictures and texts are encoded independently and compared by their vectors.

    Li et al., AAAI 2021, section 4. In evaluation every picture and every text is encoded once,
    whatever the number of pairs.

    Args:
        similarity_predictor: The head that compares.
        **parts: As for :class:`TDENEncoded`; there is no decoder.
    """

    @configurable
    def __init__(self, *, similarity_predictor: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        self.similarity_predictor = similarity_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        head = parts.pop("predictor")
        return {**parts, "predictor": None, "v_predictor": None, "similarity_predictor": head}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """OUTPUT: similarities (R, B) in training, else vectors (B, P) and (R, P)."""
        batch = self._encode_both(batched_inputs)
        self._padded(batch)
        batch.update(self.similarity_predictor(batch))
        return without_internal(batch)
