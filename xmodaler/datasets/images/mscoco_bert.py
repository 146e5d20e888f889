"""A mapper of captioning in word pieces."""

import logging
import os
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import read_lines_set
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..annotations import read_encoded_captions, read_json
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..captions import caption_sample
from ..open_records import retrieval_records
from ..visual_source import RegionSource, VisualSource, build_source
from .understanding import UnderstandingDataset

_logger = logging.getLogger(__name__)


@DATASETS_REGISTRY.register()
class MSCoCoBertDataset(UnderstandingDataset):
    """Pictures with several captions each, in the word pieces of a BERT tokenizer.

    A training sample holds SEQ_PER_SAMPLE captions (G_TOKENS_IDS ``[CLS] w1 w2 ...``,
    G_TARGET_IDS ``w1 w2 ... [SEP]``, G_TOKENS_TYPE ones), one for validation or test only
    G_TOKENS_TYPE. A caption longer than ``max_seq_length`` loses its end and with it ``[SEP]``.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        anno_file: ``dataset_coco.json``: ``images[]`` with ``cocoid`` and ``sentences[].raw``.
        seq_per_img: Captions per training sample.
        max_seq_length: Length of every caption, padded.
        max_feat_num: Most rows of an image, the mean row included.
        feats_folder: Folder or packed file of region features.
        images_ids_file: Ids of the stage's images, one a line; where it does not exist, the
            ``split`` of the images decides.
        tokenizer: Cuts the captions.
        source: Gives the visual keys in place of ``feats_folder``.
    """

    cache_name: ClassVar[str] = "mscoco_bert_caption_anno"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        seq_per_img: int,
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
        self.seq_per_img = seq_per_img
        self.images_ids_file = images_ids_file

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        return {
            "stage": stage,
            "anno_file": os.path.join(loader.ANNO_FOLDER, "dataset_coco.json"),
            "seq_per_img": loader.SEQ_PER_SAMPLE,
            "max_seq_length": cfg.MODEL.MAX_SEQ_LEN,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "feats_folder": loader.FEATS_FOLDER,
            "images_ids_file": os.path.join(loader.ANNO_FOLDER, f"coco_{stage}_image_id.txt"),
            "tokenizer": build_tokenizer(cfg),
            "source": build_source(cfg, stage, use_global_v=True),
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records ``{image_id, tokens_ids uint32 (n, L), target_ids int32 (n, L)}``.

        Where the annotations are not there but the encoded captions that X-modaler made of them
        are (``mscoco_bert_caption_anno_<stage>.pkl``), these are read.

        Raises:
            UserError: A file or folder that the config names does not exist or is unusable.
        """
        encoded = os.path.join(self.anno_folder, f"{self.cache_name}_{self.stage}.pkl")
        opened = cfg.DATALOADER[f"{self.stage.upper()}_ANNFILE"]
        absent = not opened and not os.path.isfile(expand_path(self.anno_file))
        if absent and os.path.isfile(expand_path(encoded)):
            self.prepare(cfg)
            _logger.warning(
                "'%s' does not exist; '%s' is read in its place, which must have been made with "
                "this tokenizer and MODEL.MAX_SEQ_LEN",
                self.anno_file,
                encoded,
            )
            return read_encoded_captions(encoded)
        return [_arrays(record) for record in super().load_data(cfg)]

    def annotation_files(self) -> list[str]:
        ids = self.images_ids_file
        return [self.anno_file, *([ids] if os.path.isfile(expand_path(ids)) else [])]

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records ``{image_id, captions}``, and ``file_name`` where pictures have names."""
        if cfg.DATALOADER[f"{self.stage.upper()}_ANNFILE"]:
            return retrieval_records(cfg, self.stage)
        images = read_json(self.anno_file)
        images = images.get("images") if isinstance(images, dict) else None
        if not isinstance(images, list):
            raise UserError(f"'{self.anno_file}' has no list 'images'")
        records = [_raw_record(image, k) for k, image in enumerate(images)]
        if os.path.isfile(expand_path(self.images_ids_file)):
            wanted = read_lines_set(self.images_ids_file)
            records = [r for r in records if r["image_id"] in wanted or "error" in r]
        else:
            splits = ("train", "restval") if self.stage == "train" else (self.stage,)
            records = [r for r in records if r.get("split") in splits or "error" in r]
        if not records:
            raise UserError(
                f"'{self.anno_file}' has no image of the stage '{self.stage}'; give "
                f"'{self.images_ids_file}' with one id a line, or a 'split' to every image"
            )
        return records

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Captions as rows of ids: lower case, without white space and full stops around."""
        made = []
        for record in records:
            if "error" in record:
                made.append(record)
                continue
            texts = [text.lower().strip().strip(".") for text in record["captions"]]
            rows = [self._row(ids) for ids in self.encode(texts, special=1)]
            kept = {k: record[k] for k in ("image_id", "file_name") if record.get(k)}
            made.append({**kept, "rows": rows})
        return made

    def _row(self, pieces: list[int]) -> list[list[int]]:
        length = self.max_seq_len
        inputs = [self.tokenizer.cls_token_id, *pieces][:length]
        targets = [*pieces, self.tokenizer.sep_token_id][:length]
        room = length - len(inputs)
        return [inputs + [0] * room, targets + [-1] * room]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        visual = self.source.sample(record)
        if self.stage != "train":
            return {**visual, kfg.G_TOKENS_TYPE: np.ones(self.max_seq_len, dtype=np.int64)}
        tokens = record.get("tokens_ids")
        if tokens is None or not len(tokens):
            raise SampleError(self.name_of(record), "no caption to train on")
        return {**visual, **caption_sample(tokens, record["target_ids"], self.seq_per_img)}


def _raw_record(image: Any, place: int) -> dict[str, Any]:
    where = f"images[{place}]"
    if not isinstance(image, dict) or "cocoid" not in image:
        return {"image_id": where, "error": "not an object with 'cocoid'"}
    record = {"image_id": str(image["cocoid"]), "split": image.get("split", "")}
    try:
        captions = [sentence["raw"] for sentence in image.get("sentences", [])]
    except (TypeError, KeyError):
        return {**record, "error": "a sentence without 'raw'"}
    name = os.path.join(image.get("filepath", ""), image.get("filename", ""))
    return {**record, "captions": captions, "file_name": name}


def _arrays(record: dict[str, Any]) -> dict[str, Any]:
    rows = record.pop("rows", None)
    if not rows:
        return record
    table = np.asarray(rows)
    return {
        **record,
        "tokens_ids": table[:, 0].astype(np.uint32),
        "target_ids": table[:, 1].astype(np.int32),
    }
