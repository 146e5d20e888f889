"""The semantic words of the generated pictures."""

import json

import numpy as np
import pytest

from xmodaler.datasets.synthetic import Scene, sample_scene
from xmodaler.datasets.synthetic.chance import generator
from xmodaler.datasets.synthetic.features import ATTRIBUTES
from xmodaler.datasets.synthetic.semantics import IRRELEVANT, LEAST_WORDS, semantic_words


def present_words(scene):
    words = {word for shape in scene.shapes for word in shape.look}
    return {ATTRIBUTES.index(word) for word in words | {scene.ground.pattern, scene.ground.colour}}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labels_tell_the_truth_about_the_written_words(shapes, split):
    path = shapes / "cosnet" / f"mscoco_caption_anno_clipfilter_fast_{split}.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    scenes = (shapes / f"scenes_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    plain = json.loads((shapes / f"mscoco_caption_anno_{split}.json").read_text(encoding="utf-8"))
    assert len(records) == len(scenes) == len(plain)
    for record, line, captions in zip(records, scenes, plain, strict=True):
        assert captions.items() <= record.items()
        truth, proposed = present_words(Scene.from_json(json.loads(line))), record["attr_pred"]
        assert len(set(proposed)) == len(proposed) >= LEAST_WORDS
        expected = [word if word in truth else IRRELEVANT for word in proposed]
        assert record["attr_labels"] == expected
        assert set(record["missing_labels"]) == truth - set(proposed)


def test_mistakes_are_as_frequent_as_documented():
    overlooked, wrong, true = 0, 0, 0
    for index in range(400):
        scene = sample_scene(0, "train", index)
        words = semantic_words(scene, generator(0, "train", index, "semantics"))
        overlooked += len(words["missing_labels"])
        wrong += words["attr_labels"].count(IRRELEVANT)
        true += len(present_words(scene))
    assert overlooked / true == pytest.approx(1 / 9, abs=0.03)
    assert wrong / 400 == pytest.approx(1.2, abs=0.3)


def test_words_come_from_their_own_random_numbers():
    scene = sample_scene(0, "train", 0)
    one, other = (semantic_words(scene, np.random.default_rng(seed)) for seed in (0, 0))
    assert one == other
    assert any(one != semantic_words(scene, np.random.default_rng(seed)) for seed in range(1, 9))
