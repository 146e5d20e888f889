"""Meshed attention: text asks every layer of the encoder at once (Cornia et al., CVPR 2020)."""

import torch
from torch import Tensor, nn

from .bert_attention import KeysValues
from .few_rows import StepWeights, linear
from .kv_cache import Cache
from .memory_attention import AttentionBlock, FeedForward, xavier_linear
from .packing import Packing


class MeshedDecoderLayer(nn.Module):
    """Causal self-attention, meshed attention to L encoder layers, feed-forward.

    With ``a = SelfAttention(y)`` and ``e_i = CrossAttention(a, x_i)``, the same weights for every
    encoder layer i, gates ``alpha_i = sigmoid(W_i [a; e_i] + b_i)`` mix what was found:
    ``z = sum_i alpha_i * e_i / sqrt(L)`` (section 3.2). The residual around the
    cross-attention lies inside each ``e_i``.

    Args:
        dim_model: Width D.
        num_heads: Heads.
        dim_feedforward: Inner width of the feed-forward block.
        dropout: Of all blocks.
        num_levels: L, number of encoder layers.
    """

    def __init__(
        self,
        *,
        dim_model: int,
        num_heads: int,
        dim_feedforward: int,
        dropout: float,
        num_levels: int,
    ) -> None:
        super().__init__()
        sizes = {"dim_model": dim_model, "num_heads": num_heads, "dropout": dropout}
        self.self_att = AttentionBlock(**sizes)
        self.enc_att = AttentionBlock(**sizes)
        self.pwff = FeedForward(
            dim_model=dim_model, dim_feedforward=dim_feedforward, dropout=dropout
        )
        self.fc_alpha = nn.ModuleList(
            xavier_linear(2 * dim_model, dim_model) for _ in range(num_levels)
        )

    def forward(
        self,
        y: Tensor,
        memory: KeysValues,
        causal_mask: Tensor | None = None,
        visual_mask: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """All positions at once.

        Args:
            y: (B * G, T, D), or (count, D) with ``packing``.
            memory: What ``enc_att.attention.project_levels`` made of the encoder's layers.
            causal_mask: Additive, broadcastable to (B * G, heads, T, T).
            visual_mask: Additive (B, 1, 1, N).
            packing: Which text positions are real.

        Returns:
            Shaped like ``y``.
        """
        a = self.self_att(y, causal_mask, packing)
        return self._meshed(a, memory, visual_mask, packing)[0]

    def step(
        self,
        y: Tensor,
        memory: KeysValues,
        cache: Cache,
        layer: int,
        mask: Tensor | None = None,
        visual_mask: Tensor | None = None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One new word per hypothesis.

        Args:
            y: (R, D).
            memory: As in :meth:`forward`.
            cache: Keys and values of earlier words; receives this step's.
            layer: Number of this layer in the cache.
            mask: (B, 1, R / B, slots) additive, or None.
            visual_mask: Additive (B, 1, 1, N).
            need_weights: Return the attention to the image too.
            weights: Copies of weights made for decoding.

        Returns:
            (R, D), and the attention (B, L * heads, R / B, N) or None.
        """
        images = memory[0].shape[0]
        attended = self.self_att.attention.step(y, mask, cache, layer, images, weights)
        a = self.self_att.add(y, attended)
        return self._meshed(a, memory, visual_mask, None, need_weights, weights)

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        own, cross = self.self_att.attention, self.enc_att.attention
        attention = [own.fc_q, own.fc_k, own.fc_v, own.fc_o, cross.fc_q, cross.fc_o]
        return [*attention, *self.fc_alpha, self.pwff.fc1, self.pwff.fc2]

    def _meshed(
        self,
        a: Tensor,
        memory: KeysValues,
        visual_mask: Tensor | None,
        packing: Packing | None,
        need_weights: bool = False,
        weights: StepWeights | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Everything behind the self-attention."""
        attended, attention = self.enc_att.attention.ask_levels(
            a, memory, visual_mask, packing, need_weights, weights
        )
        rows = a.reshape(-1, a.shape[-1])
        levels = self.enc_att.add(rows.unsqueeze(1), attended)
        mixed = torch.zeros_like(rows)
        for level, fc in zip(levels.unbind(1), self.fc_alpha, strict=True):
            gate = torch.sigmoid(linear(fc, torch.cat([rows, level], dim=-1), weights))
            mixed = mixed + gate * level
        mixed = mixed / len(self.fc_alpha) ** 0.5
        return self.pwff(mixed.view_as(a), weights), attention
