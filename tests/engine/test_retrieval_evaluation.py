"""Retrieval evaluated by vectors and by pairs: the definition, ids, kills, other weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodaler.config import kfg
from xmodaler.datasets import collate
from xmodaler.engine import build_engine
from xmodaler.engine.pair_evaluation import FOLDER, evaluate_pairs
from xmodaler.engine.retrieval_evaluation import encode, evaluate_retrieval
from xmodaler.engine.running import evaluate_only, import_modules
from xmodaler.evaluation.retrieval import itm_eval
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError


@pytest.fixture(scope="module")
def tasks(toy):
    """The module of toy tasks, registered once."""
    import_modules([str(Path(__file__).with_name("toy_understanding.py"))])
    return sys.modules["toy_understanding"]


@pytest.fixture
def make(tasks, tmp_path):
    """Builds a seeded trainer of a task."""

    def build(task, **changes):
        cfg = tasks.config_of(task, tmp_path / "run", **changes)
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        return build_engine(cfg)

    return build


def batches_of(trainer):
    return [trainer.bare_model.preprocess_batch(batch) for batch in trainer.val_data_loader]


def pairs_one_by_one(trainer):
    """Scores (texts, pictures), every pair in a batch of its own."""
    loader = trainer.val_data_loader
    samples = [loader.dataset[index] for index in range(len(loader.dataset))]
    scores = []
    with torch.no_grad():
        model = trainer.bare_model.eval()
        for sample in samples:
            for words in sample[kfg.U_TOKENS_IDS]:
                row = []
                for other in samples:
                    pair = {
                        **other,
                        kfg.IDS: "x",
                        kfg.U_TOKENS_IDS: words,
                        kfg.U_TOKENS_TYPE: np.zeros_like(words),
                    }
                    row.append(model(model.preprocess_batch([pair]))[kfg.U_LOGITS].item())
                scores.append(row)
        trainer.bare_model.train()
    return np.array(scores, dtype=np.float32), np.repeat(np.arange(len(samples)), 2)


def test_vectors_are_ranked_by_their_products(make):
    trainer = make("tden-retrieval")
    metrics = evaluate_only(trainer.cfg, trainer)
    with torch.no_grad():
        outputs = [trainer.bare_model.eval()(batch) for batch in batches_of(trainer)]
    images, texts = (torch.cat([o[kfg.OUTPUT][side] for o in outputs]) for side in (0, 1))
    scores = texts @ images.t()
    own = torch.arange(len(images)).repeat_interleave(2)
    assert scores.shape == (12, 6)
    ranks = (scores > scores.gather(1, own[:, None])).sum(1)
    for k in (1, 5, 10):
        expected = 100 * (ranks < k).float().mean().item()
        assert metrics[f"r{k}"] == metrics[f"t2i/R@{k}"] == pytest.approx(expected)
    best = torch.stack([scores[own == i, i].max() for i in range(6)])
    ranks = (scores > best).sum(0)
    assert metrics["i2t/R@1"] == pytest.approx(100 * (ranks < 1).float().mean().item())
    assert metrics["mder"] == metrics["medr"]


def test_an_evaluator_of_ones_own_gets_vectors_and_a_matrix(make):
    class Own:
        def eval(self, vfeats, tfeats, labels):
            self.shapes = (tuple(vfeats.shape), tuple(tfeats.shape), labels.shape)
            self.labels = labels
            return {"one": 1.0}

    trainer, evaluator = make("tden-retrieval"), Own()
    assert trainer.test(trainer.cfg, trainer.model, trainer.val_data_loader, evaluator, -1) == {
        "one": 1.0
    }
    assert evaluator.shapes == ((6, 8), (12, 8), (12, 6))
    assert np.array_equal(evaluator.labels, np.eye(6).repeat(2, axis=0))
    without = evaluate_retrieval(trainer.cfg, trainer.model, trainer.val_data_loader, None, -1)
    assert "t2i/R@1" in without


def test_a_picture_of_several_records_is_one_candidate(make):
    """A data set with one caption a record names the picture alone."""
    trainer = make("tden-retrieval")
    records = [0, 1, 0, 2]
    samples = [trainer.val_data_loader.dataset[index] for index in records]
    for sample in samples:
        sample[kfg.IDS] = sample[kfg.IDS][0]
        for key in (kfg.U_TOKENS_IDS, kfg.U_TOKENS_TYPE):
            sample[key] = sample[key][0]
    vectors = encode(trainer.cfg, trainer.bare_model, [collate(samples[:3]), collate(samples[3:])])
    assert vectors.image_ids == ["100", "101", "102"]
    assert vectors.text_image.tolist() == [0, 1, 0, 2]
    assert vectors.images.shape == (3, 8) and vectors.texts.shape == (4, 8)


def test_ids_that_do_not_fit_are_explained(make):
    trainer = make("tden-retrieval")
    batch = collate([trainer.val_data_loader.dataset[0]])
    batch[kfg.IDS] = ["100"]
    with pytest.raises(UserError, match="IDS"):
        encode(trainer.cfg, trainer.bare_model, [batch])


@pytest.mark.parametrize("pairs_at_once", [1, 5, 64])
def test_pairs_have_the_scores_that_each_has_alone(make, tmp_path, pairs_at_once):
    trainer = make("uniter-retrieval", DATALOADER__INF_BATCH_SIZE=pairs_at_once)
    metrics = evaluate_only(trainer.cfg, trainer)
    scores, own = pairs_one_by_one(trainer)
    assert metrics == pytest.approx(itm_eval(scores, own))
    assert {"img_r1", "img_r5", "img_r10", "img_r_mean", "i2t/R@1"} <= set(metrics)
    assert trainer.model.training
    assert not list((tmp_path / "run" / FOLDER).iterdir())


class Killed(BaseException):
    pass


def forward_counter(model, limit=10**9):
    """Counts scored pairs; kills when so many have been."""
    counted = {"pairs": 0}
    original = type(model).forward

    def forward(batch, *args, **kwargs):
        if counted["pairs"] >= limit:
            raise Killed
        outputs = original(model, batch, *args, **kwargs)
        counted["pairs"] += outputs[kfg.U_LOGITS].numel()
        return outputs

    model.forward = forward
    return counted


def test_a_killed_evaluation_scores_no_pair_twice(make, tmp_path):
    whole = make("uniter-retrieval")
    expected = whole.test(whole.cfg, whole.model, whole.val_data_loader, None, 1)

    first = make("uniter-retrieval")
    counted = forward_counter(first.bare_model, limit=30)
    with pytest.raises(Killed):
        first.test(first.cfg, first.model, first.val_data_loader, None, 1)
    before = counted["pairs"]
    assert 30 <= before < 72
    (kept,) = (tmp_path / "run" / FOLDER).iterdir()
    assert np.isfinite(np.load(kept)).sum() == before

    second = make("uniter-retrieval")
    counted = forward_counter(second.bare_model)
    assert second.test(second.cfg, second.model, second.val_data_loader, None, 1) == expected
    # Of 6 x 12 pairs.
    assert counted["pairs"] == 72 - before
    assert not kept.exists()


def test_scores_of_other_weights_are_not_taken_over(make, tmp_path):
    first = make("uniter-retrieval")
    forward_counter(first.bare_model, limit=30)
    with pytest.raises(Killed):
        first.test(first.cfg, first.model, first.val_data_loader, None, 1)
    other = make("uniter-retrieval", SEED=8)
    counted = forward_counter(other.bare_model)
    other.test(other.cfg, other.model, other.val_data_loader, None, 1)
    assert counted["pairs"] == 72
    assert len(list((tmp_path / "run" / FOLDER).iterdir())) == 1


def test_a_damaged_file_of_scores_is_made_anew(make, tmp_path):
    first = make("uniter-retrieval")
    forward_counter(first.bare_model, limit=30)
    with pytest.raises(Killed):
        first.test(first.cfg, first.model, first.val_data_loader, None, 1)
    (kept,) = (tmp_path / "run" / FOLDER).iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    second = make("uniter-retrieval")
    counted = forward_counter(second.bare_model)
    second.test(second.cfg, second.model, second.val_data_loader, None, 1)
    assert counted["pairs"] == 72


def test_a_picture_twice_cannot_be_ranked(make):
    trainer = make("uniter-retrieval")
    batch = collate([trainer.val_data_loader.dataset[index] for index in (0, 1, 0)])
    with pytest.raises(UserError, match="every picture once"):
        evaluate_pairs(trainer.cfg, trainer.model, [batch], -1)
