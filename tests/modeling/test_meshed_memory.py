"""The Meshed-Memory Transformer against its formulas, and what it never computes twice."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import get_cfg, kfg
from xmodaler.functional import trees
from xmodaler.losses import CrossEntropy
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.embedding import MeshedMemoryVisualEmbedding
from xmodaler.modeling.layers.masking import additive
from xmodaler.modeling.layers.memory_attention import MemoryAttention
from xmodaler.modeling.layers.meshed_attention import MeshedDecoderLayer
from xmodaler.modeling.layers.packing import Packing
from xmodaler.utils.errors import UserError

D, HEADS, LEVELS = 16, 4, 3


def meshed_cfg(**changes):
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.VOCAB_SIZE, model.MAX_SEQ_LEN, model.DECODER_DIM = "cpu", 23, 7, D
    model.META_ARCHITECTURE = "TransformerEncoderDecoder"
    model.ENCODER, model.DECODER = "MemoryAugmentedEncoder", "MeshedDecoder"
    for key in ("DECODER", "ENCODER"):
        model[key] = changes.pop(key, model[key])
    model.PREDICTOR, model.TOKEN_EMBED.NAME = "BasePredictor", "TokenBaseEmbedding"
    model.VISUAL_EMBED.NAME = changes.pop("EMBED", "VisualBaseEmbedding")
    add_config(cfg, cfg)
    model.TOKEN_EMBED.DIM = model.VISUAL_EMBED.OUT_DIM = model.BERT.HIDDEN_SIZE = D
    model.TOKEN_EMBED.POSITION, model.VISUAL_EMBED.IN_DIM = "SinusoidEncoding", 10
    model.BERT.NUM_ATTENTION_HEADS, model.BERT.INTERMEDIATE_SIZE = HEADS, 24
    model.BERT.NUM_HIDDEN_LAYERS = model.BERT.NUM_GENERATION_LAYERS = 2
    for node in model.get("MESHEDMEORY", {}).values():
        node.DIM_MODEL, node.NUM_ATT_HEAD, node.DIM_FEEDFORWARD, node.NUM_LAYER = D, HEADS, 24, 2
    if "MESHEDMEORY" in model and "ENCODER" in model.MESHEDMEORY:
        model.MESHEDMEORY.ENCODER.NUM_LAYER = LEVELS
        model.MESHEDMEORY.ENCODER.NUM_ATT_MEMORY = 6
        model.MESHEDMEORY.ENCODER.ALL_LAYERS = changes.pop("ALL_LAYERS", True)
    for key, value in changes.items():
        model[key] = value
    return cfg


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(meshed_cfg()).eval()


def heads_of(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)


def naive_attention(att, query, keys, values, visible):
    """One row of queries (T, D) to keys and values (N, D); softmax over what is visible."""
    scores = heads_of(query) @ heads_of(keys).mT / math.sqrt(D / HEADS)
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return att.fc_o((weights @ heads_of(values)).transpose(0, 1).flatten(1))


def test_encoder_layers_equal_the_formula(model, tiny):
    batch = tiny.batch(images=3, groups=1)
    with torch.no_grad():
        found = model(batch)[kfg.ATT_FEATS]
        x = model.visual_embed(batch)[kfg.ATT_FEATS]
        for image, visible in enumerate(batch[kfg.ATT_MASKS]):
            y, memory = x[image], 6
            seen = torch.cat([visible, torch.ones(memory, dtype=torch.bool)])
            for number, layer in enumerate(model.encoder.layers):
                att = layer.mhatt.attention
                keys = torch.cat([att.fc_k(y), math.sqrt(D / HEADS) * att.m_k[0]])
                values = torch.cat([att.fc_v(y), math.sqrt(memory) * att.m_v[0]])
                context = naive_attention(att, att.fc_q(y), keys, values, seen)
                y = layer.mhatt.layer_norm(y + context)
                inner = layer.pwff.fc2(torch.relu(layer.pwff.fc1(y)))
                y = layer.pwff.layer_norm(y + inner)
                torch.testing.assert_close(found[image, number], y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_decoder_layer_equals_the_formula(groups):
    torch.manual_seed(0)
    layer = MeshedDecoderLayer(
        dim_model=D, num_heads=HEADS, dim_feedforward=24, dropout=0.0, num_levels=LEVELS
    ).double()
    levels = torch.randn(2, LEVELS, 5, D, dtype=torch.double)
    y = torch.randn(2 * groups, 4, D, dtype=torch.double)
    visible = torch.tensor([[True] * 5, [True, False, True, True, False]])
    lower = torch.ones(4, 4, dtype=torch.bool).tril()
    memory = layer.enc_att.attention.project_levels(levels, visible)
    mask = additive(visible[:, None, None], torch.double)
    found = layer(y, memory, additive(lower, torch.double), mask)
    for row in range(2 * groups):
        own, cross = layer.self_att.attention, layer.enc_att.attention
        q, k, v = own.fc_q(y[row]), own.fc_k(y[row]), own.fc_v(y[row])
        a = layer.self_att.layer_norm(y[row] + naive_attention(own, q, k, v, lower))
        z = 0
        for level, fc in enumerate(layer.fc_alpha):
            x = levels[row // groups, level]
            context = naive_attention(
                cross, cross.fc_q(a), cross.fc_k(x), cross.fc_v(x), visible[row // groups]
            )
            e = layer.enc_att.layer_norm(a + context)
            z = z + torch.sigmoid(fc(torch.cat([a, e], -1))) * e / math.sqrt(LEVELS)
        inner = layer.pwff.fc2(torch.relu(layer.pwff.fc1(z)))
        torch.testing.assert_close(found[row], layer.pwff.layer_norm(z + inner))


def test_packed_regions_give_the_same_memory():
    torch.manual_seed(0)
    att = MemoryAttention(dim_model=D, num_heads=HEADS)
    levels = torch.randn(2, LEVELS, 5, D)
    visible = torch.tensor([[True, False, True, True, False], [False, True, True, False, False]])
    plain = att.project_levels(levels, visible)
    packed = att.project_levels(levels, visible, Packing.of(visible))
    for one, other in zip(plain, packed, strict=True):
        assert one.shape == (2, LEVELS * HEADS, 5, D // HEADS)
        real = visible[:, None, :, None]
        torch.testing.assert_close(one * real, other)
    assert not plain[1][1, :, ~visible[1]].any()  # values of hidden regions


def word_by_word(model, batch, tokens, index):
    state, logits = model.start(batch), []
    state["rows"] = trees.reorder(state["rows"], index)
    for t in range(tokens.shape[1]):
        out, state = model.step(tokens[:, t], state)
        logits.append(out)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("images", [2, 9])
@pytest.mark.parametrize("groups", [1, 3])
def test_cached_steps_equal_all_words_at_once(model, tiny, images, groups):
    batch = tiny.batch(images=images, groups=groups, length=6)
    tokens = torch.randint(1, 23, (images * groups, 6), generator=torch.Generator().manual_seed(4))
    batch[kfg.G_TOKENS_IDS] = tokens
    index = torch.arange(images).repeat_interleave(groups)
    with torch.no_grad():
        expected = model(batch)[kfg.G_LOGITS]
        found = word_by_word(model, batch, tokens, index)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_step_costs_the_same_at_any_time(model, tiny):
    batch, costs = tiny.batch(images=2, groups=1), []
    with torch.no_grad():
        state = model.start(batch)
        state["rows"] = trees.reorder(state["rows"], torch.tensor([0, 0, 1, 1]))
        for t in range(5):
            with FlopCounterMode(display=False) as counter:
                _, state = model.step(torch.arange(4) + t, state)
            counts = counter.get_flop_counts()["Global"]
            products = (torch.ops.aten.mm, torch.ops.aten.addmm)
            costs.append(sum(counts.get(op, 0) for op in products))
    assert costs[0] > 0 and len(set(costs)) == 1


def gradients(model, batch):
    model.zero_grad()
    outputs = model(batch)
    (loss,) = CrossEntropy()(outputs).values()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_padding_is_left_out_without_a_difference(tiny):
    torch.manual_seed(0)
    model = tiny.without_dropout(build_model(meshed_cfg()))
    batch = tiny.batch(images=4, groups=3)
    plain, grads = gradients(model.eval(), batch)
    fast, fast_grads = gradients(model.train(), batch)
    torch.testing.assert_close(plain, fast)
    assert grads.keys() == fast_grads.keys() == dict(model.named_parameters()).keys()
    for name, grad in grads.items():
        torch.testing.assert_close(fast_grads[name], grad, atol=1e-5, rtol=1e-3, msg=name)


def test_an_image_without_regions_does_not_depend_on_its_batch(model, tiny):
    batch = tiny.batch(images=3, groups=1)
    batch[kfg.ATT_MASKS] = batch[kfg.ATT_MASKS].clone()
    batch[kfg.ATT_MASKS][1] = False
    keys = (kfg.ATT_FEATS, kfg.ATT_MASKS)
    alone = {key: batch[key][1:2, :2] for key in keys}
    none = {key: batch[key][1:2, :0] for key in keys}
    model.beam_searcher.beam_size = 2
    with torch.no_grad():
        found = [model(b, use_beam_search=True) for b in (batch, alone, none)]
    assert torch.isfinite(found[0][kfg.G_LOGP]).all()
    for other in found[1:]:
        assert torch.equal(found[0][kfg.G_SENTS_IDS][1:2], other[kfg.G_SENTS_IDS])
        torch.testing.assert_close(found[0][kfg.G_LOGP][1:2], other[kfg.G_LOGP])


def test_attention_maps_on_request(model, tiny):
    batch = tiny.batch(images=3, groups=1)
    with torch.no_grad():
        state = model.start({**batch, "RETURN_ATTENTION": True})
        _, state = model.step(torch.zeros(3, dtype=torch.long), state)
    torch.testing.assert_close(state["attention"].sum(1), torch.ones(3))
    assert not state["attention"][~batch[kfg.ATT_MASKS]].any()


def test_the_last_layer_alone_serves_other_decoders(tiny):
    cfg = meshed_cfg(DECODER="TransformerDecoder", ALL_LAYERS=False)
    loss, grads = gradients(build_model(cfg), tiny.batch())
    assert torch.isfinite(loss) and grads["encoder.layers.0.mhatt.attention.m_k"].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ENCODER": "TransformerEncoder"}, "set MODEL.ENCODER to MemoryAugmentedEncoder"),
        ({"ALL_LAYERS": False}, "MESHEDMEORY.ENCODER.ALL_LAYERS to True"),
        ({"DECODER_DIM": 20}, "MODEL.DECODER_DIM to equal MODEL.MESHEDMEORY.DECODER.DIM_MODEL"),
    ],
)
def test_what_does_not_fit_is_refused_at_build_time(changes, message):
    with pytest.raises(UserError, match=message):
        build_model(meshed_cfg(**changes))


def test_embedding_drops_before_the_norm(tiny):
    torch.manual_seed(0)
    cfg = meshed_cfg(EMBED="MeshedMemoryVisualEmbedding")
    cfg.MODEL.VISUAL_EMBED.USE_NORM, cfg.MODEL.VISUAL_EMBED.DROPOUT = True, 0.5
    embed = MeshedMemoryVisualEmbedding(cfg)
    batch = tiny.batch()
    torch.manual_seed(1)
    found = embed(batch)[kfg.ATT_FEATS]
    torch.manual_seed(1)
    dropped = torch.dropout(embed.embeddings(batch[kfg.ATT_FEATS]), 0.5, True)
    torch.testing.assert_close(found, embed.embeddings_norm(dropped))
    assert isinstance(build_model(cfg).visual_embed, MeshedMemoryVisualEmbedding)
