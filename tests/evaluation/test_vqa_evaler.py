"""VQAEvaler: the official accuracy, its types, result files, and what it refuses."""

import json
import logging
import os
import pickle
import re
from pathlib import Path

import pytest

from xmodaler.config import get_cfg
from xmodaler.evaluation import VQAEvaler, build_evaluation
from xmodaler.evaluation.vqa_normalize import normalize_answer
from xmodaler.utils.errors import UserError

DATA = Path(os.environ.get("XMODALER_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data")


def question(number, answers, answer_type="other", question_type="what is"):
    people = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": place}
        for place, answer in enumerate(answers, 1)
    ]
    return {
        "question_id": number,
        "image_id": number,
        "answers": people,
        "answer_type": answer_type,
        "question_type": question_type,
    }


ANNOTATIONS = [
    question(1, ["yes"] * 9 + ["no"], "yes/no", "is the"),
    question(2, ["2"] * 2 + ["two"] + ["3"] * 7, "number", "how many"),
    question(3, ["a red ball", "red ball"] + ["ball"] * 8),
]


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.INFERENCE.NAME = "VQAEvaler"
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "question_id", "answer"
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    return cfg


@pytest.fixture
def annfile(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"annotations": ANNOTATIONS}))
    return str(path)


def results(*answers):
    return [{"question_id": n, "answer": answer} for n, answer in enumerate(answers, 1)]


def official_accuracy(answer, annotation):
    """The public definition, spelled out: leave each person out in turn."""
    people = [person["answer"].strip() for person in annotation["answers"]]
    if len(set(people)) > 1:
        people, answer = [normalize_answer(a) for a in people], normalize_answer(answer)
    scores = []
    for place in range(len(people)):
        others = people[:place] + people[place + 1 :]
        scores.append(min(1, sum(other == answer for other in others) / 3))
    return sum(scores) / len(scores)


def test_accuracy_by_type(cfg, annfile, tmp_path, capsys):
    evaler = build_evaluation(cfg, annfile, str(tmp_path))
    metrics = evaler.eval(results("Yes.", "Two", "the red ball"), 3)
    assert evaler.per_question == pytest.approx({"1": 1.0, "2": 0.9, "3": 0.6})
    assert metrics["accuracy"] == pytest.approx(2.5 / 3)
    assert metrics["answer_type"] == pytest.approx({"yes/no": 1.0, "number": 0.9, "other": 0.6})
    assert evaler.per_question_type == pytest.approx({"is the": 1, "how many": 0.9, "what is": 0.6})
    assert "accuracy of number: 0.9000" in capsys.readouterr().out
    scores = json.loads((tmp_path / "results" / "3_scores.json").read_text())
    assert scores["question_type"] == evaler.per_question_type
    assert scores["accuracy"] == metrics["accuracy"]


def test_the_result_file_is_what_the_server_takes(cfg, annfile, tmp_path):
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(["ball", "yes"]))
    evaler = VQAEvaler(cfg, annfile, str(tmp_path))
    evaler.result_prefix = "val_"
    evaler.eval(results(1, "two", 0), 5)
    written = json.loads((tmp_path / "results" / "val_5.json").read_text())
    assert written == results("yes", "two", "ball")


@pytest.mark.parametrize("kind", ["pkl", "json"])
def test_targets_of_labels_score_as_released(cfg, tmp_path, kind):
    targets = [
        {"question_id": 1, "image_id": 7, "labels": [0, 1], "scores": [1, 0.3]},
        {"question_id": 2, "image_id": 7, "labels": [], "scores": []},
    ]
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(["red", "blue"]))
    file = tmp_path / f"targets.{kind}"
    file.write_bytes(pickle.dumps(targets) if kind == "pkl" else json.dumps(targets).encode())
    evaler = VQAEvaler(cfg, str(file))
    assert evaler.eval(results(1, 0)) == {"accuracy": pytest.approx(0.15)}
    assert evaler.eval(results("red", "red")) == {"accuracy": pytest.approx(0.5)}


