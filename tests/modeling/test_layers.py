"""Layers alone."""

import math

import pytest
import torch
from torch import nn

from xmodaler.config import kfg
from xmodaler.modeling.attention import MultiHeadQueryAttention
from xmodaler.modeling.embedding import TokenBaseEmbedding, VisualGridEmbedding
from xmodaler.modeling.embedding.position_embedding import NNEmbeddingEncoding, SinusoidEncoding
from xmodaler.modeling.encoder import UpDownEncoder
from xmodaler.modeling.layers import BaseAttention, get_act_layer
from xmodaler.modeling.layers.bert import BertSelfAttention, BertXAttention
from xmodaler.modeling.layers.create_act import get_activation
from xmodaler.modeling.layers.dot_product import attend
from xmodaler.modeling.layers.few_rows import (
    PackedWeights,
    StepWeights,
    distinct,
    forget,
    linear,
    multiply,
)
from xmodaler.modeling.layers.lstm import lstm_pointwise
from xmodaler.modeling.layers.masking import additive
from xmodaler.modeling.layers.packing import Packing, worth_packing
from xmodaler.utils.errors import UserError


def test_activations():
    assert get_act_layer("none") is None and get_act_layer("") is None
    assert get_act_layer("CELU") is nn.CELU
    x = torch.linspace(-3, 3, 50)
    for name, expected in {
        "swish": x * torch.sigmoid(x),
        "mish": x * torch.tanh(torch.log1p(torch.exp(x))),
        "gelu": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "gelu_new": 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    }.items():
        torch.testing.assert_close(get_activation(name)(x), expected)
    with pytest.raises(KeyError):
        get_activation("sine")
    with pytest.raises(UserError):
        get_act_layer("gellu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fully_hidden_row_is_uniform(dtype):
    mask = additive(torch.tensor([[True, False], [False, False]]), dtype)
    scores = torch.full((2, 2), -30.0, dtype=dtype)
    weights = torch.softmax((scores + mask).float(), dim=-1)
    assert weights.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_packing_there_and_back():
    visible = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    padded = torch.randn(3, 3, 2) * visible[..., None]
    packing = worth_packing(visible)
    assert packing.pack(padded).shape == (5, 2)
    assert torch.equal(packing.unpack(packing.pack(padded)), padded)
    assert worth_packing(torch.ones(2, 3, dtype=torch.bool)) is None
    assert worth_packing(torch.zeros(2, 3, dtype=torch.bool)) is None
    assert Packing.of(visible).fill == pytest.approx(5 / 9)


def test_explicit_weights_give_the_fused_result():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, n, 8) for n in (3, 5, 5))
    mask = additive(torch.rand(2, 1, 1, 5) > 0.3, torch.float32)
    fused, none = attend(query, key, value, mask)
    explicit, weights = attend(query, key, value, mask, need_weights=True)
    assert none is None and weights.shape == (2, 4, 3, 5)
    torch.testing.assert_close(fused, explicit)


@pytest.mark.parametrize("module", ["additive", "bert", "multihead"])
def test_folded_queries_equal_repeated_memory(module):
    torch.manual_seed(0)
    memory, query = torch.randn(2, 5, 8), torch.randn(6, 8)
    mask = additive(torch.tensor([[True] * 5, [True, True, False, True, False]]), torch.float32)
    repeated = memory.repeat_interleave(3, dim=0)
    if module == "additive":
        att = BaseAttention(hidden_size=8, att_embed_size=4, att_embed_dropout=0.0)
        keys = torch.randn(2, 5, 4)
        one = att(query, memory, keys, mask)
        other = att(query, repeated, keys.repeat_interleave(3, 0), mask.repeat_interleave(3, 0))
    elif module == "bert":
        att = BertXAttention(hidden_size=8, num_attention_heads=2, attention_probs_dropout_prob=0.0)
        mask = mask[:, None, None]
        one, _ = att(query[:, None], memory, memory, mask)
        other, _ = att(query[:, None], repeated, repeated, mask.repeat_interleave(3, 0))
    else:
        att = MultiHeadQueryAttention(
            query_dim=8, memory_dim=8, embed_dim=4, num_heads=2, dropout=0.0
        )
        project = att.memory_projection()
        one, weights = att(query, att.precompute(memory, mask, project(memory)), True)
        assert weights.shape == (6, 5) and not weights[3:, 2].any()
        other, _ = att(
            query, att.precompute(repeated, mask.repeat_interleave(3, 0), project(repeated))
        )
    torch.testing.assert_close(one, other)
    with pytest.raises(UserError, match="5 text rows"):
        BaseAttention(hidden_size=8, att_embed_size=4, att_embed_dropout=0.0)(
            query[:5], memory, torch.randn(2, 5, 4)
        )


