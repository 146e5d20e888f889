"""The decoder block of COS-Net (Li et al., CVPR 2022)."""

import torch
from torch import Tensor, nn

from .bert import BertIntermediate, BertOutput
from .bert_attention import LAYER_NORM_EPS, KeysValues
from .dot_product import attend, attend_images, check_heads, for_many_steps, split_heads
from .few_rows import StepWeights, linear
from .kv_cache import Cache, store
from .packing import Packing, pack_or_flatten, unpack_or_keep

Memory = tuple[KeysValues, KeysValues]
"""Keys and values of the picture (B, heads, N, d), and of its semantic words (Bs, heads, M, d)."""

Masks = tuple[Tensor, Tensor]
"""Additive masks of the picture (B, 1, 1, N), and of its semantic words (Bs, 1, 1, M)."""


class COSNetAttention(nn.Module):
    """One query asks the words so far, the picture and the semantic words; a gate mixes them.

    With ``q = W_q y``: ``l = W_c att(q, words)``, ``u = W_u [att(q, picture); att(q, semantics)]``,
    ``g = sigmoid(W_g [l; u])``, and the result is ``LN(dropout(g * l + (1 - g) * u) + y)``
    (Li et al. 2022, the sentence decoder).

    Args:
        hidden_size: Width D.
        num_attention_heads: Heads; D must be a multiple.
        attention_probs_dropout_prob: Dropout on all attention weights.
        hidden_dropout_prob: Dropout before the residual.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_attention_heads: int,
        attention_probs_dropout_prob: float,
        hidden_dropout_prob: float,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_attention_heads, type(self).__name__)
        self.num_attention_heads = num_attention_heads
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.c_proj = nn.Linear(hidden_size, hidden_size)
        self.v_attn = nn.Linear(hidden_size, 2 * hidden_size)
        self.o_attn = nn.Linear(hidden_size, 2 * hidden_size)
        self.vo_proj = nn.Linear(2 * hidden_size, hidden_size)
        self.gate_attn = nn.Linear(2 * hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(hidden_dropout_prob)

    def project_memory(self, picture: Tensor, semantics: Tensor) -> Memory:
        """Keys and values of picture (B, N, D) and semantic words (Bs, M, D), once per image."""
        picture_memory = self._keys_values(self.v_attn(picture))
        return picture_memory, self._keys_values(self.o_attn(semantics))

    def forward(
        self,
        y: Tensor,
        memory: Memory,
        causal_mask: Tensor | None = None,
        masks: Masks | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """All positions at once; arguments as :meth:`COSNetDecoderLayer.forward`."""
        query, key, value = (
            unpack_or_keep(fc(y), packing) for fc in (self.query, self.key, self.value)
        )
        own, _ = attend(
            *(self._heads(x) for x in (query, key, value)), causal_mask, self._dropout_now
        )
        found, _ = self._ask(query, memory, masks)
        return self._gated(y, pack_or_flatten(own, packing), pack_or_flatten(found, packing))

    def step(
        self,
        y: Tensor,
        memory: Memory,
        cache: Cache,
        layer: int,
        mask: Tensor | None = None,
        masks: Masks | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One new word per hypothesis; arguments as :meth:`COSNetDecoderLayer.step`."""
        images = memory[0][0].shape[0]
        query, key, value = (
            linear(fc, y, weights).unflatten(0, (images, -1))
            for fc in (self.query, self.key, self.value)
        )
        stored = store(cache, layer, self._heads(key), self._heads(value))
        own, _ = attend(self._heads(query), *stored, mask, self._dropout_now)
        found, attention = self._ask(query.flatten(0, 1), memory, masks, need_weights)
        return self._gated(y, own.flatten(0, 1), found, weights), attention

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        own = [self.query, self.key, self.value, self.c_proj]
        return [*own, self.vo_proj, self.gate_attn]

    @property
    def _dropout_now(self) -> float:
        return self.attention_probs_dropout_prob if self.training else 0.0

    def _heads(self, x: Tensor) -> Tensor:
        return split_heads(x, self.num_attention_heads)

    def _keys_values(self, projected: Tensor) -> KeysValues:
        return for_many_steps(*(self._heads(half) for half in projected.chunk(2, dim=-1)))

    def _ask(
        self, query: Tensor, memory: Memory, masks: Masks | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """What picture and semantic words answer, side by side.

        Args:
            query: (R, T, D) or (R, D), projected.
            memory: As everywhere.
            masks: As everywhere.
            need_weights: Return the attention to the picture too.

        Returns:
            (..., 2 D), and the attention (B, heads, R * T / B, N) or None.
        """
        answers, attention = [], None
        for number, keys_values in enumerate(memory):
            mask = None if masks is None else masks[number]
            explicit = need_weights and number == 0
            answer, found = attend_images(query, *keys_values, mask, self._dropout_now, explicit)
            answers.append(answer)
            attention = found if explicit else attention
        return torch.cat(answers, dim=-1), attention

    def _gated(
        self, y: Tensor, own: Tensor, found: Tensor, weights: StepWeights | None = None
    ) -> Tensor:
        words = linear(self.c_proj, own, weights)
        seen = linear(self.vo_proj, found, weights)
        both = torch.cat([words, seen], dim=-1)
        gate = torch.sigmoid(linear(self.gate_attn, both, weights))
        return self.LayerNorm(self.dropout(torch.lerp(seen, words, gate)) + y)


class COSNetDecoderLayer(nn.Module):
    """Gated attention, then feed-forward.

    Args:
        attn: The attention.
        bert_intermediate: First half of the feed-forward block.
        bert_output: Second half.
    """

    def __init__(
        self,
        *,
        attn: COSNetAttention,
        bert_intermediate: BertIntermediate,
        bert_output: BertOutput,
    ) -> None:
        super().__init__()
        self.attn = attn
        self.intermediate = bert_intermediate
        self.output = bert_output

    def forward(
        self,
        y: Tensor,
        memory: Memory,
        causal_mask: Tensor | None = None,
        masks: Masks | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """All positions at once.

        Args:
            y: (R, T, D), or (count, D) with ``packing``.
            memory: What ``attn.project_memory`` returned.
            causal_mask: Additive, broadcastable to (R, heads, T, T).
            masks: Of the memory.
            packing: Which text positions are real.

        Returns:
            Shaped like ``y``.
        """
        x = self.attn(y, memory, causal_mask, masks, packing)
        return self.output(self.intermediate(x), x)

    def step(
        self,
        y: Tensor,
        memory: Memory,
        cache: Cache,
        layer: int,
        mask: Tensor | None = None,
        masks: Masks | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One new word per hypothesis.

        Args:
            y: (R, D).
            memory: What ``attn.project_memory`` returned.
            cache: Keys and values of earlier words; receives this step's.
            layer: Number of this layer in the cache.
            mask: (B, 1, R / B, slots) additive, or None.
            masks: Of the memory.
            need_weights: Return the attention to the picture too.
            weights: Copies of weights made for decoding.

        Returns:
            (R, D), and the attention (B, heads, R / B, N) or None.
        """
        x, attention = self.attn.step(y, memory, cache, layer, mask, masks, need_weights, weights)
        return self.output(self.intermediate(x, weights), x, weights), attention

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [*self.attn.step_layers(), self.intermediate.dense, self.output.dense]
