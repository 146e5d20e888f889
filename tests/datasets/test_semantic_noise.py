"""Noise on the semantic words of COS-Net while training."""

import numpy as np
import pytest

from xmodaler.config import CfgNode, get_cfg, kfg
from xmodaler.datasets.common import MapDataset
from xmodaler.datasets.images import MSCoCoCOSNetDataset

CLASSES = 40


@pytest.fixture
def mapper():
    cfg = get_cfg()
    cfg.MODEL.COSNET = CfgNode({"NUM_CLASSES": CLASSES})
    cfg.DATALOADER.SAMPLE_PROB, cfg.DATALOADER.SEQ_PER_SAMPLE = 0.5, 3
    cfg.DATALOADER.FEATS_FOLDER = ""
    return MSCoCoCOSNetDataset(cfg, "train")


RECORD = {
    "image_id": "7",
    "tokens_ids": np.array([[0, 3, 4, 0]]),
    "target_ids": np.array([[3, 4, 0, -1]]),
    "attr_pred": [1, 5, 9],
    "attr_labels": [1, CLASSES, 9],
    "missing_labels": [2],
}


def test_an_irrelevant_word_replaced_by_a_true_one_counts_as_missing(mapper):
    """As in the reference: the word that gives way is marked, whether it was true or not."""
    mapper.sample_prob = 1.0
    missing = np.eye(CLASSES + 1, dtype=np.int64)[2]
    for seed in range(400):
        np.random.seed(seed)
        ids, labels, absent = mapper.sampling(np.array([5]), np.array([CLASSES]), missing)
        if ids[0] == 2:
            assert labels[0] == 2 and np.flatnonzero(absent).tolist() == [5]
            return
        assert labels[0] == CLASSES and np.flatnonzero(absent).tolist() == [2]
    raise AssertionError("class 2 was never drawn")


def test_words_are_replaced_as_often_as_asked(mapper):
    predicted = np.arange(20)
    np.random.seed(0)
    changed = [
        (mapper.sampling(predicted, predicted, np.zeros(CLASSES + 1, int))[0] != predicted).mean()
        for _ in range(300)
    ]
    assert np.mean(changed) == pytest.approx(0.5 * (1 - 1 / CLASSES), abs=0.03)


def test_noise_follows_the_seed_of_the_sample(mapper):
    data = MapDataset([RECORD], mapper)
    one, again, other = data[(0, 11)], data[(0, 11)], data[(0, 12)]

    def words(sample):
        return [row.tolist() for row in sample[kfg.SEMANTICS_IDS]]

    assert words(one) == words(again) != words(other)
    assert len(words(one)) == 3 and len({tuple(row) for row in words(one)}) > 1
