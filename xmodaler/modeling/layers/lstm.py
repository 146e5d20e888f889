"""The element-wise half of an LSTM cell."""

import torch
from torch import Tensor


def lstm_pointwise(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    """New hidden and cell state from the summed gate inputs.

    ``c = s(f) * c + s(i) * tanh(g)``, ``h = s(o) * tanh(c)`` with the gates in the order input,
    forget, cell, output (Hochreiter & Schmidhuber 1997 with forget gates, as in torch).

    Args:
        gates: (R, 4H), input and hidden contributions and biases summed; in half precision they
            are widened, since a cell state adds up over many steps.
        cell: (R, H), or None for a zero state.

    Returns:
        Hidden and cell state, (R, H) each.
    """
    if gates.dtype in (torch.float16, torch.bfloat16):
        gates = gates.float()
    in_gate, forget_gate, candidate, out_gate = gates.chunk(4, dim=-1)
    new = torch.sigmoid(in_gate) * torch.tanh(candidate)
    if cell is not None:
        new = torch.addcmul(new, torch.sigmoid(forget_gate), cell)
    return torch.sigmoid(out_gate) * torch.tanh(new), new
