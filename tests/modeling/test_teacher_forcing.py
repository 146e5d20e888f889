"""The fast training paths give the values and gradients of the plain ones."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.losses import SCORED_ROWS, CrossEntropy, LabelSmoothing
from xmodaler.modeling.layers.caption_plan import CaptionPlan
from xmodaler.modeling.layers.deferred import DeferredWeight


def loss_and_gradients(model, batch):
    model.zero_grad()
    outputs = model(batch)
    (loss,) = CrossEntropy()(outputs).values()
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return outputs, loss.detach(), grads


def assert_same(one, other, atol=1e-5):
    (out_one, loss_one, grads_one), (out_other, loss_other, grads_other) = one, other
    torch.testing.assert_close(loss_one, loss_other)
    scored = out_one[kfg.G_TARGET_IDS] >= 0
    torch.testing.assert_close(
        out_one[kfg.G_LOGITS][scored], out_other[kfg.G_LOGITS][scored], atol=atol, rtol=1e-4
    )
    assert grads_one.keys() == grads_other.keys()
    for name, grad in grads_one.items():
        torch.testing.assert_close(grad, grads_other[name], atol=atol, rtol=1e-3, msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_training_mode_skips_padding_without_a_difference(captioning, tiny, seed):
    """Training leaves out padded regions, ended captions and positions without a target."""
    model = tiny.without_dropout(captioning.model)
    global_dim = 9 if captioning.kind == "grid" else None
    batch = tiny.batch(images=4, groups=3, seed=seed, global_dim=global_dim)
    plain = loss_and_gradients(model.eval(), batch)
    fast = loss_and_gradients(model.train(), batch)
    assert_same(plain, fast)
    unscored = batch[kfg.G_TARGET_IDS] < 0
    assert not fast[0][kfg.G_LOGITS][unscored].any()


@pytest.mark.parametrize("attention", ["AdditiveAttention", "MultiHeadQueryAttention"])
def test_unrolled_updown_equals_single_steps(tiny, attention):
    model = tiny.without_dropout(tiny.model("updown", MODEL__ATTENTION=attention))
    model.decoder.att.dropout = None if attention == "AdditiveAttention" else 0.0
    batch = tiny.batch(images=3, groups=2)
    unrolled = loss_and_gradients(model.train(), batch)
    model.predictor.position_wise = False  # a head that needs all positions: step by step
    stepwise = loss_and_gradients(model, batch)
    assert_same(unrolled, stepwise)


def test_unrolled_updown_with_input_dropout_has_the_right_expectation(tiny):
    model = tiny.without_dropout(tiny.model("updown"))
    batch = tiny.batch()
    with torch.no_grad():
        plain = model.train()(batch)[kfg.G_LOGITS]
        model.decoder.dropout1.p = model.decoder.dropout2.p = 0.05
        mean = torch.stack([model(batch)[kfg.G_LOGITS] for _ in range(300)]).mean(0)
    torch.testing.assert_close(mean, plain, atol=0.02, rtol=0)


def test_captions_of_an_image_equal_repeated_images(captioning):
    """G captions over one image give what G copies of the image give."""
    model, batch = captioning.model.eval(), captioning.batch
    repeated = dict(batch)
    for key in (kfg.ATT_FEATS, kfg.ATT_MASKS, kfg.GLOBAL_FEATS):
        if key in batch:
            repeated[key] = batch[key].repeat_interleave(2, dim=0)
    assert_same(loss_and_gradients(model, batch), loss_and_gradients(model, repeated))


def test_the_batch_is_left_as_it_was(captioning):
    batch = captioning.batch
    copies = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    for mode in (True, False):
        captioning.model.train(mode)
        outputs = captioning.model(batch)
        assert outputs is not batch
        for beam in (False, True):
            with torch.no_grad():
                captioning.model(batch, use_beam_search=beam)
    assert batch.keys() == copies.keys()
    for key, value in copies.items():
        same = torch.equal(batch[key], value) if isinstance(value, torch.Tensor) else None
        assert same if same is not None else batch[key] == value, key
    assert {key for key in outputs if key.startswith("_")} <= {SCORED_ROWS}


def test_float_masks_equal_bool_masks(captioning):
    batch = captioning.batch
    as_float = {
        key: value.float() if key in (kfg.ATT_MASKS, kfg.TOKENS_MASKS) else value
        for key, value in batch.items()
    }
    with torch.no_grad():
        model = captioning.model.eval()
        torch.testing.assert_close(model(batch)[kfg.G_LOGITS], model(as_float)[kfg.G_LOGITS])


@pytest.mark.parametrize("training", [True, False])
def test_an_image_without_regions_gives_numbers(captioning, training):
    batch = dict(captioning.batch)
    batch[kfg.ATT_MASKS] = batch[kfg.ATT_MASKS].clone()
    batch[kfg.ATT_MASKS][1] = False
    outputs, loss, grads = loss_and_gradients(captioning.model.train(training), batch)
    assert torch.isfinite(outputs[kfg.G_LOGITS]).all() and torch.isfinite(loss)
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    with torch.no_grad():
        decoded = captioning.model.eval()(batch, use_beam_search=False)
    assert torch.isfinite(decoded[kfg.G_LOGP]).all()


def test_hidden_regions_do_not_matter(captioning):
    if captioning.kind == "grid":
        pytest.skip("a grid has no padding")
    batch, model = captioning.batch, captioning.model.eval()
    other = dict(batch)
    other[kfg.ATT_FEATS] = batch[kfg.ATT_FEATS] + 7 * ~batch[kfg.ATT_MASKS][..., None]
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[kfg.G_LOGITS], model(other)[kfg.G_LOGITS])


def test_recurrent_logits_stop_with_the_last_caption(tiny):
    batch = tiny.batch(length=12)
    last = (batch[kfg.G_TOKENS_IDS] != 0).any(0).nonzero().max()
    with torch.no_grad():
        logits = tiny.model("updown").eval()(batch)[kfg.G_LOGITS]
    assert logits.shape[1] == 12
    assert logits[:, : last + 1].abs().sum((0, 2)).all() and not logits[:, last + 1 :].any()


def test_a_batch_without_targets_is_scored_everywhere(captioning):
    batch = {k: v for k, v in captioning.batch.items() if k != kfg.G_TARGET_IDS}
    logits = captioning.model.train()(batch)[kfg.G_LOGITS]
    assert logits[:, 0].abs().sum(-1).all()


def test_scored_rows_are_the_whole_logits(captioning):
    outputs = captioning.model.train()(captioning.batch)
    rows = outputs[SCORED_ROWS]
    scored = outputs[kfg.G_TARGET_IDS] >= 0
    whole = outputs[kfg.G_LOGITS][scored]
    assert sorted(rows.targets.tolist()) == sorted(outputs[kfg.G_TARGET_IDS][scored].tolist())
    torch.testing.assert_close(rows.logits.sum(), whole.sum())
    without = {key: value for key, value in outputs.items() if key != SCORED_ROWS}
    for loss in (CrossEntropy(), LabelSmoothing(label_smoothing=0.1)):
        (one,), (other,) = loss(outputs).values(), loss(without).values()
        torch.testing.assert_close(one, other)
    # Whoever replaces logits or targets is scored on the new ones.
    changed = {**outputs, kfg.G_TARGET_IDS: outputs[kfg.G_TARGET_IDS].clamp(max=0)}
    (value,) = CrossEntropy()(changed).values()
    assert abs(value - CrossEntropy()(outputs)["CrossEntropy Loss(G)"]) > 1e-3


def test_plan_of_captions():
    tokens = torch.tensor([[0, 4, 5, 0, 0], [0, 3, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 2, 0, 9]])
    targets = torch.tensor([[4, 5, 0, -1, -1], [3, 0, -1, -1, -1], [0] + [-1] * 4, [1, 2, 0, 9, 9]])
    plan = CaptionPlan.of(tokens, targets)
    assert plan.lengths.tolist() == [3, 2, 1, 5]
    plan = plan.until_stop()
    assert plan.stop == 3  # the fourth column holds only zeros
    assert plan.lengths.tolist() == [3, 2, 1, 3]
    stairs = plan.staircase(images=2)
    assert stairs.steps == [(2, 2), (2, 2), (2, 1)]
    assert stairs.rows.tolist() == [[0, 1], [3, 2]]
    assert plan.without_targets().lengths.tolist() == [3] * 4
    unscored = CaptionPlan.of(tokens, None)
    assert unscored.scored is None and unscored.lengths.tolist() == [5] * 4
    assert unscored.until_stop().lengths.tolist() == [3] * 4


def test_deferred_weight_gradient():
    torch.manual_seed(0)
    weight = torch.randn(6, 5, dtype=torch.double, requires_grad=True)
    start = torch.randn(3, 2, dtype=torch.double, requires_grad=True)
    other = torch.randn(3, 3, dtype=torch.double, requires_grad=True)
    bias = torch.randn(6, dtype=torch.double, requires_grad=True)

    def recur(weight, start, other, bias):
        deferred = DeferredWeight(weight, [2, 3])
        x = start
        for _ in range(3):
            gates = deferred.linear(other, bias, block=1)
            x = torch.tanh(deferred.linear(x, gates, block=0))[:, 1:3]
        return x

    assert torch.autograd.gradcheck(recur, (weight, start, other, bias))
    out = recur(weight, start, other, bias).sum()
    (once,) = torch.autograd.grad(out, weight, retain_graph=True)
    torch.autograd.grad(out, start, retain_graph=True)  # leaves uses behind that nobody collects
    (again,) = torch.autograd.grad(out, weight)
    torch.testing.assert_close(once, again)


@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_bfloat16_autocast_is_close(tiny, kind):
    model = tiny.without_dropout(tiny.model(kind)).train()
    batch = tiny.batch()
    _, plain, grads = loss_and_gradients(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        _, cast, cast_grads = loss_and_gradients(model, batch)
    torch.testing.assert_close(cast, plain, atol=0.05, rtol=0.05)
    assert all(torch.isfinite(grad).all() for grad in cast_grads.values())
    for name, grad in grads.items():
        assert cast_grads[name].dtype == torch.float32
        difference = (cast_grads[name] - grad).norm()
        assert difference <= 0.1 * grad.norm() + 1e-3, name


def test_preprocess_batch_takes_samples_or_a_batch(tiny):
    model, batch = tiny.model("updown"), tiny.batch(images=2, groups=2)
    samples = []
    for i in range(2):
        regions = int(batch[kfg.ATT_MASKS][i].sum())
        rows = slice(2 * i, 2 * i + 2)
        samples.append(
            {
                kfg.IDS: str(i),
                kfg.ATT_FEATS: batch[kfg.ATT_FEATS][i, :regions],
                kfg.SEQ_PER_SAMPLE: 2,
                kfg.G_TOKENS_IDS: list(batch[kfg.G_TOKENS_IDS][rows]),
                kfg.G_TARGET_IDS: list(batch[kfg.G_TARGET_IDS][rows]),
            }
        )
    collated = model.preprocess_batch(samples)
    assert model.preprocess_batch(collated).keys() == collated.keys()
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(model(collated)[kfg.G_LOGITS], model(batch)[kfg.G_LOGITS])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_compiled_models_compute_the_same(tiny, kind):
    model = tiny.without_dropout(tiny.model(kind)).train()
    compiled = torch.compile(model, backend="aot_eager")
    for seed in range(2):
        batch = tiny.batch(seed=seed)
        plain = loss_and_gradients(model, batch)
        model.zero_grad()
        outputs = compiled(batch)
        (loss,) = CrossEntropy()(outputs).values()
        loss.backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters()}
        assert_same(plain, (outputs, loss.detach(), grads))
