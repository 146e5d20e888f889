"""Pictures whose parts are described, as X²-VLM learns from them (Zeng et al. 2022, section 3)."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.functional.func_regions import (
    CropView,
    centre_box,
    clip_box,
    draw_view,
    keep_rows,
    patch_mask,
)
from xmodaler.functional.func_text import mentions_sides
from xmodaler.utils.errors import UserError

from .texts import MaskedTexts, draw_text

__all__ = ["RegionSamples", "fit_rows"]

WHOLE_PICTURE = (0.5, 0.5, 1.0, 1.0)
ROW_KEYS = (
    kfg.U_TOKENS_IDS,
    kfg.U_TOKENS_IDS_WO_MASK,
    kfg.U_TARGET_IDS,
    kfg.REGION_MASKS,
    kfg.TARGET_BBOX,
    kfg.IS_IMAGE,
)
"""Keys with one entry a region."""


class RegionSamples:
    """From a picture with described boxes to a sample with one row a region.

    The picture is cropped around a box drawn by chance, and mirrored half of the time. Its own
    caption, where it has one, is the first row (IS_IMAGE 1, all patches); regions of which more
    than ``least`` is seen follow in random order.

    Args:
        texts: Cuts and hides words.
        size: Side to which the crop is brought.
        patch: Side of a patch of the vision tower.
        most: Most rows of a picture.
        least: The share of a box's area that must be exceeded.
        careful: Do not mirror where a text says left or right.
        augment: What is done to the uint8 picture (3, size, size) at last.
        language: Of texts by language; '' draws one.
        rng: Where chance comes from.
    """

    def __init__(
        self,
        texts: MaskedTexts,
        size: int,
        patch: int,
        most: int = 5,
        least: float = 0.5,
        careful: bool = True,
        augment: Callable[[Tensor], Tensor] | None = None,
        language: str = "",
        rng: Any = random,
    ) -> None:
        if size % patch:
            raise UserError(f"a picture of {size} pixels does not divide into patches of {patch}")
        self.texts = texts
        self.size = size
        self.patch = patch
        self.most = most
        self.least = least
        self.careful = careful
        self.augment = augment
        self.language = language
        self.rng = rng

    def __call__(self, record: Mapping[str, Any], picture: Any) -> dict[str, Any]:
        """A sample: IMAGES, lists of the :data:`ROW_KEYS` and REGION_INDEX.

        Args:
            record: ``elems``, a list of ``{bb: [x, y, w, h], caption, attributes}``, and
                optionally ``caption``.
            picture: The loaded RGB picture.

        Raises:
            UserError: No element of it is usable.
        """
        width, height = picture.size
        elements = _usable(record.get("elems"), width, height)
        _, start = self.rng.choice(elements)
        may_mirror = not (self.careful and mentions_sides(_all_texts(record)))
        view = draw_view(start, width, height, self.size, self.rng, may_mirror)
        image = crop_picture(picture, view)
        if self.augment is not None:
            image = self.augment(image)
        rows = self._picture_row(record)
        for element, box in self.rng.sample(elements, len(elements)):
            if len(rows) >= self.most:
                break
            placed = view.place(box, self.least)
            if placed is not None:
                mask = patch_mask(placed, self.size, self.patch)
                target = centre_box(placed, self.size, self.size)
                rows.append(self._row(self._text(element), mask, target, 0))
        # The box that the crop was drawn around is always seen, so there is a row.
        return {
            kfg.IMAGES: image,
            kfg.REGION_INDEX: [0] * len(rows),
            **{key: [row[key] for row in rows] for key in ROW_KEYS},
        }

    def _picture_row(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not record.get("caption"):
            return []
        text = draw_text(record["caption"], self.rng, self.language)
        patches = np.ones(1 + (self.size // self.patch) ** 2, dtype=bool)
        return [self._row(text, patches, WHOLE_PICTURE, 1)]

    def _text(self, element: Mapping[str, Any]) -> str:
        text = draw_text(element["caption"], self.rng, self.language)
        if element.get("attributes"):
            attribute = draw_text(element["attributes"], self.rng, self.language)
            text = f"{attribute} {text}"
        return text

    def _row(
        self, text: str, mask: np.ndarray, target: Sequence[float], is_image: int
    ) -> dict[str, Any]:
        return {
            **self.texts(text),
            kfg.REGION_MASKS: mask,
            kfg.TARGET_BBOX: np.array(target, dtype=np.float32),
            kfg.IS_IMAGE: np.array(is_image),
        }


def crop_picture(picture: Any, view: CropView) -> Tensor:
    """The part of a loaded picture that a view shows, (3, size, size) uint8."""
    from torchvision.transforms import v2

    part = picture.crop((view.left, view.top, view.right, view.bottom))
    if view.mirrored:
        part = v2.functional.horizontal_flip(part)
    bicubic = v2.InterpolationMode.BICUBIC
    return v2.functional.pil_to_tensor(
        v2.functional.resize(part, [view.size, view.size], interpolation=bicubic)
    )


def fit_rows(batch: Mapping[str, Any], wanted: int, rng: Any = random) -> dict[str, Any]:
    """Bring the regions of a batch to a fixed number, which all ranks share.

    Args:
        batch: A collated batch.
        wanted: Rows to have; see :func:`~.func_regions.keep_rows`.
        rng: Where chance comes from.

    Returns:
        The batch with those rows alone.
    """
    owners = batch[kfg.REGION_INDEX]
    kept = torch.tensor(keep_rows(len(owners), wanted, rng), dtype=torch.int64)
    rows = {*ROW_KEYS, kfg.REGION_INDEX, kfg.TOKENS_MASKS}
    return {key: value[kept] if key in rows else value for key, value in batch.items()}


def _usable(
    elements: Any, width: int, height: int
) -> list[tuple[Mapping[str, Any], tuple[int, ...]]]:
    """Elements with their boxes in the picture; boxes of nothing are left out."""
    found, reason = [], "it lists no elements"
    for element in elements if isinstance(elements, list) else []:
        try:
            found.append((element, clip_box(element["bb"], width, height)))
        except (UserError, KeyError, TypeError) as error:
            reason = f"an element has no usable box: {error}"
    if not found:
        raise UserError(f"no region can be used; {reason}")
    return found


def _all_texts(record: Mapping[str, Any]) -> list[str]:
    """All texts of a record, whatever their form."""
    texts: list[str] = []
    waiting: list[Any] = [record.get("caption")]
    for element in record["elems"]:
        if isinstance(element, Mapping):
            waiting += [element.get("caption"), element.get("attributes")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return texts
