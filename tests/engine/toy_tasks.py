"""Tiny files of the tasks of X²-VLM, and configs for models of one layer a part."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from toy_x2vlm import ONE_LAYER

from xmodaler.config import get_cfg
from xmodaler.losses import add_loss_config
from xmodaler.modeling import add_config

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("a", "red", "big", "ball", "dog", "left", "of", "the", "on", "table", "##s", "ein", "hund"),
]
LOSSES = {
    "X2VLMRetrieval": ["ImageTextContrastive", "ImageTextMatching"],
    "X2VLMVQA": ["AnswerLikelihood"],
    "X2VLMClassifier": ["CrossEntropy"],
}
SIZES = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VOCAB_SIZE": len(WORDS),
    "MODEL.MAX_SEQ_LEN": 10,
    **ONE_LAYER,
    "DATALOADER.TRAIN_BATCH_SIZE": 3,
    "DATALOADER.TEST_BATCH_SIZE": 4,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.NAME": "FineTunedAdamW",
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.GRAD_CLIP": 1.0,
    "SOLVER.EPOCH": 2,
    "SOLVER.WRITE_PERIOD": 1,
    "INFERENCE.GENERATION_MODE": False,
    "SEED": 3,
}


def phrase(seed, language=""):
    words = WORDS[16:] if language == "de" else WORDS[5:15]
    return " ".join(np.random.RandomState(seed).choice(words, 1 + seed % 4))


def picture(path, seed):
    pixels = np.random.RandomState(seed).randint(0, 255, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def write_pictures(folder, number):
    """The folder of pictures and the vocabulary."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return [picture(folder / "images" / f"{k}.png", k) for k in range(number)]


