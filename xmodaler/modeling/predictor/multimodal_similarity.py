"""The head that compares pictures and texts."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..layers.attention_pooler import AttentionPooler
from .build import PREDICTOR_REGISTRY
from .multimodal_predictor import add_pooler_config, pooler_settings
from .states import last_state


@PREDICTOR_REGISTRY.register()
class MultiModalSimilarity(nn.Module):
    """Cosine of a picture's vector and a text's (Li et al., AAAI 2021, section 3.3).

    ``v = sum_i pool_i(v_i) / sqrt(L)`` over the outputs v_i of the L region layers of the encoder,
    ``t = pool_t(t_last)``, both of length 1; the similarity is their product.

    Args:
        pooler_input_size: Width D of the states.
        pooler_output_size: Width P of the vectors.
        pooler_bn: Whether poolers normalise over the batch.
        pooler_dropout: Dropout in the poolers.
        num_hidden_layers: Number of text layers; the last one's output is pooled.
        v_num_hidden_layers: Number L of region layers.
    """

    @configurable
    def __init__(
        self,
        *,
        pooler_input_size: int,
        pooler_output_size: int,
        pooler_bn: bool,
        pooler_dropout: float,
        num_hidden_layers: int,
        v_num_hidden_layers: int,
    ) -> None:
        super().__init__()
        settings = {
            "hidden_size": pooler_input_size,
            "output_size": pooler_output_size,
            "dropout": pooler_dropout,
            "use_bn": pooler_bn,
        }
        self.num_hidden_layers, self.v_num_hidden_layers = num_hidden_layers, v_num_hidden_layers
        self.t_pooler = AttentionPooler(**settings)
        self.v_pooler = nn.ModuleList(
            AttentionPooler(**settings) for _ in range(v_num_hidden_layers)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            **pooler_settings(cfg),
            "num_hidden_layers": cfg.MODEL.BERT.NUM_HIDDEN_LAYERS,
            "v_num_hidden_layers": cfg.MODEL.BERT.V_NUM_HIDDEN_LAYERS,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates ``MODEL.MM_PREDICTOR``."""
        add_pooler_config(cfg)

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """Compare every text with every picture in training; in evaluation give their vectors.

        Args:
            batched_inputs: What the encoder produced: ATT_FEATS, a list of L tensors (B, N, D),
                and U_TOKEN_EMBED (R, T, D), or a list of which the last counts; additive masks
                EXT_ATT_MASKS (B, 1, 1, N) and EXT_U_TOKENS_MASKS (R, 1, 1, T).

        Returns:
            OUTPUT: (R, B) similarities in training; else the vectors of pictures (B, P) and of
            texts (R, P).
        """
        pictures, texts = self.picture_vectors(batched_inputs), self.text_vectors(batched_inputs)
        return {kfg.OUTPUT: texts @ pictures.t() if self.training else [pictures, texts]}

    def picture_vectors(self, batched_inputs: dict[str, Any]) -> Tensor:
        """Vectors (B, P) of length 1, from ATT_FEATS and EXT_ATT_MASKS alone."""
        mask = batched_inputs[kfg.EXT_ATT_MASKS]
        levels = zip(self.v_pooler, batched_inputs[kfg.ATT_FEATS], strict=True)
        pooled = sum(pool(feats, mask) for pool, feats in levels)
        return F.normalize(pooled / len(self.v_pooler) ** 0.5, dim=-1)

    def text_vectors(self, batched_inputs: dict[str, Any]) -> Tensor:
        """Vectors (R, P) of length 1, from U_TOKEN_EMBED and EXT_U_TOKENS_MASKS alone."""
        words = last_state(batched_inputs[kfg.U_TOKEN_EMBED])
        pooled: Tensor = self.t_pooler(words, batched_inputs[kfg.EXT_U_TOKENS_MASKS])
        return F.normalize(pooled, dim=-1)
