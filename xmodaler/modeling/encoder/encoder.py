"""The encoder that leaves everything as it is."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .build import ENCODER_REGISTRY


@ENCODER_REGISTRY.register()
class Encoder(nn.Module):
    """Produces nothing: the decoder reads the embedded features."""

    accepts_packing = True

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """Returns an empty dict in every mode."""
        return {}
