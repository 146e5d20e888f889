"""Captioning mappers over stored image features and encoded captions."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import dict_as_tensor
from xmodaler.utils.errors import UserError

from ..annotations import read_encoded_captions
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..captions import caption_sample, one_row_per_caption
from ..feature_store import FeatureStore, SideFile, open_feature_store
from ..features import expected_width, kept_regions, visual_sample
from ..side_inputs import Regions, SideLimits, feature_vector, relation_matrix


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

    noun: ClassVar[str] = "image"

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
        self.side_limits = SideLimits()
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
        records = read_encoded_captions(self.anno_file)
        self._check_side_files(records)
        return self._preprocess_datalist(records)

    def _preprocess_datalist(self, datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A place for subclasses to change the records."""
        return datalist

    def _prepare(self, cfg: CfgNode) -> None:
        """Fail now, in one sentence, rather than at every record of the first epoch."""
        self.expect(cfg)
        if self.feats_folder:
            open_feature_store(self.feats_folder)
        for side_file in self.side_files.values():
            if side_file:
                side_file.load()

    def expect(self, cfg: CfgNode) -> None:
        """Take from the config what its model expects of a sample."""
        self.vocab_size = cfg.MODEL.VOCAB_SIZE
        self.feats_width = expected_width(cfg)
        self.side_limits = SideLimits.from_config(cfg)

    def _check_side_files(self, records: list[dict[str, Any]]) -> None:
        """A side file that knows none of the records was made for other pictures."""
        names = [name for record in records for name in _names(record)]
        for key, side_file in self.side_files.items():
            if side_file and names and not any(name in side_file for name in names):
                raise UserError(
                    f"'{side_file.path}' ({key}) has no entry for any of the {len(records)} "
                    f"records of the {self.stage} data, whose ids are like '{names[0]}' while its "
                    f"own are like '{side_file.example}'; give the file of these records"
                )

    @property
    def store(self) -> FeatureStore:
        """The features, opened in the process that first asks for them."""
        if self._store is None:
            self._store = open_feature_store(self.feats_folder)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def name_of(self, record: dict[str, Any]) -> str:
        """What a record is called in messages."""
        return f"{self.noun} '{record['image_id']}'"

    def visual(self, record: dict[str, Any]) -> dict[str, Any]:
        """The visual keys of a record's sample."""
        if not self.feats_folder:
            return {**self.no_features(), **self.side(record)}
        arrays = self.store.get(record["image_id"])
        sample = self.features(arrays, self.name_of(record))
        return {**sample, **self.side(record, kept_regions(arrays, sample))}

    def features(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        """The visual keys that stored arrays give.

        Args:
            arrays: Of one record, by name.
            name: The record's name in messages.

        Raises:
            SampleError: The arrays cannot be used.
        """
        return visual_sample(arrays, name, self.max_feat_num, self.feats_width)

    @staticmethod
    def no_features() -> dict[str, Any]:
        """What stands for the regions of a model that reads none of them."""
        return {kfg.ATT_FEATS: np.zeros((1, 1), dtype=np.float32)}

    def side(self, record: dict[str, Any], regions: Regions | None = None) -> dict[str, Any]:
        """RELATION, ATTRIBUTE and GLOBAL_FEATS, from the record itself or from their files.

        Args:
            record: Holds ``image_id``, and ``relation``, ``attribute`` or ``gv_feat`` where it
                brings its own.
            regions: Those of its features, if it has features.

        Raises:
            SampleError: A file has no entry for the record, or one that does not fit.
        """
        found = {}
        names = {kfg.RELATION: "relation", kfg.ATTRIBUTE: "attribute", kfg.GLOBAL_FEATS: "gv_feat"}
        for key, side_file in self.side_files.items():
            value = record.get(names[key])
            if value is None and side_file:
                value = side_file.get(record["image_id"])
            if value is not None:
                found[key] = value
        return self.checked_side(found, self.name_of(record), regions)

    def checked_side(
        self, found: Mapping[str, Any], name: str, regions: Regions | None = None
    ) -> dict[str, Any]:
        """RELATION, ATTRIBUTE and GLOBAL_FEATS as the model takes them.

        Args:
            found: Those that there are, by key.
            name: The record's name in messages.
            regions: As in :meth:`side`.
        """
        limits, sample = self.side_limits, {}
        widths = {
            kfg.ATTRIBUTE: (limits.attributes, "MODEL.LSTMA.ATTRIBUTE_DIM"),
            kfg.GLOBAL_FEATS: (limits.global_width, limits.global_setting),
        }
        for key, value in found.items():
            if key == kfg.RELATION:
                sample[key] = relation_matrix(value, name, regions, limits.relation_labels)
            else:
                sample[key] = feature_vector(value, key, name, *widths[key])
        return sample

    def text(self, record: dict[str, Any]) -> dict[str, Any]:
        """The text keys of a record's sample."""
        if self.stage != "train":
            return {kfg.G_TOKENS_TYPE: np.ones(self.max_seq_len, dtype=np.int64)}
        name = self.name_of(record)
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


def _names(record: dict[str, Any]) -> list[str]:
    """The ids under which files may know a record."""
    stem = os.path.splitext(os.path.basename(record.get("file_name", "")))[0]
    identity = record.get("image_id", record.get("video_id", ""))
    return [name for name in (str(identity), stem) if name and "error" not in record]


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
