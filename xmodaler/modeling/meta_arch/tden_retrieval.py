"""TDEN for retrieval."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.masking import BERT_HIDDEN, additive, compute_dtype
from .batches import Batch, without_internal
from .bert_masks import shown_words
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

    def encode_images(self, batched_inputs: Batch) -> Tensor:
        """Vectors (B, P) of pictures, of length 1; the batch needs no text."""
        texts = (kfg.U_TOKENS_IDS, kfg.G_TOKENS_IDS, kfg.TOKENS_MASKS)
        visual = {key: value for key, value in batched_inputs.items() if key not in texts}
        batch, _ = self._encode(visual, skip_padding=False)
        return self.similarity_predictor.picture_vectors(batch)

    def encode_texts(self, batched_inputs: Batch) -> Tensor:
        """Vectors (R, P) of texts, of length 1, from U_TOKENS_IDS and what belongs to them."""
        batch = dict(batched_inputs)
        batch.update(self.token_embed(batch))
        shown = shown_words(batch)[:, None, None, :]
        dtype = compute_dtype(batch[kfg.U_TOKEN_EMBED])
        batch[kfg.EXT_U_TOKENS_MASKS] = additive(shown, dtype, BERT_HIDDEN)
        batch.update(self.encoder(batch, mode="t"))
        return self.similarity_predictor.text_vectors(batch)
