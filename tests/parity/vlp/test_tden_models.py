"""TDEN reproduces the reference's states, logits, losses, gradients, vectors and captions."""

from pathlib import Path

import pytest
import torch
from torch import nn

from xmodaler.config import kfg
from xmodaler.losses import build_losses
from xmodaler.losses.scored_rows import G_SELECTED, U_SELECTED, V_SELECTED

FAMILY = "tden"
REPOSITORY = Path(__file__).resolve().parents[3]
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
SIMILARITY = "tden_pretrain_similarity"

FORWARDS = {
    "tden-pretrain": [("pass1/", "inputs"), ("pass2/", "inputs")],
    "tden-caption": [("xe/", "inputs")],
    "tden-vqa": [("", "inputs")],
    "tden-vcr": [("q2a/", "inputs"), ("qa2r/", "inputs_qar")],
    "tden-retrieval": [("", "inputs")],
}
"""Task -> prefixes of what one call of the model gives, and the batch of each."""


def forwards(task):
    """Prefix and batch of every recorded call, also with visual tensors once per image."""
    for prefix, name in FORWARDS[task.task]:
        for batch in (task.inputs(name), task.once_per_image(name)):
            batch.update(task.below(f"{prefix}in/"))
            if task.task == "tden-pretrain":
                batch[SIMILARITY] = prefix == "pass1/"
            yield prefix, batch


def head(model):
    """The head whose pair matrix exists in training mode only, or None."""
    return getattr(model, "similarity_predictor", None)


@pytest.fixture
def scoring(model_task):
    """The model in eval mode, with only its similarity head's own training flag switched on."""
    model_task.model.eval()
    if head(model_task.model) is not None:
        head(model_task.model).training = True
    yield model_task
    model_task.model.eval()


def same_rows(value, expected):
    """The expected rows where the value has one row per image and the reference repeats them."""
    if value.dim() > 1 and len(value) < len(expected):
        return expected[:: len(expected) // len(value)]
    return expected


def losses_of(task, outputs):
    return {name: value for loss in build_losses(task.cfg) for name, value in loss(outputs).items()}


def test_weights_load_by_name(model_task):
    from safetensors.torch import load_file

    weights = load_file(str(model_task.folder / "weights.safetensors"))
    state = model_task.model.state_dict()
    assert set(state) == set(weights)
    for name, value in weights.items():
        torch.testing.assert_close(state[name], value, atol=0, rtol=0)
    for names in model_task.meta["tied_keys"]:
        assert len({state[name].data_ptr() for name in names}) == 1


def test_outputs(scoring, find_output):
    for prefix, batch in forwards(scoring):
        before = dict(batch)
        with torch.no_grad():
            outputs = scoring.model(batch)
        assert batch.keys() == before.keys()
        assert all(batch[key] is before[key] for key in before)
        for key, expected in scoring.below(f"{prefix}out/").items():
            value = find_output(outputs, key)
            if scoring.task == "tden-vcr" and key == kfg.OUTPUT:
                # The reference's softmax over one class is 1 for every choice.
                torch.testing.assert_close(value, outputs[kfg.U_LOGITS])
                continue
            assert value is not None, key
            if scoring.task == "tden-vcr" and key == kfg.U_LOGITS:
                expected = expected.reshape(-1, 1)  # recorded as questions times choices
            torch.testing.assert_close(value, same_rows(value, expected), **TOLERANCE)


def test_stages(scoring, find_output):
    """What embeddings and encoder return."""
    model, taps = scoring.model, {}

    def tap(name):
        def hook(module, args, kwargs, outputs):
            mode = kwargs.get("mode")
            taps[name if mode is None else f"{name}_{mode}"] = outputs

        return hook

    hooks = [
        getattr(model, name).register_forward_hook(tap(name), with_kwargs=True)
        for name in ("visual_embed", "token_embed", "encoder")
    ]
    for prefix, batch in forwards(scoring):
        with torch.no_grad():
            model(batch)
        for key, expected in scoring.below(f"{prefix}tap/").items():
            stage, _, name = key.partition("/")
            value = find_output(taps[stage], name)
            torch.testing.assert_close(value, same_rows(value, expected), **TOLERANCE)
    for hook in hooks:
        hook.remove()


def test_losses(scoring):
    for prefix, batch in forwards(scoring):
        with torch.no_grad():
            losses = losses_of(scoring, scoring.model(batch))
        check_losses(losses, scoring.below(f"{prefix}loss/"))


def check_losses(losses, expected):
    total = expected.pop("total")
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, **TOLERANCE)
    torch.testing.assert_close(sum(losses.values()), total, **TOLERANCE)


def test_gradient_norms(scoring):
    for prefix, batch in forwards(scoring):
        scoring.model.zero_grad()
        sum(losses_of(scoring, scoring.model(batch)).values()).backward()
        check_gradients(scoring, scoring.model, f"{prefix}grad_norm/")


