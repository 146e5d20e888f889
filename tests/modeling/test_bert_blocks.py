"""The blocks of BERT: packed or padded, step by step or at once, with layers left out or redone."""

import random

import pytest
import torch

from xmodaler.config import get_cfg
from xmodaler.modeling.layers.attention_pooler import AttentionPooler
from xmodaler.modeling.layers.bert import (
    BertGenerationLayer,
    BertLayer,
    BertSelfOutput,
    BertUnderstandingLayer,
    BertXAttention,
)
from xmodaler.modeling.layers.drop_path import drop_path
from xmodaler.modeling.layers.initial_weights import init_like_bert
from xmodaler.modeling.layers.kv_cache import empty_cache, empty_history, own_slots, slot_mask
from xmodaler.modeling.layers.layer_stack import kept_layers, run_layer
from xmodaler.modeling.layers.masking import BERT_HIDDEN, additive
from xmodaler.modeling.layers.packing import Packing
from xmodaler.utils.errors import UserError

WIDTH = 16


@pytest.fixture
def cfg():
    cfg = get_cfg()
    bert = cfg.MODEL.BERT
    bert.HIDDEN_SIZE, bert.INTERMEDIATE_SIZE, bert.NUM_ATTENTION_HEADS = WIDTH, 24, 4
    torch.manual_seed(0)
    return cfg


def visible(lengths, longest):
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def as_mask(shown):
    return additive(shown[:, None, None], torch.float32, BERT_HIDDEN)


def test_understanding_without_padding_is_the_same(cfg):
    layer = BertUnderstandingLayer(cfg).eval()
    v_shown, t_shown = visible([5, 2, 4], 5), visible([3, 6, 1], 6)
    v, t = torch.randn(3, 5, WIDTH), torch.randn(3, 6, WIDTH)
    v_out, t_out = layer(v, as_mask(v_shown), t, as_mask(t_shown))
    v_rows, t_rows = Packing.of(v_shown), Packing.of(t_shown)
    packed = layer(
        v_rows.pack(v),
        as_mask(v_shown),
        t_rows.pack(t),
        as_mask(t_shown),
        packing=v_rows.followed_by(t_rows),
    )
    torch.testing.assert_close(packed[0], v_out[v_shown])
    torch.testing.assert_close(packed[1], t_out[t_shown])
    # Both streams see both: another word changes regions, another region changes words.
    other = layer(v + v_shown[..., None] * 1.0, as_mask(v_shown), t, as_mask(t_shown))
    assert not torch.allclose(other[1], t_out)


def test_rows_behind_each_other(cfg):
    first, second = Packing.of(visible([1, 2], 2)), Packing.of(visible([3, 1], 3))
    joint = first.followed_by(second)
    one, two = torch.randn(2, 2, 4), torch.randn(2, 3, 4)
    padded = joint.unpack(torch.cat([first.pack(one), second.pack(two)]))
    shown = torch.cat([visible([1, 2], 2), visible([3, 1], 3)], dim=1)
    expected = torch.cat([one, two], dim=1) * shown[..., None]
    assert padded.shape == (2, 5, 4) and torch.equal(padded, expected)


def test_generation_over_packed_regions(cfg):
    layer = BertGenerationLayer(cfg).eval()
    shown = visible([4, 2], 4)
    t, v = torch.randn(2, 3, WIDTH), torch.randn(2, 4, WIDTH)
    causal = additive(torch.ones(3, 3, dtype=torch.bool).tril(), torch.float32, BERT_HIDDEN)
    expected = layer(t, v, causal, as_mask(shown))
    packing = Packing.of(shown)
    value = layer(t, packing.pack(v), causal, as_mask(shown), v_packing=packing)
    torch.testing.assert_close(value, expected)


def test_steps_of_a_text_layer_are_those_of_all_words(cfg):
    layer, words, images, groups = BertLayer(cfg).eval(), 5, 2, 3
    x = torch.randn(images * groups, words, WIDTH)
    causal = additive(torch.ones(words, words, dtype=torch.bool).tril(), torch.float32)
    expected, _ = layer(x, causal)
    cache, slots = empty_cache(1), empty_history(images, x.device)
    slots = slots.repeat_interleave(groups, dim=0)
    with torch.no_grad():
        for step in range(words):
            slots = own_slots(slots, cache["used"], groups)
            mask = slot_mask(slots, cache["used"] + groups, images, torch.float32)
            value = layer.step(x[:, step], mask, cache, 0, images)
            cache["used"] += groups
            torch.testing.assert_close(value, expected[:, step])


