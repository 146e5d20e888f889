"""CIDEr-D rewards and the steps of self-critical training of the reference."""

import json

import numpy as np
import pytest
import torch

from xmodaler.config import kfg
from xmodaler.scorer import BaseScorer, Cider
from xmodaler.scorer.cider_files import read_frequencies, write_frequencies


@pytest.fixture(scope="module")
def cider_folder(shared_folder):
    folder = shared_folder / "cider"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def scorer(folder, cider_cached, types=("Cider",), weights=(1.0,)):
    return BaseScorer(
        types=types,
        scorers=[Cider(cider_cached=str(cider_cached)) for _ in types],
        weights=weights,
        gt_path=str(folder / "gts.pkl"),
        eos_id=0,
    )


def test_scores_of_every_sentence(cider_folder, tmp_path):
    """From the reference's own pickles, and from the same table written as JSON."""
    expected = json.loads((cider_folder / "hyps.json").read_text())
    cases = expected["hypotheses"]
    batch = {
        kfg.IDS: [case["image_id"] for case in cases],
        kfg.G_SENTS_IDS: torch.tensor([case["ids"] for case in cases]),
    }
    write_frequencies(tmp_path / "cider.json", *read_frequencies(cider_folder / "cider.pkl"))
    for cached in (cider_folder / "cider.pkl", tmp_path / "cider.json"):
        reward = scorer(cider_folder, cached)
        assert reward.get_sents(batch[kfg.G_SENTS_IDS]) == [case["scored_words"] for case in cases]
        scores = reward(batch)
        np.testing.assert_allclose(
            scores[kfg.REWARDS], [case["score"] for case in cases], rtol=0, atol=1e-9
        )
        assert scores["Cider"] == pytest.approx(expected["corpus_score"], abs=1e-9)
    example = expected["weighted_example"]
    weighted = scorer(cider_folder, cached, example["TYPES"], example["WEIGHTS"])(batch)
    first = example["first_rewards"]
    np.testing.assert_allclose(weighted[kfg.REWARDS][: len(first)], first, rtol=0, atol=1e-9)
