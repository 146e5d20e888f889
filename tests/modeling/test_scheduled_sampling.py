"""Scheduled sampling feeds the model its own words, as often as asked."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.modeling.layers.scheduled_sampling import choose_positions, draw_words


class WordLog(torch.nn.Module):
    """Stands in for a token embedding and notes the words it embeds, by position."""

    def __init__(self, embedding, own_word):
        super().__init__()
        self.embedding, self.own_word = embedding, own_word
        self.fed, self.single = [], []

    def forward(self, batch):
        tokens = batch[kfg.G_TOKENS_IDS]
        (self.fed if tokens.dim() == 2 else self.single).append(tokens.clone())
        return self.embedding(batch)


def only_says(model, word):
    """Make a model that always predicts one word, in place."""
    with torch.no_grad():
        model.predictor.logits.weight.zero_()
        model.predictor.logits.bias.fill_(-1e4)
        model.predictor.logits.bias[word] = 100.0  # raw exponentials would overflow
    return model


@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_share_of_own_words(tiny, kind):
    torch.manual_seed(3)
    model = only_says(tiny.model(kind), word=22).train()
    log = model.token_embed = WordLog(model.token_embed, 22)
    batch = tiny.batch(images=200, groups=2)
    batch[kfg.G_TOKENS_IDS].clamp_(max=21)
    batch[kfg.SS_PROB] = 0.3
    outputs = model(batch)
    tokens = batch[kfg.G_TOKENS_IDS]
    assert outputs[kfg.G_TOKENS_IDS] is tokens  # the result names the given words
    scored = batch[kfg.G_TARGET_IDS] >= 0
    candidates = int(scored[:, 1:].sum())
    if kind == "updown":
        own = sum(int((words == 22).sum()) for words in log.single)
        assert all((words == 22).all() for words in log.single)
        # A caption may be computed a little longer than needed, to keep its image together.
        assert 0.25 * candidates < own < 0.4 * candidates
    else:
        fed = log.fed[-1]
        own = fed == 22
        assert not own[:, 0].any()
        assert torch.equal(fed[~own], tokens[:, : fed.shape[1]][~own])
        share = own[scored[:, : fed.shape[1]]].sum() / candidates
        assert 0.25 < share < 0.35


@pytest.mark.parametrize("kind", ["updown", "transformer"])
@pytest.mark.parametrize("stepwise", [False, True])
def test_certain_replacement_never_touches_the_start(tiny, kind, stepwise):
    model = only_says(tiny.model(kind), word=22).train()
    if stepwise:
        if kind == "transformer":
            pytest.skip("a Transformer has no steps in training")
        model.predictor.position_wise = False
    log = model.token_embed = WordLog(model.token_embed, 22)
    batch = {**tiny.batch(), kfg.SS_PROB: 1.0}
    batch[kfg.G_TOKENS_IDS] = batch[kfg.G_TOKENS_IDS].clamp(max=21)
    model(batch)
    if stepwise:
        assert (log.single[0] == 0).all() and all((w == 22).all() for w in log.single[1:])
    elif kind == "transformer":
        fed = log.fed[-1]
        read = (batch[kfg.G_TARGET_IDS] >= 0)[:, : fed.shape[1]]
        assert (fed[:, 0] == 0).all() and (fed[:, 1:][read[:, 1:]] == 22).all()


@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_no_sampling_in_eval_mode_or_without_a_probability(tiny, kind):
    model = tiny.without_dropout(tiny.model(kind))
    batch = tiny.batch()
    plain = model.eval()(batch)[kfg.G_LOGITS]
    torch.testing.assert_close(model({**batch, kfg.SS_PROB: 1.0})[kfg.G_LOGITS], plain)
    scored = batch[kfg.G_TARGET_IDS] >= 0
    for zero in ({}, {kfg.SS_PROB: 0.0}):
        logits = model.train()({**batch, **zero})[kfg.G_LOGITS]
        torch.testing.assert_close(logits[scored], plain[scored], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_gradients_flow_through_the_mixture(tiny, kind):
    torch.manual_seed(0)
    model = tiny.model(kind).train()
    outputs = model({**tiny.batch(), kfg.SS_PROB: 0.5})
    outputs[kfg.G_LOGITS].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_steps_and_unrolled_recurrence_sample_alike(tiny):
    """With every word replaced by a deterministic own word, both ways agree exactly."""
    model = tiny.without_dropout(tiny.model("updown")).train()
    with torch.no_grad():
        model.predictor.logits.weight.mul_(1e4)  # so sharp that a draw is an argmax
    batch = {**tiny.batch(), kfg.SS_PROB: 1.0}
    scored = batch[kfg.G_TARGET_IDS] >= 0
    unrolled = model(batch)[kfg.G_LOGITS][scored]
    model.predictor.position_wise = False
    stepwise = model(batch)[kfg.G_LOGITS][scored]
    torch.testing.assert_close(unrolled, stepwise, atol=0.1, rtol=1e-3)


def test_draws_follow_the_softmax():
    torch.manual_seed(0)
    logits = torch.log(torch.tensor([0.1, 0.2, 0.7])).expand(20000, 3) + 200
    counts = torch.bincount(draw_words(logits), minlength=3) / 20000
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.2, 0.7]), atol=0.02, rtol=0)


def test_positions_are_chosen_independently():
    torch.manual_seed(0)
    chosen = choose_positions(5000, 6, 0.25)
    assert not chosen[:, 0].any()
    torch.testing.assert_close(
        chosen[:, 1:].float().mean(0), torch.full((5,), 0.25), atol=0.03, rtol=0
    )
