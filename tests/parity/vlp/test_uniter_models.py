"""UNITER reproduces the reference's states, logits, losses, gradients and parameter names."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xmodaler.config import kfg, load_config
from xmodaler.losses import build_losses
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.stage_keys import SCORES_ONLY

FAMILY = "uniter"
CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RELEASED = {
    "uniter-pretrain": "pretrain/uniter/uniter.yaml",
    "uniter-vqa": "mm_understanding/vqa/uniter/vqa.yaml",
    "uniter-vcr": "mm_understanding/vcr/uniter/vcr.yaml",
    "uniter-retrieval": "mm_understanding/flickr30k_retrieval/uniter/flickr30k_retrieval.yaml",
}
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
GRADIENTS = {"atol": 1e-4, "rtol": 1e-3}
TAPS = {"visual_embed": "visual_embed", "token_embed": "token_embed", "encoder": "encoder"}


def cases(fixture):
    """Prefix of the expected numbers, name of the input file, pre-training task or None."""
    if fixture.task == "uniter-pretrain":
        return [(f"{task}/", "inputs", task) for task in ("itm", "mlm", "mrfr", "mrc-kl")]
    if fixture.task == "uniter-vcr":
        return [("q2a/", "inputs", None), ("qa2r/", "inputs_qar", None)]
    return [("", "inputs", None)]


def force(model, task):
    if task is not None:
        model.sampling_pool = [task]


@contextmanager
def recorded(model):
    """What embeddings and encoder return while the block runs, by name."""
    seen = {}
    hooks = [
        getattr(model, part).register_forward_hook(
            lambda _, args, output, part=part: seen.setdefault(part, {}).update(output)
        )
        for part in TAPS
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def losses_of(fixture, outputs):
    return {
        name: value for loss in build_losses(fixture.cfg) for name, value in loss(outputs).items()
    }


def check_losses(fixture, outputs, prefix):
    expected = fixture.below(f"{prefix}loss/")
    losses = losses_of(fixture, outputs)
    assert losses.keys() == expected.keys() - {"total"}
    losses["total"] = sum(losses.values())
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], **TOLERANCE)
    return losses["total"]


def check_outputs(find_output, fixture, outputs, prefix):
    for key, expected in fixture.below(f"{prefix}out/").items():
        if key == kfg.EXT_G_TOKENS_MASKS:
            continue  # no text is generated
        value = find_output(outputs, key)
        if not fixture.expected[f"{prefix}out/{key}"].is_floating_point():
            assert torch.equal(value, expected), key
            continue
        value = value.reshape(expected.shape)  # the reference views VCR scores by question
        torch.testing.assert_close(value, expected, **TOLERANCE, msg=lambda m, k=key: f"{k}: {m}")


def check_gradients(fixture, total, prefix):
    fixture.model.zero_grad(set_to_none=True)
    total.backward()
    expected = fixture.below(f"{prefix}grad_norm/")
    norms = {
        name: parameter.grad.norm()
        for name, parameter in fixture.model.named_parameters()
        if parameter.grad is not None
    }
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        torch.testing.assert_close(
            norm, expected[name], **GRADIENTS, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_weights_load_by_name(model_task):
    weights = load_file(str(model_task.folder / "weights.safetensors"))
    state = model_task.model.state_dict()
    assert set(state) == set(weights)
    for name, value in weights.items():
        assert torch.equal(state[name], value), name


def test_shipped_config_has_the_released_names_and_shapes(model_task):
    path = str(CONFIGS / RELEASED[model_task.task])
    cfg = load_config(path, ("MODEL.DEVICE", "meta"), add_config)
    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == model_task.full_size()
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == model_task.meta["full_size_parameter_count"]


def test_outputs_losses_and_gradients(model_task, find_output):
    for prefix, name, task in cases(model_task):
        force(model_task.model, task)
        batch = model_task.inputs(name)
        before = {key: value.clone() for key, value in batch.items() if torch.is_tensor(value)}
        outputs = model_task.model(batch)
        assert before.keys() | {kfg.IDS} >= batch.keys()
        assert all(torch.equal(batch[key], value) for key, value in before.items())
        check_outputs(find_output, model_task, outputs, prefix)
        check_gradients(model_task, check_losses(model_task, outputs, prefix), prefix)


def test_what_embeddings_and_encoder_return(model_task):
    for prefix, name, task in cases(model_task):
        force(model_task.model, task)
        with recorded(model_task.model) as seen, torch.no_grad():
            model_task.model(model_task.inputs(name))
        for key, expected in model_task.below(f"{prefix}tap/").items():
            part, output = key.split("/")
            value = seen[part.removesuffix("_t")][output]
            torch.testing.assert_close(value, expected, **TOLERANCE)


def test_regions_may_come_once_per_image(model_task, find_output):
    for prefix, name, task in cases(model_task):
        force(model_task.model, task)
        with torch.no_grad():
            outputs = model_task.model(model_task.once_per_image(name))
        expected = model_task.below(f"{prefix}out/")
        for key in expected.keys() & {kfg.U_LOGITS, kfg.V_LOGITS, kfg.U_HIDDEN_STATES}:
            value = outputs[key].reshape(expected[key].shape)
            torch.testing.assert_close(value, expected[key], **TOLERANCE)


def test_only_what_heads_read_is_enough(model_task):
    """Scores without states, padding left out: the same losses and gradients."""
    for prefix, name, task in cases(model_task):
        force(model_task.model, task)
        outputs = model_task.model({**model_task.once_per_image(name), SCORES_ONLY: True})
        assert kfg.U_HIDDEN_STATES not in outputs and kfg.ATT_FEATS not in outputs
        check_gradients(model_task, check_losses(model_task, outputs, prefix), prefix)


@pytest.mark.parametrize("name", ["uniter-vqa", "uniter-vcr", "uniter-retrieval"])
def test_bound(load_task, find_output, name):
    fixture = load_task(name)
    fixture.model.bind_or_init_weights()
    for prefix, inputs, _ in cases(fixture):
        outputs = fixture.model(fixture.inputs(inputs))
        check_outputs(find_output, fixture, outputs, f"bound/{prefix}")
        total = check_losses(fixture, outputs, f"bound/{prefix}")
        check_gradients(fixture, total, f"bound/{prefix}")


@pytest.fixture(scope="module")
def bound_retrieval(load_task):
    fixture = load_task("uniter-retrieval")
    fixture.model.bind_or_init_weights()
    return fixture


def test_mined_batch(bound_retrieval, find_output):
    batch = bound_retrieval.below("hard/in/")
    outputs = bound_retrieval.model(batch)
    check_outputs(find_output, bound_retrieval, outputs, "hard/")
    total = check_losses(bound_retrieval, outputs, "hard/")
    check_gradients(bound_retrieval, total, "hard/")


@torch.no_grad()
def test_scores_of_all_pairs(bound_retrieval):
    batch = bound_retrieval.inputs("inputs_val")
    visual = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS)
    text = {key: batch[key] for key in (kfg.U_TOKENS_IDS, kfg.TOKENS_MASKS)}
    text[kfg.U_TOKENS_TYPE] = torch.zeros_like(text[kfg.U_TOKENS_IDS])
    columns = []
    for image in range(len(batch[kfg.ATT_FEATS])):
        regions = {key: batch[key][image : image + 1] for key in visual}
        columns.append(bound_retrieval.model({**text, **regions, SCORES_ONLY: True})[kfg.OUTPUT])
    scores = torch.cat(columns, dim=1)
    torch.testing.assert_close(scores, bound_retrieval.expected["val/score_matrix"], **TOLERANCE)
