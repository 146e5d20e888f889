"""The head that answers questions from both streams of TDEN."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.attention_pooler import AttentionPooler
from ..layers.grouping import repeat_rows
from .build import PREDICTOR_REGISTRY
from .states import last_state


def pooler_settings(cfg: CfgNode) -> dict[str, Any]:
    """The settings of attention poolers as constructor keywords."""
    node = cfg.MODEL.MM_PREDICTOR
    return {
        "pooler_input_size": node.POOLER_INPUT_SIZE,
        "pooler_output_size": node.POOLER_OUTPUT_SIZE,
        "pooler_bn": node.POOLER_BN,
        "pooler_dropout": node.POOLER_DROPOUT,
    }


def add_pooler_config(cfg: CfgNode) -> CfgNode:
    """The node MODEL.MM_PREDICTOR with the settings of attention poolers."""
    if "MM_PREDICTOR" not in cfg.MODEL:
        cfg.MODEL.MM_PREDICTOR = CfgNode()
    node = cfg.MODEL.MM_PREDICTOR
    node.POOLER_INPUT_SIZE = 768
    node.POOLER_OUTPUT_SIZE = 768
    node.POOLER_BN = False
    node.POOLER_DROPOUT = 0.1
    return node


@PREDICTOR_REGISTRY.register()
class MultiModalPredictor(nn.Module):
    """Scores of answers, or of whether a text fits, from pooled words and regions.

    ``u = W LN(sum_i pool_i(v_i) * pool_u(t))``, where v_i are the regions after understanding
    layer i and t the words after the last, and ``g = W' LN(pool_g(s))`` of the last states s of
    the generation layers (Li et al., AAAI 2021, section 4). The answer is the class of
    ``softmax(u) + softmax(g)``.

    Args:
        labels_num: Number of answers C; 1 for the score of a text.
        pooler_input_size: Width D of the states.
        pooler_output_size: Width P of the pooled vectors.
        pooler_bn: Whether poolers normalise over the batch.
        pooler_dropout: Dropout in the poolers.
        num_understanding_layers: Number of understanding layers; 0 for no ``u``.
        num_generation_layers: Number of generation layers; 0 for no ``g``.
    """

    @configurable
    def __init__(
        self,
        *,
        labels_num: int,
        pooler_input_size: int,
        pooler_output_size: int,
        pooler_bn: bool,
        pooler_dropout: float,
        num_understanding_layers: int,
        num_generation_layers: int,
    ) -> None:
        super().__init__()

        def pooler() -> AttentionPooler:
            return AttentionPooler(
                hidden_size=pooler_input_size,
                output_size=pooler_output_size,
                dropout=pooler_dropout,
                use_bn=pooler_bn,
            )

        def scores() -> nn.Sequential:
            return nn.Sequential(
                nn.LayerNorm(pooler_output_size), nn.Linear(pooler_output_size, labels_num)
            )

        self.labels_num = labels_num
        understands = num_understanding_layers > 0
        self.u_pooler = pooler() if understands else None
        levels = [pooler() for _ in range(num_understanding_layers)]
        self.v_pooler = nn.ModuleList(levels) if understands else None
        self.u_logits = scores() if understands else None
        self.g_pooler = pooler() if num_generation_layers > 0 else None
        self.g_logits = scores() if num_generation_layers > 0 else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "labels_num": cfg.MODEL.MM_PREDICTOR.LABELS_NUM,
            **pooler_settings(cfg),
            "num_understanding_layers": cfg.MODEL.BERT.NUM_UNDERSTANDING_LAYERS,
            "num_generation_layers": cfg.MODEL.BERT.NUM_GENERATION_LAYERS,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates ``MODEL.MM_PREDICTOR``."""
        add_pooler_config(cfg).LABELS_NUM = 3129

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """Score.

        Args:
            batched_inputs: U_HIDDEN_STATES (R, T, D) and ATT_FEATS, a list of (R, N, D) for
                every understanding layer; G_HIDDEN_STATES (R, T, D); additive masks
                EXT_ATT_MASKS (B, 1, 1, N), EXT_U_TOKENS_MASKS and EXT_G_TOKENS_MASKS (R, 1, 1, T).

        Returns:
            U_LOGITS and G_LOGITS (R, C), whichever has its states. In evaluation also OUTPUT:
            the answers (R,) int64, or with C = 1 the scores (R, 1).
        """
        produced: dict[str, Any] = {}
        if self.u_pooler is not None and kfg.U_HIDDEN_STATES in batched_inputs:
            produced[kfg.U_LOGITS] = self._understood(batched_inputs)
        if self.g_pooler is not None and kfg.G_HIDDEN_STATES in batched_inputs:
            states = last_state(batched_inputs[kfg.G_HIDDEN_STATES])
            pooled = self.g_pooler(states, batched_inputs[kfg.EXT_G_TOKENS_MASKS])
            produced[kfg.G_LOGITS] = self.g_logits(pooled)
        if not self.training:
            produced[kfg.OUTPUT] = self._answers(list(produced.values()))
        return produced

    def _understood(self, batched_inputs: dict[str, Any]) -> Tensor:
        text_mask, mask = (
            batched_inputs[key] for key in (kfg.EXT_U_TOKENS_MASKS, kfg.EXT_ATT_MASKS)
        )
        mask = repeat_rows(mask, text_mask.shape[0])
        levels = zip(self.v_pooler, batched_inputs[kfg.ATT_FEATS], strict=True)
        v = sum(pool(feats, mask) for pool, feats in levels)
        t = self.u_pooler(last_state(batched_inputs[kfg.U_HIDDEN_STATES]), text_mask)
        return self.u_logits(v * t)

    def _answers(self, logits: list[Tensor]) -> Tensor:
        if self.labels_num == 1:
            return torch.stack(logits).sum(dim=0)
        return torch.stack([torch.softmax(each, dim=-1) for each in logits]).sum(dim=0).argmax(-1)
