"""A report from nothing but an output folder."""

import json

import numpy as np
import pytest
from PIL import Image

from xmodaler.inference.report import make_report
from xmodaler.utils.errors import UserError

WORDS = ["a", "the", "red", "blue", "ball", "cube", "lies", "on", "grass"]


def write_data(folder, count=9):
    """Pictures (one of them broken) and COCO captions of a test split."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations = [], []
    for index in range(count):
        name = f"{index}.png"
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": 100 + index, "file_name": name, "split": "test" if index else "train"})
        for k in range(2):
            caption = " ".join(rng.choice(WORDS, 5)) + "."
            annotations.append({"image_id": 100 + index, "caption": caption, "id": 2 * index + k})
    (folder / "images" / "3.png").write_bytes(b"broken")
    (folder / "captions.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )


@pytest.fixture
def run(tmp_path, write_run):
    write_data(tmp_path)
    output = tmp_path / "my_run"
    output.mkdir()
    return write_run(
        output,
        **{
            "MODEL.VISUAL_EMBED.NAME": "GridOfPixels",
            "DATASETS.TEST": "CaptionDataset",
            "DATALOADER.FEATS_FOLDER": "",
            "DATALOADER.IMAGE_FOLDER": str(tmp_path / "images"),
            "DATALOADER.TEST_ANNFILE": str(tmp_path / "captions.json"),
            "DATALOADER.TEST_SPLIT": "test",
            "INFERENCE.TEST_ANNFILE": str(tmp_path / "captions.json"),
        },
    )


def test_report_of_a_run(run):
    lines = [
        {"iteration": 10, "total_loss": 3.0, "lr": 0.1, "data_time": 0.01},
        {"iteration": 20, "total_loss": 2.0, "lr": 0.2, "test/CIDEr": 0.456, "test/Bleu_4": 0.1},
    ]
    (run / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    path = make_report(run, notes="One note.", device="cpu")
    assert path == str(run / "report.html")
    html = (run / "report.html").read_text(encoding="utf-8")
    # Eight pictures of the split, one broken; each with its word maps.
    assert "7 test pictures" in html and html.count('<article class="sample">') == 7
    assert html.count('class="words"') >= 5
    assert "0.456" in html and "One note." in html and "my_run" in html
    assert 'aria-label="total_loss' in html and "data_time" not in html
    assert "CIDEr <b>" in html and "model_final.pth" in html


def test_own_scores_and_fewer_pictures(run):
    scores = [{"": "model", "CIDEr-D": 1.0}, {"": "oracle", "CIDEr-D": 1.25}]
    make_report(run, 3, scores=scores, title="Shapes", device="cpu")
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "oracle" in html and "1.250" in html and "Shapes" in html
    assert html.count('<article class="sample">') <= 3


def test_a_run_without_data_is_an_error(feature_run):
    with pytest.raises(UserError):
        make_report(feature_run, device="cpu")


def test_clips_are_shown_by_their_middle_frame(tmp_path):
    from xmodaler.inference.report_captions import shown_file

    for number in range(3):
        Image.new("RGB", (8, 8), (100 * number,) * 3).save(tmp_path / f"{number}.png")
    assert shown_file(str(tmp_path)).getpixel((4, 4)) == (100, 100, 100)
    assert shown_file(str(tmp_path / "1.png")) == str(tmp_path / "1.png")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert shown_file(str(tmp_path / "broken.mp4")) is None and shown_file("nowhere.png") is None
