"""Recurrent decoders: one path equals the other, and mistakes are said in a sentence."""

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.functional import trees
from xmodaler.losses import CrossEntropy
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.errors import UserError

VOCAB, FEATURES, ATTRIBUTES = 23, 10, 6
ADDITIVE, MULTIHEAD = "AdditiveAttention", "MultiHeadQueryAttention"
# Kind -> encoder, decoder, attention.
KINDS = {
    "salstm": ("Encoder", "SALSTMDecoder", ADDITIVE),
    "salstm_multihead": ("Encoder", "SALSTMDecoder", MULTIHEAD),
    "mplstm": ("UpDownEncoder", "MPLSTMDecoder", ""),
    "attributes": ("UpDownEncoder", "AttributeDecoder", ""),
    "gru": ("UpDownEncoder", "GRUDecoder", ""),
    "gru_additive": ("UpDownEncoder", "GRUDecoder", ADDITIVE),
    "gru_multihead": ("UpDownEncoder", "GRUDecoder", MULTIHEAD),
    "lstm_encoder": ("LSTMEncoder", "UpDownDecoder", ADDITIVE),
    "graph": ("GCNEncoder", "UpDownDecoder", ADDITIVE),
    "tags": ("TagEncoder", "SALSTMDecoder", ADDITIVE),
}


def small_cfg(kind, attention=None, **model_keys):
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.VOCAB_SIZE, model.MAX_SEQ_LEN, model.PRED_DROPOUT = "cpu", VOCAB, 7, 0.0
    model.META_ARCHITECTURE, model.PREDICTOR = "RnnAttEncoderDecoder", "BasePredictor"
    model.ENCODER, model.DECODER, model.ATTENTION = KINDS[kind]
    if attention is not None:
        model.ATTENTION = attention
    model.TOKEN_EMBED.NAME, model.VISUAL_EMBED.NAME = "TokenBaseEmbedding", "VisualBaseEmbedding"
    model.VISUAL_EMBED.IN_DIM, model.VISUAL_EMBED.OUT_DIM = FEATURES, 16
    model.TOKEN_EMBED.DIM, model.DECODER_DIM = 12, 20
    if kind == "mplstm":
        model.TOKEN_EMBED.DIM = 16
    if kind == "attributes":
        model.VISUAL_EMBED.NAME, model.TOKEN_EMBED.DIM = "VisualIdentityEmbedding", 20
    cfg.INFERENCE.VOCAB = ""
    add_config(cfg, cfg)
    for node in ("SALSTM", "GRU", "UPDOWN"):
        if node in model:
            model[node].ATT_EMBED_SIZE = 8
    if "LSTMA" in model:
        model.LSTMA.ATTRIBUTE_DIM, model.LSTMA.DROPOUT = ATTRIBUTES, 0.0
    if "GCN" in model:
        model.GCN.IN_DIM = model.GCN.OUT_DIM = 16
        model.GCN.RELATION_NUM, model.GCN.DROPOUT = 5, 0.0
    if "TAGS" in model:
        model.TAGS.ATTRIBUTE_NUM, model.TAGS.OBJECT_NUM, model.TAGS.MAX_TAGS = ATTRIBUTES, 4, 5
    if "MULTIHEAD_ATTENTION" in model:
        model.MULTIHEAD_ATTENTION.NUM_HEADS, model.MULTIHEAD_ATTENTION.DROPOUT = 2, 0.0
    for key, value in model_keys.items():
        set_key(model, key, value)
    return cfg


def set_key(node, key, value):
    *path, last = key.split("__")
    for part in path:
        node = node[part]
    node[last] = value


def small_model(kind, **changes):
    torch.manual_seed(0)
    return build_model(small_cfg(kind, **changes))


