"""COS-Net against its formulas; semantic words once per image or once per caption."""

import math
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import get_cfg, kfg
from xmodaler.functional import trees
from xmodaler.losses import CrossEntropy, SemComphderLoss
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.layers.cosnet_attention import COSNetAttention
from xmodaler.modeling.layers.masking import additive
from xmodaler.utils.errors import UserError

D, HEADS, CLASSES, SLOTS = 16, 4, 9, 2


def cosnet_cfg(**changes):
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.VOCAB_SIZE, model.MAX_SEQ_LEN, model.DECODER_DIM = "cpu", 23, 7, D
    model.META_ARCHITECTURE = "TransformerEncoderDecoder"
    model.ENCODER = changes.pop("ENCODER", "COSNetEncoder")
    model.DECODER = changes.pop("DECODER", "COSNetDecoder")
    model.PREDICTOR, model.TOKEN_EMBED.NAME = "BasePredictor", "TokenBaseEmbedding"
    model.VISUAL_EMBED.NAME = "VisualGridEmbedding"
    cfg.LOSSES.NAMES = ["CrossEntropy", "SemComphderLoss"]
    add_config(cfg, cfg)
    model.TOKEN_EMBED.DIM = model.VISUAL_EMBED.OUT_DIM = model.BERT.HIDDEN_SIZE = D
    model.TOKEN_EMBED.POSITION = "SinusoidEncoding"
    model.VISUAL_EMBED.IN_DIM, model.VISUAL_EMBED.G_IN_DIM = 10, 9
    cfg.DATALOADER.MAX_FEAT_NUM = 6
    model.BERT.NUM_ATTENTION_HEADS, model.BERT.INTERMEDIATE_SIZE = HEADS, 24
    model.BERT.NUM_HIDDEN_LAYERS = 1
    model.BERT.NUM_GENERATION_LAYERS = 3
    model.BERT.LAYER_DROP = changes.pop("LAYER_DROP", 0.0)
    if "SLOT_SIZE" in model.get("COSNET", {}):
        model.COSNET.NUM_SEMCOMPHDER_LAYERS, model.COSNET.SLOT_SIZE = 2, SLOTS
        model.COSNET.NUM_CLASSES, model.COSNET.MAX_POS = CLASSES, 5
    for key, value in changes.items():
        model[key] = value
    return cfg


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(cosnet_cfg()).eval()


@pytest.fixture
def batch_of(tiny):
    def make(images=3, groups=2, rows=None, length=8):
        """A batch with ``rows`` rows of semantic words: one per image by default."""
        batch = tiny.batch(images=images, groups=groups, length=length, global_dim=9)
        generator = torch.Generator().manual_seed(5)
        rows, words = rows or images, 4
        ids = torch.randint(0, CLASSES, (rows, words), generator=generator)
        shown = torch.arange(words) < torch.randint(1, words + 1, (rows, 1), generator=generator)
        shown[0] = True
        right = torch.rand(rows, words, generator=generator) < 0.6
        missing = torch.rand(rows, CLASSES + 1, generator=generator) < 0.3
        missing[:, -1] = False
        return {
            **batch,
            kfg.SEMANTICS_IDS: ids * shown,
            kfg.SEMANTICS_MASK: shown,
            kfg.SEMANTICS_LABELS: torch.where(shown, torch.where(right, ids, CLASSES), -1),
            kfg.SEMANTICS_MISS_LABELS: missing.long(),
        }

    return make


SEMANTIC = (
    kfg.SEMANTICS_IDS,
    kfg.SEMANTICS_MASK,
    kfg.SEMANTICS_LABELS,
    kfg.SEMANTICS_MISS_LABELS,
)


def heads_of(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)


def naive_attention(query, keys, values, visible):
    scores = heads_of(query) @ heads_of(keys).mT / math.sqrt(D / HEADS)
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return (weights @ heads_of(values)).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("semantic_rows", [2, 6])
def test_gated_attention_equals_the_formula(semantic_rows):
    torch.manual_seed(0)
    att = COSNetAttention(
        hidden_size=D,
        num_attention_heads=HEADS,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    ).double()
    picture = torch.randn(2, 5, D, dtype=torch.double)
    semantics = torch.randn(semantic_rows, 3, D, dtype=torch.double)
    y = torch.randn(6, 4, D, dtype=torch.double)
    seen = torch.rand(2, 5) < 0.7
    said = torch.rand(semantic_rows, 3) < 0.7
    seen[:, 0] = said[:, 0] = True
    lower = torch.ones(4, 4, dtype=torch.bool).tril()
    masks = tuple(additive(shown[:, None, None], torch.double) for shown in (seen, said))
    memory = att.project_memory(picture, semantics)
    found = att(y, memory, additive(lower, torch.double), masks)
    for row in range(6):
        image, words = row // 3, row * semantic_rows // 6
        q = att.query(y[row])
        own = att.c_proj(naive_attention(q, att.key(y[row]), att.value(y[row]), lower))
        keys, values = att.v_attn(picture[image]).split(D, -1)
        of_picture = naive_attention(q, keys, values, seen[image])
        keys, values = att.o_attn(semantics[words]).split(D, -1)
        of_words = naive_attention(q, keys, values, said[words])
        both = att.vo_proj(torch.cat([of_picture, of_words], -1))
        gate = torch.sigmoid(att.gate_attn(torch.cat([own, both], -1)))
        expected = att.LayerNorm(gate * own + (1 - gate) * both + y[row])
        torch.testing.assert_close(found[row], expected)


