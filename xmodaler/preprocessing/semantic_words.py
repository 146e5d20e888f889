"""Semantic words for COS-Net: which classes of words a picture's captions will speak of.

Candidates come from two sources that must agree: a classifier's scores, and the words of training
captions that a retrieval model finds close to the picture (Li et al., CVPR 2022, section 3.1).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xmodaler.datasets.annotations import (
    Problem,
    read_captions,
    read_encoded_captions,
    read_json,
)
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.feature_store import SideFile
from xmodaler.functional import read_lines
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_WORDS_READ = 20


class WordClasses:
    """Classes of words that are recognised in captions.

    Args:
        lines: One class a line; alternatives are separated by commas and may be several words.

    Raises:
        UserError: There is no class, an empty line, or one wording in two classes.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._classes: dict[tuple[str, ...], int] = {}
        self._count = 0
        for index, line in enumerate(lines):
            wordings = [tuple(words_of(part)) for part in line.split(",")]
            if not all(wordings):
                raise UserError(f"line {index + 1} of the classes, '{line}', holds no word")
            for wording in wordings:
                if self._classes.setdefault(wording, index) != index:
                    raise UserError(
                        f"'{' '.join(wording)}' of line {index + 1} of the classes is already in "
                        f"line {self._classes[wording] + 1}"
                    )
            self._count += 1
        if not self._classes:
            raise UserError("the list of classes is empty; one class a line is needed")
        self._longest = max(map(len, self._classes))

    def __len__(self) -> int:
        return self._count

    def mentioned(self, captions: Iterable[str]) -> set[int]:
        """The classes that occur among the first 20 words of any of the captions."""
        found = set()
        for caption in captions:
            words = words_of(caption)[:_WORDS_READ]
            for start in range(len(words)):
                for end in range(start + 1, min(start + self._longest, len(words)) + 1):
                    found.add(self._classes.get(tuple(words[start:end])))
        return found - {None}


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return _WORD.findall(text.lower())


def nearest_captions(
    images: np.ndarray, captions: np.ndarray, count: int = 20, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """The captions whose vectors are most similar to those of pictures.

    Args:
        images: (B, D).
        captions: (M, D).
        count: K, at most M.
        batch_size: Pictures that are compared together.

    Returns:
        Rows of ``captions`` (B, K) int64 and cosine similarities (B, K) float32, best first.
    """
    if images.ndim != 2 or captions.ndim != 2 or images.shape[1] != captions.shape[1]:
        raise UserError(
            f"vectors of shape {images.shape} and {captions.shape} cannot be compared; give "
            "(pictures, D) and (captions, D)"
        )
    count = min(count, len(captions))
    images, captions = (
        table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        for table in (np.asarray(images, np.float32), np.asarray(captions, np.float32))
    )
    found = []
    for start in range(0, len(images), batch_size):
        similarity = images[start : start + batch_size] @ captions.T
        best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similarity, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found.append([np.take_along_axis(table, order, axis=1) for table in (best, values)])
    rows, values = (np.concatenate(tables) for tables in zip(*found, strict=True))
    return rows, values


def retrieved_classes(
    retrieved: Sequence[tuple[str, float]],
    classes: WordClasses,
    most: int = 7,
    min_similarity: float = 0.32,
) -> set[int]:
    """The classes that the closest captions mention.

    Args:
        retrieved: Captions with their similarities.
        classes: The classes.
        most: So many of the captions count.
        min_similarity: Captions must be closer than this.
    """
    closest = sorted(retrieved, key=lambda pair: -pair[1])[:most]
    return classes.mentioned(text for text, similarity in closest if similarity > min_similarity)


def choose_candidates(
    scores: np.ndarray,
    retrieved: set[int],
    best: int = 20,
    min_score: float = 0.8,
    least: int = 3,
) -> list[int]:
    """The classes that a picture is said to show, by score.

    Those of the ``best`` scored classes that were retrieved as well stay when they score above
    ``min_score``. If these are fewer than ``least``, others that were retrieved follow, then the
    best scored.

    Args:
        scores: (C,) probability of each class.
        retrieved: Classes that retrieved captions mention.
        best: Number of classes by score that are considered.
        min_score: Score above which a class is sure.
        least: Least number of candidates.
    """
    ranked = np.argsort(-np.asarray(scores), kind="stable")[:best].tolist()
    agreed = [index for index in ranked if index in retrieved]
    chosen = [index for index in agreed if scores[index] > min_score]
    for index in [*agreed, *ranked]:
        if len(chosen) >= least:
            break
        if index not in chosen:
            chosen.append(index)
    return chosen


def semantic_labels(
    candidates: Sequence[int], truth: set[int], num_classes: int
) -> tuple[list[int], list[int]]:
    """What training says about candidates.

    Returns:
        For each candidate itself if the captions mention it, else ``num_classes``; and the
        mentioned classes that are no candidate, ascending.
    """
    labels = [index if index in truth else num_classes for index in candidates]
    return labels, sorted(truth.difference(candidates))


@dataclass
class SemanticSummary:
    """What was read and written.

    Attributes:
        pictures: Records that were written.
        candidates: Their candidates.
        correct: Candidates that the captions mention.
        mentioned: Classes that the captions mention.
        problems: Records that were left out, and why.
    """

    pictures: int = 0
    candidates: int = 0
    correct: int = 0
    mentioned: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"left out {problem}" for problem in self.problems[:20]]
        mean = self.candidates / max(1, self.pictures)
        lines.append(
            f"{self.pictures} pictures, left out {len(self.problems)}; {mean:.1f} words each, "
            f"precision {self.correct / max(1, self.candidates):.3f}, recall "
            f"{self.correct / max(1, self.mentioned):.3f}"
        )
        return "\n".join(lines)


