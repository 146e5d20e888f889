"""Lines of pre-training from annotations of captions and of boxes."""

import importlib.util
import json
from pathlib import Path

import pytest

from xmodaler.cli import run_cli
from xmodaler.datasets.line_shards import index_lines, read_line
from xmodaler.preprocessing.picture_lines import caption_lines, region_lines
from xmodaler.utils.errors import UserError

IMAGES = [
    {"id": 1, "file_name": "a.jpg", "split": "train"},
    {"id": 2, "file_name": "b.jpg", "split": "val"},
    {"id": 3, "file_name": "c.jpg", "split": "train"},
]


@pytest.fixture
def write(tmp_path):
    def make(**content):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        return str(path)

    return make


def test_captions_of_a_picture_come_together(write):
    annotations = [
        {"image_id": image, "caption": text}
        for image, text in ((1, "a dog"), (2, "a cat"), (1, "the dog"), (3, ""))
    ]
    path = write(images=IMAGES, annotations=annotations)
    assert list(caption_lines(path, "train", "photos")) == [
        {"image": "photos/a.jpg", "caption": ["a dog", "the dog"]}
    ]
    assert len(list(caption_lines(path))) == 2


def test_boxes_have_phrases_or_names_of_categories(write):
    annotations = [
        {"image_id": 1, "phrase": "A dog", "boxes": [[1, 2, 3, 4]], "sentence": "A dog sits."},
        {"image_id": 1, "phrase": "Two cats", "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 5.5, 5]},
        {"image_id": 2, "category_id": 9, "bbox": [0, 0, 5, 5]},
        {"image_id": 3, "category_id": 7, "bbox": [2, 2, 2, 2]},
    ]
    path = write(images=IMAGES, annotations=annotations, categories=[{"id": 7, "name": "ball"}])
    first, second = region_lines(path)
    dog, ball = {"bb": [1, 2, 3, 4], "caption": "A dog"}, {"bb": [0, 0, 5.5, 5], "caption": "ball"}
    assert first == {"image": "a.jpg", "caption": ["A dog sits."], "elems": [dog, ball]}
    assert second == {"image": "c.jpg", "elems": [{"bb": [2, 2, 2, 2], "caption": "ball"}]}


@pytest.mark.parametrize(
    "content",
    [
        {"images": IMAGES},
        {"images": IMAGES, "annotations": [{}]},
        {"images": [3], "annotations": []},
    ],
)
def test_other_files_are_an_error(write, content):
    with pytest.raises(UserError, match="is no file of annotations"):
        list(caption_lines(write(**content)))


def test_the_tool_writes_lines(write, tmp_path, capsys):
    file = Path(__file__).parents[2] / "tools" / "make_lines.py"
    spec = importlib.util.spec_from_file_location("make_lines", file)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    path = write(images=IMAGES, annotations=[{"image_id": 1, "caption": "ein Hund im Grünen"}])
    out = tmp_path / "lines.jsonl"
    assert run_cli(tool.main, ["--captions", path, "--out", str(out)]) == 0
    assert "wrote 1 lines" in capsys.readouterr().out
    (record,) = index_lines(str(out))
    assert read_line(record)["caption"] == ["ein Hund im Grünen"]
    assert run_cli(tool.main, ["--regions", "nowhere.json", "--out", str(out)]) == 2
