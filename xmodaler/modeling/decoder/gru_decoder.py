"""The GRU decoder."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.gru import gru_pointwise
from .build import DECODER_REGISTRY
from .single_cell_decoder import HiddenGates, SingleCellDecoder, State


@DECODER_REGISTRY.register()
class GRUDecoder(SingleCellDecoder):
    """A gated recurrent unit, with or without attention (Bahdanau et al. 2015, appendix A.2.2).

    ``h_0 = tanh(W_g g + b_g)``, ``a_t = att(h_{t-1}, f)``, ``h_t = GRU(dropout([x_t; a_t]))``.
    With an empty ``MODEL.ATTENTION`` the words alone are read and the picture speaks through h_0,
    as in the encoder-decoder of Cho et al. 2014.

    Args:
        hidden_size: Width H of the state.
        token_embed_dim: Width E of the word embedding x.
        visual_embed_dim: Width D of the regions f and of the global feature g.
        dropout: Dropout on the input of the cell.
        attention: The cross-modal attention, or None.
    """

    needs_attention = False
    state_keys: ClassVar[tuple[str, ...]] = (kfg.G_HIDDEN_STATES,)

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        visual_embed_dim: int,
        dropout: float = 0.0,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__(
            hidden_size=hidden_size,
            token_embed_dim=token_embed_dim,
            context_dim=0 if attention is None else visual_embed_dim,
            dropout=dropout,
        )
        self.gru = nn.GRUCell(sum(self.input_widths), hidden_size)
        self.first_state = nn.Linear(visual_embed_dim, hidden_size)
        self.att = attention
        self.p_att_feats = None if attention is None else attention.memory_projection()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        hidden, memory = cfg.MODEL.DECODER_DIM, cfg.MODEL.VISUAL_EMBED.OUT_DIM
        node = cfg.MODEL.GRU
        return {
            "hidden_size": hidden,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "visual_embed_dim": memory,
            "dropout": node.DROPOUT,
            "attention": cls.attention_from_config(
                cfg, hidden, memory, node.ATT_EMBED_SIZE, node.ATT_EMBED_DROPOUT
            ),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.GRU."""
        cfg.MODEL.GRU = CfgNode({"ATT_EMBED_SIZE": 512, "ATT_EMBED_DROPOUT": 0.0, "DROPOUT": 0.0})

    @property
    def cell(self) -> nn.GRUCell:
        """The GRU."""
        return self.gru

    def input_bias(self) -> Tensor:
        """(3H,): the input's bias; that of the state stays apart, since a gate scales it."""
        return self.gru.bias_ih

    def advance(self, from_input: Tensor, hidden_gates: HiddenGates, state: State) -> State:
        """The next state; arguments as in :meth:`SingleCellDecoder.advance`."""
        return (gru_pointwise(from_input, hidden_gates(self.gru.bias_hh), state[0]),)

    def start_state(self, batched_inputs: dict[str, Any]) -> State:
        """``tanh`` of a projection of GLOBAL_FEATS (B, D)."""
        width = self.first_state.in_features
        g = self.vector_of(batched_inputs, kfg.GLOBAL_FEATS, width, "MODEL.VISUAL_EMBED.OUT_DIM")
        return (torch.tanh(self.first_state(g)),)
