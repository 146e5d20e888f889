"""Mappers of pre-training on texts alone."""

import random
from typing import Any

from xmodaler.config import CfgNode, configurable, kfg

from ..build import DATASETS_REGISTRY
from .line_dataset import Lines, build_texts
from .texts import MaskedTexts, draw_text

__all__ = ["ParallelTextLines", "TextLines"]


@DATASETS_REGISTRY.register()
class TextLines(Lines):
    """Texts: the keys of :class:`~.texts.MaskedTexts`.

    Args:
        texts: Cuts and hides words.
        text_key: Field of the text.
        files: File, folder or glob.
    """

    @configurable
    def __init__(self, *, texts: MaskedTexts, text_key: str = "text", files: str) -> None:
        super().__init__(files)
        self.texts = texts
        self.text_key = text_key

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        key = cfg.DATALOADER.LINES.TEXT_KEY
        return {**cls.settings(cfg, stage), "texts": build_texts(cfg), "text_key": key}

    def sample_of(self, content: dict[str, Any]) -> dict[str, Any]:
        return self.texts(draw_text(content[self.text_key], random))


@DATASETS_REGISTRY.register()
class ParallelTextLines(Lines):
    """Texts in two languages (CCLM, Zeng et al., ACL 2023).

    One of them, drawn by chance, has the keys of :class:`~.texts.MaskedTexts`, the other one
    P_TOKENS_IDS.

    Args:
        texts: Cuts and hides words.
        keys: Fields of the two texts.
        files: File, folder or glob.
    """

    @configurable
    def __init__(
        self,
        *,
        texts: MaskedTexts,
        keys: tuple[str, str] = ("source_text", "target_text"),
        files: str,
    ) -> None:
        super().__init__(files)
        self.texts = texts
        self.keys = keys

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        node = cfg.DATALOADER.LINES
        keys = (node.SOURCE_KEY, node.TARGET_KEY)
        return {**cls.settings(cfg, stage), "texts": build_texts(cfg), "keys": keys}

    def sample_of(self, content: dict[str, Any]) -> dict[str, Any]:
        first, second = (draw_text(content[key], random) for key in self.keys)
        if random.random() < 0.5:
            first, second = second, first
        return {**self.texts(first), kfg.P_TOKENS_IDS: self.texts.whole(second)}
