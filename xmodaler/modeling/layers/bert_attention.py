"""The attention blocks of BERT: self-attention and cross-attention with their projections.

Queries may be G times as many rows as the memory they attend to: the G text rows of an image are
then folded into one row of G * T queries.
"""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .dot_product import attend, attend_images, check_heads, for_many_steps, split_heads
from .few_rows import StepWeights, linear
from .kv_cache import Cache, store
from .packing import Packing, pack_or_flatten, unpack_or_keep

LAYER_NORM_EPS = 1e-12

KeysValues = tuple[Tensor, Tensor]


class _DotProductAttention(nn.Module):
    """Projections of queries, keys and values, and attention between them."""

    @configurable
    def __init__(
        self, *, hidden_size: int, num_attention_heads: int, attention_probs_dropout_prob: float
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_attention_heads, type(self).__name__)
        self.num_attention_heads = num_attention_heads
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        bert = cfg.MODEL.BERT
        return {
            "hidden_size": bert.HIDDEN_SIZE,
            "num_attention_heads": bert.NUM_ATTENTION_HEADS,
            "attention_probs_dropout_prob": bert.ATTENTION_PROBS_DROPOUT_PROB,
        }

    @property
    def dropout_now(self) -> float:
        """The dropout probability that holds in the present mode."""
        return self.attention_probs_dropout_prob if self.training else 0.0

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        return split_heads(x, self.num_attention_heads)


