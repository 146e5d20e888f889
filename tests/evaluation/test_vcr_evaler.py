"""VCREvaler: three accuracies, labels from results or annotations, result files."""

import csv
import json

import numpy as np
import pytest

from xmodaler.config import get_cfg
from xmodaler.evaluation import VCREvaler
from xmodaler.utils.errors import UserError

RIGHT_ANSWERS = {10: 0, 11: 1, 12: 2, 13: 3}
RIGHT_RATIONALES = {10: 3, 11: 3, 12: 1, 13: 0}


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "question_id", "answer"
    return cfg


def results(choices, right=None):
    return [
        {"question_id": key, "answer": choice, **({"U_TARGET_IDS": right[key]} if right else {})}
        for key, choice in choices.items()
    ]


CHOSEN = [
    results({10: 0, 11: 1, 12: 2, 13: 0}, RIGHT_ANSWERS),
    results({13: 0, 12: 0, 11: 0, 10: 3}, RIGHT_RATIONALES),
]


def test_both_must_be_right(cfg, tmp_path):
    evaler = VCREvaler(cfg, "", str(tmp_path))
    metrics = evaler.eval(CHOSEN, 2)
    assert metrics == {"Q -> A": 0.75, "QA -> R": 0.5, "Q -> AR": 0.25}
    assert evaler.correct["10"] == (True, True)
    assert evaler.correct["13"] == (False, True)
    written = json.loads((tmp_path / "results" / "2.json").read_text())
    assert written[3] == {"question_id": "13", "answer": 0, "rationale": 0}


def test_a_missing_rationale_is_no_right_one(cfg):
    metrics = VCREvaler(cfg).eval([CHOSEN[0], CHOSEN[1][:3]])
    assert metrics["QA -> R"] == pytest.approx(1 / 3)
    assert metrics["Q -> AR"] == 0


def annotation_file(tmp_path, split="val"):
    lines = []
    for key, answer in RIGHT_ANSWERS.items():
        labels = {"answer_label": answer, "rationale_label": RIGHT_RATIONALES[key]}
        lines.append({"annot_id": f"{split}-{key}", **(labels if split != "test" else {})})
    path = tmp_path / f"{split}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_labels_come_from_annotations_where_results_bring_none(cfg, tmp_path):
    bare = [[{k: r[k] for k in ("question_id", "answer")} for r in part] for part in CHOSEN]
    assert VCREvaler(cfg).eval(bare) == {}
    evaler = VCREvaler(cfg, annotation_file(tmp_path), str(tmp_path))
    assert evaler.eval(bare) == VCREvaler(cfg).eval(CHOSEN)
    assert VCREvaler(cfg, annotation_file(tmp_path, "test"), str(tmp_path)).eval(bare, 9) == {}
    written = json.loads((tmp_path / "results" / "9.json").read_text())
    assert written[0] == {"question_id": "test-10", "answer": 0, "rationale": 3}


def test_leaderboard_file(cfg, tmp_path):
    evaler = VCREvaler(cfg, annotation_file(tmp_path, "test"), str(tmp_path))
    random = np.random.default_rng(0)
    answers, rationales = random.normal(size=4), random.normal(size=(4, 4))
    path = evaler.write_leaderboard({11: answers}, {11: rationales})
    with open(path, newline="") as file:
        (row,) = csv.DictReader(file)
    assert len(row) == 21
    assert row["annot_id"] == "test-11"
    assert sum(float(row[f"answer_{i}"]) for i in range(4)) == pytest.approx(1)
    given_two = [float(row[f"rationale_conditioned_on_a2_{i}"]) for i in range(4)]
    assert sum(given_two) == pytest.approx(1)
    assert np.argmax(given_two) == rationales[2].argmax()
    with pytest.raises(UserError, match="question 11"):
        evaler.write_leaderboard({11: answers}, {})


def test_what_cannot_be_scored_is_named(cfg, tmp_path):
    with pytest.raises(UserError, match="VCR has two"):
        VCREvaler(cfg).eval([CHOSEN[0]])
    with pytest.raises(UserError, match="question 10 has more than one result"):
        VCREvaler(cfg).eval([CHOSEN[0] * 2, CHOSEN[1]])
    with pytest.raises(UserError, match="question 99 is not in"):
        stranger = [{"question_id": 99, "answer": 0}]
        VCREvaler(cfg, annotation_file(tmp_path)).eval([stranger, []])
    with pytest.raises(UserError, match="VAL_ANNFILE"):
        VCREvaler(cfg, str(tmp_path / "gone.jsonl"))
    (tmp_path / "bad.jsonl").write_text('{"img_id": 3}\n')
    with pytest.raises(UserError, match=r"line 1 of .* annot_id"):
        VCREvaler(cfg, str(tmp_path / "bad.jsonl")).eval([[{"question_id": 1, "answer": 0}], []])
