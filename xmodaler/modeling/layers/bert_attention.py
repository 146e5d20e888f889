"""The attention blocks of BERT: self-attention and cross-attention with their projections.

Queries may be G times as many rows as the memory they attend to: the G text rows of an image are
then folded into one row of G * T queries.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .dot_product import attend, attend_images, check_heads, for_many_steps, split_heads
from .few_rows import StepWeights, linear
from .kv_cache import Cache
from .layer_stack import run_layer
from .packing import Packing, pack_or_flatten, unpack_or_keep
from .projected_residual import LAYER_NORM_EPS, ProjectedResidual
from .step_attention import attend_stored

KeysValues = tuple[Tensor, Tensor]


class _DotProductAttention(nn.Module):
    """Projections of queries, keys and values, and attention between them."""

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        num_attention_heads: int,
        attention_probs_dropout_prob: float,
        key_value_size: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_attention_heads, type(self).__name__)
        self.num_attention_heads = num_attention_heads
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.recompute = recompute
        source = hidden_size if key_value_size is None else key_value_size
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(source, hidden_size)
        self.value = nn.Linear(source, hidden_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        bert = cfg.MODEL.BERT
        return {
            "hidden_size": bert.HIDDEN_SIZE,
            "num_attention_heads": bert.NUM_ATTENTION_HEADS,
            "attention_probs_dropout_prob": bert.ATTENTION_PROBS_DROPOUT_PROB,
            "recompute": bert.RECOMPUTE_INNER,
        }

    @property
    def dropout_now(self) -> float:
        """The dropout probability that holds in the present mode."""
        return self.attention_probs_dropout_prob if self.training else 0.0

    def run(self, attention: Callable[..., Any], *args: Any) -> Any:
        """Call an attention on projected queries, keys and values."""
        return run_layer(attention, *args, recompute=self.recompute and self.training)

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
        key_value_size: Width of what keys and values are made of, where it is not D.
        recompute: Whether to compute the weights again for the gradient.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        history_states: Tensor | None = None,
        packing: Packing | None = None,
        query_packing: Packing | None = None,
    ) -> tuple[Tensor, None]:
        """Attend within each row.

        Args:
            hidden_states: (B, T, D), or (count, D) with ``packing``.
            attention_mask: Additive, broadcastable to (B, heads, T, S).
            history_states: (B, S, D), where keys and values come from; default the queries' own.
            packing: Which positions of the padded rows are real.
            query_packing: Which positions ask, where these are not those of ``packing``;
                ``hidden_states`` then are (their count, D), beside ``history_states``.

        Returns:
            The context, shaped like ``hidden_states``, and None (weights are not kept).
        """
        source = hidden_states if history_states is None else history_states
        asking = packing if query_packing is None else query_packing
        query = self.heads(unpack_or_keep(self.query(hidden_states), asking))
        key = self.heads(unpack_or_keep(self.key(source), packing))
        value = self.heads(unpack_or_keep(self.value(source), packing))
        context, _ = self.run(attend, query, key, value, attention_mask, self.dropout_now)
        return pack_or_flatten(context, asking), None

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
        projections = (self.query, self.key, self.value)
        heads, dropout = self.num_attention_heads, self.dropout_now
        return attend_stored(
            projections, heads, x, mask, cache, layer, images, weights, dropout=dropout
        )


class BertSelfOutput(ProjectedResidual):
    """:class:`ProjectedResidual` after an attention.

    Args:
        hidden_size: Width D.
        layer_norm_eps: Epsilon of the norm.
        hidden_dropout_prob: Dropout before the residual.
        drop_path_prob: Probability that the residual goes on alone.
        recompute: As for :class:`ProjectedResidual`.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        layer_norm_eps: float,
        hidden_dropout_prob: float,
        drop_path_prob: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            inputs=hidden_size,
            hidden_size=hidden_size,
            layer_norm_eps=layer_norm_eps,
            dropout=hidden_dropout_prob,
            drop_path_prob=drop_path_prob,
            recompute=recompute,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "layer_norm_eps": LAYER_NORM_EPS,
            "hidden_dropout_prob": cfg.MODEL.BERT.HIDDEN_DROPOUT_PROB,
            "recompute": cfg.MODEL.BERT.RECOMPUTE_INNER,
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
        query_packing: Packing | None = None,
    ) -> tuple[Tensor, None]:
        """As :meth:`BertSelfAttention.forward`."""
        context, weights = self.self(
            input_tensor, attention_mask, history_states, packing, query_packing
        )
        packing = packing if query_packing is None else query_packing
        return self.output(context, input_tensor, packing=packing), weights

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

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [self.self.query, self.self.key, self.self.value, self.output.dense]


class BertXAttention(_DotProductAttention):
    """Cross-modal attention without its output projection: text asks, the image answers.

    Args:
        hidden_size: Width D.
        num_attention_heads: Heads; D must be a multiple.
        attention_probs_dropout_prob: Dropout on the weights.
        key_value_size: Width of the memory, where it is not D.
        recompute: Whether to compute the weights again for the gradient.
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
        context, attention = self.run(
            attend_images, padded, *memory, attention_mask, self.dropout_now, need_weights
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
        return self.output(context, query, weights, packing), attention
