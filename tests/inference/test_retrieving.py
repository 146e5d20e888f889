"""Pictures by texts and texts by pictures, with vectors and with pairs, and with an index."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import kfg
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference import PairRetriever, VectorRetriever, load
from xmodaler.utils.errors import UserError

TEXTS = [
    "a red ball",
    "the blue cube lies on grass",
    "a cube?",
    "who smiles.",
    "2 balls on the ball",
]


def regions(count, seed):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 40, (count, 2))
    return {
        "features": random.normal(size=(count, 6)).astype(np.float32),
        "boxes": np.concatenate([corners, corners + 10], axis=1).astype(np.float32),
        "image_w": np.array([64]),
        "image_h": np.array([64]),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    for number in range(7):
        np.savez(folder / f"{number}.npz", **regions(2 + number % 4, number))
    return folder


@pytest.fixture(params=["tden", "uniter", "vilbert"], scope="module")
def retriever(request, understanding_run):
    return load(understanding_run("retrieval", request.param), device="cpu")


def paths(files):
    return [str(path) for path in sorted(files.iterdir())]


def score_of(retriever, text, path):
    """The score of one pair, from a batch of this pair alone."""
    sample = next(retriever.read(path))
    ids, types = retriever._read_texts([text])
    sample |= {kfg.U_TOKENS_IDS: ids[0], kfg.U_TOKENS_TYPE: types[0]}
    with torch.no_grad():
        output = retriever.model(retriever.model.preprocess_batch([sample]))[kfg.OUTPUT]
    if isinstance(output, list | tuple):
        return float(output[0][0] @ output[1][0])
    return float(output.flatten()[0])


def test_kinds(understanding_run):
    two_streams = load(understanding_run("retrieval", "tden"), device="cpu")
    assert isinstance(two_streams, VectorRetriever)
    assert isinstance(load(understanding_run("retrieval"), device="cpu"), PairRetriever)


def test_pictures_for_a_text_are_sorted_by_the_score_of_the_pair(retriever, files):
    ranking = retriever.retrieve(TEXTS[1], files, batch_size=3)
    assert ranking.query == TEXTS[1]
    expected = {path: score_of(retriever, TEXTS[1], path) for path in paths(files)}
    found = {hit.id: hit.score for hit in ranking}
    assert found == pytest.approx(expected, abs=1e-4)
    scores = [hit.score for hit in ranking]
    assert scores == sorted(scores, reverse=True)
    assert [hit.id for hit in retriever.retrieve(TEXTS[1], files, top_k=2)] == [
        hit.id for hit in ranking[:2]
    ]


def test_texts_for_a_picture(retriever, files):
    path = paths(files)[3]
    ranking = retriever.retrieve(path, TEXTS, batch_size=2)
    assert ranking.query == path
    found = {hit.id: hit.score for hit in ranking}
    assert found == pytest.approx({t: score_of(retriever, t, path) for t in TEXTS}, abs=1e-4)
    assert json.loads(json.dumps(ranking.as_dict()))["hits"][0]["id"] == ranking[0].id


def test_many_queries_at_once(retriever, files):
    by_text = retriever.retrieve(TEXTS, files, batch_size=4)
    assert [ranking.query for ranking in by_text] == TEXTS
    by_picture = retriever.retrieve(files, TEXTS, batch_size=4)
    assert [ranking.query for ranking in by_picture] == paths(files)
    scores = {(r.query, hit.id): hit.score for r in by_text for hit in r}
    turned = {(hit.id, r.query): hit.score for r in by_picture for hit in r}
    assert scores == pytest.approx(turned, abs=1e-4)


def test_the_same_picture_twice_keeps_its_order(retriever, files):
    first = paths(files)[0]
    copies = [dict(np.load(first)) for _ in range(3)]
    ranking = retriever.retrieve("a cube", copies, batch_size=1)
    assert [hit.id for hit in ranking] == ["0", "1", "2"]


@pytest.mark.parametrize("family", ["tden", "uniter"])
def test_raw_pictures(understanding_run, family, tmp_path):
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    retriever = load(understanding_run("retrieval", family, pixels=True), device="cpu")
    assert len(retriever.retrieve("a red ball", tmp_path)) == 3
    picture = Image.open(tmp_path / "1.png")
    by_picture = retriever.retrieve(picture, TEXTS)
    by_path = retriever.retrieve(str(tmp_path / "1.png"), TEXTS)
    assert [hit.id for hit in by_picture] == [hit.id for hit in by_path]


def test_an_index_is_searched_saved_and_extended(understanding_run, files, tmp_path):
    retriever = load(understanding_run("retrieval", "tden"), device="cpu")
    index = retriever.index(paths(files)[:4])
    retriever.index(paths(files)[2:], into=index)
    assert index.names == paths(files)
    expected = retriever.retrieve(TEXTS, files, top_k=3)
    index.save(tmp_path / "pictures.index")
    found = retriever.retrieve(TEXTS, VectorIndex.load(tmp_path / "pictures.index"), top_k=3)
    assert [[hit.id for hit in r] for r in found] == [[hit.id for hit in r] for r in expected]
    texts = retriever.index(texts=TEXTS)
    by_index = retriever.retrieve(paths(files)[0], texts)
    assert [h.id for h in by_index] == [h.id for h in retriever.retrieve(paths(files)[0], TEXTS)]


def test_unreadable_pictures_can_be_left_out(retriever, files, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    sources = [paths(files)[0], str(tmp_path / "bad.npz"), paths(files)[1]]
    assert len(retriever.retrieve("a ball", sources, on_error="skip")) == 2
    rankings = retriever.retrieve(sources, TEXTS, on_error="skip")
    assert [ranking.query for ranking in rankings] == sources[::2]
    with pytest.raises(UserError, match=r"bad\.npz"):
        retriever.retrieve("a ball", sources)


def test_what_cannot_be_ranked_is_named(retriever, files, tmp_path):
    for query, candidates, words in (
        ("", files, "the query is empty"),
        ([], files, "there is no query"),
        ("a ball", [], "there is no picture to rank"),
        (paths(files)[0], [], "there is no candidate text"),
        (paths(files)[0], ["a ball", " "], "candidate text 1 is empty"),
        ("a ball", str(tmp_path / "gone.npz"), "does not exist"),
        (str(tmp_path / "gone.npz"), TEXTS, "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            retriever.retrieve(query, candidates)
    with pytest.raises(UserError, match="top_k is 0"):
        retriever.retrieve("a ball", files, top_k=0)
    with pytest.raises(UserError, match="by is 'sound'"):
        retriever.retrieve("a ball", files, by="sound")


def test_a_text_that_looks_like_a_file_can_be_called_a_text(retriever, files):
    with pytest.raises(UserError):
        retriever.retrieve("ball.png", TEXTS)
    assert retriever.retrieve("ball.png", files, by="text").query == "ball.png"


def test_models_of_pairs_search_no_index(understanding_run):
    retriever = load(understanding_run("retrieval"), device="cpu")
    with pytest.raises(UserError, match="scores pairs and has no vectors"):
        retriever.retrieve("a ball", VectorIndex(4))
