"""A mapper for people's own pictures (or features) and captions."""

import logging
import os
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..annotations import CaptionedImage, read_captions
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..captions import encode_caption, sentences_to_ids
from ..pictures import PictureReader
from ..vocabulary import read_word_ids
from .mscoco import MSCoCoDataset

_logger = logging.getLogger(__name__)


@DATASETS_REGISTRY.register()
class CaptionDataset(MSCoCoDataset):
    """Pictures and/or features with captions as people wrote them.

    Annotations are COCO captions JSON or JSON lines ``{"image": ..., "captions": [...]}`` (see
    :func:`..annotations.read_captions`). Captions are tokenised and encoded once, when the data
    are loaded; words outside the vocabulary become 'UNK' where it has that word and are dropped
    where it has not. Samples hold the keys of :class:`MSCoCoDataset`, with IMAGES (3, size, size)
    uint8 from ``image_folder`` and ATT_FEATS from ``feats_folder``, whichever is given.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        anno_file: COCO captions JSON or JSON lines.
        split: Keep the pictures whose ``split`` equals this; '' keeps all.
        image_folder: Where the annotated file names begin, or ''.
        image_size: Side of the square to which pictures are brought.
        image_augment: Crop training pictures at random.
        vocab_file: One word a line; needed for training only.
        feats_folder: Folder or packed file of features by image id (or by the picture's name
            without ending), or ''.
        seq_per_img, max_feat_num, max_seq_len, relation_file, gv_feat_file, attribute_file: As in
            :class:`MSCoCoDataset`.
    """

    things: ClassVar[str] = "pictures"
    folder_key: ClassVar[str] = "IMAGE_FOLDER"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        split: str = "",
        image_folder: str = "",
        image_size: int = 224,
        image_augment: bool = False,
        vocab_file: str = "",
        feats_folder: str = "",
        seq_per_img: int = 5,
        max_feat_num: int = -1,
        max_seq_len: int = 20,
        relation_file: str = "",
        gv_feat_file: str = "",
        attribute_file: str = "",
    ) -> None:
        super().__init__(
            stage=stage,
            anno_file=anno_file,
            seq_per_img=seq_per_img,
            max_feat_num=max_feat_num,
            max_seq_len=max_seq_len,
            feats_folder=feats_folder,
            relation_file=relation_file,
            gv_feat_file=gv_feat_file,
            attribute_file=attribute_file,
        )
        self.split = split
        self.image_folder = expand_path(image_folder)
        self.vocab_file = vocab_file
        self.read_picture = PictureReader(image_size, image_augment and stage == "train")

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER, INFERENCE.VOCAB and MODEL.MAX_SEQ_LEN."""
        loader = cfg.DATALOADER
        return {
            **super().from_config(cfg, stage),
            "anno_file": loader[f"{stage.upper()}_ANNFILE"],
            "split": loader[f"{stage.upper()}_SPLIT"],
            "image_folder": loader.IMAGE_FOLDER,
            "image_size": loader.IMAGE_SIZE,
            "image_augment": loader.IMAGE_AUGMENT,
            "vocab_file": cfg.INFERENCE.VOCAB,
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """The records: ``image_id``, ``file_name`` and, for training, the encoded captions.

        Raises:
            UserError: A file or folder that the config names does not exist or is unusable.
        """
        if not self.anno_file:
            raise UserError(
                f"DATALOADER.{self.stage.upper()}_ANNFILE is empty; {type(self).__name__} needs "
                f'COCO captions JSON or JSON lines of {{"{self.noun}": ..., "captions": [...]}}'
            )
        self._prepare(cfg)
        images, problems = read_captions(self.anno_file, self.split)
        lost = [problem for problem in problems if problem.record]
        kept = [problem for problem in problems if not problem.record]
        for problem in kept[:10]:
            _logger.warning("%s", problem)
        if len(kept) > 10:
            _logger.warning("%s has %d more problems", self.anno_file, len(kept) - 10)
        self._check_side_files([_record(image) for image in images])
        errors = [{"image_id": problem.where, "error": problem.reason} for problem in lost]
        return self._preprocess_datalist(self._records(images) + errors)

    def _prepare(self, cfg: CfgNode) -> None:
        super()._prepare(cfg)
        key, things = self.folder_key, self.things
        if not (self.image_folder or self.feats_folder):
            raise UserError(
                f"{type(self).__name__} has neither {things} nor features; set DATALOADER.{key} to "
                f"the folder of the {things} or DATALOADER.FEATS_FOLDER to features"
            )
        if self.image_folder:
            if not os.path.isdir(self.image_folder):
                raise UserError(f"DATALOADER.{key} '{self.image_folder}' is not a folder")
            self.read_picture.prepare()

    def _records(self, images: list[CaptionedImage]) -> list[dict[str, Any]]:
        if self.stage != "train":
            return [_record(image) for image in images]
        word_ids = read_word_ids(self.vocab_file)
        if self.vocab_size is not None and len(word_ids) + 1 > self.vocab_size:
            raise UserError(
                f"'{self.vocab_file}' has {len(word_ids)} words, so MODEL.VOCAB_SIZE must be at "
                f"least {len(word_ids) + 1}; it is {self.vocab_size}"
            )
        records = []
        for image in images:
            ids = sentences_to_ids(image.captions, word_ids)
            record = _record(image)
            if ids:
                arrays = [encode_caption(caption, self.max_seq_len) for caption in ids]
                tokens, targets = (np.stack(table) for table in zip(*arrays, strict=True))
                record["tokens_ids"] = tokens.astype(np.uint32)
                record["target_ids"] = targets.astype(np.int32)
            else:
                record["error"] = "no caption with a word"
            records.append(record)
        return records

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample of a record.

        Raises:
            SampleError: The record is unusable; says where it stands in the annotations.
        """
        try:
            return super().__call__(dataset_dict)
        except SampleError as error:
            where = dataset_dict.get("where")
            reason = error.reason if "error" in dataset_dict else str(error)
            raise SampleError(where, reason) if where else error from None

    def visual(self, record: dict[str, Any]) -> dict[str, Any]:
        """IMAGES and/or ATT_FEATS with what belongs to it."""
        image_id, file_name = record["image_id"], record.get("file_name", "")
        sample: dict[str, Any] = {}
        if self.feats_folder:
            stem = os.path.splitext(os.path.basename(file_name))[0]
            by_stem = bool(stem) and image_id not in self.store and stem in self.store
            sample.update(super().visual({**record, "image_id": stem} if by_stem else record))
        if self.image_folder:
            if not file_name:
                raise SampleError(self.name_of(record), "the annotations give no file name")
            sample[kfg.IMAGES] = self.read_picture(os.path.join(self.image_folder, file_name))
        if not self.feats_folder:
            sample.update(self.side(record))
        return sample


def _record(image: CaptionedImage) -> dict[str, Any]:
    return {"image_id": image.image_id, "file_name": image.file_name, "where": image.where}
