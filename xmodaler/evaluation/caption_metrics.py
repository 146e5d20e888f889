"""The caption scores of the COCO toolkit from sentences in, numbers out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from xmodaler.evaluation.bleu import bleu_counts, bleu_from_counts
from xmodaler.evaluation.cider import corpus_cider
from xmodaler.evaluation.java_metrics import JAVA_METRICS, java_metric, why_unavailable
from xmodaler.evaluation.rouge import rouge_l
from xmodaler.tokenization import PTBTokenizer
from xmodaler.utils.errors import UserError, did_you_mean

__all__ = [
    "ALL_METRICS",
    "PYTHON_METRICS",
    "CaptionScores",
    "MetricColumns",
    "checked_ids",
    "checked_metrics",
    "measure",
    "score",
    "score_with_reasons",
    "tokenized",
]

ImageId = TypeVar("ImageId", bound=Hashable)
CaptionScores = tuple[dict[str, float], dict[ImageId, dict[str, float]]]

#: Names of groups of metrics, in the order in which the official toolkit prints them.
ALL_METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr", "CIDEr-D", "SPICE")
#: Those that need no Java.
PYTHON_METRICS = ("BLEU", "ROUGE_L", "CIDEr", "CIDEr-D")


def score(
    references: Mapping[ImageId, Sequence[str]],
    hypotheses: Mapping[ImageId, str],
    metrics: Iterable[str] = PYTHON_METRICS,
    tokenize: bool = True,
) -> CaptionScores[ImageId]:
    """Scores captions as the official COCO toolkit does.

    The images of ``hypotheses`` are scored, in the order of ``references``. BLEU is that of the
    corpus (closest reference length), METEOR aggregates its own statistics, the others are means
    over the images. ``CIDEr`` is the toolkit's number of that name; by definition it is CIDEr-D
    with the document frequencies of the references at hand, so both names give the same value.

    Args:
        references: Human captions per image.
        hypotheses: One caption per image.
        metrics: Names from :data:`ALL_METRICS`.
        tokenize: Split with :class:`PTBTokenizer`; False splits at white space, case kept.

    Returns:
        Scores of the set under ``Bleu_1`` .. ``Bleu_4``, ``METEOR``, ``ROUGE_L``, ``CIDEr``,
        ``CIDEr-D``, ``SPICE``, and the same per image. All lie in [0, 1] but CIDEr, in [0, 10].
        A Java metric that cannot be computed is absent.

    Raises:
        UserError: If there is nothing to score, an image has no reference, a caption is no string
            or a metric is unknown.
    """
    corpus, per_image, _ = score_with_reasons(references, hypotheses, metrics, tokenize)
    return corpus, per_image


def score_with_reasons(
    references: Mapping[ImageId, Sequence[str]],
    hypotheses: Mapping[ImageId, str],
    metrics: Iterable[str] = ALL_METRICS,
    tokenize: bool = True,
) -> tuple[dict[str, float], dict[ImageId, dict[str, float]], dict[str, str]]:
    """As :func:`score`, and for every absent metric the reason in a few words."""
    wanted = checked_metrics(metrics)
    ids = checked_ids(references, hypotheses)
    truth = tokenized([references[key] for key in ids], tokenize)
    own = [sentences[0] for sentences in tokenized([[hypotheses[key]] for key in ids], tokenize)]
    measured = measure(own, truth, wanted)
    lists = {name: column.tolist() for name, column in measured.per_image.items()}
    per_image = {
        key: {name: column[index] for name, column in lists.items()}
        for index, key in enumerate(ids)
    }
    return measured.corpus, per_image, measured.reasons


@dataclass
class MetricColumns:
    """The scores of N tokenized captions.

    Attributes:
        corpus: Score of the set by its name (``Bleu_1``, ...).
        per_image: ``(N,)`` float64 by the same names.
        reasons: Why a metric that was asked for is absent.
        bleu_counts: ``(N, 10)``, see :func:`xmodaler.evaluation.bleu.bleu_counts`; None without
            BLEU.
    """

    corpus: dict[str, float] = field(default_factory=dict)
    per_image: dict[str, np.ndarray] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    bleu_counts: np.ndarray | None = None

    def add(self, name: str, corpus: float, per_image: Sequence[float] | np.ndarray) -> None:
        """Enter a metric."""
        self.corpus[name] = float(corpus)
        self.per_image[name] = np.asarray(per_image, dtype=np.float64)


def measure(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str]
) -> MetricColumns:
    """Scores tokenized captions.

    Args:
        hypotheses: One sentence per image, tokens joined by spaces.
        references: Per image at least one such sentence.
        metrics: From :func:`checked_metrics`.
    """
    words = [sentence.split() for sentence in hypotheses]
    other_words = [[sentence.split() for sentence in sentences] for sentences in references]
    found = MetricColumns()
    for name in metrics:
        if name == "BLEU":
            found.bleu_counts = bleu_counts(words, other_words)
            totals = bleu_from_counts(found.bleu_counts.sum(axis=0))
            columns = bleu_from_counts(found.bleu_counts)
            for k, total in enumerate(totals):
                found.add(f"Bleu_{k + 1}", total, columns[:, k])
        elif name == "ROUGE_L":
            # Unlike the n-gram metrics, the toolkit's ROUGE does not split at a no-break space.
            scores = [
                rouge_l(sentence.split(" "), [other.split(" ") for other in others])
                for sentence, others in zip(hypotheses, references, strict=True)
            ]
            found.add(name, sum(scores) / len(scores), scores)
        elif name in ("CIDEr", "CIDEr-D"):
            if "CIDEr" in found.corpus:
                found.add(name, found.corpus["CIDEr"], found.per_image["CIDEr"])
            else:
                found.add(name, *corpus_cider(words, other_words))
        elif reason := why_unavailable(name):
            found.reasons[name] = reason
        else:
            try:
                found.add(name, *java_metric(name, hypotheses, references))
            except RuntimeError as error:
                found.reasons[name] = str(error)
    return found


def checked_metrics(metrics: Iterable[str]) -> list[str]:
    """The metrics in the order of :data:`ALL_METRICS`.

    Raises:
        UserError: A name is unknown.
    """
    wanted = set(metrics)
    for name in sorted(wanted - set(ALL_METRICS)):
        raise UserError(
            f"unknown caption metric '{name}'{did_you_mean(name, ALL_METRICS)}; "
            f"known are {', '.join(ALL_METRICS)}"
        )
    assert set(JAVA_METRICS) | set(PYTHON_METRICS) == set(ALL_METRICS)
    return [name for name in ALL_METRICS if name in wanted]


def checked_ids(
    references: Mapping[ImageId, Sequence[str]], hypotheses: Mapping[ImageId, str]
) -> list[ImageId]:
    """Ids to score, in the order of the references.

    Raises:
        UserError: There is nothing to score, or a caption that cannot be.
    """
    if not hypotheses:
        raise UserError("there are no captions to score")
    for key, caption in hypotheses.items():
        if not isinstance(caption, str):
            raise UserError(
                f"the caption of image {key!r} is a {type(caption).__name__}, not a string"
            )
        if isinstance(references.get(key), str):
            raise UserError(f"the references of image {key!r} are one string, not a list of them")
        if not references.get(key):
            raise UserError(f"image {key!r} has a caption to score but no reference caption")
    return [key for key in references if key in hypotheses]


def tokenized(groups: Sequence[Sequence[str]], tokenize: bool = True) -> list[list[str]]:
    """Captions with their tokens joined by spaces.

    Args:
        groups: Captions per image.
        tokenize: Split with :class:`PTBTokenizer`; False leaves them as they are.
    """
    if not tokenize:
        return [list(group) for group in groups]
    flat = [caption for group in groups for caption in group]
    remaining = iter(PTBTokenizer().tokenize_document(flat))
    return [[" ".join(next(remaining)) for _ in group] for group in groups]
