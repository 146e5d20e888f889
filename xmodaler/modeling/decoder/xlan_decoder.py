"""The decoder of X-LAN."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, get_cfg, kfg
from xmodaler.functional import trees
from xmodaler.utils.errors import UserError

from ..attention import LowRankBilinearAttention
from ..encoder.low_rank_bilinear_encoder import add_bilinear_config
from ..layers.caption_plan import Feedback, Staircase, first_of_each
from ..layers.deferred import DeferredWeight
from ..layers.deferred_linears import DeferredLinears
from ..layers.few_rows import are_few, distinct, linear, product
from ..layers.low_rank_bilinear import Apply
from ..layers.lstm import lstm_pointwise
from ..stage_keys import ATTENTION_WEIGHTS, IMAGE_GATES, RETURN_ATTENTION
from .build import DECODER_REGISTRY
from .single_cell_decoder import CONTEXT, WORD, SingleCellDecoder, State
from .xlan_attention import XLANAttention, attentions_from_config


@DECODER_REGISTRY.register()
class XLANDecoder(SingleCellDecoder):
    """An LSTM followed by X-linear attention (Pan et al. 2020, section 3.3).

    ``h_t, c_t = LSTM([x_t; g + drop(o_{t-1})])``, ``a_t = attention(h_t, f)`` with the blocks of
    :class:`XLANAttention`, ``o_t = GLU(W [a_t; h_t] + b)``; the words come from o. All states
    begin at zero.

    ``MODEL.ATTENTION`` is ``LowRankBilinearAttention`` unless the config names another one, which
    then takes the place of the X-linear blocks.

    Args:
        hidden_size: Width D of the states, of the regions f and of the global feature g.
        token_embed_dim: Width E of the word embedding x.
        attentions: One attention per block, from width D to width D.
        dropout: Dropout of what the blocks attend to.
        context_dropout: Dropout of o on its way back into the LSTM.
    """

    num_layers = 2

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        attentions: Sequence[nn.Module],
        dropout: float,
        context_dropout: float,
    ) -> None:
        super().__init__(
            hidden_size=hidden_size, token_embed_dim=token_embed_dim, context_dim=hidden_size
        )
        self.att_lstm = nn.LSTMCell(sum(self.input_widths), hidden_size)
        self.attention = XLANAttention(dim=hidden_size, attentions=attentions, dropout=dropout)
        self.p_att_feats = nn.ModuleList(each.memory_projection() for each in attentions)
        self.att2ctx = nn.Sequential(nn.Linear(2 * hidden_size, 2 * hidden_size), nn.GLU())
        self.context_dropout = nn.Dropout(context_dropout)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.BILINEAR
        for name, width in (
            ("MODEL.DECODER_DIM", cfg.MODEL.DECODER_DIM),
            ("MODEL.VISUAL_EMBED.OUT_DIM", cfg.MODEL.VISUAL_EMBED.OUT_DIM),
        ):
            if width != node.DIM:
                raise UserError(
                    f"{name} is {width} but MODEL.BILINEAR.DIM is {node.DIM}; XLANDecoder adds "
                    "states and regions and needs the same width"
                )
        return {
            "hidden_size": node.DIM,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "attentions": attentions_from_config(cfg),
            "dropout": node.DECODE.DROPOUT,
            "context_dropout": cfg.MODEL.PRED_DROPOUT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.BILINEAR and makes X-linear attention the one to use by default."""
        add_bilinear_config(cfg)
        if cfg.MODEL.ATTENTION == get_cfg().MODEL.ATTENTION:
            cfg.MODEL.ATTENTION = LowRankBilinearAttention.__name__

    @property
    def cell(self) -> nn.LSTMCell:
        """The LSTM."""
        return self.att_lstm

    def step_layers(self) -> list[nn.Linear]:
        """The wide layers that every step runs through."""
        return [self.attention.proj, self.att2ctx[0]]

    def attention_memory(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, a list of what the attention of each block prepares of the images."""
        blocks = zip(self.attention.layers, self.p_att_feats, strict=True)
        return {
            kfg.P_ATT_FEATS: [
                self.memory_of(layer.encoder_attn, projection, batched_inputs)
                for layer, projection in blocks
            ]
        }

    def start_state(self, batched_inputs: dict[str, Any]) -> State:
        """Zeros: h, c and o."""
        h, c = self.zero_state(batched_inputs[kfg.ATT_FEATS])
        return h, c, h

    def prepare_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """IMAGE_GATES (B, 4H), what the global feature adds to the gates at every step."""
        return {IMAGE_GATES: F.linear(self._image(batched_inputs), self._input_weights()[CONTEXT])}

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One step: G_TOKEN_EMBED (R, E) and the states h, o, c (R, D) give new ones.

        HISTORY_STATES (R,) numbers the states: equal numbers, equal states.
        """
        gates = self._word_gates(batched_inputs, self._input_weights()[WORD])
        images = batched_inputs.get(IMAGE_GATES)
        if images is None:
            images = self.prepare_steps(batched_inputs)[IMAGE_GATES]
        gates = gates.unflatten(0, (images.shape[0], -1)) + images.unsqueeze(1)
        gates, c = gates.flatten(0, 1), None
        if batched_inputs[kfg.TIME_STEP] > 0:  # before that all states are zero
            gates, (c,) = gates + self._own_gates(batched_inputs), batched_inputs[kfg.G_CELL_STATES]
        h, c = lstm_pointwise(gates, c)
        wanted = bool(batched_inputs.get(RETURN_ATTENTION, False))
        o, weights = self._output(h, batched_inputs[kfg.P_ATT_FEATS], wanted)
        produced = self._as_keys((h, c, o))
        return {**produced, ATTENTION_WEIGHTS: weights} if wanted else produced

    def unroll(
        self,
        x: Tensor,
        stairs: Staircase,
        batched_inputs: dict[str, Any],
        feedback: Feedback | None = None,
    ) -> Tensor:
        """All steps of given sentences, (n, D); as :meth:`SingleCellDecoder.unroll`."""
        order = stairs.image_order.to(x.device)
        memories = trees.reorder(batched_inputs[kfg.P_ATT_FEATS], order)
        from_input = DeferredWeight(self.cell.weight_ih, self.input_widths)
        from_hidden = DeferredWeight(self.cell.weight_hh)
        apply = DeferredLinears()
        bias = self.input_bias()
        words = stairs.split(from_input.linear(x, bias, WORD))
        images = from_input.linear(
            self._image(batched_inputs).index_select(0, order), block=CONTEXT
        ).unsqueeze(1)
        outputs: list[Tensor] = []
        state: State = ()
        for t, step in enumerate(stairs.steps):
            gates, c = words[t], None
            if t > 0:
                h, c, o = (first_of_each(s, stairs.steps[t - 1], step) for s in state)
                replaced = feedback(t, o) if feedback is not None else None
                if replaced is not None:
                    rows, new = replaced
                    gates = gates.index_copy(0, rows, from_input.linear(new, bias, WORD))
            gates = (gates.unflatten(0, step) + images[: step[0]]).flatten(0, 1)
            if t > 0:
                gates = from_hidden.linear(h, gates)
                gates = from_input.linear(self.context_dropout(o), gates, CONTEXT)
            h, c = lstm_pointwise(gates, c)
            here = trees.map_tensors(lambda m, count=step[0]: m[:count], memories)
            o, _ = self._output(h, here, apply=apply)
            state = (h, c, o)
            outputs.append(o)
        return torch.cat(outputs)

    def _output(
        self,
        hidden: Tensor,
        memories: Sequence[dict[str, Tensor]],
        need_weights: bool = False,
        apply: Apply = linear,
    ) -> tuple[Tensor, Tensor | None]:
        """o (R, D) and the attention weights (R, N) from h (R, D)."""
        attended, weights = self.attention(hidden, memories, need_weights, apply)
        return F.glu(apply(self.att2ctx[0], torch.cat([attended, hidden], dim=-1))), weights

    def _own_gates(self, batched_inputs: dict[str, Any]) -> Tensor:
        """What h and o add to the gates; computed once for hypotheses that share them."""
        h, o = batched_inputs[kfg.G_HIDDEN_STATES]
        own, weight = self.cell.weight_hh, self._input_weights()[CONTEXT]
        if self.training or not are_few(h.shape[0], h):
            return F.linear(h, own) + F.linear(self.context_dropout(o), weight)
        row, place = distinct(batched_inputs[kfg.HISTORY_STATES])
        h, o = h.index_select(0, row), o.index_select(0, row)
        return product(h, own, product(o, weight)).index_select(0, place)

    def _input_weights(self) -> tuple[Tensor, ...]:
        return self.cell.weight_ih.split(self.input_widths, dim=1)

    def _image(self, batched_inputs: dict[str, Any]) -> Tensor:
        return self.global_feature(batched_inputs, self.hidden_size, "MODEL.BILINEAR.DIM")

    def _as_keys(self, state: State) -> dict[str, Any]:
        h, c, o = state
        return {
            kfg.G_HIDDEN_STATES: [h, o],
            kfg.G_CELL_STATES: [c],
            **self.state_numbers(h),
        }
