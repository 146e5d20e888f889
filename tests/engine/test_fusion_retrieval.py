"""Retrieval by vectors and fusion: against all scores, in parts of the data, over processes."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodaler.config import kfg
from xmodaler.engine import build_engine
from xmodaler.engine import launch as launch_function
from xmodaler.engine.fusion_retrieval import encode_texts
from xmodaler.engine.running import evaluate_only
from xmodaler.evaluation.retrieval import rank_scores
from xmodaler.evaluation.retrieval_fusion import Candidates, fused_ranks
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError


@pytest.fixture(scope="module")
def toy():
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    try:
        return importlib.import_module("toy_tasks")
    finally:
        sys.path.pop(0)


@pytest.fixture
def make(toy, tmp_path):
    """Builds a seeded trainer on files that are written once."""
    toy.write_retrieval(tmp_path)

    def build(files="test_en.json", **changes):
        cfg = toy.retrieval(tmp_path, files, **changes)
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        return build_engine(cfg)

    return build


def matrices(trainer):
    """All scores by fusion (pictures, texts), products, and the picture of each text."""
    model = trainer.bare_model.eval()
    batches = [model.preprocess_batch(batch) for batch in trainer.val_data_loader]
    vectors, tokens = zip(*[model.encode_images(batch) for batch in batches], strict=True)
    words = [
        row[mask].numpy()
        for batch in batches
        for row, mask in zip(batch[kfg.U_TOKENS_IDS], batch[kfg.TOKENS_MASKS], strict=True)
    ]
    owners = [len(identity[1]) for batch in batches for identity in batch[kfg.IDS]]
    with torch.no_grad():
        text_vectors, pool = encode_texts(model, words)
        products = torch.cat(vectors) @ text_vectors.T
        images, texts = torch.ones_like(products).nonzero().unbind(1)
        scores = model.score_pairs(torch.cat(tokens), pool, images, texts).view_as(products)
    model.train()
    return scores, products, torch.arange(len(owners)).repeat_interleave(torch.tensor(owners))


def test_with_all_candidates_the_ranks_are_those_of_the_scores(make):
    trainer = make(INFERENCE__RERANK=100)
    metrics = evaluate_only(trainer.cfg, trainer)
    scores, products, owners = matrices(trainer)
    expected = rank_scores(scores.T, owners)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["vectors/r_mean"] == pytest.approx(rank_scores(products.T, owners)["r_mean"])


def test_the_rest_keeps_its_places_behind_the_candidates(make):
    trainer = make(INFERENCE__RERANK=3)
    metrics = evaluate_only(trainer.cfg, trainer)
    scores, products, owners = matrices(trainer)
    ranks = []
    for text, owner in enumerate(owners.tolist()):
        order = products[:, text].argsort(descending=True, stable=True)
        best = sorted(order[:3].tolist(), key=lambda image, text=text: -scores[image, text])
        ranks.append([*best, *order[3:].tolist()].index(owner))
    assert metrics["t2i/meanr"] == pytest.approx(np.mean(ranks) + 1)
    assert metrics["t2i/R@1"] == pytest.approx(100 * np.mean(np.array(ranks) == 0))


def test_without_candidates_the_vectors_decide(make):
    trainer = make(INFERENCE__RERANK=0)
    metrics = evaluate_only(trainer.cfg, trainer)
    _, products, owners = matrices(trainer)
    expected = rank_scores(products.T, owners)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_languages_are_ranked_apart_and_averaged(make):
    both = make("en=test_en.json,de=test_de.json", INFERENCE__RERANK=4)
    metrics = evaluate_only(both.cfg, both)
    for language in ("en", "de"):
        alone = make(f"test_{language}.json", INFERENCE__RERANK=4)
        found = evaluate_only(alone.cfg, alone)
        for name in ("t2i/R@1", "i2t/R@5", "r_mean", "vectors/r_mean"):
            assert metrics[f"{language}/{name}"] == pytest.approx(found[name]), name
    mean = (metrics["en/r_mean"] + metrics["de/r_mean"]) / 2
    assert metrics["r_mean"] == pytest.approx(mean)


def test_training_learns_from_pairs_and_evaluates(make):
    trainer = make(INFERENCE__RERANK=4)
    batch = next(iter(trainer.train_data_loader))
    assert batch[kfg.PAIR_IDS].dtype == torch.int64 and len(batch[kfg.PAIR_IDS]) == 3
    metrics = trainer.train()
    assert {"ITC", "ITM", "val/r_mean"} <= set(metrics)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(make, toy, tmp_path, monkeypatch):
    trainer = make("en=test_en.json,de=test_de.json", INFERENCE__RERANK=4)
    expected = evaluate_only(trainer.cfg, trainer)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    main = importlib.import_module("toy_tasks").evaluate_on_two
    launch_function(main, 2, dist_url="auto", args=(str(tmp_path),), device="cpu")
    for rank in (0, 1):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == pytest.approx(expected)


def test_candidates_are_scored_once_each():
    of_images = torch.tensor([[0, 1], [1, 2]])
    of_texts = torch.tensor([[0, 1], [1, 0], [1, 0]])
    pairs = Candidates.of(of_images, of_texts)
    found = list(zip(pairs.images.tolist(), pairs.texts.tolist(), strict=True))
    assert found == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    scores = torch.arange(6.0)
    assert pairs.table(scores, by_text=False).tolist() == [[0, 1], [4, 5]]
    assert pairs.table(scores, by_text=True).tolist() == [[0, 3], [4, 1], [5, 2]]
    # Text 2 belongs to picture 0, where it is no candidate of the picture.
    by_vectors = (np.array([0, 1, 1]), np.array([0, 0]))
    of_text, of_image = fused_ranks(pairs, scores, torch.tensor([0, 1, 0]), by_vectors)
    assert of_text.tolist() == [1, 0, 1]
    assert of_image.tolist() == [1, 1]


def test_data_without_pictures_are_refused(make, tmp_path):
    (tmp_path / "none.json").write_text("[]")
    trainer = make("none.json")
    with pytest.raises(UserError, match="an empty list"):
        evaluate_only(trainer.cfg, trainer)
