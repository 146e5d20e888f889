"""Scores of any system's captions, with their uncertainty, and comparisons of systems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from xmodaler.evaluation.caption_inputs import read_caption_sets, read_sentences
from xmodaler.evaluation.caption_metrics import MetricColumns, checked_metrics, measure, tokenized
from xmodaler.evaluation.caption_systems import (
    IMAGES,
    images_to_score,
    input_notes,
    picture_paths,
    read_system,
)
from xmodaler.evaluation.clip_score import ClipScorer, DualEncoder
from xmodaler.evaluation.diversity import diversity, length_statistics
from xmodaler.evaluation.resampling import Comparison, ScoreSums, bootstrap, compare, interval
from xmodaler.utils.errors import UserError

__all__ = [
    "DEFAULT_METRICS",
    "CaptionReport",
    "SystemScores",
    "compare_captions",
    "score_captions",
]

#: The metrics of papers that need no Java.
DEFAULT_METRICS = ("BLEU", "ROUGE_L", "CIDEr")


@dataclass
class SystemScores:
    """The scores of one system.

    Attributes:
        name: Of the system.
        corpus: Scores of the set, as :func:`xmodaler.evaluation.caption_metrics.score` gives them.
        intervals: Confidence interval of each, ``(low, high)``; empty without resampling.
        per_image: Scores of every image by its id.
        captions: The scored captions by image id, as they were given.
        diversity: See :func:`xmodaler.evaluation.diversity.diversity`.
        lengths: See :func:`xmodaler.evaluation.diversity.length_statistics`.
        unavailable: Metrics that could not be computed, with the reason.
    """

    name: str
    corpus: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: dict[str, dict[str, float]]
    captions: dict[str, list[str]]
    diversity: dict[str, float]
    lengths: dict[str, Any]
    unavailable: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """All of it but the captions, for JSON."""
        return {key: value for key, value in asdict(self).items() if key != "captions"}


@dataclass
class CaptionReport:
    """The scores of one or more systems on the same images.

    Attributes:
        systems: Scores by name, in the order given.
        comparisons: ``(first, second)`` names to a comparison for each score.
        references: The reference captions of the scored images.
        settings: ``images``, ``references``, ``samples``, ``confidence``, ``seed``.
        notes: Sentences on what is unusual about the input.
        pictures: The files of the scored images, where they were given.
    """

    systems: dict[str, SystemScores]
    comparisons: dict[tuple[str, str], dict[str, Comparison]]
    references: dict[str, list[str]]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it but the captions, for JSON."""
        return {
            "settings": self.settings,
            "notes": self.notes,
            "systems": {name: system.to_dict() for name, system in self.systems.items()},
            "comparisons": [
                {
                    "first": first,
                    "second": second,
                    "scores": {name: asdict(result) for name, result in results.items()},
                }
                for (first, second), results in self.comparisons.items()
            ],
        }


def score_captions(
    references: Any,
    hypotheses: Any,
    metrics: Iterable[str] = DEFAULT_METRICS,
    **settings: Any,
) -> SystemScores:
    """Scores the captions of one system.

    ::

        scores = score_captions("captions_test.json", "results.json")
        scores.corpus["CIDEr"], scores.intervals["CIDEr"], scores.per_image["42"]

    Args:
        references: Human captions: a path or data, see
            :func:`xmodaler.evaluation.caption_inputs.read_caption_sets`.
        hypotheses: The captions of the system, likewise. Where an image has several, the first is
            scored and all count for diversity.
        metrics: Names from :data:`xmodaler.evaluation.caption_metrics.ALL_METRICS`.
        **settings: As for :func:`compare_captions`.

    Raises:
        UserError: As :func:`compare_captions`.
    """
    name = "the captions"
    return compare_captions(references, {name: hypotheses}, metrics, **settings).systems[name]


