"""Mappers of pre-training from lines of JSON (X²-VLM, Zeng et al. 2022)."""

import base64
import os
import random
from typing import Any

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_masking import WordMasking
from xmodaler.functional.func_text import mentions_sides
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..augmentation import COLOUR_CHANGES, PictureAugment, RandAugment
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..line_shards import index_lines, read_line
from ..tar_shards import index_shards, is_shards, read_member
from .regions import RegionSamples
from .texts import MaskedTexts, draw_text

__all__ = ["ImageTextLines", "Lines", "PictureLines", "RegionLines", "build_masking", "build_texts"]


def build_texts(cfg: CfgNode) -> MaskedTexts:
    """Texts with hidden words, from MODEL.MAX_SEQ_LEN and DATALOADER.WORD_MASKING."""
    tokenizer = build_tokenizer(cfg)
    return MaskedTexts(tokenizer, build_masking(cfg, tokenizer), cfg.MODEL.MAX_SEQ_LEN)


def build_masking(cfg: CfgNode, tokenizer: Any) -> WordMasking:
    """What hides word pieces, from DATALOADER.WORD_MASKING."""
    node = cfg.DATALOADER.WORD_MASKING
    return WordMasking(
        tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))),
        node.PROBABILITY,
        node.MOST,
        node.SPAN_PROBABILITY,
        node.LONGEST_SPAN,
        node.WHOLE_WORDS,
        tokenizer.mask_token,
    )