class BertSelfAttention(_DotProductAttention):
    """Self-attention without its output projection.

    ``softmax(q k^T / sqrt(d) + mask) v`` per head (Vaswani et al. 2017), with biased projections
    and dropout on the attention weights.

    Args:
        hidden_size: Width D.
        num_attention_heads: Heads; D must be a multiple.
        attention_probs_dropout_prob: Dropout on the weights.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        history_states: Tensor | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, None]:
        """Attend within each row.

        Args:
            hidden_states: (B, T, D), or (count, D) with ``packing``.
            attention_mask: Additive, broadcastable to (B, heads, T, S).
            history_states: (B, S, D), where keys and values come from; default the queries' own.
            packing: Which positions of the padded rows are real.

        Returns:
            The context, shaped like ``hidden_states``, and None (weights are not kept).
        """
        source = hidden_states if history_states is None else history_states
        query, key, value = (
            self.heads(unpack_or_keep(projected, packing))
            for projected in (self.query(hidden_states), self.key(source), self.value(source))
        )
        context, _ = attend(query, key, value, attention_mask, self.dropout_now)
        return pack_or_flatten(context, packing), None

    def step(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: Cache,
        layer: int,
        images: int,
        weights: StepWeights | None = None,
    ) -> Tensor:
        """Attend from one new word per hypothesis to all words stored for its image.

        Args:
            x: (R, D), the words of this step.
            mask: (B, 1, R / B, slots) additive, or None.
            cache: Receives this step's keys and values.
            layer: Number of this layer in the cache.
            images: B.
            weights: Copies of weights made for decoding.

        Returns:
            (R, D).
        """
        query, key, value = (
            self.heads(linear(project, x, weights).unflatten(0, (images, -1)))
            for project in (self.query, self.key, self.value)
        )
        keys, values = store(cache, layer, key, value)
        context, _ = attend(query, keys, values, mask, self.dropout_now)
        return context.flatten(0, 1)


class ProjectedResidual(nn.Module):
    """``LN(dropout(W x) + residual)``, which ends every block.

    Args:
        inputs: Width of x.
        hidden_size: Width D of the residual.
        layer_norm_eps: Epsilon of the norm.
        dropout: Dropout before the residual.
    """

    def __init__(
        self, *, inputs: int, hidden_size: int, layer_norm_eps: float, dropout: float
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden_states: Tensor, input_tensor: Tensor, weights: StepWeights | None = None
    ) -> Tensor:
        """x (..., inputs) and the residual (..., D) -> (..., D)."""
        x = linear(self.dense, hidden_states, weights)
        return self.LayerNorm(self.dropout(x) + input_tensor)


class BertSelfOutput(ProjectedResidual):
    """:class:`ProjectedResidual` after an attention.

    Args:
        hidden_size: Width D.
        layer_norm_eps: Epsilon of the norm.
        hidden_dropout_prob: Dropout before the residual.
    """

    @configurable
    def __init__(
        self, *, hidden_size: int, layer_norm_eps: float, hidden_dropout_prob: float
    ) -> None:
        super().__init__(
            inputs=hidden_size,
            hidden_size=hidden_size,
            layer_norm_eps=layer_norm_eps,
            dropout=hidden_dropout_prob,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "layer_norm_eps": LAYER_NORM_EPS,
            "hidden_dropout_prob": cfg.MODEL.BERT.HIDDEN_DROPOUT_PROB,
        }


class BertAttention(nn.Module):
    """Self-attention with output projection, residual and norm.

    Args:
        bert_self_attention: The attention.
        bert_self_output: What follows it.
    """

    @configurable
    def __init__(
        self, *, bert_self_attention: BertSelfAttention, bert_self_output: BertSelfOutput
    ) -> None:
        super().__init__()
        self.self = bert_self_attention
        self.output = bert_self_output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "bert_self_attention": BertSelfAttention(cfg),
            "bert_self_output": BertSelfOutput(cfg),
        }

    def forward(
        self,
        input_tensor: Tensor,
        attention_mask: Tensor | None = None,
        history_states: Tensor | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, None]:
        """As :meth:`BertSelfAttention.forward`."""
        context, weights = self.self(input_tensor, attention_mask, history_states, packing)
        return self.output(context, input_tensor), weights

    def step(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: Cache,
        layer: int,
        images: int,
        weights: StepWeights | None = None,
    ) -> Tensor:
        """As :meth:`BertSelfAttention.step`."""
        return self.output(self.self.step(x, mask, cache, layer, images, weights), x, weights)


class BertXAttention(_DotProductAttention):
    """Cross-modal attention without its output projection: text asks, the image answers.

    Args:
        hidden_size: Width D.
        num_attention_heads: Heads; D must be a multiple.
        attention_probs_dropout_prob: Dropout on the weights.
    """

    def project_memory(
        self, key: Tensor, value: Tensor, packing: Packing | None = None
    ) -> KeysValues:
        """Keys and values of the memory, once per image.

        Args:
            key: (B, N, D), or (count, D) with ``packing``.
            value: As ``key``.
            packing: Which of the N positions are real.

        Returns:
            Two tensors (B, heads, N, D / heads).
        """
        keys = self.heads(unpack_or_keep(self.key(key), packing))
        values = self.heads(unpack_or_keep(self.value(value), packing))
        return for_many_steps(keys, values)

    def ask(
        self,
        query: Tensor,
        memory: KeysValues,
        attention_mask: Tensor | None = None,
        packing: Packing | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from grouped queries to the projected memory.

        Args:
            query: (B * G, T, D), (B * G, D), or (count, D) with ``packing``.
            memory: What :meth:`project_memory` returned.
            attention_mask: Additive (B, 1, 1, N).
            packing: Which positions of the padded queries are real.
            need_weights: Return the attention too.
            weights: Copies of weights made for decoding.

        Returns:
            The context, shaped like ``query``, and the attention (B, heads, G * T, N) or None.
        """
        padded = unpack_or_keep(linear(self.query, query, weights), packing)
        context, attention = attend_images(
            padded, *memory, attention_mask, self.dropout_now, need_weights
        )
        return pack_or_flatten(context, packing), attention

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to unprojected memory: query (B * G, T, D), key and value (B, N, D)."""
        return self.ask(query, self.project_memory(key, value), attention_mask)


class BertCrossAttention(nn.Module):
    """Cross-attention with output projection, residual and norm.

    Args:
        bert_cross_attention: The attention.
        bert_self_output: What follows it.
    """

    @configurable
    def __init__(
        self, *, bert_cross_attention: BertXAttention, bert_self_output: BertSelfOutput
    ) -> None:
        super().__init__()
        self.self = bert_cross_attention
        self.output = bert_self_output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "bert_cross_attention": BertXAttention(cfg),
            "bert_self_output": BertSelfOutput(cfg),
        }

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        q_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`BertXAttention.forward`; ``q_attention_mask`` has no effect."""
        context, weights = self.self(query, key, value, attention_mask)
        return self.output(context, query), weights

    def ask(
        self,
        query: Tensor,
        memory: KeysValues,
        attention_mask: Tensor | None = None,
        packing: Packing | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`BertXAttention.ask`."""
        context, attention = self.self.ask(
            query, memory, attention_mask, packing, need_weights, weights
        )
        return self.output(context, query, weights), attention
