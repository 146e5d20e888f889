"""The caption scores of the COCO toolkit from sentences in, numbers out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from xmodaler.evaluation.bleu import corpus_bleu
from xmodaler.evaluation.cider import corpus_cider
from xmodaler.evaluation.java_metrics import JAVA_METRICS, java_metric, why_unavailable
from xmodaler.evaluation.rouge import rouge_l
from xmodaler.tokenization import PTBTokenizer
from xmodaler.utils.errors import UserError, did_you_mean

__all__ = ["ALL_METRICS", "PYTHON_METRICS", "CaptionScores", "score", "score_with_reasons"]

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
    wanted = _ordered(metrics)
    ids = _check(references, hypotheses)
    truth, own = _sentences(ids, references, hypotheses, tokenize)
    words = [sentence.split() for sentence in own]
    other_words = [[sentence.split() for sentence in sentences] for sentences in truth]

    corpus: dict[str, float] = {}
    columns: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for name in wanted:
        if name == "BLEU":
            totals, rows = corpus_bleu(words, other_words)
            for k, total in enumerate(totals):
                corpus[f"Bleu_{k + 1}"] = total
                columns[f"Bleu_{k + 1}"] = [row[k] for row in rows]
        elif name == "ROUGE_L":
            # Unlike the n-gram metrics, the toolkit's ROUGE does not split at a no-break space.
            columns[name] = [
                rouge_l(sentence.split(" "), [other.split(" ") for other in others])
                for sentence, others in zip(own, truth, strict=True)
            ]
            corpus[name] = sum(columns[name]) / len(ids)
        elif name in ("CIDEr", "CIDEr-D"):
            if "CIDEr" in corpus:
                corpus[name], columns[name] = corpus["CIDEr"], columns["CIDEr"]
            else:
                corpus[name], columns[name] = corpus_cider(words, other_words)
        elif reason := why_unavailable(name):
            reasons[name] = reason
        else:
            try:
                corpus[name], columns[name] = java_metric(name, own, truth)
            except RuntimeError as error:
                reasons[name] = str(error)
    per_image = {
        key: {name: column[index] for name, column in columns.items()}
        for index, key in enumerate(ids)
    }
    return corpus, per_image, reasons


def _ordered(metrics: Iterable[str]) -> list[str]:
    wanted = set(metrics)
    for name in sorted(wanted - set(ALL_METRICS)):
        raise UserError(
            f"unknown caption metric '{name}'{did_you_mean(name, ALL_METRICS)}; "
            f"known are {', '.join(ALL_METRICS)}"
        )
    assert set(JAVA_METRICS) | set(PYTHON_METRICS) == set(ALL_METRICS)
    return [name for name in ALL_METRICS if name in wanted]


def _check(
    references: Mapping[ImageId, Sequence[str]], hypotheses: Mapping[ImageId, str]
) -> list[ImageId]:
    """Ids to score, in the order of the references."""
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


def _sentences(
    ids: Sequence[ImageId],
    references: Mapping[ImageId, Sequence[str]],
    hypotheses: Mapping[ImageId, str],
    tokenize: bool,
) -> tuple[list[list[str]], list[str]]:
    """References per image and hypotheses, tokens joined by spaces."""
    flat = [caption for key in ids for caption in references[key]]
    own = [hypotheses[key] for key in ids]
    if tokenize:
        tokenizer = PTBTokenizer()
        flat = [" ".join(tokens) for tokens in tokenizer.tokenize_document(flat)]
        own = [" ".join(tokens) for tokens in tokenizer.tokenize_document(own)]
    remaining = iter(flat)
    return [[next(remaining) for _ in references[key]] for key in ids], own
