"""Which images the captions of several systems are scored on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodaler.evaluation.caption_inputs import CaptionSets, read_caption_sets
from xmodaler.evaluation.caption_metrics import checked_ids
from xmodaler.evaluation.result_files import canonical_id
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = [
    "IMAGES",
    "images_to_score",
    "input_notes",
    "name_systems",
    "picture_paths",
    "read_system",
]

#: Those that have captions; those that all systems have captions for; all that have references.
IMAGES = ("captioned", "common", "all")


def name_systems(paths: Sequence[str], names: Sequence[str] = ()) -> dict[str, str]:
    """Names for files of captions: as given, else the shortest end of each path that is its own.

    Raises:
        UserError: There are more or fewer names than files, or one comes twice.
    """
    if not names:
        parts = [Path(path).with_suffix("").parts for path in paths]
        names = [_shortest_own_end(own, parts) for own in parts]
    if len(names) != len(paths):
        raise UserError(f"there are {len(names)} names for {len(paths)} files of captions")
    if len(set(names)) < len(names):
        raise UserError(f"systems need names of their own, but they are {', '.join(names)}")
    return dict(zip(names, paths, strict=True))


def _shortest_own_end(own: tuple[str, ...], parts: Sequence[tuple[str, ...]]) -> str:
    for size in range(1, len(own) + 1):
        if sum(other[-size:] == own[-size:] for other in parts) == 1:
            return "/".join(own[-size:])
    return "/".join(own)


def read_system(source: Any, name: str, truth: CaptionSets) -> CaptionSets:
    """The captions of a system under the ids of the references.

    Args:
        source: See :func:`xmodaler.evaluation.caption_inputs.read_caption_sets`.
        name: Of the system.
        truth: The references.

    Raises:
        UserError: There are none, an image has several records, or it has no reference.
    """
    sets = read_caption_sets(source, name)
    if not sets.captions:
        raise UserError(f"{sets.source} holds no captions to score")
    if sets.repeated:
        raise UserError(
            f"{sets.source}: image {sets.repeated[0]} has more than one record; give several "
            "captions of an image as one list, {id: [captions]}"
        )
    # Captions may carry file names where the references carry both names and ids.
    ids = {
        key: key if key in truth.captions else truth.names.get(key, key) for key in sets.captions
    }
    if len(set(ids.values())) < len(ids):
        raise UserError(f"{sets.source} names an image both by its id and by its file name")
    sets.captions = {ids[key]: own for key, own in sets.captions.items()}
    for key, own in sets.captions.items():
        if not own:
            raise UserError(f"{sets.source}: image {key} has an empty list of captions")
    unknown = [key for key in sets.captions if not truth.captions.get(key)]
    if unknown:
        raise UserError(
            f"{len(unknown)} of the {len(sets.captions)} images of {sets.source} have no "
            f"reference caption in {truth.source}, the first of them {unknown[0]}"
        )
    return sets


def images_to_score(
    truth: CaptionSets, given: Mapping[str, CaptionSets], images: str, notes: list[str]
) -> list[str]:
    """Ids to score, in the order of the references.

    Args:
        truth: The references.
        given: The captions of each system.
        images: One of :data:`IMAGES`.
        notes: Gets a sentence when images are left out.

    Raises:
        UserError: The images of the systems do not fit together.
    """
    first, *others = given.values()
    for sets in others if images == "captioned" else ():
        for one, two in ((first, sets), (sets, first)):
            missing = [key for key in one.captions if key not in two.captions]
            if missing:
                raise UserError(
                    f"{two.source} lacks {len(missing)} of the images of {one.source}, the first "
                    f"of them {missing[0]}; systems are compared on the same images, or on "
                    "those that all have (images='common', --images common)"
                )
    kept = {
        key: truth.captions[key]
        for key in truth.captions
        if all(key in sets.captions for sets in given.values())
    }
    missing = [key for key in truth.captions if key not in kept]
    if missing and images == "all":
        sets = next(s for s in given.values() if missing[0] not in s.captions)
        raise UserError(
            f"{len(missing)} of the {len(truth.captions)} images of {truth.source} have no "
            f"caption, the first of them {missing[0]} in {sets.source}"
        )
    if not kept:
        raise UserError("there is no image that every system has a caption for")
    if missing:
        notes.append(
            f"{len(kept)} of the {len(truth.captions)} images of {truth.source} are scored; the "
            "others have no caption."
        )
    return checked_ids(kept, {key: first.captions[key][0] for key in kept})


def picture_paths(pictures: Any, truth: CaptionSets, ids: Sequence[str]) -> list[str]:
    """The picture files of images.

    Args:
        pictures: A mapping from id to file, or the folder of the files that the references name.
        truth: The references.
        ids: Of the images.

    Raises:
        UserError: A picture is not known.
    """
    if isinstance(pictures, Mapping):
        known = {canonical_id(key): os.fspath(path) for key, path in pictures.items()}
    else:
        folder = expand_path(os.fspath(pictures))
        known = {key: os.path.join(folder, name) for name, key in truth.names.items()}
    missing = next((key for key in ids if key not in known), None)
    if missing is not None:
        raise UserError(
            f"no picture of image {missing} is known: {truth.source} must give its 'file_name' "
            "(COCO captions JSON), or name pictures by {id: file}"
        )
    return [known[key] for key in ids]


def input_notes(truth: CaptionSets, given: Mapping[str, CaptionSets]) -> list[str]:
    """Sentences on captions that are empty or several."""
    notes = []
    for sets in (truth, *given.values()):
        empty = sets.empty()
        if empty:
            count = f"{len(empty)} captions" if len(empty) > 1 else "1 caption"
            verb = "are" if len(empty) > 1 else "is"
            notes.append(f"{count} of {sets.source} {verb} empty: image {_some(empty)}.")
    for name, sets in given.items():
        most = max(len(own) for own in sets.captions.values())
        if most > 1:
            notes.append(
                f"{name} has up to {most} captions of an image: the first is scored, all count "
                "for diversity and lengths."
            )
    return notes


def _some(keys: Sequence[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", .." if len(keys) > most else "")