def test_self_attention_with_a_history_equals_its_last_row():
    torch.manual_seed(0)
    att = BertSelfAttention(hidden_size=8, num_attention_heads=2, attention_probs_dropout_prob=0.0)
    x = torch.randn(2, 4, 8)
    causal = additive(torch.ones(4, 4).tril().bool(), torch.float32)
    whole, _ = att(x, causal)
    last, _ = att(x[:, 3:], None, history_states=x)
    torch.testing.assert_close(last[:, 0], whole[:, 3])


@pytest.mark.parametrize("zero", [False, True])
def test_lstm_cell(zero):
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 5)
    x, h, c = torch.randn(4, 3), torch.randn(4, 5), torch.randn(4, 5)
    if zero:
        h, c = torch.zeros_like(h), torch.zeros_like(c)
    gates = x @ cell.weight_ih.t() + h @ cell.weight_hh.t() + cell.bias_ih + cell.bias_hh
    for own, expected in zip(
        lstm_pointwise(gates, None if zero else c), cell(x, (h, c)), strict=True
    ):
        torch.testing.assert_close(own, expected)


def test_sinusoids_of_odd_width_and_too_long_sequences():
    encoding = SinusoidEncoding(5, 8)
    assert encoding(torch.zeros(2, 3)).shape == (1, 3, 5)
    torch.testing.assert_close(encoding(1)[0, 0], torch.tensor(1.0).sin())
    torch.testing.assert_close(encoding(1)[0, 3], torch.tensor(16.0 ** (-2 / 5)).cos())
    for position in (encoding, NNEmbeddingEncoding(5, 8)):
        with pytest.raises(UserError, match="9 words exceeds the 8 positions"):
            position(8)
        with pytest.raises(UserError, match="9 words"):
            position(torch.zeros(1, 9))


@pytest.mark.parametrize("position", [SinusoidEncoding, NNEmbeddingEncoding])
def test_words_one_by_one_embed_as_all_at_once(position):
    torch.manual_seed(0)
    embedding = TokenBaseEmbedding(
        dim=6,
        vocab_size=9,
        embeddings_act=nn.Tanh(),
        embeddings_norm=nn.LayerNorm(6),
        embeddings_pos=position(6, 10),
        embeddings_token_type=nn.Embedding(3, 6),
    )
    tokens = torch.randint(0, 9, (4, 5))
    types = torch.randint(0, 3, (2, 5))  # once per image
    batch = {kfg.G_TOKENS_IDS: tokens, kfg.G_TOKENS_TYPE: types}
    whole = embedding(batch)[kfg.G_TOKEN_EMBED]
    for t in range(5):
        step = {**batch, kfg.G_TOKENS_IDS: tokens[:, t], kfg.TIME_STEP: t}
        torch.testing.assert_close(embedding(step)[kfg.G_TOKEN_EMBED], whole[:, t])
    x = embedding.embeddings(tokens) + embedding.embeddings_pos(tokens)
    x = x + embedding.embeddings_token_type(types.repeat_interleave(2, dim=0))
    torch.testing.assert_close(whole, embedding.embeddings_norm(torch.tanh(x)))
    u_batch = {kfg.U_TOKENS_IDS: tokens}
    assert set(embedding(u_batch)) == {kfg.U_TOKEN_EMBED}


def test_grid_embedding_with_and_without_global_token():
    torch.manual_seed(0)
    position = nn.Parameter(torch.randn(1, 6, 4))
    embedding = VisualGridEmbedding(in_dim=3, g_in_dim=2, out_dim=4, embeddings_pos=position)
    feats, masks = torch.randn(2, 5, 3), torch.tensor([[True] * 5, [False] + [True] * 4])
    batch = {kfg.ATT_FEATS: feats, kfg.GLOBAL_FEATS: torch.randn(2, 1, 2), kfg.ATT_MASKS: masks}
    produced = embedding(batch)
    assert produced[kfg.ATT_FEATS].shape == (2, 6, 4)
    assert produced[kfg.ATT_MASKS].tolist() == [[True] * 6, [False] * 2 + [True] * 4]
    flat = {**batch, kfg.GLOBAL_FEATS: batch[kfg.GLOBAL_FEATS].squeeze(1)}
    torch.testing.assert_close(embedding(flat)[kfg.ATT_FEATS], produced[kfg.ATT_FEATS])
    with pytest.raises(UserError, match="7 visual tokens exceed the 6 positions"):
        embedding({**batch, kfg.ATT_FEATS: torch.randn(2, 6, 3)})
    with pytest.raises(UserError, match="GLOBAL_FEATS is missing"):
        embedding({kfg.ATT_FEATS: feats})
    bare = VisualGridEmbedding(in_dim=3, g_in_dim=0, out_dim=4, embeddings_pos=position)
    assert set(bare(batch)) == {kfg.ATT_FEATS} and bare(batch)[kfg.ATT_FEATS].shape == (2, 5, 4)


