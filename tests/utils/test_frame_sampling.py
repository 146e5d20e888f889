"""Which frames are looked at: the rules, for any clip."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.utils.errors import UserError
from xmodaler.utils.frame_sampling import FrameSampling, Timeline

quick = settings(max_examples=150, deadline=None, derandomize=True)
counts = st.integers(1, 400)
rates = st.sampled_from([5.0, 12.5, 23.976, 25.0, 29.97, 60.0, 120.0])
gaps = st.lists(st.floats(0.004, 2.0), min_size=1, max_size=60)


@quick
@given(counts, counts, rates)
def test_uniform_is_the_rule_of_msvd_for_equally_long_frames(count, most, rate):
    chosen = FrameSampling("uniform", most)(Timeline.of_count(count, rate))
    expected = [int(i * count / most) for i in range(most)] if count > most else list(range(count))
    assert chosen == expected


@quick
@given(counts, st.integers(1, 60), rates, st.integers(0, 1000))
def test_segments_give_a_frame_each(count, most, rate, seed):
    random.seed(seed)
    chosen = FrameSampling("segment", most, jitter=True)(Timeline.of_count(count, rate))
    assert chosen == sorted(set(chosen)) and chosen[0] >= 0 and chosen[-1] < count
    if count <= most:
        assert chosen == list(range(count))
        return
    assert len(chosen) == most
    for segment, frame in enumerate(chosen):
        assert segment * count / most - 1e-6 <= frame <= (segment + 1) * count / most
    centre = FrameSampling("segment", most)(Timeline.of_count(count, rate))
    assert centre == [int((i + 0.5) * count / most + 1e-9) for i in range(most)]


def test_only_training_jitters():
    timeline, still = Timeline.of_count(100), FrameSampling("segment", 4)
    assert still(timeline) == still(timeline) == [12, 37, 62, 87]
    random.seed(0)
    jittered = FrameSampling("segment", 4, jitter=True)
    assert len({tuple(jittered(timeline)) for _ in range(20)}) > 10


@quick
@given(gaps, st.floats(0.2, 30.0))
def test_a_fixed_rate_is_kept_whatever_the_frame_rate(distances, fps):
    timeline = Timeline.of_times(np.cumsum([3.0, *distances]), last=0.5)
    chosen = FrameSampling("fps", fps=fps)(timeline)
    assert chosen[0] == 0 and chosen == sorted(set(chosen))
    wanted = np.arange(0, timeline.duration - 1e-6, 1 / fps)
    shown = {int(np.flatnonzero(timeline.starts <= time + 1e-6)[-1]) for time in wanted}
    assert len(shown ^ set(chosen)) <= 1  # a tie may fall to either side
    few = FrameSampling("fps", most=3, fps=fps)(timeline)
    assert len(few) == min(3, len(chosen)) and set(few) <= set(chosen)


def test_variable_frame_rates_are_sampled_in_time():
    """A slow half and a fast half: equal times, not equal numbers of frames."""
    timeline = Timeline.of_times([*np.arange(10) * 0.5, *(5 + np.arange(100) * 0.05)], last=0.05)
    chosen = FrameSampling("uniform", 4)(timeline)
    assert chosen == [0, 5, 10, 60]
    held = Timeline.of_times([0.0, 0.1, 0.2, 0.3, 9.9], last=0.1)
    assert FrameSampling("uniform", 4)(held) == [0, 3]  # one picture stood still most of the time


def test_times_in_any_order_and_of_a_single_frame():
    timeline = Timeline.of_times([0.4, 0.0, 0.2])
    assert timeline.starts.tolist() == [0.0, 0.2, 0.4] and timeline.duration == pytest.approx(0.6)
    single = Timeline.of_times([7.0])
    for sampling in (FrameSampling("uniform", 5), FrameSampling("fps", fps=30.0)):
        assert sampling(single) == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "uniformly", "most": 3}, "FRAME_SAMPLING is 'uniformly'.*mean 'uniform'"),
        ({"rule": "uniform"}, "MAX_FEAT_NUM is -1; with FRAME_SAMPLING 'uniform'"),
        ({"rule": "segment", "most": 0}, "MAX_FEAT_NUM is 0"),
        ({"rule": "fps", "fps": 0.0}, r"FRAME_RATE is 0\.0; it must be positive"),
    ],
)
def test_rules_that_make_no_sense(arguments, message):
    with pytest.raises(UserError, match=message):
        FrameSampling(**arguments)
