"""Reports with boxes, statements about two pictures, and questions about videos."""

import json

import numpy as np
import pytest
from PIL import Image

from xmodaler.inference.drawing import FOUND, RIGHT, draw_boxes, side_by_side
from xmodaler.inference.report import make_report


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures with phrases, statements, questions and hypotheses."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(4):
        pixels = np.random.RandomState(number).randint(0, 255, (40, 60, 3)).astype(np.uint8)
        (folder / "clip").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(pixels).save(folder / "clip" / f"{number}.png")
    phrases = [
        {"image": f"{n % 4}.png", "text": f"red ball <{n}>", "box": [5, 5, 30, 20]}
        for n in range(5)
    ]
    phrases[1]["image"] = "gone.png"
    statements = [
        {"images": ["0.png", f"{n}.png"], "sentence": f"two <ball> {n}", "label": n % 2 == 0}
        for n in range(4)
    ]
    hypotheses = [{"image": "0.png", "sentence2": "red ball", "gold_label": "neutral"}]
    questions = [{"video_id": "clip", "question": "what is red?", "answer": "ball"}]
    captions = [
        {"image": f"{n}.png", "caption": ["red ball " * (n + 1)], "image_id": n} for n in range(4)
    ]
    for name, records in (
        *(("phrases", phrases), ("statements", statements)),
        *(("hypotheses", hypotheses), ("questions", questions), ("captions", captions)),
    ):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


def report_of(write_tower_run, folder, data, task, file, attention=False, **changes):
    settings = {
        "DATALOADER.TEST_ANNFILE": str(data / f"{file}.jsonl"),
        "DATALOADER.TEST_SPLIT": "",
        "DATALOADER.IMAGE_FOLDER": str(data),
        **changes,
    }
    write_tower_run(folder, task, **settings)
    path = make_report(str(folder), num_samples=8, device="cpu", attention=attention)
    with open(path, encoding="utf-8") as report:
        return report.read()


@pytest.mark.parametrize("attention", [False, True])
def test_boxes_are_shown(write_tower_run, data, tmp_path, attention):
    html = report_of(write_tower_run, tmp_path, data, "X2VLMGrounding", "phrases", attention)
    assert "4 test phrases" in html  # one picture is not there
    assert "red ball &lt;0&gt;" in html and "iou" in html
    assert ("[CLS]" in html) == attention


@pytest.mark.parametrize("attention", [False, True])
def test_statements_are_shown_with_both_pictures(write_tower_run, data, tmp_path, attention):
    html = report_of(write_tower_run, tmp_path, data, "X2VLMReasoning", "statements", attention)
    assert ("[CLS]" in html) == attention
    assert "4 test statements" in html and "two &lt;ball&gt; 3" in html
    assert html.count("data:image") > 4 if attention else html.count("data:image") == 4


def test_hypotheses_are_shown(write_tower_run, data, tmp_path):
    changes = {"MODEL.X2VLM.NUM_LABELS": 3}
    html = report_of(write_tower_run, tmp_path, data, "entailment", "hypotheses", **changes)
    assert "1 test questions" in html
    assert all(label in html for label in ("contradiction", "entailment", "neutral"))


@pytest.mark.parametrize("attention", [False, True])
def test_questions_about_videos_are_shown_with_a_frame(write_tower_run, data, tmp_path, attention):
    (tmp_path / "answers.json").write_text(json.dumps(["red", "ball", "two"]))
    changes = {
        "DATASETS.TEST": "JsonVideoQADataset",
        "DATALOADER.ANSWERS": str(tmp_path / "answers.json"),
        "MODEL.X2VLM.NUM_LABELS": 3,
        "MODEL.VISION.FRAME_POSITIONS": 2,
        "DATALOADER.TASK.VIDEO": True,
        "DATALOADER.MAX_FEAT_NUM": 2,
    }
    task = ("X2VLMClassifier", "questions", attention)
    html = report_of(write_tower_run, tmp_path, data, *task, **changes)
    assert "what is red?" in html and ("[CLS]" in html) == attention
    assert (html.count("data:image") == 1) == (not attention)


def test_rankings_are_shown_with_pictures(write_tower_run, data, tmp_path):
    html = report_of(write_tower_run, tmp_path, data, "X2VLMRetrieval", "captions")
    assert html.count("rank of its picture") == 4 and "rank of its text" in html
    assert html.count("data:image") > 12  # every search shows what it found


def test_boxes_of_people_and_of_the_model_differ():
    plain = Image.new("RGB", (50, 40), "white")
    drawn = draw_boxes(draw_boxes(plain, [[5, 5, 20, 20]], RIGHT), [[20, 10, 100, 20]], FOUND, "a")
    colours = {colour for _, colour in drawn.getcolors(4096)}
    assert {FOUND, RIGHT} <= colours
    assert plain.getcolors() == [(2000, (255, 255, 255))]
    assert side_by_side(plain, plain.resize((100, 80))).size == (100 + 8 + 100, 80)