def small_batch(tiny, kind, images=3, groups=2, seed=0):
    batch = tiny.batch(images=images, groups=groups, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    regions = batch[kfg.ATT_FEATS].shape[1]
    batch[kfg.RELATION] = torch.randint(0, 5, (images, regions, regions), generator=generator)
    batch[kfg.ATTRIBUTE] = torch.rand(images, ATTRIBUTES, generator=generator)
    batch[kfg.V_TARGET] = torch.rand(images, regions, 4, generator=generator)
    batch[kfg.V_TARGET] *= batch[kfg.ATT_MASKS].unsqueeze(-1)
    if kind == "attributes":
        batch[kfg.GLOBAL_FEATS] = torch.rand(images, FEATURES, generator=generator)
        batch[kfg.ATT_FEATS] = torch.zeros(images, 1, 1)
        batch[kfg.ATT_MASKS] = torch.ones(images, 1, dtype=torch.bool)
    return batch


VISUAL = (kfg.ATT_FEATS, kfg.ATT_MASKS, kfg.RELATION, kfg.ATTRIBUTE, kfg.V_TARGET, kfg.GLOBAL_FEATS)


def only(batch, image, groups):
    """The part of a batch that belongs to one image, without its padding."""
    part = {key: batch[key][image : image + 1] for key in VISUAL if key in batch}
    count = int(part[kfg.ATT_MASKS].sum())
    for key in (kfg.ATT_FEATS, kfg.ATT_MASKS, kfg.V_TARGET):
        part[key] = part[key][:, :count]
    part[kfg.RELATION] = part[kfg.RELATION][:, :count, :count]
    for key in (kfg.G_TOKENS_IDS, kfg.G_TARGET_IDS, kfg.TOKENS_MASKS):
        part[key] = batch[key][image * groups : (image + 1) * groups]
    return part


def loss_and_gradients(model, batch):
    model.zero_grad()
    (loss,) = CrossEntropy()(model(batch)).values()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one, other):
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], atol=1e-5, rtol=1e-3, msg=name)


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_all_steps_at_once_equal_single_steps(tiny, kind):
    model, batch = small_model(kind).train(), small_batch(tiny, kind)
    unrolled = loss_and_gradients(model, batch)
    model.predictor.position_wise = False  # a head that needs all positions: step by step
    assert_same_gradients(unrolled, loss_and_gradients(model, batch))


@every_kind
def test_every_weight_learns(tiny, kind):
    model = small_model(kind).train()
    _, grads = loss_and_gradients(model, small_batch(tiny, kind))
    idle = [n for n, _ in model.named_parameters() if n not in grads or not grads[n].any()]
    assert not idle


@every_kind
def test_captions_of_an_image_equal_repeated_images(tiny, kind):
    model, batch = small_model(kind).eval(), small_batch(tiny, kind)
    repeated = dict(batch)
    for key in VISUAL:
        if key in batch:
            repeated[key] = batch[key].repeat_interleave(2, dim=0)
    assert_same_gradients(loss_and_gradients(model, batch), loss_and_gradients(model, repeated))


@every_kind
def test_a_picture_is_alone_in_its_batch(tiny, kind):
    """Neither neighbours nor padding change logits or what beam search finds."""
    model, groups = small_model(kind).eval(), 2
    batch = small_batch(tiny, kind, images=5, groups=groups, seed=1)
    model.beam_searcher.beam_size = 3
    with torch.no_grad():
        logits = model(batch)[kfg.G_LOGITS]
        found = model(batch, use_beam_search=True)
        for image in range(5):
            part = only(batch, image, groups)
            alone = model(part)[kfg.G_LOGITS]
            rows = slice(image * groups, (image + 1) * groups)
            scored = part[kfg.G_TARGET_IDS] >= 0
            torch.testing.assert_close(alone[scored], logits[rows][scored], atol=1e-5, rtol=1e-4)
            own = model(part, use_beam_search=True)
            for key in (kfg.G_SENTS_IDS, kfg.G_LOGP):
                width = own[key].shape[1]
                torch.testing.assert_close(
                    own[key][0], found[key][image, :width], atol=1e-4, rtol=1e-3
                )


@every_kind
@pytest.mark.parametrize("images", [3, 9])  # many rows take other ways than few
def test_steps_equal_teacher_forcing(tiny, kind, images):
    groups, length = 3, 6
    model, batch = small_model(kind).eval(), small_batch(tiny, kind, images=images, groups=groups)
    tokens = torch.randint(1, VOCAB, (images * groups, length))
    tokens[:, 0] = 0
    batch = {**batch, kfg.G_TOKENS_IDS: tokens}
    del batch[kfg.G_TARGET_IDS]
    with torch.no_grad():
        expected = model(batch)[kfg.G_LOGITS]
        state, logits = model.start(batch), []
        index = torch.arange(images).repeat_interleave(groups)
        state["rows"] = trees.reorder(state["rows"], index)
        for t in range(length):
            step, state = model.step(tokens[:, t], state)
            logits.append(step)
    torch.testing.assert_close(torch.stack(logits, 1), expected, atol=1e-5, rtol=1e-4)


@every_kind
def test_a_picture_without_features_gives_finite_words(tiny, kind):
    model, batch = small_model(kind).eval(), small_batch(tiny, kind)
    batch[kfg.ATT_MASKS] = batch[kfg.ATT_MASKS].clone()
    batch[kfg.ATT_MASKS][1] = False
    with torch.no_grad():
        assert torch.isfinite(model(batch)[kfg.G_LOGITS]).all()
        assert torch.isfinite(model(batch, use_beam_search=True)[kfg.G_LOGP]).all()


