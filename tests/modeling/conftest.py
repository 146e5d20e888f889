"""Tiny models and batches."""

from types import SimpleNamespace

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.modeling import add_config, build_model

VOCAB, FEATURES = 23, 10
_CLASSES = (
    "MODEL__ATTENTION",
    "MODEL__DECODER",
    "MODEL__VISUAL_EMBED__NAME",
    "MODEL__ENCODER",
)


def tiny_cfg(kind="updown", **changes):
    """The config of a tiny model: ``updown``, ``transformer``, ``grid`` or ``meshed``.

    Keyword arguments change dotted keys, dots written as double underscores.
    """
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.VOCAB_SIZE, model.MAX_SEQ_LEN = "cpu", VOCAB, 7
    model.PREDICTOR = "BasePredictor"
    model.TOKEN_EMBED.NAME, model.VISUAL_EMBED.NAME = "TokenBaseEmbedding", "VisualBaseEmbedding"
    model.VISUAL_EMBED.IN_DIM, model.VISUAL_EMBED.ACTIVATION = FEATURES, "relu"
    cfg.INFERENCE.VOCAB = ""
    cfg.LOSSES.NAMES = ["CrossEntropy"]
    if kind == "updown":
        model.META_ARCHITECTURE = "RnnAttEncoderDecoder"
        model.ENCODER, model.DECODER = "UpDownEncoder", "UpDownDecoder"
        model.TOKEN_EMBED.DIM, model.VISUAL_EMBED.OUT_DIM, model.DECODER_DIM = 12, 16, 20
    else:
        model.META_ARCHITECTURE = "TransformerEncoderDecoder"
        model.ENCODER, model.DECODER = "TransformerEncoder", "TransformerDecoder"
        model.TOKEN_EMBED.POSITION, model.TOKEN_EMBED.USE_NORM = "SinusoidEncoding", True
        model.VISUAL_EMBED.USE_NORM = True
        model.BERT.NUM_ATTENTION_HEADS, model.BERT.INTERMEDIATE_SIZE = 4, 24
        model.BERT.NUM_HIDDEN_LAYERS = model.BERT.NUM_GENERATION_LAYERS = 2
        for width in ("HIDDEN_SIZE",):
            model.BERT[width] = 16
        model.TOKEN_EMBED.DIM = model.VISUAL_EMBED.OUT_DIM = model.DECODER_DIM = 16
    if kind == "grid":
        model.ENCODER, model.VISUAL_EMBED.NAME = "GTransformerEncoder", "VisualGridEmbedding"
        model.VISUAL_EMBED.G_IN_DIM, cfg.DATALOADER.MAX_FEAT_NUM = 9, 6
    if kind == "meshed":
        model.ENCODER, model.DECODER = "MemoryAugmentedEncoder", "MeshedDecoder"
    for key, value in changes.items():
        if key in _CLASSES:
            set_key(cfg, key, value)
    add_config(cfg, cfg)
    if "UPDOWN" in cfg.MODEL:
        cfg.MODEL.UPDOWN.ATT_EMBED_SIZE = 8
    for node in cfg.MODEL.get("MESHEDMEORY", {}).values():
        node.DIM_MODEL, node.NUM_ATT_HEAD, node.DIM_FEEDFORWARD, node.NUM_LAYER = 16, 4, 24, 2
    for key, value in changes.items():
        set_key(cfg, key, value)
    return cfg


def set_key(cfg, key, value):
    *path, last = key.split("__")
    for part in path:
        cfg = cfg[part]
    cfg[last] = value


def without_dropout(model):
    """Switch off every dropout of a model, so that training mode is deterministic."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_probs_dropout_prob"):
            module.attention_probs_dropout_prob = 0.0
    return model


def tiny_batch(images=3, groups=2, length=8, regions=5, seed=0, global_dim=None):
    """A training batch with captions of several lengths and padded regions."""
    generator = torch.Generator().manual_seed(seed)
    rows = images * groups
    masks = torch.arange(regions) < torch.randint(2, regions + 1, (images, 1), generator=generator)
    masks[0] = True
    feats = torch.rand(images, regions, FEATURES, generator=generator) * masks[..., None]
    tokens = torch.zeros(rows, length, dtype=torch.long)
    targets = torch.full((rows, length), -1)
    for row in range(rows):
        words = int(torch.randint(1, length - 2, (1,), generator=generator))
        caption = torch.randint(1, VOCAB, (words,), generator=generator)
        tokens[row, 1 : words + 1], targets[row, :words], targets[row, words] = caption, caption, 0
    batch = {
        kfg.IDS: [str(i) for i in range(images)],
        kfg.ATT_FEATS: feats,
        kfg.ATT_MASKS: masks,
        kfg.G_TOKENS_IDS: tokens,
        kfg.G_TARGET_IDS: targets,
        kfg.TOKENS_MASKS: torch.ones(rows, length, dtype=torch.bool),
    }
    if global_dim:
        batch[kfg.GLOBAL_FEATS] = torch.rand(images, global_dim, generator=generator)
        batch[kfg.ATT_MASKS] = torch.ones_like(masks)
    return batch


def tiny_model(kind="updown", seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(tiny_cfg(kind, **changes))


@pytest.fixture
def tiny():
    """Builders of tiny configs, models and batches."""
    return SimpleNamespace(
        cfg=tiny_cfg, model=tiny_model, batch=tiny_batch, without_dropout=without_dropout
    )


@pytest.fixture(params=["updown", "transformer", "grid", "meshed"])
def captioning(request):
    """Each kind of captioner: its kind, model and batch."""
    kind = request.param
    return SimpleNamespace(
        kind=kind,
        model=tiny_model(kind),
        batch=tiny_batch(global_dim=9 if kind == "grid" else None),
    )
