"""Which frames of a clip to look at."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .errors import UserError, did_you_mean


@dataclass(frozen=True)
class Timeline:
    """When the frames of a clip begin.

    Attributes:
        starts: Seconds, ascending, the first is 0; the distances may vary.
        duration: Seconds from the first frame's start to the last one's end.
    """

    starts: np.ndarray
    duration: float

    @classmethod
    def of_times(cls, times: Sequence[float], last: float = 0.0) -> "Timeline":
        """From the times at which frames begin, in any order.

        Args:
            times: Seconds from any origin, one at least.
            last: How long the last frame is shown; if not positive, as long as frames usually are.
        """
        starts = np.sort(np.asarray(times, dtype=np.float64))
        starts = starts - starts[0]
        if last <= 0:
            last = float(np.median(np.diff(starts))) if len(starts) > 1 else 1.0
        return cls(starts, float(starts[-1]) + last)

    @classmethod
    def of_count(cls, count: int, rate: float = 25.0) -> "Timeline":
        """Of frames at equal distances, ``rate`` a second."""
        return cls(np.arange(count) / rate, count / rate)

    def __len__(self) -> int:
        return len(self.starts)

    def shown_at(self, times: Sequence[float] | np.ndarray) -> list[int]:
        """The frames that are on the screen at some times, each once, ascending."""
        # Times such as 3 * (1 / 30) fall a hair short of the frame that begins there.
        hair = 1e-6 * self.duration / len(self)
        found = np.searchsorted(self.starts, np.asarray(times, np.float64) + hair, "right") - 1
        return np.unique(np.clip(found, 0, len(self) - 1)).tolist()


@dataclass(frozen=True)
class FrameSampling:
    """A rule that chooses frames of a clip.

    * ``uniform``: the frames shown at ``i / M`` of the clip, ``i = 0 .. M-1``; for equally long
      frames those with the numbers ``int(i * frames / M)``.
    * ``segment``: of each of M equally long segments the frame in the middle or, when random,
      one that begins in it (Wang et al., "Temporal Segment Networks", ECCV 2016).
    * ``fps``: the frames shown at 0, 1/fps, 2/fps, ... seconds, at most M of them if M > 0, spread
      uniformly over the clip.

    A clip of at most M frames is taken whole by ``uniform`` and ``segment``.

    Args:
        rule: ``"uniform"``, ``"segment"`` or ``"fps"``.
        most: M; not positive for no limit, which only ``fps`` allows.
        fps: Frames a second.
        jitter: Draw from Python's ``random``, as training does; only for ``segment``.
    """

    rule: str = "uniform"
    most: int = -1
    fps: float = 1.0
    jitter: bool = False

    def __post_init__(self) -> None:
        if self.rule not in _RULES:
            raise UserError(
                f"DATALOADER.FRAME_SAMPLING is '{self.rule}'; it must be one of "
                f"{', '.join(_RULES)}{did_you_mean(self.rule, _RULES)}"
            )
        if self.rule == "fps" and not self.fps > 0:
            raise UserError(f"DATALOADER.FRAME_RATE is {self.fps}; it must be positive")
        if self.rule != "fps" and self.most <= 0:
            raise UserError(
                f"DATALOADER.MAX_FEAT_NUM is {self.most}; with FRAME_SAMPLING '{self.rule}' it is "
                "the number of frames to take of a clip, such as 16"
            )

    def __call__(self, timeline: Timeline) -> list[int]:
        """Numbers of the chosen frames, ascending, each once, one at least.

        Args:
            timeline: Of a clip with one frame at least.
        """
        if self.rule != "fps" and len(timeline) <= self.most:
            return list(range(len(timeline)))
        return _RULES[self.rule](self, timeline)


def _uniform(sampling: FrameSampling, timeline: Timeline) -> list[int]:
    return timeline.shown_at(np.arange(sampling.most) * (timeline.duration / sampling.most))


def _segment(sampling: FrameSampling, timeline: Timeline) -> list[int]:
    edges = np.arange(sampling.most + 1) * (timeline.duration / sampling.most)
    if not sampling.jitter:
        return timeline.shown_at((edges[:-1] + edges[1:]) / 2)
    first = np.searchsorted(timeline.starts, edges, "left").tolist()
    # A segment in which no frame begins shows the last one before it.
    return sorted({random.choice(range(a, b)) if a < b else a - 1 for a, b in pairwise(first)})


def _fixed_rate(sampling: FrameSampling, timeline: Timeline) -> list[int]:
    count = max(1, int(np.ceil(timeline.duration * sampling.fps - 1e-6)))
    frames = timeline.shown_at(np.arange(count) / sampling.fps)
    if 0 < sampling.most < len(frames):
        frames = [frames[i * len(frames) // sampling.most] for i in range(sampling.most)]
    return frames


_RULES: dict[str, Callable[[FrameSampling, Timeline], list[int]]] = {
    "uniform": _uniform,
    "segment": _segment,
    "fps": _fixed_rate,
}


def exact_frames(count: int, number: int, rng: Any = None) -> list[int]:
    """Numbers of exactly so many frames of a clip, ascending (X²-VLM, Zeng et al. 2022).

    The clip is cut into segments that differ in length by one frame at most, the longer ones in
    front or, when random, anywhere; of each the first frame is taken or, when random, any. A clip
    that is too short gives all frames, and some of them again: in order, or by chance.

    Args:
        count: Frames of the clip, one at least.
        number: Frames to take.
        rng: Legacy NumPy source of chance, such as ``numpy.random``; None takes no chances.
    """
    if count < 1:
        raise UserError("a video without frames has none to choose")
    if count <= number:
        more = number - count
        again = rng.choice(count, more).tolist() if rng is not None else range(more)
        return sorted([*range(count), *(frame % count for frame in again)])
    lengths = [count // number + (segment < count % number) for segment in range(number)]
    if rng is not None:
        rng.shuffle(lengths)
    starts = [sum(lengths[:segment]) for segment in range(number)]
    if rng is None:
        return starts
    return [
        start + int(rng.randint(0, length)) for start, length in zip(starts, lengths, strict=True)
    ]
