"""The recurrence of Up-Down, computed with as little repeated work as possible."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.functional import trees

from ..layers.caption_plan import Feedback, Staircase, first_of_each
from ..layers.deferred import DeferredWeight
from ..layers.few_rows import distinct, multiply
from ..layers.lstm import lstm_pointwise
from ..stage_keys import IMAGE_GATES, STEP_WEIGHTS, WORD_PRODUCTS

if TYPE_CHECKING:
    from .updown_decoder import UpDownDecoder

OWN, IMAGE, WORD = range(3)
"""The inputs of LSTM1, in the order of the columns of its weight: h2, g and x."""


def shared_gates(
    decoder: "UpDownDecoder", batched_inputs: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gates of LSTM1, what h2 adds to those of LSTM2, and the cells, for one step.

    Only what differs is multiplied: hypotheses that continue the same one share its states, those
    that read the same word its embedding, and all of an image the global feature.
    """
    weights = batched_inputs.get(STEP_WEIGHTS)
    first, second = decoder.lstm1, decoder.lstm2
    own, _, _ = decoder.columns
    image_gates = batched_inputs[IMAGE_GATES]
    x, ids = batched_inputs[kfg.G_TOKEN_EMBED], batched_inputs[kfg.G_TOKENS_IDS]
    words = batched_inputs[WORD_PRODUCTS].of(ids, x, weights)
    gates1 = words.unflatten(0, (image_gates.shape[0], -1))
    gates1 = gates1.add_(image_gates.unsqueeze(1)).flatten(0, 1)
    bias2 = second.bias_ih + second.bias_hh
    if batched_inputs[kfg.TIME_STEP] == 0:  # states are zero
        return gates1, bias2.expand_as(gates1), None, None
    row, place = distinct(batched_inputs[kfg.HISTORY_STATES])
    h1, h2 = (h.index_select(0, row) for h in batched_inputs[kfg.G_HIDDEN_STATES])
    states = multiply(h2, first.weight_ih, None, weights, own)
    states = multiply(h1, first.weight_hh, states, weights)
    gates1.add_(states.index_select(0, place))
    gates2 = multiply(h2, second.weight_hh, bias2, weights).index_select(0, place)
    return gates1, gates2, *batched_inputs[kfg.G_CELL_STATES]


def unroll(
    decoder: "UpDownDecoder",
    x: Tensor,
    stairs: Staircase,
    batched_inputs: dict[str, Any],
    feedback: Feedback | None = None,
) -> Tensor:
    """All steps of given sentences; equal to single steps.

    What words and image contribute to the gates of LSTM1 is computed for all steps at once,
    and so are the gradients of the recurrent weights.

    Args:
        decoder: The decoder.
        x: (n, E), the input word of every position of ``stairs``.
        stairs: Which captions are computed at which step.
        batched_inputs: Holds GLOBAL_FEATS (B, D) and P_ATT_FEATS.
        feedback: Called before every step but the first with its number and h2 of its rows;
            returns rows whose input words are replaced and the new words (k, E), or None.

    Returns:
        (n, H), h2 of every position.
    """
    order = stairs.image_order.to(x.device)
    memory = trees.reorder(batched_inputs[kfg.P_ATT_FEATS], order)
    g = decoder.global_feature(batched_inputs).index_select(0, order)
    from_first = DeferredWeight(decoder.lstm1.weight_ih, decoder.input_widths)
    from_h1 = DeferredWeight(decoder.lstm1.weight_hh)
    from_second = DeferredWeight(decoder.lstm2.weight_ih)
    from_h2 = DeferredWeight(decoder.lstm2.weight_hh)
    words = stairs.split(from_first.linear(decoder.dropout1(x), block=WORD))
    images = _image_gates(decoder, g, from_first, stairs)
    bias2 = decoder.lstm2.bias_ih + decoder.lstm2.bias_hh
    outputs: list[Tensor] = []
    state: tuple[Tensor, ...] = ()
    for t, step in enumerate(stairs.steps):
        gates = words[t]
        if t > 0:
            h1, c1, h2, c2 = (first_of_each(s, stairs.steps[t - 1], step) for s in state)
            replaced = feedback(t, h2) if feedback is not None else None
            if replaced is not None:
                rows, new = replaced
                new = from_first.linear(decoder.dropout1(new), block=WORD)
                gates = gates.index_copy(0, rows, new)
        gates = (gates.unflatten(0, step) + images[t]).flatten(0, 1)
        if t > 0:
            gates = from_first.linear(decoder.dropout1(h2), from_h1.linear(h1, gates), OWN)
        h1, c1 = lstm_pointwise(gates, c1 if t > 0 else None)
        here = trees.map_tensors(lambda m, count=step[0]: m[:count], memory)
        attended, _ = decoder.att(h1, here)
        second = decoder.dropout2(torch.cat([attended, h1], dim=-1))
        gates = from_second.linear(second, bias2)
        if t > 0:
            gates = from_h2.linear(h2, gates)
        h2, c2 = lstm_pointwise(gates, c2 if t > 0 else None)
        state = (h1, c1, h2, c2)
        outputs.append(h2)
    return torch.cat(outputs)


def _image_gates(
    decoder: "UpDownDecoder", g: Tensor, from_first: DeferredWeight, stairs: Staircase
) -> list[Tensor]:
    """What sorted images (B, D) add to the gates of LSTM1, per step (b, 1 or groups, 4H)."""
    bias = decoder.lstm1.bias_ih + decoder.lstm1.bias_hh
    if decoder.training and decoder.dropout1.p > 0:
        # Every caption drops other elements at every step, so nothing can be shared.
        each = torch.cat([g[:b].repeat_interleave(count, dim=0) for b, count in stairs.steps])
        gates = stairs.split(from_first.linear(decoder.dropout1(each), bias, IMAGE))
        return [part.unflatten(0, step) for part, step in zip(gates, stairs.steps, strict=True)]
    gates = from_first.linear(g, bias, IMAGE).unsqueeze(1)
    return [gates[:b] for b, _ in stairs.steps]
