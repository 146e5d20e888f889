"""Building answer vocabularies and soft targets of VQA data."""

import io
import json
import os
import runpy
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xmodaler.cli import run_cli
from xmodaler.datasets.answer_files import read_label2ans, read_targets
from xmodaler.datasets.vqa_annotations import AnsweredQuestion, read_annotations, soft_target
from xmodaler.evaluation.vqa_normalize import vqa_accuracy
from xmodaler.preprocessing.vqa_answers import build_vocabulary, counted_questions
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data"))


def run_tool(*arguments: object) -> SimpleNamespace:
    """What the tool does, in this process: its exit status and what it prints."""
    main = runpy.run_path(str(ROOT / "tools" / "build_answers.py"))["main"]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run_cli(main, [str(argument) for argument in arguments])
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


def entry(number: int, answers: list[str], image: int = 1, **fields: str) -> dict:
    return {
        "question_id": number,
        "image_id": image,
        "answers": [{"answer": answer, "answer_id": k} for k, answer in enumerate(answers)],
        "multiple_choice_answer": answers[0] if answers else "",
        "answer_type": "other",
        "question_type": "what is",
        **fields,
    }


def write_annotations(path: Path, entries: list) -> Path:
    path.write_text(json.dumps({"annotations": entries}), encoding="utf-8")
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    entries = [entry(k, ["Two"] * 6 + ["three"] * 4) for k in range(5)]
    entries += [entry(10 + k, ["a dog"] * 9 + ["cat"]) for k in range(3)]
    return write_annotations(tmp_path / "train.json", [*entries, entry(20, ["zebra"] * 10)])


