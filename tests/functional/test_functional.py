"""The pure functions on features, captions, files and trees."""

import random
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xmodaler import functional as F
from xmodaler.utils.errors import UserError

# -- features ---------------------------------------------------------------------------------


def test_locations_are_relative_corners_and_area():
    locations = F.boxes_to_locfeats(np.array([[10, 20, 60, 100]]), image_w=100, image_h=200)
    assert locations.dtype == np.float32
    np.testing.assert_allclose(locations, [[0.1, 0.1, 0.6, 0.5, 80 * 50 / 20000]])


def test_iou_counts_the_last_pixel():
    anchors = np.array([[0, 0, 9, 9], [0, 0, 4, 9], [20, 20, 29, 29]])
    overlaps = F.iou(anchors, anchors[:2])
    np.testing.assert_allclose(overlaps, [[1, 0.5], [0.5, 1], [0, 0]])
    # Boxes that share one column of pixels overlap.
    np.testing.assert_allclose(F.iou([[0, 0, 4, 9]], [[4, 0, 8, 9]]), [[10 / 90]], rtol=1e-6)


def test_padding_and_masks():
    padded, mask = F.pad_tensor([torch.ones(3, 2), torch.ones(1, 2)], 0, use_mask=True)
    assert padded.shape == (2, 3, 2) and padded[1, 1:].abs().sum() == 0
    assert mask.dtype == torch.float32 and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    nested = [[torch.tensor([1, 2]), torch.tensor([3])], [torch.tensor([0])]]
    assert F.pad_tensor(nested, -1, use_mask=False).tolist() == [[1, 2], [3, -1], [0, -1]]


def test_the_mask_speaks_of_lengths_not_of_values():
    _, mask = F.pad_tensor([torch.tensor([5, 0, 0]), torch.tensor([5, 6, 7])], 0, use_mask=True)
    assert mask.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_sample_becomes_tensors_in_place():
    sample = {"id": "42", "n": 3, "ids": np.array([1, 2], dtype=np.uint32), "rows": [[1], [2.5]]}
    sample["names"] = ["a", "b"]
    assert F.dict_as_tensor(sample) is sample
    assert sample["id"] == "42" and sample["names"] == ["a", "b"]
    assert sample["n"].dim() == 0 and sample["ids"].tolist() == [1, 2]
    assert not sample["ids"].dtype.is_floating_point
    assert [row.tolist() for row in sample["rows"]] == [[1], [2.5]]


def test_a_batch_moves_to_a_device_in_place():
    batch = {"x": torch.ones(2), "rows": [torch.ones(1)], "ids": ["a"], "n": 3}
    assert F.dict_to_device(batch, "meta") is batch
    assert batch["x"].is_meta and batch["rows"][0].is_meta
    assert batch["ids"] == ["a"] and batch["n"] == 3
    batch = {"x": torch.ones(2)}
    assert F.dict_to_cuda(batch)["x"].device.type in ("cpu", "cuda", "mps")


def test_rows_are_repeated_or_tiled():
    rows = torch.tensor([[1, 2], [3, 4]])
    assert F.expand_tensor(rows, 2).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert F.expand_tensor(rows, 2, dim=0).tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
    assert F.expand_tensor(rows, 1) is rows and F.expand_tensor(rows, None) is rows
    assert F.expand_tensor(torch.arange(2), 3).tolist() == [0, 0, 0, 1, 1, 1]


def test_inputs_are_cut_to_the_longest():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    feats, spatials, cut = F.clip_v_inputs(torch.ones(2, 4, 3), torch.ones(2, 4, 5), mask)
    assert (feats.shape, spatials.shape, cut.shape) == ((2, 2, 3), (2, 2, 5), (2, 2))
    text = F.clip_t_inputs(torch.ones(2, 4), torch.ones(2, 4), mask.bool())
    assert [tensor.shape for tensor in text] == [(2, 2)] * 3


def test_random_regions_hide_what_overlaps():
    random.seed(0)
    count = 2000
    feats = np.ones((count, 2), dtype=np.float32)
    overlaps = np.eye(count)
    overlaps[np.arange(count - 1), np.arange(1, count)] = 0.5
    masked, labels, zeroed = F.random_region(feats, overlaps)
    chosen = np.array(labels) == 1
    assert masked is feats and set(labels) == {1, -1}
    assert 0.12 < chosen.mean() < 0.18
    hidden = (feats == 0).all(axis=1)
    assert hidden.sum() == zeroed
    # The neighbour of a chosen region overlaps it by 0.5 and is hidden with it.
    assert hidden[1:][chosen[:-1]].all()
    assert not hidden[~chosen & ~np.roll(chosen, 1)].any()


