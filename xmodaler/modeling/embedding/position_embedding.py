"""Position encodings of words."""

import math

import torch
from torch import Tensor, nn

from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

POSITION_ENC_REGISTRY = Registry("POSITION_ENC")
POSITION_ENC_REGISTRY.__doc__ = "Position encodings, built as ``cls(dim, max_len)``."


def build_position_encoding(cfg: object, dim: int, max_len: int) -> nn.Module | None:
    """The encoding that ``MODEL.TOKEN_EMBED.POSITION`` names, or None for ``'none'``."""
    name = cfg.MODEL.TOKEN_EMBED.POSITION
    if name in ("none", ""):
        return None
    return POSITION_ENC_REGISTRY.get(name)(dim, max_len)


def _check_length(needed: int, max_len: int) -> None:
    if needed > max_len:
        raise UserError(
            f"a sequence of {needed} words exceeds the {max_len} positions of the model; "
            "raise MODEL.TOKEN_EMBED.POSITION_MAX_LEN or shorten MODEL.MAX_SEQ_LEN"
        )


@POSITION_ENC_REGISTRY.register()
class SinusoidEncoding(nn.Module):
    """Fixed sinusoids (Vaswani et al. 2017, section 3.5) with base ``2 * max_len``.

    ``P[p, 2i] = sin(p w_i)``, ``P[p, 2i + 1] = cos(p w_i)``, ``w_i = (2 max_len)^(-2i / dim)``;
    the usual base of 10000 belongs to the default of 5000 positions.

    Args:
        dim: Width.
        max_len: Number of positions.
    """

    def __init__(self, dim: int, max_len: int) -> None:
        super().__init__()
        position = torch.arange(max_len, dtype=torch.float).unsqueeze(1)
        rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float) * -math.log(2 * max_len) / dim)
        pe = torch.zeros(1, max_len, dim)
        pe[0, :, 0::2] = torch.sin(position * rates)
        pe[0, :, 1::2] = torch.cos(position * rates)[:, : dim // 2]
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor | int) -> Tensor:
        """A position -> (1, dim), or a tensor (B, T, ...) -> (1, T, dim)."""
        if isinstance(x, int):
            _check_length(x + 1, self.pe.shape[1])
            return self.pe[:, x]
        _check_length(x.shape[1], self.pe.shape[1])
        return self.pe[:, : x.shape[1]]


@POSITION_ENC_REGISTRY.register()
class NNEmbeddingEncoding(nn.Module):
    """Learned positions.

    Args:
        dim: Width.
        max_len: Number of positions.
    """

    def __init__(self, dim: int, max_len: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_len, dim)

    def at(self, positions: Tensor) -> Tensor:
        """The vectors of positions of any shape: (...) -> (..., dim)."""
        if positions.numel() and positions.device.type == "cpu":  # elsewhere that would wait
            _check_length(int(positions.max()) + 1, self.position_embeddings.num_embeddings)
        return self.position_embeddings(positions)

    def forward(self, x: Tensor | int) -> Tensor:
        """A position -> (1, dim), or a tensor (B, T, ...) -> (1, T, dim)."""
        weight = self.position_embeddings.weight
        if isinstance(x, int):
            _check_length(x + 1, weight.shape[0])
            return weight[x : x + 1]
        _check_length(x.shape[1], weight.shape[0])
        return weight[None, : x.shape[1]]


@POSITION_ENC_REGISTRY.register()
class RobertaEncoding(NNEmbeddingEncoding):
    """Learned positions as RoBERTa and XLM-R count them (Liu et al. 2019).

    Real words are counted from ``padding + 1``; padding itself has position ``padding``, the id of
    its word in their vocabularies.
    """

    padding = 1

    def forward(self, x: Tensor | int) -> Tensor:
        """A position from 0 -> (1, dim), or words (B, T) -> (B, T, dim)."""
        if isinstance(x, int):
            return super().forward(x + self.padding + 1)
        real = (x != self.padding).long()
        return self.at(real.cumsum(dim=1) * real + self.padding)
