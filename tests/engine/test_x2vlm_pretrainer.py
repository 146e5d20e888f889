"""Pre-training on a mixture of kinds of data: rules of the step, resuming, precision, processes."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.engine import CallbackHook, build_engine
from xmodaler.engine.running import import_modules
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6  # of an epoch: 12 pictures, 2 a batch


@pytest.fixture(scope="module")
def lines():
    """The module of toy lines."""
    import_modules([str(Path(__file__).with_name("toy_x2vlm.py"))])
    return sys.modules["toy_x2vlm"]


@pytest.fixture(scope="module")
def data(lines, tmp_path_factory):
    return lines.write_lines(tmp_path_factory.mktemp("lines"))


@pytest.fixture
def make(lines, data, tmp_path):
    """Builds a seeded trainer whose output folder is ``tmp_path / name``."""

    def build(name="run", **changes):
        cfg = lines.config_of(data, tmp_path / name, **changes)
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        return build_engine(cfg)

    return build


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def differences(expected, found, path=""):
    """Names of what is not equal, bit for bit."""
    if isinstance(expected, torch.Tensor):
        return [] if torch.equal(expected, found) else [path]
    if isinstance(expected, dict):
        assert expected.keys() == found.keys(), path
        pairs = ((key, expected[key], found[key]) for key in expected)
        return [name for key, a, b in pairs for name in differences(a, b, f"{path}/{key}")]
    if isinstance(expected, list | tuple):
        pairs = zip(expected, found, strict=True)
        return [n for i, (a, b) in enumerate(pairs) for n in differences(a, b, f"{path}/{i}")]
    return [] if expected == found else [path]


def test_every_group_teaches_and_the_weights_of_groups_count(make):
    metrics = make(SOLVER__EPOCH=1, DATALOADER__GROUPS__REGIONS__WEIGHT=0.5).train()
    pairs = ("ITC", "ITM", "CrossEntropy Loss(U)")
    expected = {f"{group}/{loss}" for group in ("images", "regions", "videos") for loss in pairs}
    expected |= {f"parallel_texts/{loss}" for loss in pairs}
    expected |= {"regions/Box L1", "regions/Box GIoU", "texts/CrossEntropy Loss(U)"}
    shown = {name for name in metrics if "/" in name}
    assert shown == expected
    assert math.isclose(metrics["total_loss"], sum(metrics[n] for n in shown), rel_tol=1e-4)


def test_a_weight_multiplies_the_losses_of_its_group(make):
    node = "DATALOADER__GROUPS__IMAGES__WEIGHT"
    one = make("one", kinds=("IMAGES",), SOLVER__MAX_ITER=1).train()
    three = make("three", kinds=("IMAGES",), SOLVER__MAX_ITER=1, **{node: 3.0}).train()
    for name in ("images/ITC", "images/ITM", "images/CrossEntropy Loss(U)", "total_loss"):
        assert math.isclose(three[name], 3 * one[name], rel_tol=1e-5)


class Stopped(Exception):
    pass


def stop_in_mid_epoch(trainer):
    if trainer.iter == STEPS // 2 + 2:
        raise Stopped


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_like_a_whole_one(make, lines, data, tmp_path, workers):
    """Bit for bit, in the middle of the epochs of all kinds, among clean and noisy batches."""
    changes = {
        **lines.clean_pictures(data),
        "SOLVER__ACCUM_STEPS": 2,
        "SOLVER__EPOCH": 3,
        "SOLVER__CHECKPOINT_PERIOD_ITERS": 5,
        "MODEL__USE_EMA": True,
        "DATALOADER__NUM_WORKERS": workers,
    }
    whole = make("whole", **changes)
    whole.train()
    first = make("parts", **changes)
    first.register_hooks([CallbackHook(before_step=stop_in_mid_epoch)])
    with pytest.raises(Stopped):
        first.train()
    seed_all_rng(99)
    second = make("parts", **{**changes, "SEED": 8})
    second.resume_or_load(resume=True)
    assert second.start_iter == 5
    second.train()
    assert differences(final(tmp_path / "whole"), final(tmp_path / "parts")) == []


def test_reduced_precision(make):
    metrics = make(SOLVER__PRECISION="bf16", SOLVER__EPOCH=1).train()
    assert math.isfinite(metrics["total_loss"])


def test_a_backward_pass_per_group_gives_the_same_gradients(make):
    quiet = {
        "MODEL__BERT__HIDDEN_DROPOUT_PROB": 0.0,
        "MODEL__BERT__FFN_DROPOUT_PROB": 0.0,
        "MODEL__BERT__INTERMEDIATE_DROP": 0.0,
        "MODEL__BERT__ATTENTION_PROBS_DROPOUT_PROB": 0.0,
        "MODEL__VISION__DROP_PATH": 0.0,
        "SOLVER__MAX_ITER": 1,
        "SOLVER__GRAD_CLIP": -1.0,
    }
    found = []
    for separate in (False, True):
        trainer = make(str(separate), ENGINE__BACKWARD_PER_GROUP=separate, **quiet)
        gradients = {}

        def note(trainer=trainer, gradients=gradients):
            for name, parameter in trainer.model.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = parameter.grad.clone()

        trainer.optimizer_step = note
        metrics = trainer.train()
        found.append((gradients, metrics))
    (whole, one), (parts, other) = found
    assert whole.keys() == parts.keys() and len(whole) > 50
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert math.isclose(one["total_loss"], other["total_loss"], rel_tol=1e-5)


def test_gradients_cannot_be_used_up_by_one_of_several_passes(make):
    with pytest.raises(UserError, match="exclude each other"):
        make(ENGINE__BACKWARD_PER_GROUP=True, SOLVER__STEP_IN_BACKWARD=True)


def names_of_steps(trainer):
    """The losses of every step, and which groups were clean."""
    steps = []
    original = trainer.compute_losses

    def note(data):
        losses = original(data)
        steps.append(
            (
                set(losses),
                data["CLEAN_GROUPS"],
                {n: len(g[kfg.IDS]) for n, g in data[kfg.GROUPS].items()},
            )
        )
        return losses

    trainer.compute_losses = note
    trainer.train()
    return steps


def test_texts_are_matched_on_clean_pictures_alone_and_only_at_first(make, lines, data):
    kinds = ("IMAGES", "REGIONS", "PARALLEL_TEXTS")
    changes = {**lines.clean_pictures(data), "ENGINE__MATCHING_STEPS": 8}
    steps = names_of_steps(make(kinds=kinds, **changes))
    assert {bool(clean) for _, clean, _ in steps[:8]} == {True, False}
    for number, (losses, clean, _) in enumerate(steps):
        matched = {name for name in losses if name.endswith("ITM")}
        everywhere = {f"{kind.lower()}/ITM" for kind in kinds}
        assert matched == (everywhere if clean and number < 8 else set()), number
        assert "images/ITC" in losses and "regions/Box L1" in losses
        assert clean in ([], ["images"])


def test_without_clean_pictures_texts_are_always_matched(make):
    steps = names_of_steps(make(kinds=("IMAGES",), SOLVER__EPOCH=1))
    assert all("images/ITM" in losses for losses, _, _ in steps)


def test_regions_may_teach_boxes_alone(make):
    kinds = ("IMAGES", "REGIONS")
    change = {"DATALOADER__GROUPS__REGIONS__BOXES_ONLY": True, "SOLVER__EPOCH": 1}
    steps = names_of_steps(make(kinds=kinds, **change))
    for losses, _, _ in steps:
        regions = {name for name in losses if name.startswith("regions")}
        assert regions == {"regions/Box L1", "regions/Box GIoU"}


def test_boxes_alone_have_the_losses_they_have_among_others(make):
    trainer = make(kinds=("REGIONS",), SOLVER__MAX_ITER=1)
    batch = trainer.next_batch()
    trainer.model.eval()
    group = batch[kfg.GROUPS]["regions"]
    losses = []
    for alone in (False, True):
        changed = {**group, "BOXES_ONLY": alone, "TOKENS_MASKS": group[kfg.TOKENS_MASKS]}
        losses.append(trainer.compute_losses({**batch, kfg.GROUPS: {"regions": changed}}))
    for name, value in losses[1].items():
        torch.testing.assert_close(value, losses[0][name])


def test_an_epoch_may_be_given_in_records(make):
    trainer = make(kinds=("IMAGES",), DATALOADER__GROUPS__EPOCH_SIZE=31, SOLVER__ACCUM_STEPS=3)
    assert trainer.iters_per_epoch == 6 and trainer.max_iter == 12


def test_one_pair_has_no_negative(make):
    changes = {"DATALOADER__GROUPS__IMAGES__BATCH_SIZE": 1, "SOLVER__EPOCH": 1}
    metrics = make(kinds=("IMAGES",), **changes).train()
    assert math.isfinite(metrics["total_loss"])


def test_rows_of_whole_pictures_alone_are_no_nan(make):
    trainer = make(kinds=("REGIONS",), SOLVER__MAX_ITER=1)
    batch = trainer.next_batch()
    group = batch[kfg.GROUPS]["regions"]
    group[kfg.IS_IMAGE] = torch.ones_like(group[kfg.IS_IMAGE])
    losses = trainer.compute_losses(batch)
    assert losses["regions/Box L1"] == losses["regions/Box GIoU"] == 0
    sum(losses.values()).backward()
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


def run_twice(lines, data, environment, tmp_path, **changes):
    """Weights of both processes of a run, each written by itself."""
    cfg = lines.config_of(data, tmp_path / "two", **changes)
    (tmp_path / "two.yaml").write_text(cfg.dump())
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--num-gpus", "2"]
    command += ["--import", str(Path(__file__).with_name("note_weights.py"))]
    command += ["--dist-url", "auto", "--config-file", str(tmp_path / "two.yaml")]
    environment = {**environment, "NOTED_WEIGHTS": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["together", "accumulated", "per group", "few rows"])
def test_two_processes_keep_equal_weights(lines, data, environment, tmp_path, mode):
    changes = {**lines.clean_pictures(data), "SOLVER__MAX_ITER": 6}
    changes["DATALOADER__GROUPS__IMAGES__BATCH_SIZE"] = 2
    if mode == "accumulated":
        changes["SOLVER__ACCUM_STEPS"] = 2
    if mode == "per group":
        changes["ENGINE__BACKWARD_PER_GROUP"] = True
    if mode == "few rows":
        changes["DATALOADER__GROUPS__REGIONS__ROWS"] = 0
    first, second = run_twice(lines, data, environment, tmp_path, **changes)
    assert differences(first["model"], second["model"]) == []
    assert first["clean"] == second["clean"] and {True, False} == set(first["clean"])
    # Each saw records of its own.
    assert first["seen"] and not set(first["seen"]) & set(second["seen"])
