"""Retrieval: ranks and recalls are those of the plain definition, for any pool."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.evaluation import RetrievalEvaler
from xmodaler.evaluation.retrieval import (
    blockwise_ranks,
    group_texts,
    itm_eval,
    metrics_of_ranks,
    rank_scores,
    top_candidates,
)
from xmodaler.utils.errors import UserError


def plain_ranks(scores, truth):
    """Place of the first right candidate in the stable descending order of each row."""
    ranks = []
    for row, right in zip(scores.tolist(), truth, strict=True):
        order = sorted(range(len(row)), key=lambda column: (-row[column], column))
        ranks.append(next((place for place, c in enumerate(order) if right[c]), -1))
    return np.array(ranks)


@st.composite
def pools(draw):
    """Vectors of small whole numbers, whose products are exact and often equal."""
    images, texts, width = (
        draw(st.integers(1, 12)),
        draw(st.integers(1, 30)),
        draw(st.integers(1, 3)),
    )
    seed = draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    image_vectors = random.integers(-2, 3, (images, width)).astype(np.float32)
    text_vectors = random.integers(-2, 3, (texts, width)).astype(np.float32)
    return image_vectors, text_vectors, random.integers(0, images, texts), draw(st.integers(1, 40))


@settings(max_examples=150, deadline=None)
@given(pools())
def test_ranks_are_those_of_a_stable_sort_whatever_the_block(pool):
    images, texts, index, block = pool
    truth = np.eye(len(images), dtype=int)[index]
    by_text, by_image = blockwise_ranks(images, texts, index, block)
    scores = texts @ images.T
    np.testing.assert_array_equal(by_text, plain_ranks(scores, truth))
    np.testing.assert_array_equal(by_image, plain_ranks(scores.T, truth.T))
    matrix = blockwise_ranks(images, texts, truth)
    np.testing.assert_array_equal(matrix[0], by_text)
    np.testing.assert_array_equal(matrix[1], by_image)
    metrics = metrics_of_ranks(by_text, by_image)
    for k in (1, 5, 10):
        assert metrics[f"t2i/R@{k}"] == metrics[f"r{k}"] == 100 * (by_text < k).mean()
        assert metrics[f"i2t/R@{k}"] == 100 * (by_image[by_image >= 0] < k).mean()
    assert metrics["meanr"] == by_text.mean() + 1
    parts = [scores[start : start + block] for start in range(0, len(scores), block)]
    assert rank_scores(parts, index) == rank_scores(scores, index) == metrics


@settings(max_examples=60, deadline=None)
@given(pools(), st.integers(1, 50))
def test_best_candidates_are_the_head_of_a_stable_sort(pool, k):
    candidates, queries, _, block = pool
    scores, places = top_candidates(torch.tensor(queries), torch.tensor(candidates), k, block)
    expected = queries @ candidates.T
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, order, 1))


def test_a_model_that_scores_all_alike_is_at_chance():
    images, texts = np.ones((40, 4)), np.ones((200, 4))
    metrics = RetrievalEvaler().eval(images, texts, np.arange(200) // 5)
    assert metrics["r1"] == pytest.approx(100 / 40)
    assert metrics["r10"] == pytest.approx(100 * 10 / 40)
    assert metrics["i2t/R@1"] == pytest.approx(100 / 40)
    assert metrics["meanr"] == pytest.approx(20.5)


def test_the_best_of_several_captions_counts():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.4]])  # texts 0 and 1 describe picture 0
    metrics = itm_eval(scores, [0, 0, 1])
    assert metrics["txt_r1"] == 0.5  # picture 0 finds text 1; picture 1 finds text 0 of another
    assert metrics["img_r1"] == pytest.approx(2 / 3)
    assert itm_eval(torch.tensor(scores), {0: 0, 1: 0, 2: 1}) == metrics


def test_a_picture_without_texts_is_a_distractor_only():
    scores = np.array([[0.5, 0.4, 0.9]])
    by_text, by_image = blockwise_ranks(np.eye(3), scores, [0])
    assert by_text.tolist() == [1]
    assert by_image.tolist() == [0, -1, -1]
    assert metrics_of_ranks(by_text, by_image)["i2t/R@1"] == 100


def test_median_rank_is_rounded_down_as_released():
    metrics = metrics_of_ranks(np.array([0, 1, 2, 9]), np.array([0]))
    assert metrics["mder"] == metrics["medr"] == metrics["t2i/medr"] == 2


def test_texts_are_grouped_by_picture():
    assert group_texts([2, 0, 2], 3).tolist() == [[1, -1], [-1, -1], [0, 2]]


def test_metrics_are_written_and_printed(tmp_path, capsys):
    evaler = RetrievalEvaler(None, "", str(tmp_path))
    evaler.result_prefix = "val_"
    metrics = evaler.eval(torch.eye(3), torch.eye(3), torch.arange(3), 4)
    assert json.loads((tmp_path / "results" / "val_4.json").read_text()) == metrics
    assert "t2i/R@1: 100.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "texts", "index", "words"),
    [
        (np.ones((2, 3)), np.ones((4, 5)), [0, 0, 1, 1], "one length"),
        (np.ones((2, 3)), np.ones((4, 3)), [0, 0, 1], "shape"),
        (np.ones((2, 3)), np.ones((2, 3)), [0, 2], "there are 2 pictures"),
        (np.ones((2, 3)), np.ones((2, 3)), [0.0, 1.0], "an integer"),
        (np.ones((2, 3)), np.full((2, 3), np.nan), [0, 1], "vector 0 of the texts is not finite"),
        (np.ones((0, 3)), np.ones((2, 3)), [0, 1], "at least one"),
    ],
)
def test_what_does_not_fit_is_named(images, texts, index, words):
    with pytest.raises(UserError, match=words):
        blockwise_ranks(images, texts, index)


def test_scores_without_order_are_refused():
    with pytest.raises(UserError, match="NaN"):
        rank_scores(np.array([[np.nan, 1.0]]), [0])
    with pytest.raises(UserError, match="at least one"):
        rank_scores([], [])
