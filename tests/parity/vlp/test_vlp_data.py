"""Tokenizer, masking, boxes and data sets of understanding against the reference's."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xmodaler import functional
from xmodaler.tokenization import BertTokenizer


@pytest.fixture(scope="module")
def tokenizer(vlp_shared):
    return BertTokenizer.from_pretrained(vlp_shared / "datasets" / "vocab.txt", do_lower_case=True)


class Script:
    """Random numbers given beforehand, in the order in which they are asked for."""

    def __init__(self, monkeypatch, uniform, integers):
        self.uniform, self.integers = list(uniform), list(integers)
        monkeypatch.setattr(random, "random", lambda: self.uniform.pop(0))
        monkeypatch.setattr(np.random, "randint", lambda *_, **__: self.integers.pop(0))

    def used_up(self):
        return not self.uniform and not self.integers


def test_texts_become_the_same_pieces_and_ids(vlp_shared, tokenizer):
    cases = json.loads((vlp_shared / "tokenizer" / "cases.json").read_text())
    for case in cases["cases"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.add_special_tokens_single_sentence(case["ids"]) == case["single"]
    ids = np.array(cases["decode"]["ids"])
    sentences = functional.decode_sequence_bert(tokenizer, ids, tokenizer.sep_token_id)
    assert sentences == cases["decode"]["sentences"]


def _scripted(vlp_shared, name):
    return json.loads((vlp_shared / "masking" / "scripted.json").read_text())[name]


def test_words_are_hidden_by_the_same_draws(vlp_shared, tokenizer, monkeypatch):
    for case in _scripted(vlp_shared, "random_word"):
        script = Script(monkeypatch, case["random"], case["randint"])
        tokens, labels = functional.random_word(case["tokens"], tokenizer, case["must_mask"])
        assert (tokens, labels) == (case["out_tokens"], case["labels"])
        assert script.used_up()


def test_captions_are_hidden_by_the_same_draws(vlp_shared, tokenizer, monkeypatch):
    for case in _scripted(vlp_shared, "caption_to_mask_tokens"):
        script = Script(monkeypatch, case["random"], case["randint"])
        returned = functional.caption_to_mask_tokens(
            case["caption"],
            case["max_seq_length"],
            tokenizer,
            need_g_tokens=case["need_g_tokens"],
            need_no_mask_tokens=case["need_no_mask_tokens"],
            must_mask=case["must_mask"],
        )
        assert [array.tolist() for array in returned] == case["returned"]
        assert script.used_up()


def test_regions_are_hidden_by_the_same_draws(vlp_shared, monkeypatch):
    for case in _scripted(vlp_shared, "random_region"):
        script = Script(monkeypatch, case["random"], [])
        boxes = np.array(case["boxes"], dtype=np.float32)
        features = np.array(case["features"], dtype=np.float32)
        hidden, labels, count = functional.random_region(features, functional.iou(boxes, boxes))
        np.testing.assert_array_equal(hidden, np.array(case["out_features"], dtype=np.float32))
        assert list(labels) == case["labels"] and count == case["masked_num"]
        assert script.used_up()


def _close_to_count(count, total, expected_share):
    """Within five standard deviations of a binomial count."""
    spread = 5 * (expected_share * (1 - expected_share) / total) ** 0.5
    return abs(count / total - expected_share) < spread + 1e-9


def test_statistics_of_hiding(vlp_shared, tokenizer):
    counts = json.loads((vlp_shared / "masking" / "meta.json").read_text())
    words = counts["random_word_counts"]
    random.seed(3)
    np.random.seed(3)
    total = 60_000
    given = [7 + index % 100 for index in range(total)]
    tokens, labels = functional.random_word(list(given), tokenizer)
    chosen = [k for k, label in enumerate(labels) if label != -1]
    hidden = sum(tokens[k] == tokenizer.mask_token_id for k in chosen)
    same = sum(tokens[k] == given[k] for k in chosen)
    assert _close_to_count(len(chosen), total, words["selected"] / words["tokens"])
    assert _close_to_count(hidden, len(chosen), words["mask"] / words["selected"])
    assert _close_to_count(same, len(chosen), words["same"] / words["selected"])
    low, high = counts["random_replacement_id_range_seen"]
    assert {min(tokens), max(tokens)} == {low, high}

    regions = counts["random_region_counts"]
    chosen = kept = 0
    for _ in range(2000):
        features = np.ones((8, 2), dtype=np.float32)
        features, labels, _ = functional.random_region(features, np.eye(8))
        chosen += labels.count(1)
        kept += sum(label == 1 and row.any() for label, row in zip(labels, features, strict=True))
    assert _close_to_count(chosen, 16_000, regions["selected"] / regions["regions"])
    assert kept == regions["selected_not_zeroed"] == 0


def test_boxes(vlp_shared):
    folder = vlp_shared / "boxes"
    given = load_file(str(folder / "inputs.safetensors"))
    expected = load_file(str(folder / "expected.safetensors"))
    anchors, boxes = given["anchors"].numpy(), given["gt"].numpy()
    _assert_close(functional.iou(anchors, boxes), expected["iou_anchors_gt"])
    _assert_close(functional.iou(anchors, anchors), expected["iou_self"])
    locations = functional.boxes_to_locfeats(anchors, int(given["image_w"]), int(given["image_h"]))
    _assert_close(locations, expected["locfeats"])
    readings = sorted({key.rsplit("/", 1)[0] for key in expected if key.startswith("read_np_bbox")})
    assert readings
    for reading in readings:
        _, most, mean = reading.split("/")
        features, locations = functional.read_np_bbox(
            folder / "sample.npz", int(most.removeprefix("max")), mean == "global1"
        )
        _assert_close(features, expected[f"{reading}/features"])
        _assert_close(locations, expected[f"{reading}/loc"])


def _assert_close(found, expected):
    expected = expected.float() if expected.is_floating_point() else expected
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=1e-5, rtol=1e-5)
