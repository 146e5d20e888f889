"""What models of understanding learn from and are asked, beside the pictures of a data set."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xmodaler.datasets.synthetic.chance import generator
from xmodaler.datasets.synthetic.choices import write_vcr
from xmodaler.datasets.synthetic.concepts import SPLITS
from xmodaler.datasets.synthetic.features import region_features
from xmodaler.datasets.synthetic.files import write_json, write_npz, write_text
from xmodaler.datasets.synthetic.render import encode_png, render
from xmodaler.datasets.synthetic.scene import Scene
from xmodaler.datasets.synthetic.twins import Twin, sample_family
from xmodaler.datasets.synthetic.vqa import write_answers, write_vqa
from xmodaler.datasets.synthetic.wordpieces import word_pieces
from xmodaler.utils.errors import UserError

UNDERSTANDING = "understanding"
FIRST_TWIN = 900_000  # added to the ids of pictures
PAIRS = 2  # captions of a picture to pre-train on
POOL = 250  # pictures to search in; scoring every caption with every one of them takes seconds
_RETRIEVAL_SPLITS = {"train": "train", "val": "val_set0", "test": "test_set0"}
_PAIR_FILES = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}


@dataclass(frozen=True)
class Split:
    """The pictures of one split as they were written."""

    name: str
    image_ids: list[int]
    scenes: list[Scene]
    captions: list[list[str]]


def add_understanding(folder: str | os.PathLike[str]) -> bool:
    """Write ``understanding/`` into a data set, unless it has one.

    Args:
        folder: From :func:`~xmodaler.datasets.synthetic.make_shapes`.

    Returns:
        Whether it was missing.

    Raises:
        UserError: ``folder`` is no complete data set or cannot be written.
    """
    return add_part(Path(folder), UNDERSTANDING, write_understanding, "questions and choices")


def add_part(folder: Path, part: str, write: Callable[..., None], what: str) -> bool:
    """Write a part of a data set as a whole or not at all, unless it is there.

    Args:
        folder: The data set.
        part: Name of the folder in it.
        write: Called with the data set, the folder to make, the seed and the side of pictures.
        what: What messages call the part.

    Returns:
        Whether it was missing.

    Raises:
        UserError: ``folder`` is no complete data set or cannot be written.
    """
    if (folder / part).is_dir():
        return False
    try:
        made = json.loads((folder / "shapes.json").read_text(encoding="utf-8"))
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
        try:
            write(folder, partial / part, made["seed"], made["image_size"])
            (partial / part).rename(folder / part)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"'{folder}' gets no {what} ({error}); it must be a writable data set that "
            "tools/make_shapes.py made"
        ) from error
    return True


def write_understanding(folder: Path, out: Path, seed: int, side: int) -> None:
    """Write questions, choices, searches, pairs and the vocabulary of all of them.

    Args:
        folder: A data set with its scenes, captions, pictures and features.
        out: Folder to make.
        seed: Of the data set.
        side: Side of its pictures in pixels.
    """
    for name in ("vqa", "vcr", "flickr30k", "conceptual"):
        (out / name).mkdir(parents=True)
    write_text(out / "vocab.txt", "".join(f"{piece}\n" for piece in word_pieces()))
    write_answers(out / "vqa")
    _write_picture_list(folder, out)
    for split in SPLITS:
        read = read_split(folder, split)
        write_vqa(out / "vqa", read.scenes, read.image_ids, seed, split)
        write_vcr(out / "vcr", read.scenes, read.image_ids, seed, split)
        _write_retrieval(folder, out / "flickr30k", read, seed, side)
        if split in _PAIR_FILES:
            _write_pairs(folder, out / "conceptual", read)


def read_split(folder: Path, split: str) -> Split:
    """The pictures of a split of a data set."""
    lines = (folder / f"scenes_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    annotations = json.loads((folder / f"captions_{split}.json").read_text(encoding="utf-8"))
    captions: dict[int, list[str]] = {record["image_id"]: [] for record in records}
    for annotation in annotations["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"])
    return Split(
        split, list(captions), [Scene.from_json(r) for r in records], list(captions.values())
    )


def _write_picture_list(folder: Path, out: Path) -> None:
    """Which file and split every picture has: questions name pictures by their ids."""
    pictures = [
        {**image, "split": split}
        for split in SPLITS
        for image in json.loads((folder / f"captions_{split}.json").read_text("utf-8"))["images"]
    ]
    write_json(out / "images.json", {"images": pictures})


def _write_retrieval(folder: Path, out: Path, split: Split, seed: int, side: int) -> None:
    """Training pictures with their captions, but families of twins to search in."""
    for name in ("images", "features"):
        (out / name).mkdir(exist_ok=True)
    records = []
    if split.name == "train":
        for image_id, captions in zip(split.image_ids, split.captions, strict=True):
            _link_picture(folder, out, split.name, image_id, image_id)
            records.append({"img_path": f"{image_id}.png", "sentences": captions})
    else:
        for number, (index, twin) in enumerate(pool(split, seed)):
            image_id = twin_id(split, number)
            if index is not None:
                _link_picture(folder, out, split.name, split.image_ids[index], image_id)
            else:
                _write_twin(out, twin.scene, image_id, seed, split.name, side)
            records.append({"img_path": f"{image_id}.png", "sentences": list(twin.captions)})
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    name = f"all_data_final_{_RETRIEVAL_SPLITS[split.name]}_2014.jsonline"
    write_text(out / name, lines)


def twin_id(split: Split, number: int) -> int:
    """Id of a picture of :func:`pool`."""
    return split.image_ids[0] + FIRST_TWIN + number


def pool(split: Split, seed: int) -> Iterator[tuple[int | None, Twin]]:
    """The pool of a split, with the number of the scene if it is one of the split's."""
    families = (
        sample_family(scene, seed, split.name, index) for index, scene in enumerate(split.scenes)
    )
    members = (
        (None if number else index, twin)
        for index, family in enumerate(families)
        for number, twin in enumerate(family or ())
    )
    return itertools.islice(members, min(len(split.scenes), POOL))


def _write_twin(out: Path, scene: Scene, image_id: int, seed: int, split: str, side: int) -> None:
    rng = generator(seed, split, image_id, "twin_pictures")
    (out / "images" / f"{image_id}.png").write_bytes(encode_png(render(scene, side, rng)))
    write_npz(out / "features" / f"{image_id}.npz", region_features(scene, side, rng))


def _link_picture(folder: Path, out: Path, split: str, image_id: int, name: int) -> None:
    _link(folder / "images" / split / f"{image_id}.png", out / "images" / f"{name}.png")
    _link(folder / "features" / f"{image_id}.npz", out / "features" / f"{name}.npz")


def _write_pairs(folder: Path, out: Path, split: Split) -> None:
    """One row a caption; the features of a row are named by its number, from 1."""
    features = out / ("features" if split.name == "train" else f"features_{split.name}")
    features.mkdir()
    rows = []
    for image_id, captions in zip(split.image_ids, split.captions, strict=True):
        for caption in captions[:PAIRS]:
            rows.append(f"{caption}\timages/{split.name}/{image_id}.png\n")
            _link(folder / "features" / f"{image_id}.npz", features / f"{len(rows)}.npz")
    write_text(out / _PAIR_FILES[split.name], "".join(rows))
    numbers: Sequence[str] = [f"{row}\n" for row in range(1, len(rows) + 1)]
    write_text(out / f"{split.name}_images_ids.txt", "".join(numbers))


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
