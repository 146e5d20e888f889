"""CIDEr-D rewards and the steps of self-critical training of the reference."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xmodaler.config import get_cfg, kfg
from xmodaler.engine import ENGINE_REGISTRY
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


class Scripted(torch.nn.Module):
    """A model whose sentences and their log-probabilities are given; notes how it is called."""

    def __init__(self, numbers, case):
        super().__init__()
        self.words = numbers[f"{case}/G_SENTS_IDS"]
        self.log_probs = torch.nn.Parameter(numbers[f"{case}/G_LOGP"].clone())
        self.beam_size = self.words.shape[1]
        self.calls = []

    def forward(self, batch, use_beam_search=None):
        sampled = bool(batch.get(kfg.DECODE_BY_SAMPLE)) or use_beam_search
        self.calls.append((self.training, use_beam_search, sampled))
        words = self.words if sampled else torch.full_like(self.words, -7)
        return {**batch, kfg.G_SENTS_IDS: words, kfg.G_LOGP: self.log_probs}


@pytest.mark.parametrize(
    ("name", "case", "images"),
    [("RLTrainer", "rl", 6), ("RLMeanTrainer", "rl", 3), ("RLBeamTrainer", "rlbeam", 3)],
)
def test_steps_on_rewards(shared_folder, tmp_path, name, case, images):
    """Losses and gradients of given sentences with given scores."""
    numbers = load_file(str(shared_folder / "losses.safetensors"))
    model = Scripted(numbers, case)
    trainer_class = ENGINE_REGISTRY.get(name)

    class Trainer(trainer_class):
        @classmethod
        def build_model(cls, cfg):
            return model

    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.DATALOADER.SEQ_PER_SAMPLE = len(model.words) // images
    if name == "RLMeanTrainer":
        meta = json.loads((shared_folder / "meta.json").read_text())
        images_per_row = meta["losses"]["RLMeanTrainer"]["captions_per_image"]
        assert images_per_row == cfg.DATALOADER.SEQ_PER_SAMPLE
    cfg.DECODE_STRATEGY.BEAM_SIZE = model.beam_size
    trainer = Trainer(cfg)

    def scores(outputs):
        greedy = bool((outputs[kfg.G_SENTS_IDS] == -7).all())
        kind = "greedy_scores" if greedy else "sample_scores" if case == "rl" else "scores"
        return {kfg.REWARDS: numbers[f"{case}/{kind}"].numpy()}

    trainer.scorer = scores
    losses = trainer.compute_losses({kfg.IDS: [str(i) for i in range(images)]})
    torch.testing.assert_close(sum(losses.values()), numbers[f"{name}/loss"], atol=1e-6, rtol=0)
    sum(losses.values()).backward()
    torch.testing.assert_close(model.log_probs.grad, numbers[f"{name}/grad"], atol=1e-6, rtol=0)
    # Sampling and searching in training mode, the greedy baseline without dropout.
    beam = name == "RLBeamTrainer"
    expected = [(True, beam, True)] + [(False, False, False)] * (name == "RLTrainer")
    assert model.calls == expected
    assert trainer.model.training
