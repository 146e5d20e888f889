"""Tiny tasks of understanding in memory, and configs for them; imports the parts of toy_parts.

Subprocesses of the tests load it through ``--import``.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import toy_parts as toy

from xmodaler.config import configurable, get_cfg, kfg
from xmodaler.datasets import DATASETS_REGISTRY
from xmodaler.modeling import add_config

IMAGES, HELD_OUT, WIDTH, CLASSES, WORDS, ANSWERS, LENGTH = 16, 6, 6, 5, 30, 4, 8
TEXTS = 2
CHOICES = 4


class Toy:
    """Records with random regions and words that depend on their number alone."""

    @configurable
    def __init__(self, stage, noise=0.1):
        self.stage, self.noise = stage, noise
        self.trains = stage.split(";")[0] == "train"

    @classmethod
    def from_config(cls, cfg, stage="train"):
        return {"stage": stage}

    def load_data(self, cfg):
        first = {"train": 0, "val": 100, "test": 200}[self.stage.split(";")[0]]
        count = IMAGES if self.trains else HELD_OUT
        return [{"number": first + index} for index in range(count)]

    def picture(self, number):
        """Regions: as many as the number says, noisy in training."""
        rng = np.random.default_rng(number)
        regions = 2 + number % 3
        feats = rng.normal(size=(regions, WIDTH)).astype(np.float32)
        if self.trains:
            feats += self.noise * np.random.normal(size=feats.shape).astype(np.float32)
        locations = rng.random((regions, 5)).astype(np.float32)
        return {kfg.IDS: str(number), kfg.ATT_FEATS: feats, kfg.ATT_FEATS_LOC: locations}

    @staticmethod
    def words(number, salt=0):
        """[CLS] words [SEP]."""
        rng = np.random.default_rng((number, salt))
        middle = rng.integers(5, WORDS, size=2 + (number + salt) % (LENGTH - 3))
        return np.concatenate([[2], middle, [3]])


@DATASETS_REGISTRY.register()
class ToyAnswers(Toy):
    """A question and soft scores of answers."""

    def __call__(self, record):
        number = record["number"]
        words = self.words(number)
        sample = self.picture(number)
        sample |= {kfg.U_TOKENS_IDS: words, kfg.U_TOKENS_TYPE: np.zeros_like(words)}
        scores = np.zeros(ANSWERS, dtype=np.float32)
        scores[number % ANSWERS] = 1.0
        return {**sample, kfg.U_TARGET_IDS: scores} if self.trains else sample


@DATASETS_REGISTRY.register()
class QuietToyAnswers(ToyAnswers):
    """Without noise: what is trained does not depend on how batches are cut."""

    @classmethod
    def from_config(cls, cfg, stage="train"):
        return {"stage": stage, "noise": 0.0}


@DATASETS_REGISTRY.register()
class ToyChoices(Toy):
    """Four answers, or four reasons; a test record has reasons for each answer."""

    def __call__(self, record):
        number = record["number"]
        stage, task = self.stage.split(";")
        assert task in ("VCR_Q-A", "VCR_QA-R")
        rows = CHOICES if task == "VCR_Q-A" or stage != "test" else CHOICES * CHOICES
        first = 1 if task == "VCR_Q-A" else 50
        texts = [self.words(number, first + row) for row in range(rows)]
        sample = self.picture(number)
        sample |= {
            kfg.SEQ_PER_SAMPLE: rows,
            kfg.U_TOKENS_IDS: texts,
            kfg.U_TOKENS_TYPE: [np.zeros_like(text) for text in texts],
        }
        if stage != "test":
            sample[kfg.U_TARGET_IDS] = np.array([(number + first) % CHOICES])
        return sample


@DATASETS_REGISTRY.register()
class ToyPairs(Toy):
    """A caption of every picture to train on; all captions of a picture to rank."""

    def __call__(self, record):
        number = record["number"]
        # Two training records are of one picture.
        image = number // 2 * 2 if self.trains else number
        sample = self.picture(image)
        if self.trains:
            words = self.words(number)
            sample |= {kfg.U_TOKENS_IDS: words, kfg.U_TOKENS_TYPE: np.zeros_like(words)}
            return {**sample, kfg.U_TARGET_IDS: np.zeros((1, 1), dtype=np.int64)}
        texts = [self.words(number, salt) for salt in range(TEXTS)]
        sample[kfg.IDS] = [str(number), [str(number)] * TEXTS]
        types = [np.zeros_like(text) for text in texts]
        return {**sample, kfg.U_TOKENS_IDS: texts, kfg.U_TOKENS_TYPE: types}


@DATASETS_REGISTRY.register()
class ToyGroups(ToyPairs):
    """In training, a match and two mismatches."""

    def __call__(self, record):
        if not self.trains:
            return super().__call__(record)
        number = record["number"]
        parts = [self.picture(image) for image in (number, number, number + 1)]
        texts = [self.words(image) for image in (number, number + 1, number)]
        return {
            kfg.IDS: str(number),
            kfg.SAMPLE_PER_SAMPLE: len(parts),
            kfg.ATT_FEATS: [part[kfg.ATT_FEATS] for part in parts],
            kfg.ATT_FEATS_LOC: [part[kfg.ATT_FEATS_LOC] for part in parts],
            kfg.U_TOKENS_IDS: texts,
            kfg.U_TOKENS_TYPE: [np.zeros_like(text) for text in texts],
        }


@DATASETS_REGISTRY.register()
class ToyPretraining(Toy):
    """Masked words and regions for both families of models."""

    def __call__(self, record):
        number = record["number"]
        sample = self.picture(number)
        words = self.words(number)
        masked, targets = words.copy(), np.full_like(words, -1)
        chosen = np.random.randint(1, len(words) - 1)
        masked[chosen], targets[chosen] = 4, words[chosen]
        regions = len(sample[kfg.ATT_FEATS])
        labels = np.full(regions, -1)
        labels[np.random.randint(regions)] = 1
        rng = np.random.default_rng((number, 7))
        classes = rng.random((regions, CLASSES)).astype(np.float32)
        return {
            **sample,
            kfg.ATT_FEATS_WO_MASK: sample[kfg.ATT_FEATS] + 0,
            kfg.U_TOKENS_IDS: masked,
            kfg.U_TOKENS_IDS_WO_MASK: words,
            kfg.U_TOKENS_TYPE: np.zeros_like(words),
            kfg.U_TARGET_IDS: targets,
            kfg.G_TOKENS_IDS: masked,
            kfg.G_TOKENS_TYPE: np.ones_like(words),
            kfg.G_TARGET_IDS: np.append(words[1:], -1),
            kfg.V_TARGET: classes / classes.sum(1, keepdims=True),
            kfg.V_TARGET_LABELS: labels,
            kfg.ITM_NEG_LABEL: np.int64(number % 2),
        }


COMMON = {
    "SEED": 7,
    "DATALOADER.TRAIN_BATCH_SIZE": 4,
    "DATALOADER.TEST_BATCH_SIZE": 4,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.INF_BATCH_SIZE": 5,
    "DATALOADER.NEGATIVE_SIZE": 1,
    "MODEL.DEVICE": "cpu",
    "MODEL.VOCAB_SIZE": WORDS,
    "MODEL.MAX_SEQ_LEN": LENGTH,
    "MODEL.TOKEN_EMBED.NAME": "TokenBaseEmbedding",
    "MODEL.TOKEN_EMBED.DIM": 16,
    "MODEL.TOKEN_EMBED.USE_NORM": True,
    "MODEL.TOKEN_EMBED.DROPOUT": 0.1,
    "MODEL.TOKEN_EMBED.POSITION": "NNEmbeddingEncoding",
    "MODEL.TOKEN_EMBED.POSITION_MAX_LEN": 16,
    "MODEL.TOKEN_EMBED.TYPE_VOCAB_SIZE": 3,
    "MODEL.VISUAL_EMBED.NAME": "VisualBaseEmbedding",
    "MODEL.VISUAL_EMBED.IN_DIM": WIDTH,
    "MODEL.VISUAL_EMBED.OUT_DIM": 16,
    "MODEL.VISUAL_EMBED.USE_NORM": True,
    "MODEL.VISUAL_EMBED.LOCATION_SIZE": 5,
    "MODEL.BERT.HIDDEN_SIZE": 16,
    "MODEL.BERT.INTERMEDIATE_SIZE": 32,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 2,
    "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
    "MODEL.BERT.V_NUM_HIDDEN_LAYERS": 1,
    "MODEL.BERT.NUM_UNDERSTANDING_LAYERS": 1,
    "MODEL.BERT.NUM_GENERATION_LAYERS": 1,
    "SOLVER.EPOCH": 2,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.GRAD_CLIP": 1.0,
    "SOLVER.WRITE_PERIOD": 1,
    "INFERENCE.VOCAB": "",
    "INFERENCE.VAL_ANNFILE": "",
    "INFERENCE.TEST_ANNFILE": "",
    "INFERENCE.ID_KEY": "question_id",
    "INFERENCE.VALUE": "answer",
    "INFERENCE.GENERATION_MODE": False,
}
TWO_STREAMS = {
    "MODEL.ENCODER": "TwoStreamBertEncoder",
    "MODEL.DECODER": "DecoupleBertDecoder",
}
ONE_STREAM = {"MODEL.ENCODER": "SingleStreamBertEncoder", "MODEL.DECODER": ""}
POOLER = {
    "MODEL.MM_PREDICTOR.POOLER_INPUT_SIZE": 16,
    "MODEL.MM_PREDICTOR.POOLER_OUTPUT_SIZE": 8,
}
PRETRAINING = {
    "MODEL.PREDICTOR": "BertPredictionHead",
    "MODEL.V_PREDICTOR": "BertVisualPredictionHead",
    "MODEL.BERT.V_TARGET_SIZE": CLASSES,
    "DATASETS.TRAIN": "ToyPretraining",
    "LOSSES.NAMES": ["PretrainLosses"],
}
ANSWERING = {
    "DATASETS.TRAIN": "ToyAnswers",
    "LOSSES.NAMES": ["BCEWithLogits"],
    "MODEL.MM_PREDICTOR.LABELS_NUM": ANSWERS,
}
CHOOSING = {
    "ENGINE.NAME": "VCRTrainer",
    "DATASETS.TRAIN": "ToyChoices",
    "DATASETS.VAL": "ToyChoices",
    "LOSSES.NAMES": ["CrossEntropy"],
    "INFERENCE.NAME": "VCREvaler",
    "MODEL.MM_PREDICTOR.LABELS_NUM": 1,
}
UNITER_RETRIEVAL = {
    **ONE_STREAM,
    "MODEL.META_ARCHITECTURE": "UniterRetrieval",
    "MODEL.PREDICTOR": "SingleStreamMultiModalSimilarity",
    "MODEL.MM_PREDICTOR.LABELS_NUM": 1,
    "DATASETS.VAL": "ToyPairs",
    "LOSSES.NAMES": ["Triplet"],
}
TASKS = {
    "tden-pretrain": {
        **TWO_STREAMS,
        **PRETRAINING,
        **POOLER,
        "ENGINE.NAME": "TDENPretrainer",
        "MODEL.META_ARCHITECTURE": "TDENPretrain",
        "MODEL.MM_PREDICTOR.POOLER_BN": True,
    },
    "uniter-pretrain": {
        **ONE_STREAM,
        **PRETRAINING,
        "MODEL.META_ARCHITECTURE": "UniterPretrain",
        "MODEL.V_REGRESSOR": "BertVisualFeatureRegressionHead",
        "MODEL.ITM_PREDICTOR": "BertIsMatchedPredictor",
    },
    "tden-vqa": {
        **TWO_STREAMS,
        **ANSWERING,
        **POOLER,
        "MODEL.META_ARCHITECTURE": "TDENBiTransformer",
        "MODEL.PREDICTOR": "MultiModalPredictor",
    },
    "uniter-vqa": {
        **ONE_STREAM,
        **ANSWERING,
        "MODEL.META_ARCHITECTURE": "UniterForMMUnderstanding",
        "MODEL.PREDICTOR": "SingleStreamMultiModalPredictor",
    },
    "tden-vcr": {
        **TWO_STREAMS,
        **CHOOSING,
        **POOLER,
        "MODEL.META_ARCHITECTURE": "TDENBiTransformer",
        "MODEL.PREDICTOR": "MultiModalPredictor",
        "MODEL.BERT.NUM_GENERATION_LAYERS": 0,
    },
    "uniter-vcr": {
        **ONE_STREAM,
        **CHOOSING,
        "MODEL.META_ARCHITECTURE": "UniterForMMUnderstanding",
        "MODEL.PREDICTOR": "SingleStreamMultiModalPredictor",
    },
    "tden-retrieval": {
        **POOLER,
        "ENGINE.NAME": "RetrievalTrainer",
        "MODEL.META_ARCHITECTURE": "TDENRetrieval",
        "MODEL.ENCODER": "TwoStreamBertEncoder",
        "MODEL.DECODER": "",
        "MODEL.PREDICTOR": "MultiModalSimilarity",
        "MODEL.BERT.NUM_UNDERSTANDING_LAYERS": 0,
        "MODEL.BERT.NUM_GENERATION_LAYERS": 0,
        "MODEL.MM_PREDICTOR.POOLER_BN": True,
        "DATASETS.TRAIN": "ToyPairs",
        "DATASETS.VAL": "ToyPairs",
        "INFERENCE.NAME": "RetrievalEvaler",
        "LOSSES.NAMES": ["BatchTriplet"],
    },
    "uniter-retrieval": {
        **UNITER_RETRIEVAL,
        "ENGINE.NAME": "SingleStreamRetrievalTrainer",
        "DATASETS.TRAIN": "ToyGroups",
    },
    "uniter-retrieval-hard": {
        **UNITER_RETRIEVAL,
        "ENGINE.NAME": "SingleStreamRetrievalTrainerHardNegatives",
        "DATASETS.TRAIN": "ToyPairs",
    },
}


def options_of(task, output_dir, **changes):
    """``KEY VALUE ...`` of a run of a second; ``changes`` use ``__`` for dots."""
    options = {"OUTPUT_DIR": str(output_dir), **COMMON, **TASKS[task]}
    options.update({name.replace("__", "."): value for name, value in changes.items()})
    return [item for pair in options.items() for item in pair]


def config_of(task, output_dir, **changes):
    """The config of :func:`options_of`."""
    cfg, tmp = get_cfg(), get_cfg()
    tmp.set_new_allowed(True)
    options = options_of(task, output_dir, **changes)
    tmp.merge_from_list(options)
    add_config(cfg, tmp)
    cfg.merge_from_list(options)
    return cfg


def command_line(task, output_dir, **changes):
    """The options as strings, for a command line."""
    return [str(item) for item in options_of(task, output_dir, **changes)]


differences = toy.differences
