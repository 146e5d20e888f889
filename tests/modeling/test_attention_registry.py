"""Every attention with every recurrent decoder, and what single attentions promise."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.losses import CrossEntropy
from xmodaler.modeling.attention import ATTENTION_REGISTRY, CoAttention
from xmodaler.modeling.decoder import DECODER_REGISTRY, RecurrentDecoder
from xmodaler.modeling.encoder import ENCODER_REGISTRY
from xmodaler.utils.errors import UserError

ATTENTIONS = [
    "AdditiveAttention",
    "TopDownAttention",
    "MultiHeadQueryAttention",
    "MemoryAugmentedQueryAttention",
    "MeshedQueryAttention",
    "LowRankBilinearAttention",
]
ATTENDING = ["UpDownDecoder", "SALSTMDecoder", "GRUDecoder", "XLANDecoder"]
WITHOUT_CHOICE = ["MPLSTMDecoder", "AttributeDecoder"]
DIM = 16


def settings(decoder, attention):
    """The one line that changes is MODEL.ATTENTION; the rest are the sizes of the decoder."""
    changes = {"MODEL__DECODER": decoder, "MODEL__DECODER_DIM": DIM}
    changes["MODEL__TOKEN_EMBED__DIM"] = DIM
    if decoder == "XLANDecoder":
        changes["MODEL__BILINEAR__DIM"], changes["MODEL__BILINEAR__HEAD"] = DIM, 4
        changes["MODEL__BILINEAR__DECODE__ATT_MID_DIM"] = [4, 3, 4]
    else:
        section = {"UpDownDecoder": "UPDOWN", "SALSTMDecoder": "SALSTM", "GRUDecoder": "GRU"}
        if decoder in section:
            changes[f"MODEL__{section[decoder]}__ATT_EMBED_SIZE"] = 8
    if attention is not None:
        changes["MODEL__ATTENTION"] = attention
    if attention == "LowRankBilinearAttention":
        changes["MODEL__BILINEAR_ATTENTION__NUM_HEADS"] = 2
    return changes


def build(tiny, decoder, attention):
    return tiny.model("updown", **settings(decoder, attention))


def test_the_registry_is_complete():
    assert set(ATTENTIONS) | {"CoAttention"} == set(dict(ATTENTION_REGISTRY))
    # Other tests register decoders of their own.
    own = {name: cls for name, cls in DECODER_REGISTRY if cls.__module__.startswith("xmodaler.")}
    recurrent = {name for name, cls in own.items() if issubclass(cls, RecurrentDecoder)}
    assert recurrent | {"UpDownDecoder"} == {*ATTENDING, *WITHOUT_CHOICE}


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("decoder", ATTENDING)
def test_every_combination_trains_and_decodes(tiny, decoder, attention):
    model = build(tiny, decoder, attention)
    chosen = ATTENTION_REGISTRY.get(attention)
    attending = [m for m in model.decoder.modules() if type(m) is chosen]
    assert len(attending) == 1
    batch = tiny.batch(images=3, groups=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        (loss,) = CrossEntropy()(model.train()(batch)).values()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    with torch.no_grad():
        found = model.eval()({**batch, "RETURN_ATTENTION": True}, use_beam_search=True)
    maps = found["ATTENTION_MAPS"]
    hidden = ~batch[kfg.ATT_MASKS][:, None].expand_as(maps)
    assert (maps[hidden].abs() < 1e-6).all() and maps.sum() > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_queries_of_an_image_are_folded(tiny, attention):
    """G queries per image give what G copies of the image would."""
    model = build(tiny, "SALSTMDecoder", attention).eval()
    batch = tiny.batch(images=3, groups=4)
    repeated = {**batch}
    for key in (kfg.ATT_FEATS, kfg.ATT_MASKS):
        repeated[key] = batch[key].repeat_interleave(4, dim=0)
    with torch.no_grad():
        folded, copied = (model(b)[kfg.G_LOGITS] for b in (batch, repeated))
    torch.testing.assert_close(folded, copied)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("decoder", ATTENDING)
def test_scores_do_not_depend_on_padding_or_neighbours(tiny, decoder, attention):
    """Not even those of an image without any feature."""
    model = build(tiny, decoder, attention).eval()
    batch = tiny.batch(images=3, groups=2)
    batch[kfg.ATT_MASKS][1] = False
    batch[kfg.ATT_FEATS][1] = 0
    model.beam_searcher.beam_size = 2
    with torch.no_grad():
        together = model(batch)[kfg.G_LOGITS]
        found = model(batch, use_beam_search=True)
        for image in range(3):
            text = slice(2 * image, 2 * image + 2)
            one = {
                kfg.IDS: batch[kfg.IDS][image : image + 1],
                kfg.ATT_FEATS: torch.cat([batch[kfg.ATT_FEATS], torch.ones(3, 4, 10)], 1)[image][
                    None
                ],
                kfg.ATT_MASKS: torch.cat([batch[kfg.ATT_MASKS], torch.zeros(3, 4) > 0], 1)[image][
                    None
                ],
                kfg.G_TOKENS_IDS: batch[kfg.G_TOKENS_IDS][text],
                kfg.G_TARGET_IDS: batch[kfg.G_TARGET_IDS][text],
            }
            scored = one[kfg.G_TARGET_IDS] >= 0
            alone = model(one)[kfg.G_LOGITS]
            assert alone.isfinite().all()
            torch.testing.assert_close(alone[scored], together[text][scored], atol=1e-5, rtol=1e-4)
            again = model(one, use_beam_search=True)
            assert torch.equal(again[kfg.G_SENTS_IDS][0], found[kfg.G_SENTS_IDS][image])
            torch.testing.assert_close(again[kfg.G_LOGP][0], found[kfg.G_LOGP][image])


@pytest.fixture
def stacking_encoder():
    """The name of an encoder that hands on its input and twice its input."""

    class StackingEncoder(torch.nn.Module):
        accepts_packing = True

        def __init__(self, cfg):
            super().__init__()

        def forward(self, batch, mode=None):
            feats = batch[kfg.ATT_FEATS]
            return {kfg.ATT_FEATS: torch.stack([feats, 2 * feats], dim=1)} if mode == "v" else {}

    ENCODER_REGISTRY.register(StackingEncoder)
    yield StackingEncoder.__name__
    del ENCODER_REGISTRY._objects[StackingEncoder.__name__]


def test_a_recurrent_decoder_reads_all_levels_of_an_encoder(tiny, stacking_encoder):
    changes = settings("SALSTMDecoder", "MeshedQueryAttention")
    changes["MODEL__ENCODER"] = stacking_encoder
    model = tiny.model("updown", **changes, MODEL__MULTIHEAD_ATTENTION__NUM_LEVELS=2)
    sum(CrossEntropy()(model.train()(tiny.batch())).values()).backward()
    gates = model.decoder.att.gates
    assert all(gate.weight.grad.abs().sum() > 0 for gate in gates)
    with torch.no_grad():
        found = model.eval()(tiny.batch(), use_beam_search=True)
    assert found[kfg.G_SENTS_IDS].shape == (3, 7)


def test_a_recurrent_decoder_reads_a_transformer_encoder(tiny):
    widths = {f"MODEL__{name}": 16 for name in ("DECODER_DIM", "BERT__HIDDEN_SIZE")}
    changes = {**settings("SALSTMDecoder", "AdditiveAttention"), **widths}
    changes.update(MODEL__ENCODER="TransformerEncoder", MODEL__BERT__NUM_ATTENTION_HEADS=2)
    model, batch = tiny.model("updown", **changes), tiny.batch()
    sum(CrossEntropy()(model.train()(batch)).values()).backward()
    assert model.encoder.layers[0].attention.self.query.weight.grad.abs().sum() > 0
    hidden = ~batch[kfg.ATT_MASKS]
    assert hidden.any()
    with torch.no_grad():
        before = model.eval()(batch)[kfg.G_LOGITS]
        batch[kfg.ATT_FEATS] = batch[kfg.ATT_FEATS].masked_fill(hidden.unsqueeze(-1), 7.0)
        torch.testing.assert_close(model(batch)[kfg.G_LOGITS], before)


def test_levels_are_refused_by_attentions_that_read_one(tiny, stacking_encoder):
    changes = settings("SALSTMDecoder", "TopDownAttention")
    model = tiny.model("updown", **{**changes, "MODEL__ENCODER": stacking_encoder})
    with pytest.raises(UserError, match="2 levels of features, but TopDownAttention reads one"):
        model(tiny.batch())


@pytest.mark.parametrize("decoder", ATTENDING)
def test_co_attention_is_refused_where_single_vectors_ask(tiny, decoder):
    with pytest.raises(UserError, match=r"CoAttention.*two whole sequences.*TopDownAttention"):
        build(tiny, decoder, "CoAttention")


@pytest.mark.parametrize("decoder", WITHOUT_CHOICE)
def test_decoders_without_attention_refuse_one(tiny, decoder):
    with pytest.raises(UserError, match=f"MultiHeadQueryAttention.*{decoder}"):
        build(tiny, decoder, "MultiHeadQueryAttention")


def test_transformers_refuse_the_attention_of_recurrent_decoders(tiny):
    with pytest.raises(UserError, match=r"TopDownAttention.*TransformerDecoder"):
        tiny.model("transformer", MODEL__ATTENTION="TopDownAttention")


def test_xlan_takes_x_linear_attention_unless_told_otherwise(tiny):
    model = build(tiny, "XLANDecoder", None)
    block = model.decoder.attention.layers[0].encoder_attn
    assert type(block) is ATTENTION_REGISTRY.get("LowRankBilinearAttention")


def make(name, query_dim=6, memory_dim=8, embed_dim=8, **kwargs):
    torch.manual_seed(1)
    cls = ATTENTION_REGISTRY.get(name)
    return cls(query_dim=query_dim, memory_dim=memory_dim, embed_dim=embed_dim, **kwargs)


def prepared(attention, memory, mask=None):
    projection = attention.memory_projection()
    return projection, attention.precompute(memory, mask, projection(memory))


def test_top_down_attention_is_a_gated_tanh_unit():
    attention = make("TopDownAttention")
    memory, query = torch.randn(1, 5, 8), torch.randn(1, 6)
    projection, ready = prepared(attention, memory)
    scores = []
    for region in memory[0]:
        joint = attention.w_h.weight @ query[0] + projection.weight @ region + projection.bias
        scores.append(attention.w_alpha.weight[0] @ (joint[:8].tanh() * joint[8:].sigmoid()))
    weights = torch.stack(scores).softmax(0)
    context, given = attention(query, ready)
    torch.testing.assert_close(given[0], weights)
    torch.testing.assert_close(context[0], weights @ memory[0])


def test_learned_memory_takes_part_and_is_never_hidden():
    attention = make("MemoryAugmentedQueryAttention", num_heads=2, num_memory=3).eval()
    with torch.no_grad():
        attention.m_k.mul_(10)
    memory, query = torch.randn(2, 5, 8), torch.randn(4, 6)
    mask = torch.zeros(2, 5)
    mask[1] = torch.finfo(torch.float32).min / 2
    _, ready = prepared(attention, memory, mask)
    context, weights = attention(query, ready, need_weights=True)
    assert weights.shape == (4, 5)
    assert (weights[:2].sum(1) < 1).all() and (weights[:2].sum(1) > 0).all()
    assert (weights[2:] == 0).all(), "without regions all of it goes to the memory"
    fast, _ = attention(query, ready)
    torch.testing.assert_close(fast, context)


def test_meshed_attention_gates_every_level():
    attention = make("MeshedQueryAttention", num_heads=2, num_levels=3).eval()
    plain = make("MultiHeadQueryAttention", num_heads=2).eval()
    plain.load_state_dict({k: v for k, v in attention.state_dict().items() if "gates" not in k})
    levels, query = torch.randn(2, 3, 5, 8), torch.randn(4, 6)
    projection, ready = prepared(attention, levels)
    expected = 0
    for number, gate in enumerate(attention.gates):
        level = levels[:, number]
        found, _ = plain(query, plain.precompute(level, None, projection(level)))
        expected = expected + gate(torch.cat([query, found], -1)).sigmoid() * found / 3**0.5
    context, weights = attention(query, ready, need_weights=True)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))


def test_meshed_attention_names_a_wrong_number_of_levels():
    attention = make("MeshedQueryAttention", num_heads=2, num_levels=3)
    with pytest.raises(UserError, match="NUM_LEVELS is 3 but the encoder hands on 1"):
        prepared(attention, torch.randn(2, 5, 8))


def test_co_attention_follows_the_paper():
    torch.manual_seed(0)
    part = CoAttention(image_dim=4, text_dim=3, embed_dim=5)
    image, text = torch.randn(1, 6, 4), torch.randn(1, 2, 3)
    affinity = torch.tanh(torch.einsum("td,vd,nv->tn", text[0], part.affinity.weight, image[0]))
    v, q = part.image_embed(image[0]), part.text_embed(text[0])
    a_v = part.image_score(torch.tanh(v + affinity.T @ q)).squeeze(1).softmax(0)
    a_q = part.text_score(torch.tanh(q + affinity @ v)).squeeze(1).softmax(0)
    found = part(image, text)
    torch.testing.assert_close(found.image_weights[0], a_v)
    torch.testing.assert_close(found.text_weights[0], a_q)
    torch.testing.assert_close(found.image[0], a_v @ image[0])
    torch.testing.assert_close(found.text[0], a_q @ text[0])


def test_co_attention_folds_texts_and_ignores_padding():
    torch.manual_seed(0)
    part = CoAttention(image_dim=4, text_dim=3, embed_dim=5)
    image, text = torch.randn(2, 6, 4), torch.randn(6, 5, 3)
    seen_regions = torch.arange(6) < torch.tensor([[6], [4]])
    seen_words = torch.arange(5) < torch.tensor([[5], [2], [3], [1], [4], [0]])
    found = part(image, text, seen_regions, seen_words)
    for row in range(6):
        regions, words = (6, 4)[row // 3], int(seen_words[row].sum())
        if words == 0:
            assert (found.text[row] == 0).all() and found.image[row].isfinite().all()
            continue
        alone = part(image[row // 3, None, :regions], text[row, None, :words])
        torch.testing.assert_close(alone.image[0], found.image[row])
        torch.testing.assert_close(alone.text[0], found.text[row])
    found.image.sum().backward()
    assert all(p.grad is not None for p in (part.affinity.weight, part.text_embed.weight))
