"""Random batches for pre-training on several kinds of data at once."""

from typing import Any

import torch

from xmodaler.config import CfgNode, kfg

MASKED = 0.3
"""Share of the words that are hidden, at most DATALOADER.WORD_MASKING.MOST a text."""

MEAN_WORDS, DEVIATION_WORDS = 12.5, 2.5
"""Words per text with both special ones, where texts have lengths of their own."""

Batch = dict[str, Any]


def reads_mixtures(cfg: CfgNode) -> bool:
    """Whether a config learns from several kinds of data at once."""
    return cfg.ENGINE.NAME == "X2VLMPretrainer"


def random_mixture(cfg: CfgNode, images: int, seed: int = 0, full: bool = False) -> Batch:
    """GROUPS of pictures and of regions, as the loader would collate them.

    Args:
        cfg: Sizes of the model.
        images: Pictures, and rows of regions in half as many pictures.
        seed: Of all values.
        full: Whether all texts have MODEL.MAX_SEQ_LEN words, rather than the lengths of captions.
    """
    generator = torch.Generator().manual_seed(seed)
    owners = max(1, images // 2)
    patches = (cfg.DATALOADER.IMAGE_SIZE // cfg.MODEL.VISION.PATCH_SIZE) ** 2
    masks = torch.rand(images, 1 + patches, generator=generator) < 0.3
    masks[:, :2] = True
    sides = torch.rand(images, 2, 2, generator=generator).sort(dim=2).values
    boxes = torch.cat([sides.mean(2), sides[..., 1] - sides[..., 0]], dim=1)
    groups = {
        "images": {
            kfg.IMAGES: _pixels(cfg, images, generator),
            **_texts(cfg, images, generator, full),
        },
        "regions": {
            kfg.IMAGES: _pixels(cfg, owners, generator),
            **_texts(cfg, images, generator, full),
            kfg.REGION_INDEX: torch.arange(images) * owners // images,
            kfg.REGION_MASKS: masks,
            kfg.TARGET_BBOX: boxes,
            kfg.IS_IMAGE: torch.zeros(images, dtype=torch.int64),
        },
    }
    return {kfg.GROUPS: groups}


def _pixels(cfg: CfgNode, number: int, generator: torch.Generator) -> torch.Tensor:
    side = cfg.DATALOADER.IMAGE_SIZE
    size = (number, 3, side, side)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def _texts(cfg: CfgNode, rows: int, generator: torch.Generator, full: bool) -> Batch:
    longest = cfg.MODEL.MAX_SEQ_LEN
    lengths = torch.full((rows,), longest)
    if not full:
        drawn = torch.randn(rows, generator=generator) * DEVIATION_WORDS + MEAN_WORDS
        lengths = drawn.round().long().clamp(3, longest)
    size = (rows, int(lengths.max()))
    shown = torch.arange(size[1]) < lengths[:, None]
    words = torch.randint(5, cfg.MODEL.VOCAB_SIZE, size, generator=generator) * shown
    hidden = (torch.rand(size, generator=generator) < MASKED) & shown
    hidden[:, 0], hidden[:, 1] = False, True
    hidden &= hidden.cumsum(1) <= cfg.DATALOADER.WORD_MASKING.MOST
    return {
        kfg.U_TOKENS_IDS: words.masked_fill(hidden, 4),
        kfg.U_TOKENS_IDS_WO_MASK: words,
        kfg.U_TARGET_IDS: words.masked_fill(~hidden, -1),
        kfg.TOKENS_MASKS: shown,
    }
