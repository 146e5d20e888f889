"""References and document frequencies for CIDEr-D rewards, from encoded or written captions."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmodaler.datasets.annotations import read_captions, read_encoded_captions
from xmodaler.datasets.captions import encode_caption, sentences_to_ids
from xmodaler.datasets.vocabulary import read_word_ids
from xmodaler.functional import read_lines
from xmodaler.scorer.bert_tokenized_scorer import END_WORD, words_of
from xmodaler.scorer.cider_files import count_documents, write_frequencies, write_references
from xmodaler.utils.errors import UserError

if TYPE_CHECKING:
    from xmodaler.tokenization import BertTokenizer


@dataclass(frozen=True)
class CacheSummary:
    """What was read and written.

    Attributes:
        images: Pictures with references.
        captions: Their captions.
        clipped: Those without an end, which the arrays were too short for.
        dropped: Records of the file that were unusable or not among the wanted ids.
        ngrams: Different n-grams of one to four words.
    """

    images: int
    captions: int
    clipped: int
    dropped: int
    ngrams: int

    def __str__(self) -> str:
        return (
            f"{self.captions} captions ({self.clipped} without end) of {self.images} pictures, "
            f"{self.dropped} records dropped, {self.ngrams} n-grams"
        )


@dataclass(frozen=True)
class Written:
    """How captions that people wrote become references.

    Attributes:
        vocabulary: The words of the model, one a line; or
        tokenizer: The tokenizer of a model of word pieces, as MODEL.PRETRAINING.MODEL_NAME names
            it. References are then words, as BertTokenizedScorer wants them.
        split: Keep the pictures of this split; '' keeps all.
        max_length: Words, or word pieces, of the longest caption that keeps its end.
    """

    vocabulary: str | os.PathLike[str] = ""
    tokenizer: str | os.PathLike[str] = ""
    split: str = ""
    max_length: int = 20

    def __post_init__(self) -> None:
        if self.vocabulary and self.tokenizer:
            raise UserError("references are words of a vocabulary or of a tokenizer; give one")
        if self.split and not (self.vocabulary or self.tokenizer):
            raise UserError(
                f"encoded captions name no splits, so '{self.split}' cannot be chosen; give "
                "written captions and their vocabulary"
            )


def references_of(
    path: str | os.PathLike[str],
    image_ids: list[str] | None = None,
    written: Written = Written(),
) -> tuple[dict[str, list[Any]], int]:
    """Targets of every caption up to and with the end, by picture.

    Args:
        path: Encoded captions, such as ``mscoco_caption_anno_train.json``; or, with a vocabulary
            or tokenizer in ``written``, COCO captions JSON or JSON lines.
        image_ids: The wanted pictures; None takes all.
        written: How captions that people wrote are encoded.

    Returns:
        The references, and the number of records that were left out.

    Raises:
        UserError: The file is unreadable, has no usable record, or lacks a wanted picture.
    """
    if written.vocabulary or written.tokenizer:
        records = _encode(path, written)
    else:
        records = map(_targets, read_encoded_captions(path))
    wanted = None if image_ids is None else set(image_ids)
    references: dict[str, list[Any]] = {}
    dropped = 0
    for item_id, captions in records:
        if not captions or (wanted is not None and item_id not in wanted):
            dropped += 1
            continue
        # One record a caption is another way to keep the same captions.
        references.setdefault(item_id, []).extend(captions)
    if not references:
        raise UserError(f"'{path}' has no record with 'target_ids' to count words of")
    lacking = [name for name in image_ids or () if name not in references]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(image_ids)} wanted pictures have no captions in '{path}', "
            f"{lacking[0]} first"
        )
    return references, dropped


def _targets(record: dict[str, Any]) -> tuple[str, list[list[int]]]:
    item_id = str(record.get("image_id", record.get("video_id", "")))
    rows = record.get("target_ids")
    rows = () if rows is None else rows
    return item_id, [[int(word) for word in row if word >= 0] for row in rows]


def _encode(path: str | os.PathLike[str], written: Written) -> Iterator[tuple[str, list[Any]]]:
    """Picture and references of every record of written captions; no references of bad ones."""
    images, problems = read_captions(path, written.split)
    yield from ((problem.where, []) for problem in problems if problem.record)
    if written.tokenizer:
        from xmodaler.tokenization import BertTokenizer

        tokenizer = BertTokenizer.from_pretrained(written.tokenizer)
        for image in images:
            yield image.image_id, [_words(text, tokenizer, written) for text in image.captions]
        return
    word_ids, length = read_word_ids(written.vocabulary), written.max_length + 1
    for image in images:
        sentences = sentences_to_ids(image.captions, word_ids)
        targets = (encode_caption(ids, length)[1] for ids in sentences)
        yield image.image_id, [row[row >= 0].tolist() for row in targets]


def _words(text: str, tokenizer: "BertTokenizer", written: Written) -> list[str]:
    """The words of a caption as a model of word pieces can write them."""
    ids = tokenizer.encode(text.rstrip().removesuffix(END_WORD))
    words = words_of(tokenizer, ids[: written.max_length])
    return words if len(ids) > written.max_length else [*words, END_WORD]


def write_cider_files(
    annotations: str | os.PathLike[str],
    gts: str | os.PathLike[str],
    frequencies: str | os.PathLike[str],
    id_file: str | os.PathLike[str] = "",
    written: Written = Written(),
) -> CacheSummary:
    """Write the two files that rewards are computed from.

    Args:
        annotations: Captions of the training split, encoded ones or those that people wrote.
        gts: The references to write, JSON.
        frequencies: The document frequencies to write, JSON.
        id_file: A text file with one picture id a line; '' takes all pictures.
        written: How captions that people wrote are encoded.

    Returns:
        What was read and written.

    Raises:
        UserError: A file is unreadable, or cannot be written.
    """
    for path in (gts, frequencies):
        if not os.fspath(path).endswith(".json"):
            raise UserError(f"'{path}' must end with .json")
    wanted = [line for line in read_lines(id_file) if line] if id_file else None
    references, dropped = references_of(annotations, wanted, written)
    table, log_images = count_documents(references)
    write_references(gts, references)
    write_frequencies(frequencies, table, log_images)
    captions = [words for found in references.values() for words in found]
    clipped = sum(not words or words[-1] not in (0, END_WORD) for words in captions)
    return CacheSummary(len(references), len(captions), clipped, dropped, len(table))
