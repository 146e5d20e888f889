"""Mapper of phrases that describe a box of a picture: RefCOCO, RefCOCO+, RefCOCOg and others."""

import os
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_regions import Box, CropView, centre_box, clip_box, draw_view
from xmodaler.utils.errors import UserError

from ..augmentation import COLOUR_CHANGES, RandAugment
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..pictures import PictureReader
from ..pretrain.regions import crop_picture
from .records import JsonRecords
from .refer import ReferFolder, read_refs, sentences_of
from .task_files import TaskFile

__all__ = ["JsonGroundingDataset"]

_DISTORTED = 1.05
"""Ratio of the scales of both sides from which a picture is another one."""


@DATASETS_REGISTRY.register()
class JsonGroundingDataset(JsonRecords):
    """Phrases and their boxes: IMAGES, U_TOKENS_IDS and TARGET_BBOX (4,), shares of the picture.

    The files of a stage are

    * a list of ``image``, ``text`` and ``ref_id``, as X²-VLM was released with: the box is that of
      REFER's annotations (DATALOADER.TASK.REFER, see :class:`~.refer.ReferFolder`);
    * a list or lines of ``image``, ``text`` and ``box`` ``[x, y, width, height]`` in pixels, or
      ``boxes``, any of which is right;
    * REFER's annotations themselves, ``refs*.p`` or the same as JSON, with ``instances.json``
      beside them: every sentence is a phrase;
    * one object with ``images`` and ``annotations`` of ``image_id``, ``phrase`` and ``boxes``.

    The last two are cut down to DATALOADER.{STAGE}_SPLIT, one or several splits parted by commas.

    In training a part of the picture is taken that holds the box, mirrored half of the time unless
    the phrase says left or right; colours change by chance, nothing moves. Of several boxes one is
    drawn. DATALOADER.TASK.AUGMENT False leaves pictures whole. In evaluation a sample has SPLITS,
    PICTURE_SIZES and TRUE_BOXES for the evaluator.

    Args:
        refer: Annotations of REFER; '' where files do without.
        splits: Which splits are kept; none for all.
        crop: Take parts of training pictures, and mirror them; else whole ones are learned from.
        augment: What is done to a training picture at last.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun: ClassVar[str] = "phrase"

    @configurable
    def __init__(
        self,
        *,
        refer: str = "",
        splits: Iterable[str] = (),
        crop: bool = True,
        augment: RandAugment | None = None,
        **records: Any,
    ) -> None:
        super().__init__(**records)
        self.refer = refer
        self.splits = frozenset(splits)
        self.crop = crop
        self.augment = augment
        self._folder: ReferFolder | None = None
        self._fault: UserError | None = None
        self._whole = PictureReader(self.source.size)

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.MAX_SEQ_LEN."""
        loader, training = cfg.DATALOADER, stage == "train"
        changes = training and loader.TASK.AUGMENT
        return {
            **super().from_config(cfg, stage),
            "refer": loader.TASK.REFER,
            "splits": filter(None, map(str.strip, loader[f"{stage.upper()}_SPLIT"].split(","))),
            "crop": changes,
            "augment": RandAugment(changes=COLOUR_CHANGES) if changes else None,
        }

    # -- records ------------------------------------------------------------------------------

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """The phrases of all files; those of one ``ref_id`` are numbered behind it.

        Raises:
            UserError: A file cannot be read, or has no phrase of the splits.
        """
        self._folder, self._fault = None, None
        records = super().load_raw_data(cfg)
        self._folder = None
        if self._fault is not None:
            raise self._fault
        if not records:
            names = ", ".join(sorted(self.splits))
            raise UserError(f"'{self.files}' has no phrase of the split {names}")
        seen: Counter = Counter()
        for record in records:
            key = record["record_id"]
            if seen[key]:
                record["record_id"] = f"{key}-{seen[key]}"
            seen[key] += 1
        return records

    def read_file(self, file: TaskFile) -> list[dict[str, Any]]:
        if os.path.splitext(file.path)[1].lower() not in (".p", ".pkl"):
            return super().read_file(file)
        records = []
        for entry in read_refs(file.path):
            where = f"{os.path.basename(file.path)} ref {entry.get('ref_id')}"
            try:
                made = [{"where": where, **record} for record in self.records_of(entry, file)]
            except (UserError, ValueError, KeyError, TypeError) as error:
                made = [{"where": where, "record_id": where, "error": str(error)}]
            records += made
        return records

    def entries_of(self, content: dict[str, Any], file: TaskFile) -> list[tuple[str, dict]]:
        pictures, phrases = content.get("images"), content.get("annotations")
        if not isinstance(pictures, list) or not isinstance(phrases, list):
            return super().entries_of(content, file)
        by_id = {str(entry.get("id")): entry for entry in pictures}
        name, entries = os.path.basename(file.path), []
        for number, phrase in enumerate(phrases):
            picture = by_id.get(str(phrase.get("image_id")), {})
            entry = {
                "image": picture.get("file_name", ""),
                "text": phrase.get("phrase", phrase.get("text")),
                "split": phrase.get("split", picture.get("split", "")),
                **{key: phrase[key] for key in ("id", "box", "boxes") if key in phrase},
                **{key: picture[key] for key in ("width", "height") if key in picture},
            }
            entries.append((f"{name} annotations[{number}]", entry))
        return entries

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        if "sentences" in entry:
            place = self._places(file.path).place(entry["ref_id"])
            texts = list(sentences_of(entry))
            name = place.get("file_name")
        else:
            place = self._place_of(entry)
            texts = [entry["text"]]
            name = entry["image"]
        split = str(entry.get("split") or place.get("split") or file.name)
        if self.splits and split not in self.splits:
            return []
        if not texts or not name:
            raise ValueError("it has no sentence" if name else "its picture is unknown")
        boxes = [_checked(box) for box in place["boxes"]]
        key = entry.get("ref_id", entry.get("id"))
        record = {"visual": name, "boxes": boxes, "split": split, "size": place.get("size")}
        if key is not None:
            record["record_id"] = str(key)
        return [{**record, "texts": [text]} for text in texts]

    def _place_of(self, entry: dict[str, Any]) -> dict[str, Any]:
        if "boxes" in entry or "box" in entry:
            boxes = entry["boxes"] if "boxes" in entry else [entry["box"]]
            if not isinstance(boxes, list) or not boxes:
                raise ValueError("it has no box")
            has_size = "width" in entry and "height" in entry
            return {"boxes": boxes, "size": [entry["width"], entry["height"]] if has_size else None}
        return self._places("").place(entry["ref_id"])

    def _places(self, path: str) -> ReferFolder:
        """The annotations that say where boxes are."""
        if self._folder is None:
            try:
                if not (self.refer or path):
                    raise UserError(
                        "records with a ref_id and no box need DATALOADER.TASK.REFER, the folder "
                        "of refs*.p (or refs*.json) and instances.json"
                    )
                self._folder = ReferFolder(self.refer or path)
            except UserError as error:
                # Not the fault of a record: nothing can be read without it.
                self._fault = error
                raise
        return self._folder

    # -- samples ------------------------------------------------------------------------------

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        picture = self.source.load(record["visual"])
        boxes = self.boxes_in(record, picture.size)
        try:
            # A box of nothing, or beside the picture, teaches and measures nothing.
            clipped = [clip_box(box, *picture.size) for box in boxes]
        except UserError as error:
            raise SampleError(str(error)) from None
        sample = {kfg.U_TOKENS_IDS: self.tokens(record)[0]}
        if self.stage == "train":
            return {**sample, **self._part(picture, random.choice(clipped), record)}
        return {
            **sample,
            kfg.IMAGES: self._whole.convert(picture),
            kfg.TARGET_BBOX: np.array(centre_box(boxes[0], *picture.size), dtype=np.float32),
            kfg.TRUE_BOXES: np.array(boxes, dtype=np.float32),
            kfg.PICTURE_SIZES: np.array(picture.size),
            kfg.SPLITS: record["split"],
        }

    def boxes_in(self, record: dict[str, Any], size: tuple[int, int]) -> list[list[float]]:
        """The boxes of a record in pixels of a file, which people may have shrunk.

        Args:
            record: One of :meth:`load_data`.
            size: Width and height of the file.

        Raises:
            SampleError: The boxes were drawn in a picture of another shape.
        """
        drawn = record["size"]
        if not drawn or tuple(drawn) == tuple(size):
            return record["boxes"]
        across, down = size[0] / drawn[0], size[1] / drawn[1]
        if max(across, down) > _DISTORTED * min(across, down):
            raise SampleError(
                f"the picture is {size[0]} x {size[1]}, but its boxes were drawn in one of "
                f"{drawn[0]} x {drawn[1]}"
            )
        return [[x * across, y * down, w * across, h * down] for x, y, w, h in record["boxes"]]

    def _part(self, picture: Any, box: Box, record: dict[str, Any]) -> dict[str, Any]:
        size = self.source.size
        view = CropView(0, 0, *picture.size, mirrored=False, size=size)
        if self.crop:
            view = draw_view(box, *picture.size, size, random, self.may_mirror(record))
        image = crop_picture(picture, view)
        if self.augment is not None:
            image = self.augment(image)
        target = centre_box(view.place(box), size, size)
        return {kfg.IMAGES: image, kfg.TARGET_BBOX: np.array(target, dtype=np.float32)}


def _checked(box: Any) -> list[float]:
    try:
        sides = [float(side) for side in box]
    except (TypeError, ValueError):
        sides = []
    if len(sides) != 4 or not np.isfinite(sides).all():
        raise ValueError(f"the box {box!r} is not x, y, width, height in pixels")
    if sides[2] <= 0 or sides[3] <= 0:
        raise ValueError(f"the box {box!r} covers nothing")
    return sides
