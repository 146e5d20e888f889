"""Post-norm Transformer blocks with the parameter names of BERT (Devlin et al. 2019).

Every block is built from explicit keywords or from ``MODEL.BERT``. Blocks run on padded (rows,
length, width) tensors, or on packed (count, width) rows when a
:class:`~xmodaler.modeling.layers.packing.Packing` comes along.
"""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .bert_attention import (
    BertAttention,
    BertCrossAttention,
    BertSelfAttention,
    BertSelfOutput,
    BertXAttention,
    KeysValues,
)
from .bert_feed_forward import BertIntermediate, BertOutput, feed_forward
from .bert_understanding import BertUnderstandingLayer
from .few_rows import StepWeights
from .head_transform import BertPredictionHeadTransform
from .kv_cache import Cache
from .packing import Packing
from .poolers import BertPooler

__all__ = [
    "BertAttention",
    "BertCrossAttention",
    "BertGenerationLayer",
    "BertIntermediate",
    "BertLayer",
    "BertOutput",
    "BertPooler",
    "BertPredictionHeadTransform",
    "BertSelfAttention",
    "BertSelfOutput",
    "BertUnderstandingLayer",
    "BertXAttention",
]


class BertLayer(nn.Module):
    """One encoder layer: self-attention, then feed-forward, both post-norm.

    Args:
        bert_attention: Self-attention.
        bert_intermediate: First half of the feed-forward block.
        bert_output: Second half.
    """

    @configurable
    def __init__(
        self,
        *,
        bert_attention: BertAttention,
        bert_intermediate: BertIntermediate,
        bert_output: BertOutput,
    ) -> None:
        super().__init__()
        self.attention = bert_attention
        self.intermediate = bert_intermediate
        self.output = bert_output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "bert_attention": BertAttention(cfg),
            "bert_intermediate": BertIntermediate(cfg),
            "bert_output": BertOutput(cfg),
        }

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        history_states: Tensor | None = None,
        packing: Packing | None = None,
        query_packing: Packing | None = None,
    ) -> tuple[Tensor, None]:
        """As :meth:`BertSelfAttention.forward`."""
        x, weights = self.attention(
            hidden_states, attention_mask, history_states, packing, query_packing
        )
        packing = packing if query_packing is None else query_packing
        return feed_forward(self.intermediate, self.output, x, packing), weights

    def step(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: Cache,
        layer: int,
        images: int,
        weights: StepWeights | None = None,
    ) -> Tensor:
        """As :meth:`BertSelfAttention.step`: one new word per hypothesis."""
        x = self.attention.step(x, mask, cache, layer, images, weights)
        return self.output(self.intermediate(x, weights), x, weights)

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [*self.attention.step_layers(), self.intermediate.dense, self.output.dense]


class BertGenerationLayer(nn.Module):
    """One decoder layer: causal self-attention, cross-attention to the image, feed-forward.

    Args:
        bert_attention: Causal self-attention.
        bert_cross_attention: Attention to the image.
        bert_intermediate: First half of the feed-forward block.
        bert_output: Second half.
    """

    @configurable
    def __init__(
        self,
        *,
        bert_attention: BertAttention,
        bert_cross_attention: BertCrossAttention,
        bert_intermediate: BertIntermediate,
        bert_output: BertOutput,
    ) -> None:
        super().__init__()
        self.self_attn = bert_attention
        self.x_att = bert_cross_attention
        self.intermediate = bert_intermediate
        self.output = bert_output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "bert_attention": BertAttention(cfg),
            "bert_cross_attention": BertCrossAttention(cfg),
            "bert_intermediate": BertIntermediate(cfg),
            "bert_output": BertOutput(cfg),
        }

    def forward(
        self,
        lang_feats: Tensor,
        v_feats: Tensor | KeysValues,
        lang_attention_mask: Tensor | None = None,
        v_attention_mask: Tensor | None = None,
        t_history_states: Tensor | None = None,
        packing: Packing | None = None,
        v_packing: Packing | None = None,
    ) -> Tensor:
        """All positions at once.

        Args:
            lang_feats: (B * G, T, D), or (count, D) with ``packing``.
            v_feats: (B, N, D), or (n, D) with ``v_packing``, or the keys and values that
                ``x_att.self.project_memory`` made.
            lang_attention_mask: Additive, broadcastable to (B * G, heads, T, T).
            v_attention_mask: Additive (B, 1, 1, N).
            t_history_states: (B * G, S, D), where the keys of the self-attention come from.
            packing: Which text positions are real.
            v_packing: Which regions are real.

        Returns:
            Shaped like ``lang_feats``.
        """
        if isinstance(v_feats, Tensor):
            v_feats = self.x_att.self.project_memory(v_feats, v_feats, v_packing)
        x, _ = self.self_attn(lang_feats, lang_attention_mask, t_history_states, packing)
        x, _ = self.x_att.ask(x, v_feats, v_attention_mask, packing)
        return feed_forward(self.intermediate, self.output, x, packing)

    def step(
        self,
        x: Tensor,
        memory: KeysValues,
        cache: Cache,
        layer: int,
        mask: Tensor | None = None,
        v_attention_mask: Tensor | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One new word per hypothesis.

        Args:
            x: (R, D).
            memory: Keys and values of the images, (B, heads, N, d) each.
            cache: Keys and values of earlier words; receives this step's.
            layer: Number of this layer in the cache.
            mask: (B, 1, R / B, slots) additive, or None.
            v_attention_mask: Additive (B, 1, 1, N).
            need_weights: Return the attention to the image too.
            weights: Copies of weights made for decoding.

        Returns:
            (R, D), and the attention (B, heads, R / B, N) or None.
        """
        x = self.self_attn.step(x, mask, cache, layer, memory[0].shape[0], weights)
        x, attention = self.x_att.ask(
            x, memory, v_attention_mask, need_weights=need_weights, weights=weights
        )
        return self.output(self.intermediate(x, weights), x, weights), attention

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        cross = self.x_att
        return [
            *self.self_attn.step_layers(),
            cross.self.query,
            cross.output.dense,
            self.intermediate.dense,
            self.output.dense,
        ]
