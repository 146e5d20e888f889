"""A convolutional decoder of captions."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable
from xmodaler.utils.errors import UserError

from ..attention import build_attention
from ..encoder.conv_encoder import conv_node
from ..encoder.transformer_encoder import visual_width_keys
from .build import DECODER_REGISTRY
from .causal_conv_decoder import CausalConvDecoder


@DECODER_REGISTRY.register()
class ConvDecoder(CausalConvDecoder):
    """Causal convolutions over the words with attention after every layer (Aneja et al. 2018).

    The equations are those of :class:`CausalConvDecoder`. Each layer has an attention of its own:
    the one that MODEL.ATTENTION names, where the paper weighs dot products.

    Args:
        hidden_size: Width D of features and layers.
        token_embed_dim: Width E of the word embedding.
        kernel_sizes: k of each layer.
        conv_dropout: Dropout of the convolutions and around them.
        use_norm: Whether weights are weight-normed, except those of the attentions.
        attentions: A :class:`~xmodaler.modeling.attention.CrossAttention` per layer.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        kernel_sizes: Sequence[int],
        conv_dropout: float,
        use_norm: bool,
        attentions: Sequence[nn.Module],
    ) -> None:
        super().__init__(
            hidden_size=hidden_size,
            token_embed_dim=token_embed_dim,
            kernel_sizes=kernel_sizes,
            conv_dropout=conv_dropout,
            use_norm=use_norm,
        )
        self.att = nn.ModuleList(attentions)
        self.p_att_feats = nn.ModuleList(attention.memory_projection() for attention in self.att)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.CONV.DECODER
        ((key, width),) = visual_width_keys(cfg).items()
        if cfg.MODEL.PREDICTOR == "BasePredictor" and width != cfg.MODEL.DECODER_DIM:
            raise UserError(
                f"ConvDecoder adds what it sees to its states, so {key} and MODEL.DECODER_DIM must "
                f"be equal, but they are {width} and {cfg.MODEL.DECODER_DIM}"
            )
        return {
            "hidden_size": width,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "kernel_sizes": node.KERNEL_SIZES,
            "conv_dropout": node.DROPOUT,
            "use_norm": node.USE_NORM,
            "attentions": [
                build_attention(
                    cfg,
                    query_dim=width,
                    memory_dim=width,
                    embed_dim=node.ATT_EMBED_SIZE,
                    dropout=node.ATT_EMBED_DROPOUT,
                )
                for _ in node.KERNEL_SIZES
            ],
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.CONV.DECODER."""
        conv_node(cfg).DECODER = CfgNode(
            {
                "KERNEL_SIZES": [5, 5, 5],  # one per layer
                "DROPOUT": 0.1,
                "ATT_EMBED_SIZE": 256,
                "ATT_EMBED_DROPOUT": 0.0,
                "USE_NORM": True,  # weight norm
            }
        )

    def memories(self, feats: Tensor, mask: Tensor) -> list[Any]:
        """As :meth:`CausalConvDecoder.memories`."""
        pairs = zip(self.att, self.p_att_feats, strict=True)
        return [attention.precompute(feats, mask, project(feats)) for attention, project in pairs]

    def attend(
        self, layer: int, query: Tensor, memory: Any, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CausalConvDecoder.attend`."""
        return self.att[layer](query, memory, need_weights)
