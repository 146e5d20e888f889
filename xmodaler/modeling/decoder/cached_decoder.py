"""What decoders share that read all words at once and keep keys and values while generating."""

from abc import abstractmethod
from typing import Any

from torch import nn

from xmodaler.config import kfg

from ..layers.kv_cache import copied, empty_cache, empty_history, own_slots, slot_mask
from ..layers.masking import compute_dtype
from ..predictor.states import last_state
from ..stage_keys import (
    ATTENTION_WEIGHTS,
    DECODER_CACHE,
    G_PACKING,
    RETURN_ATTENTION,
    STEP_WEIGHTS,
)
from .decoder import Decoder


class CachedDecoder(Decoder):
    """A stack of layers that attend to the words so far and to a memory of the image.

    The memory of every layer is made once per image. A layer is called as
    ``layer(x, memory, causal_mask, memory_masks, packing=...)`` for all positions at once, and has
    ``step(x, memory, cache, number, mask, memory_masks, need_weights, weights)`` for one word per
    hypothesis (see :class:`~xmodaler.modeling.layers.bert.BertGenerationLayer`) and
    ``step_layers()``.
    """

    folds_queries = True
    accepts_packing = True

    @property
    @abstractmethod
    def stack(self) -> nn.ModuleList:
        """The layers."""

    @abstractmethod
    def memories(self, batched_inputs: dict[str, Any]) -> list[Any]:
        """What each layer attends to beside words, a tree of tensors; None leaves the layer out."""

    def memory_masks(self, batched_inputs: dict[str, Any]) -> Any:
        """The additive mask or masks of the memories."""
        return batched_inputs[kfg.EXT_ATT_MASKS]

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [linear for layer in self.stack for linear in layer.step_layers()]

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, the memory of the image for every layer, and an empty history."""
        feats = last_state(batched_inputs[kfg.ATT_FEATS])
        return {
            kfg.P_ATT_FEATS: self.memories(batched_inputs),
            kfg.HISTORY_STATES: empty_history(feats.shape[0], feats.device),
            DECODER_CACHE: empty_cache(len(self.stack)),
        }

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """All positions, or the one at TIME_STEP while decoding.

        G_TOKEN_EMBED is (R, T, D), or (count, D) with a text packing, or (R, D) while decoding;
        G_HIDDEN_STATES is a list of one such tensor per layer.
        """
        if kfg.TIME_STEP in batched_inputs:
            return self._step(batched_inputs)
        causal, masks = batched_inputs[kfg.EXT_G_TOKENS_MASKS], self.memory_masks(batched_inputs)
        packing = batched_inputs.get(G_PACKING)
        x = last_state(batched_inputs[kfg.G_TOKEN_EMBED])
        hidden = []
        for layer, memory in zip(self.stack, batched_inputs[kfg.P_ATT_FEATS], strict=True):
            if memory is not None:
                x = layer(x, memory, causal, masks, packing=packing)
            hidden.append(x)
        return {kfg.G_HIDDEN_STATES: hidden}

    def _step(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        x = last_state(batched_inputs[kfg.G_TOKEN_EMBED])
        memories, masks = batched_inputs[kfg.P_ATT_FEATS], self.memory_masks(batched_inputs)
        cache = copied(batched_inputs[DECODER_CACHE])
        images = batched_inputs[kfg.ATT_FEATS].shape[0]
        groups = x.shape[0] // images
        slots = own_slots(batched_inputs[kfg.HISTORY_STATES], cache["used"], groups)
        mask = slot_mask(slots, cache["used"] + groups, images, compute_dtype(x))
        need_weights = bool(batched_inputs.get(RETURN_ATTENTION, False))
        step_weights = batched_inputs.get(STEP_WEIGHTS)
        hidden, weights = [], None
        for number, (layer, memory) in enumerate(zip(self.stack, memories, strict=True)):
            if memory is not None:
                last = need_weights and number == len(self.stack) - 1
                x, weights = layer.step(x, memory, cache, number, mask, masks, last, step_weights)
            hidden.append(x)
        cache["used"] += groups
        produced: dict[str, Any] = {
            kfg.G_HIDDEN_STATES: hidden,
            kfg.HISTORY_STATES: slots,
            DECODER_CACHE: cache,
        }
        if weights is not None:
            produced[ATTENTION_WEIGHTS] = weights.mean(dim=1).flatten(0, 1)
        return produced
