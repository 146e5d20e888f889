"""The understanding layer of TDEN (Li et al., AAAI 2021, section 3.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .bert_attention import BertAttention
from .bert_feed_forward import BertIntermediate, BertOutput, feed_forward
from .packing import Packing


class BertUnderstandingLayer(nn.Module):
    """Self-attention over regions and words together, then a feed-forward block for each.

    ``[v; t] <- SelfAtt([v; t])``, ``v <- FFN_v(v)``, ``t <- FFN_t(t)``, all post-norm.

    Args:
        bert_attention: The shared self-attention.
        v_bert_intermediate: First half of the feed-forward block of the regions.
        v_bert_output: Second half.
        t_bert_intermediate: First half of the feed-forward block of the words.
        t_bert_output: Second half.
    """

    @configurable
    def __init__(
        self,
        *,
        bert_attention: BertAttention,
        v_bert_intermediate: BertIntermediate,
        v_bert_output: BertOutput,
        t_bert_intermediate: BertIntermediate,
        t_bert_output: BertOutput,
    ) -> None:
        super().__init__()
        self.biattention = bert_attention
        self.v_intermediate = v_bert_intermediate
        self.v_output = v_bert_output
        self.t_intermediate = t_bert_intermediate
        self.t_output = t_bert_output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "bert_attention": BertAttention(cfg),
            "v_bert_intermediate": BertIntermediate(cfg),
            "v_bert_output": BertOutput(cfg),
            "t_bert_intermediate": BertIntermediate(cfg),
            "t_bert_output": BertOutput(cfg),
        }

    def forward(
        self,
        input_tensor1: Tensor,
        attention_mask1: Tensor | None,
        input_tensor2: Tensor,
        attention_mask2: Tensor | None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both sequences of every row.

        Args:
            input_tensor1: Regions (R, N, D), or (m, D) with ``packing``.
            attention_mask1: Additive (R, 1, 1, N), or None.
            input_tensor2: Words (R, T, D), or (n, D) with ``packing``.
            attention_mask2: Additive (R, 1, 1, T), or None where the other is.
            packing: Places of the m regions, then of the n words, in rows of N + T.

        Returns:
            Regions and words, shaped like the inputs.
        """
        mask = None
        if attention_mask1 is not None and attention_mask2 is not None:
            mask = torch.cat([attention_mask1, attention_mask2], dim=-1)
        lengths = [input_tensor1.shape[-2], input_tensor2.shape[-2]]
        both = torch.cat([input_tensor1, input_tensor2], dim=-2)
        both, _ = self.biattention(both, mask, packing=packing)
        v, t = both.split(lengths, dim=-2)
        v = feed_forward(self.v_intermediate, self.v_output, v)
        return v, feed_forward(self.t_intermediate, self.t_output, t)
