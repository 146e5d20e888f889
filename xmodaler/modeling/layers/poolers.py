"""The pooler of BERT."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable


class BertPooler(nn.Module):
    """``tanh(W h_0 + b)`` of the state at the first position (Devlin et al. 2019).

    Args:
        hidden_size: Width D.
    """

    @configurable
    def __init__(self, *, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE}

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(R, T, D), or the first positions (R, D) alone -> (R, D)."""
        first = hidden_states[:, 0] if hidden_states.dim() == 3 else hidden_states
        return torch.tanh(self.dense(first))
