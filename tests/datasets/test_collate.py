"""Collation: padding, masks, flattening of captions, and what does not fit together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.config import kfg
from xmodaler.datasets.bad_samples import BAD_KEY
from xmodaler.datasets.collate import PADDINGS, Padding, collate, pad_tensors
from xmodaler.utils.errors import UserError


def sample(image_id: str, regions: int, lengths: list[int], width: int = 3) -> dict:
    return {
        kfg.IDS: image_id,
        kfg.ATT_FEATS: torch.full((regions, width), float(image_id)),
        kfg.SEQ_PER_SAMPLE: torch.tensor(len(lengths)),
        kfg.G_TOKENS_IDS: [torch.arange(1, n + 1) for n in lengths],
        kfg.G_TARGET_IDS: [torch.arange(1, n + 1) for n in lengths],
        kfg.G_TOKENS_TYPE: [torch.ones(n, dtype=torch.long) for n in lengths],
    }


def test_visual_rows_stay_per_image_and_captions_are_flattened():
    batch = collate([sample("1", 2, [3, 1]), sample("2", 4, [2, 2])])
    assert batch[kfg.IDS] == ["1", "2"]
    assert batch[kfg.SEQ_PER_SAMPLE] == 2 and type(batch[kfg.SEQ_PER_SAMPLE]) is int
    assert batch[kfg.ATT_FEATS].shape == (2, 4, 3)
    assert batch[kfg.ATT_MASKS].dtype == torch.bool
    assert batch[kfg.ATT_MASKS].tolist() == [[True, True, False, False], [True] * 4]
    assert batch[kfg.ATT_FEATS][0, 2:].eq(0).all()
    assert batch[kfg.G_TOKENS_IDS].tolist() == [[1, 2, 3], [1, 0, 0], [1, 2, 0], [1, 2, 0]]
    assert batch[kfg.G_TARGET_IDS][1].tolist() == [1, -1, -1]
    assert batch[kfg.G_TOKENS_TYPE].eq(1).all()
    assert batch[kfg.TOKENS_MASKS].sum(1).tolist() == [3, 1, 2, 2]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=2, max_size=2)),
        min_size=1,
        max_size=5,
    )
)
def test_nothing_is_lost_or_invented(shapes):
    samples = [sample(str(k + 1), n, lengths) for k, (n, lengths) in enumerate(shapes)]
    batch = collate(samples)
    for k, (regions, _) in enumerate(shapes):
        mask = batch[kfg.ATT_MASKS][k]
        assert mask.sum() == regions
        assert torch.equal(batch[kfg.ATT_FEATS][k][mask], samples[k][kfg.ATT_FEATS])
    rows = [caption for s in samples for caption in s[kfg.G_TOKENS_IDS]]
    assert len(batch[kfg.G_TOKENS_IDS]) == len(rows) == 2 * len(samples)
    for row, mask, caption in zip(
        batch[kfg.G_TOKENS_IDS], batch[kfg.TOKENS_MASKS], rows, strict=True
    ):
        assert torch.equal(row[mask], caption) and row[~mask].eq(0).all()


def test_padding_fills_every_dimension():
    padded = pad_tensors([torch.ones(1, 2), torch.ones(3, 1)], -1)
    assert padded.shape == (2, 3, 2)
    assert padded[0].tolist() == [[1, 1], [-1, -1], [-1, -1]]


def test_relations_are_padded_square():
    samples = [{kfg.RELATION: torch.ones(n, n, dtype=torch.long)} for n in (2, 3)]
    batch = collate(samples)
    assert batch[kfg.RELATION].shape == (2, 3, 3) and batch[kfg.RELATION].dtype == torch.long
    assert batch[kfg.RELATION][0].sum() == 4


def test_global_vectors_lose_their_leading_one():
    batch = collate([{kfg.GLOBAL_FEATS: torch.ones(1, 4)}, {kfg.GLOBAL_FEATS: torch.ones(4)}])
    assert batch[kfg.GLOBAL_FEATS].shape == (2, 4)


def test_pictures_and_custom_keys():
    samples = [
        {
            kfg.IMAGES: torch.zeros(3, 4, 4, dtype=torch.uint8),
            "SAME": np.ones(2, dtype=np.float32),
            "DIFFERENT": torch.ones(n),
            "TEXT": "a",
            "NUMBER": n,
        }
        for n in (1, 2)
    ]
    batch = collate(samples)
    assert batch[kfg.IMAGES].shape == (2, 3, 4, 4) and batch[kfg.IMAGES].dtype == torch.uint8
    assert batch["SAME"].shape == (2, 2)
    assert [len(t) for t in batch["DIFFERENT"]] == [1, 2]
    assert batch["TEXT"] == ["a", "a"] and batch["NUMBER"].tolist() == [1, 2]


def test_a_project_adds_a_line_to_the_table(monkeypatch):
    monkeypatch.setitem(PADDINGS, "MINE", Padding(7, mask="MINE_MASK"))
    batch = collate([{"MINE": torch.ones(1)}, {"MINE": torch.ones(2)}])
    assert batch["MINE"].tolist() == [[1, 7], [1, 1]]
    assert batch["MINE_MASK"].tolist() == [[True, False], [True, True]]


def test_mask_of_generated_text_wins_whatever_the_order():
    text = {kfg.G_TOKENS_IDS: torch.ones(2, dtype=torch.long)}
    understood = {kfg.U_TOKENS_IDS: torch.ones(5, dtype=torch.long)}
    for order in ({**text, **understood}, {**understood, **text}):
        assert collate([order])[kfg.TOKENS_MASKS].shape == (1, 2)


def test_unsigned_ids_and_numeric_image_ids():
    batch = collate([{kfg.IDS: torch.tensor(7), kfg.G_TOKENS_IDS: np.ones(2, dtype=np.uint32)}])
    assert batch[kfg.IDS] == ["7"] and batch[kfg.G_TOKENS_IDS].dtype == torch.long


def test_input_is_not_changed():
    one = sample("1", 2, [3])
    before = dict(one)
    collate([{**one, BAD_KEY: ["x: y"]}])
    assert set(one) == set(before) and one[kfg.ATT_FEATS].shape == (2, 3)


def test_notes_travel_and_empty_places_vanish():
    batch = collate([sample("1", 2, [3]), {BAD_KEY: ["image '9': broken"]}])
    assert batch[kfg.IDS] == ["1"] and batch[BAD_KEY] == ["image '9': broken"]
    assert collate([{BAD_KEY: ["x"]}]) == {BAD_KEY: ["x"]}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (sample("2", 2, [3], width=4), r"ATT_FEATS .*'1', '2'.*\(2, 3\), \(2, 4\)"),
        (sample("2", 2, [3, 3]), "SEQ_PER_SAMPLE differs"),
        ({kfg.IDS: "2"}, "ATT_FEATS is missing from sample '2'"),
    ],
)
def test_samples_that_do_not_fit(second, words):
    with pytest.raises(UserError, match=words):
        collate([sample("1", 2, [3]), second])


def test_pictures_of_two_sizes_are_named():
    samples = [{kfg.IDS: str(n), kfg.IMAGES: torch.zeros(3, n, n)} for n in (2, 3)]
    with pytest.raises(UserError, match="pictures of samples '2', '3' differ"):
        collate(samples)
