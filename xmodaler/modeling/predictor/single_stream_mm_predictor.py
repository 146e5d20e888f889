"""The head of single-stream models that chooses among answers."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.config import CfgNode as CN

from ..layers.poolers import BertPooler
from .build import PREDICTOR_REGISTRY
from .states import last_state


@PREDICTOR_REGISTRY.register()
class SingleStreamMultiModalPredictor(nn.Module):
    """``logits = W pooler(h) + b`` over labels, from the state of the first word.

    Chen et al. (ECCV 2020, section 4).

    Args:
        hidden_size: Width D of the states.
        labels_num: Number of labels C.
        pooler: Makes one vector of the states of a text.
    """

    reads_first_word = True
    """Of the states of a text, only the first is read."""

    @configurable
    def __init__(self, *, hidden_size: int, labels_num: int, pooler: BertPooler) -> None:
        super().__init__()
        self.pooler = pooler
        self.cls = nn.Linear(hidden_size, labels_num)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "labels_num": cfg.MODEL.MM_PREDICTOR.LABELS_NUM,
            "pooler": BertPooler(cfg),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates ``MODEL.MM_PREDICTOR.LABELS_NUM``."""
        cfg.MODEL.MM_PREDICTOR = CN()
        cfg.MODEL.MM_PREDICTOR.LABELS_NUM = 3129

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Score every label.

        Args:
            batched_inputs: U_HIDDEN_STATES (R, T, D), or the first words' (R, D) alone; of a list
                the last entry.

        Returns:
            U_LOGITS (R, C), and outside of training what :meth:`output` makes of it.
        """
        logits = self.cls(self.pooler(last_state(batched_inputs[kfg.U_HIDDEN_STATES])))
        produced = {kfg.U_LOGITS: logits}
        if not self.training:
            produced[kfg.OUTPUT] = self.output(logits)
        return produced

    def output(self, logits: Tensor) -> Tensor:
        """The best label of every row, (R,) int64."""
        return logits.argmax(dim=-1)