def test_words_are_ranked_and_judged(model, batch_of):
    batch = batch_of()
    with torch.no_grad():
        out = model(batch)
    place = model.encoder.position
    ranks = out[kfg.SEMANTICS_POS_PRED]
    before = out[kfg.SEMANTICS_FEATS] - ranks.softmax(-1) @ place
    assert before.shape == (3, SLOTS + 4, D) and ranks.shape == (3, SLOTS + 4, 5)
    torch.testing.assert_close(before @ place.T, ranks, atol=1e-5, rtol=1e-4)
    judged = model.encoder.semantics_pred[1](before)
    torch.testing.assert_close(out[kfg.SEMANTICS_PRED], judged, atol=1e-5, rtol=1e-4)
    shown = out[kfg.EXT_SEMANTICS_MASKS][:, 0, 0] == 0
    assert shown[:, :SLOTS].all() and torch.equal(shown[:, SLOTS:], batch[kfg.SEMANTICS_MASK])


def test_hidden_words_do_not_matter(model, batch_of):
    batch = batch_of()
    other = {**batch, kfg.SEMANTICS_IDS: batch[kfg.SEMANTICS_IDS] + ~batch[kfg.SEMANTICS_MASK]}
    longer = {
        **batch,
        kfg.SEMANTICS_IDS: torch.nn.functional.pad(batch[kfg.SEMANTICS_IDS], (0, 3)),
        kfg.SEMANTICS_MASK: torch.nn.functional.pad(batch[kfg.SEMANTICS_MASK].float(), (0, 3)),
    }
    with torch.no_grad():
        expected = model(batch)[kfg.G_LOGITS]
        for changed in (other, longer):
            torch.testing.assert_close(model(changed)[kfg.G_LOGITS], expected, atol=1e-5, rtol=1e-4)


def gradients(model, batch):
    model.zero_grad()
    outputs = model(batch)
    losses = SemComphderLoss(
        num_classes=CLASSES, slot_size=SLOTS, filter_weight=1.0, reconstruct_weight=0.1
    )
    loss = sum({**CrossEntropy()(outputs), **losses(outputs)}.values())
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [False, True])
def test_words_per_image_equal_the_same_words_per_caption(tiny, batch_of, training):
    torch.manual_seed(0)
    model = tiny.without_dropout(build_model(cosnet_cfg())).train(training)
    batch = batch_of()
    repeated = {**batch, **{key: batch[key].repeat_interleave(2, 0) for key in SEMANTIC}}
    (one, grads), (other, others) = gradients(model, batch), gradients(model, repeated)
    torch.testing.assert_close(one, other)
    assert grads.keys() == others.keys() == dict(model.named_parameters()).keys()
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, atol=1e-5, rtol=1e-3, msg=name)


