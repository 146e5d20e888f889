"""Model-free numbers of the reference: losses, position encodings, scheduled sampling."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from xmodaler.config import kfg
from xmodaler.engine.hooks import ScheduledSampling
from xmodaler.losses import CrossEntropy, LabelSmoothing, RewardCriterion
from xmodaler.losses.sem_comphder import SemComphderLoss
from xmodaler.modeling.embedding.position_embedding import SinusoidEncoding

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def numbers(shared_folder):
    return load_file(str(shared_folder / "losses.safetensors"))


def smoothing_losses(numbers):
    prefix = "token/LabelSmoothing_"
    names = [name for name in numbers if name.startswith(prefix) and not name.endswith("/grad")]
    return {name: LabelSmoothing(label_smoothing=float(name[len(prefix) :])) for name in names}


def test_word_losses_and_their_gradients(numbers):
    losses = {"token/CrossEntropy": CrossEntropy(), **smoothing_losses(numbers)}
    assert len(losses) > 1
    for name, loss in losses.items():
        logits = numbers["token/G_LOGITS"].clone().requires_grad_()
        batch = {kfg.G_LOGITS: logits, kfg.G_TARGET_IDS: numbers["token/G_TARGET_IDS"]}
        (value,) = loss(batch).values()
        torch.testing.assert_close(value, numbers[name], **TOLERANCE)
        (grad,) = torch.autograd.grad(value, logits)
        torch.testing.assert_close(grad, numbers[f"{name}/grad"], **TOLERANCE)


def test_both_heads(numbers):
    keys = (kfg.G_LOGITS, kfg.G_TARGET_IDS, kfg.U_LOGITS, kfg.U_TARGET_IDS)
    values = CrossEntropy()({key: numbers[f"token/{key}"] for key in keys})
    expected = {
        name.split("/", 2)[2]: value
        for name, value in numbers.items()
        if name.startswith("token/both/")
    }
    assert values.keys() == expected.keys()
    for name, value in values.items():
        torch.testing.assert_close(value, expected[name], **TOLERANCE)


def test_reward_criterion(numbers):
    cases = sorted({name.split("/")[0] for name in numbers if name.startswith("reward_eos")})
    for case in cases:
        log_probs = numbers[f"{case}/G_LOGP"].clone().requires_grad_()
        batch = {key: numbers[f"{case}/{key}"] for key in (kfg.G_SENTS_IDS, kfg.REWARDS)}
        loss = RewardCriterion(eos_id=int(case.removeprefix("reward_eos")))
        (value,) = loss({**batch, kfg.G_LOGP: log_probs}).values()
        torch.testing.assert_close(value, numbers[f"{case}/loss"], **TOLERANCE)
        (grad,) = torch.autograd.grad(value, log_probs)
        torch.testing.assert_close(grad, numbers[f"{case}/grad"], **TOLERANCE)


def test_losses_on_semantic_words(numbers, shared_folder):
    names = [name for name in numbers if name.startswith("sem/filter_loss_")]
    assert names
    sizes = {"num_classes": numbers["sem/SEMANTICS_PRED"].size(2) - 1}
    sizes["slot_size"] = numbers["sem/SEMANTICS_PRED"].size(1)
    sizes["slot_size"] -= numbers["sem/SEMANTICS_LABELS"].size(1)
    for name in names:
        case = name.removeprefix("sem/filter_loss_")
        filter_weight, reconstruct_weight = (float(part[2:]) for part in case.split("_"))
        loss = SemComphderLoss(
            **sizes, filter_weight=filter_weight, reconstruct_weight=reconstruct_weight
        )
        scores = numbers["sem/SEMANTICS_PRED"].clone().requires_grad_()
        labels = (kfg.SEMANTICS_LABELS, kfg.SEMANTICS_MISS_LABELS)
        batch = {kfg.SEMANTICS_PRED: scores, **{key: numbers[f"sem/{key}"] for key in labels}}
        values = loss(batch)
        for part in ("filter_loss", "reconstruct_loss"):
            torch.testing.assert_close(values[part], numbers[f"sem/{part}_{case}"], **TOLERANCE)
        (grad,) = torch.autograd.grad(sum(values.values()), scores)
        torch.testing.assert_close(grad, numbers[f"sem/grad_{case}"], **TOLERANCE)


def test_probability_of_scheduled_sampling(shared_folder):
    path = shared_folder / "scheduled_sampling.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    for recipe in json.loads(path.read_text()):
        per_epoch = recipe["iters_per_epoch"]
        hook = ScheduledSampling(
            start_iter=recipe["start_epoch"] * per_epoch,
            inc_every_iter=recipe["inc_every_epoch"] * per_epoch,
            inc_prob=recipe["inc_prob"],
            max_prob=recipe["max_prob"],
        )
        hook.trainer = SimpleNamespace(ss_prob=0.0)
        used = []
        for hook.trainer.iter in range(recipe["epochs"] * per_epoch):
            used.append(hook.trainer.ss_prob)
            hook.after_step()
        first, last = used[::per_epoch], used[per_epoch - 1 :: per_epoch]
        assert first == pytest.approx(recipe["prob_used_first_iter_of_epoch"]), recipe["name"]
        assert last == pytest.approx(recipe["prob_used_last_iter_of_epoch"]), recipe["name"]


def test_sinusoids(shared_folder):
    tables = load_file(str(shared_folder / "ops.safetensors"))
    names = [name for name in tables if name.startswith("sinusoid_")]
    assert names
    for name in names:
        dim, max_len = (int(part) for part in name.split("_")[1:])
        expected = tables[name]
        encoding = SinusoidEncoding(dim, max_len)
        positions = torch.zeros(1, expected.shape[1])
        torch.testing.assert_close(encoding(positions), expected, **TOLERANCE)
        torch.testing.assert_close(encoding(3), expected[:, 3], **TOLERANCE)
