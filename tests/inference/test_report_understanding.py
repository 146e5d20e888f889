"""Reports of runs that understand: questions with bars, choices, rankings with pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.evaluation.report import write_report
from xmodaler.inference.report import make_report

NUMBERS = range(6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures, their features, and questions, choices and captions about them."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("images", "features"):
        (folder / name).mkdir()
    for number in NUMBERS:
        pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        corners = random.uniform(0, 10, (3, 2)).astype(np.float32)
        np.savez(
            folder / "features" / f"{number}.npz",
            features=random.normal(size=(3, 6)).astype(np.float32),
            boxes=np.concatenate([corners, corners + 5], axis=1),
            image_w=24,
            image_h=24,
        )
    people = ["red"] * 6 + ["blue"] * 4
    questions = [
        {"question_id": 10 + n, "image_id": n, "question": f"what is number {n}?"} for n in NUMBERS
    ]
    annotations = [
        {**question, "answers": [{"answer": answer} for answer in people]} for question in questions
    ]
    write(folder / "questions.json", {"questions": questions})
    write(folder / "annotations.json", {"annotations": annotations})
    choices = [["a", [0]], ["the", "ball"], ["<b>", "cube"], ["grass"]]
    with open(folder / "test.jsonl", "w") as file:
        for number in NUMBERS:
            record = {
                "annot_id": f"test-{number}",
                "img_fn": f"{number}.png",
                "metadata_fn": f"{number}.json",
                "objects": ["ball"],
                "question": ["why", "is", [0], "red", "?"],
                "answer_choices": choices,
                "answer_label": number % 4,
                "rationale_choices": choices,
                "rationale_label": 0,
            }
            file.write(json.dumps(record) + "\n")
    with open(folder / "all_data_final_test_set0_2014.jsonline", "w") as file:
        for number in NUMBERS:
            captions = [f"a red ball number {number}", f"cube {number}"]
            file.write(json.dumps({"img_path": f"{number}.png", "sentences": captions}) + "\n")
    return folder


def write(path, content):
    path.write_text(json.dumps(content))


def run_with(write_understanding_run, folder, data, task, family="uniter", **changes):
    settings = {
        "DATASETS.TEST": {"vqa": "VQADataset", "vcr": "VCRDataset"}.get(task, "Flickr30kDataset"),
        "DATASETS.VAL": "",
        "DATALOADER.ANNO_FOLDER": str(data),
        "DATALOADER.FEATS_FOLDER": str(data / "features"),
        "DATALOADER.TEST_ANNFILE": str(data / "questions.json") if task == "vqa" else "",
        "INFERENCE.TEST_ANNFILE": str(data / "annotations.json") if task == "vqa" else "",
        "DATALOADER.IMAGE_FOLDER": str(data / "images"),
        **changes,
    }
    return write_understanding_run(folder, task, family, **settings)


def test_questions_with_bars(write_understanding_run, data, tmp_path):
    run = run_with(write_understanding_run, tmp_path, data, "vqa")
    (run / "metrics.json").write_text(
        json.dumps({"iteration": 1, "test/accuracy": 0.5, "test/answer_type/yes/no": 0.25}) + "\n"
    )
    html = Path(make_report(run, 4, device="cpu")).read_text(encoding="utf-8")
    assert html.count('<article class="sample">') == 4
    assert "4 test questions" in html
    assert html.count('<p class="question">what is number') == 4
    assert html.count('<ol class="bars">') == 4
    assert html.count('<img class="picture') == 4
    assert "red ✓" in html
    assert "red (6 of 10)" in html
    assert "answer_type/yes/no" in html
    assert "CIDEr" not in html


def test_choices_with_the_right_one_marked(write_understanding_run, data, tmp_path):
    run = run_with(write_understanding_run, tmp_path, data, "vcr")
    html = Path(make_report(run, 6, device="cpu")).read_text(encoding="utf-8")
    assert html.count('<p class="question">why is ball red ?') == 6
    assert html.count('<li class="right">') == 6
    assert "&lt;b&gt; cube" in html
    assert "<b> cube" not in html


@pytest.mark.parametrize("family", ["tden", "uniter"])
def test_rankings_with_pictures(write_understanding_run, data, tmp_path, family):
    run = run_with(write_understanding_run, tmp_path, data, "retrieval", family)
    html = Path(make_report(run, 6, device="cpu")).read_text(encoding="utf-8")
    assert "6 test searches" in html
    assert html.count('<ol class="hits">') == 4
    assert html.count('<ol class="hits texts">') == 2
    # Four searches by text show six pictures each, two by picture show texts.
    assert html.count('alt="find') == 24
    assert html.count('<li class="right">') == 6
    assert "rank of its picture" in html
    assert "rank of its text" in html


def test_without_pictures_names_are_shown(write_understanding_run, data, tmp_path):
    changes = {"DATALOADER.IMAGE_FOLDER": ""}
    run = run_with(write_understanding_run, tmp_path, data, "retrieval", **changes)
    html = Path(make_report(run, 3, device="cpu")).read_text(encoding="utf-8")
    assert 'alt="find' not in html
    assert "5 ✓" in html or "5</span>" in html


def test_shares_stay_within_their_bars(tmp_path):
    sample = {"caption": "x", "bars": [("too much", 1.7, True), ("too little", -3, False)]}
    write_report(tmp_path / "report.html", title="bars", samples=[sample])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "width: 100.0%" in html
    assert "width: 0.0%" in html
