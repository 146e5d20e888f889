"""Models with a recurrent decoder."""

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.functional import trees

from ..layers.grouping import queries_per_image
from ..layers.masking import additive, compute_dtype
from .base_enc_dec import BaseEncoderDecoder, Batch, _row_keys
from .build import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class RnnAttEncoderDecoder(BaseEncoderDecoder):
    """An encoder, and a decoder that reads one word at a time and attends to the image."""

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """EXT_ATT_MASKS (B, N), added to attention scores."""
        dtype = compute_dtype(batched_inputs[kfg.ATT_FEATS])
        return {kfg.EXT_ATT_MASKS: additive(batched_inputs[kfg.ATT_MASKS], dtype)}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """G_LOGITS (R, L, V), zero from the first step on whose input words are all 0."""
        batch, _ = self._encode(batched_inputs, skip_padding=self.training)
        batch.update(self.decoder.preprocess(batch))
        tokens = batch[kfg.G_TOKENS_IDS]
        groups = queries_per_image(tokens.shape[0], batch[kfg.ATT_FEATS].shape[0])
        images = torch.arange(batch[kfg.ATT_FEATS].shape[0], device=tokens.device)
        for key in _row_keys(self.decoder):
            if key in batch:
                batch[key] = trees.reorder(batch[key], images.repeat_interleave(groups))
        logits = []
        for t in range(steps_needed(tokens)):
            step = {**batch, kfg.G_TOKENS_IDS: tokens[:, t]}
            step.pop(kfg.TIME_STEP, None)
            self._step(step)
            for key in _row_keys(self.decoder):
                if key in step:
                    batch[key] = step[key]
            logits.append(step[kfg.G_LOGITS])
        full = logits[0].new_zeros(*tokens.shape, logits[0].shape[-1])
        full[:, : len(logits)] = torch.stack(logits, 1)
        return {**batch, kfg.G_LOGITS: full}


def steps_needed(tokens: Tensor) -> int:
    """Steps before the first one, after the start, whose words are 0 in every row."""
    empty = (tokens[:, 1:] == 0).all(dim=0)
    return 1 + int(torch.cumprod(~empty, dim=0).sum())
