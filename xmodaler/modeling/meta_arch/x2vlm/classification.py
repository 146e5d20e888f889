"""Labels of pictures, videos and texts: grounding's box, true or false, answers of a list."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ...layers.mlp_head import MlpHead
from ..batches import Batch, without_internal
from ..build import META_ARCH_REGISTRY
from .core import X2VLMModel, shown_words


@META_ARCH_REGISTRY.register()
class X2VLMClassifier(X2VLMModel):
    """A label for a text about a picture or video, or for one of them alone.

    Video question answering with a list of answers, visual entailment, and the like.

    Args:
        cls_head: Labels from the first state.
        **parts: As for :class:`X2VLMModel`.
    """

    @configurable
    def __init__(self, *, cls_head: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        self.cls_head = cls_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        head = MlpHead(cfg.MODEL.BERT.HIDDEN_SIZE, cfg.MODEL.X2VLM.NUM_LABELS)
        return {**super().from_config(cfg), "cls_head": head}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """U_LOGITS (R, labels), and in evaluation OUTPUT (R,) int64.

        Args:
            batched_inputs: IMAGES (B, 3, H, W) or videos (B, F, 3, H, W), U_TOKENS_IDS (R, T) with
                TOKENS_MASKS, or one of the two alone.
        """
        has_text = kfg.U_TOKENS_IDS in batched_inputs
        if kfg.IMAGES not in batched_inputs:
            shown = shown_words(batched_inputs, kfg.U_TOKENS_IDS)
            first = self.fuse(self.read(batched_inputs[kfg.U_TOKENS_IDS], shown), None).first
        elif has_text:
            first = self.fused_pair(batched_inputs).first
        else:
            first = self.see(batched_inputs)[kfg.ATT_FEATS][:, 0]
        return self._labelled(batched_inputs, first)

    def _labelled(self, batch: Batch, first: Tensor) -> Batch:
        logits = self.cls_head(first)
        produced = {kfg.U_LOGITS: logits}
        if not self.training:
            produced[kfg.OUTPUT] = logits.argmax(dim=1)
        return without_internal({**batch, **produced})


@META_ARCH_REGISTRY.register()
class X2VLMReasoning(X2VLMClassifier):
    """Whether a statement about two pictures is true (NLVR2, Suhr et al., ACL 2019).

    The text is encoded once and fused with each picture; the head reads both first states.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        head = MlpHead(2 * cfg.MODEL.BERT.HIDDEN_SIZE, cfg.MODEL.X2VLM.NUM_LABELS)
        return {**super().from_config(cfg), "cls_head": head}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """U_LOGITS (B, labels), and in evaluation OUTPUT (B,) int64; label 1 is true.

        Args:
            batched_inputs: IMAGES and SECOND_IMAGES (B, 3, H, W), U_TOKENS_IDS (B, T) with
                TOKENS_MASKS.
        """
        if kfg.SECOND_IMAGES not in batched_inputs:
            raise UserError(f"X2VLMReasoning compares two pictures; {kfg.SECOND_IMAGES} is missing")
        pictures = [batched_inputs[key] for key in (kfg.IMAGES, kfg.SECOND_IMAGES)]
        seen = self.see({kfg.IMAGES: torch.cat(pictures)})
        shown = shown_words(batched_inputs, kfg.U_TOKENS_IDS)
        texts = self.read(batched_inputs[kfg.U_TOKENS_IDS], shown)
        rows = torch.arange(len(shown), device=shown.device)
        memory = self.encoder.memory(seen[kfg.ATT_FEATS])
        first = self.fuse(texts.rows(torch.cat([rows, rows])), memory).first
        return self._labelled(batched_inputs, torch.cat(first.chunk(2), dim=1))


@META_ARCH_REGISTRY.register()
class X2VLMGrounding(X2VLMModel):
    """The box that a phrase describes (section 4.2).

    Args:
        bbox_head: The box, from the first state.
        **parts: As for :class:`X2VLMModel`.
    """

    @configurable
    def __init__(self, *, bbox_head: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        self.bbox_head = bbox_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "bbox_head": MlpHead(cfg.MODEL.BERT.HIDDEN_SIZE, 4)}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """OUTPUT_BBOX (R, 4), cx, cy, w, h as shares of the picture; in evaluation OUTPUT too.

        Args:
            batched_inputs: IMAGES (B, 3, H, W), phrases U_TOKENS_IDS (R, T) with TOKENS_MASKS.
        """
        boxes = self.bbox_head(self.fused_pair(batched_inputs).first).sigmoid()
        produced = {kfg.OUTPUT_BBOX: boxes}
        if not self.training:
            produced[kfg.OUTPUT] = boxes
        return without_internal({**batched_inputs, **produced})
