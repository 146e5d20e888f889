"""Attributes and object tags as further things to look at."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.masking import additive
from .build import ENCODER_REGISTRY


@ENCODER_REGISTRY.register()
class TagEncoder(nn.Module):
    """Another encoder, and behind its regions the embedded words for what is in the picture.

    Attributes as in You et al. 2016, section 3.3, where a decoder attends to the words of detected
    concepts; tags of objects as in Li et al. 2020 ("Oscar"), section 3. The likeliest tags become
    memory vectors ``t_k = dropout(E[k] + p_k u)`` with a learned vector u for the probability
    p_k; their mean is added to the global feature, where there is one, for decoders that do not
    attend.

    Args:
        dim: Width D of the regions.
        num_attributes: Number of probabilities in ATTRIBUTE that are read, or 0.
        num_objects: Number of class probabilities of a region in V_TARGET that are read, or 0;
            class 0, the ground, is no tag.
        max_tags: Most tags of a picture.
        min_probability: Least probability of a tag.
        dropout: Dropout on the tags.
        encoder: What encodes the regions, or None.
    """

    @configurable
    def __init__(
        self,
        *,
        dim: int,
        num_attributes: int,
        num_objects: int,
        max_tags: int,
        min_probability: float,
        dropout: float = 0.0,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_attributes, self.num_objects = num_attributes, num_objects
        total = num_attributes + num_objects
        if total <= 0 or max_tags <= 0:
            raise UserError(
                "TagEncoder has no tags; set MODEL.TAGS.ATTRIBUTE_NUM to the number of your "
                "attributes or OBJECT_NUM to that of your classes, and MAX_TAGS above 0"
            )
        self.max_tags, self.min_probability = min(max_tags, total), min_probability
        self.embeddings = nn.Embedding(total, dim)
        self.sureness = nn.Parameter(torch.zeros(dim))
        self.dropout = nn.Dropout(dropout)
        self.encoder = encoder

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.TAGS
        if cls.__name__ == node.ENCODER:
            raise UserError("MODEL.TAGS.ENCODER names TagEncoder itself; name what encodes regions")
        return {
            "dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM,
            "num_attributes": node.ATTRIBUTE_NUM,
            "num_objects": node.OBJECT_NUM,
            "max_tags": node.MAX_TAGS,
            "min_probability": node.MIN_PROB,
            "dropout": node.DROPOUT,
            "encoder": ENCODER_REGISTRY.get(node.ENCODER)(cfg) if node.ENCODER else None,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.TAGS; the encoder that it names creates its own keys."""
        cfg.MODEL.TAGS = CfgNode(
            {
                "ENCODER": "UpDownEncoder",  # encodes the regions; '' for none
                "ATTRIBUTE_NUM": 0,  # width of ATTRIBUTE; 0 leaves attributes out
                "OBJECT_NUM": 0,  # width of V_TARGET, the ground counted; 0 leaves objects out
                "MAX_TAGS": 10,
                "MIN_PROB": 0.3,
                "DROPOUT": 0.0,
            }
        )

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """What the inner encoder produces; in mode 'v' with the tags (B, K, D) behind its regions.

        ATT_FEATS becomes (B, N + K, D), ATT_MASKS (B, N + K) and EXT_ATT_MASKS (..., N + K).
        """
        produced = {} if self.encoder is None else self.encoder(batched_inputs, mode=mode)
        if mode is not None and "v" not in mode:
            return produced
        batch = {**batched_inputs, **produced}
        feats = batch[kfg.ATT_FEATS]
        if feats.dim() != 3:
            raise UserError(
                f"the encoder of MODEL.TAGS.ENCODER gives {kfg.ATT_FEATS} of shape "
                f"{tuple(feats.shape)}; tags need (pictures, regions, width)"
            )
        tags, shown = self.tags(batch)
        hidden = batch[kfg.EXT_ATT_MASKS]
        of_tags = additive(shown, hidden.dtype).view(len(shown), *[1] * (hidden.dim() - 2), -1)
        produced = {
            **produced,
            kfg.ATT_FEATS: torch.cat([feats, tags.to(feats.dtype)], dim=1),
            kfg.ATT_MASKS: torch.cat([batch[kfg.ATT_MASKS].bool(), shown], dim=1),
            kfg.EXT_ATT_MASKS: torch.cat([hidden, of_tags], dim=-1),
        }
        if kfg.GLOBAL_FEATS in batch:
            count = shown.sum(dim=1, keepdim=True).clamp(min=1).to(tags.dtype)
            mean = (tags * shown.unsqueeze(-1)).sum(dim=1) / count
            produced[kfg.GLOBAL_FEATS] = batch[kfg.GLOBAL_FEATS].flatten(1) + mean
        return produced

    def tags(self, batched_inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The likeliest tags (B, K, D) of each picture and whether they count, bool (B, K)."""
        sources = []
        if self.num_attributes:
            sources.append(_read(batched_inputs, kfg.ATTRIBUTE, self.num_attributes, "ATTRIBUTE"))
        if self.num_objects:
            classes = _read(batched_inputs, kfg.V_TARGET, self.num_objects, "OBJECT")
            found = classes.amax(dim=1)
            sources.append(torch.cat([torch.zeros_like(found[:, :1]), found[:, 1:]], dim=1))
        likeliest, ids = torch.cat(sources, dim=1).topk(self.max_tags, dim=1)
        embedded = self.embeddings(ids)
        sure = likeliest.unsqueeze(-1).to(embedded.dtype) * self.sureness
        return self.dropout(embedded + sure), likeliest >= self.min_probability


def _read(batched_inputs: dict[str, Any], key: str, width: int, name: str) -> Tensor:
    value = batched_inputs.get(key)
    if value is None:
        source = (
            "set DATALOADER.ATTRIBUTE_FILE"
            if name == "ATTRIBUTE"
            else "use feature files with boxes and cls_prob"
        )
        raise UserError(f"{key} is missing from the batch; TagEncoder needs it: {source}")
    if value.shape[-1] != width:
        raise UserError(
            f"{key} has width {value.shape[-1]} but MODEL.TAGS.{name}_NUM is {width}; "
            "the two must agree"
        )
    return value
