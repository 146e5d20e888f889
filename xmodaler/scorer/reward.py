"""What every metric that serves as a reward has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from .references import Hypotheses, References

Score = Callable[[Hypotheses], np.ndarray]


class Reward(ABC):
    """A metric on word ids; a subclass says how sentences are scored against references."""

    @abstractmethod
    def bind(self, references: References) -> Score:
        """Prepare for these references, once.

        Returns:
            A function from hypotheses to one float64 score each, (R,).
        """

    @abstractmethod
    def method(self) -> str:
        """The name of the metric."""

    def compute_score(
        self, gts: Sequence[Sequence[Sequence[int]]], res: Sequence[Sequence[int]]
    ) -> tuple[float, np.ndarray]:
        """Scores sentence i against references i.

        Args:
            gts: Per sentence at least one reference, each a sequence of word ids.
            res: The sentences.

        Returns:
            The mean, and the scores, float64 ``(N,)``.
        """
        references = References({str(place): own for place, own in enumerate(gts)})
        sentences = Hypotheses.from_lists(np.arange(len(gts)), res)
        scores = self.bind(references)(sentences)
        return float(scores.mean()), scores