@pytest.mark.parametrize("kind", ["salstm", "gru_additive", "tags"])
def test_attention_maps_on_request(tiny, kind):
    model, batch = small_model(kind).eval(), small_batch(tiny, kind)
    with torch.no_grad():
        maps = model({**batch, "RETURN_ATTENTION": True}, use_beam_search=False)["ATTENTION_MAPS"]
    assert maps.shape[0] == 3 and maps.shape[2] >= 5
    shown = maps[:, 0, :5]
    torch.testing.assert_close(maps[:, 0].sum(-1), torch.ones(3))
    assert not shown[~batch[kfg.ATT_MASKS]].any()


@pytest.mark.parametrize("kind", ["salstm", "gru_additive"])
def test_one_line_switches_the_attention(tiny, kind):
    batch = small_batch(tiny, kind)
    logits = []
    for attention in (ADDITIVE, MULTIHEAD):
        model = small_model(kind, attention=attention).eval()
        assert type(model.decoder.att).__name__ == attention
        logits.append(model(batch)[kfg.G_LOGITS])
    assert not torch.allclose(*logits)


@pytest.mark.parametrize("kind", ["salstm", "mplstm", "gru_additive"])
def test_scheduled_sampling_feeds_back_the_word_of_the_model(tiny, kind):
    """A model that always says word 7, fed its own words, reads a caption of sevens."""
    model, batch = small_model(kind).train(), small_batch(tiny, kind)
    sevens = dict(batch)
    sevens[kfg.G_TOKENS_IDS] = torch.full_like(batch[kfg.G_TOKENS_IDS], 7)
    sevens[kfg.G_TOKENS_IDS][:, 0] = 0
    hidden = []
    model.predictor.register_forward_pre_hook(
        lambda module, inputs: hidden.append(inputs[0][kfg.G_HIDDEN_STATES][-1])
    )
    with torch.no_grad():
        model.predictor.logits.weight.zero_()
        model.predictor.logits.bias.zero_()[7] = 50.0
        model({**batch, kfg.SS_PROB: 1.0})
        own = hidden[-1]
        model(sevens)
    torch.testing.assert_close(own, hidden[-1])


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("mplstm", {"TOKEN_EMBED__DIM": 13}, "MODEL.TOKEN_EMBED.DIM 13"),
        ("attributes", {"TOKEN_EMBED__DIM": 13}, "MODEL.DECODER_DIM 20"),
        ("salstm", {"attention": ""}, "MODEL.ATTENTION is empty"),
        ("salstm", {"attention": "NoSuchAttention"}, "NoSuchAttention"),
        ("graph", {"GCN__OUT_DIM": 12}, "MODEL.GCN.OUT_DIM 12"),
        ("graph", {"GCN__GRAPH": "temporal"}, "semantic, spatial"),
        ("graph", {"GCN__GRAPH": "spatial"}, "RELATION_NUM is 5"),
        ("lstm_encoder", {"VISUAL_EMBED__OUT_DIM": 15}, "must be even"),
        ("tags", {"TAGS__ATTRIBUTE_NUM": 0, "TAGS__OBJECT_NUM": 0}, "has no tags"),
        ("tags", {"TAGS__ENCODER": "TagEncoder"}, "TagEncoder itself"),
    ],
)
def test_settings_that_do_not_fit(kind, changes, said):
    with pytest.raises((UserError, KeyError), match=said):
        small_model(kind, **changes)


@pytest.mark.parametrize(
    ("kind", "key", "value", "said"),
    [
        ("attributes", kfg.ATTRIBUTE, None, "ATTRIBUTE is missing"),
        ("attributes", kfg.ATTRIBUTE, torch.rand(3, 4), "MODEL.LSTMA.ATTRIBUTE_DIM"),
        ("attributes", kfg.GLOBAL_FEATS, torch.rand(3, 4), "MODEL.VISUAL_EMBED.IN_DIM"),
        ("mplstm", kfg.GLOBAL_FEATS, torch.rand(3, 4), "MODEL.VISUAL_EMBED.OUT_DIM"),
        ("graph", kfg.RELATION, None, "DATALOADER.RELATION_FILE"),
        ("graph", kfg.RELATION, torch.zeros(3, 4, 4).long(), r"need \(3, 5, 5\)"),
        ("graph", kfg.RELATION, torch.full((3, 5, 5), 5), "labels from 5 to 5"),
        ("graph", kfg.RELATION, torch.full((3, 5, 5), -1), "labels from -1"),
        ("tags", kfg.ATTRIBUTE, None, "DATALOADER.ATTRIBUTE_FILE"),
        ("tags", kfg.V_TARGET, torch.rand(3, 5, 3), "MODEL.TAGS.OBJECT_NUM"),
    ],
)
def test_inputs_that_do_not_fit(tiny, kind, key, value, said):
    model, batch = small_model(kind), small_batch(tiny, kind)
    batch.pop(key, None)
    if value is not None:
        batch[key] = value
    with pytest.raises(UserError, match=said):
        model(batch)
