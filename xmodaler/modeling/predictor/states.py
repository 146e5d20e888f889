"""Reading the hidden states that encoders and decoders leave."""

from torch import Tensor


def last_state(states: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """The states of the last layer, whether a stage keeps those of every layer or only these."""
    return states[-1] if isinstance(states, list | tuple) else states
