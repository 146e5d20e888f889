"""The element-wise half of a GRU cell."""

import torch
from torch import Tensor


def gru_pointwise(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> Tensor:
    """New hidden state of a gated recurrent unit (Cho et al. 2014, section 2.3).

    ``r = s(i_r + h_r)``, ``z = s(i_z + h_z)``, ``n = tanh(i_n + r * h_n)``,
    ``h' = (1 - z) * n + z * h``, with the gates in the order r, z, n, as in torch.

    Args:
        from_input: (R, 3H), what the input adds to the gates, its bias included; in half
            precision both are widened, since a state adds up over many steps.
        from_hidden: (R, 3H), what the state adds to them, its bias included.
        hidden: (R, H).

    Returns:
        (R, H).
    """
    if from_input.dtype in (torch.float16, torch.bfloat16):
        from_input, from_hidden = from_input.float(), from_hidden.float()
    in_reset, in_update, in_new = from_input.chunk(3, dim=-1)
    reset, update, new = from_hidden.chunk(3, dim=-1)
    new = torch.tanh(torch.addcmul(in_new, torch.sigmoid(in_reset + reset), new))
    return torch.lerp(new, hidden.to(new.dtype), torch.sigmoid(in_update + update))
