"""From a data set's captions to what the captioners train on: words, arrays, references."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xmodaler.datasets.annotations import Problem
from xmodaler.datasets.vocabulary import (
    build_vocabulary,
    write_encoded_captions,
    write_vocabulary,
)
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

from .caption_sources import Captioned

SPLITS = ("train", "val", "test")
_LISTED = 20


@dataclass(frozen=True)
class CaptionRules:
    """How a data set's captions become arrays.

    Attributes:
        prefix: Annotation files are ``<prefix>_caption_anno_<split>``.
        id_key: Key of the id in their records.
        references: Name of the reference file of a split, with ``{split}`` in it.
        min_count: Least number of occurrences of a word that is kept.
        counted: Splits whose words are counted.
        single: Splits whose records hold the first caption only.
    """

    prefix: str
    id_key: str
    references: str
    min_count: int
    counted: tuple[str, ...] = SPLITS
    single: tuple[str, ...] = ()


#: Words above a count of 5 (Karpathy & Fei-Fei, CVPR 2015).
COCO = CaptionRules("mscoco", "image_id", "captions_{split}5k.json", min_count=6)
MSVD = CaptionRules("msvd", "video_id", "captions_{split}.json", min_count=4)
MSRVTT = CaptionRules(
    prefix="msrvtt",
    id_key="video_id",
    references="captions_{split}.json",
    min_count=6,
    counted=("train",),
    single=("val", "test"),
)


@dataclass
class Summary:
    """What a run read, dropped and wrote.

    Attributes:
        items: Number of items by split that were read.
        sentences: Number of sentences by split.
        words: Size of the vocabulary, the unknown word included.
        seen_words: Different words that were counted.
        unknown: Parts of all written words that are unknown, by split.
        clipped: Captions longer than the arrays, by split.
        files: The files that were written.
        problems: What was dropped, and why.
        warnings: What the user should know.
    """

    items: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    words: int = 0
    seen_words: int = 0
    unknown: dict[str, float] = field(default_factory=dict)
    clipped: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"dropped {problem}" for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            lines.append(f"dropped {len(self.problems) - _LISTED} more")
        for split in self.items:
            lines.append(
                f"{split}: {self.items[split]} items, {self.sentences[split]} captions, "
                f"{self.clipped[split]} of them longer than the arrays, "
                f"{100 * self.unknown[split]:.2f} % unknown words"
            )
        lines.append(
            f"vocabulary: {self.words} of {self.seen_words} words; "
            f"set MODEL.VOCAB_SIZE {self.words + 1}"
        )
        lines.extend(f"note: {warning}" for warning in self.warnings)
        lines.extend(f"wrote {name}" for name in self.files)
        return "\n".join(lines)


def write_caption_files(
    items: Sequence[Captioned],
    problems: Sequence[Problem],
    rules: CaptionRules,
    out: str | os.PathLike,
    *,
    min_count: int | None = None,
    max_length: int = 20,
    splits: Sequence[str] = SPLITS,
    suffix: str = ".json",
    max_bad_fraction: float = 0.01,
) -> Summary:
    """Write the vocabulary, the encoded captions and the references of a data set.

    A caption w1 .. wn becomes arrays of L = ``max_length`` + 1: input ``0 w1 ..``, target
    ``w1 .. wn 0 -1 ..``; a longer one keeps L words and has no end.

    Args:
        items: The pictures or videos with their sentences.
        problems: What was already dropped while reading.
        rules: Names and counting rules of the data set.
        out: Folder of the files ``vocabulary.txt``, ``<prefix>_caption_anno_<split>`` and the
            references in COCO captions format.
        min_count: In place of that of the rules.
        max_length: Longest caption that keeps its end.
        splits: The splits to write.
        suffix: ``.json`` or ``.npz``, of the encoded captions.
        max_bad_fraction: A greater part of dropped items stops the run.

    Returns:
        What was read, dropped and written.

    Raises:
        UserError: A split is missing, too much is bad, or a file cannot be written.
    """
    if max_length < 1:
        raise UserError(f"the longest caption cannot have {max_length} words; give 1 or more")
    out = Path(out)
    summary = Summary(problems=list(problems))
    kept = _usable(items, summary)
    _check_bad_fraction(len(kept), summary.problems, max_bad_fraction)
    _check_splits(kept, splits)
    counted = [words for i in kept if i.split in rules.counted for words in i.sentences]
    if not counted:
        raise UserError(
            f"words are counted in the split{'s' if len(rules.counted) > 1 else ''} "
            f"{', '.join(rules.counted)}, of which no caption was found"
        )
    words = build_vocabulary(counted, rules.min_count if min_count is None else min_count)
    summary.words, summary.seen_words = len(words), len({w for s in counted for w in s})
    known = set(words)
    _write(out / "vocabulary.txt", words, summary)
    for split in splits:
        chosen = [item for item in kept if item.split == split]
        _count(chosen, split, known, max_length + 1, summary)
        captions = [
            (item.item_id, item.sentences[:1] if split in rules.single else item.sentences)
            for item in chosen
        ]
        stem = out / f"{rules.prefix}_caption_anno_{split}"
        file = stem.with_suffix(suffix)
        written = write_encoded_captions(file, captions, words, max_length + 1, id_key=rules.id_key)
        if written < len(captions):
            summary.warnings.append(
                f"{len(captions) - written} items of {split} have no caption of known words"
            )
        summary.files.append(str(file))
        _warn_of_others(stem, suffix, summary)
        references = out / rules.references.format(split=split)
        if split == "train":
            references = out / "captions_train.json"
        _write_references(references, chosen)
        summary.files.append(str(references))
    return summary


def _usable(items: Sequence[Captioned], summary: Summary) -> list[Captioned]:
    kept = []
    for item in items:
        if item.split not in SPLITS:
            reason = f"its split '{item.split}' is none of {', '.join(SPLITS)}"
            summary.problems.append(Problem(f"id {item.item_id}", reason, item.item_id))
        elif not item.sentences:
            summary.problems.append(Problem(f"id {item.item_id}", "has no caption", item.item_id))
        else:
            kept.append(item)
    return kept


def _check_bad_fraction(kept: int, problems: list[Problem], most: float) -> None:
    lost = sum(bool(problem.record) for problem in problems)
    if lost > most * (kept + lost):
        listed = "".join(f"\n  {problem}" for problem in problems[:_LISTED])
        raise UserError(
            f"{lost} of {kept + lost} items are unusable, more than {most:g}; nothing was "
            f"written:{listed}"
        )


def _check_splits(items: list[Captioned], splits: Sequence[str]) -> None:
    found = Counter(item.split for item in items)
    for split in splits:
        if split not in found:
            known = ", ".join(f"{name} ({count})" for name, count in found.items()) or "none"
            raise UserError(
                f"there is no usable item of the split '{split}'; found: {known}; give the file "
                "that holds it, or name the wanted ones with --splits"
            )


def _count(
    items: list[Captioned], split: str, known: set[str], length: int, summary: Summary
) -> None:
    sentences = [words for item in items for words in item.sentences]
    total = sum(len(words) for words in sentences)
    unknown = sum(word not in known for words in sentences for word in words)
    summary.items[split], summary.sentences[split] = len(items), len(sentences)
    summary.unknown[split] = unknown / max(1, total)
    summary.clipped[split] = sum(len(words) >= length for words in sentences)


def _write(path: Path, words: list[str], summary: Summary) -> None:
    write_vocabulary(path, words)
    summary.files.append(str(path))


def _warn_of_others(stem: Path, suffix: str, summary: Summary) -> None:
    """Configs name the .pkl, and the first of .pkl, .json, .npz that exists is read."""
    order = [".pkl", ".json", ".npz"]
    for other in order[: order.index(suffix)]:
        if stem.with_suffix(other).exists():
            summary.warnings.append(
                f"{stem.name}{other} lies in the same folder and is read in place of the new "
                f"{stem.name}{suffix}; remove it"
            )


def _write_references(path: Path, items: list[Captioned]) -> None:
    """References in COCO captions format, which evaluation and CaptionDataset read."""
    images = [
        {"id": _number(item.item_id), "file_name": item.file_name, "split": item.split}
        for item in items
    ]
    pairs = [(item.item_id, text) for item in items for text in item.texts]
    annotations = [
        {"id": k, "image_id": _number(item_id), "caption": text}
        for k, (item_id, text) in enumerate(pairs)
    ]
    with atomic_write(path, "w") as file:
        json.dump({"images": images, "annotations": annotations}, file)


def _number(item_id: str) -> int | str:
    return int(item_id) if item_id.isascii() and item_id.isdecimal() else item_id
