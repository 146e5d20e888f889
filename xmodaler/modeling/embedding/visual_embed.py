"""Embedding of region, grid and frame features."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.create_act import build_act_layer
from ..layers.packing import pack_or_flatten, unpack_or_keep
from ..stage_keys import ATT_PACKING
from .build import EMBEDDING_REGISTRY

LOCATION_WIDTH = 5
"""x1/w, y1/h, x2/w, y2/h and the area fraction of a box."""


def features_of(
    batched_inputs: dict[str, Any], key: str, width: int, setting: str, owner: nn.Module
) -> Tensor:
    """The features under a key, if they are there and as wide as the model expects.

    Raises:
        UserError: They are not; the message names the setting to change.
    """
    feats = batched_inputs.get(key)
    name = type(owner).__name__
    if feats is None:
        raise UserError(f"{key} is missing from the batch; {name} needs features of width {width}")
    if feats.shape[-1] != width:
        raise UserError(
            f"{key} has features of width {feats.shape[-1]} but {setting} is {width}; "
            "set it to the width of your features"
        )
    return feats


def visual_layers(cfg: CfgNode, with_location: bool = True) -> dict[str, Any]:
    """The optional modules that ``MODEL.VISUAL_EMBED`` asks for, as constructor keywords."""
    node = cfg.MODEL.VISUAL_EMBED
    kwargs: dict[str, Any] = {"embeddings_act": build_act_layer(node.ACTIVATION, node.ELU_ALPHA)}
    if node.DROPOUT > 0:
        kwargs["embeddings_dropout"] = nn.Dropout(node.DROPOUT)
    if node.USE_NORM:
        kwargs["embeddings_norm"] = nn.LayerNorm(node.OUT_DIM)
    if with_location and node.LOCATION_SIZE > 0:
        kwargs["embeddings_pos"] = nn.Linear(LOCATION_WIDTH, node.OUT_DIM)
    return kwargs


@EMBEDDING_REGISTRY.register()
class VisualBaseEmbedding(nn.Module):
    """``dropout(norm(act(W f + W_box box)))``; every step but the first Linear is optional.

    Args:
        in_dim: Width of the features.
        out_dim: Width of the embedding.
        embeddings_act: Activation.
        embeddings_norm: Norm over the last axis.
        embeddings_dropout: Dropout.
        embeddings_pos: Linear of the five box numbers.
    """

    accepts_packing = True

    finishing = ("embeddings_act", "embeddings_norm", "embeddings_dropout")
    """What follows the Linear, in this order."""

    @configurable
    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        embeddings_act: nn.Module | None = None,
        embeddings_norm: nn.Module | None = None,
        embeddings_dropout: nn.Module | None = None,
        embeddings_pos: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.embeddings = nn.Linear(in_dim, out_dim)
        self.embeddings_act = embeddings_act
        self.embeddings_norm = embeddings_norm
        self.embeddings_dropout = embeddings_dropout
        self.embeddings_pos = embeddings_pos

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.VISUAL_EMBED
        return {"in_dim": node.IN_DIM, "out_dim": node.OUT_DIM, **visual_layers(cfg)}

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Embed ATT_FEATS (B, N, in) and, if present, ATT_FEATS_LOC (B, N, 5) to (B, N, out)."""
        x = self.project(batched_inputs)
        for name in self.finishing:
            layer = getattr(self, name)
            if layer is not None:
                x = layer(x)
        return {kfg.ATT_FEATS: unpack_or_keep(x, batched_inputs.get(ATT_PACKING))}

    def project(self, batched_inputs: dict[str, Any]) -> Tensor:
        """The sum of what the Linears give, packed where positions are left out."""
        packing = batched_inputs.get(ATT_PACKING)
        feats = features_of(
            batched_inputs, kfg.ATT_FEATS, self.in_dim, "MODEL.VISUAL_EMBED.IN_DIM", self
        )
        x = self.embeddings(pack_or_flatten(feats, packing))
        if self.embeddings_pos is not None and kfg.ATT_FEATS_LOC in batched_inputs:
            boxes = pack_or_flatten(batched_inputs[kfg.ATT_FEATS_LOC], packing)
            x = x + self.embeddings_pos(boxes.to(x.dtype))
        return x


@EMBEDDING_REGISTRY.register()
class VisualIdentityEmbedding(nn.Module):
    """Features are used as they come; no parameters."""

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Produces nothing."""
        return {}
