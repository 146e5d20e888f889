"""The recurrent encoder."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import ENCODER_REGISTRY


@ENCODER_REGISTRY.register()
class LSTMEncoder(nn.Module):
    """An LSTM that reads regions or frames one after the other, in one or both directions.

    On frames Venugopalan et al. 2015, "Sequence to sequence - video to text"; in both directions
    Bahdanau et al. 2015, section 3.2. ``f_n = [forward h_n; backward h_n]``; the global feature
    is ``[last forward h; last backward h]``. Only what the mask shows is read.

    Args:
        in_dim: Width of the features.
        out_dim: Width of f_n, both directions together.
        num_layers: Number of LSTMs on top of each other.
        bidirectional: Whether one half of ``out_dim`` is read from the end.
        dropout: Dropout between the layers and on the result.
    """

    @configurable
    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        if out_dim % directions or num_layers < 1:
            raise UserError(
                f"MODEL.VISUAL_EMBED.OUT_DIM {out_dim} must be even for two directions, and "
                f"MODEL.LSTM_ENCODER.NUM_LAYERS {num_layers} at least 1"
            )
        self.lstm = nn.LSTM(
            in_dim,
            out_dim // directions,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        width, node = cfg.MODEL.VISUAL_EMBED.OUT_DIM, cfg.MODEL.LSTM_ENCODER
        return {
            "in_dim": width,
            "out_dim": width,
            "num_layers": node.NUM_LAYERS,
            "bidirectional": node.BIDIRECTIONAL,
            "dropout": node.DROPOUT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.LSTM_ENCODER."""
        cfg.MODEL.LSTM_ENCODER = CfgNode({"NUM_LAYERS": 1, "BIDIRECTIONAL": True, "DROPOUT": 0.0})

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """In mode 'v', ATT_FEATS (B, N, D) and GLOBAL_FEATS (B, D).

        Reads ATT_FEATS (B, N, D) and ATT_MASKS (B, N). Hidden positions come out as zeros, and so
        does an image of nothing else.
        """
        if mode is not None and "v" not in mode:
            return {}
        feats, visible = batched_inputs[kfg.ATT_FEATS], batched_inputs[kfg.ATT_MASKS].bool()
        # What is visible goes to the front, in its order; usually it is there already.
        order = visible.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        order = order.unsqueeze(-1)
        lengths = visible.sum(dim=1)
        packed = pack_padded_sequence(
            feats.gather(1, order.expand_as(feats)),
            lengths.clamp(min=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        outputs, (last, _) = self.lstm(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=feats.shape[1])
        outputs = self.dropout(outputs)
        placed = torch.zeros_like(outputs).scatter(1, order.expand_as(outputs), outputs)
        directions = 2 if self.lstm.bidirectional else 1
        final = self.dropout(torch.cat(last[-directions:].unbind(0), dim=-1))
        return {
            kfg.ATT_FEATS: placed.masked_fill(~visible.unsqueeze(-1), 0),
            kfg.GLOBAL_FEATS: final.masked_fill((lengths == 0).unsqueeze(-1), 0),
        }
