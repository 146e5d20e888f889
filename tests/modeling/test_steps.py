"""Word by word gives what all words at once give; nothing is computed twice."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import kfg
from xmodaler.functional import trees
from xmodaler.modeling.layers.kv_cache import empty_cache, own_slots, slot_mask, store


def word_by_word(model, batch, tokens, reorder_at=None, index=None):
    """Logits (R, T, V) of given words, fed one after another."""
    state, logits = model.start(batch), []
    if reorder_at is None:
        state["rows"] = trees.reorder(state["rows"], index)
    for t in range(tokens.shape[1]):
        if t == reorder_at:
            state["rows"] = trees.reorder(state["rows"], index)
        words = tokens[:, t] if reorder_at is None or t >= reorder_at else tokens[:: len(index), t]
        out, state = model.step(words, state)
        logits.append(out)
    return logits, state


@pytest.mark.parametrize("images", [3, 9])  # many images take the ways made for many rows
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("grad", [False, True])
def test_steps_equal_teacher_forcing(captioning, tiny, images, groups, grad):
    global_dim = 9 if captioning.kind == "grid" else None
    batch = tiny.batch(images=images, groups=groups, length=6, global_dim=global_dim)
    tokens = torch.randint(1, 23, (images * groups, 6), generator=torch.Generator().manual_seed(4))
    tokens[:, 0] = 0
    batch = {**batch, kfg.G_TOKENS_IDS: tokens}
    model = captioning.model.eval()
    index = torch.arange(images).repeat_interleave(groups)
    with torch.set_grad_enabled(grad):
        expected = model(batch)[kfg.G_LOGITS]
        logits, _ = word_by_word(model, batch, tokens, index=index)
    together = torch.stack(logits, 1)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-4)
    if grad:
        weights = [p for p in model.parameters() if p.requires_grad]
        probe = torch.linspace(-1, 1, expected.numel()).view_as(expected)
        one = torch.autograd.grad((expected * probe).sum(), weights, allow_unused=True)
        other = torch.autograd.grad((together * probe).sum(), weights, allow_unused=True)
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("copies", [1, 5])
def test_beams_that_branch_and_swap(captioning, tiny, copies):
    """Hypotheses that share a past, cross over and die give what they give when fed alone."""
    model, images = captioning.model.eval(), 2 * copies
    global_dim = 9 if captioning.kind == "grid" else None
    batch = tiny.batch(images=images, groups=1, global_dim=global_dim)
    visual = {
        key: batch[key] for key in (kfg.ATT_FEATS, kfg.ATT_MASKS, kfg.GLOBAL_FEATS) if key in batch
    }
    parents = [[0, 0, 0, 1, 1, 1], [2, 0, 0, 3, 4, 4], [1, 0, 2, 5, 5, 3]]
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        state = model.start(batch)
        _, state = model.step(torch.zeros(images, dtype=torch.long), state)
        history = torch.zeros(images, 1, dtype=torch.long)
        for time, parent in enumerate(parents):
            stride = 2 if time == 0 else 6
            index = torch.cat([torch.tensor(parent) + stride * copy for copy in range(copies)])
            words = torch.randint(1, 23, (6 * copies,), generator=generator)
            state["rows"] = trees.reorder(state["rows"], index)
            history = torch.cat([history[index], words[:, None]], 1)
            logits, state = model.step(words, state)
            alone = model({**visual, kfg.G_TOKENS_IDS: history})[kfg.G_LOGITS][:, -1]
            torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("beam", [False, True])
def test_a_training_batch_can_be_decoded(captioning, beam):
    """As reinforcement learning does: captions, their types and masks are there, and unused."""
    rows = captioning.batch[kfg.G_TOKENS_IDS]
    batch = {**captioning.batch, kfg.G_TOKENS_TYPE: torch.ones_like(rows), kfg.SS_PROB: 0.2}
    visual = {k: v for k, v in batch.items() if k in (kfg.ATT_FEATS, kfg.ATT_MASKS)}
    if captioning.kind == "grid":
        visual[kfg.GLOBAL_FEATS] = batch[kfg.GLOBAL_FEATS]
    model = captioning.model.eval()
    with torch.no_grad():
        one, other = (model(b, use_beam_search=beam)[kfg.G_SENTS_IDS] for b in (batch, visual))
    assert torch.equal(one, other)


def test_images_can_leave_a_batch(captioning, tiny):
    model = captioning.model.eval()
    global_dim = 9 if captioning.kind == "grid" else None
    batch = tiny.batch(images=3, groups=1, global_dim=global_dim)
    words = torch.tensor([[0, 4, 5, 6], [0, 7, 8, 9], [0, 3, 2, 1]])
    kept = torch.tensor([0, 2])
    with torch.no_grad():
        expected, _ = word_by_word(model, batch, words, index=torch.arange(3))
        state = model.start(batch)
        for leaf in trees.tensors(state["memory"]):
            assert leaf.shape[0] == 3
        for t in range(2):
            _, state = model.step(words[:, t], state)
        for part in ("memory", "rows"):
            state[part] = trees.reorder(state[part], kept)
        for t in range(2, 4):
            logits, state = model.step(words[kept, t], state)
            torch.testing.assert_close(logits, expected[t][kept], atol=1e-5, rtol=1e-4)


def test_attention_maps_on_request(captioning):
    model = captioning.model.eval()
    batch = captioning.batch
    words = torch.zeros(3, dtype=torch.long)
    with torch.no_grad():
        _, plain = model.step(words, model.start(batch))
        _, state = model.step(words, model.start({**batch, "RETURN_ATTENTION": True}))
    assert "attention" not in plain
    regions = batch[kfg.ATT_FEATS].shape[1] + (captioning.kind == "grid")
    assert state["attention"].shape == (3, regions)
    torch.testing.assert_close(state["attention"].sum(1), torch.ones(3))
    if captioning.kind != "grid":
        assert not state["attention"][~batch[kfg.ATT_MASKS]].any()


def test_cache_grows_and_knows_whose_words_are_whose():
    torch.manual_seed(0)
    cache, images, seen = empty_cache(1), 2, []
    slots = torch.zeros(images, 0, dtype=torch.long)
    for step in range(40):
        groups = 1 if step == 0 else 3
        if step == 1:
            slots = slots.repeat_interleave(3, dim=0)
        slots = own_slots(slots, cache["used"], groups)
        key = torch.randn(images, 2, groups, 4)
        keys, values = store(cache, 0, key, -key)
        cache["used"] += groups
        seen.append(key)
        torch.testing.assert_close(keys, torch.cat(seen, 2))
        torch.testing.assert_close(values, -keys)
    mask = slot_mask(slots, cache["used"], images, torch.float32)
    assert mask.shape == (2, 1, 3, 118)
    assert ((mask == 0).sum(-1) == 40).all()
    assert slot_mask(torch.arange(5).expand(2, -1), 5, 2, torch.float32) is None


@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_no_step_repeats_earlier_work(tiny, kind):
    """Apart from attention over the words so far, a step costs the same at any time."""
    model, batch = tiny.model(kind).eval(), tiny.batch(images=2, groups=1)
    costs = []
    with torch.no_grad():
        state = model.start(batch)
        state["rows"] = trees.reorder(state["rows"], torch.arange(2).repeat_interleave(3))
        for t in range(6):
            with FlopCounterMode(display=False) as counter:
                _, state = model.step(torch.arange(6) + 1 + t, state)
            counts = counter.get_flop_counts()["Global"]
            matmuls = (torch.ops.aten.mm, torch.ops.aten.addmm)
            costs.append(sum(counts.get(op, 0) for op in matmuls))
    assert costs[0] > 0 and len(set(costs[1:])) == 1
    if kind == "updown":  # nothing of the image but what attention weighs
        hidden, regions, words, inner, vocab = 20, 16, 12, 8, 23
        per_row = 4 * hidden * (words + 2 * hidden) + 4 * hidden * (regions + 2 * hidden)
        per_row += inner * hidden + inner * batch[kfg.ATT_FEATS].shape[1] + vocab * hidden
        assert costs[-1] <= 2 * 6 * per_row


@pytest.mark.parametrize("kind", ["updown", "transformer", "grid"])
def test_an_image_is_encoded_once_for_all_its_captions(tiny, kind):
    global_dim = 9 if kind == "grid" else None
    model, costs = tiny.model(kind).eval(), []
    for groups in (1, 4):
        batch = tiny.batch(images=2, groups=groups, global_dim=global_dim)
        with FlopCounterMode(display=False, depth=3) as counter, torch.no_grad():
            model(batch)
        name = type(model).__name__
        parts = counter.get_flop_counts()
        stages = [parts.get(f"{name}.{stage}", {}) for stage in ("visual_embed", "encoder")]
        costs.append([sum(stage.values()) for stage in stages])
    assert costs[0] == costs[1] and costs[0][0] > 0
