"""The word head."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.few_rows import linear
from ..stage_keys import STEP_WEIGHTS
from .build import PREDICTOR_REGISTRY


@PREDICTOR_REGISTRY.register()
class BasePredictor(nn.Module):
    """``logits = W dropout(h) + b`` for every word; the weight is not tied to the embedding.

    Args:
        hidden_size: Width of the decoder.
        vocab_size: Number of words V.
        dropout: Dropout before the projection.
    """

    position_wise = True
    """Logits of a position depend on its own hidden state alone."""

    @configurable
    def __init__(self, *, hidden_size: int, vocab_size: int, dropout: float) -> None:
        super().__init__()
        self.logits = nn.Linear(hidden_size, vocab_size)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.DECODER_DIM,
            "vocab_size": cfg.MODEL.VOCAB_SIZE,
            "dropout": cfg.MODEL.PRED_DROPOUT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [self.logits]

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """G_LOGITS (..., V) from G_HIDDEN_STATES (..., H), the last entry if it is a list."""
        hidden = batched_inputs[kfg.G_HIDDEN_STATES]
        if isinstance(hidden, list | tuple):
            hidden = hidden[-1]
        if self.dropout is not None:
            hidden = self.dropout(hidden)
        return {kfg.G_LOGITS: linear(self.logits, hidden, batched_inputs.get(STEP_WEIGHTS))}
