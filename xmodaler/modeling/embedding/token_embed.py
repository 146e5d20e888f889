"""Embedding of words."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.create_act import build_act_layer
from ..layers.grouping import repeat_rows
from ..stage_keys import SPARSE_GRADIENT
from .build import EMBEDDING_REGISTRY
from .position_embedding import build_position_encoding


@EMBEDDING_REGISTRY.register()
class TokenBaseEmbedding(nn.Module):
    """``dropout(norm(act(E[id] + position + type)))``; every term but the first is optional.

    Args:
        dim: Width D.
        vocab_size: Number of words V, the begin/end word 0 included.
        embeddings_act: Activation.
        embeddings_norm: Norm over the last axis.
        embeddings_dropout: Dropout.
        embeddings_pos: Position encoding; called with a position or with the tokens.
        embeddings_token_type: Embedding of token types.
        padding_idx: Id of the word that stands for padding, whose vector is zero and stays so.
    """

    @configurable
    def __init__(
        self,
        *,
        dim: int,
        vocab_size: int,
        embeddings_act: nn.Module | None = None,
        embeddings_norm: nn.Module | None = None,
        embeddings_dropout: nn.Module | None = None,
        embeddings_pos: nn.Module | None = None,
        embeddings_token_type: nn.Module | None = None,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(vocab_size, dim, padding_idx=padding_idx)
        self.embeddings_act = embeddings_act
        self.embeddings_norm = embeddings_norm
        self.embeddings_dropout = embeddings_dropout
        self.embeddings_pos = embeddings_pos
        self.embeddings_token_type = embeddings_token_type

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.TOKEN_EMBED
        kwargs: dict[str, Any] = {"dim": node.DIM, "vocab_size": cfg.MODEL.VOCAB_SIZE}
        kwargs["embeddings_act"] = build_act_layer(node.ACTIVATION, node.ELU_ALPHA)
        if node.DROPOUT > 0:
            kwargs["embeddings_dropout"] = nn.Dropout(node.DROPOUT)
        if node.USE_NORM:
            kwargs["embeddings_norm"] = nn.LayerNorm(node.DIM, eps=node.NORM_EPS)
        if node.PADDING_IDX >= 0:
            kwargs["padding_idx"] = node.PADDING_IDX
        kwargs["embeddings_pos"] = build_position_encoding(cfg, node.DIM, node.POSITION_MAX_LEN)
        if kwargs["embeddings_pos"] is not None and cfg.MODEL.MAX_SEQ_LEN > node.POSITION_MAX_LEN:
            raise UserError(
                f"MODEL.MAX_SEQ_LEN {cfg.MODEL.MAX_SEQ_LEN} exceeds the "
                f"{node.POSITION_MAX_LEN} positions of MODEL.TOKEN_EMBED.POSITION_MAX_LEN"
            )
        if node.TYPE_VOCAB_SIZE > 0:
            kwargs["embeddings_token_type"] = nn.Embedding(node.TYPE_VOCAB_SIZE, node.DIM)
        return kwargs

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Embed U_TOKENS_IDS and G_TOKENS_IDS, whichever are there.

        Tokens are (R, T), or (R,) at the position TIME_STEP while decoding; types are
        (R or B, T). Embeddings are (R, T, D) or (R, D).
        """
        step = batched_inputs.get(kfg.TIME_STEP)
        sparse = batched_inputs.get(SPARSE_GRADIENT, False)
        produced = {}
        for tokens, types, embedded in (
            (kfg.U_TOKENS_IDS, kfg.U_TOKENS_TYPE, kfg.U_TOKEN_EMBED),
            (kfg.G_TOKENS_IDS, kfg.G_TOKENS_TYPE, kfg.G_TOKEN_EMBED),
        ):
            if tokens in batched_inputs:
                produced[embedded] = self.embed(
                    batched_inputs[tokens], batched_inputs.get(types), step, sparse
                )
        return produced

    def embed(
        self,
        tokens: Tensor,
        token_types: Tensor | None = None,
        step: int | None = None,
        sparse: bool = False,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Embed ids.

        Args:
            tokens: (R, T) int64, or (R,) with ``step``.
            token_types: (R or B, T) int64, or (R,).
            step: Position of all of ``tokens`` while decoding.
            sparse: Whether the gradient of the embedding is sparse.
            positions: Shaped like ``tokens``, where these do not simply follow each other.

        Returns:
            (R, T, D) or (R, D).
        """
        padding = self.embeddings.padding_idx
        x = F.embedding(tokens, self.embeddings.weight, padding_idx=padding, sparse=sparse)
        if positions is not None:
            x = x + self.embeddings_pos.at(positions)
        elif self.embeddings_pos is not None:
            x = x + self.embeddings_pos(tokens if step is None or tokens.dim() > 1 else step)
        if self.embeddings_token_type is not None and token_types is not None:
            if token_types.dim() > tokens.dim():
                token_types = token_types[:, min(step, token_types.shape[1] - 1)]
            x = x + self.embeddings_token_type(repeat_rows(token_types, tokens.shape[0]))
        for layer in (self.embeddings_act, self.embeddings_norm, self.embeddings_dropout):
            if layer is not None:
                x = layer(x)
        return x
