"""Questions about pictures and videos, from files to scores."""

import importlib
import json
import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import kfg
from xmodaler.datasets import JsonVideoQADataset
from xmodaler.datasets.tasks import candidate_answers
from xmodaler.engine import build_engine
from xmodaler.engine.running import evaluate_only
from xmodaler.modeling.decoder.answer_decoder import AnswerTree
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError


@pytest.fixture(scope="module")
def toy():
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        return importlib.import_module("toy_tasks")
    finally:
        sys.path.pop(0)


def built(cfg):
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    return build_engine(cfg)


def test_answers_are_learned_ranked_and_scored(toy, tmp_path):
    toy.write_questions(tmp_path)
    trainer = built(toy.vqa(tmp_path))
    metrics = trainer.train()
    assert math.isfinite(metrics["Answer Likelihood"])
    assert 0 <= metrics["val/accuracy"] <= 1
    results = json.loads(next((tmp_path / "run" / "results").glob("val_2.json")).read_text())
    assert len(results) == 9
    assert {line["answer"] for line in results} <= {"dog", "a ball", "a red ball", "red"}


def test_candidates_keep_their_labels_when_one_has_no_words(toy, tmp_path):
    toy.write_questions(tmp_path)
    trainer = built(toy.vqa(tmp_path))
    model = trainer.bare_model.eval()
    pieces, begin, end = candidate_answers(trainer.cfg)
    assert pieces[1] == []
    batch = model.preprocess_batch(next(iter(trainer.val_data_loader)))
    model.set_answers(pieces, begin, end)
    labels, scores = model.rank(batch)
    assert sorted(labels[0].tolist()) == [0, 2, 3, 4]
    model.set_answers([pieces[label] for label in (0, 2, 3, 4)], begin, end)
    packed, same = model.rank(batch)
    assert torch.equal(torch.tensor([0, 2, 3, 4])[packed], labels)
    assert torch.equal(scores, same)


def test_without_candidates_the_setting_is_named(toy, tmp_path):
    toy.write_questions(tmp_path)
    trainer = built(toy.vqa(tmp_path, DATALOADER__ANSWERS=""))
    with pytest.raises(UserError, match=r"DATALOADER\.ANSWERS"):
        evaluate_only(trainer.cfg, trainer)


def test_a_list_without_the_answers_is_told(toy, tmp_path, monkeypatch):
    toy.write_questions(tmp_path)
    (tmp_path / "answers.json").write_text(json.dumps(["red", "table"]))
    trainer = built(toy.vqa(tmp_path))
    told = []
    logger = logging.getLogger("xmodaler.evaluation.vqa_evaler")
    monkeypatch.setattr(logger, "warning", lambda text, *values: told.append(text % values))
    assert evaluate_only(trainer.cfg, trainer)["accuracy"] == 0
    assert "9 of 9 questions have no right answer in the list" in told[0]


def cost(model, batch, answers):
    """FLOPs of ranking all candidates, those of the question left out."""
    memory = model.question_memory(batch)
    model.set_answers(answers, 2, 3)
    with FlopCounterMode(display=False) as counter:
        model.rank(batch, memory)
    return counter.get_total_flops()


def test_ranking_costs_what_the_tree_of_beginnings_costs(toy, tmp_path):
    """Candidates that begin alike share what they begin with."""
    toy.write_questions(tmp_path)
    trainer = built(toy.vqa(tmp_path))
    model = trainer.bare_model.eval()
    batch = model.preprocess_batch(next(iter(trainer.val_data_loader)))
    model.requires_grad_(False)
    ends = range(5, 17)
    shared = [[6, 7, 8, end] for end in ends]
    apart = [[end, 6, 7, 8] for end in ends]
    nodes = [len(AnswerTree.of(answers, 3).words) for answers in (shared, apart)]
    assert nodes == [3 + 12, 4 * 12]
    with torch.inference_mode():
        single = cost(model, batch, shared[:1])
        together, separate = cost(model, batch, shared), cost(model, batch, apart)
    # A chain is the root and 4 words. A word of a tree costs what one of these does, and a little
    # more: it looks at more words, of which those of other branches are hidden from it.
    word = single / 5
    assert together <= 1.3 * word * (1 + nodes[0])
    assert separate <= 1.3 * word * (1 + nodes[1])
    assert together < 0.4 * separate


def test_clips_are_learned_and_scored(toy, tmp_path):
    toy.write_clips(tmp_path)
    trainer = built(toy.video_qa(tmp_path))
    batch = next(iter(trainer.val_data_loader))
    assert batch[kfg.IMAGES].shape == (4, 2, 3, 32, 32)
    assert batch[kfg.U_TARGET_IDS].tolist() == [0, 1, 0, 1]
    metrics = trainer.train()
    assert metrics["val/unknown"] == 1
    assert 0 <= metrics["val/accuracy"] <= 5 / 6


def test_nothing_is_learned_from_answers_outside_the_list(toy, tmp_path):
    toy.write_clips(tmp_path)
    trainer = built(toy.video_qa(tmp_path))
    model = trainer.bare_model
    batch = model.preprocess_batch(next(iter(trainer.train_data_loader)))
    batch[kfg.U_TARGET_IDS] = torch.full_like(batch[kfg.U_TARGET_IDS], -1)
    losses = {}
    for loss in trainer.losses:
        losses.update(loss(model(batch)))
    assert sum(value.item() for value in losses.values()) == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"question": "a ball?", "answer": "dog"}, "no 'video_id'"),
        ({"video_id": "video0", "answer": "dog"}, "no 'question'"),
        ({"video_id": "video0", "question": "a ball?"}, "no 'answer'"),
        ({"video_id": "video0", "question": "a ball?", "answer": 3}, "not text"),
        ({"video_id": "video99", "question": "a ball?", "answer": "dog"}, "video99"),
        ({"video_id": [0], "question": "a ball?", "answer": "dog"}, "'video_id' is a list"),
    ],
)
def test_bad_records_are_told(toy, tmp_path, entry, message):
    toy.write_clips(tmp_path)
    (tmp_path / "clips.jsonl").write_text(json.dumps(entry))
    cfg = toy.video_qa(tmp_path)
    mapper = JsonVideoQADataset(cfg, "train")
    with pytest.raises(UserError, match=message):
        mapper(mapper.load_data(cfg)[0])


def test_a_list_that_is_too_short_is_refused(toy, tmp_path):
    toy.write_clips(tmp_path)
    cfg = toy.video_qa(tmp_path, MODEL__X2VLM__NUM_LABELS=4)
    with pytest.raises(UserError, match="has 3 answers, but"):
        JsonVideoQADataset(cfg, "test")
    fewer = JsonVideoQADataset(toy.video_qa(tmp_path, MODEL__X2VLM__NUM_LABELS=1), "test")
    assert fewer.labels == {"ball": 0}
