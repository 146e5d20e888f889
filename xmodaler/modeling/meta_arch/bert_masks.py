"""The additive masks of models that begin with BERT."""

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.utils.errors import UserError

from ..layers.masking import BERT_HIDDEN, additive, as_bool, compute_dtype
from .batches import Batch


def bert_masks(batch: Batch, causal: bool = True) -> Batch:
    """0 where visible, -10000 elsewhere.

    Args:
        batch: ATT_FEATS and bool ATT_MASKS (B, N); where there is text, U_TOKENS_IDS or
            G_TOKENS_IDS (R, T) and TOKENS_MASKS (R, T); without that mask all words are real.
        causal: Whether a word of the text to be generated sees only the words before it.

    Returns:
        EXT_ATT_MASKS (B, 1, 1, N) and, where there is text, bool TOKENS_MASKS,
        EXT_U_TOKENS_MASKS (R, 1, 1, T) and EXT_G_TOKENS_MASKS (R, 1, T, T), or as the former.
    """
    dtype = compute_dtype(batch[kfg.ATT_FEATS])
    regions = batch[kfg.ATT_MASKS][:, None, None, :]
    produced = {kfg.EXT_ATT_MASKS: additive(regions, dtype, BERT_HIDDEN)}
    shown = shown_words(batch)
    if shown is None:
        return produced
    words = shown[:, None, None, :]
    produced[kfg.TOKENS_MASKS] = shown
    produced[kfg.EXT_U_TOKENS_MASKS] = additive(words, dtype, BERT_HIDDEN)
    if causal:
        length = shown.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=shown.device).tril()
        produced[kfg.EXT_G_TOKENS_MASKS] = additive(before & words, dtype, BERT_HIDDEN)
    else:
        produced[kfg.EXT_G_TOKENS_MASKS] = produced[kfg.EXT_U_TOKENS_MASKS]
    return produced


def shown_words(batch: Batch) -> Tensor | None:
    """Bool (R, T), which words are real; None for a batch without text.

    Raises:
        UserError: The mask does not fit the words.
    """
    texts = [batch[key] for key in (kfg.U_TOKENS_IDS, kfg.G_TOKENS_IDS) if key in batch]
    texts = [tokens for tokens in texts if tokens.dim() == 2]
    if not texts:
        return None
    shown = batch.get(kfg.TOKENS_MASKS)
    if shown is None:
        return torch.ones_like(texts[0], dtype=torch.bool)
    for tokens in texts:
        if shown.shape != tokens.shape:
            raise UserError(
                f"{kfg.TOKENS_MASKS} has shape {tuple(shown.shape)} but its words have "
                f"{tuple(tokens.shape)}; the two must agree"
            )
    return as_bool(shown)
