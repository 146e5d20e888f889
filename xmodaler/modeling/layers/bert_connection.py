"""The co-attention layer of ViLBERT (Lu et al., NeurIPS 2019, section 3.1)."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .bert_attention import BertCrossAttention
from .bert_feed_forward import BertIntermediate, BertOutput, feed_forward
from .packing import Packing


class BertConnectionLayer(nn.Module):
    """Each stream asks the other: its queries meet the other's keys and values.

    ``v' = FFN_v(Att_v(v, t, t))`` and ``t' = FFN_t(Att_t(t, v, v))``, all post-norm with the
    residual from the stream that asks. Both streams have the same width.

    Args:
        v_bert_attention: Attention of the regions to the words.
        v_bert_intermediate: First half of the feed-forward block of the regions.
        v_bert_output: Second half.
        t_bert_attention: Attention of the words to the regions.
        t_bert_intermediate: First half of the feed-forward block of the words.
        t_bert_output: Second half.
    """

    @configurable
    def __init__(
        self,
        *,
        v_bert_attention: BertCrossAttention,
        v_bert_intermediate: BertIntermediate,
        v_bert_output: BertOutput,
        t_bert_attention: BertCrossAttention,
        t_bert_intermediate: BertIntermediate,
        t_bert_output: BertOutput,
    ) -> None:
        super().__init__()
        self.v_attention = v_bert_attention
        self.v_intermediate = v_bert_intermediate
        self.v_output = v_bert_output
        self.t_attention = t_bert_attention
        self.t_intermediate = t_bert_intermediate
        self.t_output = t_bert_output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for stream in "vt":
            parts[f"{stream}_bert_attention"] = BertCrossAttention(cfg)
            parts[f"{stream}_bert_intermediate"] = BertIntermediate(cfg)
            parts[f"{stream}_bert_output"] = BertOutput(cfg)
        return parts

    def forward(
        self,
        regions: Tensor,
        words: Tensor,
        v_mask: Tensor | None = None,
        t_mask: Tensor | None = None,
        v_packing: Packing | None = None,
        t_packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both streams of every row.

        Args:
            regions: (R, N, D), or (m, D) with ``v_packing``.
            words: (R, T, D), or (n, D) with ``t_packing``.
            v_mask: Additive (R, 1, 1, N).
            t_mask: Additive (R, 1, 1, T).
            v_packing: Which regions are real.
            t_packing: Which words are real.

        Returns:
            Regions and words, shaped like the inputs.
        """
        seen = self.v_attention.self.project_memory(words, words, t_packing)
        v, _ = self.v_attention.ask(regions, seen, t_mask, v_packing)
        seen = self.t_attention.self.project_memory(regions, regions, v_packing)
        t, _ = self.t_attention.ask(words, seen, v_mask, t_packing)
        v = feed_forward(self.v_intermediate, self.v_output, v, v_packing)
        return v, feed_forward(self.t_intermediate, self.t_output, t, t_packing)
