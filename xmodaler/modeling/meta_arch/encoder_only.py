"""Models of pairs of a text and a picture that end with the encoder: heads read its states."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.utils.errors import UserError

from ..layers.head_positions import HeadPositions
from ..stage_keys import HEAD_POSITIONS, SCORES_ONLY, SKIP_PADDING
from .base_enc_dec import BaseEncoderDecoder
from .batches import Batch
from .bert_masks import bert_masks


class EncoderOnlyModel(BaseEncoderDecoder):
    """Embeddings, an encoder of words and regions, and heads.

    In training, or with SCORES_ONLY in the batch, padding is left out of the arithmetic and the
    encoder returns only the states that the heads of the task read.

    Args:
        **parts: As for :class:`BaseEncoderDecoder`.
    """

    sparse_word_gradients = True
    """Of the word embedding only the rows that a batch names are read."""

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """EXT_U_TOKENS_MASKS (R, 1, 1, T) and EXT_ATT_MASKS (B, 1, 1, N): 0 where visible.

        TOKENS_MASKS is produced too; without one, all words are real.
        """
        if kfg.U_TOKENS_IDS not in batched_inputs:
            raise UserError(
                f"the batch has no {kfg.U_TOKENS_IDS}; {type(self).__name__} needs a text for "
                "every picture"
            )
        masks = bert_masks(batched_inputs, causal=False)
        del masks[kfg.EXT_G_TOKENS_MASKS]
        return masks

    def _embed(self, batched_inputs: Batch) -> Batch:
        """Masks and embeddings of both sides, and what the encoder makes of pictures alone."""
        batch, _ = self._encode(batched_inputs, skip_padding=self._is_lean(batched_inputs))
        batch.update(self.token_embed(batch))
        return batch

    def _encode_pairs(self, batch: Batch, positions: HeadPositions | None) -> bool:
        """Encode embedded pairs; updates ``batch``, which is the model's own.

        Args:
            batch: What :meth:`_embed` returned.
            positions: The states that heads read, None for all.

        Returns:
            Whether only those states were computed.
        """
        lean = self._is_lean(batch)
        selects = lean and positions is not None
        selects = selects and getattr(self.encoder, "selects_positions", False)
        batch[SKIP_PADDING] = lean
        if selects:
            batch[HEAD_POSITIONS] = positions
        batch.update(self.encoder(batch, mode="t"))
        return selects

    def _is_lean(self, batch: Batch) -> bool:
        """Whether states may be left out; compiled code wants the same shapes in every batch."""
        wanted = self.training or bool(batch.get(SCORES_ONLY, False))
        return wanted and not torch.compiler.is_compiling()


def first_words(batch: dict[str, Any], head: torch.nn.Module) -> HeadPositions | None:
    """The positions that a head of a whole text reads, None for all."""
    tokens: Tensor = batch[kfg.U_TOKENS_IDS]
    reads_first = getattr(head, "reads_first_word", False)
    return HeadPositions.first_words(tokens) if reads_first else None
