"""GroundingEvaler: overlaps of boxes in pixels, splits, several right boxes."""

import json

import numpy as np
import pytest
import torch

from xmodaler.config import get_cfg
from xmodaler.evaluation import GroundingEvaler
from xmodaler.functional.func_regions import box_in_pixels, centre_box, overlap_of_boxes
from xmodaler.utils.errors import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "ref_id", "box"
    cfg.INFERENCE.GENERATION_MODE = False
    return cfg


def result(key, box, right, size=(200, 100), split=""):
    """A predicted box in pixels, as a model gives it."""
    return {
        "ref_id": key,
        "box": list(centre_box(box, *size)),
        "PICTURE_SIZES": list(size),
        "TRUE_BOXES": right,
        "SPLITS": split,
    }


def test_half_of_the_union_is_enough(cfg, tmp_path):
    found = [
        result(0, (10, 10, 20, 20), [[10, 10, 20, 40]], split="val"),
        result(1, (10, 10, 19, 20), [[10, 10, 20, 40]], split="val"),
        result("2-1", (0, 0, 50, 50), [[0, 0, 50, 50]], split="testA"),
    ]
    evaler = GroundingEvaler(cfg, "", str(tmp_path))
    metrics = evaler.eval(found, 4)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["accuracy_val"] == 0.5 and metrics["accuracy_testA"] == 1
    assert metrics["iou"] == pytest.approx((0.5 + 0.475 + 1) / 3)
    written = json.loads((tmp_path / "results" / "4.json").read_text())
    assert written[2] == {"ref_id": "2-1", "box": [0, 0, 50, 50], "iou": 1.0}


def test_any_of_several_boxes_will_do(cfg):
    right = np.array([[150, 0, 40, 40], [0, 0, 50, 50]])
    assert GroundingEvaler(cfg).eval([result(0, (0, 0, 50, 50), right)])["accuracy"] == 1
    assert GroundingEvaler(cfg).eval([result(0, (0, 0, 50, 50), right[:1])])["accuracy"] == 0


def test_published_overlaps_are_counted_in_pixels(cfg):
    tiny = [result(0, (10, 10, 1, 1), [[10, 10, 1, 1]])]
    assert GroundingEvaler(cfg).eval(tiny)["accuracy"] == 1
    cfg.INFERENCE.PIXEL_IOU = True
    assert GroundingEvaler(cfg).eval(tiny)["accuracy"] == 0


def test_overlaps_of_boxes():
    assert overlap_of_boxes((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap_of_boxes((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert overlap_of_boxes((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    assert box_in_pixels(centre_box((3, 4, 5, 6), 50, 40), 50, 40) == pytest.approx((3, 4, 5, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PICTURE_SIZES": None}, "width and height"),
        ({"box": [0.1, 0.2, 0.3]}, "four shares"),
        ({"ref_id": 8}, "more than one"),
        ({"TRUE_BOXES": None}, "1 of 2 results"),
    ],
)
def test_wrong_results_are_refused(cfg, change, message):
    bad = result(7, (0, 0, 50, 50), [[0, 0, 50, 50]]) | change
    bad = {key: value for key, value in bad.items() if value is not None}
    with pytest.raises(UserError, match=message):
        GroundingEvaler(cfg).eval([result(8, (0, 0, 50, 50), [[0, 0, 50, 50]]), bad])


def test_results_bring_what_evaluators_ask_for(cfg):
    from xmodaler.engine.evaluation import evaluate

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def preprocess_batch(self, batch):
            return batch

        def forward(self, batch):
            return {**batch, "OUTPUT": torch.tensor([[0.125, 0.25, 0.25, 0.5]] * 2)}

    batch = {
        "IDS": ["4-0", "4-1"],
        "PICTURE_SIZES": torch.tensor([[200, 100], [400, 400]]),
        "TRUE_BOXES": [np.array([[0, 0, 50, 50]]), np.array([[0, 0, 9, 9], [0, 0, 100, 200]])],
        "SPLITS": ["val", "val"],
    }
    metrics = evaluate(cfg, Model(), [batch], GroundingEvaler(cfg), -1)
    assert metrics["accuracy_val"] == 1 and metrics["iou"] == 1
