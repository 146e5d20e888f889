"""The soft-attention decoder."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg

from .build import DECODER_REGISTRY
from .single_cell_decoder import SingleCellDecoder, State


@DECODER_REGISTRY.register()
class SALSTMDecoder(SingleCellDecoder):
    """An LSTM that looks at the picture before every word.

    On pictures Xu et al. 2015, "Show, attend and tell", section 3.1; on frames of a video Yao et
    al. 2015, "Describing videos by exploiting temporal structure", section 3.2 ("TA").
    ``a_t = att(h_{t-1}, f)``, ``h_t, c_t = LSTM([x_t; a_t])``; states begin at zero.

    Args:
        hidden_size: Width H of the LSTM.
        token_embed_dim: Width E of the word embedding x.
        visual_embed_dim: Width D of the regions or frames f.
        attention: The cross-modal attention.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        visual_embed_dim: int,
        attention: nn.Module,
    ) -> None:
        super().__init__(
            hidden_size=hidden_size,
            token_embed_dim=token_embed_dim,
            context_dim=visual_embed_dim,
        )
        self.lstm = nn.LSTMCell(sum(self.input_widths), hidden_size)
        self.att = attention
        self.p_att_feats = attention.memory_projection()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        hidden, memory = cfg.MODEL.DECODER_DIM, cfg.MODEL.VISUAL_EMBED.OUT_DIM
        node = cfg.MODEL.SALSTM
        return {
            "hidden_size": hidden,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "visual_embed_dim": memory,
            "attention": cls.attention_from_config(
                cfg, hidden, memory, node.ATT_EMBED_SIZE, node.ATT_EMBED_DROPOUT
            ),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.SALSTM."""
        cfg.MODEL.SALSTM = CfgNode({"ATT_EMBED_SIZE": 512, "ATT_EMBED_DROPOUT": 0.0})

    def start_state(self, batched_inputs: dict[str, Any]) -> State:
        """Zeros."""
        return self.zero_state(batched_inputs[kfg.ATT_FEATS])
