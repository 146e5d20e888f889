"""Mapper of pre-training on videos given as frames (X²-VLM, Zeng et al. 2022)."""

import random
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import torch

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_text import mentions_sides
from xmodaler.utils.errors import UserError
from xmodaler.utils.frame_sampling import exact_frames

from ..augmentation import PictureAugment, RandAugment
from ..build import DATASETS_REGISTRY
from .line_dataset import PictureLines, build_texts
from .texts import MaskedTexts, draw_text

__all__ = ["VideoLines", "draw_clip"]

MUSIC = "[Music]"
"""What subtitles say where nobody speaks."""


def draw_clip(
    clips: Sequence[Sequence[Any]],
    captions: Sequence[str],
    is_continuous: bool,
    least: int,
    rng: Random,
) -> tuple[list[Any], str]:
    """Frames and words of a part of a video.

    One clip is drawn. Of clips that follow each other, those before and behind it are put to it,
    on sides drawn by chance, until there are enough frames. Clips of music count for nothing.

    Args:
        clips: Frames of each clip.
        captions: Words of each clip.
        is_continuous: Whether the clips follow each other.
        least: How many frames are enough.
        rng: Where chance comes from.

    Raises:
        UserError: There are not as many captions as clips, or none that speaks.
    """
    if len(clips) != len(captions):
        raise UserError(f"{len(clips)} clips with {len(captions)} captions")
    spoken = [place for place, words in enumerate(captions) if words.strip() != MUSIC]
    spoken = [place for place in spoken if clips[place]]
    if not spoken:
        raise UserError("no clip of it has frames and words")
    first = last = rng.randrange(len(spoken))
    while is_continuous and sum(len(clips[place]) for place in spoken[first : last + 1]) < least:
        sides = ["before"] * (first > 0) + ["behind"] * (last + 1 < len(spoken))
        if not sides:
            break
        if rng.choice(sides) == "before":
            first -= 1
        else:
            last += 1
    chosen = spoken[first : last + 1]
    frames = [frame for place in chosen for frame in clips[place]]
    return frames, " ".join(captions[place] for place in chosen)


@DATASETS_REGISTRY.register()
class VideoLines(PictureLines):
    """Videos with captions: IMAGES (F, 3, size, size) and the keys of MaskedTexts.

    The field of the picture holds a list of frames, or a list of clips, each a list of frames,
    with as many captions; ``is_continuous`` then says whether the clips follow each other.

    Args:
        texts: Cuts and hides words.
        augment: Makes pictures of one size of frames, of each by chance of its own.
        frames: F.
        least: Frames that are gathered from neighbouring clips before F of them are drawn.
        caption_key: Field of the caption or captions.
        language: Of texts by language; '' draws one.
        careful: Do not mirror where the caption says left or right.
        files, image_folder, image_key, in_line: As for
            :class:`~.line_dataset.ImageTextLines`.
    """

    @configurable
    def __init__(
        self,
        *,
        texts: MaskedTexts,
        augment: PictureAugment,
        frames: int,
        least: int = 0,
        caption_key: str = "caption",
        language: str = "",
        careful: bool = True,
        **lines: Any,
    ) -> None:
        super().__init__(**lines)
        if frames < 1:
            raise UserError(f"DATALOADER.MAX_FEAT_NUM is {frames}; it is the number of frames")
        self.texts = texts
        self.augment = augment
        self.frames = frames
        self.least = least
        self.caption_key = caption_key
        self.language = language
        self.careful = careful

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL; F is DATALOADER.MAX_FEAT_NUM."""
        loader, node = cfg.DATALOADER, cfg.DATALOADER.LINES
        return {
            **cls.settings(cfg, stage),
            "texts": build_texts(cfg),
            "augment": PictureAugment(
                loader.IMAGE_SIZE, node.SMALLEST_CROP, RandAugment(node.CHANGES)
            ),
            "frames": loader.MAX_FEAT_NUM,
            "least": node.LEAST_FRAMES,
            "caption_key": node.CAPTION_KEY,
            "language": node.LANGUAGE,
            "careful": loader.REGIONS.CAREFUL_MIRROR,
        }

    def sample_of(self, content: dict[str, Any]) -> dict[str, Any]:
        frames, caption = content[self.image_key], content[self.caption_key]
        if not isinstance(frames, list) or not frames:
            raise UserError(f"'{self.image_key}' holds no list of frames")
        if isinstance(frames[0], list):
            follow = bool(content.get("is_continuous"))
            frames, caption = draw_clip(frames, caption, follow, self.least, random)
        caption = draw_text(caption, random, self.language)
        places = exact_frames(len(frames), self.frames, np.random)
        may_mirror = not (self.careful and mentions_sides([caption]))
        side = 2 * self.augment.size
        pictures = [self.augment(self.picture(frames[p], side), may_mirror) for p in places]
        return {kfg.IMAGES: torch.stack(pictures), **self.texts(caption)}
