"""The Up-Down decoder."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..attention import AdditiveAttention
from ..layers.caption_plan import Feedback, Staircase
from ..layers.few_rows import are_few, multiply
from ..layers.grouping import repeat_rows
from ..layers.lstm import lstm_pointwise
from ..layers.word_products import WordProducts
from ..stage_keys import IMAGE_GATES, STEP_WEIGHTS, WORD_PRODUCTS
from .build import DECODER_REGISTRY
from .recurrent_decoder import RecurrentDecoder
from .updown_recurrence import shared_gates, unroll


@DECODER_REGISTRY.register()
class UpDownDecoder(RecurrentDecoder):
    """Top-down attention between two LSTMs (Anderson et al. 2018, section 3.2).

    ``h1, c1 = LSTM1(drop1([h2; g; x]))``, ``a = att(h1, f)``, ``h2, c2 = LSTM2(drop2([a; h1]))``;
    the words come from h2. States begin at zero.

    Args:
        hidden_size: Width H of both LSTMs.
        token_embed_dim: Width E of the word embedding x.
        visual_embed_dim: Width D of the regions f and of the global feature g.
        att_embed_size: Inner width of the attention.
        dropout1: Dropout on the input of LSTM1.
        dropout2: Dropout on the input of LSTM2.
        att_embed_dropout: Dropout inside additive attention.
        attention: The cross-modal attention; additive attention by default.
    """

    num_layers = 2

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        visual_embed_dim: int,
        att_embed_size: int,
        dropout1: float,
        dropout2: float,
        att_embed_dropout: float,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input_widths = (hidden_size, visual_embed_dim, token_embed_dim)
        self.lstm1 = nn.LSTMCell(sum(self.input_widths), hidden_size)
        self.lstm2 = nn.LSTMCell(visual_embed_dim + hidden_size, hidden_size)
        self.att = attention or AdditiveAttention(
            query_dim=hidden_size,
            memory_dim=visual_embed_dim,
            embed_dim=att_embed_size,
            dropout=att_embed_dropout,
        )
        self.p_att_feats = self.att.memory_projection()
        self.dropout1 = nn.Dropout(dropout1)
        self.dropout2 = nn.Dropout(dropout2)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.UPDOWN
        sizes = {
            "hidden_size": cfg.MODEL.DECODER_DIM,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "visual_embed_dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM,
            "att_embed_size": node.ATT_EMBED_SIZE,
            "att_embed_dropout": node.ATT_EMBED_DROPOUT,
        }
        attention = cls.attention_from_config(
            cfg,
            query_dim=sizes["hidden_size"],
            memory_dim=sizes["visual_embed_dim"],
            embed_dim=sizes["att_embed_size"],
            dropout=sizes["att_embed_dropout"],
        )
        dropouts = {"dropout1": node.DROPOUT1, "dropout2": node.DROPOUT2}
        return {**sizes, **dropouts, "attention": attention}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.UPDOWN."""
        cfg.MODEL.UPDOWN = CfgNode(
            {"ATT_EMBED_SIZE": 512, "DROPOUT1": 0.0, "DROPOUT2": 0.0, "ATT_EMBED_DROPOUT": 0.0}
        )

    def step_layers(self) -> list[Tensor]:
        """The weights that every step multiplies by."""
        return [
            each for cell in (self.lstm1, self.lstm2) for each in (cell.weight_ih, cell.weight_hh)
        ]

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, the prepared attention memory of each image, and zero states."""
        feats = batched_inputs[kfg.ATT_FEATS]
        states = {**self.init_states(feats.shape[0]), **self.state_numbers(feats)}
        return {**self.attention_memory(batched_inputs), **states}

    def prepare_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """IMAGE_GATES (B, 4H), what the global feature adds to the gates of LSTM1.

        And WORD_PRODUCTS, where the steps of a batch share what words add. Nothing while dropout
        changes all that from step to step.
        """
        if self.training and self.dropout1.p > 0:
            return {}
        weight, (_, image, word) = self.lstm1.weight_ih, self.columns
        bias = self.lstm1.bias_ih + self.lstm1.bias_hh
        gates = F.linear(self.global_feature(batched_inputs), weight[:, image], bias)
        return {IMAGE_GATES: gates, WORD_PRODUCTS: WordProducts(weight, word)}

    @property
    def columns(self) -> list[slice]:
        """The columns of the input weight of LSTM1 that belong to h2, g and x."""
        ends = list(itertools.accumulate(self.input_widths, initial=0))
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One step: G_TOKEN_EMBED (R, E) and two states (R, H) give two new states.

        HISTORY_STATES (R,) numbers the states: equal numbers, equal states.
        """
        x = batched_inputs[kfg.G_TOKEN_EMBED]
        if are_few(x.shape[0], x) and IMAGE_GATES in batched_inputs and not self.training:
            gates1, gates2, c1, c2 = shared_gates(self, batched_inputs)
        else:
            gates1, gates2, c1, c2 = self._gates(batched_inputs)
        h1, c1 = lstm_pointwise(gates1, c1)
        attended, seen = self.attend(h1, batched_inputs)
        second = self.dropout2(torch.cat([attended, h1], dim=-1))
        copies = batched_inputs.get(STEP_WEIGHTS)
        h2, c2 = lstm_pointwise(multiply(second, self.lstm2.weight_ih, gates2, copies), c2)
        states = {kfg.G_HIDDEN_STATES: [h1, h2], kfg.G_CELL_STATES: [c1, c2]}
        return {**states, **self.state_numbers(x), **seen}

    def _gates(self, batched_inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gates of LSTM1, what h2 adds to those of LSTM2, and the cells, for every row."""
        x, image_gates = batched_inputs[kfg.G_TOKEN_EMBED], batched_inputs.get(IMAGE_GATES)
        h1, h2 = batched_inputs[kfg.G_HIDDEN_STATES]
        if image_gates is None:
            g = repeat_rows(self.global_feature(batched_inputs), x.shape[0])
            first = self.dropout1(torch.cat([h2, g, x], dim=-1))
            gates1 = F.linear(first, self.lstm1.weight_ih, self.lstm1.bias_ih)
            gates1 = gates1 + F.linear(h1, self.lstm1.weight_hh, self.lstm1.bias_hh)
        else:
            w_h2, _, w_x = self.lstm1.weight_ih.split(self.input_widths, dim=1)
            gates1 = repeat_rows(image_gates, x.shape[0]) + F.linear(h2, w_h2) + F.linear(x, w_x)
            gates1 = gates1 + F.linear(h1, self.lstm1.weight_hh)
        gates2 = F.linear(h2, self.lstm2.weight_hh, self.lstm2.bias_ih + self.lstm2.bias_hh)
        return gates1, gates2, *batched_inputs[kfg.G_CELL_STATES]

    def unroll(
        self,
        x: Tensor,
        stairs: Staircase,
        batched_inputs: dict[str, Any],
        feedback: Feedback | None = None,
    ) -> Tensor:
        """All steps of given sentences at once; see :func:`~.updown_recurrence.unroll`."""
        return unroll(self, x, stairs, batched_inputs, feedback)

    def global_feature(self, batched_inputs: dict[str, Any]) -> Tensor:
        """GLOBAL_FEATS as (B, D)."""
        width, setting = self.input_widths[1], "MODEL.VISUAL_EMBED.OUT_DIM"
        return self.vector_of(batched_inputs, kfg.GLOBAL_FEATS, width, setting)
