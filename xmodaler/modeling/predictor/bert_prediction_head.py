"""The word head of BERT."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.few_rows import linear
from ..layers.head_transform import BertPredictionHeadTransform
from ..stage_keys import STEP_WEIGHTS
from .build import PREDICTOR_REGISTRY
from .states import last_state


@PREDICTOR_REGISTRY.register()
class BertPredictionHead(nn.Module):
    """``logits = W LN(act(W_t h + b_t)) + b`` for every word (Devlin et al. 2019).

    Both texts share it. The weight is not tied to the word embedding.

    Args:
        hidden_size: Width D of the states.
        vocab_size: Number of words V.
        transform: What comes before the projection.
    """

    position_wise = True
    """Logits of a position depend on its own hidden state alone."""

    @configurable
    def __init__(
        self, *, hidden_size: int, vocab_size: int, transform: BertPredictionHeadTransform
    ) -> None:
        super().__init__()
        self.transform = transform
        self.decoder = nn.Linear(hidden_size, vocab_size)
        self.decoder.bias = nn.Parameter(torch.zeros(vocab_size))
        self.bias = self.decoder.bias  # under both names in checkpoints

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "vocab_size": cfg.MODEL.VOCAB_SIZE,
            "transform": BertPredictionHeadTransform(cfg),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [self.transform.dense, self.decoder]

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """U_LOGITS and G_LOGITS (..., V) from U_HIDDEN_STATES and G_HIDDEN_STATES (..., D).

        Of a list of states the last entry counts; a text that is absent gets no logits.
        """
        weights = batched_inputs.get(STEP_WEIGHTS)
        logits = {}
        for states, key in (
            (kfg.U_HIDDEN_STATES, kfg.U_LOGITS),
            (kfg.G_HIDDEN_STATES, kfg.G_LOGITS),
        ):
            if states in batched_inputs:
                hidden = self.transform(last_state(batched_inputs[states]), weights)
                logits[key] = linear(self.decoder, hidden, weights)
        return logits
