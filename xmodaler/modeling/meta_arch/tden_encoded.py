"""What TDEN's models for whole pairs of a text and a picture share."""

import torch

from xmodaler.config import kfg

from ..layers.packing import Packing, worth_packing
from ..predictor.states import last_state
from ..stage_keys import G_PACKING, U_PACKING
from .batches import Batch
from .bert_masks import bert_masks
from .transformer_enc_dec import TransformerEncoderDecoder

_TEXTS = (
    (kfg.U_TOKEN_EMBED, kfg.U_HIDDEN_STATES, U_PACKING),
    (kfg.G_TOKEN_EMBED, kfg.G_HIDDEN_STATES, G_PACKING),
)


class TDENEncoded(TransformerEncoderDecoder):
    """Both streams encoded: regions once per picture, words once per text.

    In training, padding is left out of the arithmetic where that pays; its states come out as
    zeros then.

    Args:
        **parts: As for :class:`TransformerEncoderDecoder`.
    """

    causal = True
    """Whether the words of the text to be generated see only those before."""

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """The masks of :func:`~xmodaler.modeling.meta_arch.bert_masks.bert_masks`."""
        return bert_masks(batched_inputs, causal=self.causal)

    def _encode_both(self, batched_inputs: Batch) -> Batch:
        """The batch, which is the model's own, with both streams encoded; text may be packed."""
        lean = self.training and not torch.compiler.is_compiling()
        batch, _ = self._encode(batched_inputs, skip_padding=lean)
        batch.update(self.token_embed(batch))
        packing = worth_packing(batch[kfg.TOKENS_MASKS]) if lean else None
        for embedded, _, key in _TEXTS:
            if packing is not None and embedded in batch:
                batch[key] = packing
                batch[embedded] = packing.pack(batch[embedded])
        batch.update(self.encoder(batch, mode="t"))
        return batch

    def _padded(self, batch: Batch) -> None:
        """Bring packed states of words back to (R, T, D); updates ``batch``."""
        packing: Packing | None = batch.get(U_PACKING, batch.get(G_PACKING))
        if packing is None:
            return
        for pair in _TEXTS:
            for key in pair[:2]:
                if key in batch:
                    batch[key] = [packing.unpack(each) for each in _layers(batch[key])]
        batch.pop(U_PACKING, None)
        batch.pop(G_PACKING, None)


def _layers(states: object) -> list:
    return list(states) if isinstance(states, list | tuple) else [last_state(states)]
