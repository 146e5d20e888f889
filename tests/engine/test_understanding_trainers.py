"""Trainers of pre-training, answers, choices and retrieval on toy tasks, in this process."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodaler.config import kfg
from xmodaler.engine import CallbackHook, build_engine
from xmodaler.engine.running import import_modules
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError

BATCHES = 4  # in an epoch: 16 records, 4 a batch
TRAINERS = (
    "tden-pretrain",
    "tden-vcr",
    "uniter-retrieval-hard",
    # Steps like those of the others.
    *(
        pytest.param(task, marks=pytest.mark.slow)
        for task in (
            "uniter-pretrain",
            "tden-vqa",
            "uniter-vcr",
            "tden-retrieval",
            "uniter-retrieval",
        )
    ),
)


@pytest.fixture(scope="module")
def tasks(toy):
    """The module of toy tasks, registered once."""
    import_modules([str(Path(__file__).with_name("toy_understanding.py"))])
    return sys.modules["toy_understanding"]


@pytest.fixture
def make(tasks, tmp_path):
    """Builds a seeded trainer of a task whose output folder is ``tmp_path / name``."""

    def build(task, name="run", **changes):
        cfg = tasks.config_of(task, tmp_path / name, **changes)
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        return build_engine(cfg)

    return build


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


class Stopped(Exception):
    pass


def stop_in_mid_epoch(trainer):
    if trainer.iter == BATCHES + 2:
        raise Stopped


@pytest.mark.parametrize("task", TRAINERS)
def test_a_resumed_run_ends_like_a_whole_one(make, tasks, tmp_path, task):
    """Bit for bit, with every part that a step may have; the order of the epochs differs."""
    changes = {
        "MODEL__USE_EMA": True,
        "MODEL__EMA_DECAY": 0.8,
        "SOLVER__ACCUM_STEPS": 2,
        "DATALOADER__TRAIN_BATCH_SIZE": 2,
        "SOLVER__CHECKPOINT_PERIOD_ITERS": 3,
        "SOLVER__EPOCH": 2,
        "LR_SCHEDULER__NAME": "WarmupLinear",
        "LR_SCHEDULER__WARMUP": 1,
    }
    whole = make(task, "whole", **changes)
    metrics = whole.train()
    assert np.isfinite(metrics["total_loss"])
    first = make(task, "parts", **changes)
    first.register_hooks([CallbackHook(before_step=stop_in_mid_epoch)])
    with pytest.raises(Stopped):
        first.train()
    seed_all_rng(99)
    second = make(task, "parts", **{**changes, "SEED": 8})
    second.resume_or_load(resume=True)
    assert second.start_iter == BATCHES + 2
    second.train()
    expected, found = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert tasks.differences(expected, found) == []
    assert {"ema", "optimizer", "scheduler", "batches", "rng"} <= set(expected["trainer"])


@pytest.mark.parametrize("task", TRAINERS)
def test_reduced_precision(make, task):
    metrics = make(task, SOLVER__PRECISION="bf16", SOLVER__EPOCH=1).train()
    assert np.isfinite(metrics["total_loss"])


def test_pretraining_steps_twice_and_schedules_once(make):
    trainer = make("tden-pretrain", MODEL__USE_EMA=True)
    steps, updates = [], []

    def count(*_):
        steps.append(trainer.iter)

    trainer.optimizer.register_step_post_hook(count)
    original = trainer.ema.update
    trainer.ema.update = lambda model: (updates.append(trainer.iter), original(model))
    metrics = trainer.train()
    assert steps == updates == [i for i in range(2 * BATCHES) for _ in range(2)]
    assert trainer.scheduler.last_epoch == 2 * BATCHES
    assert "BatchTriplet Loss" in metrics and "second_pass/total_loss" in metrics
    assert "second_pass/BatchTriplet Loss" not in metrics


def test_each_epoch_has_an_order_of_its_own(make):
    trainer = make("tden-vcr")
    seen = {"VCR_Q-A": [], "VCR_QA-R": []}
    original = trainer.compute_losses

    def note(data):
        longest = "VCR_Q-A" if len(seen["VCR_Q-A"]) == len(seen["VCR_QA-R"]) else "VCR_QA-R"
        seen[longest].append(tuple(data[kfg.IDS]))
        return original(data)

    trainer.compute_losses = note
    trainer.train()
    for batches in seen.values():
        first, second = batches[:BATCHES], batches[BATCHES:]
        flat = [sorted(i for batch in epoch for i in batch) for epoch in (first, second)]
        assert flat[0] == flat[1] == sorted(map(str, range(16)))
        assert first != second


def test_choices_are_scored_together(make, tmp_path):
    trainer = make("tden-vcr", DATASETS__TEST="ToyChoices", SOLVER__EPOCH=1)
    metrics = trainer.train()
    assert {"val/Q -> A", "val/QA -> R", "val/Q -> AR", "QA-R/total_loss"} <= set(metrics)
    assert metrics["val/Q -> AR"] <= min(metrics["val/Q -> A"], metrics["val/QA -> R"])
    # Without labels, results are written and nothing is scored.
    assert not any(name.startswith("test/") for name in metrics)
    results = json.loads((tmp_path / "run" / "results" / "1.json").read_text())
    assert [str(r["question_id"]) for r in results] == [str(200 + i) for i in range(6)]
    lines = (tmp_path / "run" / "results" / "1_leaderboard.csv").read_text().splitlines()
    assert len(lines) == 7
    header, values = lines[0].split(","), [float(v) for v in lines[1].split(",")[1:]]
    assert len(header) == 1 + 4 + 16
    for part in range(5):
        assert sum(values[4 * part : 4 * part + 4]) == pytest.approx(1, abs=1e-4)
    answer = int(np.argmax(values[:4]))
    reasons = values[4 + 4 * answer : 8 + 4 * answer]
    assert (results[0]["answer"], results[0]["rationale"]) == (answer, int(np.argmax(reasons)))


def test_answers_of_a_classifier(make, tmp_path):
    class Keep:
        def eval(self, results, epoch):
            self.results = results
            return {"number": len(results)}

    trainer = make("tden-vqa", DATASETS__VAL="ToyAnswers", SOLVER__EPOCH=1)
    trainer.val_evaluator = evaluator = Keep()
    assert trainer.train()["val/number"] == 6
    assert [result["question_id"] for result in evaluator.results] == list(range(100, 106))
    assert all(result["answer"] in range(4) for result in evaluator.results)


def test_hard_negatives_may_leave_out_the_same_picture(make):
    trainer = make("uniter-retrieval-hard", DATALOADER__NEGATIVES_OF_OTHER_IMAGES=True)
    data = trainer.next_batch()
    data[kfg.IDS] = ["a", "a", "b", "b"]
    wanted = trainer.hard_negative_mining(data)
    rows = [row.tolist() for row in data[kfg.U_TOKENS_IDS]]
    places = [rows.index(row.tolist()) for row in wanted[kfg.U_TOKENS_IDS]]
    assert places[::2] == [0, 1, 2, 3]
    assert all(n in (2, 3) for n in places[1:4:2]) and all(n in (0, 1) for n in places[5::2])
    assert wanted[kfg.SAMPLE_PER_SAMPLE] == 2 and trainer.model.training


@pytest.mark.parametrize("size", [0, -1, 4])
def test_impossible_numbers_of_hard_negatives(make, size):
    with pytest.raises(UserError, match=r"DATALOADER\.NEGATIVE_SIZE is"):
        make("uniter-retrieval-hard", DATALOADER__NEGATIVE_SIZE=size)
