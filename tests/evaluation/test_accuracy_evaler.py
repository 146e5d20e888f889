"""AccuracyEvaler: true shares, splits, statements on several pictures, unknown labels."""

import json

import pytest

from xmodaler.config import get_cfg
from xmodaler.evaluation import AccuracyEvaler
from xmodaler.utils.errors import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "id", "label"
    return cfg


def results(pairs, **more):
    return [
        {"id": row, "label": label, "U_TARGET_IDS": right}
        | {name: values[row] for name, values in more.items()}
        for row, (label, right) in enumerate(pairs)
    ]


def test_ten_of_ten_are_all(cfg, capsys):
    metrics = AccuracyEvaler(cfg).eval(results([(1, 1)] * 7 + [(0, 0)] * 3))
    assert metrics == {"accuracy": 1.0, "majority": 0.7}
    assert "accuracy: 1.0000" in capsys.readouterr().out


def test_splits_are_counted_apart(cfg, tmp_path):
    found = results(
        [(1, 1), (0, 1), (0, 0), (0, 0)], SPLITS=["german", "german", "chinese", "chinese"]
    )
    evaler = AccuracyEvaler(cfg, "", str(tmp_path))
    metrics = evaler.eval(found, 3)
    assert metrics["accuracy"] == 0.75
    assert metrics["accuracy_german"] == 0.5 and metrics["accuracy_chinese"] == 1.0
    assert evaler.correct == {"0": True, "1": False, "2": True, "3": True}
    written = json.loads((tmp_path / "results" / "3.json").read_text())
    assert written[1] == {"id": 1, "label": 0}


def test_a_statement_is_consistent_where_all_its_records_are_right(cfg):
    found = results(
        [(1, 1), (0, 1), (0, 0), (1, 1), (1, 1)], STATEMENT_IDS=["a", "a", "b", "b", "c"]
    )
    assert AccuracyEvaler(cfg).eval(found)["consistency"] == pytest.approx(2 / 3)


def test_labels_that_the_model_does_not_know_are_wrong_and_counted(cfg):
    metrics = AccuracyEvaler(cfg).eval(results([(1, 1), (0, -1), (2, -1), (0, 0)]))
    assert metrics == {"accuracy": 0.5, "majority": 0.25, "unknown": 2}


def test_without_labels_results_are_only_written(cfg, tmp_path):
    lines = [{"id": "test1-0-0-0", "label": 1}]
    assert AccuracyEvaler(cfg, "", str(tmp_path)).eval(lines, 0) == {}
    assert json.loads((tmp_path / "results" / "0.json").read_text()) == lines


def test_answers_stand_beside_labels(cfg, tmp_path):
    cfg.DATALOADER.ANSWERS = str(tmp_path / "answers.json")
    (tmp_path / "answers.json").write_text(json.dumps(["a dog", "two"]))
    AccuracyEvaler(cfg, "", str(tmp_path)).eval(results([(1, 1)]), 0)
    written = json.loads((tmp_path / "results" / "0.json").read_text())
    assert written == [{"id": 0, "label": 1, "answer": "two"}]
    with pytest.raises(UserError, match=r"label 2, but .* lists 2"):
        AccuracyEvaler(cfg).eval(results([(2, 1)]))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([{"id": 1, "label": 0, "U_TARGET_IDS": 0}] * 2, "more than one result"),
        ([{"id": 1, "label": 0, "U_TARGET_IDS": 0}, {"id": 2, "label": 0}], "1 of 2 results"),
        ([{"id": 1, "label": "yes", "U_TARGET_IDS": 0}], "a label is a number"),
    ],
)
def test_wrong_results_are_refused(cfg, found, message):
    with pytest.raises(UserError, match=message):
        AccuracyEvaler(cfg).eval(found)
