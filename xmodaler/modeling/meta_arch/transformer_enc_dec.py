"""Models with a Transformer decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.masking import additive, compute_dtype
from ..predictor import build_v_predictor
from .base_enc_dec import BaseEncoderDecoder, Batch
from .build import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class TransformerEncoderDecoder(BaseEncoderDecoder):
    """An encoder, and a decoder that reads all words at once under a causal mask.

    Args:
        v_predictor: A second head on the visual side, or None.
        **parts: As for :class:`BaseEncoderDecoder`.
    """

    @configurable
    def __init__(self, *, v_predictor: nn.Module | None = None, **parts: Any) -> None:
        super().__init__(**parts)
        self.v_predictor = v_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        has_targets = cfg.MODEL.BERT.V_TARGET_SIZE > 0
        return {**parts, "v_predictor": build_v_predictor(cfg) if has_targets else None}

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """EXT_ATT_MASKS (B, 1, 1, N) and, where there are words, EXT_G_TOKENS_MASKS (R, 1, L, L).

        A word sees itself and the earlier words that TOKENS_MASKS shows.
        """
        dtype = compute_dtype(batched_inputs[kfg.ATT_FEATS])
        visible = batched_inputs[kfg.ATT_MASKS][:, None, None, :]
        produced = {kfg.EXT_ATT_MASKS: additive(visible, dtype)}
        tokens = batched_inputs.get(kfg.G_TOKENS_IDS)
        if tokens is not None and tokens.dim() == 2:
            shown = batched_inputs.get(kfg.TOKENS_MASKS)
            produced[kfg.EXT_G_TOKENS_MASKS] = additive(causal(tokens, shown), dtype)
        return produced

    def _forward(self, batched_inputs: Batch) -> Batch:
        """G_LOGITS (R, L, V) of all positions."""
        batch, _ = self._encode(batched_inputs, skip_padding=self.training)
        batch.update(self.decoder.preprocess(batch))
        batch.update(self.token_embed(batch))
        if self.encoder is not None:
            batch.update(self.encoder(batch, mode="t"))
        batch.update(self.decoder(batch))
        batch.update(self.predictor(batch))
        if self.v_predictor is not None:
            batch.update(self.v_predictor(batch))
        return batch


def causal(tokens: Tensor, shown: Tensor | None) -> Tensor:
    """Bool (R, 1, L, L): the word of a row sees itself and what is shown of the words before.

    Args:
        tokens: (R, L).
        shown: Bool (R, L), or None for all.
    """
    length = tokens.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    if shown is None:
        return lower.expand(tokens.shape[0], 1, length, length)
    return lower & shown[:, None, None, :]
