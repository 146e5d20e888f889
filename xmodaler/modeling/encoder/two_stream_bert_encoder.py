"""Two Transformers, one over regions and one over words."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.bert import BertLayer
from ..layers.kv_cache import copied, empty_cache, empty_history, own_slots, slot_mask
from ..layers.layer_stack import kept_layers, run_layer
from ..layers.masking import compute_dtype
from ..layers.packing import Packing, pack_or_flatten, unpack_or_keep
from ..stage_keys import ATT_PACKING, ENCODER_CACHE, G_PACKING, STEP_WEIGHTS, U_PACKING
from .build import ENCODER_REGISTRY
from .transformer_encoder import check_widths, visual_width_keys


@dataclass
class _Stream:
    """One text on its way through the layers: (R, T, D), or (count, D) with a packing."""

    x: Tensor
    mask: Tensor
    packing: Packing | None
    kept: list[bool]


@ENCODER_REGISTRY.register()
class TwoStreamBertEncoder(nn.Module):
    """A stack of BERT layers over regions, another over words (Li et al., AAAI 2021, section 3.1).

    The words to be understood (U) and those to be generated (G) go through the same text layers;
    under their masks the former see both sides, the latter only the words before. Every layer's
    output is kept. A layer that is left out in training repeats its input in that list.

    Args:
        num_hidden_layers: Number of text layers.
        v_num_hidden_layers: Number of region layers.
        layer_drop: Probability of leaving out a text layer in training.
        v_layer_drop: Probability of leaving out a region layer.
        bert_layers: The text layers.
        v_bert_layers: The region layers.
        grad_checkpoint: Whether to compute layers again for the gradient instead of keeping them.
    """

    accepts_packing = True

    @configurable
    def __init__(
        self,
        *,
        num_hidden_layers: int,
        v_num_hidden_layers: int,
        layer_drop: float,
        v_layer_drop: float,
        bert_layers: nn.ModuleList,
        v_bert_layers: nn.ModuleList,
        grad_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.num_hidden_layers, self.layer_drop = num_hidden_layers, layer_drop
        self.v_num_hidden_layers, self.v_layer_drop = v_num_hidden_layers, v_layer_drop
        self.layers = bert_layers
        self.v_layers = v_bert_layers
        self.grad_checkpoint = grad_checkpoint

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        widths = {"MODEL.TOKEN_EMBED.DIM": cfg.MODEL.TOKEN_EMBED.DIM, **visual_width_keys(cfg)}
        check_widths(cfg, widths, cls.__name__)
        bert = cfg.MODEL.BERT
        count, v_count = bert.NUM_HIDDEN_LAYERS, bert.V_NUM_HIDDEN_LAYERS
        return {
            "num_hidden_layers": count,
            "v_num_hidden_layers": v_count,
            "layer_drop": bert.LAYER_DROP,
            "v_layer_drop": bert.V_LAYER_DROP,
            "bert_layers": nn.ModuleList(BertLayer(cfg) for _ in range(count)),
            "v_bert_layers": nn.ModuleList(BertLayer(cfg) for _ in range(v_count)),
            "grad_checkpoint": bert.GRAD_CHECKPOINT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Any]:
        """Encode regions in mode ``v``, words in mode ``t``, both without a mode.

        Args:
            batched_inputs: ATT_FEATS (B, N, D) with EXT_ATT_MASKS; U_TOKEN_EMBED (R, T, D) with
                EXT_U_TOKENS_MASKS and G_TOKEN_EMBED with EXT_G_TOKENS_MASKS, whichever is there.
                With a text packing embeddings are (count, D). While decoding, G_TOKEN_EMBED is
                (R, D) and ENCODER_CACHE holds keys and values of the words before.
            mode: ``v``, ``t`` or None.

        Returns:
            Under the keys of the inputs a list of one tensor per layer, shaped like them; while
            decoding G_TOKEN_EMBED (R, D) and the advanced cache.
        """
        produced: dict[str, Any] = {}
        if mode is None or "v" in mode:
            produced[kfg.ATT_FEATS] = self._regions(batched_inputs)
        if mode is None or "t" in mode:
            if kfg.TIME_STEP in batched_inputs:
                produced.update(self._step(batched_inputs))
            else:
                produced.update(self._words(batched_inputs))
        return produced

    def _regions(self, batched_inputs: dict[str, Any]) -> list[Tensor]:
        packing = batched_inputs.get(ATT_PACKING)
        x = pack_or_flatten(batched_inputs[kfg.ATT_FEATS], packing)
        mask = batched_inputs[kfg.EXT_ATT_MASKS]
        outputs = []
        kept = kept_layers(len(self.v_layers), self.v_layer_drop, self.training)
        for layer, runs in zip(self.v_layers, kept, strict=True):
            if runs:
                x = self._run(layer, x, mask, packing)
            outputs.append(unpack_or_keep(x, packing))
        return outputs

    def _words(self, batched_inputs: dict[str, Any]) -> dict[str, list[Tensor]]:
        streams: dict[str, _Stream] = {}
        for embedded, mask, packing in (
            (kfg.U_TOKEN_EMBED, kfg.EXT_U_TOKENS_MASKS, U_PACKING),
            (kfg.G_TOKEN_EMBED, kfg.EXT_G_TOKENS_MASKS, G_PACKING),
        ):
            if embedded in batched_inputs:
                streams[embedded] = _Stream(
                    x=batched_inputs[embedded],
                    mask=batched_inputs[mask],
                    packing=batched_inputs.get(packing),
                    kept=kept_layers(len(self.layers), self.layer_drop, self.training),
                )
        outputs: dict[str, list[Tensor]] = {key: [] for key in streams}
        for number, layer in enumerate(self.layers):
            running = [stream for stream in streams.values() if stream.kept[number]]
            if len(running) == 2 and _fit_together(*running):
                self._run_together(layer, *running)
            else:
                for stream in running:
                    stream.x = self._run(layer, stream.x, stream.mask, stream.packing)
            for key, stream in streams.items():
                outputs[key].append(stream.x)
        return outputs

    def _run_together(self, layer: BertLayer, first: _Stream, second: _Stream) -> None:
        """Both texts as the rows of one batch: weights are read once and products are larger."""
        x = torch.cat([first.x, second.x])
        counts = [len(first.x), len(second.x)]
        mask, packing = _joint_mask(first, second), _joint_packing(first, second)
        first.x, second.x = self._run(layer, x, mask, packing).split(counts)

    def _run(self, layer: BertLayer, x: Tensor, mask: Tensor, packing: Packing | None) -> Tensor:
        recompute = self.grad_checkpoint and self.training
        return run_layer(layer, x, mask, packing=packing, recompute=recompute)[0]

    def start_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """The history and the cache of the words before the first one.

        Args:
            batched_inputs: ATT_FEATS (B, N, D).
        """
        feats = batched_inputs[kfg.ATT_FEATS]
        return {
            kfg.ENC_HISTORY_STATES: empty_history(feats.shape[0], feats.device),
            ENCODER_CACHE: empty_cache(len(self.layers)),
        }

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [linear for layer in self.layers for linear in layer.step_layers()]

    def _step(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One new word per hypothesis; no layer is left out, for later words attend to all."""
        x = batched_inputs[kfg.G_TOKEN_EMBED]
        images = batched_inputs[kfg.ATT_FEATS].shape[0]
        groups = x.shape[0] // images
        cache = copied(batched_inputs[ENCODER_CACHE])
        slots = own_slots(batched_inputs[kfg.ENC_HISTORY_STATES], cache["used"], groups)
        mask = slot_mask(slots, cache["used"] + groups, images, compute_dtype(x))
        weights = batched_inputs.get(STEP_WEIGHTS)
        for number, layer in enumerate(self.layers):
            x = layer.step(x, mask, cache, number, images, weights)
        cache["used"] += groups
        return {kfg.G_TOKEN_EMBED: x, kfg.ENC_HISTORY_STATES: slots, ENCODER_CACHE: cache}


def _fit_together(first: _Stream, second: _Stream) -> bool:
    lengths_agree = first.mask.shape[-1] == second.mask.shape[-1]
    return lengths_agree and (first.packing is None) == (second.packing is None)


def _joint_mask(first: _Stream, second: _Stream) -> Tensor:
    """(R1 + R2, 1, T or 1, T) of two masks, one of which may be the same for every query."""
    queries = max(first.mask.shape[2], second.mask.shape[2])
    masks = (stream.mask.expand(-1, -1, queries, -1) for stream in (first, second))
    return torch.cat(list(masks))


def _joint_packing(first: _Stream, second: _Stream) -> Packing | None:
    if first.packing is None:
        return None
    one, two = first.packing, second.packing
    index = torch.cat([one.index, two.index + one.rows * one.length])
    return Packing(index, one.rows + two.rows, one.length)
