"""X-linear attention equals its formula, and X-LAN computes alike in all its ways."""

import pytest
import torch
import torch.nn.functional as F

from xmodaler.config import kfg
from xmodaler.losses import CrossEntropy
from xmodaler.modeling.decoder import XLANDecoder
from xmodaler.modeling.layers.bilinear_pooling import Regions
from xmodaler.modeling.layers.few_rows import multiply
from xmodaler.modeling.layers.low_rank_bilinear import LowRankBilinearLayer, RowGroupNorm
from xmodaler.modeling.layers.packing import Packing
from xmodaler.modeling.layers.word_products import WordProducts
from xmodaler.utils.errors import UserError

DIM, HEADS = 16, 4


def layer(mid_dims=(4, 3, 4), act="celu", dropout=0.0, seed=0):
    torch.manual_seed(seed)
    made = LowRankBilinearLayer(
        query_dim=6,
        memory_dim=10,
        embed_dim=DIM,
        num_heads=HEADS,
        mid_dims=mid_dims,
        mid_dropout=dropout,
        act=act,
    )
    for parameter in made.parameters():  # norms and biases would otherwise be ones and zeros
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def naive(block, query, memory, visible):
    """The formula of section 3.1, one image, one query and one region at a time."""

    def project(name, x):
        parts = getattr(block, name)
        y = F.linear(x, parts[0].weight, parts[0].bias)
        y = torch.where(y > 0, y, 1.3 * ((y / 1.3).exp() - 1))
        groups = y.view(HEADS, -1)
        variance = groups.var(1, unbiased=False, keepdim=True)
        groups = (groups - groups.mean(1, keepdim=True)) / (variance + 1e-5).sqrt()
        return (groups.flatten() * parts[-1].weight + parts[-1].bias).view(HEADS, -1)

    net, rows = block.attn_net, []
    groups = len(query) // len(memory)
    for row, q in enumerate(query):
        image = row // groups
        seen = [f for f, real in zip(memory[image], visible[image], strict=True) if real]
        hidden = []
        for f in seen:
            a = project("in_proj_q", q) * project("in_proj_k", f)
            for linear in (m for m in net.attention_basic or [] if hasattr(m, "weight")):
                a = F.linear(a, linear.weight, linear.bias).clamp(min=0)
            hidden.append(a)
        a = torch.stack(hidden)  # (n, heads, mid)
        scores = torch.einsum("nhm,m->nh", a, net.attention_last.weight[0])
        values = torch.stack([project("in_proj_v2", f) for f in seen])
        context = torch.einsum("nh,nhd->hd", scores.softmax(0), values)
        last = net.attention_last2
        gate = (torch.einsum("nhm,dm->hd", a, last.weight) / len(seen) + last.bias).sigmoid()
        rows.append((project("in_proj_v1", q) * context * gate).flatten())
    return torch.stack(rows)


def regions_of(block, memory, visible, packing=None):
    rows = memory.flatten(0, 1) if packing is None else packing.pack(memory)
    pair = block.project_memory(rows)
    if packing is None:
        pair = (part.unflatten(0, memory.shape[:2]) for part in pair)
    return Regions(*pair, visible, packing)


def example(groups=2):
    torch.manual_seed(5)
    visible = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]]).bool()
    return torch.randn(3 * groups, 6), torch.randn(3, 5, 10), visible


@pytest.mark.parametrize("mid_dims", [(4, 3, 4), (4, 7, 2, 4), (4, 4)])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_block_is_the_formula(mid_dims, gradients):
    block, (query, memory, visible) = layer(mid_dims).eval(), example()
    expected = naive(block, query, memory, visible)
    with torch.set_grad_enabled(gradients):
        found, _ = block.bilinear(query, regions_of(block, memory, visible))
        weighed, weights = block.bilinear(query, regions_of(block, memory, visible), True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weighed, expected)
    hidden = ~visible.repeat_interleave(2, dim=0)
    assert (weights[hidden] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(6))