class Lines:
    """Records of lines.

    Args:
        files: File, folder or glob.
    """

    def __init__(self, files: str) -> None:
        self.files = files

    @classmethod
    def settings(cls, cfg: CfgNode, stage: str) -> dict[str, Any]:
        """Constructor arguments of this class from DATALOADER.{stage}_ANNFILE."""
        return {"files": cfg.DATALOADER[f"{stage.upper()}_ANNFILE"]}

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Where the lines are.

        Raises:
            UserError: There is no file.
        """
        if not self.files:
            raise UserError("DATALOADER.TRAIN_ANNFILE is ''; it names the lines to learn from")
        return index_lines(self.files)

    def content_of(self, record: dict[str, Any]) -> dict[str, Any]:
        """What a line holds."""
        return read_line(record)

    def sample_of(self, content: dict[str, Any]) -> dict[str, Any]:
        """The keys of a sample but IDS."""
        raise NotImplementedError

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample of a line.

        Raises:
            SampleError: The line is unusable; says which it is.
        """
        name = dataset_dict["image_id"]
        if "error" in dataset_dict:
            raise SampleError(name, dataset_dict["error"])
        content = self.content_of(dataset_dict)
        try:
            return {kfg.IDS: name, **self.sample_of(content)}
        except SampleError:
            raise
        except (UserError, ValueError, KeyError, TypeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise SampleError(name, reason) from None


class PictureLines(Lines):
    """Records of lines that hold pictures.

    Args:
        files: File, folder or glob.
        image_folder: Where the paths of pictures begin.
        image_key: Field of the picture.
        in_line: Whether the field holds the picture itself, as base64, and no path.
    """

    def __init__(self, files: str, image_folder: str, image_key: str, in_line: bool) -> None:
        super().__init__(files)
        self.image_folder = expand_path(image_folder)
        self.image_key = image_key
        self.in_line = in_line

    @classmethod
    def settings(cls, cfg: CfgNode, stage: str) -> dict[str, Any]:
        """Those of the base, and DATALOADER.IMAGE_FOLDER and LINES."""
        node = cfg.DATALOADER.LINES
        return {
            **super().settings(cfg, stage),
            "image_folder": cfg.DATALOADER.IMAGE_FOLDER,
            "image_key": node.IMAGE_KEY,
            "in_line": node.IMAGE_IN_LINE,
        }

    def picture(self, value: Any, min_side: int | None = None) -> Any:
        """A loaded picture.

        Args:
            value: Its path, its content as base64 or, from a shard, its content.
            min_side: JPEGs may be decoded smaller, see ``load_picture``.

        Raises:
            UserError: It is none, or cannot be decoded.
        """
        # Imported late: Pillow is needed only where pictures are read.
        from xmodaler.utils.pictures import load_picture

        if isinstance(value, bytes):
            return load_picture(value, min_side=min_side)
        if not isinstance(value, str) or not value:
            raise UserError(f"'{self.image_key}' holds no picture")
        if not self.in_line:
            return load_picture(os.path.join(self.image_folder, value), min_side=min_side)
        return load_picture(base64.b64decode(value, validate=True), min_side=min_side)


@DATASETS_REGISTRY.register()
class ImageTextLines(PictureLines):
    """Pictures with captions: IMAGES and the text keys of :class:`~.texts.MaskedTexts`.

    The files may also be tar shards, see :mod:`~xmodaler.datasets.tar_shards`.

    Args:
        texts: Cuts and hides words.
        augment: Makes pictures of one size of them.
        caption_key: Field of the caption: a text, a list, or texts by language.
        language: Of texts by language; '' draws one.
        careful: Do not mirror where the caption says left or right.
        files, image_folder, image_key, in_line: See the settings DATALOADER.TRAIN_ANNFILE,
            IMAGE_FOLDER, LINES.IMAGE_KEY and LINES.IMAGE_IN_LINE.
    """

    @configurable
    def __init__(
        self,
        *,
        texts: MaskedTexts,
        augment: PictureAugment,
        caption_key: str = "caption",
        language: str = "",
        careful: bool = True,
        **lines: Any,
    ) -> None:
        super().__init__(**lines)
        self.texts = texts
        self.augment = augment
        self.caption_key = caption_key
        self.language = language
        self.careful = careful

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        return {
            **cls.settings(cfg, stage),
            "texts": build_texts(cfg),
            "augment": PictureAugment(
                loader.IMAGE_SIZE, loader.LINES.SMALLEST_CROP, RandAugment(loader.LINES.CHANGES)
            ),
            "caption_key": loader.LINES.CAPTION_KEY,
            "language": loader.LINES.LANGUAGE,
            "careful": loader.REGIONS.CAREFUL_MIRROR,
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Where the lines, or the samples of shards, are."""
        if not is_shards(self.files):
            return super().load_data(cfg)
        records, problems = index_shards(self.files)
        bad = [{"image_id": p.where, "error": p.reason} for p in problems]
        return [*records, *bad]

    def content_of(self, record: dict[str, Any]) -> dict[str, Any]:
        if "shard" not in record:
            return super().content_of(record)
        return {self.caption_key: record["caption"], self.image_key: read_member(record)}

    def sample_of(self, content: dict[str, Any]) -> dict[str, Any]:
        caption = draw_text(content[self.caption_key], random, self.language)
        # A crop of a fifth of the area is enlarged; twice the side keeps most pixels real.
        picture = self.picture(content[self.image_key], min_side=2 * self.augment.size)
        may_mirror = not (self.careful and mentions_sides([caption]))
        return {kfg.IMAGES: self.augment(picture, may_mirror), **self.texts(caption)}


@DATASETS_REGISTRY.register()
class RegionLines(PictureLines):
    """Pictures whose parts are described; see :class:`~.regions.RegionSamples`.

    Args:
        regions: Makes the sample.
        caption_key: Field of the caption of the whole picture.
        files, image_folder, image_key, in_line: As for :class:`ImageTextLines`.
    """

    @configurable
    def __init__(
        self, *, regions: RegionSamples, caption_key: str = "caption", **lines: Any
    ) -> None:
        super().__init__(**lines)
        self.regions = regions
        self.caption_key = caption_key

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        regions = RegionSamples(
            build_texts(cfg),
            loader.IMAGE_SIZE,
            cfg.MODEL.VISION.PATCH_SIZE,
            loader.REGIONS.MOST,
            loader.REGIONS.LEAST_SEEN,
            loader.REGIONS.CAREFUL_MIRROR,
            RandAugment(loader.LINES.CHANGES, changes=COLOUR_CHANGES),
            loader.LINES.LANGUAGE,
        )
        caption_key = loader.LINES.CAPTION_KEY
        return {**cls.settings(cfg, stage), "regions": regions, "caption_key": caption_key}

    def sample_of(self, content: dict[str, Any]) -> dict[str, Any]:
        # Boxes are in pixels of the whole file, which is therefore decoded at its full size.
        picture = self.picture(content[self.image_key])
        return self.regions({**content, "caption": content.get(self.caption_key)}, picture)
