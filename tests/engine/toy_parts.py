"""A tiny captioning task in memory, and configs for it: shared by the engine's tests.

Subprocesses of the tests load it through ``--import``.
"""

import zlib
from pathlib import Path

import numpy as np
import torch

from xmodaler.config import configurable, get_cfg, kfg
from xmodaler.datasets import DATASETS_REGISTRY
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.modeling import add_config

IMAGES, REGIONS, WIDTH, WORDS, LENGTH, CAPTIONS = 24, 3, 8, 11, 6, 2
HELD_OUT = 7


@DATASETS_REGISTRY.register()
class ToyDataset:
    """Captions of random features; training features get noise from numpy's generator."""

    @configurable
    def __init__(self, stage, noise=0.1):
        self.stage = stage
        self.noise = noise

    @classmethod
    def from_config(cls, cfg, stage="train"):
        return {"stage": stage}

    def load_data(self, cfg):
        count = IMAGES if self.stage == "train" else HELD_OUT
        first = {"train": 0, "val": 100, "test": 200}[self.stage]
        return [{"image_id": str(first + index)} for index in range(count)]

    def __call__(self, record):
        rng = np.random.default_rng(int(record["image_id"]))
        feats = rng.normal(size=(REGIONS, WIDTH)).astype(np.float32)
        words = rng.integers(1, WORDS, size=(CAPTIONS, LENGTH - 1))
        sample = {kfg.IDS: record["image_id"], kfg.ATT_FEATS: feats}
        if self.stage == "train":
            feats += self.noise * np.random.normal(size=feats.shape).astype(np.float32)
            zeros = np.zeros((CAPTIONS, 1), dtype=np.int64)
            sample[kfg.SEQ_PER_SAMPLE] = CAPTIONS
            sample[kfg.G_TOKENS_IDS] = list(np.hstack([zeros, words]))
            sample[kfg.G_TARGET_IDS] = list(np.hstack([words, zeros]))
            sample[kfg.G_TOKENS_TYPE] = list(np.ones((CAPTIONS, LENGTH), dtype=np.int64))
        return sample


@DATASETS_REGISTRY.register()
class QuietToyDataset(ToyDataset):
    """Without noise: what is trained does not depend on how batches are cut."""

    @classmethod
    def from_config(cls, cfg, stage="train"):
        return {"stage": stage, "noise": 0.0}


@EVALUATION_REGISTRY.register()
class ToyEvaler:
    """Scores captions by their letters, and appends what it was given to a file."""

    def __init__(self, cfg, annfile, output_dir):
        self.output_dir = output_dir

    def eval(self, results, epoch):
        hashes = [zlib.crc32(result["caption"].encode()) / 2**32 for result in results]
        if self.output_dir:
            Path(self.output_dir).mkdir(exist_ok=True)
            with open(Path(self.output_dir) / "evaluated.txt", "a", encoding="utf-8") as file:
                ids = ",".join(str(result["image_id"]) for result in results)
                file.write(f"{epoch} {ids}\n")
        return {"Hash": float(np.mean(hashes)), "nested": {"Count": len(results)}}


def toy_options(output_dir, **changes):
    """``KEY VALUE ...`` of a run of a few seconds; ``changes`` use ``__`` for dots."""
    options = {
        "OUTPUT_DIR": str(output_dir),
        "SEED": 7,
        "DATASETS.TRAIN": "ToyDataset",
        "DATASETS.VAL": "ToyDataset",
        "DATASETS.TEST": "ToyDataset",
        "DATALOADER.TRAIN_BATCH_SIZE": 4,
        "DATALOADER.TEST_BATCH_SIZE": 3,
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.SEQ_PER_SAMPLE": CAPTIONS,
        "SCHEDULED_SAMPLING.INC_EVERY_EPOCH": 1,
        "SCHEDULED_SAMPLING.INC_PROB": 0.2,
        "SCHEDULED_SAMPLING.MAX_PROB": 0.5,
        "MODEL.DEVICE": "cpu",
        "MODEL.META_ARCHITECTURE": "RnnAttEncoderDecoder",
        "MODEL.ENCODER": "UpDownEncoder",
        "MODEL.DECODER": "UpDownDecoder",
        "MODEL.PREDICTOR": "BasePredictor",
        "MODEL.DECODER_DIM": 12,
        "MODEL.PRED_DROPOUT": 0.3,
        "MODEL.VOCAB_SIZE": WORDS,
        "MODEL.MAX_SEQ_LEN": LENGTH,
        "MODEL.UPDOWN.ATT_EMBED_SIZE": 8,
        "MODEL.TOKEN_EMBED.NAME": "TokenBaseEmbedding",
        "MODEL.TOKEN_EMBED.DIM": 12,
        "MODEL.VISUAL_EMBED.NAME": "VisualBaseEmbedding",
        "MODEL.VISUAL_EMBED.IN_DIM": WIDTH,
        "MODEL.VISUAL_EMBED.OUT_DIM": 12,
        "SOLVER.EPOCH": 2,
        "SOLVER.BASE_LR": 0.03,
        "SOLVER.GRAD_CLIP_TYPE": "norm",
        "SOLVER.GRAD_CLIP": 1.0,
        "SOLVER.WRITE_PERIOD": 1,
        "LOSSES.NAMES": ["CrossEntropy"],
        "DECODE_STRATEGY.BEAM_SIZE": 1,
        "INFERENCE.NAME": "ToyEvaler",
        "INFERENCE.VOCAB": vocabulary_file(output_dir),
    }
    options.update({name.replace("__", "."): value for name, value in changes.items()})
    return [item for pair in options.items() for item in pair]


def vocabulary_file(output_dir):
    """A vocabulary beside the output folder."""
    path = Path(output_dir).parent / "toy_vocabulary.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"word{index}\n" for index in range(1, WORDS)), encoding="utf-8")
    return str(path)


def toy_config(output_dir, **changes):
    """The config of :func:`toy_options`."""
    cfg = get_cfg()
    tmp = get_cfg()
    tmp.set_new_allowed(True)
    options = toy_options(output_dir, **changes)
    tmp.merge_from_list(options)
    add_config(cfg, tmp)
    cfg.merge_from_list(options)
    return cfg


def command_line(output_dir, **changes):
    """The options as strings, for a command line."""
    return [str(item) for item in toy_options(output_dir, **changes)]


def differences(left, right, where=""):
    """The places at which two nested states differ; tensors are compared bit for bit."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return [] if torch.equal(left, right) else [where]
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [d for key in left for d in differences(left[key], right[key], f"{where}.{key}")]
    sequences = isinstance(left, list | tuple) and isinstance(right, list | tuple)
    if sequences and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}[{i}]")]
    return [] if left == right else [f"{where}: {left} != {right}"]


def keep(samples):
    """Collation that leaves samples as they are."""
    return samples


def seed_worker(worker_id):
    """Seed numpy in a worker as torch is seeded."""
    np.random.seed(torch.initial_seed() % 2**32)