def test_one_region_is_hidden_if_one_must():
    random.seed(0)
    np.random.seed(0)
    overlaps = np.eye(3) + 0.5 * np.eye(3)[[1, 2, 0]]
    for _ in range(50):
        feats, labels, zeroed = F.random_region(np.ones((3, 2)), overlaps, must_mask=True)
        assert 1 in labels and zeroed >= 2
        assert (feats[np.array(labels) == 1] == 0).all()
    assert F.random_region(np.ones((0, 2)), np.eye(0), must_mask=True)[1] == []


def test_flattening():
    assert F.flat_list_of_lists([[1, 2], [], (3,)]) == [1, 2, 3]


# -- captions ---------------------------------------------------------------------------------


class Tokenizer:
    """The few members of a BERT tokenizer that the functions use."""

    def __init__(self):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s"]
        self.vocab = {word: index for index, word in enumerate(words)}
        self.ids_to_tokens = {index: word for word, index in self.vocab.items()}

        self.mask_token = "[MASK]"

    def __len__(self):
        return len(self.vocab)

    def encode(self, text):
        return [self.vocab.get(word, 1) for word in text.split()]

    def add_special_tokens_single_sentence(self, ids):
        return [2, *ids, 3]

    def convert_tokens_to_ids(self, token):
        return self.vocab[token]

    def convert_tokens_to_string(self, tokens):
        return " ".join(tokens).replace(" ##", "")


def test_sentences_end_at_zero():
    vocab = [".", "a", "dog"]
    ids = torch.tensor([[1, 2, 0, 2], [0, 1, 1, 1], [2, 2, 2, 2]])
    assert F.decode_sequence(vocab, ids) == ["a dog", "", "dog dog dog dog"]


def test_word_pieces_are_joined_up_to_the_separator():
    ids = np.array([[5, 6, 7, 8, 3, 6], [3, 5, 5, 5, 5, 5]])
    assert F.decode_sequence_bert(Tokenizer(), ids, 3) == ["a dog runs", ""]
    assert F.decode_sequence_bert(Tokenizer(), np.array([[5, 6]]), 3) == ["a dog"]


def test_words_are_hidden_as_in_bert():
    random.seed(0)
    np.random.seed(0)
    tokens, labels = F.random_word([6] * 20_000, Tokenizer())
    tokens, labels = np.array(tokens), np.array(labels)
    chosen = labels != -1
    assert 0.14 < chosen.mean() < 0.16
    assert set(labels[chosen]) == {6} and (tokens[~chosen] == 6).all()
    # 80 % hidden and a ninth of the 10 % drawn at random.
    assert 0.79 < np.mean(tokens[chosen] == 4) < 0.84
    assert set(tokens[chosen]) == set(range(9))


@given(st.integers(0, 1000), st.integers(1, 4))
def test_one_word_is_hidden_if_one_must(seed, length):
    random.seed(seed)
    _, labels = F.random_word([6] * length, Tokenizer(), must_mask=True)
    assert any(label != -1 for label in labels)
    assert F.random_word([], Tokenizer(), must_mask=True) == ([], [])


def test_a_caption_becomes_inputs_and_targets():
    random.seed(1)
    tokenizer = Tokenizer()
    masked, labels, following, whole = F.caption_to_mask_tokens(
        " a dog runs dog a ", 6, tokenizer, need_g_tokens=True, need_no_mask_tokens=True
    )
    assert whole.tolist() == [2, 5, 6, 1, 6, 3]
    assert following.tolist() == [5, 6, 1, 6, 3, -1]
    assert len(masked) == len(labels) == 6 and labels[0] == labels[-1] == -1
    assert masked[0] == 2 and masked[-1] == 3
    kept = labels[1:-1] == -1
    assert (masked[1:-1][kept] == whole[1:-1][kept]).all()
    assert len(F.caption_to_mask_tokens("", 6, tokenizer, must_mask=True)) == 2


# -- files ------------------------------------------------------------------------------------


