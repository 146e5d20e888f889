"""Where the words of a text look in a picture, in the fusion layers of X²-VLM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xmodaler.modeling.encoder import TextFusionEncoder
from xmodaler.modeling.layers.bert_attention import BertXAttention

__all__ = ["AttentionRecord", "record_attention"]


class AttentionRecord:
    """The attention of every fusion layer, as it was computed.

    Attributes:
        layers: Per layer (B, heads, words of the B texts, N) float32.
    """

    def __init__(self) -> None:
        self.layers: list[Tensor] = []

    def maps(self, row: int, words: int) -> np.ndarray | None:
        """The maps of one text, means over layers and heads.

        Args:
            row: Of the text.
            words: How many words it has, special ones included.

        Returns:
            (words, side, side) float, shares of the patches; None where these are no square.
        """
        if not self.layers:
            return None
        mean = torch.stack([layer[row].mean(0) for layer in self.layers]).mean(0)
        patches = mean[:words, 1:]  # the first token is the mean of the picture
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            return None
        return patches.reshape(-1, side, side).cpu().numpy()


@contextmanager
def record_attention(model: nn.Module) -> Iterator[AttentionRecord]:
    """Keeps the attention of what a model is asked meanwhile, one text a picture.

    Args:
        model: Has a :class:`~xmodaler.modeling.encoder.TextFusionEncoder`.
    """
    record = AttentionRecord()
    encoder = model.encoder
    blocks = []
    if isinstance(encoder, TextFusionEncoder):
        blocks = [layer.x_att.self for layer in encoder.fusion_layers]
    for block in blocks:
        block.ask = _listening(block, record)
    try:
        yield record
    finally:
        for block in blocks:
            del block.ask


def _listening(block: BertXAttention, record: AttentionRecord) -> Any:
    """The ``ask`` of a block that also keeps its weights."""
    ask = block.ask

    def asked(
        query: Tensor,
        memory: Any,
        attention_mask: Tensor | None = None,
        packing: Any = None,
        need_weights: bool = False,
        weights: Any = None,
    ) -> tuple[Tensor, Tensor | None]:
        context, attention = ask(query, memory, attention_mask, packing, True, weights)
        record.layers.append(attention.float())
        return context, attention if need_weights else None

    return asked