def test_global_feature_of_updown_is_the_mean_of_real_regions():
    feats = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [5.0], [5.0]]])
    masks = torch.tensor([[True, True, False], [False, False, False]])
    batch = {kfg.ATT_FEATS: feats, kfg.ATT_MASKS: masks}
    encoder = UpDownEncoder()
    assert encoder(batch, mode="v")[kfg.GLOBAL_FEATS].tolist() == [[2.0], [0.0]]
    assert encoder(batch, mode="t") == {}
    assert encoder({**batch, kfg.GLOBAL_FEATS: feats[:, 0]}, mode="v") == {}


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 1024), (1024, 6), (1030, 2048)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_of_few_rows(inputs, outputs, bias):
    torch.manual_seed(0)
    layer, x = nn.Linear(inputs, outputs, bias=bias), torch.randn(9, inputs)
    expected = layer(x)
    copies = StepWeights([layer])
    assert copies.of(layer).shape == (inputs, outputs)
    assert copies.of(layer).stride(0) * 4 % 4096 != 0
    with torch.no_grad():
        torch.testing.assert_close(linear(layer, x), expected.detach())
        torch.testing.assert_close(linear(layer, x, copies), expected.detach())
        addend = torch.randn(9, outputs)
        torch.testing.assert_close(multiply(x, layer.weight, addend), x @ layer.weight.t() + addend)
        half = slice(inputs // 2, inputs)
        part = x[:, half] @ layer.weight[:, half].t()
        for weights in (None, copies):
            product = multiply(x[:, half], layer.weight, None, weights, half)
            torch.testing.assert_close(product, part)
    assert linear(layer, x).requires_grad


@pytest.mark.parametrize("rows", [1, 6, 40])
def test_packed_weights_give_the_same_products(rows):
    torch.manual_seed(0)
    layer, other, x = nn.Linear(48, 33), nn.Linear(48, 5, bias=False), torch.randn(rows, 48)
    assert not PackedWeights.pay(x)  # while gradients are wanted
    with torch.no_grad():
        if not PackedWeights.pay(x):
            pytest.skip("torch was built without oneDNN")
        packed = PackedWeights([layer])
        torch.testing.assert_close(linear(layer, x, packed), layer(x))
        torch.testing.assert_close(linear(other, x, packed), other(x))
        assert packed.of(layer) is None and packed.linear(other, x) is None
        torch.testing.assert_close(multiply(x, layer.weight, None, packed), x @ layer.weight.t())


def test_copies_of_weights_are_kept_until_something_changes():
    model = nn.Linear(8, 8)
    assert StepWeights.kept(model, []) is None
    first = StepWeights.kept(model, [model])
    assert StepWeights.kept(model, [model]) is first
    with torch.no_grad():
        model.weight.mul_(2)
    second = StepWeights.kept(model, [model])
    assert second is not first
    torch.testing.assert_close(second.of(model), model.weight.t())
    forget(model)
    assert StepWeights.kept(model, [model]) is not second


@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_a_model_decodes_with_the_weights_that_training_left(tiny, kind):
    model, batch = tiny.model(kind), tiny.batch(images=9, groups=1)

    def second_word_logits(model):
        with torch.no_grad():
            _, state = model.eval().step(torch.zeros(9, dtype=torch.long), model.start(batch))
            return model.step(torch.ones(9, dtype=torch.long), state)[0]

    before = second_word_logits(model)
    model.train()
    for weight in model.parameters():
        weight.data.mul_(1.5)  # unseen by version counters, as with fused optimizers
    after = second_word_logits(model)
    assert not torch.allclose(before, after)
    fresh = tiny.model(kind, seed=1)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(after, second_word_logits(fresh))


def test_distinct_entries_and_their_places():
    ids = torch.tensor([7, 3, 7, 7, 9])
    rows, place = distinct(ids)
    assert ids[rows].tolist() == [3, 7, 9]
    assert ids[rows][place].tolist() == ids.tolist()
