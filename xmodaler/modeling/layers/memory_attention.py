"""The blocks of the Meshed-Memory Transformer (Cornia et al., CVPR 2020): attention with memory.

All are post-norm and, unlike BERT's, drop nothing from the attention weights.
"""

import torch
from torch import Tensor, nn

from .bert_attention import KeysValues
from .dot_product import attend, check_heads, for_many_steps, split_heads
from .few_rows import StepWeights, linear
from .grouping import queries_per_image
from .kv_cache import Cache
from .packing import Packing, pack_or_flatten, unpack_or_keep
from .step_attention import attend_stored


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    """A Linear with Xavier-uniform weights and zero biases."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MemoryAttention(nn.Module):
    """Multi-head attention whose keys and values may be extended by learned memory.

    ``softmax(q [k; sqrt(d) m_k]^T / sqrt(d)) [v; sqrt(m) m_v]`` per head, where m learned rows
    follow those of the input and are never masked (Cornia et al. 2020, section 3.1). They
    hold what is known of the world rather than seen in the picture.

    Args:
        dim_model: Width D.
        num_heads: Heads; D must be a multiple.
        num_memory: Rows m of memory; 0 for none.
    """

    def __init__(self, *, dim_model: int, num_heads: int, num_memory: int = 0) -> None:
        super().__init__()
        check_heads(dim_model, num_heads, type(self).__name__)
        self.num_heads, self.num_memory = num_heads, num_memory
        self.head_dim = dim_model // num_heads
        self.fc_q = xavier_linear(dim_model, dim_model)
        self.fc_k = xavier_linear(dim_model, dim_model)
        self.fc_v = xavier_linear(dim_model, dim_model)
        self.fc_o = xavier_linear(dim_model, dim_model)
        if num_memory > 0:
            shape = (1, num_memory, dim_model)
            self.m_k = nn.Parameter(torch.randn(shape) / self.head_dim)
            self.m_v = nn.Parameter(torch.randn(shape) / num_memory)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        return split_heads(x, self.num_heads)

    def keys_values(self, x: Tensor, packing: Packing | None = None) -> KeysValues:
        """Keys and values of an input, those of the memory behind them.

        Args:
            x: (B, N, D), or (count, D) with ``packing``.
            packing: Which of the N positions are real.

        Returns:
            Two tensors (B, heads, N + m, D / heads).
        """
        keys, values = (unpack_or_keep(fc(x), packing) for fc in (self.fc_k, self.fc_v))
        if self.num_memory > 0:
            keys = _append(keys, self.m_k * self.head_dim**0.5)
            values = _append(values, self.m_v * self.num_memory**0.5)
        return self.heads(keys), self.heads(values)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """Self-attention, before the residual.

        Args:
            x: (B, N, D), or (count, D) with ``packing``.
            mask: Additive, broadcastable to (B, heads, N, N + m).
            packing: Which of the N positions are real.

        Returns:
            Shaped like ``x``.
        """
        query = self.heads(unpack_or_keep(self.fc_q(x), packing))
        context, _ = attend(query, *self.keys_values(x, packing), mask)
        return self.fc_o(pack_or_flatten(context, packing))

    def step(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: Cache,
        layer: int,
        images: int,
        weights: StepWeights | None = None,
    ) -> Tensor:
        """From one new word per hypothesis to all words stored for its image.

        Args:
            x: (R, D), the words of this step.
            mask: (B, 1, R / B, slots) additive, or None.
            cache: Receives this step's keys and values.
            layer: Number of this layer in the cache.
            images: B.
            weights: Copies of weights made for decoding.

        Returns:
            (R, D), before the residual.
        """
        projections = (self.fc_q, self.fc_k, self.fc_v)
        context = attend_stored(projections, self.num_heads, x, mask, cache, layer, images, weights)
        return linear(self.fc_o, context, weights)

    def project_levels(
        self, levels: Tensor, visible: Tensor, packing: Packing | None = None
    ) -> KeysValues:
        """Keys and values of several encodings of the same regions, once per image.

        Args:
            levels: (B, L, N, D).
            visible: Bool (B, N). Values elsewhere become 0, so that an image without a region
                gives 0 whatever its padding.
            packing: Which of the N positions are real.

        Returns:
            Two tensors (B, L * heads, N, D / heads), the heads of a level adjacent.
        """
        images, depth, regions, _ = levels.shape
        if packing is not None:
            row, column = packing.index // regions, packing.index % regions
            first = row * (depth * regions) + column
            index = first[:, None] + regions * torch.arange(depth, device=first.device)
            packing = Packing(index.flatten(), images * depth, regions)
        rows = pack_or_flatten(levels.flatten(0, 1), packing)
        keys, values = (unpack_or_keep(fc(rows), packing) for fc in (self.fc_k, self.fc_v))
        if packing is None:
            hidden = ~visible[:, None].expand(-1, depth, -1).flatten(0, 1)
            values = values.masked_fill(hidden.unsqueeze(-1), 0)
        keys, values = (
            self.heads(x).unflatten(0, (images, depth)).flatten(1, 2) for x in (keys, values)
        )
        return for_many_steps(keys, values)

    def ask_levels(
        self,
        query: Tensor,
        memory: KeysValues,
        mask: Tensor | None = None,
        packing: Packing | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from grouped queries to every level alike, before the residual.

        Args:
            query: (B * G, T, D), (B * G, D), or (count, D) with ``packing``.
            memory: What :meth:`project_levels` returned.
            mask: Additive (B, 1, 1, N).
            packing: Which positions of the padded queries are real.
            need_weights: Return the attention too.
            weights: Copies of weights made for decoding.

        Returns:
            (rows, L, D) with one row per position of ``query``, and the attention
            (B, L * heads, G * T, N) or None.
        """
        keys, values = memory
        images, depth = keys.shape[0], keys.shape[1] // self.num_heads
        padded = unpack_or_keep(linear(self.fc_q, query, weights), packing)
        queries_per_image(padded.shape[0], images)
        folded = self.heads(padded.reshape(images, -1, padded.shape[-1]))
        folded = folded.repeat(1, depth, 1, 1)
        context, attention = attend(folded, keys, values, mask, need_weights=need_weights)
        context = context.reshape(*padded.shape[:-1], depth * padded.shape[-1])
        rows = pack_or_flatten(context, packing).reshape(-1, padded.shape[-1])
        return linear(self.fc_o, rows, weights).unflatten(0, (-1, depth)), attention


