"""The reward of generated sentences: a weighted sum of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import configurable, kfg
from xmodaler.utils.errors import UserError

from .build import SCORER_REGISTRY
from .cider_files import read_references
from .references import Hypotheses, References
from .reward import Reward, Score

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@SCORER_REGISTRY.register()
class BaseScorer:
    """Rewards decoded word ids with ``sum_i weight_i * metric_i`` against the training captions.

    A sentence is what stands before the first end word, and by default that end word too: it is a
    word like any other in n-grams of both sides, so that a model is rewarded for ending where
    people end. Without it, models learn to stop in the middle of a phrase.

    Args:
        types: Names of the metrics.
        scorers: The metrics. One that is no :class:`~xmodaler.scorer.reward.Reward` is given lists:
            ``compute_score(references, sentences) -> (mean, scores)``. One with a method
            ``check(references)`` can refuse the captions.
        weights: Weight of each.
        gt_path: File of the training captions, see
            :func:`~xmodaler.scorer.cider_files.read_references`; or such a dict itself.
        eos_id: The end word.
        count_eos: Whether the end word counts as a word.
        vocab_size: Number of words of the model, against which the captions are checked; None
            skips that.
    """

    @configurable
    def __init__(
        self,
        *,
        types: Sequence[str],
        scorers: Sequence[Any],
        weights: Sequence[float],
        gt_path: str | Mapping[str, list[list[int]]],
        eos_id: int,
        count_eos: bool = True,
        vocab_size: int | None = None,
    ) -> None:
        if not types or not len(types) == len(scorers) == len(weights):
            raise UserError(
                f"SCORER.TYPES is {list(types)} and SCORER.WEIGHTS {list(weights)}; give at least "
                "one metric, and one weight for each"
            )
        self.types, self.scorers, self.weights = list(types), list(scorers), list(weights)
        self.eos_id, self.count_eos = eos_id, count_eos
        #: The word that ends references.
        self.end = eos_id
        given = isinstance(gt_path, Mapping)
        source = "the given captions" if given else f"'{gt_path}' (SCORER.GT_PATH)"
        self.references = self.read(gt_path, source)
        self._check(vocab_size)
        self._metrics = [self._bind(scorer) for scorer in self.scorers]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.SCORER
        types = [name for name in node.TYPES if name]
        return {
            "types": types,
            "scorers": [SCORER_REGISTRY.get(name)(cfg) for name in types],
            "weights": list(node.WEIGHTS),
            "gt_path": node.GT_PATH,
            "eos_id": node.EOS_ID,
            "count_eos": node.COUNT_EOS,
            "vocab_size": cfg.MODEL.VOCAB_SIZE,
        }

    def read(self, captions: str | Mapping[str, Any], source: str) -> References:
        """The references of a file, or given ones."""
        if not isinstance(captions, Mapping):
            captions = read_references(captions)
        return References(self._without_ends(captions), source)

    def __call__(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """Score decoded sentences.

        Args:
            batched_inputs: IDS, of B images, and G_SENTS_IDS (R, T) or (B, K, T), the R / B
                sentences of an image adjacent.

        Returns:
            The mean of every metric under its name, and REWARDS, float64 (R,).

        Raises:
            UserError: An image has no references, or a score is not a number.
        """
        ids = batched_inputs[kfg.IDS]
        return self._score(ids, self.hypotheses(ids, batched_inputs[kfg.G_SENTS_IDS]))

    def _score(self, ids: Sequence[str], sentences: Hypotheses) -> dict[str, Any]:
        total = np.zeros(len(sentences.lengths))
        result: dict[str, Any] = {}
        for name, weight, metric in zip(self.types, self.weights, self._metrics, strict=True):
            scores = metric(sentences)
            if not np.isfinite(scores).all():
                row = int(np.flatnonzero(~np.isfinite(scores))[0])
                image = ids[row * len(ids) // len(scores)]
                raise UserError(
                    f"the reward {name} of a sentence for image '{image}' is {scores[row]}; no "
                    "training can go on from that"
                )
            total += weight * scores
            result[name] = float(scores.mean())
        return {**result, kfg.REWARDS: total}

    def check_captions(self, ids: Sequence[str], targets: Any) -> None:
        """Refuse references that are not those of the training data.

        Args:
            ids: B images.
            targets: G_TARGET_IDS (R, L) of the same batch, -1 behind each caption.

        Raises:
            UserError: None of the captions is a reference of its image, all of them are worthless
                as captions of it, or they are worth as much as empty sentences.
        """
        targets = to_numpy(targets)
        sentences = self.hypotheses(ids, np.where(targets < 0, self.eos_id, targets))
        pairs = zip(sentences.sentences(), sentences.images, strict=True)
        if not any(self._is_reference(words, place) for words, place in pairs):
            raise UserError(
                f"no caption of the first training batch is among the references of its image in "
                f"{self.references.source}, image '{ids[0]}' first; they were made from other "
                "captions or with another vocabulary; write them anew with tools/cider_cache.py"
            )
        rewards = self._score(ids, sentences)[kfg.REWARDS]
        if not rewards.any():
            raise UserError(
                f"the reward {self.types} is 0 even for the captions that people wrote, so nothing "
                "can be learned from it; SCORER.CIDER_CACHED must be counted over many images"
            )

        nothing = self.hypotheses(ids, np.full((len(ids), 1), self.eos_id))
        if np.ptp([*rewards, *self._score(ids, nothing)[kfg.REWARDS]]) == 0:
            raise UserError(
                f"the reward {self.types} is {rewards[0]:g} for the captions that people wrote and "
                "for empty sentences alike, so nothing can be learned from it"
            )

    def _is_reference(self, words: list[int], place: int) -> bool:
        """Whether a caption is one of a picture's, either of them perhaps cut short."""
        words = [word for word in words if word != self.end]
        for own in self.references.captions(place):
            own = [word for word in own if word != self.end]
            length = min(len(words), len(own))
            if length and words[:length] == own[:length]:
                return True
        return False

    def get_sents(self, sent: Any) -> list[list[int]]:
        """The words of every row of ``sent`` (R, T) up to the end word, as lists."""
        words = to_numpy(sent)
        pairs = zip(words.tolist(), self._lengths(words).tolist(), strict=True)
        return [row[:length] for row, length in pairs]

    def hypotheses(self, ids: Sequence[str], words: Any) -> Hypotheses:
        """Decoded rows as sentences of their pictures."""
        words = to_numpy(words)
        words = words.reshape(-1, words.shape[-1])
        lengths = self._lengths(words)
        shown = np.arange(words.shape[1]) < lengths[:, None]
        return Hypotheses(self._images(ids, len(words)), np.where(shown, words, -1), lengths)

    def _images(self, ids: Sequence[str], rows: int) -> np.ndarray:
        """(R,) place of each row's picture among the references."""
        if not len(ids) or rows % len(ids):
            raise UserError(
                f"{rows} sentences do not divide over {len(ids)} images; every image must "
                "have the same number of sentences, adjacent"
            )
        return np.repeat(self.references.places(ids), rows // len(ids))

    def _lengths(self, words: np.ndarray) -> np.ndarray:
        ends = words == self.eos_id
        ended = ends.any(axis=1)
        return np.where(ended, ends.argmax(axis=1) + int(self.count_eos), words.shape[1])

    def _without_ends(self, captions: Mapping[str, list[list[int]]]) -> Mapping[str, Any]:
        if self.count_eos:
            return captions
        return {
            name: [words[:-1] if words and words[-1] == self.end else words for words in own]
            for name, own in captions.items()
        }

    def _check(self, vocab_size: int | None) -> None:
        highest = int(self.references.words.max(initial=0))
        if vocab_size is not None and highest >= vocab_size:
            raise UserError(
                f"a caption in {self.references.source} has the word id {highest}, but the model "
                f"knows {vocab_size} (MODEL.VOCAB_SIZE); the captions must be encoded with the "
                "model's vocabulary"
            )
        for scorer in self.scorers:
            if hasattr(scorer, "check"):
                scorer.check(self.references)

    def _bind(self, scorer: Any) -> Score:
        if isinstance(scorer, Reward):
            return scorer.bind(self.references)

        def score(sentences: Hypotheses) -> np.ndarray:
            references = [self.references.captions(place) for place in sentences.images]
            return np.asarray(scorer.compute_score(references, sentences.sentences())[1])

        return score


def to_numpy(words: Any) -> np.ndarray:
    """Word ids as an array, wherever they are."""
    return words.detach().cpu().numpy() if hasattr(words, "detach") else np.asarray(words)
