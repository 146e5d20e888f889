"""References and document frequencies for CIDEr-D rewards, from encoded captions."""

import os
from dataclasses import dataclass

from xmodaler.datasets.annotations import read_encoded_captions
from xmodaler.functional import read_lines
from xmodaler.scorer.cider_files import count_documents, write_frequencies, write_references
from xmodaler.utils.errors import UserError


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


def references_of(
    path: str | os.PathLike[str], image_ids: list[str] | None = None
) -> tuple[dict[str, list[list[int]]], int]:
    """Target ids of every caption up to and with the end, by picture.

    Args:
        path: Encoded captions, such as ``mscoco_caption_anno_train.json``.
        image_ids: The wanted pictures; None takes all.

    Returns:
        The references, and the number of records that were left out.

    Raises:
        UserError: The file is unreadable, has no usable record, or lacks a wanted picture.
    """
    records = read_encoded_captions(path)
    wanted = None if image_ids is None else set(image_ids)
    references: dict[str, list[list[int]]] = {}
    dropped = 0
    for record in records:
        item_id = str(record.get("image_id", record.get("video_id", "")))
        targets = record.get("target_ids")
        if targets is None or not len(targets) or (wanted is not None and item_id not in wanted):
            dropped += 1
            continue
        # One record a caption is another way to keep the same captions.
        captions = references.setdefault(item_id, [])
        captions.extend([int(word) for word in row if word >= 0] for row in targets)
    if not references:
        raise UserError(f"'{path}' has no record with 'target_ids' to count words of")
    lacking = [name for name in image_ids or () if name not in references]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(image_ids)} wanted pictures have no captions in '{path}', "
            f"{lacking[0]} first"
        )
    return references, dropped


def write_cider_files(
    annotations: str | os.PathLike[str],
    gts: str | os.PathLike[str],
    frequencies: str | os.PathLike[str],
    id_file: str | os.PathLike[str] = "",
) -> CacheSummary:
    """Write the two files that rewards are computed from.

    Args:
        annotations: Encoded captions of the training split.
        gts: The references to write, JSON.
        frequencies: The document frequencies to write, JSON.
        id_file: A text file with one picture id a line; '' takes all pictures.

    Returns:
        What was read and written.

    Raises:
        UserError: A file is unreadable, or cannot be written.
    """
    for path in (gts, frequencies):
        if not os.fspath(path).endswith(".json"):
            raise UserError(f"'{path}' must end with .json")
    wanted = [line for line in read_lines(id_file) if line] if id_file else None
    references, dropped = references_of(annotations, wanted)
    table, log_images = count_documents(references)
    write_references(gts, references)
    write_frequencies(frequencies, table, log_images)
    captions = [words for found in references.values() for words in found]
    clipped = sum(not words or words[-1] != 0 for words in captions)
    return CacheSummary(len(references), len(captions), clipped, dropped, len(table))
