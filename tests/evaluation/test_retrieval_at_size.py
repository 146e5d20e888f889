"""Indexes of vectors and matrices of pair scores: exact, kept on disk, resumed."""

import importlib.util

import numpy as np
import pytest
import torch

from xmodaler.evaluation.pair_scores import ScoreMatrix, score_pairs
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.utils.errors import UserError

KINDS = ["exact", *(["HNSW32", "IVF4,Flat"] if importlib.util.find_spec("faiss") else [])]


def unit_vectors(count, width=16, seed=0):
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def names(count, start=0):
    return [f"picture {number}.jpg" for number in range(start, start + count)]


@pytest.mark.parametrize("kind", KINDS)
def test_index_finds_what_was_added_bit_by_bit_and_survives_the_disk(kind, tmp_path):
    vectors = unit_vectors(300)
    index = VectorIndex(16, kind)
    index.add(names(200), vectors[:200])
    index.add(names(100, 200), vectors[200:])
    assert len(index) == 300
    assert "picture 299.jpg" in index
    found = index.search(vectors, 5)
    assert [row[0][0] for row in found] == names(300)
    assert all(len(row) == 5 for row in found)
    assert found[7][0][1] == pytest.approx(1, abs=1e-5)
    scores = [score for _, score in found[7]]
    assert scores == sorted(scores, reverse=True)
    index.save(tmp_path / "index")
    again = VectorIndex.load(tmp_path / "index")
    assert (again.kind, len(again)) == (kind, 300)
    assert again.search(vectors[:50], 5) == found[:50]
    again.add(["new"], unit_vectors(1, seed=9))
    assert again.search(unit_vectors(1, seed=9), 1)[0][0][0] == "new"


@pytest.mark.skipif(len(KINDS) == 1, reason="faiss is not installed")
def test_approximate_search_misses_little():
    vectors, queries = unit_vectors(3000), unit_vectors(100, seed=1)
    exact, ann = VectorIndex(16), VectorIndex(16, "HNSW32")
    for index in (exact, ann):
        index.add(names(3000), vectors)
    pairs = zip(exact.search(queries, 10), ann.search(queries, 10), strict=True)
    shared = [len({n for n, _ in a} & {n for n, _ in b}) for a, b in pairs]
    assert sum(shared) > 950


def test_fewer_candidates_than_asked_for():
    index = VectorIndex(16)
    index.add(names(3), unit_vectors(3))
    assert len(index.search(unit_vectors(1), 10)[0]) == 3


def test_an_empty_index_is_kept_too(tmp_path):
    VectorIndex(4).save(tmp_path / "index")
    assert len(VectorIndex.load(tmp_path / "index")) == 0


def test_what_an_index_refuses(tmp_path, monkeypatch):
    index = VectorIndex(16)
    index.add(["a"], unit_vectors(1))
    for call, words in (
        (lambda: index.add(["a"], unit_vectors(1)), "'a' would be in the index twice"),
        (lambda: index.add(["b", "b"], unit_vectors(2)), "'b' would be in the index twice"),
        (lambda: index.add(["b"], unit_vectors(2)), "1 names were given for 2 vectors"),
        (lambda: index.add(["b"], unit_vectors(1, 8)), "index of width 16"),
        (lambda: index.add(["b"], torch.full((1, 16), torch.inf)), "not finite"),
        (lambda: index.search(unit_vectors(1), 0), "at least 1"),
        (lambda: VectorIndex(16).search(unit_vectors(1), 1), "is empty"),
        (lambda: VectorIndex.load(tmp_path / "gone"), "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            call()
    assert len(index) == 1
    index.save(tmp_path / "index")
    whole = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        VectorIndex.load(tmp_path / "index")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install xmodaler\[ann\]"):
        VectorIndex(16, "HNSW32")


def test_scoring_goes_on_where_it_was_killed(tmp_path):
    truth = torch.arange(12.0).reshape(4, 3)
    path = str(tmp_path / "scores.npy")
    asked = []

    def score(row, images):
        asked.append((row, list(images)))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return truth[row, list(images)]

    with pytest.raises(KeyboardInterrupt):
        score_pairs(score, ScoreMatrix(4, 3, path, "weights 1"), images_at_once=2)
    assert asked == [(0, [0, 1]), (0, [2]), (1, [0, 1]), (1, [2])]
    assert ScoreMatrix(4, 3, path, "weights 1").missing().tolist() == [1, 2, 3]
    scores = score_pairs(score, ScoreMatrix(4, 3, path, "weights 1"), images_at_once=2)
    np.testing.assert_array_equal(scores, truth)
    assert (0, [0, 1]) not in asked[4:]
    # Other weights or another number of pictures begin anew.
    assert len(ScoreMatrix(4, 3, path, "weights 2").missing()) == 4
    assert len(ScoreMatrix(4, 5, path, "weights 2").missing()) == 4


def test_scores_in_memory_and_what_is_refused(tmp_path):
    scores = score_pairs(lambda row, images: torch.ones(len(images)), ScoreMatrix(2, 5), 2)
    assert scores.tolist() == [[1] * 5] * 2
    with pytest.raises(UserError, match="NaN"):
        ScoreMatrix(1, 1).put(0, torch.tensor([torch.nan]))
    with pytest.raises(UserError, match="make no pairs"):
        ScoreMatrix(0, 3)
    with pytest.raises(UserError, match=r"\.npy file"):
        ScoreMatrix(1, 1, str(tmp_path / "scores.txt"))
    with pytest.raises(UserError, match="at least 1"):
        score_pairs(lambda row, images: None, ScoreMatrix(1, 1), 0)