def compare_captions(
    references: Any,
    systems: Mapping[str, Any],
    metrics: Iterable[str] = DEFAULT_METRICS,
    *,
    tokenize: bool = True,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    training_captions: Any = None,
    images: str = "captioned",
    dual_encoder: DualEncoder | None = None,
    pictures: Any = None,
) -> CaptionReport:
    """Scores systems on the same images and compares every two of them.

    Args:
        references: As for :func:`score_captions`.
        systems: Captions of each system by its name.
        metrics: As for :func:`score_captions`.
        tokenize: Split captions as the COCO toolkit does; False splits at white space.
        samples: Number of resampled sets behind intervals and p-values; 0 for none.
        confidence: Of the intervals.
        seed: Of the resampling; the same seed gives the same numbers.
        training_captions: Captions of the training set, to count novel ones: a path, a list of
            strings, or as ``references``.
        images: ``"captioned"``: those that the systems have captions for, which must be the same;
            ``"common"``: those that every system has a caption for; ``"all"``: those with
            references, of which none may be missing.
        dual_encoder: Adds CLIPScore and RefCLIPScore, see
            :class:`xmodaler.evaluation.clip_score.TransformersDualEncoder`.
        pictures: For it, and for HTML reports: the folder of the pictures that the references
            name, or ``{id: file}``.

    Raises:
        UserError: An input is malformed, images do not fit together, or a setting is wrong.
    """
    wanted = checked_metrics(metrics)
    _check_settings(systems, samples, confidence, images)
    truth = read_caption_sets(references, "the references")
    given = {name: read_system(source, name, truth) for name, source in systems.items()}
    notes = input_notes(truth, given)
    ids = images_to_score(truth, given, images, notes)
    reference_texts = tokenized([truth.captions[key] for key in ids], tokenize)
    reference_words = [[text.split() for text in own] for own in reference_texts]
    training = None
    if training_captions is not None:
        sentences = [read_sentences(training_captions, "the training captions")]
        training = {" ".join(text.split()) for text in tokenized(sentences, tokenize)[0]}

    paths = [] if pictures is None else picture_paths(pictures, truth, ids)
    clip = None
    if dual_encoder is not None:
        if pictures is None:
            raise UserError("a dual encoder needs pictures: their folder, or {id: file}")
        clip = ClipScorer(dual_encoder, paths, [truth.captions[key] for key in ids])

    measured: dict[str, MetricColumns] = {}
    scored: dict[str, SystemScores] = {}
    for name, sets in given.items():
        texts = tokenized([sets.captions[key] for key in ids], tokenize)
        own = measured[name] = measure([group[0] for group in texts], reference_texts, wanted)
        if clip is not None:
            for metric, column in clip([sets.captions[key][0] for key in ids]).items():
                own.add(metric, column.mean(), column)
        words = [[text.split() for text in group] for group in texts]
        lists = {metric: column.tolist() for metric, column in own.per_image.items()}
        scored[name] = SystemScores(
            name=name,
            corpus=own.corpus,
            intervals=_intervals(own, samples, confidence, seed),
            per_image={
                key: {metric: column[place] for metric, column in lists.items()}
                for place, key in enumerate(ids)
            },
            captions={key: sets.captions[key] for key in ids},
            diversity=diversity(words, reference_words, training),
            lengths=length_statistics([w for group in words for w in group], reference_words),
            unavailable=own.reasons,
        )
    comparisons = {
        (first, second): compare(measured[first], measured[second], samples, confidence, seed)
        for first, second in combinations(measured, 2)
        if samples and measured[first].corpus
    }
    settings = {
        "images": len(ids),
        "references": sum(len(own) for own in reference_texts),
        "samples": samples,
        "confidence": confidence,
        "seed": seed,
        "tokenize": tokenize,
    }
    kept = {key: truth.captions[key] for key in ids}
    files = dict(zip(ids, paths, strict=False))
    return CaptionReport(scored, comparisons, kept, settings, notes, files)


def _check_settings(
    systems: Mapping[str, Any], samples: int, confidence: float, images: str
) -> None:
    if not systems:
        raise UserError("there are no captions to score; give those of one system at least")
    if samples < 0:
        raise UserError(f"the number of resampled sets is {samples}; 0 (none) or more is right")
    if not 0 < confidence < 1:
        raise UserError(f"the confidence is {confidence}; a number between 0 and 1 is right")
    if images not in IMAGES:
        raise UserError(f"images is '{images}', but must be one of {', '.join(IMAGES)}")


def _intervals(
    measured: MetricColumns, samples: int, confidence: float, seed: int
) -> dict[str, tuple[float, float]]:
    if not samples or not measured.corpus:
        return {}
    sums = ScoreSums(measured)
    low, high = interval(bootstrap(sums, samples, seed), confidence)
    return dict(zip(sums.names, zip(low.tolist(), high.tolist(), strict=True), strict=True))
