"""A text tower, and above it layers that also attend to a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.bert_attention import KeysValues
from ..layers.bert_stack import BertSizes, encoder_stack, fusion_stack
from ..layers.few_rows import StepWeights
from ..layers.kv_cache import Cache
from ..layers.packing import Packing
from .build import ENCODER_REGISTRY


@dataclass(frozen=True)
class FusionMemory:
    """What texts attend to: keys and values of every fusion layer.

    Attributes:
        layers: Per fusion layer two tensors (U, heads, N, d).
        mask: Additive (U, 1, 1, N), or None where all is visible.
    """

    layers: Sequence[KeysValues]
    mask: Tensor | None = None

    def rows(self, index: Tensor) -> "FusionMemory":
        """The memories of rows ``index`` (R,)."""
        layers = [(key.index_select(0, index), value.index_select(0, index)) for key, value in self]
        mask = None if self.mask is None else self.mask.index_select(0, index)
        return FusionMemory(layers, mask)

    def behind(self, first: "FusionMemory") -> "FusionMemory":
        """Both side by side, ``first`` in front; masks are left out."""
        pairs = zip(first, self, strict=True)
        return FusionMemory(
            [
                (torch.cat([one[0], two[0]], dim=2), torch.cat([one[1], two[1]], dim=2))
                for one, two in pairs
            ]
        )

    def masked(self, mask: Tensor | None) -> "FusionMemory":
        """The same under an additive mask."""
        return FusionMemory(self.layers, mask)

    def __iter__(self):
        return iter(self.layers)


@ENCODER_REGISTRY.register()
class TextFusionEncoder(nn.Module):
    """BERT layers for the text, then layers with attention to the picture (X²-VLM, Zeng et al.).

    The text tower runs without a picture, so that its states serve any number of pictures; keys
    and values of a picture are projected once for any number of texts.

    Args:
        text_sizes: Sizes of the text layers.
        fusion_sizes: Sizes of the fusion layers; the same width.
        text_layers: Number of text layers.
        fusion_layers: Number of fusion layers.
        memory_width: Width of the tokens of a picture.
        text_drop_path: Greatest rate of stochastic depth in the text layers.
        fusion_drop_path: The same in the fusion layers.
        recompute: Keep only the inputs of layers for the backward pass.
        cross_std: Above 0, the deviation that weights of attention to pictures start with where
            others start with MODEL.BERT.INIT_STD.
    """

    @configurable
    def __init__(
        self,
        *,
        text_sizes: BertSizes,
        fusion_sizes: BertSizes,
        text_layers: int,
        fusion_layers: int,
        memory_width: int,
        text_drop_path: float = 0.0,
        fusion_drop_path: float = 0.0,
        recompute: bool = False,
        cross_std: float = 0.0,
    ) -> None:
        super().__init__()
        self.text_layers = encoder_stack(text_sizes, text_layers, text_drop_path)
        self.fusion_layers = fusion_stack(
            fusion_sizes, fusion_layers, memory_width, fusion_drop_path
        )
        self.recompute = recompute
        for layer in self.fusion_layers:
            layer.x_att.init_std = cross_std

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.FUSION
        return {
            "text_sizes": sizes_of(cfg, node.TEXT_NORM_EPS),
            "fusion_sizes": sizes_of(cfg, node.NORM_EPS),
            "text_layers": cfg.MODEL.BERT.NUM_HIDDEN_LAYERS,
            "fusion_layers": node.LAYERS,
            "memory_width": node.MEMORY_WIDTH,
            "text_drop_path": node.TEXT_DROP_PATH,
            "fusion_drop_path": node.DROP_PATH,
            "recompute": node.GRAD_CHECKPOINT,
            "cross_std": node.CROSS_INIT_STD,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.FUSION."""
        cfg.MODEL.FUSION = CfgNode(
            {
                "LAYERS": 6,
                "MEMORY_WIDTH": 768,  # width of the tokens of a picture
                "NORM_EPS": 1e-12,  # of the fusion layers
                "TEXT_NORM_EPS": 1e-12,  # of the text layers: 1e-5 for RoBERTa and XLM-R
                "TEXT_DROP_PATH": 0.0,  # greatest rate of stochastic depth in the text layers
                "DROP_PATH": 0.0,  # the same in the fusion layers
                "GRAD_CHECKPOINT": False,  # compute activations again in the backward pass
                # Where MODEL.BERT.INIT_STD is set: that of the attention to pictures. An average
                # over many tokens is small beside the text, and a greater one is learnt sooner
                "CROSS_INIT_STD": 0.0,
            }
        )

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """Texts under their pictures, in mode ``t``; mode ``v`` has nothing to do.

        Reads U_TOKEN_EMBED (R, T, D), EXT_U_TOKENS_MASKS, and where there is a picture ATT_FEATS
        (B, N, memory width) and EXT_ATT_MASKS; gives U_HIDDEN_STATES (R, T, D).
        """
        if mode is not None and "t" not in mode:
            return {}
        mask = batched_inputs[kfg.EXT_U_TOKENS_MASKS]
        states = self.text(batched_inputs[kfg.U_TOKEN_EMBED], mask)
        memory = None
        if kfg.ATT_FEATS in batched_inputs:
            memory = self.memory(batched_inputs[kfg.ATT_FEATS])
            memory = memory.masked(batched_inputs.get(kfg.EXT_ATT_MASKS))
        return {kfg.U_HIDDEN_STATES: self.fuse(states, mask, memory)}

    def text(self, x: Tensor, mask: Tensor | None, packing: Packing | None = None) -> Tensor:
        """The text layers.

        Args:
            x: Embedded words (R, T, D), or (count, D) with ``packing``.
            mask: Additive, broadcastable to (R, 1, T, T).
            packing: Which words are real.

        Returns:
            Shaped like ``x``.
        """
        for layer in self.text_layers:
            x = self._run(_without_weights, layer, x, mask, packing)
        return x

    def memory(self, feats: Tensor) -> FusionMemory:
        """Keys and values of (U, N, memory width) for every fusion layer."""
        return FusionMemory(
            [layer.x_att.self.project_memory(feats, feats) for layer in self.fusion_layers]
        )

    def fuse(
        self,
        x: Tensor,
        mask: Tensor | None,
        memory: FusionMemory | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """The fusion layers.

        Args:
            x: States of the text tower (B * G, T, D), or (count, D) with ``packing``.
            mask: Additive, broadcastable to (B * G, 1, T, T).
            memory: Of B pictures; None leaves the attention to pictures out.
            packing: Which words are real.

        Returns:
            Shaped like ``x``.
        """
        if memory is None:
            for layer in self.fusion_layers:
                x = self._run(_without_memory, layer, x, mask, packing)
            return x
        for layer, keys_values in zip(self.fusion_layers, memory, strict=True):
            x = self._run(_with_memory, layer, x, keys_values, mask, memory.mask, packing)
        return x

    def step(
        self,
        x: Tensor,
        memory: FusionMemory,
        cache: Cache,
        mask: Tensor | None,
        weights: StepWeights | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """All layers on Q new words per picture.

        Args:
            x: Embedded words (B * Q, D), those of a picture adjacent.
            memory: Of B pictures.
            cache: Keys and values of earlier words, a layer for each of both towers; receives
                those of ``x`` in the slots from ``used`` on. The caller counts them as used.
            mask: Additive (B, 1, Q, slots), which words each one sees; None for all.
            weights: Copies of weights made for decoding.
            need_weights: Return the attention of the last layer to the pictures too.

        Returns:
            States (B * Q, D), and the attention (B, heads, Q, N) or None.
        """
        images = memory.layers[0][0].shape[0]
        for number, layer in enumerate(self.text_layers):
            x = layer.step(x, mask, cache, number, images, weights)
        attention = None
        first, last = len(self.text_layers), len(self.fusion_layers) - 1
        for number, (layer, pair) in enumerate(zip(self.fusion_layers, memory, strict=True)):
            x, attention = layer.step(
                x,
                pair,
                cache,
                first + number,
                mask,
                memory.mask,
                need_weights and number == last,
                weights,
            )
        return x, attention

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        layers = [*self.text_layers, *self.fusion_layers]
        return [linear for layer in layers for linear in layer.step_layers()]

    def _run(self, function: Any, layer: nn.Module, *arguments: Any) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(function, layer, *arguments, use_reentrant=False)
        return function(layer, *arguments)


def sizes_of(cfg: CfgNode, norm_eps: float) -> BertSizes:
    """The sizes that MODEL.BERT describes."""
    bert = cfg.MODEL.BERT
    return BertSizes(
        width=bert.HIDDEN_SIZE,
        heads=bert.NUM_ATTENTION_HEADS,
        inner_width=bert.INTERMEDIATE_SIZE,
        activation=bert.HIDDEN_ACT,
        dropout=bert.HIDDEN_DROPOUT_PROB,
        attention_dropout=bert.ATTENTION_PROBS_DROPOUT_PROB,
        norm_eps=norm_eps,
    )


def _without_weights(
    layer: nn.Module, x: Tensor, mask: Tensor | None, packing: Packing | None
) -> Tensor:
    return layer(x, mask, packing=packing)[0]


def _without_memory(
    layer: nn.Module, x: Tensor, mask: Tensor | None, packing: Packing | None
) -> Tensor:
    x, _ = layer.self_attn(x, mask, packing=packing)
    return layer.output(layer.intermediate(x), x, packing=packing)


def _with_memory(
    layer: nn.Module,
    x: Tensor,
    memory: KeysValues,
    mask: Tensor | None,
    memory_mask: Tensor | None,
    packing: Packing | None,
) -> Tensor:
    return layer(x, memory, mask, memory_mask, packing=packing)
