"""The work that is timed: random pictures and captions of realistic sizes."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from xmodaler.config import CfgNode, kfg
from xmodaler.engine.benchmark.mixtures import random_mixture, reads_mixtures
from xmodaler.engine.benchmark.pairs import random_pairs, reads_pairs
from xmodaler.modeling.embedding.build import EMBEDDING_REGISTRY

#: Words per caption, as in COCO: normal with this mean and deviation, then rounded.
MEAN_WORDS, DEVIATION_WORDS = 10.5, 2.5
LEAST_REGIONS = 10
#: Share of the pairs of regions that are related, and words that a picture is said to have.
RELATED, SEMANTIC_WORDS = 0.2, 20


@dataclass(frozen=True)
class Workload:
    """Sizes of one run.

    Attributes:
        train_images: Pictures per training step.
        captions: Captions per picture in training.
        decode_images: Pictures per decoding run.
        beam_size: Hypotheses per picture.
        steps: Words per generated caption. Ending a caption earlier is made impossible, so that
            every system takes exactly these steps.
        seed: Of the inputs and the weights.
    """

    train_images: int
    captions: int
    decode_images: int
    beam_size: int
    steps: int
    seed: int = 0

    @classmethod
    def of_config(cls, cfg: CfgNode, **changes: int | None) -> "Workload":
        """The sizes that a config trains and evaluates with; ``changes`` that are not None win."""
        sizes = cls(
            train_images=cfg.DATALOADER.TRAIN_BATCH_SIZE,
            captions=cfg.DATALOADER.SEQ_PER_SAMPLE,
            decode_images=cfg.DATALOADER.TEST_BATCH_SIZE,
            beam_size=cfg.DECODE_STRATEGY.BEAM_SIZE,
            steps=cfg.MODEL.MAX_SEQ_LEN,
        )
        return replace(sizes, **{k: v for k, v in changes.items() if v is not None})


def random_batch(cfg: CfgNode, images: int, captions: int = 0, seed: int = 0) -> dict[str, Any]:
    """A batch as the loader would collate it.

    Pictures have 10 to ``DATALOADER.MAX_FEAT_NUM`` region features, padded to the latter (grid
    features: all of them and a global one; pixel models: pixels). Captions of about 10.5 words lie
    in token arrays of ``MODEL.MAX_SEQ_LEN`` + 1. Models of pairs, and those that learn from several
    kinds of data at once, have batches of their own, see
    :func:`~xmodaler.engine.benchmark.pairs.random_pairs` and
    :func:`~xmodaler.engine.benchmark.mixtures.random_mixture`.

    Args:
        cfg: Sizes of the model.
        images: B.
        captions: Captions per picture; 0 for a batch to decode.
        seed: Of all values.
    """
    if reads_mixtures(cfg):
        return random_mixture(cfg, images, seed)
    if reads_pairs(cfg):
        return random_pairs(cfg, images, seed)
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Any] = {kfg.IDS: [str(image) for image in range(images)]}
    batch.update(_pictures(cfg, images, generator))
    batch.update(_side_inputs(cfg, batch, images, captions, generator))
    if captions:
        batch.update(_captions(cfg, images * captions, generator))
        batch[kfg.SEQ_PER_SAMPLE] = captions
        batch[kfg.SS_PROB] = 0.0
    else:
        length = cfg.MODEL.MAX_SEQ_LEN
        batch[kfg.G_TOKENS_TYPE] = torch.ones(images, length, dtype=torch.long)
    return batch


def _pictures(cfg: CfgNode, images: int, generator: torch.Generator) -> dict[str, Any]:
    embed = cfg.MODEL.VISUAL_EMBED
    if getattr(EMBEDDING_REGISTRY.get(embed.NAME), "reads_pictures", False):
        size = (images, 3, cfg.DATALOADER.IMAGE_SIZE, cfg.DATALOADER.IMAGE_SIZE)
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        return {kfg.IMAGES: pixels}
    regions = max(cfg.DATALOADER.MAX_FEAT_NUM, 1)
    if embed.NAME == "VisualGridEmbedding":
        regions -= embed.G_IN_DIM > 0
        counts = torch.full((images,), regions)
    else:
        least = min(LEAST_REGIONS, regions)
        counts = torch.randint(least, regions + 1, (images,), generator=generator)
        counts[0] = regions
    feats = torch.randn(images, regions, embed.IN_DIM, generator=generator)
    mask = torch.arange(regions) < counts.unsqueeze(1)
    pictures = {kfg.ATT_FEATS: feats * mask.unsqueeze(-1), kfg.ATT_MASKS: mask}
    if embed.NAME == "VisualGridEmbedding" and embed.G_IN_DIM > 0:
        pictures[kfg.GLOBAL_FEATS] = torch.randn(images, embed.G_IN_DIM, generator=generator)
    return pictures


def _side_inputs(
    cfg: CfgNode, batch: dict[str, Any], images: int, captions: int, generator: torch.Generator
) -> dict[str, Any]:
    """What LSTM-A3, GCN-LSTM and COS-Net read beside regions."""
    model = cfg.MODEL
    if model.DECODER == "AttributeDecoder":
        return {
            kfg.ATTRIBUTE: torch.rand(images, model.LSTMA.ATTRIBUTE_DIM, generator=generator),
            kfg.GLOBAL_FEATS: torch.randn(images, model.VISUAL_EMBED.IN_DIM, generator=generator),
        }
    if model.ENCODER == "GCNEncoder" and model.GCN.GRAPH == "semantic":
        regions = batch[kfg.ATT_FEATS].shape[1]
        size = (images, regions, regions)
        labels = torch.randint(1, model.GCN.RELATION_NUM, size, generator=generator)
        related = torch.rand(size, generator=generator) < RELATED
        return {kfg.RELATION: labels * related}
    if model.ENCODER == "COSNetEncoder":
        classes = model.COSNET.NUM_CLASSES
        size = (images * max(captions, 1), SEMANTIC_WORDS)
        words = torch.randint(0, classes, size, generator=generator)
        missing = torch.rand(size[0], classes + 1, generator=generator) < SEMANTIC_WORDS / classes
        return {
            kfg.SEMANTICS_IDS: words,
            kfg.SEMANTICS_MASK: torch.ones(size),
            kfg.SEMANTICS_LABELS: words,
            kfg.SEMANTICS_MISS_LABELS: missing.long(),
        }
    return {}


def _captions(cfg: CfgNode, rows: int, generator: torch.Generator) -> dict[str, Any]:
    length = cfg.MODEL.MAX_SEQ_LEN + 1
    drawn = torch.randn(rows, generator=generator) * DEVIATION_WORDS + MEAN_WORDS
    num_words = drawn.round().long().clamp(1, length - 1)
    position = torch.arange(length)
    size = (rows, length)
    words = torch.randint(1, cfg.MODEL.VOCAB_SIZE, size, generator=generator)
    tokens = torch.zeros(size, dtype=torch.long)
    tokens[:, 1:] = words[:, :-1]
    tokens[position > num_words.unsqueeze(1)] = 0
    targets = words.masked_fill(position == num_words.unsqueeze(1), 0)
    targets = targets.masked_fill(position > num_words.unsqueeze(1), -1)
    return {
        kfg.G_TOKENS_IDS: tokens,
        kfg.G_TARGET_IDS: targets,
        kfg.G_TOKENS_TYPE: torch.ones(size, dtype=torch.long),
        kfg.TOKENS_MASKS: torch.ones(size, dtype=torch.bool),
    }
