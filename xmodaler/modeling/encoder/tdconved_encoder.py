"""The encoder of TDConvED."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.temporal_deform import TemporalDeformableLayer
from .build import ENCODER_REGISTRY
from .transformer_encoder import visual_width_keys


def tdconved_node(cfg: CfgNode) -> CfgNode:
    """MODEL.TDCONVED, created if it is not there; encoder and decoder each add their part."""
    if "TDCONVED" not in cfg.MODEL:
        cfg.MODEL.TDCONVED = CfgNode()
    return cfg.MODEL.TDCONVED


def check_tdconved_widths(cfg: CfgNode, key: str, width: int) -> None:
    """Refuse features or, for a predictor of words, hidden states of another width than a layer's.

    Args:
        cfg: The config.
        key: The setting of the layer's width, for the message.
        width: Its value.
    """
    others = visual_width_keys(cfg)
    if cfg.MODEL.PREDICTOR == "BasePredictor":
        others["MODEL.DECODER_DIM"] = cfg.MODEL.DECODER_DIM
    for other, value in others.items():
        if value != width:
            raise UserError(f"{key} is {width} but {other} is {value}; the two must be equal")


@ENCODER_REGISTRY.register()
class TDConvEDEncoder(nn.Module):
    """A stack of temporal deformable convolutions over frames (Chen et al. 2019, section 3.2).

    See :class:`~xmodaler.modeling.layers.temporal_deform.TemporalDeformableBlock` for the two ways
    of sampling: the one of released weights, in which the encoding of a clip depends on how far its
    batch is padded, and one in which it depends on the clip alone. A clip may have one frame, or
    none.

    Args:
        num_hidden_layers: Unused; the number of layers is that of the kernel sizes.
        hidden_size: Width D.
        kernel_sizes: Number of taps of each layer.
        padding_mode: What lies beyond a clip, in compatible mode.
        offset_act: Activation of the offsets.
        min_idx: Unused, as are the next two.
        max_idx: Unused.
        clamp_idx: Unused.
        dropout: Dropout of each layer.
        use_norm: Whether kernels are weight-normed.
        compatible: Sample as released weights need it.
    """

    @configurable
    def __init__(
        self,
        *,
        num_hidden_layers: int,
        hidden_size: int,
        kernel_sizes: Sequence[int],
        padding_mode: str,
        offset_act: str,
        min_idx: float,
        max_idx: float,
        clamp_idx: bool,
        dropout: float,
        use_norm: bool,
        compatible: bool = True,
    ) -> None:
        super().__init__()
        self.compatible = compatible
        self.layers = nn.ModuleList(
            TemporalDeformableLayer(
                hidden_size,
                hidden_size,
                size,
                padding_mode=padding_mode,
                offset_act=offset_act,
                min_idx=min_idx,
                max_idx=max_idx,
                clamp_idx=clamp_idx,
                dropout=dropout,
                use_norm=use_norm,
                compatible=compatible,
            )
            for size in kernel_sizes
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.TDCONVED.ENCODER
        check_tdconved_widths(cfg, "MODEL.TDCONVED.ENCODER.HIDDEN_SIZE", node.HIDDEN_SIZE)
        return {
            "num_hidden_layers": node.NUM_HIDDEN_LAYERS,
            "hidden_size": node.HIDDEN_SIZE,
            "kernel_sizes": node.KERNEL_SIZES,
            "padding_mode": node.PADDING_MODE,
            "offset_act": node.OFFSET_ACT,
            "min_idx": node.OFFSET_MIN,
            "max_idx": node.OFFSET_MAX,
            "clamp_idx": node.CLAMP_OFFSET,
            "dropout": node.DROPOUT,
            "use_norm": node.USE_NORM,
            "compatible": node.COMPATIBLE,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.TDCONVED.ENCODER."""
        tdconved_node(cfg).ENCODER = CfgNode(
            {
                "NUM_HIDDEN_LAYERS": 2,
                "HIDDEN_SIZE": 512,
                "KERNEL_SIZES": [3, 3],
                "PADDING_MODE": "border",
                "OFFSET_ACT": "tanh",
                "OFFSET_MIN": -1.0,
                "OFFSET_MAX": 1.0,
                "CLAMP_OFFSET": True,
                "DROPOUT": 0.5,
                "USE_NORM": True,
                # False: the encoding of a clip does not depend on its batch.
                "COMPATIBLE": True,
            }
        )

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """ATT_FEATS (B, F, D) encoded, in mode 'v'."""
        if mode is not None and "v" not in mode:
            return {}
        x = batched_inputs[kfg.ATT_FEATS]
        mask = None if self.compatible else batched_inputs[kfg.ATT_MASKS]
        for layer in self.layers:
            x = layer(x, mask)
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        return {kfg.ATT_FEATS: x}
