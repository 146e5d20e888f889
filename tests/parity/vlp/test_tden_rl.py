"""Self-critical training of a captioner of word pieces."""

import numpy as np
import pytest
import torch

from xmodaler.config import kfg
from xmodaler.losses import RewardCriterion
from xmodaler.scorer import build_scorer

NAME = "tden-caption"


@pytest.fixture(scope="module")
def task(load_task):
    return load_task(NAME)


@pytest.fixture(scope="module")
def scorer(task):
    return build_scorer(task.config("config_rl.yaml"))


def rows(task, prefix):
    """The sentences of a kind, three for each image, adjacent."""
    return {kfg.IDS: task.inputs("inputs_decode")[kfg.IDS], **task.below(prefix)}


def test_rewards_are_those_of_the_reference(task, scorer):
    sampled, greedy = rows(task, "rl/sampled/"), rows(task, "rl/baseline/")
    rewards = [scorer(batch)[kfg.REWARDS] for batch in (sampled, greedy)]
    expected = [task.expected[f"rl/reward_{name}"].numpy() for name in ("sample", "baseline")]
    for own, theirs in zip(rewards, expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-6)
        assert theirs.any()
    np.testing.assert_allclose(
        rewards[0] - rewards[1], task.expected["rl/REWARDS"].numpy(), rtol=0, atol=1e-6
    )
    mixed = [*task.meta["notes_from_run"]["rl_ids"]]
    alone = scorer({kfg.IDS: mixed, kfg.G_SENTS_IDS: sampled[kfg.G_SENTS_IDS]})
    np.testing.assert_array_equal(alone[kfg.REWARDS], rewards[0])


def test_greedy_baseline(task):
    images = task.inputs("inputs_decode")
    with torch.no_grad():
        words = task.model(images, use_beam_search=False)[kfg.G_SENTS_IDS]
    baseline = task.expected["rl/baseline/G_SENTS_IDS"]
    assert torch.equal(words.repeat_interleave(len(baseline) // len(words), dim=0), baseline)


def test_loss_and_gradients_of_drawn_sentences(task):
    """The sentences are fed back; their log-probabilities are those of the sampler."""
    sampled = rows(task, "rl/sampled/")
    words, log_probs = sampled[kfg.G_SENTS_IDS], sampled[kfg.G_LOGP]
    model, images = task.model, task.inputs("inputs_decode")
    group = len(words) // len(images[kfg.IDS])
    index = torch.arange(len(words) // group).repeat_interleave(group)
    batch = {
        key: [value[i] for i in index] if isinstance(value, list) else value[index]
        for key, value in images.items()
    }
    state = model.start(batch)
    # The decoder's own beginning, then the words that were drawn.
    given = torch.cat([torch.full_like(words[:, :1], begin_of(task)), words[:, :-1]], dim=1)
    steps = []
    for time in range(words.shape[1]):
        logits, state = model.step(given[:, time], state)
        steps.append(logits.log_softmax(-1).gather(1, words[:, time : time + 1]).squeeze(1))
    own = torch.stack(steps, dim=1)
    ends = words == task.config("config_rl.yaml").SCORER.EOS_ID
    shown = ends.cumsum(1) - ends.long() == 0
    torch.testing.assert_close(own[shown], log_probs[shown], atol=1e-4, rtol=1e-4)

    criterion = RewardCriterion(eos_id=task.config("config_rl.yaml").SCORER.EOS_ID)
    rewards = task.expected["rl/REWARDS"]
    outputs = {kfg.G_SENTS_IDS: words, kfg.G_LOGP: own, kfg.REWARDS: rewards}
    loss = criterion(outputs)["RewardCriterion"]
    torch.testing.assert_close(
        loss, task.expected["rl/loss/RewardCriterion"].to(loss.dtype), atol=1e-6, rtol=1e-4
    )
    model.zero_grad()
    loss.backward()
    skipped = set(task.meta["unstable_under_rounding"])
    expected = task.below("rl/grad_norm/")
    found = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    assert set(expected) - skipped <= set(found)
    for name in set(expected) - skipped:
        torch.testing.assert_close(
            found[name], expected[name].to(found[name].dtype), atol=1e-6, rtol=1e-3, msg=name
        )


def begin_of(task):
    return build_scorer(task.config("config_rl.yaml")).bert_tokenizer.cls_token_id
