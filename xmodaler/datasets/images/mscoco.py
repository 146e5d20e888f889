"""Captioning mappers over stored image features and encoded captions."""

import os
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import dict_as_tensor
from xmodaler.utils.errors import UserError

from ..annotations import read_encoded_captions
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..captions import caption_sample, one_row_per_caption
from ..feature_store import FeatureStore, SideFile, open_feature_store
from ..features import expected_width, visual_sample


@DATASETS_REGISTRY.register()
class MSCoCoDataset:
    """Images as region or grid features, captions as word ids.

    A training sample holds IDS, ATT_FEATS, SEQ_PER_SAMPLE and lists of ``seq_per_img`` captions
    (G_TOKENS_IDS, G_TARGET_IDS, G_TOKENS_TYPE); one for validation or test holds IDS, ATT_FEATS
    and an all-ones G_TOKENS_TYPE of length ``max_seq_len``. Stored boxes add ATT_FEATS_LOC and
    V_TARGET; the three optional files add RELATION, ATTRIBUTE and GLOBAL_FEATS.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        anno_file: Encoded captions (see :func:`..annotations.read_encoded_captions`).
        seq_per_img: Captions per training sample.
        max_feat_num: Most features of an image, the mean region included; all when not positive.
        max_seq_len: Greatest length of a generated caption.
        feats_folder: Folder or packed file of features; '' gives a (1, 1) zero in their place.
        relation_file: Relation ids (N, N) by image, or ''.
        gv_feat_file: One vector (D,) by image, or ''.
        attribute_file: Attribute probabilities (A,) by image, or ''.
    """

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        seq_per_img: int,
        max_feat_num: int,
        max_seq_len: int,
        feats_folder: str,
        relation_file: str = "",
        gv_feat_file: str = "",
        attribute_file: str = "",
    ) -> None:
        self.stage = stage
        self.anno_file = anno_file
        self.seq_per_img = seq_per_img
        self.max_feat_num = max_feat_num
        self.max_seq_len = max_seq_len
        self.feats_folder = feats_folder
        self.side_files = {
            kfg.RELATION: SideFile(relation_file),
            kfg.ATTRIBUTE: SideFile(attribute_file),
            kfg.GLOBAL_FEATS: SideFile(gv_feat_file),
        }
        # Known once load_data has seen the config; not constructor arguments, since classes
        # derived from this one pass on exactly the arguments listed above.
        self.feats_width: int | None = None
        self.vocab_size: int | None = None
        self._store: FeatureStore | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.MAX_SEQ_LEN."""
        loader = cfg.DATALOADER
        return {
            "stage": stage,
            "anno_file": os.path.join(loader.ANNO_FOLDER, f"mscoco_caption_anno_{stage}.pkl"),
            "seq_per_img": loader.SEQ_PER_SAMPLE,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "feats_folder": loader.FEATS_FOLDER,
            "relation_file": loader.RELATION_FILE,
            "gv_feat_file": loader.GV_FEAT_FILE,
            "attribute_file": loader.ATTRIBUTE_FILE,
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """The records: ``image_id`` and the arrays of its captions; nothing heavy.

        Raises:
            UserError: A file or folder that the config names does not exist or is unusable.
        """
        self._prepare(cfg)
        return self._preprocess_datalist(read_encoded_captions(self.anno_file))

    def _preprocess_datalist(self, datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A place for subclasses to change the records."""
        return datalist

    def _prepare(self, cfg: CfgNode) -> None:
        """Fail now, in one sentence, rather than at every record of the first epoch."""
        self.vocab_size = cfg.MODEL.VOCAB_SIZE
        if self.feats_folder:
            self.feats_width = expected_width(cfg)
            open_feature_store(self.feats_folder)
        for side_file in self.side_files.values():
            if side_file:
                side_file.load()

    @property
    def store(self) -> FeatureStore:
        """The features, opened in the process that first asks for them."""
        if self._store is None:
            self._store = open_feature_store(self.feats_folder)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def visual(self, record: dict[str, Any]) -> dict[str, Any]:
        """The visual keys of a record's sample."""
        image_id = record["image_id"]
        if self.feats_folder:
            arrays = self.store.get(image_id)
            name = f"image '{image_id}'"
            sample = visual_sample(arrays, name, self.max_feat_num, self.feats_width)
        else:
            sample = {kfg.ATT_FEATS: np.zeros((1, 1), dtype=np.float32)}
        sample.update(self.side(record))
        return sample

    def side(self, record: dict[str, Any]) -> dict[str, Any]:
        """RELATION, ATTRIBUTE and GLOBAL_FEATS, from their files or from the record itself."""
        sample = {}
        names = {kfg.RELATION: "relation", kfg.ATTRIBUTE: "attribute", kfg.GLOBAL_FEATS: "gv_feat"}
        for key, side_file in self.side_files.items():
            value = record.get(names[key])
            if value is None and side_file:
                value = side_file.get(record["image_id"])
            if value is None:
                continue
            value = np.asarray(value, dtype=np.int64 if key == kfg.RELATION else np.float32)
            if key != kfg.RELATION and not np.isfinite(value).all():
                raise SampleError(f"image '{record['image_id']}'", f"{key} has NaN or infinity")
            sample[key] = value
        return sample

    def text(self, record: dict[str, Any]) -> dict[str, Any]:
        """The text keys of a record's sample."""
        if self.stage != "train":
            return {kfg.G_TOKENS_TYPE: np.ones(self.max_seq_len, dtype=np.int64)}
        name = f"image '{record['image_id']}'"
        tokens, targets = record.get("tokens_ids"), record.get("target_ids")
        if tokens is None or targets is None or not len(tokens):
            raise SampleError(name, "no caption to train on")
        if tokens.shape != targets.shape:
            raise SampleError(name, f"tokens {tokens.shape} and targets {targets.shape} differ")
        largest = max(int(tokens.max()), int(targets.max()))
        if self.vocab_size is not None and largest >= self.vocab_size:
            raise SampleError(name, f"word id {largest} with MODEL.VOCAB_SIZE {self.vocab_size}")
        return caption_sample(tokens, targets, self.seq_per_img)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample of a record.

        Raises:
            SampleError: The record is unusable.
        """
        if "error" in dataset_dict:
            raise SampleError(str(dataset_dict["image_id"]), dataset_dict["error"])
        if "image_id" not in dataset_dict:
            raise SampleError("a record", "has no 'image_id'")
        sample = {kfg.IDS: dataset_dict["image_id"]}
        sample.update(self.visual(dataset_dict))
        sample.update(self.text(dataset_dict))
        dict_as_tensor(sample)
        return sample


@DATASETS_REGISTRY.register()
class MSCoCoSampleByTxtDataset(MSCoCoDataset):
    """:class:`MSCoCoDataset` whose training records are single captions, not images.

    Arguments as there; ``seq_per_img`` must be 1.
    """

    @configurable
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.seq_per_img != 1:
            raise UserError(
                "MSCoCoSampleByTxtDataset gives one caption per sample, but "
                f"DATALOADER.SEQ_PER_SAMPLE is {self.seq_per_img}; set it to 1"
            )

    def _preprocess_datalist(self, datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return one_row_per_caption(datalist) if self.stage == "train" else datalist
