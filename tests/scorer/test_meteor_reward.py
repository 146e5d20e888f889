"""METEOR as a reward."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.evaluation import meteor_reward
from xmodaler.evaluation.java_metrics import java_metric, why_unavailable
from xmodaler.scorer import BaseScorer
from xmodaler.utils.errors import UserError

WORDS = ["a", "dog", "runs", "on", "grass", "cat", "sleeps", "green"]
REFERENCES = {"1": [[1, 2, 3, 4, 5, 0], [1, 2, 3, 0]], "2": [[1, 6, 7, 0]]}


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return str(path)


@pytest.mark.slow
@pytest.mark.skipif(why_unavailable("METEOR") is not None, reason="METEOR is not available")
def test_scores_are_those_of_the_evaluation(vocabulary):
    scorer = BaseScorer(
        types=["Meteor"],
        scorers=[meteor_reward.Meteor(vocab_path=vocabulary)],
        weights=[2.0],
        gt_path=REFERENCES,
        eos_id=0,
    )
    words = torch.tensor([[1, 2, 3, 0, 0], [0, 0, 0, 0, 0], [1, 6, 4, 8, 5], [1, 6, 7, 0, 0]])
    batch = {kfg.IDS: ["1", "2"], kfg.G_SENTS_IDS: words}
    references = [
        [" ".join(WORDS[w - 1] for w in c if w) for c in own] for own in REFERENCES.values()
    ]
    sentences = ["a dog runs", "a cat on green grass", "a cat sleeps"]
    _, expected = java_metric("METEOR", sentences, [references[0], references[1], references[1]])
    for _ in range(2):
        rewards = scorer(batch)[kfg.REWARDS]
        assert rewards[1] == 0
        assert rewards[[0, 2, 3]] == pytest.approx([2 * score for score in expected])


def test_absence_of_java_is_told(vocabulary, monkeypatch):
    monkeypatch.setattr(meteor_reward, "why_unavailable", lambda name: "Java is not on the PATH")
    with pytest.raises(UserError, match="Java is not on the PATH"):
        meteor_reward.Meteor(vocab_path=vocabulary)
