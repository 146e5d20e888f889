"""Texts, frames, regions and hidden words against the reference."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import kfg
from xmodaler.datasets.pretrain import CaptionTexts, MaskedTexts, RegionSamples
from xmodaler.functional.func_masking import WordMasking
from xmodaler.functional.func_regions import keep_rows, overlap_of_predictions, patch_mask
from xmodaler.functional.func_text import pre_caption, pre_question
from xmodaler.tokenization import BertTokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.frame_sampling import exact_frames

FAMILY = "preprocess"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)[:, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)[:, None, None]


@pytest.fixture(scope="module")
def cases(fixture: Any) -> dict[str, Any]:
    return fixture.json("preprocess.json")


@pytest.fixture(scope="module")
def tokenizer(fixture: Any) -> BertTokenizer:
    return BertTokenizer(str(fixture.folder / "vocab.txt"))


def masking_of(settings: dict[str, Any], tokenizer: BertTokenizer) -> WordMasking:
    return WordMasking(
        list(tokenizer.vocab),
        settings["mask_prob"],
        settings["max_masks"],
        settings.get("skipgram_prb", 0.2),
        settings.get("skipgram_size", 3),
        settings.get("whole_word", settings.get("mask_whole_word", True)),
    )


def test_captions_and_questions_are_cleaned(cases):
    for case in cases["pre_caption"]:
        assert pre_caption(case["text"], case["max_words"]) == case["out"]
    for case in cases["pre_question"]:
        assert pre_question(case["text"], case["max_words"]) == case["out"]
    with pytest.raises(UserError, match="no word"):
        pre_caption(" ... ", 30)


def test_frames(cases):
    for case in cases["sample_frame_ids_eval"]:
        assert exact_frames(case["num_frames"], case["segments"]) == case["out"]
    for case in cases["sample_frame_ids_train_seeded"]:
        rng = np.random.RandomState(case["np_seed"])
        for expected in case["out"]:
            assert exact_frames(case["num_frames"], case["segments"], rng) == expected


def test_patches_of_boxes(cases):
    for case in cases["region_patch_mask"]:
        mask = patch_mask(case["box_xywh"], case["res"], case["patch"])
        assert np.flatnonzero(mask).tolist() == case["on"]


def test_overlap(cases):
    for case in cases["iou"]:
        assert overlap_of_predictions(case["a"], case["b"]) == pytest.approx(case["out"])


def test_hidden_words_of_a_seed(cases, tokenizer):
    settings = cases["masking_seeded"]
    masking = masking_of(settings, tokenizer)
    for row in settings["rows"]:
        tokens, positions = masking(settings["tokens"], random.Random(row["random_seed"]))
        assert tokens == row["tokens"]
        assert positions == row["masked_pos"]


def test_frequencies_of_hidden_words(cases, tokenizer):
    settings, expected = cases["masking_seeded"], cases["masking_statistics"]
    masking, rng, draws = masking_of(settings, tokenizer), random.Random(1), 6000
    tokens = settings["tokens"]
    places, fates = np.zeros(len(tokens)), Counter()
    for _ in range(draws):
        hidden, positions = masking(tokens, rng)
        places[positions] += 1
        assert expected["n_masked_min"] <= len(positions) <= expected["n_masked_max"]
        fates.update(
            "mask"
            if hidden[place] == "[MASK]"
            else "keep"
            if hidden[place] == tokens[place]
            else "rand"
            for place in positions
        )
    # Four standard errors of a frequency.
    np.testing.assert_allclose(
        places / draws, expected["prob_masked_per_position"], atol=4 * (0.25 / draws) ** 0.5
    )
    total = sum(fates.values())
    for fate, share in expected["replacement"].items():
        assert fates[fate] / total == pytest.approx(share, abs=0.01)


def test_sequences_of_captions(cases, tokenizer):
    settings = cases["captioning_examples"]
    # The share is that of the released recipe.
    masking = masking_of({"mask_prob": 0.6, **settings}, tokenizer)
    for row in settings["rows"]:
        texts = CaptionTexts(
            tokenizer,
            masking,
            settings["max_tokens"],
            settings["prompt"],
            interleaved=row["mode"] == "fgfree",
            rng=random.Random(row["random_seed"]),
        )
        found = texts.sequence(row["caption"])
        assert found.tokens_ids.tolist() == row["text_ids_masked"]
        assert found.position_ids.tolist() == row["position_ids"]
        assert found.masked_pos.tolist() == row["masked_pos"]
        assert found.masked_ids.tolist() == row["masked_ids"]
        assert found.weights.tolist() == row["masked_weight"]
        rows = [np.flatnonzero(line).tolist() for line in found.attention]
        assert rows == row["attention_rows"]


def test_regions(fixture, cases, tokenizer):
    settings = cases["region_samples"]
    config = settings["config"]
    picture = Image.fromarray(fixture.inputs["region/image_u8"].numpy())
    for number, case in enumerate(settings["samples"]):
        expected = fixture.below(f"region/{number}/", fixture.expected)
        rng = random.Random(case["random_seed"])
        texts = MaskedTexts(tokenizer, masking_of(config, tokenizer), config["max_tokens"], rng=rng)
        regions = RegionSamples(
            texts,
            config["image_res"],
            config["patch_size"],
            config["regions"]["max_regions"],
            config["regions"]["min_perc_in_image"],
            rng=rng,
        )
        sample = regions(settings["annotation"], picture)
        words = [ids.tolist() for ids in sample[kfg.U_TOKENS_IDS_WO_MASK]]
        captions = [" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in words]
        assert captions == case["captions"]
        found = {key: np.stack(sample[key]) for key in (kfg.REGION_MASKS, kfg.IS_IMAGE)}
        assert torch.equal(torch.from_numpy(found[kfg.REGION_MASKS]).long(), expected["image_atts"])
        assert found[kfg.IS_IMAGE].tolist() == expected["is_image"].tolist()
        np.testing.assert_allclose(
            np.stack(sample[kfg.TARGET_BBOX]), expected["target_bbox"], rtol=0, atol=1e-6
        )
        image = (sample[kfg.IMAGES].numpy().astype(np.float32) / 255 - MEAN) / STD
        np.testing.assert_allclose(image, expected["image"], rtol=0, atol=1e-5)


def test_rows_of_a_batch_of_regions(cases):
    counts = [len(elements) for elements in rows_by_picture(cases)]
    owners = [picture for picture, count in enumerate(counts) for _ in range(count)]
    for case in cases["region_collate"]:
        kept = keep_rows(case["n_elements"], case["batch_size"], random.Random(case["random_seed"]))
        assert [owners[row] for row in kept] == case["idx_to_group_img"]


def rows_by_picture(cases: dict[str, Any]) -> list[list[int]]:
    """Which rows are those of a picture, read off the batch in which every row is repeated."""
    longest = max(cases["region_collate"], key=lambda case: case["batch_size"])
    owners = longest["idx_to_group_img"][: longest["n_elements"]]
    rows: list[list[int]] = [[] for _ in range(longest["n_images"])]
    for row, owner in enumerate(owners):
        rows[owner].append(row)
    return rows
