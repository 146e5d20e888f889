"""What decoders with one recurrent cell share."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import kfg
from xmodaler.functional import trees

from ..layers.caption_plan import Feedback, Staircase, first_of_each
from ..layers.deferred import DeferredWeight
from ..layers.few_rows import are_few, multiply, multiply_shared
from ..layers.lstm import lstm_pointwise
from ..layers.word_products import WordProducts
from ..stage_keys import STEP_WEIGHTS, WORD_PRODUCTS
from .recurrent_decoder import RecurrentDecoder

State = tuple[Tensor, ...]
HiddenGates = Callable[[Tensor], Tensor]
"""From an addend (R, gates) or (gates,) to what the state adds to the gates, plus that addend."""

WORD, CONTEXT = range(2)
"""The inputs of the cell, in the order of the columns of its weight."""


class SingleCellDecoder(RecurrentDecoder):
    """``state_t = cell(dropout([x_t; a_t]), state_{t-1})``, ``a_t = att(h_{t-1}, f)``.

    Without attention the input is x_t alone. The cell is an LSTM unless a subclass overrides
    :attr:`cell`, :attr:`state_keys`, :meth:`input_bias` and :meth:`advance`.

    Args:
        hidden_size: Width H of the states.
        token_embed_dim: Width E of the word embedding x.
        context_dim: Width D of what the attention yields; 0 without attention.
        dropout: Dropout on the input of the cell.
    """

    state_keys: ClassVar[tuple[str, ...]] = (kfg.G_HIDDEN_STATES, kfg.G_CELL_STATES)

    def __init__(
        self, *, hidden_size: int, token_embed_dim: int, context_dim: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input_widths = (token_embed_dim, context_dim) if context_dim else (token_embed_dim,)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    @property
    def cell(self) -> nn.LSTMCell | nn.GRUCell:
        """The module that holds the weights of the recurrence."""
        return self.lstm

    def input_bias(self) -> Tensor:
        """(gates,): the bias of what the input adds to the gates."""
        return self.cell.bias_ih + self.cell.bias_hh

    def advance(self, from_input: Tensor, hidden_gates: HiddenGates, state: State) -> State:
        """The next state.

        Args:
            from_input: (R, gates), what the input adds to the gates.
            hidden_gates: What the state adds.
            state: Tensors (R, H), one per :attr:`state_keys`.
        """
        return lstm_pointwise(hidden_gates(from_input), state[1])

    @abstractmethod
    def start_state(self, batched_inputs: dict[str, Any]) -> State:
        """The state (B, H) of each image before its first word."""

    def zero_state(self, like: Tensor) -> State:
        """Zeros (B, H) for every key of the state, for B rows of ``like``."""
        weight = self.cell.weight_hh
        return (weight.new_zeros(like.shape[0], self.hidden_size),) * len(self.state_keys)

    def step_layers(self) -> list[Tensor]:
        """The weights that every step multiplies by."""
        return [self.cell.weight_ih, self.cell.weight_hh]

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, the prepared attention memory of each image, and the first states."""
        memory = self.attention_memory(batched_inputs)
        return {**memory, **self._as_keys(self.start_state(batched_inputs))}

    def prepare_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """WORD_PRODUCTS, where the steps of a batch share what words add to the gates."""
        return {WORD_PRODUCTS: WordProducts(self.cell.weight_ih, slice(self.input_widths[WORD]))}

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One step: G_TOKEN_EMBED (R, E) and a state (R, H) give the next state.

        HISTORY_STATES (R,) numbers the states: equal numbers, equal states.
        """
        state = tuple(batched_inputs[key][0] for key in self.state_keys)
        gates = self._word_gates(batched_inputs)
        seen: dict[str, Tensor] = {}
        if self.att is not None:
            context, seen = self.attend(state[0], batched_inputs)
            columns, copies = slice(self.input_widths[WORD], None), batched_inputs.get(STEP_WEIGHTS)
            context = self.dropout(context)
            gates = multiply(context, self.cell.weight_ih, gates, copies, columns)
        hidden_gates = self._hidden_gates(batched_inputs, state[0])
        return {**self._as_keys(self.advance(gates, hidden_gates, state)), **seen}

    def unroll(
        self,
        x: Tensor,
        stairs: Staircase,
        batched_inputs: dict[str, Any],
        feedback: Feedback | None = None,
    ) -> Tensor:
        """All steps of given sentences; equal to single steps.

        What words contribute to the gates is computed for all steps at once, and so are the
        gradients of the weights.

        Args:
            x: (n, E), the input word of every position of ``stairs``.
            stairs: Which captions are computed at which step.
            batched_inputs: Holds what :meth:`preprocess` made.
            feedback: Called before every step but the first with its number and the hidden
                states of its rows; returns rows whose input words are replaced and the new
                words (k, E), or None.

        Returns:
            (n, H), the hidden state of every position.
        """
        order = stairs.image_order.to(x.device)
        memory = trees.reorder(batched_inputs.get(kfg.P_ATT_FEATS, {}), order)
        from_input = DeferredWeight(self.cell.weight_ih, self.input_widths)
        from_hidden = DeferredWeight(self.cell.weight_hh)
        bias = self.input_bias()
        words = stairs.split(from_input.linear(self.dropout(x), bias, WORD))
        of_rows = order.repeat_interleave(stairs.steps[0][1])
        state = tuple(batched_inputs[key][0].index_select(0, of_rows) for key in self.state_keys)
        outputs: list[Tensor] = []
        for t, step in enumerate(stairs.steps):
            gates = words[t]
            if t > 0:
                state = tuple(first_of_each(s, stairs.steps[t - 1], step) for s in state)
                replaced = feedback(t, state[0]) if feedback is not None else None
                if replaced is not None:
                    rows, new = replaced
                    new = from_input.linear(self.dropout(new), bias, WORD)
                    gates = gates.index_copy(0, rows, new)
            if self.att is not None:
                here = trees.map_tensors(lambda m, count=step[0]: m[:count], memory)
                context, _ = self.att(state[0], here)
                gates = from_input.linear(self.dropout(context), gates, CONTEXT)
            hidden = state[0]
            state = self.advance(
                gates, lambda addend, h=hidden: from_hidden.linear(h, addend), state
            )
            outputs.append(state[0])
        return torch.cat(outputs)

    def read(self, x: Tensor, state: State) -> State:
        """The state after an input (B, E) that is no word and belongs to no step."""
        gates = F.linear(self.dropout(x), self.cell.weight_ih, self.input_bias())
        return self.advance(
            gates, lambda addend: addend + F.linear(state[0], self.cell.weight_hh), state
        )

    def _as_keys(self, state: State) -> dict[str, Any]:
        produced = {key: [part] for key, part in zip(self.state_keys, state, strict=True)}
        return {**produced, **self.state_numbers(state[0])}

    def _word_gates(self, batched_inputs: dict[str, Any]) -> Tensor:
        """What the words of a step add to the gates, (R, gates)."""
        x, weight, bias = batched_inputs[kfg.G_TOKEN_EMBED], self.cell.weight_ih, self.input_bias()
        columns = slice(self.input_widths[WORD])
        if self.training or not are_few(x.shape[0], x):
            return F.linear(self.dropout(x), weight[:, columns], bias)
        words = batched_inputs.get(WORD_PRODUCTS) or WordProducts(weight, columns)
        return (
            words.of(batched_inputs[kfg.G_TOKENS_IDS], x, batched_inputs.get(STEP_WEIGHTS)) + bias
        )

    def _hidden_gates(self, batched_inputs: dict[str, Any], hidden: Tensor) -> HiddenGates:
        """What the states (R, H) of a step add; once for hypotheses that share a state."""
        weight = self.cell.weight_hh
        if self.training or not are_few(hidden.shape[0], hidden):
            return lambda addend: addend + F.linear(hidden, weight)
        numbers, copies = batched_inputs[kfg.HISTORY_STATES], batched_inputs.get(STEP_WEIGHTS)
        own = multiply_shared(hidden, numbers, weight, None, copies)
        return lambda addend: own + addend
