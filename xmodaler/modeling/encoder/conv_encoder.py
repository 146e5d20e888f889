"""A convolutional encoder of pictures."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.gated_conv import GatedConvLayer
from ..layers.masking import as_bool
from .build import ENCODER_REGISTRY
from .transformer_encoder import visual_width_keys


def conv_node(cfg: CfgNode) -> CfgNode:
    """MODEL.CONV, created if it is not there; encoder and decoder each add their part."""
    if "CONV" not in cfg.MODEL:
        cfg.MODEL.CONV = CfgNode()
    return cfg.MODEL.CONV


@ENCODER_REGISTRY.register()
class ConvEncoder(nn.Module):
    """Gated convolutions over a grid of cells, or over a sequence of regions or frames.

    The layers are those of convolutional sequence models (Gehring et al. 2017, section 3.2), as in
    convolutional captioning (Aneja et al. 2018). Padding is zero to every layer, so what is behind
    the last region is like what is beyond the edge, and a picture's encoding does not depend
    on its batch.

    Args:
        hidden_size: Width D.
        kernel_sizes: Cells along each dimension that a layer sees, odd; one number per layer.
        grid: Whether the cells form a grid, row by row.
        grid_width: Cells in a row of the grid; 0 for a square grid.
        dropout: Dropout of each layer.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        kernel_sizes: Sequence[int],
        grid: bool = False,
        grid_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid, self.grid_width = grid, grid_width
        self.layers = nn.ModuleList(
            GatedConvLayer(hidden_size, size, grid, dropout) for size in kernel_sizes
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.CONV.ENCODER
        (width,) = visual_width_keys(cfg).values()
        return {
            "hidden_size": width,
            "kernel_sizes": node.KERNEL_SIZES,
            "grid": node.GRID,
            "grid_width": node.GRID_WIDTH,
            "dropout": node.DROPOUT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.CONV.ENCODER."""
        conv_node(cfg).ENCODER = CfgNode(
            {
                "KERNEL_SIZES": [3, 3],  # one per layer
                "GRID": False,  # the features are cells of a grid, row by row
                "GRID_WIDTH": 0,  # cells in a row; 0: the grid is square
                "DROPOUT": 0.1,
            }
        )

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """ATT_FEATS (B, N, D) encoded, zero where masked, in mode 'v'."""
        if mode is not None and "v" not in mode:
            return {}
        feats = batched_inputs[kfg.ATT_FEATS]
        visible = as_bool(batched_inputs[kfg.ATT_MASKS])
        if feats.shape[1] == 0:
            return {kfg.ATT_FEATS: feats}
        shape = self._shape(feats.shape[1])
        x = feats.transpose(1, 2).unflatten(2, shape)
        shown = visible.unsqueeze(1).unflatten(2, shape)
        for layer in self.layers:
            x = layer(x, shown)
        x = x.flatten(2).transpose(1, 2)
        return {kfg.ATT_FEATS: x.masked_fill(~visible.unsqueeze(-1), 0.0)}

    def _shape(self, cells: int) -> tuple[int, ...]:
        """(N,), or (H, W) of a grid."""
        if not self.grid:
            return (cells,)
        width = self.grid_width or math.isqrt(cells)
        if cells % width or (self.grid_width == 0 and width * width != cells):
            expected = f"rows of {width}" if self.grid_width else "a square"
            raise UserError(
                f"{kfg.ATT_FEATS} has {cells} cells, which do not form {expected}; set "
                "MODEL.CONV.ENCODER.GRID_WIDTH to the number of cells in a row"
            )
        return (cells // width, width)
