"""The decoder of TDConvED."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xmodaler.config import CfgNode, configurable

from ..encoder.tdconved_encoder import check_tdconved_widths, tdconved_node
from ..layers.soft_attention import SoftAttention
from ..layers.weight_norm import linear_layer
from .build import DECODER_REGISTRY
from .causal_conv_decoder import CausalConvDecoder


@DECODER_REGISTRY.register()
class TDConvEDDecoder(CausalConvDecoder):
    """Causal convolutions over the words, then attention to the frames (Chen et al. 2019, 3.3).

    The equations are those of :class:`CausalConvDecoder`; only the last layer is followed by
    attention, which is additive and weight-normed.

    Args:
        num_hidden_layers: Unused; the number of layers is that of the kernel sizes.
        hidden_size: Width D of frames, words and layers.
        kernel_sizes: k of each layer.
        conv_dropout: Dropout of the convolutions and around them.
        att_embed_size: Inner width of the attention.
        att_embed_dropout: Dropout inside the attention.
        use_norm: Whether weights are weight-normed.
        token_embed_dim: Width of the word embedding, D by default.
    """

    @configurable
    def __init__(
        self,
        *,
        num_hidden_layers: int,
        hidden_size: int,
        kernel_sizes: Sequence[int],
        conv_dropout: float,
        att_embed_size: int,
        att_embed_dropout: float,
        use_norm: bool,
        token_embed_dim: int | None = None,
    ) -> None:
        super().__init__(
            hidden_size=hidden_size,
            token_embed_dim=token_embed_dim or hidden_size,
            kernel_sizes=kernel_sizes,
            conv_dropout=conv_dropout,
            use_norm=use_norm,
        )
        self.p_att_feats = linear_layer(hidden_size, att_embed_size, use_norm)
        self.att = SoftAttention(
            hidden_size=hidden_size,
            att_embed_size=att_embed_size,
            att_embed_dropout=att_embed_dropout,
            use_norm=use_norm,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.TDCONVED.DECODER
        check_tdconved_widths(cfg, "MODEL.TDCONVED.DECODER.HIDDEN_SIZE", node.HIDDEN_SIZE)
        return {
            "num_hidden_layers": node.NUM_HIDDEN_LAYERS,
            "hidden_size": node.HIDDEN_SIZE,
            "kernel_sizes": node.KERNEL_SIZES,
            "conv_dropout": node.DROPOUT,
            "att_embed_size": node.ATT_EMBED_SIZE,
            "att_embed_dropout": node.ATT_EMBED_DROPOUT,
            "use_norm": node.USE_NORM,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.TDCONVED.DECODER."""
        tdconved_node(cfg).DECODER = CfgNode(
            {
                "NUM_HIDDEN_LAYERS": 2,
                "HIDDEN_SIZE": 512,
                "KERNEL_SIZES": [3, 3],
                "DROPOUT": 0.5,
                "ATT_EMBED_SIZE": 256,
                "ATT_EMBED_DROPOUT": 0.5,
                "USE_NORM": True,
            }
        )

    def memories(self, feats: Tensor, mask: Tensor) -> list[Any]:
        """As :meth:`CausalConvDecoder.memories`."""
        projected = self.dropout(self.p_att_feats(feats))
        memory = {"memory": feats, "keys": projected, "mask": mask}
        return [None] * (self.num_layers - 1) + [memory]

    def attend(
        self, layer: int, query: Tensor, memory: Any, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CausalConvDecoder.attend`."""
        return self.att.attend(query, memory["memory"], memory["keys"], memory["mask"])
