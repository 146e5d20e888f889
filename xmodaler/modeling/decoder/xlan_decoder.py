"""The decoder of X-LAN."""

from collections.abc import Sequence
from functools import partial
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
from ..layers.few_rows import are_few, distinct, linear, multiply
from ..layers.low_rank_bilinear import Apply
from ..layers.lstm import lstm_pointwise
from ..layers.word_products import WordProducts
from ..stage_keys import (
    ATTENTION_WEIGHTS,
    IMAGE_GATES,
    RETURN_ATTENTION,
    STEP_WEIGHTS,
    WORD_PRODUCTS,
)
from .build import DECODER_REGISTRY
from .recurrent_decoder import RecurrentDecoder
from .xlan_attention import XLANAttention, attentions_from_config

WORD, CONTEXT = range(2)
"""The inputs of the LSTM, in the order of the columns of its weight."""


@DECODER_REGISTRY.register()
class XLANDecoder(RecurrentDecoder):
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
        super().__init__()
        self.hidden_size = hidden_size
        self.input_widths = (token_embed_dim, hidden_size)
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

    def step_layers(self) -> list[nn.Linear | Tensor]:
        """The weights that every step multiplies by."""
        lstm = [self.att_lstm.weight_ih, self.att_lstm.weight_hh]
        return [*lstm, *self.attention.step_layers(), self.att2ctx[0]]

    def attention_memory(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, a list of what the attention of each block prepares of the images."""
        blocks = zip(self.attention.layers, self.p_att_feats, strict=True)
        return {
            kfg.P_ATT_FEATS: [
                self.memory_of(layer.encoder_attn, projection, batched_inputs)
                for layer, projection in blocks
            ]
        }

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS and zero states h, o and c (B, D)."""
        feats = batched_inputs[kfg.ATT_FEATS]
        zeros = self.att_lstm.weight_hh.new_zeros(feats.shape[0], self.hidden_size)
        return {**self.attention_memory(batched_inputs), **self._as_keys(zeros, zeros, zeros)}

    def prepare_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """IMAGE_GATES (B, 4D), what the global feature adds to the gates at every step.

        And WORD_PRODUCTS, where the steps of a batch share what words add.
        """
        _, of_context = self.att_lstm.weight_ih.split(self.input_widths, dim=1)
        bias = self.att_lstm.bias_ih + self.att_lstm.bias_hh
        gates = F.linear(self._image(batched_inputs), of_context, bias)
        words = WordProducts(self.att_lstm.weight_ih, slice(self.input_widths[WORD]))
        return {IMAGE_GATES: gates, WORD_PRODUCTS: words}

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One step: G_TOKEN_EMBED (R, E) and the states h, o, c (R, D) give new ones.

        HISTORY_STATES (R,) numbers the states: equal numbers, equal states.
        """
        x, copies = batched_inputs[kfg.G_TOKEN_EMBED], batched_inputs.get(STEP_WEIGHTS)
        if IMAGE_GATES not in batched_inputs:
            batched_inputs = {**batched_inputs, **self.prepare_steps(batched_inputs)}
        shares = are_few(x.shape[0], x) and not self.training
        words, own = self._shared_gates(batched_inputs) if shares else self._gates(batched_inputs)
        images, c = batched_inputs[IMAGE_GATES], None
        gates = (words.unflatten(0, (images.shape[0], -1)) + images.unsqueeze(1)).flatten(0, 1)
        if own is not None:
            gates, (c,) = gates.add_(own), batched_inputs[kfg.G_CELL_STATES]
        h, c = lstm_pointwise(gates, c)
        wanted = bool(batched_inputs.get(RETURN_ATTENTION, False))
        apply = partial(linear, weights=copies)
        o, weights = self._output(h, batched_inputs[kfg.P_ATT_FEATS], wanted, apply)
        produced = self._as_keys(h, o, c)
        return {**produced, ATTENTION_WEIGHTS: weights} if wanted else produced

    def _gates(self, batched_inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """What words, and h and o, add to the gates, (R, 4D) each; None while both are zero."""
        of_word, of_context = self.att_lstm.weight_ih.split(self.input_widths, dim=1)
        words = F.linear(batched_inputs[kfg.G_TOKEN_EMBED], of_word)
        if batched_inputs[kfg.TIME_STEP] == 0:
            return words, None
        h, o = batched_inputs[kfg.G_HIDDEN_STATES]
        own = F.linear(h, self.att_lstm.weight_hh)
        return words, own + F.linear(self.context_dropout(o), of_context)

    def _shared_gates(self, batched_inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """As :meth:`_gates`, once for rows that read the same word or continue the same one."""
        copies, lstm = batched_inputs.get(STEP_WEIGHTS), self.att_lstm
        x, ids = batched_inputs[kfg.G_TOKEN_EMBED], batched_inputs[kfg.G_TOKENS_IDS]
        words = batched_inputs[WORD_PRODUCTS].of(ids, x, copies)
        if batched_inputs[kfg.TIME_STEP] == 0:
            return words, None
        row, place = distinct(batched_inputs[kfg.HISTORY_STATES])
        h, o = (state.index_select(0, row) for state in batched_inputs[kfg.G_HIDDEN_STATES])
        of_context = slice(self.input_widths[WORD], None)
        own = multiply(o, lstm.weight_ih, None, copies, of_context)
        return words, multiply(h, lstm.weight_hh, own, copies).index_select(0, place)

    def unroll(
        self,
        x: Tensor,
        stairs: Staircase,
        batched_inputs: dict[str, Any],
        feedback: Feedback | None = None,
    ) -> Tensor:
        """All steps of given sentences, (n, D); equal to single steps.

        What words and image contribute to the gates is computed for all steps at once, and so are
        the gradients of the recurrent weights.

        Args:
            x: (n, E), the input word of every position of ``stairs``.
            stairs: Which captions are computed at which step.
            batched_inputs: Holds GLOBAL_FEATS (B, D) and P_ATT_FEATS.
            feedback: Called before every step but the first with its number and o of its rows;
                returns rows whose input words are replaced and the new words (k, E), or None.
        """
        order = stairs.image_order.to(x.device)
        memories = trees.reorder(batched_inputs[kfg.P_ATT_FEATS], order)
        from_input = DeferredWeight(self.att_lstm.weight_ih, self.input_widths)
        from_hidden = DeferredWeight(self.att_lstm.weight_hh)
        apply = DeferredLinears()
        bias = self.att_lstm.bias_ih + self.att_lstm.bias_hh
        words = stairs.split(from_input.linear(x, block=WORD))
        g = self._image(batched_inputs).index_select(0, order)
        images = from_input.linear(g, bias, CONTEXT).unsqueeze(1)
        outputs: list[Tensor] = []
        state: tuple[Tensor, ...] = ()
        for t, step in enumerate(stairs.steps):
            gates, c = words[t], None
            if t > 0:
                h, c, o = (first_of_each(s, stairs.steps[t - 1], step) for s in state)
                replaced = feedback(t, o) if feedback is not None else None
                if replaced is not None:
                    rows, new = replaced
                    gates = gates.index_copy(0, rows, from_input.linear(new, block=WORD))
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

    def _image(self, batched_inputs: dict[str, Any]) -> Tensor:
        width = self.hidden_size
        return self.vector_of(batched_inputs, kfg.GLOBAL_FEATS, width, "MODEL.BILINEAR.DIM")

    def _as_keys(self, h: Tensor, o: Tensor, c: Tensor) -> dict[str, Any]:
        states = {kfg.G_HIDDEN_STATES: [h, o], kfg.G_CELL_STATES: [c]}
        return {**states, **self.state_numbers(h)}
