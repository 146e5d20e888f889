"""Single-stream models that are fine-tuned for a task of understanding."""

import logging
import re
from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..predictor import BertIsMatchedPredictor
from .batches import Batch, without_internal
from .build import META_ARCH_REGISTRY
from .encoder_only import EncoderOnlyModel, first_words

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class UniterForMMUnderstanding(EncoderOnlyModel):
    """An encoder of words and regions and a head that chooses (Chen et al., ECCV 2020, section 4).

    The pooler of the pre-trained image-text matching head is where the pooler of the new head
    starts: loading weights that hold ``itm_predictor.pooler`` and no ``predictor.pooler`` copies
    the one to the other. Weights that were fine-tuned hold both, and nothing is copied then.

    Args:
        itm_predictor: The matching head of pre-training; kept so that its weights are loaded.
        **parts: As for :class:`BaseEncoderDecoder`.
    """

    binds_at_load = True
    """Trainers need not call :meth:`bind_or_init_weights`: loading does what it takes."""

    @configurable
    def __init__(self, *, itm_predictor: BertIsMatchedPredictor, **parts: Any) -> None:
        super().__init__(**parts)
        if self.predictor is None:
            raise UserError(
                f"{type(self).__name__} needs a head; MODEL.PREDICTOR is '', it may be "
                "SingleStreamMultiModalPredictor"
            )
        self.itm_predictor = itm_predictor
        self.register_load_state_dict_post_hook(_bind_pretrained)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "itm_predictor": BertIsMatchedPredictor(cfg)}

    def bind_or_init_weights(self) -> None:
        """Start the pooler of the head from that of the pre-trained matching head."""
        pooler = getattr(self.predictor, "pooler", None)
        if pooler is not None:
            pooler.load_state_dict(self.itm_predictor.pooler.state_dict())

    def _forward(self, batched_inputs: Batch) -> Batch:
        """U_LOGITS (R, C), and outside of training OUTPUT; see the head for what it holds."""
        batch = self._embed(batched_inputs)
        selected = self._encode_pairs(batch, first_words(batch, self.predictor))
        batch.update(self.predictor(batch))
        if selected:
            del batch[kfg.U_HIDDEN_STATES], batch[kfg.ATT_FEATS]
        return without_internal(batch)


def _bind_pretrained(model: nn.Module, incompatible: Any) -> None:
    """After loading: bind if the weights were those of pre-training."""
    missing = incompatible.missing_keys
    absent = [key for key in missing if re.search(r"(^|\.)predictor\.pooler\.", key)]
    if not absent or any(".itm_predictor.pooler." in f".{key}" for key in missing):
        return
    model.bind_or_init_weights()
    for key in absent:
        missing.remove(key)
    logger.info("The loaded weights have no predictor.pooler; it starts as itm_predictor.pooler.")
