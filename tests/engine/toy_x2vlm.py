"""Tiny lines of every kind of pre-training data, and configs for models that learn from them."""

import base64
import io
import json

import numpy as np
from PIL import Image

from xmodaler.config import get_cfg
from xmodaler.modeling import add_config

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("a", "red", "big", "ball", "dog", "left", "of", "the", "on", "table"),
]
SIZES = {"images": 12, "clean": 5, "regions": 7, "videos": 6, "texts": 9, "parallel_texts": 6}
ONE_LAYER = {
    "MODEL.VISION.PATCH_SIZE": 8,
    "MODEL.VISION.WIDTH": 16,
    "MODEL.VISION.LAYERS": 1,
    "MODEL.VISION.HEADS": 2,
    "MODEL.TOKEN_EMBED.DIM": 16,
    "MODEL.TOKEN_EMBED.USE_NORM": True,
    "MODEL.TOKEN_EMBED.PADDING_IDX": 0,
    "MODEL.TOKEN_EMBED.POSITION": "NNEmbeddingEncoding",
    "MODEL.TOKEN_EMBED.POSITION_MAX_LEN": 16,
    "MODEL.TOKEN_EMBED.TYPE_VOCAB_SIZE": 2,
    "MODEL.BERT.HIDDEN_SIZE": 16,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 2,
    "MODEL.BERT.INTERMEDIATE_SIZE": 32,
    "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
    "MODEL.FUSION.LAYERS": 1,
    "MODEL.FUSION.MEMORY_WIDTH": 16,
    "MODEL.X2VLM.EMBED_DIM": 8,
    "DATALOADER.IMAGE_SIZE": 32,
}
"""A model of one layer a part."""
ALL = ("IMAGES", "REGIONS", "VIDEOS", "TEXTS", "PARALLEL_TEXTS")


def encoded(seed):
    pixels = np.random.RandomState(seed).randint(0, 255, (30, 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def phrase(seed):
    return " ".join(np.random.RandomState(seed).choice(WORDS[5:], 1 + seed % 5))


def record(kind, n):
    if kind == "texts":
        return {"text": phrase(n)}
    if kind == "parallel_texts":
        return {"source_text": phrase(n), "target_text": phrase(n + 50)}
    if kind == "videos":
        return {"image": [encoded(n), encoded(n + 1)], "caption": phrase(n)}
    boxes = [[2, 3, 20, 10], [6, 3, 20, 20], [10, 5, 20, 20]][: 1 + n % 3]
    elements = [{"bb": box, "caption": phrase(n + place)} for place, box in enumerate(boxes)]
    content = {"image": encoded(n), "caption": phrase(n)}
    return {**content, "elems": elements} if kind == "regions" else content


def write_lines(folder):
    """One file a kind, and the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    for kind, number in SIZES.items():
        lines = [json.dumps(record(kind, n)) for n in range(number)]
        (folder / f"{kind}.jsonl").write_text("\n".join(lines))
    return folder


def config_of(data, output, kinds=ALL, **changes):
    """A model of one layer a part, which learns from ``kinds``."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "X2VLMPretrain"
    cfg.MODEL.ENCODER = "TextFusionEncoder"
    cfg.MODEL.VISUAL_EMBED.NAME = "VisionTowerEmbedding"
    cfg.MODEL.TOKEN_EMBED.NAME = "TokenBaseEmbedding"
    cfg.MODEL.PREDICTOR = "BertPredictionHead"
    cfg.DECODE_STRATEGY.NAME = ""
    cfg.LOSSES.NAMES = [
        "ImageTextContrastive",
        "ImageTextMatching",
        "CrossEntropy",
        "BoxRegression",
    ]
    add_config(cfg, cfg)
    settings = {
        "OUTPUT_DIR": str(output),
        "SEED": 3,
        "ENGINE.NAME": "X2VLMPretrainer",
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": len(WORDS),
        "MODEL.MAX_SEQ_LEN": 10,
        "MODEL.PRETRAINING.MODEL_NAME": str(data / "vocab.txt"),
        **ONE_LAYER,
        "DATALOADER.MAX_FEAT_NUM": 2,
        "DATALOADER.LINES.IMAGE_IN_LINE": True,
        "DATALOADER.TRAIN_BATCH_SIZE": 2,
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.GROUPS.REGIONS.ROWS": 4,
        "SOLVER.NAME": "FineTunedAdamW",
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.GRAD_CLIP": 1.0,
        "SOLVER.EPOCH": 2,
        "SOLVER.WRITE_PERIOD": 1,
        **{f"DATALOADER.GROUPS.{kind}.ANNFILE": str(data / f"{kind.lower()}.jsonl")
           for kind in kinds},
        **{key.replace("__", "."): value for key, value in changes.items()},
    }  # fmt: skip
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    return cfg


def clean_pictures(data, share=0.5):
    """Settings that put clean pictures among the others."""
    node = "DATALOADER__GROUPS__IMAGES__"
    return {f"{node}CLEAN_ANNFILE": str(data / "clean.jsonl"), f"{node}CLEAN_SHARE": share}
