"""Random batches for models of pairs of a text and a picture."""

from typing import Any

import torch

from xmodaler.config import CfgNode, kfg

MASKED = 0.15
"""Share of the words and regions that pre-training masks."""

CHOICES = 4
"""Answers to choose from."""

Batch = dict[str, Any]


def reads_pairs(cfg: CfgNode) -> bool:
    """Whether a config understands given texts and generates none."""
    return not cfg.INFERENCE.GENERATION_MODE


def random_pairs(cfg: CfgNode, images: int, seed: int = 0) -> Batch:
    """A training batch as the loader would collate it, without any padding.

    Texts have ``MODEL.MAX_SEQ_LEN`` words and pictures ``DATALOADER.MAX_FEAT_NUM`` regions, one
    fewer where the mean region is not among them. Targets are those that the losses read.

    Args:
        cfg: Sizes of the model.
        images: B.
        seed: Of all values.
    """
    generator = torch.Generator().manual_seed(seed)
    names, loader = set(cfg.LOSSES.NAMES), cfg.DATALOADER
    texts = 1
    if "CrossEntropy" in names:
        texts = CHOICES
    elif "Triplet" in names:
        texts = 1 + 2 * max(loader.NEGATIVE_SIZE, 0)
    rows = images * texts
    batch = {kfg.IDS: [str(image) for image in range(images)]}
    batch.update(_pictures(cfg, rows if "Triplet" in names else images, generator))
    batch.update(_texts(cfg, rows, generator))
    if "PretrainLosses" in names:
        return _masked(cfg, batch, generator)
    if "BCEWithLogits" in names:
        scores = torch.zeros(rows, cfg.MODEL.MM_PREDICTOR.LABELS_NUM)
        batch[kfg.U_TARGET_IDS] = scores.index_fill(1, torch.tensor([0]), 1.0)
    elif "CrossEntropy" in names:
        batch[kfg.SEQ_PER_SAMPLE] = texts
        batch[kfg.U_TARGET_IDS] = torch.zeros(images, 1, dtype=torch.long)
    elif "Triplet" in names:
        batch[kfg.SAMPLE_PER_SAMPLE] = texts
    return batch


def _pictures(cfg: CfgNode, images: int, generator: torch.Generator) -> Batch:
    regions = cfg.DATALOADER.MAX_FEAT_NUM - (not cfg.DATALOADER.USE_GLOBAL_V)
    size = (images, regions)
    return {
        kfg.ATT_FEATS: torch.randn(*size, cfg.MODEL.VISUAL_EMBED.IN_DIM, generator=generator),
        kfg.ATT_FEATS_LOC: torch.rand(*size, 5, generator=generator),
        kfg.ATT_MASKS: torch.ones(size, dtype=torch.bool),
    }


def _texts(cfg: CfgNode, rows: int, generator: torch.Generator) -> Batch:
    size = (rows, cfg.MODEL.MAX_SEQ_LEN)
    return {
        kfg.U_TOKENS_IDS: torch.randint(1, cfg.MODEL.VOCAB_SIZE, size, generator=generator),
        kfg.U_TOKENS_TYPE: torch.zeros(size, dtype=torch.long),
        kfg.TOKENS_MASKS: torch.ones(size, dtype=torch.bool),
    }


def _masked(cfg: CfgNode, batch: Batch, generator: torch.Generator) -> Batch:
    """A batch of pre-training: words and regions masked, and the text to be generated too."""
    words, feats = batch[kfg.U_TOKENS_IDS], batch[kfg.ATT_FEATS]
    chosen = torch.rand(words.shape, generator=generator) < MASKED
    chosen[:, 0], chosen[:, 1] = False, True
    masked = words.masked_fill(chosen, 0)
    following = torch.cat([words[:, 1:], words.new_full((len(words), 1), -1)], dim=1)
    # Behind the mean region, where there is one.
    targets = (len(feats), feats.shape[1] - bool(cfg.DATALOADER.USE_GLOBAL_V))
    selected = torch.rand(targets, generator=generator) < MASKED
    selected[:, 0] = True
    classes = torch.randn(*targets, cfg.MODEL.BERT.V_TARGET_SIZE, generator=generator)
    return {
        **batch,
        kfg.U_TOKENS_IDS: masked,
        kfg.U_TOKENS_IDS_WO_MASK: words,
        kfg.U_TARGET_IDS: words.masked_fill(~chosen, -1),
        kfg.G_TOKENS_IDS: masked,
        kfg.G_TOKENS_TYPE: torch.ones_like(words),
        kfg.G_TARGET_IDS: following,
        kfg.ATT_FEATS_WO_MASK: feats,
        kfg.V_TARGET: classes.softmax(-1),
        kfg.V_TARGET_LABELS: torch.where(selected, 1, -1),
        kfg.ITM_NEG_LABEL: (torch.rand(len(words), generator=generator) < 0.5).long(),
    }
