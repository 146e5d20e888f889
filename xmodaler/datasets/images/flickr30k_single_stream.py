"""Mappers of retrieval for models that score a picture and a text together."""

import random
from collections import defaultdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..collate import collate
from ..common import DatasetFromList
from ..visual_source import VisualSource
from .flickr30k import Flickr30kDataset, caption_rows
from .understanding import as_ids, token_types

_TRIES = 1000


@DATASETS_REGISTRY.register()
class Flickr30kDatasetForSingleStream(Flickr30kDataset):
    """Groups of one matching pair and ``2 * negative_size`` others, for training.

    The pairs of a sample are the positive one, then alternately the same picture with a caption
    of another and another picture with the same caption. Another picture is one that shares no
    caption with this one. Every visual and text key is a list of one entry per pair; U_TARGET_IDS
    is a zero without meaning, SAMPLE_PER_SAMPLE the number of pairs.

    Other arguments are those of :class:`~.flickr30k.Flickr30kDataset`.

    Args:
        stage: ``"train"``.
        negative_size: Negatives of each kind.
        cfg: A config from which to load the pictures that negatives are drawn from, when the
            records were not loaded by this object.
    """

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
        negative_size: int,
        tokenizer: Any,
        cfg: CfgNode | None = None,
        source: VisualSource | None = None,
    ) -> None:
        super().__init__(
            stage=stage,
            anno_folder=anno_folder,
            anno_file=anno_file,
            feats_folder=feats_folder,
            max_feat_num=max_feat_num,
            max_seq_len=max_seq_len,
            use_global_v=use_global_v,
            tokenizer=tokenizer,
            source=source,
        )
        if stage != "train":
            raise UserError(
                f"{type(self).__name__} makes training samples; for '{stage}' name "
                "Flickr30kDatasetForSingleStreamVal"
            )
        if negative_size < 1:
            raise UserError(f"DATALOADER.NEGATIVE_SIZE is {negative_size}; it must be at least 1")
        self.negative_size = negative_size
        self._cfg = cfg
        self._pool: DatasetFromList | None = None
        self._related: dict[str, set[str]] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        made = super().from_config(cfg, stage)
        return {**made, "negative_size": cfg.DATALOADER.NEGATIVE_SIZE, "cfg": cfg}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cfg": None}

    def arrange(self, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        good = [image for image in images if "error" not in image]
        owners: dict[tuple[int, ...], set[str]] = defaultdict(set)
        for image in good:
            for row in image["tokens"]:
                owners[tuple(row)].add(image["image_id"])
        related: dict[str, set[str]] = defaultdict(set)
        for names in owners.values():
            if len(names) > 1:
                for name in names:
                    related[name] |= names
        self._related = dict(related)
        self._pool = DatasetFromList(good, copy=False)
        return super().arrange(images)

    @property
    def pool(self) -> DatasetFromList:
        """The pictures, with all captions, from which negatives are drawn."""
        if self._pool is None:
            if self._cfg is None:
                raise UserError(f"call load_data of {type(self).__name__} before using it")
            self.load_data(self._cfg)
        return self._pool

    def another(self, image_id: str) -> dict[str, Any]:
        """A picture drawn by chance that shares no caption with the one named.

        Raises:
            SampleError: There seems to be none.
        """
        excluded = self._related.get(image_id, set())
        pool = self.pool
        for _ in range(_TRIES):
            other = pool[random.randrange(len(pool))]
            if other["image_id"] != image_id and other["image_id"] not in excluded:
                return other
        raise SampleError(f"image '{image_id}'", "no other picture that shares no caption with it")

    def sample_neg_pairs(
        self, record: dict[str, Any]
    ) -> list[tuple[dict[str, Any] | None, list[int]]]:
        """The negative pairs of a record.

        Returns:
            ``2 * negative_size`` pairs of a picture's record, None for the record's own, and the
            ids of a caption.
        """
        pairs: list[tuple[dict[str, Any] | None, list[int]]] = []
        for _ in range(self.negative_size):
            caption = random.choice(self.another(record["image_id"])["tokens"])
            pairs.append((None, caption))
            pairs.append((self.another(record["image_id"]), record["tokens"][0]))
        return pairs

    def ids_of(self, record: dict[str, Any]) -> Any:
        return None

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        if not record.get("tokens"):
            raise SampleError(self.name_of(record), "has no caption")
        own = self.load_img_feat(record)
        pairs = [(None, record["tokens"][0]), *self.sample_neg_pairs(record)]
        visuals = [own if image is None else self.load_img_feat(image) for image, _ in pairs]
        texts = [caption for _, caption in pairs]
        return {
            **{key: [visual[key] for visual in visuals] for key in own},
            kfg.U_TOKENS_IDS: [as_ids(text) for text in texts],
            kfg.U_TOKENS_TYPE: [token_types(text) for text in texts],
            kfg.U_TARGET_IDS: np.zeros((1, 1), dtype=np.int64),
            kfg.SAMPLE_PER_SAMPLE: len(pairs),
        }


@DATASETS_REGISTRY.register()
class Flickr30kDatasetForSingleStreamVal(Flickr30kDataset):
    """One caption against every picture, in batches that are ready for the model.

    A sample is a list of batches of ``inf_batch_size`` pictures with the caption repeated; each
    also has ``matched_imgfeatidx``, the place of the caption's picture among all, and
    ``total_img_num``. The features of all pictures are read once and kept in memory.

    Other arguments are those of :class:`~.flickr30k.Flickr30kDataset`.

    Args:
        inf_batch_size: Pictures per batch.
        cfg: A config from which to load the pictures, when the records were not loaded by this
            object.
    """

    noun: ClassVar[str] = "image"

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
        inf_batch_size: int,
        tokenizer: Any,
        cfg: CfgNode | None = None,
        source: VisualSource | None = None,
    ) -> None:
        super().__init__(
            stage=stage,
            anno_folder=anno_folder,
            anno_file=anno_file,
            feats_folder=feats_folder,
            max_feat_num=max_feat_num,
            max_seq_len=max_seq_len,
            use_global_v=use_global_v,
            tokenizer=tokenizer,
            source=source,
        )
        if inf_batch_size < 1:
            raise UserError(f"DATALOADER.INF_BATCH_SIZE is {inf_batch_size}; at least 1 is due")
        self.inf_batch_size = inf_batch_size
        self._cfg = cfg
        self._images: list[dict[str, Any]] | None = None
        self._chunks: list[dict[str, Tensor]] | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "val") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        made = super().from_config(cfg, stage)
        return {**made, "inf_batch_size": cfg.DATALOADER.INF_BATCH_SIZE, "cfg": cfg}

    def arrange(self, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # A caption is ranked against every picture, so one that cannot be read would shift all.
        for image in images:
            if "error" in image:
                raise UserError(f"{self.name_of(image)}: {image['error']}")
        self._images, self._chunks = images, None
        rows = []
        for place, image in enumerate(images):
            rows.extend({**row, "place": place} for row in caption_rows(image))
        return rows

    @property
    def chunks(self) -> list[dict[str, Tensor]]:
        """The visual keys of all pictures in batches, read when they are first asked for."""
        if self._chunks is None:
            if self._images is None:
                if self._cfg is None:
                    raise UserError(f"call load_data of {type(self).__name__} before using it")
                self.load_data(self._cfg)
            size = self.inf_batch_size
            starts = range(0, len(self._images), size)
            self._chunks = [self._chunk(self._images[start : start + size]) for start in starts]
        return self._chunks

    def _chunk(self, images: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collate([self.load_img_feat(image) for image in images])
        if kfg.ATT_MASKS in batch:
            batch[kfg.ATT_MASKS] = batch[kfg.ATT_MASKS].float()
        return batch

    def __call__(self, dataset_dict: dict[str, Any]) -> list[dict[str, Any]]:
        """The batches of one caption."""
        caption = torch.as_tensor(as_ids(dataset_dict["tokens"][0]))
        place, total = dataset_dict["place"], len(self._images or [])
        batches = []
        for chunk in self.chunks:
            pictures = len(next(iter(chunk.values())))
            text = caption.expand(pictures, -1)
            batches.append(
                {
                    **chunk,
                    kfg.U_TOKENS_IDS: text,
                    kfg.TOKENS_MASKS: torch.ones_like(text),
                    kfg.U_TOKENS_TYPE: torch.zeros_like(text),
                    "matched_imgfeatidx": torch.tensor(place),
                    "total_img_num": torch.tensor(total or len(self._images)),
                }
            )
        return batches
