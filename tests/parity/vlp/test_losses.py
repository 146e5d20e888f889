"""Every loss on the inputs of the fixtures: values, names and input gradients."""

import json

import pytest
import torch
from safetensors.torch import load_file

from xmodaler.config import kfg
from xmodaler.losses import (
    BatchTriplet,
    BCEWithLogits,
    CrossEntropy,
    LabelSmoothing,
    PretrainLosses,
    RewardCriterion,
    Triplet,
)

CASES = (
    "batch_triplet_max",
    "batch_triplet_mean",
    "bce",
    "cross_entropy_seq",
    "cross_entropy_vcr",
    "label_smoothing",
    "pretrain_itm",
    "pretrain_mlm",
    "pretrain_mrc",
    "pretrain_mrfr",
    "pretrain_tden",
    "reward_criterion",
    "triplet",
    "triplet_no_violation",
)

# Rows 1 and 2 are of one image in the pre-training case, which its gradients show.
UNSAID_IDS = ["a", "b", "b", "c"]


def build(case, settings):
    """The loss module of a case."""
    margin = settings.get("margin", 0.2)
    max_violation = settings.get("max_violation", True)
    if case.startswith("pretrain"):
        return PretrainLosses(margin=margin, max_violation=max_violation)
    if case.startswith("batch_triplet"):
        return BatchTriplet(margin=margin, max_violation=max_violation)
    if case.startswith("triplet"):
        return Triplet(margin=margin)
    if case.startswith("cross_entropy"):
        return CrossEntropy()
    if case == "bce":
        return BCEWithLogits()
    if case == "label_smoothing":
        return LabelSmoothing(label_smoothing=settings["label_smoothing"])
    return RewardCriterion(eos_id=settings["eos_id"])


def inputs_of(case, settings, tensors, expected):
    """The outputs of a model that a loss is given; those with a gradient ask for it."""
    batch = {
        key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{case}/")
    }
    for key in batch:
        if f"{case}/grad/{key}" in expected:
            batch[key] = batch[key].clone().requires_grad_()
    if kfg.SAMPLE_PER_SAMPLE in settings:
        batch[kfg.SAMPLE_PER_SAMPLE] = settings[kfg.SAMPLE_PER_SAMPLE]
    if kfg.OUTPUT in batch:
        batch[kfg.IDS] = settings.get(kfg.IDS, UNSAID_IDS)
    return batch


@pytest.mark.parametrize("case", CASES)
def test_loss(vlp_shared, case):
    folder = vlp_shared / "losses"
    settings = json.loads((folder / "meta.json").read_text())["cases"][case]
    expected = load_file(str(folder / "expected.safetensors"))
    tensors = load_file(str(folder / "inputs.safetensors"))
    batch = inputs_of(case, settings, tensors, expected)
    losses = build(case, settings)(batch)
    assert set(losses) == set(settings["loss_keys"])
    for name, value in losses.items():
        reference = expected[f"{case}/loss/{name}"]
        torch.testing.assert_close(value, reference, atol=1e-6, rtol=1e-5, msg=name)
    sum(losses.values()).backward()
    for key, value in batch.items():
        if f"{case}/grad/{key}" in expected:
            reference = expected[f"{case}/grad/{key}"]
            torch.testing.assert_close(value.grad, reference, atol=1e-6, rtol=1e-5, msg=key)


def test_every_case_is_tested(vlp_shared):
    meta = json.loads((vlp_shared / "losses" / "meta.json").read_text())
    assert set(meta["cases"]) == set(CASES)
