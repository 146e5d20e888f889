"""Mappers of pre-training: pictures with one caption each, words and regions hidden by chance."""

import os
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import caption_to_mask_tokens, iou, random_region, read_lines_set
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..common import DatasetFromList
from ..features import RegionSet
from ..open_records import caption_records, read_table
from ..visual_source import RegionSource, VisualSource, build_source
from .understanding import TextCounts, UnderstandingDataset, token_types

_FILES = {
    "train": "Train_GCC-training.tsv",
    "val": "Validation_GCC-1.1.0-Validation.tsv",
}
_TRIES = 1000


@DATASETS_REGISTRY.register()
class ConceptualCaptionsDataset(UnderstandingDataset):
    """Pre-training pairs for two streams (TDEN: Li et al., 2021, section 3).

    A sample holds the caption with hidden words for understanding (U_TOKENS_IDS with
    U_TARGET_IDS, the hidden words) and for generation (G_TOKENS_IDS, the same ids, with
    G_TARGET_IDS, the next word at every position), and the regions with hidden ones zeroed
    (ATT_FEATS, a mean row of what is left in front; V_TARGET_LABELS: 1 = hidden), beside V_TARGET,
    the detector's class probabilities. From pictures in place of regions, IMAGES take the place of
    all visual keys.

    Args:
        stage: ``"train"`` or ``"val"``.
        anno_file: Lines ``caption <tab> address``; the number of a line, from 1, is the image id.
        max_seq_length: Greatest length of a caption with its special tokens.
        max_feat_num: Most rows of an image, the mean row included.
        feats_folder: Folder or packed file of region features with ``cls_prob``.
        images_ids_file: Ids of the images to use, one a line; '' for all.
        tokenizer: Cuts the captions.
        source: Gives the visual keys in place of ``feats_folder``.
    """

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        max_seq_length: int,
        max_feat_num: int,
        feats_folder: str,
        images_ids_file: str,
        tokenizer: Any,
        source: VisualSource | None = None,
    ) -> None:
        if source is None:
            source = RegionSource(feats_folder, max_feat_num)
        super().__init__(stage, source, tokenizer, max_seq_length, os.path.dirname(anno_file))
        self.anno_file = anno_file
        self.images_ids_file = images_ids_file
        # Known once load_data has seen the config.
        self.num_classes = 0
        self.must_mask_region = False

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        return {
            "stage": stage,
            "anno_file": os.path.join(loader.ANNO_FOLDER, _FILES.get(stage, "")),
            "max_seq_length": cfg.MODEL.MAX_SEQ_LEN,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "feats_folder": loader.FEATS_FOLDER,
            "images_ids_file": os.path.join(loader.ANNO_FOLDER, f"{stage}_images_ids.txt"),
            "tokenizer": build_tokenizer(cfg),
            "source": build_source(cfg, stage, use_global_v=True),
        }

    def prepare(self, cfg: CfgNode) -> None:
        super().prepare(cfg)
        # A model that draws its tasks may leave out the one that learns classes.
        tasks = cfg.MODEL.get("PRETRAIN_TASKS", ["mrc-kl"])
        self.num_classes = cfg.MODEL.BERT.V_TARGET_SIZE if "mrc-kl" in tasks else 0
        self.must_mask_region = cfg.DATALOADER.MUST_MASK_REGION
        if (self.num_classes or "mrfr" in tasks) and not isinstance(self.source, RegionSource):
            raise UserError(
                "pictures bring no regions of which classes or features could be learnt; set "
                "MODEL.BERT.V_TARGET_SIZE to 0, MODEL.V_PREDICTOR and MODEL.V_REGRESSOR to '' and "
                "MODEL.PRETRAIN_TASKS, where the model draws its tasks, to [itm, mlm]"
            )

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records ``{image_id, caption}``, and ``file_name`` where pictures have names."""
        if cfg.DATALOADER[f"{self.stage.upper()}_ANNFILE"]:
            return caption_records(cfg, self.stage)
        if self.stage not in _FILES:
            raise UserError(
                f"Conceptual Captions has no split '{self.stage}'; it has train and val"
            )
        return _read_pairs(self.anno_file, self.images_ids_file)

    def masked_text(self, record: dict[str, Any]) -> dict[str, Any]:
        """The text keys of a sample."""
        tokens, labels, following = caption_to_mask_tokens(
            self.caption_of(record), self.max_seq_len, self.tokenizer, need_g_tokens=True
        )
        return {
            kfg.U_TOKENS_IDS: tokens,
            kfg.G_TOKENS_IDS: tokens,
            kfg.U_TOKENS_TYPE: token_types(tokens),
            kfg.G_TOKENS_TYPE: token_types(tokens, 1),
            kfg.U_TARGET_IDS: labels,
            kfg.G_TARGET_IDS: following,
        }

    def caption_of(self, record: dict[str, Any]) -> str:
        """The caption of a record.

        Raises:
            SampleError: It has none.
        """
        caption = record.get("caption")
        if not isinstance(caption, str) or not caption.strip():
            raise SampleError(self.name_of(record), "has no caption")
        return caption

    def count_texts(self, records: Sequence[dict[str, Any]]) -> TextCounts:
        """Captions are cut when they are asked for, so they are counted here."""
        counts = TextCounts()
        for record in records:
            if record.get("caption"):
                ids = self.tokenizer.encode(record["caption"].strip())
                counts.add(ids, self.tokenizer.unk_token_id)
        return counts

    def regions_of(self, record: dict[str, Any]) -> RegionSet:
        """The regions of a record, with class probabilities where the model learns them.

        Raises:
            SampleError: They are missing or of another vocabulary of classes.
        """
        regions, name = self.source.regions(record), self.name_of(record)
        if self.num_classes and regions.cls_prob is None:
            raise SampleError(
                name, "its features have no cls_prob, which MODEL.BERT.V_TARGET_SIZE asks for"
            )
        if self.num_classes and regions.cls_prob.shape[1] != self.num_classes:
            raise SampleError(
                name,
                f"its cls_prob has {regions.cls_prob.shape[1]} classes, but "
                f"MODEL.BERT.V_TARGET_SIZE is {self.num_classes}",
            )
        return regions

    def masked_regions(self, regions: RegionSet) -> tuple[np.ndarray, dict[str, Any], int]:
        """Features with hidden regions zeroed, the targets, and how many were zeroed."""
        # Cells of a grid, which have no boxes, do not overlap.
        boxes = regions.boxes
        overlaps = np.eye(len(regions)) if boxes is None else iou(boxes, boxes)
        masked, labels, zeroed = random_region(
            regions.features.copy(), overlaps, must_mask=self.must_mask_region
        )
        targets = {kfg.V_TARGET_LABELS: np.asarray(labels, dtype=np.int64)}
        if regions.cls_prob is not None:
            targets[kfg.V_TARGET] = regions.cls_prob
        return masked, targets, zeroed

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        text = self.masked_text(record)
        if not isinstance(self.source, RegionSource):
            return {**text, **self.source.sample(record)}
        regions = self.regions_of(record)
        masked, targets, zeroed = self.masked_regions(regions)
        # Hidden regions are no part of the mean: nothing may tell what they were.
        mean = masked.sum(axis=0) / max(1, len(masked) - zeroed)
        visible = RegionSet(masked, regions.locations)
        return {**text, **visible.sample(mean_in_front=True, mean=mean), **targets}


@DATASETS_REGISTRY.register()
class ConceptualCaptionsDatasetForSingleStream(ConceptualCaptionsDataset):
    """Pre-training pairs for one stream (UNITER: Chen et al., 2020, section 3.2).

    As :class:`ConceptualCaptionsDataset` without what belongs to generation and without a mean
    row. With probability ``itm_neg_prob`` the caption is one of another picture (ITM_NEG_LABEL 1).
    The sample also holds texts and regions before hiding (U_TOKENS_IDS_WO_MASK,
    ATT_FEATS_WO_MASK), and at least one word is hidden.

    Other arguments are those of :class:`ConceptualCaptionsDataset`.

    Args:
        itm_neg_prob: Probability of a caption that does not belong to the picture.
    """

    noun: ClassVar[str] = "image"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        max_seq_length: int,
        max_feat_num: int,
        feats_folder: str,
        images_ids_file: str,
        tokenizer: Any,
        itm_neg_prob: float,
        source: VisualSource | None = None,
    ) -> None:
        if source is None:
            source = RegionSource(feats_folder, max_feat_num, use_global_v=False)
        super().__init__(
            stage=stage,
            anno_file=anno_file,
            max_seq_length=max_seq_length,
            max_feat_num=max_feat_num,
            feats_folder=feats_folder,
            images_ids_file=images_ids_file,
            tokenizer=tokenizer,
            source=source,
        )
        self.itm_neg_prob = itm_neg_prob
        self._captions: DatasetFromList | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        return {
            **super().from_config(cfg, stage),
            "itm_neg_prob": cfg.MODEL.ITM_NEG_PROB,
            "source": build_source(cfg, stage, use_global_v=False),
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        records = super().load_data(cfg)
        self._captions = _captions_of(records)
        return records

    @property
    def captions(self) -> DatasetFromList:
        """The captions of all pictures, from which those of other pictures are drawn."""
        if self._captions is None:  # the records were not loaded through this object
            self._captions = _captions_of(_read_pairs(self.anno_file, self.images_ids_file))
        return self._captions

    def random_cap(self, caption: str) -> tuple[str, int]:
        """The caption and 0, or with probability ``itm_neg_prob`` another one and 1."""
        if self.itm_neg_prob > 0 and random.random() > 1 - self.itm_neg_prob:
            return self.get_random_caption(caption), 1
        return caption, 0

    def get_random_caption(self, caption: str) -> str:
        """A caption of a picture drawn by chance that differs from the one given.

        Raises:
            SampleError: None was found, as all captions are the same.
        """
        for _ in range(_TRIES):
            other = self.captions[int(np.random.randint(len(self.captions)))]
            if other != caption:
                return other
        raise SampleError(f"caption '{caption}'", f"{_TRIES} others drawn by chance are the same")

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        caption, negative = self.random_cap(self.caption_of(record))
        tokens, labels, whole = caption_to_mask_tokens(
            caption,
            self.max_seq_len,
            self.tokenizer,
            need_no_mask_tokens=True,
            must_mask=True,
        )
        text = {
            kfg.U_TOKENS_IDS: tokens,
            kfg.U_TOKENS_IDS_WO_MASK: whole,
            kfg.U_TOKENS_TYPE: token_types(tokens),
            kfg.U_TARGET_IDS: labels,
            kfg.ITM_NEG_LABEL: negative,
        }
        if not isinstance(self.source, RegionSource):
            return {**text, **self.source.sample(record)}
        regions = self.regions_of(record)
        masked, targets, _ = self.masked_regions(regions)
        visible = RegionSet(masked, regions.locations).sample(mean_in_front=False)
        return {**text, **visible, kfg.ATT_FEATS_WO_MASK: regions.features, **targets}


def _captions_of(records: list[dict[str, Any]]) -> DatasetFromList:
    captions = [record["caption"] for record in records if record.get("caption")]
    if not captions:
        raise UserError("none of the pictures has a caption")
    return DatasetFromList(captions, copy=False)


def _read_pairs(path: str, images_ids_file: str) -> list[dict[str, Any]]:
    """The rows of a file ``caption <tab> address`` whose numbers are listed."""
    wanted = read_lines_set(images_ids_file) if images_ids_file else None
    records = [
        {"image_id": str(number), "caption": caption}
        for number, caption in read_table(path)
        if wanted is None or str(number) in wanted
    ]
    if not records:
        raise UserError(f"'{images_ids_file}' lists no row of '{path}'")
    return records