class AttentionBlock(nn.Module):
    """``LN(x + dropout(attention))``.

    Args:
        dim_model: Width D.
        num_heads: Heads.
        dropout: Dropout before the residual.
        num_memory: Rows of memory.
    """

    def __init__(
        self, *, dim_model: int, num_heads: int, dropout: float, num_memory: int = 0
    ) -> None:
        super().__init__()
        self.attention = MemoryAttention(
            dim_model=dim_model, num_heads=num_heads, num_memory=num_memory
        )
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim_model)

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual and the norm."""
        return self.layer_norm(x + self.dropout(attended))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """As :meth:`MemoryAttention.forward`."""
        return self.add(x, self.attention(x, mask, packing))


class FeedForward(nn.Module):
    """``LN(x + dropout(W_2 dropout(relu(W_1 x))))``.

    Args:
        dim_model: Width D.
        dim_feedforward: Inner width.
        dropout: Both dropouts.
    """

    def __init__(self, *, dim_model: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim_model, dim_feedforward)
        self.fc2 = nn.Linear(dim_feedforward, dim_model)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim_model)

    def forward(self, x: Tensor, weights: StepWeights | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        inner = self.dropout(torch.relu(linear(self.fc1, x, weights)))
        return self.layer_norm(x + self.dropout(linear(self.fc2, inner, weights)))


class MemoryEncoderLayer(nn.Module):
    """Memory-augmented self-attention, then feed-forward.

    Args:
        dim_model: Width D.
        num_heads: Heads.
        num_memory: Rows of memory.
        dim_feedforward: Inner width of the feed-forward block.
        dropout: Of both blocks.
    """

    def __init__(
        self,
        *,
        dim_model: int,
        num_heads: int,
        num_memory: int,
        dim_feedforward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.mhatt = AttentionBlock(
            dim_model=dim_model, num_heads=num_heads, num_memory=num_memory, dropout=dropout
        )
        self.pwff = FeedForward(
            dim_model=dim_model, dim_feedforward=dim_feedforward, dropout=dropout
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """As :meth:`MemoryAttention.forward`."""
        return self.pwff(self.mhatt(x, mask, packing))


def _append(rows: Tensor, memory: Tensor) -> Tensor:
    """(B, N, D) and (1, m, D) -> (B, N + m, D)."""
    return torch.cat([rows, memory.to(rows.dtype).expand(rows.shape[0], -1, -1)], dim=1)
