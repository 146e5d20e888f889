"""Scenes: which split owns them, and that whatever is said of them is true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.datasets.synthetic import oracle_caption, sample_captions, sample_scene
from xmodaler.datasets.synthetic.concepts import OPPOSITE, RELATIONS, SPLITS
from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.plans import make_plan
from xmodaler.datasets.synthetic.scene import Scene, split_of
from xmodaler.evaluation.caption_metrics import score

numbers = st.integers(0, 400_000)
places = st.tuples(numbers, st.sampled_from(SPLITS), numbers)
quick = settings(max_examples=25, deadline=None, derandomize=True)


class EveryChooser:
    """Takes, run after run, every sequence of decisions that there is."""

    def __init__(self):
        self.path = []  # [option taken, number of options] of each decision
        self.depth = 0

    def pick(self, options):
        if self.depth == len(self.path):
            self.path.append([0, len(options)])
        self.depth += 1
        return options[self.path[self.depth - 1][0]][1]

    def next_path(self):
        while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
            self.path.pop()
        if self.path:
            self.path[-1][0] += 1
        self.depth = 0
        return bool(self.path)


def everything_said_of(scene):
    """All plans and sentences that the grammar has for a scene."""
    chooser, said = EveryChooser(), {}
    while True:
        plan = make_plan(scene, chooser)
        said[ENGLISH.sentence(plan, chooser)] = plan
        if not chooser.next_path():
            return said


@quick
@given(places)
def test_a_scene_is_the_same_again_and_belongs_to_its_split(place):
    scene = sample_scene(*place)
    assert scene == sample_scene(*place) == Scene.from_json(scene.to_json())
    assert split_of(scene.signature()) == place[1]


def test_splits_share_no_scene_whatever_the_seed():
    signatures = {
        split: {sample_scene(seed, split, k).signature() for seed in (0, 7) for k in range(150)}
        for split in SPLITS
    }
    assert not signatures["train"] & signatures["val"]
    assert not signatures["train"] & signatures["test"]
    assert not signatures["val"] & signatures["test"]


@quick
@given(places)
def test_shapes_lie_in_the_picture_and_apart(place):
    scene = sample_scene(*place)
    for number, one in enumerate(scene.shapes):
        x, y, width, height = one.box(64)
        assert min(x, y) >= 0 and x + width <= 64 and y + height <= 64
        for other in range(number):
            gap = np.hypot(one.x - scene.shapes[other].x, one.y - scene.shapes[other].y)
            inside = scene.holds("inside", number, other) or scene.holds("inside", other, number)
            assert inside or gap >= one.radius + scene.shapes[other].radius


@quick
@given(places)
def test_captions_are_true(place):
    scene = sample_scene(*place)
    for plan, text in sample_captions(scene, *place):
        assert plan.is_true_of(scene), text
        assert text[0].isupper() and text.endswith(".") and "  " not in text


@settings(max_examples=8, deadline=None, derandomize=True)
@given(places)
def test_everything_the_grammar_can_say_is_true_and_the_oracle_is_among_it(place):
    scene = sample_scene(*place)
    said = everything_said_of(scene)
    assert oracle_caption(scene) in said
    assert {text for _, text in sample_captions(scene, *place)} <= set(said)
    assert all(plan.is_true_of(scene) for plan in said.values())


def test_a_plan_of_another_scene_is_noticed():
    scenes = [sample_scene(0, "train", k) for k in range(40)]
    plans = [sample_captions(scene, 0, "train", k)[0][0] for k, scene in enumerate(scenes)]
    wrong = [plan.is_true_of(scene) for plan, scene in zip(plans[1:], scenes, strict=False)]
    assert not any(wrong)


def test_the_oracle_beats_a_sixth_person():
    scenes = {k: sample_scene(0, "val", k) for k in range(120)}
    said = {
        k: [text for _, text in sample_captions(scene, 0, "val", k, count=6)]
        for k, scene in scenes.items()
    }
    references = {k: texts[:5] for k, texts in said.items()}
    oracle = {k: oracle_caption(scene) for k, scene in scenes.items()}
    sixth = {k: texts[5] for k, texts in said.items()}
    marks = [score(references, said, ["CIDEr-D"])[0]["CIDEr-D"] for said in (oracle, sixth)]
    assert marks[0] > marks[1] + 0.2


@quick
@given(places)
def test_relations_have_their_opposites(place):
    labels = sample_scene(*place).relation_labels()
    opposite = {**OPPOSITE, "on_ground": "ground_of", "ground_of": "on_ground", "none": "none"}
    for row, column in np.ndindex(labels.shape):
        there, back = RELATIONS[labels[row, column]], RELATIONS[labels[column, row]]
        assert there.startswith("near_") == back.startswith("near_")
        assert opposite[there.removeprefix("near_")] == back.removeprefix("near_")


def test_another_language_can_be_spoken():
    class Counting:
        def sentence(self, plan, chooser):
            return f"{sum(mention.count for mention in plan.mentions)}!"

        def video_sentence(self, plan, chooser):
            return "?"

        def words(self):
            return list("123456")

    scene = sample_scene(0, "train", 0)
    assert oracle_caption(scene, Counting()).endswith("!")
    captions = sample_captions(scene, 0, "train", 0, language=Counting())
    english = sample_captions(scene, 0, "train", 0)
    assert [plan for plan, _ in captions] == [plan for plan, _ in english]
    assert all(text.endswith("!") for _, text in captions)


@pytest.mark.parametrize("split", SPLITS)
def test_streams_of_a_seed_differ(split):
    assert sample_scene(0, split, 0) != sample_scene(1, split, 0) != sample_scene(1, split, 1)
