"""The head of single-stream models that scores pairs of pictures and texts."""

from torch import Tensor

from .build import PREDICTOR_REGISTRY
from .single_stream_mm_predictor import SingleStreamMultiModalPredictor


@PREDICTOR_REGISTRY.register()
class SingleStreamMultiModalSimilarity(SingleStreamMultiModalPredictor):
    """As :class:`SingleStreamMultiModalPredictor`, but the logits themselves are the result.

    With one label, OUTPUT (R, 1) says how well a text fits its picture; higher is better.
    """

    def output(self, logits: Tensor) -> Tensor:
        """The scores (R, C)."""
        return logits