def test_tool_writes_vocabulary_and_targets(annotations: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers"
    result = run_tool("--annotations", f"train={annotations}", "--min-count", 3, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "LABELS_NUM 2" in result.stdout and "1 with no answer of the vocabulary" in result.stdout
    answers = read_label2ans(out / "trainval_label2ans.pkl")  # the released name finds the JSON
    assert answers == ["2", "dog"]
    targets, problems = read_targets(out / "train_target.json", answers)
    assert not problems and len(targets) == 9
    assert targets[0]["labels"].tolist() == [0] and targets[0]["scores"].tolist() == [1.0]
    assert targets[-1]["labels"].dtype == np.int64 and len(targets[-1]["labels"]) == 0
    again = tmp_path / "again"
    run_tool("--annotations", f"train={annotations}", "--min-count", 3, "--out", again)
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_soft_scores_follow_the_leave_one_out_rule() -> None:
    people = ["red"] * 2 + ["blue"] + ["green"] * 7
    target = soft_target(AnsweredQuestion(1, 2, people, "green"), {"red": 0, "blue": 1, "green": 2})
    assert dict(zip(target["labels"], target["scores"], strict=True)) == {0: 0.6, 1: 0.3, 2: 1.0}


def test_ties_in_the_vocabulary_are_ordered_by_the_alphabet() -> None:
    questions = [AnsweredQuestion(k, 1, [a], a) for k, a in enumerate(["pear", "fig", "apple"] * 2)]
    assert build_vocabulary(questions, 2) == ["apple", "fig", "pear"]
    assert build_vocabulary(questions, 2, max_answers=1) == ["apple"]
    with pytest.raises(UserError, match="smaller --min-count"):
        build_vocabulary(questions, 3)


def test_pictures_share_out_the_questions(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "all.json", [entry(k, ["a"] * 2, k % 3) for k in range(9)])
    splits = [{"id": k, "split": s} for k, s in enumerate(("train", "val", "test"))]
    (tmp_path / "images.json").write_text(json.dumps({"images": splits}))
    result = run_tool(
        "--annotations", path, "--images", tmp_path / "images.json", "--out", tmp_path / "out",
        "--min-count", 1,
    )  # fmt: skip
    assert result.returncode == 2 and "no answer" in result.stderr  # "a" is an article
    path = write_annotations(path, [entry(k, ["b"] * 2, k % 3) for k in range(9)])
    result = run_tool(
        "--annotations", path, "--images", tmp_path / "images.json", "--out", tmp_path / "out",
        "--min-count", 1,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for split in ("train", "val", "test"):
        assert len(read_targets(tmp_path / "out" / f"{split}_target.json")[0]) == 3


def test_mixed_vocabularies_are_refused(annotations: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers"
    assert run_tool(
        "--annotations", f"train={annotations}", f"val={annotations}", "--min-count", 3,
        "--out", out,
    ).returncode == 0  # fmt: skip
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    result = run_tool("--annotations", f"train={annotations}", "--min-count", 1, "--out", out)
    assert result.returncode == 2 and "val_target.json" in result.stderr
    assert "another vocabulary" in result.stderr
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    kept = out / "trainval_label2ans.json"
    result = run_tool("--annotations", f"train={annotations}", "--answers", kept, "--out", out)
    assert result.returncode == 0, result.stderr
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_targets_of_another_vocabulary_are_refused(annotations: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers"
    run_tool("--annotations", f"train={annotations}", "--min-count", 3, "--out", out)
    with pytest.raises(UserError, match="another vocabulary"):
        read_targets(out / "train_target.json", ["dog", "2"])
    (tmp_path / "old_target.json").write_text('[{"question_id": 1, "labels": [7], "scores": [1]}]')
    with pytest.raises(UserError, match="label 7"):
        read_targets(tmp_path / "old_target.json", ["dog", "2"])
    (out / "trainval_label2ans.json").write_text('["dog", "2"]')
    with pytest.raises(UserError, match="different vocabularies"):
        read_label2ans(out / "trainval_label2ans.json")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(99, []), "question 99 has no answers"),
        ({**entry(99, ["a"]), "answers": [{"answer": 3}]}, "is not text"),
        ({**entry(99, ["a"]), "question_id": None}, "no 'question_id'"),
        (entry(0, ["dog"]), "occurs twice"),
        ("nonsense", "not an object"),
    ],
)
def test_bad_records_are_counted_and_too_many_are_refused(
    tmp_path: Path, bad: object, message: str
) -> None:
    good = [entry(k, ["dog"] * 3) for k in range(150)]
    path = write_annotations(tmp_path / "a.json", [*good, bad])
    questions, problems = read_annotations(path)
    assert len(questions) == 150 and len(problems) == 1 and message in str(problems[0])
    assert "a.json annotations[150]" in str(problems[0])
    out = tmp_path / "out"
    result = run_tool("--annotations", f"train={path}", "--out", out)
    assert result.returncode == 0 and "left out a.json annotations[150]" in result.stdout
    path = write_annotations(tmp_path / "b.json", [*good[:20], bad])
    result = run_tool("--annotations", f"train={path}", "--out", tmp_path / "none")
    assert result.returncode == 2 and message in result.stderr
    assert not (tmp_path / "none").exists()


def test_unknown_answer_types_are_reported(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "a.json", [entry(1, ["dog"], answer_type="colour")])
    result = run_tool("--annotations", f"train={path}", "--min-count", 1, "--out", tmp_path / "o")
    assert result.returncode == 0 and "1 questions have the answer type 'colour'" in result.stdout


@pytest.mark.parametrize("content", ["[]", "{", '{"annotations": 3}', '{"annotations": []}'])
def test_other_files_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    result = run_tool("--annotations", f"train={tmp_path / 'a.json'}", "--out", tmp_path / "o")
    assert result.returncode == 2 and "a.json" in result.stderr
    assert "Traceback" not in result.stderr


def test_stages_must_be_known() -> None:
    with pytest.raises(UserError, match="no questions of dev"):
        counted_questions({"train": []}, ["dev"])


@pytest.mark.skipif(not (DATA / "vqav2_text").is_dir(), reason="no VQA v2 texts")
def test_targets_of_vqa_v2_hold_the_accuracy_of_every_answer(tmp_path: Path) -> None:
    questions, problems = read_annotations(DATA / "vqav2_text" / "annotations_val.json")
    assert len(questions) == 1000 and not problems
    answers = build_vocabulary(questions, 2)
    ans2label = {answer: label for label, answer in enumerate(answers)}
    for question in questions[:200]:
        target = soft_target(question, ans2label)
        for label, score in zip(target["labels"], target["scores"], strict=True):
            assert score == pytest.approx(vqa_accuracy(answers[label], question.answers), abs=1e-6)
