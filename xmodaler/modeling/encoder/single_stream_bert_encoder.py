"""One Transformer over words and regions together."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bert import BertLayer
from ..layers.grouping import repeat_rows
from ..layers.head_positions import states_at
from ..layers.layer_stack import run_layer
from ..layers.packing import pack_or_flatten, unpack_or_keep, worth_packing
from ..stage_keys import HEAD_POSITIONS, SKIP_PADDING
from .build import ENCODER_REGISTRY
from .transformer_encoder import check_widths, visual_width_keys


@ENCODER_REGISTRY.register()
class SingleStreamBertEncoder(nn.Module):
    """A stack of BERT layers over ``[words ; regions]`` (Chen et al., ECCV 2020, section 3.1).

    The regions of a picture stand behind the words of each of its G texts; they are embedded once
    per picture and repeated only here.

    Args:
        num_hidden_layers: Number of layers.
        bert_layers: The layers.
        grad_checkpoint: Whether to compute layers again for the gradient instead of keeping them.
    """

    accepts_packing = True

    selects_positions = True
    """With HEAD_POSITIONS in the batch only those states are returned."""

    @configurable
    def __init__(
        self, *, num_hidden_layers: int, bert_layers: nn.ModuleList, grad_checkpoint: bool = False
    ) -> None:
        super().__init__()
        if num_hidden_layers < 1:
            raise UserError(
                "SingleStreamBertEncoder needs layers; MODEL.BERT.NUM_HIDDEN_LAYERS is "
                f"{num_hidden_layers}"
            )
        self.num_hidden_layers = num_hidden_layers
        self.layers = bert_layers
        self.grad_checkpoint = grad_checkpoint

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        widths = {"MODEL.TOKEN_EMBED.DIM": cfg.MODEL.TOKEN_EMBED.DIM, **visual_width_keys(cfg)}
        check_widths(cfg, widths, cls.__name__)
        count = cfg.MODEL.BERT.NUM_HIDDEN_LAYERS
        layers = nn.ModuleList(BertLayer(cfg) for _ in range(count))
        return {
            "num_hidden_layers": count,
            "bert_layers": layers,
            "grad_checkpoint": cfg.MODEL.BERT.GRAD_CHECKPOINT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """Encode pairs of texts and pictures, in mode ``t``; mode ``v`` has nothing to do.

        Args:
            batched_inputs: U_TOKEN_EMBED (R, T, D), ATT_FEATS (B, N, D), and their additive masks
                EXT_U_TOKENS_MASKS (R, 1, 1, T) and EXT_ATT_MASKS (B, 1, 1, N). With SKIP_PADDING,
                hidden positions are left out where that pays and come out as zeros.
            mode: ``v``, ``t``, or None for all.

        Returns:
            U_HIDDEN_STATES (R, T, D) and ATT_FEATS (R, N, D); with HEAD_POSITIONS the rows of
            those positions, (k, D) and (m, D).
        """
        if mode is not None and "t" not in mode:
            return {}
        words = batched_inputs[kfg.U_TOKEN_EMBED]
        rows, length = words.shape[:2]
        regions = repeat_rows(batched_inputs[kfg.ATT_FEATS], rows)
        over_regions = repeat_rows(batched_inputs[kfg.EXT_ATT_MASKS], rows)
        mask = torch.cat([batched_inputs[kfg.EXT_U_TOKENS_MASKS], over_regions], dim=-1)
        skip = batched_inputs.get(SKIP_PADDING, False)
        packing = worth_packing(mask[:, 0, 0] == 0) if skip else None
        x = pack_or_flatten(torch.cat([words, regions.to(words.dtype)], dim=1), packing)
        positions = batched_inputs.get(HEAD_POSITIONS)
        *first, last = self.layers
        recompute = self.grad_checkpoint and self.training
        for layer in first:
            x, _ = run_layer(layer, x, mask, packing=packing, recompute=recompute)
        if positions is not None:
            of_words, of_regions = positions.packings(words, regions)
            x = states_at(last, x, mask, packing, of_words.followed_by(of_regions))
            count = len(of_words.index)
            return {kfg.U_HIDDEN_STATES: x[:count], kfg.ATT_FEATS: x[count:]}
        x = unpack_or_keep(last(x, mask, packing=packing)[0], packing)
        return {kfg.U_HIDDEN_STATES: x[:, :length], kfg.ATT_FEATS: x[:, length:]}
