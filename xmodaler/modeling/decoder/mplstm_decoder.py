"""The mean-pooling decoder."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import DECODER_REGISTRY
from .single_cell_decoder import SingleCellDecoder, State


@DECODER_REGISTRY.register()
class MPLSTMDecoder(SingleCellDecoder):
    """An LSTM that reads the mean frame as its first word (Venugopalan et al. 2015, section 3).

    ``h, c = LSTM(g)`` from zero states, then ``h_t, c_t = LSTM(x_t)`` for every word.

    Args:
        hidden_size: Width H of the LSTM.
        token_embed_dim: Width E of the word embedding x and of the mean frame g.
    """

    needs_attention = False

    @configurable
    def __init__(self, *, hidden_size: int, token_embed_dim: int) -> None:
        super().__init__(hidden_size=hidden_size, token_embed_dim=token_embed_dim)
        self.lstm = nn.LSTMCell(token_embed_dim, hidden_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        width, visual = cfg.MODEL.TOKEN_EMBED.DIM, cfg.MODEL.VISUAL_EMBED.OUT_DIM
        if width != visual:
            raise UserError(
                f"MODEL.VISUAL_EMBED.OUT_DIM {visual} must equal MODEL.TOKEN_EMBED.DIM {width} "
                "for MPLSTMDecoder: one LSTM reads the mean frame and the words"
            )
        return {"hidden_size": cfg.MODEL.DECODER_DIM, "token_embed_dim": width}

    def start_state(self, batched_inputs: dict[str, Any]) -> State:
        """The state after GLOBAL_FEATS (B, E)."""
        (width,) = self.input_widths
        g = self.vector_of(batched_inputs, kfg.GLOBAL_FEATS, width, "MODEL.VISUAL_EMBED.OUT_DIM")
        return self.read(g, self.zero_state(g))
