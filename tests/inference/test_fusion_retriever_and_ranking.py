"""Loaded models that fuse candidates and rank answers, against the model itself."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.engine import build_engine
from xmodaler.inference import FusionRetriever, RankingAnswerer, load
from xmodaler.inference.report_understanding import answer_samples, ranking_samples
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError

TEXTS = ["A red ball!", "the dog", "big", "on the table, left"]


@pytest.fixture(scope="module")
def toy():
    folder = Path(__file__).parents[1] / "engine"
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("toy_tasks")
    finally:
        sys.path.pop(0)


def trained(cfg):
    cfg.SOLVER.EPOCH, cfg.DATASETS.VAL = 1, ""
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    trainer = build_engine(cfg)
    trainer.train()
    (Path(cfg.OUTPUT_DIR) / "config.yaml").write_text(cfg.dump())
    return cfg.OUTPUT_DIR


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    folder = toy.write_retrieval(tmp_path_factory.mktemp("retrieval"), pictures=7)
    return trained(toy.retrieval(folder)), folder


@pytest.fixture
def retriever(run):
    return load(run[0], device="cpu")


def pictures(folder):
    return sorted(str(path) for path in (folder / "images").iterdir())


def fused(retriever, paths, texts):
    """Scores (pictures, texts) of all pairs, one at a time."""
    scores = torch.zeros(len(paths), len(texts))
    for row, sample in enumerate(retriever.read(paths)):
        _, tokens = retriever.model.encode_images(retriever.model.preprocess_batch([sample]))
        memory = retriever.model.encoder.memory(tokens)
        for column, text in enumerate(texts):
            keys = {kfg.U_TOKENS_IDS: retriever._read_texts([text])[0][0]}
            _, states = retriever.model.encode_texts(retriever.model.preprocess_batch([keys]))
            scores[row, column] = retriever.model.match(states, memory).item()
    return scores


def test_both_directions_rank_by_fusion(retriever, run):
    assert isinstance(retriever, FusionRetriever)
    paths = pictures(run[1])
    with torch.no_grad():
        scores = fused(retriever, paths, TEXTS)
    for column, ranking in enumerate(retriever.retrieve(TEXTS, paths, top_k=3)):
        order = scores[:, column].argsort(descending=True)[:3].tolist()
        assert [hit.id for hit in ranking] == [paths[row] for row in order]
        found = torch.tensor([hit.score for hit in ranking])
        torch.testing.assert_close(found, scores[order, column], atol=1e-5, rtol=1e-5)
    for row, ranking in enumerate(retriever.retrieve(paths[:2], TEXTS, top_k=4, by="picture")):
        order = scores[row].argsort(descending=True).tolist()
        assert [hit.id for hit in ranking] == [TEXTS[column] for column in order]


def test_only_the_best_of_the_vectors_are_fused(retriever, run):
    retriever.cfg.defrost()
    retriever.cfg.INFERENCE.RERANK = 2
    paths = pictures(run[1])
    names, vectors = retriever.embed_pictures(paths)
    products = vectors @ retriever.embed_texts(TEXTS).T
    best = products[:, 0].topk(2).indices.tolist()
    found = retriever.retrieve(TEXTS[0], paths, top_k=1)
    assert found[0].id in {names[row] for row in best}
    retriever.cfg.INFERENCE.RERANK = 0
    found = retriever.retrieve(TEXTS[0], paths, top_k=3)
    assert [hit.id for hit in found] == [names[row] for row in products[:, 0].topk(3).indices]


def test_an_index_is_searched_by_vectors(retriever, run):
    index = retriever.index(pictures(run[1]))
    retriever.cfg.defrost()
    retriever.cfg.INFERENCE.RERANK = 0
    expected = retriever.retrieve(TEXTS[1], pictures(run[1]), top_k=3)
    assert [hit.id for hit in retriever.retrieve(TEXTS[1], index, top_k=3)] == [
        hit.id for hit in expected
    ]


def test_queries_are_cleaned_as_captions_are(retriever, run):
    paths = pictures(run[1])
    plain, written = (
        retriever.retrieve(text, paths, top_k=2) for text in ("a red ball", "A  red, ball?!")
    )
    assert [hit.score for hit in plain] == [hit.score for hit in written]
    with pytest.raises(UserError, match="holds no word"):
        retriever.retrieve("?!", paths)
    # Nothing of it is in the vocabulary; it is a query all the same.
    assert len(retriever.retrieve("කුරුල්ලා", paths, top_k=2)) == 2


def test_reports_show_rankings(retriever, run):
    retriever.cfg.defrost()
    retriever.cfg.DATASETS.VAL = "JsonRetrievalDataset"
    samples = ranking_samples(retriever, "val", 6, str(run[1] / "images"))
    assert len(samples) == 6
    assert all(len(sample["hits"]) == 6 for sample in samples)
    assert all(1 <= next(iter(sample["scores"].values())) <= 7 for sample in samples)


@pytest.fixture(scope="module")
def answerer(toy, tmp_path_factory):
    folder = toy.write_questions(tmp_path_factory.mktemp("vqa"))
    loaded = load(trained(toy.vqa(folder)), device="cpu")
    loaded.folder = folder
    return loaded


def test_candidates_are_ranked_with_probabilities(answerer):
    assert isinstance(answerer, RankingAnswerer)
    picture = pictures(answerer.folder)[0]
    answer = answerer.answer(picture, "What is it?", top_k=10)
    # One of the five candidates has no words.
    assert sorted(text for text, _ in answer) == ["a ball", "a red ball", "dog", "red"]
    shares = [share for _, share in answer]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
    assert len(answerer.answer(picture, "What is it?", top_k=2)) == 2


def test_many_questions_get_what_each_gets_alone(answerer):
    paths = pictures(answerer.folder)[:3]
    questions = ["a dog?", "is the big red ball on the table", "what"]
    together = answerer.answer(paths, questions, batch_size=2)
    for path, question, found in zip(paths, questions, together, strict=True):
        alone = answerer.answer(path, question)
        assert [text for text, _ in alone] == [text for text, _ in found]
        assert alone.probability == pytest.approx(found.probability, abs=1e-5)


def test_the_list_of_answers_is_needed(answerer):
    cfg = answerer.cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.ANSWERS = ""
    with pytest.raises(UserError, match=r"DATALOADER\.ANSWERS"):
        RankingAnswerer(answerer.model, cfg)


def test_reports_show_answers(answerer):
    answerer.cfg.defrost()
    answerer.cfg.DATASETS.VAL = "JsonVQADataset"
    samples = answer_samples(answerer, "val", 4, str(answerer.folder / "images"))
    assert len(samples) == 4
    for sample in samples:
        assert Path(sample["image"]).is_file()
        assert len(sample["bars"]) == 4 and "accuracy" in sample["scores"]