def check_gradients(task, model, prefix):
    expected, checked = task.below(prefix), 0
    for name, parameter in model.named_parameters():
        if name not in expected:
            assert parameter.grad is None or parameter.grad.abs().max() == 0, name
            continue
        norm, recorded = parameter.grad.norm().item(), expected[name].item()
        checked += 1
        if name in task.meta["unstable_under_rounding"] and recorded < 1e-3:
            assert norm < 1e-3, name  # rounding noise of a zero gradient
        else:
            assert norm == pytest.approx(recorded, rel=1e-3, abs=1e-6), name
    assert checked >= len(expected) - 1  # a tied parameter may be listed twice


def without_dropout(model):
    """All dropout set to 0; the model stays as it is otherwise."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_probs_dropout_prob", "layer_drop", "v_layer_drop", "u_layer_drop"):
            if hasattr(module, name):
                setattr(module, name, 0.0)
    return model


def test_training_mode(model_task, load_task):
    """The whole model in training mode: batch statistics, selected rows."""
    expected = model_task.below("train/")
    if not expected:
        return
    task = load_task(model_task.folder.name)
    model = without_dropout(task.model).train()
    outputs = model({**task.inputs(), SIMILARITY: True})
    for key, value in task.below("train/out/").items():
        if key in outputs:
            torch.testing.assert_close(outputs[key], value, **TOLERANCE)
    for selected, key in ((U_SELECTED, kfg.U_LOGITS), (G_SELECTED, kfg.G_LOGITS)):
        if f"train/out/{key}" in task.expected:
            check_selected(outputs[selected], task.expected[f"train/out/{key}"])
    if f"train/out/{kfg.V_LOGITS}" in task.expected:
        whole, rows = task.expected[f"train/out/{kfg.V_LOGITS}"], outputs[V_SELECTED]
        check_selected(rows, whole[:, whole.shape[1] - rows.shape[1] :])
    losses = losses_of(task, outputs)
    check_losses(losses, task.below("train/loss/"))
    sum(losses.values()).backward()
    check_gradients(task, model, "train/grad_norm/")
    buffers = dict(model.named_buffers())
    for name, value in task.below("train/buffer_after/").items():
        torch.testing.assert_close(buffers[name], value, **TOLERANCE)


def check_selected(rows, whole):
    assert rows.shape == whole.shape[:2]
    expected = whole.flatten(0, 1)[rows.positions]
    torch.testing.assert_close(rows.logits, expected, **TOLERANCE)


def test_vectors_of_pictures_and_texts(model_task):
    model_task.model.eval()
    cases = [("eval/OUTPUT/", "inputs", ("0", "1"))]
    cases.append(("val/", "inputs_val", ("vfeats", "tfeats")))
    for prefix, name, keys in cases:
        expected = model_task.below(prefix)
        if not expected:
            continue
        with torch.no_grad():
            output = model_task.model({**model_task.inputs(name), SIMILARITY: True})[kfg.OUTPUT]
        for key, value in zip(keys, output, strict=True):
            torch.testing.assert_close(value, expected[key], **TOLERANCE)


def test_second_pass_reads_what_the_first_predicts(model_task):
    """The ids fed to the second pass follow from the logits of the first."""
    if model_task.task != "tden-pretrain":
        return
    batch = model_task.inputs()
    with torch.no_grad():
        outputs = model_task.model(batch)
    kept = batch[kfg.U_TARGET_IDS] < 0
    for tokens, logits, shift in (
        (kfg.U_TOKENS_IDS, kfg.U_LOGITS, 0),
        (kfg.G_TOKENS_IDS, kfg.G_LOGITS, 1),
    ):
        best = outputs[logits].argmax(-1).roll(shift, dims=1)
        fed = torch.where(kept, batch[tokens], best)
        assert torch.equal(fed, model_task.expected[f"pass2/in/{tokens}"])


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_captions(model_task, beams):
    name = "greedy" if beams == 1 else f"beam{beams}"
    expected = model_task.below(f"decode/{name}/")
    if not expected:
        return
    model, batch = model_task.model.eval(), model_task.inputs("inputs_decode")
    model.beam_searcher.beam_size = beams
    with torch.no_grad():
        outputs = model(batch, use_beam_search=beams > 1, output_sents=True)
    ids, log_probs = outputs[kfg.G_SENTS_IDS], outputs[kfg.G_LOGP]
    assert torch.equal(ids, expected[kfg.G_SENTS_IDS])
    before_end = real_words(ids, model.greedy_decoder.eos_token_id)
    torch.testing.assert_close(log_probs[before_end], expected[kfg.G_LOGP][before_end], **TOLERANCE)
    assert outputs[kfg.OUTPUT] == model_task.meta["notes_from_run"][f"{name}_sents"]


@pytest.mark.parametrize("beams", [2, 3, 5])
def test_all_beams(model_task, beams):
    expected = model_task.below(f"decode/beam{beams}_all/")
    if not expected:
        return
    model, batch = model_task.model.eval(), model_task.inputs("inputs_decode")
    model.beam_searcher.beam_size = beams
    with torch.no_grad():
        outputs = model({**batch, "OUT_SIZE": beams}, use_beam_search=True)
    assert torch.equal(outputs[kfg.G_SENTS_IDS], expected[kfg.G_SENTS_IDS])
    torch.testing.assert_close(outputs[kfg.G_LOGP], expected[kfg.G_LOGP], **TOLERANCE)


def real_words(ids, end):
    """Bool: up to and with the first end."""
    ended = (ids == end).cumsum(-1)
    return (ended - (ids == end).long()) == 0


def test_log_probabilities_of_sampled_captions(model_task):
    """Feeding recorded samples back step by step gives their recorded log-probabilities."""
    expected = model_task.below("rl/sampled/")
    if not expected:
        return
    model, batch = model_task.model.eval(), model_task.inputs("inputs_decode")
    ids = expected[kfg.G_SENTS_IDS]
    groups = len(ids) // len(batch[kfg.ATT_FEATS])
    for key, value in batch.items():
        if isinstance(value, torch.Tensor):
            batch[key] = value.repeat_interleave(groups, dim=0)
    strategy = model.greedy_decoder
    words = torch.full((len(ids),), strategy.bos_token_id)
    with torch.no_grad():
        state, steps = model.start(batch), []
        for drawn in ids.unbind(1):
            logits, state = model.step(words, state)
            steps.append(logits.log_softmax(-1).gather(1, drawn[:, None]))
            words = drawn
    real = real_words(ids, strategy.eos_token_id)
    log_probs = torch.cat(steps, dim=1)
    torch.testing.assert_close(log_probs[real], expected[kfg.G_LOGP][real], **TOLERANCE)


def test_full_size_names_and_shapes(model_task):
    """The model at released size has exactly the released names and shapes."""
    from xmodaler.modeling import build_model

    released = model_task.full_size()
    cfg = full_size(model_task.cfg.clone(), {k: shape_of(v) for k, v in released.items()})
    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {name: shape_of(entry) for name, entry in released.items()}
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == model_task.meta["full_size_parameter_count"]


def shape_of(entry):
    return entry["shape"] if isinstance(entry, dict) else entry


def full_size(cfg, shape):
    """A fixture's config with the sizes that the released shapes imply."""
    model, bert = cfg.MODEL, cfg.MODEL.BERT
    model.DEVICE = "meta"
    model.VOCAB_SIZE, model.TOKEN_EMBED.DIM = shape["token_embed.embeddings.weight"]
    positions = shape["token_embed.embeddings_pos.position_embeddings.weight"]
    model.TOKEN_EMBED.POSITION_MAX_LEN = positions[0]
    model.TOKEN_EMBED.TYPE_VOCAB_SIZE = shape["token_embed.embeddings_token_type.weight"][0]
    model.VISUAL_EMBED.OUT_DIM, model.VISUAL_EMBED.IN_DIM = shape["visual_embed.embeddings.weight"]
    inner, width = shape["encoder.layers.0.intermediate.dense.weight"]
    bert.INTERMEDIATE_SIZE, bert.HIDDEN_SIZE = inner, width
    for setting, prefix in (
        ("NUM_HIDDEN_LAYERS", "encoder.layers."),
        ("V_NUM_HIDDEN_LAYERS", "encoder.v_layers."),
        ("NUM_UNDERSTANDING_LAYERS", "decoder.u_layers."),
        ("NUM_GENERATION_LAYERS", "decoder.g_layers."),
    ):
        numbers = {name[len(prefix) :].split(".")[0] for name in shape if name.startswith(prefix)}
        bert[setting] = len(numbers)
    if "v_predictor.decoder.weight" in shape:
        bert.V_TARGET_SIZE = shape["v_predictor.decoder.weight"][0]
    if "MM_PREDICTOR" in model:
        embed = next(s for name, s in shape.items() if name.endswith("pooler.embed.weight"))
        model.MM_PREDICTOR.POOLER_OUTPUT_SIZE, model.MM_PREDICTOR.POOLER_INPUT_SIZE = embed
        if "predictor.u_logits.1.weight" in shape:
            model.MM_PREDICTOR.LABELS_NUM = shape["predictor.u_logits.1.weight"][0]
    return cfg


CONFIGS = {
    "tden-pretrain": ["pretrain/tden/tden.yaml"],
    "tden-caption": ["image_caption/tden/tden.yaml", "image_caption/tden/tden_rl.yaml"],
    "tden-vqa": ["mm_understanding/vqa/tden/vqa.yaml"],
    "tden-vcr": ["mm_understanding/vcr/tden/vcr.yaml"],
    "tden-retrieval": ["mm_understanding/flickr30k_retrieval/tden/flickr30k_retrieval.yaml"],
}


def test_shipped_configs_have_the_released_names_and_shapes(model_task):
    from xmodaler.config import load_config
    from xmodaler.modeling import add_config, build_model

    released = {name: shape_of(entry) for name, entry in model_task.full_size().items()}
    for config in CONFIGS[model_task.task]:
        path = str(REPOSITORY / "configs" / config)
        cfg = load_config(path, ("MODEL.DEVICE", "meta"), add_config)
        with torch.device("meta"):
            model = build_model(cfg)
        assert {name: list(v.shape) for name, v in model.state_dict().items()} == released
