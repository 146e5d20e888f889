"""Encoding of captions, the choice of captions, vocabularies."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodaler.config import kfg
from xmodaler.datasets.captions import (
    caption_sample,
    choose_captions,
    encode_caption,
    words_to_ids,
)
from xmodaler.datasets.vocabulary import build_vocabulary, read_word_ids, write_vocabulary
from xmodaler.utils.errors import UserError


def test_a_short_caption_has_an_end():
    tokens, targets = encode_caption([5, 6, 7], 6)
    assert tokens.tolist() == [0, 5, 6, 7, 0, 0]
    assert targets.tolist() == [5, 6, 7, 0, -1, -1]


@pytest.mark.parametrize("count", [19, 20, 21, 10_000])
def test_a_long_caption_keeps_its_first_words(count):
    words = list(range(1, count + 1))
    tokens, targets = encode_caption(words, 20)
    assert tokens.tolist() == [0, *words[:19]]
    assert targets.tolist() == (words[:20] if count >= 20 else [*words, 0])


@given(st.lists(st.integers(1, 10**6), max_size=40), st.integers(1, 25))
def test_encoding_is_a_shift_that_loses_nothing_it_could_keep(words, length):
    tokens, targets = encode_caption(words, length)
    assert tokens.shape == targets.shape == (length,) and tokens[0] == 0
    real = targets[targets >= 0]
    assert real.tolist() == [*words, 0][:length]
    assert (targets[len(real) :] == -1).all()
    predicted = real[: length - 1]
    assert tokens[1 : len(predicted) + 1].tolist() == predicted.tolist()


def test_unknown_words():
    assert words_to_ids(["a", "zebra", "b"], {"a": 1, "b": 2, "UNK": 3}) == [1, 3, 2]
    assert words_to_ids(["a", "zebra", "b"], {"a": 1, "b": 2}) == [1, 2]


@given(st.integers(1, 12), st.integers(1, 12))
def test_every_caption_is_chosen_before_one_comes_twice(available, wanted):
    chosen = choose_captions(available, wanted)
    assert len(chosen) == wanted and set(chosen) <= set(range(available))
    assert len(set(chosen)) >= min(available, wanted)
    if available < wanted:
        assert chosen[wanted - available :] == list(range(available))


def test_choice_follows_the_seed():
    random.seed(0)
    first = [choose_captions(5, 3) for _ in range(5)]
    random.seed(0)
    assert [choose_captions(5, 3) for _ in range(5)] == first
    assert len(set(map(tuple, first))) > 1


def test_tokens_and_targets_stay_together():
    tokens = np.arange(8, dtype=np.uint32).reshape(4, 2)
    sample = caption_sample(tokens, tokens.astype(np.int32) + 100, 6)
    assert sample[kfg.SEQ_PER_SAMPLE] == len(sample[kfg.G_TOKENS_TYPE]) == 6
    for row, target in zip(sample[kfg.G_TOKENS_IDS], sample[kfg.G_TARGET_IDS], strict=True):
        assert row.dtype == target.dtype == np.int64 and (target == row + 100).all()


SENTENCES = [["b", "a", "a"], ["c", "a", "b"], ["d"]]


def test_vocabulary_orders_and_the_unknown_word():
    assert build_vocabulary(SENTENCES, 2) == ["b", "a", "UNK"]
    assert build_vocabulary(SENTENCES, 2, order="frequency") == ["a", "b", "UNK"]
    assert build_vocabulary(SENTENCES, 2, unknown="") == ["b", "a"]
    assert build_vocabulary(SENTENCES, 1) == ["b", "a", "c", "d"]
    assert build_vocabulary(SENTENCES, 2, max_len=2) == ["a", "UNK"]


def test_vocabulary_of_nothing():
    with pytest.raises(UserError, match="no word occurs 9 times in the 7 words"):
        build_vocabulary(SENTENCES, 9)
    with pytest.raises(UserError, match="'first' or 'frequency'"):
        build_vocabulary(SENTENCES, 1, order="last")


def test_vocabulary_round_trip(tmp_path):
    words = ["naïve", "猫", "🙂", "قطة"]
    write_vocabulary(tmp_path / "v.txt", words)
    assert read_word_ids(tmp_path / "v.txt") == {word: k + 1 for k, word in enumerate(words)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n\nb\n", "line 2 .* is empty"),
        (b"a\nb\na\n", "line 3 .* repeats 'a' of line 1"),
        (b"", "line 1 .* is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (None, r"cannot be read \(No such file or directory\); INFERENCE.VOCAB"),
    ],
)
def test_bad_vocabulary_files(tmp_path, content, words):
    path = tmp_path / "v.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_word_ids(path)