def test_lines_and_vocabularies(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("a \nhünd\r\n a\n", encoding="utf-8")
    assert F.read_lines(tmp_path / "words.txt") == ["a", "hünd", "a"]
    assert F.read_lines_set(str(tmp_path / "words.txt")) == {"a", "hünd"}
    monkeypatch.setenv("WORDS", str(tmp_path))
    assert F.load_vocab("$WORDS/words.txt") == [".", "a", "hünd", "a"]
    assert F.load_vocab("") is None
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    for name, text in {"nope.txt": "does not exist", "binary.txt": "not UTF-8"}.items():
        with pytest.raises(UserError, match=text) as caught:
            F.load_vocab(tmp_path / name)
        assert name in str(caught.value)


def test_feature_files(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "one.npz", feat=array)
    np.savez(tmp_path / "two.npz", features=array, g_feature=array[0])
    np.testing.assert_array_equal(F.read_np(tmp_path / "a.npy")["features"], array)
    np.testing.assert_array_equal(F.read_np(tmp_path / "one.npz")["features"], array)
    assert set(F.read_np(str(tmp_path / "two.npz"))) == {"features", "g_feature"}


def test_damaged_feature_files_are_named(tmp_path):
    array = np.zeros((100, 10))
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[: len(content) // 2])
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("cut_a.npy", "cut_a.npz", "object.npy", "empty.npz", "missing.npz"):
        with pytest.raises(UserError) as caught:
            F.read_np(tmp_path / name)
        assert name in str(caught.value)


def test_regions_with_the_mean_in_front(tmp_path):
    features = np.array([[1.0, 1.0], [3.0, 3.0], [8.0, 8.0]])
    boxes = np.array([[0, 0, 50, 50], [50, 50, 100, 100], [0, 0, 100, 100]])
    np.savez(tmp_path / "a.npz", features=features, boxes=boxes, image_w=[100], image_h=100)
    feats, locations = F.read_np_bbox(tmp_path / "a.npz", 3)
    np.testing.assert_allclose(feats, [[2, 2], [1, 1], [3, 3]])
    np.testing.assert_allclose(locations[0], [0, 0, 1, 1, 1])
    np.testing.assert_allclose(locations[2], [0.5, 0.5, 1, 1, 0.25])
    assert feats.dtype == locations.dtype == np.float32
    assert F.read_np_bbox(tmp_path / "a.npz", -1)[0].shape == (4, 2)
    assert F.read_np_bbox(tmp_path / "a.npz", 3, use_global_v=False)[0].shape == (2, 2)
    np.savez(tmp_path / "b.npz", features=features, boxes=boxes)
    with pytest.raises(UserError, match=r"b\.npz' lacks image_w, image_h"):
        F.read_np_bbox(tmp_path / "b.npz", 3)


# -- trees ------------------------------------------------------------------------------------

State = namedtuple("State", "hidden cell")


def tree():
    return {
        "rows": [torch.arange(3), (torch.arange(6).reshape(3, 2), None)],
        "state": State(torch.arange(3), torch.tensor(5)),
        "ordered": OrderedDict(a=torch.arange(3)),
        "time": 4,
    }


def test_trees_are_reordered_and_may_grow():
    given_tree = tree()
    result = F.reorder(given_tree, torch.tensor([2, 2, 0, 1]))
    assert result["rows"][0].tolist() == [2, 2, 0, 1]
    assert result["rows"][1][0].tolist() == [[4, 5], [4, 5], [0, 1], [2, 3]]
    assert result["rows"][1][1] is None and result["time"] == 4
    assert isinstance(result["state"], State) and result["state"].cell.item() == 5
    assert isinstance(result["ordered"], OrderedDict)
    assert given_tree["rows"][0].tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.lists(st.integers(0, 7), min_size=1))
def test_reordering_twice_is_reordering_by_the_composition(first, second):
    second = [index % len(first) for index in second]
    twice = F.reorder(F.reorder(tree(), torch.tensor(first)), torch.tensor(second))
    once = F.reorder(tree(), torch.tensor([first[index] for index in second]))
    assert twice["rows"][0].tolist() == once["rows"][0].tolist()
    assert twice["rows"][1][0].tolist() == once["rows"][1][0].tolist()


def test_reordering_lets_gradients_through():
    leaf = torch.ones(2, requires_grad=True)
    F.reorder({"x": leaf}, torch.tensor([1, 1, 0]))["x"].sum().backward()
    assert leaf.grad.tolist() == [1, 2]


def test_trees_are_mapped_and_moved():
    doubled = F.map_tensors(lambda tensor: tensor * 2, tree())
    assert doubled["rows"][0].tolist() == [0, 2, 4] and doubled["time"] == 4
    assert F.to_device(tree(), "meta")["rows"][1][0].is_meta
