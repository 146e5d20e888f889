"""The head that tells whether a text belongs to a picture."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.poolers import BertPooler
from .build import PREDICTOR_REGISTRY
from .states import last_state


@PREDICTOR_REGISTRY.register()
class BertIsMatchedPredictor(nn.Module):
    """``logits = W pooler(h) + b``: column 0 is "matched", column 1 "mismatched".

    Image-text matching of Chen et al. (ECCV 2020, section 3.2), next-sentence prediction of
    Devlin et al. (2019) in form.

    Args:
        hidden_size: Width D of the states.
        pooler: Makes one vector of the states of a text.
    """

    reads_first_word = True
    """Of the states of a text, only the first is read."""

    @configurable
    def __init__(self, *, hidden_size: int, pooler: BertPooler) -> None:
        super().__init__()
        self.pooler = pooler
        self.is_match_cls = nn.Linear(hidden_size, 2)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE, "pooler": BertPooler(cfg)}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """ITM_LOGITS (R, 2) from U_HIDDEN_STATES (R, T, D), the last entry if it is a list."""
        states = last_state(batched_inputs[kfg.U_HIDDEN_STATES])
        return {kfg.ITM_LOGITS: self.is_match_cls(self.pooler(states))}
