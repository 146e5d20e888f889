"""The decoder that reads attributes first."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import DECODER_REGISTRY
from .single_cell_decoder import SingleCellDecoder, State


@DECODER_REGISTRY.register()
class AttributeDecoder(SingleCellDecoder):
    """LSTM-A3 (Yao et al. 2017, "Boosting image captioning with attributes", section 3.3).

    One LSTM reads the probabilities of detected attributes, then the picture, then the words:
    ``LSTM(drop(W_a a))``, ``LSTM(drop(W_v g))``, ``h_t, c_t = LSTM(drop(x_t))``; states begin at
    zero, and the first output follows the word that begins a sentence.

    Args:
        hidden_size: Width H of the LSTM and of all that it reads.
        attribute_dim: Number of attributes A.
        visual_dim: Width D of the picture's vector g.
        dropout: Dropout on everything that the LSTM reads.
    """

    needs_attention = False

    @configurable
    def __init__(
        self, *, hidden_size: int, attribute_dim: int, visual_dim: int, dropout: float
    ) -> None:
        super().__init__(hidden_size=hidden_size, token_embed_dim=hidden_size, dropout=dropout)
        self.attribute_fc = nn.Linear(attribute_dim, hidden_size)
        self.vfeat_fc = nn.Linear(visual_dim, hidden_size)
        self.lstm = nn.LSTMCell(hidden_size, hidden_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        hidden, words = cfg.MODEL.DECODER_DIM, cfg.MODEL.TOKEN_EMBED.DIM
        if hidden != words:
            raise UserError(
                f"MODEL.TOKEN_EMBED.DIM {words} must equal MODEL.DECODER_DIM {hidden} for "
                "AttributeDecoder: one LSTM reads attributes, picture and words"
            )
        return {
            "hidden_size": hidden,
            "attribute_dim": cfg.MODEL.LSTMA.ATTRIBUTE_DIM,
            "visual_dim": cfg.MODEL.VISUAL_EMBED.IN_DIM,
            "dropout": cfg.MODEL.LSTMA.DROPOUT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.LSTMA."""
        cfg.MODEL.LSTMA = CfgNode({"ATTRIBUTE_DIM": 1000, "DROPOUT": 0.5})

    def start_state(self, batched_inputs: dict[str, Any]) -> State:
        """The state after ATTRIBUTE (B, A) and GLOBAL_FEATS (B, D)."""
        setting = "MODEL.LSTMA.ATTRIBUTE_DIM"
        width = self.attribute_fc.in_features
        attributes = self.vector_of(batched_inputs, kfg.ATTRIBUTE, width, setting)
        width = self.vfeat_fc.in_features
        g = self.vector_of(batched_inputs, kfg.GLOBAL_FEATS, width, "MODEL.VISUAL_EMBED.IN_DIM")
        state = self.read(self.attribute_fc(attributes), self.zero_state(g))
        return self.read(self.vfeat_fc(g), state)