@pytest.mark.parametrize("gradients", [True, False])
def test_packed_regions_give_the_same(gradients):
    block, (query, memory, visible) = layer().eval(), example()
    packing = Packing.of(visible)
    with torch.set_grad_enabled(gradients):
        packed, _ = block.bilinear(query, regions_of(block, memory, visible, packing))
        padded, _ = block.bilinear(query, regions_of(block, memory, visible))
    torch.testing.assert_close(packed, padded)


@pytest.mark.parametrize("gradients", [True, False])
def test_folded_queries_equal_repeated_images(gradients):
    block, (query, memory, visible) = layer().eval(), example(groups=3)
    with torch.set_grad_enabled(gradients):
        folded, _ = block.bilinear(query, regions_of(block, memory, visible))
        each = [part.repeat_interleave(3, dim=0) for part in (memory, visible)]
        repeated, _ = block.bilinear(query, regions_of(block, *each))
    torch.testing.assert_close(folded, repeated)


@pytest.mark.parametrize("gradients", [True, False])
def test_an_image_without_regions_gives_zeros(gradients):
    block, (query, memory, visible) = layer().eval(), example()
    visible[1] = False
    for packing in (None, Packing.of(visible)):
        with torch.set_grad_enabled(gradients):
            found, _ = block.bilinear(query, regions_of(block, memory, visible, packing))
        assert (found[2:4] == 0).all() and (found[:2] != 0).all()


def test_a_hidden_layer_drops_its_features_in_training():
    block, (query, memory, visible) = layer(dropout=0.5), example()
    found = [block.bilinear(query, regions_of(block, memory, visible))[0] for _ in range(2)]
    assert not torch.allclose(*found)


def test_row_group_norm_is_group_norm():
    torch.manual_seed(0)
    ours, theirs = RowGroupNorm(4, 12), torch.nn.GroupNorm(4, 12)
    for norm in (ours, theirs):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    x = torch.randn(7, 12)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"mid_dims": (4, 3, 5)}, r"ATT_MID_DIM is \[4, 3, 5\].*16 / 4 = 4"),
        ({"num_heads": 3}, "3 attention heads"),
        ({"act": "cellu"}, "did you mean 'celu'"),
    ],
)
def test_wrong_sizes_are_named(sizes, message):
    right = {"query_dim": 6, "memory_dim": 10, "embed_dim": 16, "num_heads": 4}
    with pytest.raises(UserError, match=message):
        LowRankBilinearLayer(**{**right, "mid_dims": (4, 3, 4), "mid_dropout": 0.0, **sizes})


def xlan(tiny, layers=1, **changes):
    sizes = {
        "MODEL__ENCODER": "LowRankBilinearEncoder",
        "MODEL__DECODER": "XLANDecoder",
        "MODEL__DECODER_DIM": DIM,
        "MODEL__TOKEN_EMBED__DIM": 12,
        "MODEL__BILINEAR__DIM": DIM,
        "MODEL__BILINEAR__HEAD": HEADS,
        "MODEL__BILINEAR__ENCODE__LAYERS": 2,
        "MODEL__BILINEAR__ENCODE__ATT_MID_DIM": [4, 3, 4],
        "MODEL__BILINEAR__DECODE__LAYERS": layers,
        "MODEL__BILINEAR__DECODE__ATT_MID_DIM": [4, 6, 5, 4],
    }
    return tiny.model("updown", **{**sizes, **changes})


def step_by_step(model):
    """Make a model ignore that its decoder could compute all steps at once."""
    model.predictor.position_wise = False
    return model