def write_semantic_annotations(
    annotations: str | os.PathLike,
    references: str | os.PathLike,
    scores: str,
    retrieved: str | os.PathLike,
    class_file: str | os.PathLike,
    out: str | os.PathLike,
    max_bad_fraction: float = 0.01,
) -> SemanticSummary:
    """Add ``attr_pred``, ``attr_labels`` and ``missing_labels`` to encoded captions.

    Args:
        annotations: Encoded captions, such as ``mscoco_caption_anno_train.json``.
        references: The captions in COCO format, which say what is true.
        scores: (C,) probabilities by picture: ``.npz``, packed or pickled.
        retrieved: JSON ``{id: [[caption, similarity], ..]}``.
        class_file: The classes, one a line.
        out: The JSON to write.
        max_bad_fraction: A greater part of unusable records stops the run.

    Raises:
        UserError: A file is unusable, or too many records are.
    """
    if not os.fspath(out).endswith(".json"):
        raise UserError(f"'{out}' must end with .json")
    classes = WordClasses(read_lines(class_file))
    table, captions = SideFile(scores), read_json(retrieved)
    table.load()
    if not isinstance(captions, dict):
        raise UserError(f"'{retrieved}' is not an object from ids to captions with similarities")
    truth = {image.image_id: image.captions for image in read_captions(references)[0]}
    summary, records = SemanticSummary(), []
    for record in read_encoded_captions(annotations):
        item_id = str(record.get("image_id", record.get("video_id")))
        try:
            candidates = _candidates(item_id, table, captions, classes)
        except SampleError as error:
            summary.problems.append(Problem(f"record '{item_id}'", error.reason, item_id))
            continue
        mentioned = classes.mentioned(truth.get(item_id, ()))
        labels, missing = semantic_labels(candidates, mentioned, len(classes))
        arrays = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in record.items()}
        words = {"attr_pred": candidates, "attr_labels": labels, "missing_labels": missing}
        records.append({**arrays, **words})
        summary.pictures += 1
        summary.candidates += len(candidates)
        summary.correct += len(mentioned.intersection(candidates))
        summary.mentioned += len(mentioned)
    bad = len(summary.problems)
    if not records or bad > max_bad_fraction * (bad + len(records)):
        first = f", the first: {summary.problems[0]}" if bad else ""
        raise UserError(f"{bad} of {bad + len(records)} records are unusable{first}")
    with atomic_write(out, "w") as file:
        json.dump(records, file)
    return summary


def _candidates(
    item_id: str, scores: SideFile, captions: Mapping[str, object], classes: WordClasses
) -> list[int]:
    found = np.asarray(scores.get(item_id), dtype=np.float64).reshape(-1)
    if len(found) != len(classes) or not np.isfinite(found).all():
        raise SampleError(item_id, f"{len(found)} scores for {len(classes)} classes")
    try:
        pairs = [(str(text), float(value)) for text, value in captions[item_id]]
    except KeyError:
        raise SampleError(item_id, "no captions were retrieved for it") from None
    except (TypeError, ValueError):
        raise SampleError(item_id, "its captions are not pairs [caption, similarity]") from None
    return choose_candidates(found, retrieved_classes(pairs, classes))