@pytest.mark.parametrize("split", ["none", "questions"])
def test_a_split_without_answers_is_only_written(cfg, tmp_path, split):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"questions": [{"question_id": 1, "question": "what?"}]}))
    evaler = VQAEvaler(cfg, str(file) if split == "questions" else "", str(tmp_path / "out"))
    assert evaler.eval(results("red"), -1) == {}
    written = json.loads((tmp_path / "out" / "results" / "-1.json").read_text())
    assert written == results("red")


def test_unknown_questions_are_named_and_give_no_accuracy(cfg, annfile, caplog):
    with caplog.at_level(logging.WARNING):
        metrics = VQAEvaler(cfg, annfile).eval(results("yes", "2", "ball", "what"))
    assert metrics == {"accuracy": 0.0}
    assert "1 of 4 results belong to questions that are not in" in caplog.text
    assert "the first of them 4" in caplog.text


def test_questions_that_nobody_answered_do_not_count(cfg, tmp_path, caplog):
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({"annotations": [ANNOTATIONS[0], question(2, [])]}))
    with caplog.at_level(logging.WARNING):
        assert VQAEvaler(cfg, str(file)).eval(results("yes", "yes"))["accuracy"] == 1.0
    assert re.search("1 questions of .* have no usable answers", caplog.text)


def test_what_cannot_be_scored_is_named(cfg, annfile, tmp_path):
    evaler = VQAEvaler(cfg, annfile)
    with pytest.raises(UserError, match="more than one result"):
        evaler.eval(results("yes") * 2)
    with pytest.raises(UserError, match=r"INFERENCE.VALUE 'answer'"):
        evaler.eval([{"question_id": 1, "caption": "yes"}])
    with pytest.raises(UserError, match=r"trainval_label2ans.json' \(or .pkl\) does not exist"):
        evaler.eval(results(0))
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(["red", "blue"]))
    with pytest.raises(UserError, match="label 2, but the answer vocabulary has 2"):
        evaler.eval(results(2))
    with pytest.raises(UserError, match="is a text or the number of a label"):
        evaler.eval(results(None))
    with pytest.raises(UserError, match=r"INFERENCE.VAL_ANNFILE"):
        VQAEvaler(cfg, str(tmp_path / "gone.json"))


def test_files_of_another_kind_are_named(cfg, tmp_path):
    file = tmp_path / "targets.json"
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(["red"]))
    for content, words in (
        ({"images": []}, "neither VQA annotations"),
        ([{"question_id": 1, "labels": [4], "scores": [1]}], "the label 4, but"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=words):
            VQAEvaler(cfg, str(file)).eval(results("red"))
    file.write_text("{")
    with pytest.raises(UserError, match="JSON"):
        VQAEvaler(cfg, str(file)).eval(results("red"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_agrees_with_the_definition_on_the_answers_of_people(cfg, split):
    file = DATA / "vqav2_text" / f"annotations_{split}.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    annotations = json.loads(file.read_text())["annotations"]
    evaler = VQAEvaler(cfg, str(file))
    for person in (0, 4, 9):
        answers = {a["question_id"]: a["answers"][person]["answer"] for a in annotations}
        metrics = evaler.eval(
            [{"question_id": key, "answer": text} for key, text in answers.items()]
        )
        expected = {
            str(a["question_id"]): official_accuracy(answers[a["question_id"]], a)
            for a in annotations
        }
        assert evaler.per_question == pytest.approx(expected)
        assert metrics["accuracy"] == pytest.approx(sum(expected.values()) / len(expected))
        assert 0.5 < metrics["accuracy"] < 1
    # What most people answered is right far more often than what a single one did.
    most = [
        {"question_id": a["question_id"], "answer": a["multiple_choice_answer"]}
        for a in annotations
    ]
    assert evaler.eval(most)["accuracy"] > metrics["accuracy"]