def config_of(task, folder, **changes):
    """A model of a task, with pictures and vocabulary of ``folder``."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = task
    cfg.MODEL.ENCODER = "TextFusionEncoder"
    cfg.MODEL.VISUAL_EMBED.NAME = "VisionTowerEmbedding"
    cfg.MODEL.TOKEN_EMBED.NAME = "TokenBaseEmbedding"
    cfg.DECODE_STRATEGY.NAME = ""
    cfg.LOSSES.NAMES = LOSSES[task]
    add_config(cfg, cfg)
    add_loss_config(cfg, cfg)
    settings = {
        **SIZES,
        "OUTPUT_DIR": str(folder / "run"),
        "MODEL.PRETRAINING.MODEL_NAME": str(folder / "vocab.txt"),
        "DATALOADER.IMAGE_FOLDER": str(folder / "images"),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    return cfg


def write_retrieval(folder, pictures=9):
    """Training pairs, and candidates in two languages."""
    names = write_pictures(folder, pictures)
    pairs = [
        {"image": name, "caption": phrase(10 * k + c), "image_id": k}
        for k, name in enumerate(names)
        for c in (0, 1)
    ]
    (folder / "train.json").write_text(json.dumps(pairs))
    for language in ("en", "de"):
        lists = [
            {"image": name, "caption": [phrase(10 * k + c, language) for c in range(1 + k % 3)]}
            for k, name in enumerate(names)
        ]
        (folder / f"test_{language}.json").write_text(json.dumps(lists))
    return folder


def retrieval(folder, files="test_en.json", **changes):
    """A config of retrieval on the files of :func:`write_retrieval`."""
    files = ",".join(
        f"{language}={folder / name}" if language else str(folder / name)
        for language, _, name in (part.rpartition("=") for part in files.split(","))
    )
    return config_of(
        "X2VLMRetrieval",
        folder,
        **{
            "ENGINE__NAME": "RetrievalTrainer",
            "DATASETS__TRAIN": "JsonRetrievalDataset",
            "DATASETS__VAL": "JsonRetrievalDataset",
            "DATALOADER__TRAIN_ANNFILE": str(folder / "train.json"),
            "DATALOADER__VAL_ANNFILE": files,
            "INFERENCE__NAME": "RetrievalEvaler",
            **changes,
        },
    )


def write_questions(folder, pictures=9):
    """Questions with answers, and the candidates."""
    names = write_pictures(folder, pictures)
    records = [
        {
            "question_id": k,
            "question": f"{phrase(k)}?",
            "image": name,
            "dataset": "vqa",
            "answer": ["a ball"] * (1 + k % 3) + ["dog"],
        }
        for k, name in enumerate(names)
    ]
    (folder / "questions.json").write_text(json.dumps(records))
    (folder / "answers.json").write_text(json.dumps(["dog", "", "a ball", "a red ball", "red"]))
    return folder


def vqa(folder, **changes):
    """A config of generated answers on the files of :func:`write_questions`."""
    return config_of(
        "X2VLMVQA",
        folder,
        **{
            "MODEL__X2VLM__DECODER_LAYERS": 1,
            "MODEL__X2VLM__TOP_K": 0,
            "DATASETS__TRAIN": "JsonVQADataset",
            "DATASETS__VAL": "JsonVQADataset",
            "DATALOADER__TRAIN_ANNFILE": str(folder / "questions.json"),
            "DATALOADER__VAL_ANNFILE": str(folder / "questions.json"),
            "DATALOADER__ANSWERS": str(folder / "answers.json"),
            "INFERENCE__NAME": "VQAEvaler",
            "INFERENCE__ID_KEY": "question_id",
            "INFERENCE__VALUE": "answer",
            "INFERENCE__VAL_ANNFILE": str(folder / "questions.json"),
            **changes,
        },
    )


def write_clips(folder, clips=6):
    """Questions about clips given as lists of frames; the last answer is outside the list."""
    write_pictures(folder, 1)
    (folder / "clips").mkdir()
    lines = []
    for k in range(clips):
        frames = []
        for frame in range(1 + k % 4):
            picture(folder / "frame.png", 10 * k + frame)
            frames.append(base64.b64encode((folder / "frame.png").read_bytes()).decode())
        (folder / "clips" / f"video_{k}.json").write_text(json.dumps(frames))
        answer = "table" if k == clips - 1 else ("ball", "dog")[k % 2]
        lines.append({"video_id": f"video{k}", "question": f"{phrase(k)}?", "answer": answer})
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "ans2label.json").write_text(json.dumps({"dog": 1, "ball": 0, "red": 2}))
    return folder


def video_qa(folder, **changes):
    """A config of answers out of a list on the files of :func:`write_clips`."""
    return config_of(
        "X2VLMClassifier",
        folder,
        **{
            "MODEL__X2VLM__NUM_LABELS": 3,
            "DATASETS__TRAIN": "JsonVideoQADataset",
            "DATASETS__VAL": "JsonVideoQADataset",
            "DATALOADER__TRAIN_ANNFILE": str(folder / "clips.jsonl"),
            "DATALOADER__VAL_ANNFILE": str(folder / "clips.jsonl"),
            "DATALOADER__VIDEO_FOLDER": str(folder / "clips"),
            "DATALOADER__ANSWERS": str(folder / "ans2label.json"),
            "DATALOADER__MAX_FEAT_NUM": 2,
            "DATALOADER__TASK__VIDEO": True,
            "INFERENCE__NAME": "AccuracyEvaler",
            "INFERENCE__VALUE": "label",
            **changes,
        },
    )


def evaluate_on_two(folder):
    """What one of two processes does: evaluate a seeded model."""
    from xmodaler.engine import build_engine
    from xmodaler.engine.running import evaluate_only
    from xmodaler.utils import comm
    from xmodaler.utils.env import seed_all_rng

    folder = Path(folder)
    cfg = retrieval(folder, "en=test_en.json,de=test_de.json", INFERENCE__RERANK=4)
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    metrics = evaluate_only(cfg, build_engine(cfg))
    (folder / f"rank{comm.get_rank()}.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    evaluate_on_two(sys.argv[1])
