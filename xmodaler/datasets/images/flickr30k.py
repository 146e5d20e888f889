"""A mapper of picture-text retrieval."""

import os
from typing import Any, ClassVar

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.tokenization import build_tokenizer

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..json_lines import read_json_lines
from ..open_records import retrieval_records
from ..visual_source import RegionSource, VisualSource, build_source
from .understanding import UnderstandingDataset, as_ids, token_types

_FILES = {"train": "train", "val": "val_set0", "test": "test_set0"}


@DATASETS_REGISTRY.register()
class Flickr30kDataset(UnderstandingDataset):
    """Pictures and captions for retrieval.

    A training sample is one caption with its picture: IDS (of the picture), the visual keys,
    U_TOKENS_IDS and U_TOKENS_TYPE. One for validation or test is a picture with all its captions:
    IDS is ``[image id, [image id] * captions]`` and the text keys are lists.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        anno_folder: Folder of the annotations.
        anno_file: JSON lines with ``img_path`` and ``sentences``.
        feats_folder: Folder or packed file of region features by the picture's name without
            ending.
        max_feat_num: Most rows of an image.
        max_seq_len: Greatest length of a caption with its special tokens.
        use_global_v: Put the mean of the regions in front of them.
        tokenizer: Cuts the captions.
        source: Gives the visual keys in place of ``feats_folder``.
    """

    cache_name: ClassVar[str] = "RetrievalFlickr30k"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_folder: str,
        anno_file: str,
        feats_folder: str,
        max_feat_num: int,
        max_seq_len: int,
        use_global_v: bool,
        tokenizer: Any,
        source: VisualSource | None = None,
    ) -> None:
        if source is None:
            source = RegionSource(feats_folder, max_feat_num, use_global_v)
        super().__init__(stage, source, tokenizer, max_seq_len, anno_folder)
        self.anno_file = anno_file

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        name = f"all_data_final_{_FILES[stage]}_2014.jsonline"
        return {
            "stage": stage,
            "anno_folder": loader.ANNO_FOLDER,
            "anno_file": os.path.join(loader.ANNO_FOLDER, name),
            "feats_folder": loader.FEATS_FOLDER,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "use_global_v": loader.USE_GLOBAL_V,
            "tokenizer": build_tokenizer(cfg),
            "source": build_source(cfg, stage),
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """The records: a caption each for training, otherwise a picture each.

        Raises:
            UserError: A file or folder that the config names does not exist or is unusable.
        """
        return self.arrange(super().load_data(cfg))

    def arrange(self, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records of samples, from records of pictures with the word pieces of all captions."""
        if self.stage != "train":
            return images
        return [row for image in images for row in caption_rows(image)]

    def annotation_files(self) -> list[str]:
        return [self.anno_file]

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records ``{image_id, file_name, captions}``."""
        if cfg.DATALOADER[f"{self.stage.upper()}_ANNFILE"]:
            return retrieval_records(cfg, self.stage)
        lines, problems = read_json_lines(self.anno_file)
        return [_raw_record(*line) for line in lines] + self.bad_lines(problems)

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records with ``tokens``, the ids of every caption, in place of ``captions``."""
        made = []
        for record in records:
            if "error" not in record and not record.get("captions"):
                record = {**record, "error": "has no caption"}
            if "error" in record:
                made.append(record)
                continue
            rest = {key: value for key, value in record.items() if key != "captions"}
            texts = [self.format_cap(text) for text in record["captions"]]
            made.append({**rest, "tokens": self.pieces(texts)})
        return made

    def format_cap(self, caption: str) -> str:
        """A caption as it goes to the tokenizer."""
        return caption

    def load_img_feat(self, record: dict[str, Any]) -> dict[str, Any]:
        """The visual keys of a record's picture."""
        return self.source.sample(record)

    def ids_of(self, record: dict[str, Any]) -> Any:
        image_id = str(record["image_id"])
        if self.stage == "train":
            return image_id
        return [image_id, [image_id] * len(record["tokens"])]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        tokens = record.get("tokens")
        if not tokens:
            raise SampleError(self.name_of(record), "has no caption")
        rows = [as_ids(row) for row in tokens]
        types = [token_types(row) for row in tokens]
        if self.stage == "train":
            rows, types = rows[0], types[0]
        visual = self.load_img_feat(record)
        return {**visual, kfg.U_TOKENS_IDS: rows, kfg.U_TOKENS_TYPE: types}


def caption_rows(image: dict[str, Any]) -> list[dict[str, Any]]:
    """A record for every caption of a picture; a bad one stays one record."""
    if "error" in image:
        return [image]
    return [{**image, "tokens": [row]} for row in image["tokens"]]


def _raw_record(where: str, line: dict[str, Any]) -> dict[str, Any]:
    path, captions = line.get("img_path"), line.get("sentences")
    if not isinstance(path, str) or not path:
        return {"image_id": where, "error": "has no 'img_path'"}
    image_id = os.path.splitext(os.path.basename(path))[0]
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        return {"image_id": image_id, "error": f"{where}: 'sentences' is no list of texts"}
    return {"image_id": image_id, "file_name": path, "captions": captions}
