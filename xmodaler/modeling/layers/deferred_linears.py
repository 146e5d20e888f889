"""Linear layers inside a recurrence, whose weight gradients are computed once for all steps."""

from torch import Tensor, nn

from .deferred import DeferredWeight


class DeferredLinears:
    """Applies linear layers as they are, but collects the gradients of their weights.

    Valid for one forward and the backward passes through it, as :class:`DeferredWeight`.
    """

    def __init__(self) -> None:
        self._weights: dict[nn.Linear, DeferredWeight] = {}

    def __call__(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """``layer(x)`` for rows x (rows, in)."""
        if layer not in self._weights:
            self._weights[layer] = DeferredWeight(layer.weight)
        return self._weights[layer].linear(x, layer.bias)
