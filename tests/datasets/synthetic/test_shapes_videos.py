"""Videos: motions fit in, can be seen, and are what the captions say."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xmodaler.datasets.synthetic import sample_captions, sample_scene
from xmodaler.datasets.synthetic.concepts import MOTIONS, RING_HOLE, SPLITS
from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.motions import DIRECTIONS, move_scene, sample_motions
from xmodaler.datasets.synthetic.plans import salient_groups
from xmodaler.datasets.synthetic.video import sample_video_captions
from xmodaler.tokenization.ptb import PTBTokenizer

numbers = st.integers(0, 400_000)
places = st.tuples(numbers, st.sampled_from(SPLITS), numbers)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def overlap(one, other):
    """How deep two discs are in each other; 0 for one in the hole of a ring, and when unseen."""
    distance = math.hypot(one.x - other.x, one.y - other.y)
    for ring, inner in ((one, other), (other, one)):
        if ring.kind == "ring" and distance + inner.radius < RING_HOLE * ring.radius + 0.01:
            return 0.0
    return 0.0 if 0 in (one.radius, other.radius) else one.radius + other.radius - distance


@quick
@given(places)
def test_shapes_stay_in_the_picture_and_apart_while_they_move(place):
    scene = sample_scene(*place)
    motions = sample_motions(scene, *place)
    for frame in range(12):
        shapes = move_scene(scene, motions, frame / 11, frame).shapes
        for number, shape in enumerate(shapes):
            for centre in (shape.x, shape.y):
                assert centre - shape.radius >= -1e-9 and centre + shape.radius <= 1 + 1e-9
            assert all(overlap(shape, other) < 0.01 for other in shapes[:number])


@quick
@given(places)
def test_motions_are_large_enough_to_be_seen(place):
    scene = sample_scene(*place)
    motions = sample_motions(scene, *place)
    assert set(motions) == set(scene.groups())
    assert motions[salient_groups(scene)[0]].name != "still"
    first, last = (move_scene(scene, motions, time, 0).shapes for time in (0, 1))
    for members, motion in motions.items():
        for before, after in ((first[i], last[i]) for i in members):
            way = np.array([after.x - before.x, after.y - before.y])
            if motion.name in DIRECTIONS:
                along = float(np.dot(way, DIRECTIONS[motion.name]))
                assert along >= 0.2 - 1e-9 and np.linalg.norm(way) == pytest.approx(along)
                continue
            assert not way.any()
            growth = math.log(after.radius / before.radius)
            if motion.name in ("grow", "shrink"):
                assert (growth if motion.name == "grow" else -growth) >= 0.8 - 1e-9
            else:
                assert growth == 0


def test_every_motion_occurs():
    names = set()
    for index in range(80):
        scene = sample_scene(0, "train", index)
        names |= {motion.name for motion in sample_motions(scene, 0, "train", index).values()}
    assert names == set(MOTIONS)


@quick
@given(places)
def test_captions_say_what_moves(place):
    scene = sample_scene(*place)
    motions = sample_motions(scene, *place)
    for plan, text in sample_video_captions(scene, motions, *place):
        assert plan.is_true_of(scene), text
        assert all(motions[mention.members].name == mention.motion for mention in plan.mentions)


def test_the_language_knows_its_words():
    said = []
    for index in range(700):
        place = (0, "train", index)
        scene = sample_scene(*place)
        said += sample_captions(scene, *place)
        said += sample_video_captions(scene, sample_motions(scene, *place), *place)
    words = {word for _, text in said for word in PTBTokenizer().tokenize(text)}
    assert sorted(words) == ENGLISH.words()


def read_frames(path):
    with Image.open(path) as video:
        frames = []
        for number in range(video.n_frames):
            video.seek(number)
            frames.append(np.asarray(video.convert("RGB"), dtype=np.int16))
    return np.stack(frames)


@pytest.mark.parametrize("split", SPLITS)
def test_files_hold_the_frames_and_something_happens(shapes, split):
    for video in json.loads((shapes / f"video_captions_{split}.json").read_text())["images"]:
        frames = read_frames(shapes / "videos" / video["file_name"])
        assert frames.shape == (video["frames"], video["height"], video["width"], 3)
        assert 8 <= len(frames) <= 16
        # Far beyond what the sensor's noise does.
        changed = (np.abs(frames - frames[0]) > 30).any(axis=(0, 3))
        assert changed.sum() >= 10


def test_video_decoders_find_the_frames(shapes):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    video = json.loads((shapes / "video_captions_train.json").read_text())["images"][0]
    path = shapes / "videos" / video["file_name"]
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        rate = float(container.streams.video[0].average_rate)
    assert len(decoded) == video["frames"] and rate == pytest.approx(video["fps"], abs=0.01)
    np.testing.assert_array_equal(np.stack(decoded), read_frames(path))