@pytest.mark.parametrize("layers", [1, 3])
def test_all_steps_at_once_equal_single_steps(tiny, layers):
    """Logits, and the gradients of every weight."""
    batch, results = tiny.batch(images=3, groups=3), []
    for ways in (lambda m: m, step_by_step):
        model = ways(tiny.without_dropout(xlan(tiny, layers)).train())
        outputs = model(batch)
        (loss,) = CrossEntropy()(outputs).values()
        loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        scored = batch[kfg.G_TARGET_IDS] >= 0
        results.append((outputs[kfg.G_LOGITS][scored], grads))
    (logits, grads), (other_logits, other_grads) = results
    torch.testing.assert_close(logits, other_logits)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, other_grads[name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("layers", [1, 3])
def test_beams_have_the_log_probabilities_of_their_words(tiny, layers):
    """Decoding shares work between hypotheses; scoring the found words does not."""
    model, batch = xlan(tiny, layers).eval(), tiny.batch(images=9, groups=1)
    model.beam_searcher.beam_size = 3
    with torch.no_grad():
        found = model(batch, use_beam_search=True)
        words = found[kfg.G_SENTS_IDS]
        given = {**batch, kfg.G_TOKENS_IDS: F.pad(words, (1, 0))[:, :-1], kfg.G_TARGET_IDS: words}
        log_probs = model(given)[kfg.G_LOGITS].log_softmax(-1).gather(2, words[..., None])[..., 0]
    counts = (words == 0).cumsum(1) - (words == 0).long() == 0
    torch.testing.assert_close(log_probs[counts], found[kfg.G_LOGP][counts], atol=1e-5, rtol=1e-4)


def test_scheduled_sampling_feeds_own_words(tiny):
    model = tiny.without_dropout(xlan(tiny)).train()
    batch = tiny.batch(images=4, groups=2)
    given = model(batch)[kfg.G_LOGITS]
    torch.manual_seed(0)
    outputs = model({**batch, kfg.SS_PROB: 1.0})
    own = outputs[kfg.G_LOGITS]
    torch.testing.assert_close(own[:, 0], given[:, 0])
    assert not torch.allclose(own[:, 1:], given[:, 1:], atol=1e-3)
    sum(CrossEntropy()(outputs).values()).backward()
    assert model.token_embed.embeddings.weight.grad.isfinite().all()


def test_features_come_back_in_the_encoder_as_without_packing(tiny):
    model, batch = xlan(tiny).eval(), tiny.batch(images=6)
    with torch.no_grad():
        packed, _ = model._encode(batch, skip_padding=True)
        padded, _ = model._encode(batch, skip_padding=False)
    seen = batch[kfg.ATT_MASKS]
    assert not seen.all()
    torch.testing.assert_close(packed[kfg.ATT_FEATS][seen], padded[kfg.ATT_FEATS][seen])
    torch.testing.assert_close(packed[kfg.GLOBAL_FEATS], padded[kfg.GLOBAL_FEATS])


def test_an_image_without_features_trains_and_decodes(tiny):
    model, batch = xlan(tiny), tiny.batch(images=3, groups=2)
    batch[kfg.ATT_MASKS][1] = False
    (loss,) = CrossEntropy()(model.train()(batch)).values()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        found = model.eval()(batch, use_beam_search=True)
    assert found[kfg.G_LOGP].isfinite().all()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("MODEL__DECODER_DIM", "MODEL.DECODER_DIM is 24 but MODEL.BILINEAR.DIM is 16"),
        ("MODEL__VISUAL_EMBED__OUT_DIM", "MODEL.VISUAL_EMBED.OUT_DIM is 24"),
    ],
)
def test_widths_that_must_agree(tiny, key, message):
    with pytest.raises(UserError, match=message):
        xlan(tiny, **{key: 24})


def test_words_are_multiplied_once():
    torch.manual_seed(0)
    weight, table = torch.randn(6, 9), torch.randn(20, 4)
    products = WordProducts(weight, slice(4))
    for ids in ([3, 3, 7, 1], [7, 5, 5, 3], [1, 1, 7, 5]):
        ids = torch.tensor(ids)
        expected = table[ids] @ weight[:, :4].T
        torch.testing.assert_close(products.of(ids, table[ids], None), expected)
    assert products._products.shape == (4, 6)
    moved = table[ids] + torch.arange(4.0)[:, None]  # an embedding that is not the word's alone
    torch.testing.assert_close(products.of(ids, moved, None), multiply(moved, weight[:, :4]))


def test_states_are_numbered_for_sharing(tiny):
    model = xlan(tiny).eval()
    assert isinstance(model.decoder, XLANDecoder)
    state = model.start(tiny.batch(images=8, groups=1))
    assert state["rows"][kfg.HISTORY_STATES].tolist() == list(range(8))
