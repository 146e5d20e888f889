"""Pre-training of X²-VLM."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.losses.scored_rows import U_SELECTED, SelectedRows
from xmodaler.utils.errors import UserError

from ...encoder.text_fusion_encoder import FusionMemory
from ...layers.masking import BERT_HIDDEN, additive, as_bool
from ...layers.mlp_head import MlpHead
from ...predictor.contrastive_head import ContrastiveHead
from ...stage_keys import BOXES_ONLY, SKIP_MATCHING
from ..batches import Batch, without_internal
from ..build import META_ARCH_REGISTRY
from .core import Texts, X2VLMModel, shown_words, tie_words
from .negatives import Negatives, draw_negatives, negative_weights


class MatchingModel(X2VLMModel):
    """A model that tells which texts belong to which pictures.

    Args:
        contrast: Vectors of both sides and their temperature.
        itm_head: Whether a fused pair belongs together, from its first state.
        **parts: As for :class:`X2VLMModel`.
    """

    @configurable
    def __init__(self, *, contrast: ContrastiveHead, itm_head: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        self.contrast = contrast
        self.itm_head = itm_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts, node, width = super().from_config(cfg), cfg.MODEL.X2VLM, cfg.MODEL.BERT.HIDDEN_SIZE
        parts["contrast"] = ContrastiveHead(
            parts["visual_embed"].width,
            width,
            embed_dim=node.EMBED_DIM,
            temperature=node.TEMPERATURE,
            fixed=node.FIX_TEMPERATURE,
        )
        return {**parts, "itm_head": MlpHead(width, 2)}

    def vectors(self, images: Tensor, texts: Tensor) -> Batch:
        """What the contrastive loss reads, from first tokens of pictures and of texts."""
        return self.contrasted(self.contrast.images(images), self.contrast.texts(texts))

    def contrasted(self, images: Tensor, texts: Tensor) -> Batch:
        """Unit vectors of both sides (R, E), and the temperature of their products."""
        if self.training:
            self.contrast.keep_in_bounds()
        return {
            kfg.IMAGE_VECTORS: images,
            kfg.TEXT_VECTORS: texts,
            # Wrappers for several processes miss a parameter that is handed out itself.
            kfg.TEMPERATURE: self.contrast.temperature.clone(),
        }

    def negatives(self, batch: Batch, vectors: Batch) -> Negatives | None:
        """The negatives that the batch names, or else drawn ones; None where there are none."""
        if kfg.IMAGE_NEGATIVES in batch:
            return Negatives(batch[kfg.IMAGE_NEGATIVES], batch[kfg.TEXT_NEGATIVES])
        return draw_negatives(
            *negative_weights(
                vectors[kfg.IMAGE_VECTORS],
                vectors[kfg.TEXT_VECTORS],
                vectors[kfg.TEMPERATURE],
                batch.get(kfg.PAIR_IDS),
            )
        )

    def matched(self, batch: Batch, vectors: Batch, texts: Texts, memory: FusionMemory) -> Batch:
        """What :meth:`matching` makes of texts with their own memory and with negatives."""
        negatives = self.negatives(batch, vectors)
        states = [self.fuse(texts, memory).first]
        if negatives is not None:
            states.append(self.fuse(texts, memory.rows(negatives.images)).first)
            states.append(self.fuse(texts.rows(negatives.texts), memory).first)
        return self.matching(states)

    def matching(self, states: list[Tensor]) -> Batch:
        """ITM_LOGITS and ITM_LABELS; the first of ``states`` (R, D) belong together."""
        number = len(states[0])
        logits = self.itm_head(torch.cat(states))
        labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        labels[:number] = 1
        return {kfg.ITM_LOGITS: logits, kfg.ITM_LABELS: labels}


@META_ARCH_REGISTRY.register()
class X2VLMPretrain(MatchingModel):
    """Learns from pictures, regions, videos and texts (Zeng et al. 2023, section 3).

    What a batch teaches depends on what it holds:

    * IMAGES (B, 3, H, W) or videos (B, F, 3, H, W) with a text each: contrast, matching with hard
      negatives, masked words;
    * with REGION_INDEX (R,) and REGION_MASKS (R, 1 + P) the same for regions, whose texts are R,
      and the box that a text describes (TARGET_BBOX, IS_IMAGE);
    * a text alone: masked words;
    * P_TOKENS_IDS, the text in another language: contrast and matching of the two languages, and
      masked words given the translation (CCLM, Zeng et al., ACL 2023);
    * GROUPS: several of these by name.

    SKIP_MATCHING leaves matching out, BOXES_ONLY all but boxes.

    Args:
        bbox_head: The box of a fused pair, from its first state.
        tie_word_head: Whether the word head shares the matrix of the word embedding.
        image_boxes: Whether texts of whole pictures learn the box of the picture.
        **parts: As for :class:`MatchingModel`; ``predictor`` is the word head.
    """

    @configurable
    def __init__(
        self,
        *,
        bbox_head: nn.Module,
        tie_word_head: bool = True,
        image_boxes: bool = False,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.bbox_head = bbox_head
        self.image_boxes = image_boxes
        if tie_word_head:
            tie_words(self, self.predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        # The word head is that of the text tower.
        parts["predictor"].transform.LayerNorm.eps = cfg.MODEL.FUSION.TEXT_NORM_EPS
        return {
            **parts,
            "bbox_head": MlpHead(cfg.MODEL.BERT.HIDDEN_SIZE, 4),
            "tie_word_head": cfg.MODEL.X2VLM.TIE_WORDS,
            "image_boxes": cfg.MODEL.X2VLM.IMAGE_BOXES,
        }

    def _forward(self, batched_inputs: Batch) -> Batch:
        """What the losses of every kind of batch read; see the class."""
        if kfg.GROUPS in batched_inputs:
            groups = batched_inputs[kfg.GROUPS]
            return {kfg.GROUPS: {name: self._of_kind(part) for name, part in groups.items()}}
        return self._of_kind(batched_inputs)

    def _of_kind(self, batch: Batch) -> Batch:
        if kfg.IMAGES in batch:
            produced = self._pairs(batch)
        elif kfg.P_TOKENS_IDS in batch:
            produced = self._translations(batch)
        else:
            produced = self._texts(batch)
        return without_internal({**batch, **produced})

    def _pairs(self, batch: Batch) -> Batch:
        seen = self.see(batch)
        tokens = seen[kfg.ATT_FEATS]
        if batch.get(BOXES_ONLY) and kfg.REGION_FEATS in seen:
            return self._boxes(batch, self._clean(batch), self._whole(batch, seen))
        both = self._clean_and_masked(batch)
        clean = both.rows(_first(len(both.shown) // 2, both.shown.device))
        if kfg.REGION_FEATS not in seen:
            _check_pairs(len(clean.shown), len(tokens))
            vectors = self.vectors(tokens[:, 0], clean.first)
            memory = self.encoder.memory(tokens)
            return {**vectors, **self._fused(batch, vectors, both, clean, memory)}
        regions = seen[kfg.REGION_FEATS]
        _check_pairs(len(clean.shown), len(regions.index))
        patches = self.encoder.memory(regions.patches).rows(regions.index)
        own = patches.behind(self.encoder.memory(regions.cls.unsqueeze(1)))
        whole = self._whole(batch, seen, patches)
        shown = as_bool(batch[kfg.REGION_MASKS])[:, None, None, :]
        own = own.masked(additive(shown, tokens.dtype, BERT_HIDDEN))
        vectors = self.vectors(regions.cls, clean.first)
        produced = {**vectors, **self._fused(batch, vectors, both, clean, own)}
        return {**produced, **self._boxes(batch, clean, whole)}

    def _whole(
        self, batch: Batch, seen: Batch, patches: FusionMemory | None = None
    ) -> FusionMemory:
        """The whole picture of every region; of ``patches``, those of the regions, if they do."""
        tokens, index = seen[kfg.ATT_FEATS], batch[kfg.REGION_INDEX]
        same = seen[kfg.REGION_FEATS].patches.shape[0] == tokens.shape[0]
        if patches is None or not same:  # or the tower gave regions patches of their own
            return self.encoder.memory(tokens).rows(index)
        return patches.behind(self.encoder.memory(tokens[:, :1]).rows(index))

    def _translations(self, batch: Batch) -> Batch:
        both = self._clean_and_masked(batch)
        number = len(both.shown) // 2
        clean = both.rows(_first(number, both.shown.device))
        shown = shown_words(batch, kfg.P_TOKENS_IDS, kfg.P_TOKENS_MASKS)
        other = self.read(batch[kfg.P_TOKENS_IDS], shown)
        _check_pairs(number, len(other.shown))
        vectors = self.contrasted(
            self.contrast.texts(clean.first), self.contrast.texts(other.first)
        )
        matched: Batch = {}
        if not batch.get(SKIP_MATCHING):
            memory = self.encoder.memory(clean.padded()).masked(clean.mask())
            matched = self.matched(batch, vectors, other, memory)
        translation = self.encoder.memory(other.padded()).masked(other.mask())
        masked = both.rows(_first(number, both.shown.device) + number)
        words = self._masked_words(batch, self.fuse(masked, translation), 1)
        return {**vectors, **matched, **words}

    def _texts(self, batch: Batch) -> Batch:
        shown = shown_words(batch, kfg.U_TOKENS_IDS)
        texts = self.fuse(self.read(batch[kfg.U_TOKENS_IDS], shown), None)
        return self._masked_words(batch, texts, 1)

    def _clean(self, batch: Batch) -> Texts:
        """The text tower on the words as they are."""
        shown = shown_words(batch, kfg.U_TOKENS_IDS)
        return self.read(batch.get(kfg.U_TOKENS_IDS_WO_MASK, batch[kfg.U_TOKENS_IDS]), shown)

    def _clean_and_masked(self, batch: Batch) -> Texts:
        """The text tower on the words as they are, then on the masked ones: 2R rows."""
        shown = shown_words(batch, kfg.U_TOKENS_IDS)
        if kfg.U_TOKENS_IDS_WO_MASK not in batch:
            raise UserError(
                f"the batch has no {kfg.U_TOKENS_IDS_WO_MASK}, the words before masking, which "
                "contrast and matching need"
            )
        tokens = torch.cat([batch[kfg.U_TOKENS_IDS_WO_MASK], batch[kfg.U_TOKENS_IDS]])
        return self.read(tokens, torch.cat([shown, shown]))

    def _fused(
        self,
        batch: Batch,
        vectors: Batch,
        both: Texts,
        clean: Texts,
        memory: FusionMemory,
    ) -> Batch:
        """Matching and masked words."""
        number = len(clean.shown)
        own = _first(number, clean.shown.device)
        if batch.get(SKIP_MATCHING):
            fused = self.fuse(both.rows(own + number), memory)
            return self._masked_words(batch, fused, 1)
        negatives = self.negatives(batch, vectors)
        # The texts of a picture run together and share its keys and values.
        rows = [own, own + number]
        if negatives is not None:
            rows.insert(1, negatives.texts)
        groups = len(rows)
        fused = self.fuse(both.rows(torch.stack(rows, dim=1).flatten()), memory)
        first = fused.first.unflatten(0, (number, groups))
        states = [first[:, 0]]
        if negatives is not None:
            states.append(self.fuse(clean, memory.rows(negatives.images)).first)
            states.append(first[:, 1])
        return {**self.matching(states), **self._masked_words(batch, fused, groups)}

    def _masked_words(self, batch: Batch, fused: Texts, groups: int) -> Batch:
        """The logits of masked words; their texts are the last of every group."""
        targets = batch.get(kfg.U_TARGET_IDS)
        if targets is None:
            return {}
        length = targets.shape[1]
        index = (targets.flatten() >= 0).nonzero().squeeze(1)
        row, column = index // length, index % length
        states = fused.at((row * groups + groups - 1) * length + column)
        logits = self.predictor({kfg.U_HIDDEN_STATES: states})[kfg.U_LOGITS]
        return {U_SELECTED: SelectedRows.of(logits, targets, index)}

    def _boxes(self, batch: Batch, clean: Texts, whole: FusionMemory) -> Batch:
        if kfg.TARGET_BBOX not in batch:
            return {}
        produced = {kfg.OUTPUT_BBOX: self.bbox_head(self.fuse(clean, whole).first).sigmoid()}
        if self.image_boxes:
            produced[kfg.IS_IMAGE] = torch.zeros_like(batch[kfg.IS_IMAGE])
        return produced


def _first(number: int, device: torch.device) -> Tensor:
    return torch.arange(number, device=device)


def _check_pairs(texts: int, images: int) -> None:
    if texts != images:
        raise UserError(
            f"{texts} texts for {images} pictures or regions; pre-training pairs one text with "
            "each, so draw one of several captions"
        )