def test_memory_of_another_width():
    attention = BertXAttention(
        hidden_size=8, num_attention_heads=2, attention_probs_dropout_prob=0.0, key_value_size=5
    )
    value, _ = attention(torch.randn(2, 3, 8), torch.randn(2, 4, 5), torch.randn(2, 4, 5))
    assert value.shape == (2, 3, 8)


def test_paths_are_dropped_by_row():
    torch.manual_seed(0)
    x, probability = torch.ones(400, 3, 2), 0.25
    kept = drop_path(x, probability)
    rows = kept[:, 0, 0]
    assert sorted(set(rows.tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert (kept == rows[:, None, None]).all()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.1)
    assert drop_path(x, 0.0) is x
    shown = visible([3, 1, 2, 3] * 50, 3)
    packing = Packing.of(shown)
    packed = packing.unpack(drop_path(packing.pack(torch.ones(200, 3, 2)), probability, packing))
    assert ((packed == 0) | ~shown[..., None] | (packed == packed[:, :1])).all()
    assert 0.6 < (packed[:, 0, 0] > 0).float().mean() < 0.9


def test_a_dropped_path_leaves_the_residual():
    block = BertSelfOutput(
        hidden_size=4, layer_norm_eps=1e-12, hidden_dropout_prob=0.0, drop_path_prob=0.5
    )
    torch.manual_seed(1)
    x, residual = torch.randn(64, 2, 4), torch.randn(64, 2, 4)
    alone = block.LayerNorm(residual)
    untouched = (block(x, residual) == alone).flatten(1).all(1)
    assert 16 < untouched.sum() < 48
    assert not (block.eval()(x, residual) == alone).any()


def test_layers_are_kept_by_one_draw_each(monkeypatch):
    draws = iter([0.1, 0.6, 0.29, 0.3])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    assert kept_layers(4, 0.3, training=True) == [False, True, False, True]
    # In evaluation nothing is drawn.
    assert kept_layers(4, 0.9, training=False) == [True] * 4


def test_recomputed_layers_give_the_same_gradients(cfg):
    layer = BertLayer(cfg)
    x = torch.randn(2, 3, WIDTH)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(5)  # dropout is on
        given = x.clone().requires_grad_()
        layer.zero_grad()
        run_layer(layer, given, recompute=recompute)[0].square().sum().backward()
        gradients.append([given.grad, *(p.grad.clone() for p in layer.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_pooler_of_hidden_positions_and_of_a_batch_of_one():
    torch.manual_seed(0)
    pooler = AttentionPooler(hidden_size=4, output_size=3, dropout=0.0, use_bn=True)
    shown = visible([2, 3], 3)
    mask, x = as_mask(shown), torch.randn(2, 3, 4)
    changed = torch.where(shown[..., None], x, 9.0)
    torch.testing.assert_close(pooler.eval()(x, mask), pooler(changed, mask))
    with pytest.raises(UserError, match="batch of one"):
        pooler.train()(x[:1], mask[:1])
    assert pooler.eval()(x[:1], mask[:1]).shape == (1, 3)


def test_weights_start_like_those_of_bert():
    class Picture(torch.nn.Module):
        pretrained_parts = ("backbone",)

        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Linear(50, 50)
            self.project = torch.nn.Linear(200, 300)
            self.words = torch.nn.Embedding(100, 60)

    model = Picture()
    before = model.backbone.weight.clone()
    init_like_bert(model, 0.02)
    assert torch.equal(model.backbone.weight, before)
    for weight in (model.project.weight, model.words.weight):
        assert weight.abs().max() <= 0.04 and 0.016 < weight.std() < 0.02
    assert (model.project.bias == 0).all()


def test_a_part_may_start_with_a_deviation_of_its_own():
    model = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Sequential())
    model[1].append(torch.nn.Linear(100, 100))
    model[1].init_std = 0.1
    init_like_bert(model, 0.02)
    assert 0.016 < model[0].weight.std() < 0.02
    assert 0.08 < model[1][0].weight.std() < 0.1
