"""Convolutional captioners: steps equal teacher forcing, steps cost the same, clips are alone."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import get_cfg, kfg
from xmodaler.functional import trees
from xmodaler.losses import CrossEntropy
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.errors import UserError

KINDS = {
    "released": {"ENCODER.COMPATIBLE": True},
    "corrected": {"ENCODER.COMPATIBLE": False},
    "plain": {"ENCODER.COMPATIBLE": False, "ENCODER.USE_NORM": False, "DECODER.USE_NORM": False},
    "conv": {},
    "conv_multihead": {},
}


def conv_cfg(kind, **changes):
    cfg = get_cfg()
    model = cfg.MODEL
    tdconved = not kind.startswith("conv")
    model.META_ARCHITECTURE = "TransformerEncoderDecoder"
    family = "TDConvED" if tdconved else "Conv"
    model.ENCODER, model.DECODER = f"{family}Encoder", f"{family}Decoder"
    model.PREDICTOR, model.TOKEN_EMBED.NAME = "BasePredictor", "TokenBaseEmbedding"
    embed = "TDConvEDVisualBaseEmbedding" if tdconved else "VisualBaseEmbedding"
    model.VISUAL_EMBED.NAME, model.DEVICE = embed, "cpu"
    model.VISUAL_EMBED.IN_DIM, model.VISUAL_EMBED.OUT_DIM = 10, 16
    model.VISUAL_EMBED.USE_NORM = True
    model.TOKEN_EMBED.DIM, model.DECODER_DIM, model.VOCAB_SIZE = 12, 16, 23
    model.MAX_SEQ_LEN, model.ATTENTION = 7, "AdditiveAttention"
    if kind == "conv_multihead":
        model.ATTENTION = "MultiHeadQueryAttention"
    cfg.INFERENCE.VOCAB = ""
    add_config(cfg, cfg)
    if tdconved:
        model.TDCONVED.ENCODER.HIDDEN_SIZE = model.TDCONVED.DECODER.HIDDEN_SIZE = 16
        model.TDCONVED.DECODER.ATT_EMBED_SIZE = 8
        model.TDCONVED.ENCODER.KERNEL_SIZES, model.TDCONVED.DECODER.KERNEL_SIZES = [3, 5], [3, 1, 4]
    else:
        model.CONV.DECODER.KERNEL_SIZES, model.CONV.DECODER.ATT_EMBED_SIZE = [3, 2], 8
    if kind == "conv_multihead":
        model.MULTIHEAD_ATTENTION.DROPOUT = 0.0  # no module that a test could switch off
    node = model.TDCONVED if tdconved else model.CONV
    for key, value in {**KINDS.get(kind, {}), **changes}.items():
        part, name = key.split(".")
        node[part][name] = value
    return cfg


def conv_model(kind, **changes):
    torch.manual_seed(0)
    model = build_model(conv_cfg(kind, **changes))
    with torch.no_grad():  # offsets and norms that are not those of the start
        for name, parameter in model.named_parameters():
            if "offset_conv" in name or name.endswith("weight_g"):
                parameter.add_(0.3 * torch.rand_like(parameter))
    return model


@pytest.fixture(params=list(KINDS))
def conv(request):
    return conv_model(request.param)


def word_by_word(model, batch, tokens, index):
    state, logits = model.start(batch), []
    state["rows"] = trees.reorder(state["rows"], index)
    for t in range(tokens.shape[1]):
        out, state = model.step(tokens[:, t], state)
        logits.append(out)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("images", [3, 9])  # many images take the ways made for many rows
@pytest.mark.parametrize("training", [False, True])
def test_steps_equal_teacher_forcing(conv, tiny, images, groups, training):
    model = tiny.without_dropout(conv).train(training)
    batch = tiny.batch(images=images, groups=groups, length=6)
    tokens = torch.randint(1, 23, (images * groups, 6))
    tokens[:, 0] = 0
    batch = {**batch, kfg.G_TOKENS_IDS: tokens}
    batch.pop(kfg.G_TARGET_IDS)  # with targets, training scores only these
    index = torch.arange(images).repeat_interleave(groups)
    expected = model(batch)[kfg.G_LOGITS]
    together = word_by_word(model, batch, tokens, index)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        again = word_by_word(model, batch, tokens, index)
    torch.testing.assert_close(again, expected.detach(), atol=1e-5, rtol=1e-4)
    weights = list(model.parameters())
    probe = torch.linspace(-1, 1, expected.numel()).view_as(expected)
    one = torch.autograd.grad((expected * probe).sum(), weights)
    other = torch.autograd.grad((together * probe).sum(), weights)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_future_words_never_change_the_past(conv, tiny):
    model, batch = conv.eval(), tiny.batch(length=7)
    other = batch[kfg.G_TOKENS_IDS].clone()
    other[:, 4:] = 5
    with torch.no_grad():
        one = model(batch)[kfg.G_LOGITS]
        two = model({**batch, kfg.G_TOKENS_IDS: other})[kfg.G_LOGITS]
    torch.testing.assert_close(one[:, :4], two[:, :4], atol=1e-6, rtol=0)
    assert not torch.allclose(one[:, 4:], two[:, 4:])


def test_training_scores_only_targets_and_reaches_every_weight(conv, tiny):
    model, batch = tiny.without_dropout(conv), tiny.batch()
    scored = batch[kfg.G_TARGET_IDS] >= 0
    trained = model.train()(batch)
    evaluated = model.eval()(batch)[kfg.G_LOGITS]
    torch.testing.assert_close(
        trained[kfg.G_LOGITS][scored], evaluated[scored], atol=1e-5, rtol=1e-4
    )
    (loss,) = CrossEntropy()(trained).values()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if "p_att_feats" not in name and "bias" not in name:
            assert parameter.grad.abs().max() > 0, name


def test_sampled_sentences_carry_gradients(conv, tiny):
    """As reinforcement learning needs them: in training mode, with dropout."""
    torch.manual_seed(0)
    batch = {**tiny.batch(), kfg.DECODE_BY_SAMPLE: True}
    conv.train()(batch, use_beam_search=False)[kfg.G_LOGP].sum().backward()
    assert conv.decoder.layers[0].conv.bias.grad.abs().max() > 0
    assert (
        conv.encoder.layers[0]
        .get_parameter("conv.conv.bias" if hasattr(conv.encoder, "compatible") else "conv.bias")
        .grad.isfinite()
        .all()
    )


def test_a_step_costs_the_same_however_long_the_sentence(conv, tiny):
    model, batch = conv.eval(), tiny.batch(images=3, groups=1)
    words, flops, floats = torch.tensor([3, 4, 5]), [], []
    with torch.no_grad():
        state = model.start(batch)
        memory = sum(x.numel() for x in trees.tensors(state["memory"]))
        for _ in range(6):
            with FlopCounterMode(display=False) as counter:
                _, state = model.step(words, state)
            flops.append(counter.get_total_flops())
            floats.append(sum(x.numel() for x in trees.tensors(state["rows"])))
    assert len(set(flops)) == 1 and len(set(floats)) == 1
    per_row = sum((layer.kernel_size - 1) * 16 for layer in model.decoder.layers)
    assert floats[0] == 3 * per_row
    assert sum(x.numel() for x in trees.tensors(state["memory"])) == memory


def test_hypotheses_share_the_features_of_their_clip(conv, tiny):
    """No tensor of a step or of teacher forcing has the features once per hypothesis or word."""
    model, batch = conv.eval(), tiny.batch(images=2, groups=4)
    seen = []
    attend = model.decoder.attend

    def spy(layer, query, memory, need_weights):
        seen.extend(x.shape[0] for x in trees.tensors(memory))
        return attend(layer, query, memory, need_weights)

    model.decoder.attend = spy
    with torch.no_grad():
        model(batch)
        word_by_word(model, batch, batch[kfg.G_TOKENS_IDS], torch.arange(2).repeat_interleave(4))
    assert seen and set(seen) == {2}


def alone_and_padded(model, batch, extra):
    """The encoding of each clip alone, and of all in a batch with ``extra`` empty frames."""
    feats, masks = batch[kfg.ATT_FEATS], batch[kfg.ATT_MASKS]
    images, _, width = feats.shape
    padded = {
        **batch,
        kfg.ATT_FEATS: torch.cat([feats, torch.zeros(images, extra, width)], dim=1),
        kfg.ATT_MASKS: torch.cat([masks, torch.zeros(images, extra, dtype=torch.bool)], dim=1),
    }
    groups = len(batch[kfg.G_TOKENS_IDS]) // images
    with torch.no_grad():
        together = model(padded)[kfg.G_LOGITS]
        for image, count in enumerate(masks.sum(1).tolist()):
            rows = slice(image * groups, (image + 1) * groups)
            single = {
                kfg.ATT_FEATS: feats[image : image + 1, :count],
                kfg.ATT_MASKS: masks[image : image + 1, :count],
                kfg.G_TOKENS_IDS: batch[kfg.G_TOKENS_IDS][rows],
            }
            yield model(single)[kfg.G_LOGITS], together[rows]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "released"])
def test_a_clip_does_not_depend_on_its_batch(kind, tiny):
    for single, together in alone_and_padded(conv_model(kind).eval(), tiny.batch(), extra=4):
        torch.testing.assert_close(single, together, atol=1e-5, rtol=1e-4)


def test_released_sampling_does_depend_on_the_batch(tiny):
    pairs = alone_and_padded(conv_model("released").eval(), tiny.batch(), extra=4)
    assert all((single - together).abs().max() > 1e-3 for single, together in pairs)


@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize("beam", [False, True])
def test_clips_of_one_frame_and_of_none(conv, tiny, frames, beam):
    model, batch = conv.eval(), tiny.batch(images=2, groups=1)
    alone = {
        kfg.ATT_FEATS: batch[kfg.ATT_FEATS][:, :frames],
        kfg.ATT_MASKS: batch[kfg.ATT_MASKS][:, :frames],
    }
    assert model(alone, use_beam_search=beam)[kfg.G_LOGP].isfinite().all()
    batch[kfg.ATT_MASKS] = batch[kfg.ATT_MASKS].clone()
    batch[kfg.ATT_MASKS][1, frames:] = False
    batch[kfg.ATT_FEATS] = batch[kfg.ATT_FEATS] * batch[kfg.ATT_MASKS].unsqueeze(-1)
    mixed = model(batch, use_beam_search=beam)
    assert mixed[kfg.G_LOGP].isfinite().all()
    model.train()
    (loss,) = CrossEntropy()(model(batch)).values()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_attention_maps_on_request(conv, tiny):
    batch, words = tiny.batch(groups=1), torch.zeros(3, dtype=torch.long)
    model = conv.eval()
    with torch.no_grad():
        _, plain = model.step(words, model.start(batch))
        _, state = model.step(words, model.start({**batch, "RETURN_ATTENTION": True}))
    assert "attention" not in plain
    assert state["attention"].shape == (3, 5)
    torch.testing.assert_close(state["attention"].sum(1), torch.ones(3))


def test_a_grid_is_convolved_in_two_dimensions(tiny):
    """A change of one cell reaches its neighbours in the grid, not those in the row of cells."""
    model = conv_model("conv", **{"ENCODER.GRID": True, "ENCODER.KERNEL_SIZES": [3]}).eval()
    feats = torch.randn(1, 16, 16)
    masks = torch.ones(1, 16, dtype=torch.bool)
    changed = feats.clone()
    changed[0, 5] += 1  # row 1, column 1 of 4 x 4
    with torch.no_grad():
        one, two = (
            model.encoder({kfg.ATT_FEATS: x, kfg.ATT_MASKS: masks}, mode="v")[kfg.ATT_FEATS]
            for x in (feats, changed)
        )
    reached = ((one - two).abs().sum(-1) > 0)[0].nonzero().flatten().tolist()
    assert reached == [0, 1, 2, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize(("width", "message"), [(0, "a square"), (3, "rows of 3")])
def test_cells_that_form_no_grid_are_refused(tiny, width, message):
    model = conv_model("conv", **{"ENCODER.GRID": True, "ENCODER.GRID_WIDTH": width})
    with pytest.raises(UserError, match=f"5 cells, which do not form {message}"):
        model(tiny.batch())


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        ("released", "VISUAL_EMBED.OUT_DIM", "ENCODER.HIDDEN_SIZE is 16 but MODEL.VISUAL_EMBED"),
        ("released", "DECODER_DIM", "MODEL.DECODER_DIM is 24"),
        ("conv", "DECODER_DIM", "16 and 24"),
    ],
)
def test_widths_that_do_not_fit_are_refused(kind, key, message):
    cfg = conv_cfg(kind)
    cfg.merge_from_list([f"MODEL.{key}", 24])
    with pytest.raises(UserError, match=message):
        build_model(cfg)


def test_the_number_of_layers_is_that_of_the_kernel_sizes():
    model = conv_model("released", **{"ENCODER.NUM_HIDDEN_LAYERS": 7})
    assert len(model.encoder.layers) == 2 and len(model.decoder.layers) == 3
