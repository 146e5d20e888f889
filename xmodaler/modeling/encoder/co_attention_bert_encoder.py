"""Two Transformers that ask each other."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bert import BertLayer
from ..layers.bert_connection import BertConnectionLayer
from ..layers.grouping import repeat_rows
from ..layers.head_positions import HeadPositions, states_at
from ..layers.layer_stack import run_layer
from ..layers.packing import Packing, pack_or_flatten, unpack_or_keep, worth_packing
from ..stage_keys import HEAD_POSITIONS, SKIP_PADDING
from .build import ENCODER_REGISTRY
from .transformer_encoder import check_widths, visual_width_keys


@ENCODER_REGISTRY.register()
class CoAttentionBertEncoder(nn.Module):
    """A stream of words and a stream of regions, joined by co-attention (Lu et al., NeurIPS 2019).

    With C connections, the last C layers of both streams come in blocks
    ``connection, region layer, text layer``; the layers before them run on their stream alone,
    those over regions once per picture. Both streams have the width of MODEL.BERT, unlike the
    paper's 768 and 1024.

    Args:
        bert_layers: The text layers.
        v_bert_layers: The region layers.
        bert_connection_layers: The C connections; no more than there are layers in a stream.
        grad_checkpoint: Whether to compute layers again for the gradient instead of keeping them.
    """

    accepts_packing = True

    selects_positions = True
    """With HEAD_POSITIONS in the batch only those states are returned."""

    @configurable
    def __init__(
        self,
        *,
        bert_layers: nn.ModuleList,
        v_bert_layers: nn.ModuleList,
        bert_connection_layers: nn.ModuleList,
        grad_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        connections = len(bert_connection_layers)
        if not 1 <= connections <= min(len(bert_layers), len(v_bert_layers)):
            raise UserError(
                f"CoAttentionBertEncoder has {connections} connections between "
                f"{len(bert_layers)} text layers and {len(v_bert_layers)} region layers; "
                "MODEL.BERT.NUM_UNDERSTANDING_LAYERS must be at least 1 and exceed neither "
                "MODEL.BERT.NUM_HIDDEN_LAYERS nor MODEL.BERT.V_NUM_HIDDEN_LAYERS"
            )
        self.layers = bert_layers
        self.v_layers = v_bert_layers
        self.c_layers = bert_connection_layers
        self.grad_checkpoint = grad_checkpoint

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        widths = {"MODEL.TOKEN_EMBED.DIM": cfg.MODEL.TOKEN_EMBED.DIM, **visual_width_keys(cfg)}
        check_widths(cfg, widths, cls.__name__)
        bert = cfg.MODEL.BERT
        return {
            "bert_layers": nn.ModuleList(BertLayer(cfg) for _ in range(bert.NUM_HIDDEN_LAYERS)),
            "v_bert_layers": nn.ModuleList(BertLayer(cfg) for _ in range(bert.V_NUM_HIDDEN_LAYERS)),
            "bert_connection_layers": nn.ModuleList(
                BertConnectionLayer(cfg) for _ in range(bert.NUM_UNDERSTANDING_LAYERS)
            ),
            "grad_checkpoint": bert.GRAD_CHECKPOINT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Any]:
        """Encode regions alone in mode ``v``, then pairs in mode ``t``, both without a mode.

        Args:
            batched_inputs: U_TOKEN_EMBED (R, T, D), ATT_FEATS (B, N, D), and their additive masks
                EXT_U_TOKENS_MASKS (R, 1, 1, T) and EXT_ATT_MASKS (B, 1, 1, N). With SKIP_PADDING,
                hidden positions are left out where that pays and come out as zeros.
            mode: ``v``, ``t`` or None.

        Returns:
            In mode ``v`` ATT_FEATS (B, N, D). Else U_HIDDEN_STATES and ATT_FEATS, lists of
            (R, T, D) and (R, N, D) after every block; with HEAD_POSITIONS the rows of those
            positions after the last, (k, D) and (m, D).
        """
        regions = batched_inputs[kfg.ATT_FEATS]
        if mode is None or "v" in mode:
            regions = self._alone(batched_inputs, regions)
        if mode is not None and "t" not in mode:
            return {kfg.ATT_FEATS: regions}
        return self._pairs(batched_inputs, regions)

    def _alone(self, batched_inputs: dict[str, Any], regions: Tensor) -> Tensor:
        """The region layers before the first connection, on (B, N, D)."""
        mask = batched_inputs[kfg.EXT_ATT_MASKS]
        packing = _packing(batched_inputs, mask)
        x = pack_or_flatten(regions, packing)
        for layer in self.v_layers[: -len(self.c_layers)]:
            x = self._run(layer, x, mask, packing)
        return unpack_or_keep(x, packing)

    def _pairs(self, batched_inputs: dict[str, Any], regions: Tensor) -> dict[str, Any]:
        words = batched_inputs[kfg.U_TOKEN_EMBED]
        t_mask = batched_inputs[kfg.EXT_U_TOKENS_MASKS]
        v_mask = repeat_rows(batched_inputs[kfg.EXT_ATT_MASKS], words.shape[0])
        regions = repeat_rows(regions, words.shape[0])
        v_packing, t_packing = (_packing(batched_inputs, mask) for mask in (v_mask, t_mask))
        positions: HeadPositions | None = batched_inputs.get(HEAD_POSITIONS)
        asking = positions and dict(zip("tv", positions.packings(words, regions), strict=True))
        t, v = pack_or_flatten(words, t_packing), pack_or_flatten(regions, v_packing)
        for layer in self.layers[: -len(self.c_layers)]:
            t = self._run(layer, t, t_mask, t_packing)
        all_t, all_v = [], []
        for block in range(-len(self.c_layers), 0):
            v, t = run_layer(
                self.c_layers[block],
                v,
                t,
                v_mask,
                t_mask,
                v_packing,
                t_packing,
                recompute=self._recomputes,
            )
            if asking and block == -1:
                return {
                    kfg.ATT_FEATS: states_at(self.v_layers[-1], v, v_mask, v_packing, asking["v"]),
                    kfg.U_HIDDEN_STATES: states_at(
                        self.layers[-1], t, t_mask, t_packing, asking["t"]
                    ),
                }
            v = self._run(self.v_layers[block], v, v_mask, v_packing)
            t = self._run(self.layers[block], t, t_mask, t_packing)
            all_v.append(unpack_or_keep(v, v_packing))
            all_t.append(unpack_or_keep(t, t_packing))
        return {kfg.U_HIDDEN_STATES: all_t, kfg.ATT_FEATS: all_v}

    @property
    def _recomputes(self) -> bool:
        return self.grad_checkpoint and self.training

    def _run(self, layer: BertLayer, x: Tensor, mask: Tensor, packing: Packing | None) -> Tensor:
        return run_layer(layer, x, mask, packing=packing, recompute=self._recomputes)[0]


def _packing(batched_inputs: dict[str, Any], mask: Tensor) -> Packing | None:
    """The positions that an additive mask (R, 1, 1, T) shows, where the others may be left out."""
    skip = batched_inputs.get(SKIP_PADDING, False)
    return worth_packing(mask[:, 0, 0] == 0) if skip else None