def test_each_caption_has_its_own_words(model, batch_of):
    batch = batch_of(rows=6)
    with torch.no_grad():
        together = model(batch)[kfg.G_LOGITS]
        for row in range(6):
            alone = {key: batch[key][row : row + 1] for key in SEMANTIC}
            for key in (kfg.G_TOKENS_IDS, kfg.G_TARGET_IDS, kfg.TOKENS_MASKS):
                alone[key] = batch[key][row : row + 1]
            for key in (kfg.ATT_FEATS, kfg.ATT_MASKS, kfg.GLOBAL_FEATS):
                alone[key] = batch[key][row // 2 : row // 2 + 1]
            logits = model(alone)[kfg.G_LOGITS][0]
            torch.testing.assert_close(together[row], logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("images", [2, 9])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("grad", [False, True])
def test_cached_steps_equal_all_words_at_once(model, batch_of, images, groups, grad):
    batch = batch_of(images=images, groups=groups, length=6)
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(1, 23, (images * groups, 6), generator=generator)
    batch[kfg.G_TOKENS_IDS] = tokens
    with torch.set_grad_enabled(grad):
        expected = model(batch)[kfg.G_LOGITS]
        found = word_by_word(model, batch, tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    if grad:
        weights = list(model.decoder.parameters())
        probe = torch.linspace(-1, 1, expected.numel()).view_as(expected)
        one = torch.autograd.grad((expected * probe).sum(), weights)
        other = torch.autograd.grad((found * probe).sum(), weights)
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def word_by_word(model, batch, tokens):
    state, images = model.start(batch), batch[kfg.ATT_FEATS].shape[0]
    for leaf in trees.tensors(state["memory"]):
        assert leaf.shape[0] == images
    index = torch.arange(images).repeat_interleave(len(tokens) // images)
    state["rows"], logits = trees.reorder(state["rows"], index), []
    for t in range(tokens.shape[1]):
        out, state = model.step(tokens[:, t], state)
        logits.append(out)
    return torch.stack(logits, 1)


def test_a_step_costs_the_same_at_any_time(model, batch_of):
    batch, costs = batch_of(images=2, groups=1), []
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


@pytest.mark.parametrize("beam", [False, True])
def test_a_training_batch_is_decoded_with_the_words_of_first_captions(model, batch_of, beam):
    batch = batch_of(rows=6)
    first = {**batch, **{key: batch[key][::2] for key in SEMANTIC}}
    model.beam_searcher.beam_size = 3
    with torch.no_grad():
        one, other = (model(b, use_beam_search=beam)[kfg.G_SENTS_IDS] for b in (batch, first))
    assert torch.equal(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_an_image_without_regions_gives_numbers(model, batch_of, training):
    batch = batch_of()
    batch[kfg.ATT_MASKS][1] = False
    loss, grads = gradients(model.train(training), batch)
    assert torch.isfinite(loss) and all(torch.isfinite(grad).all() for grad in grads.values())
    with torch.no_grad():
        assert torch.isfinite(model.eval()(batch, use_beam_search=False)[kfg.G_LOGP]).all()


def test_attention_maps_on_request(model, batch_of):
    with torch.no_grad():
        state = model.start({**batch_of(groups=1), "RETURN_ATTENTION": True})
        _, state = model.step(torch.zeros(3, dtype=torch.long), state)
    assert state["attention"].shape == (3, 6)
    torch.testing.assert_close(state["attention"].sum(1), torch.ones(3))


def test_layers_are_dropped_as_often_as_asked_and_by_seed():
    decoder = build_model(cosnet_cfg(LAYER_DROP=0.6)).decoder.train()
    random.seed(0)
    drawn = torch.tensor([decoder._dropped() for _ in range(2000)]).double()
    expected = torch.tensor([0.2, 0.4, 0.6], dtype=torch.double)
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.05, rtol=0)
    random.seed(0)
    assert decoder._dropped() == drawn[0].bool().tolist()
    before = random.getstate()
    assert decoder.eval()._dropped() == [False] * 3 and random.getstate() == before


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_dropped_layer_is_left_out_of_every_step(tiny, batch_of, seed):
    torch.manual_seed(0)
    model = tiny.without_dropout(build_model(cosnet_cfg(LAYER_DROP=1.0))).train()
    batch = {k: v for k, v in batch_of(length=6).items() if k != kfg.G_TARGET_IDS}
    tokens = batch[kfg.G_TOKENS_IDS]
    with torch.no_grad():
        random.seed(seed)
        expected = model(batch)[kfg.G_LOGITS]
        random.seed(seed)
        found = word_by_word(model, batch, tokens)
        whole = model.eval()(batch)[kfg.G_LOGITS]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (whole - expected).abs().max() > 1e-3  # the last layer is always dropped


def test_without_semantic_words(model, tiny, batch_of):
    batch = {k: v for k, v in batch_of().items() if k not in SEMANTIC}
    with pytest.raises(UserError, match="SEMANTICS_IDS is missing from the batch"):
        model(batch)
    model = build_model(cosnet_cfg(ENCODER="GTransformerEncoder"))
    with pytest.raises(UserError, match=r"set MODEL\.ENCODER to COSNetEncoder"):
        model(batch)
    with pytest.raises(UserError, match=r"MODEL\.DECODER_DIM to equal MODEL\.BERT\.HIDDEN_SIZE"):
        build_model(cosnet_cfg(DECODER_DIM=20))


def test_other_decoders_run_on_its_grid(tiny, batch_of):
    model = build_model(cosnet_cfg(DECODER="TransformerDecoder")).eval()
    with torch.no_grad():
        assert torch.isfinite(model(batch_of())[kfg.G_LOGITS]).all()
