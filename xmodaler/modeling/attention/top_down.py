"""Top-down attention as a switchable stage."""

import torch
from torch import Tensor, nn

from xmodaler.config import configurable

from .additive import AdditiveAttention
from .build import ATTENTION_REGISTRY


@ATTENTION_REGISTRY.register()
class TopDownAttention(AdditiveAttention):
    """Attention to objects by gated tanh units (Anderson et al. 2018, section 3.3, eq. 7 to 10).

    ``score_n = w_a . dropout(tanh(y_n) * sigmoid(z_n)) + mask_n`` with
    ``[y_n; z_n] = W_h h + W_p f_n + b_p``. The captioner of the same paper has no gate
    (section 3.2, eq. 4): that is :class:`AdditiveAttention`.

    Args:
        query_dim: Width of the query.
        memory_dim: Width of the features.
        embed_dim: Width in which the two are compared.
        dropout: Dropout after the gate.
    """

    @configurable
    def __init__(
        self, *, query_dim: int, memory_dim: int, embed_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__(
            query_dim=query_dim, memory_dim=memory_dim, embed_dim=embed_dim, dropout=dropout
        )
        self.w_h = nn.Linear(query_dim, 2 * embed_dim, bias=False)

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """(..., G, 1, 2E) and (..., 1, N, 2E) -> (..., G, N)."""
        signal, gate = (query + keys).chunk(2, dim=-1)
        joint = torch.tanh(signal) * torch.sigmoid(gate)
        if self.dropout is not None:
            joint = self.dropout(joint)
        return self.w_alpha(joint).squeeze(-1)
