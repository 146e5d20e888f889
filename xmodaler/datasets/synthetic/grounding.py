"""Crowded pictures and the expressions that single a shape out, in the files of RefCOCO.

``refs.json`` and ``instances.json`` hold what the released ``refs(unc).p`` and ``instances.json``
do. ``testA`` asks for big shapes and ``testB`` for small ones, as RefCOCO does for people and for
other things.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.concepts import KINDS
from xmodaler.datasets.synthetic.files import write_json
from xmodaler.datasets.synthetic.referring import sample_references
from xmodaler.datasets.synthetic.regions import region_record
from xmodaler.datasets.synthetic.render import encode_png, render
from xmodaler.datasets.synthetic.sampling import sample_crowd

FIRST_CROWD = {"train": 1_700_000, "val": 2_700_000, "test": 3_700_000}
SENTENCES = 2  # of a shape
_PARTS = "parts"


def write_crowds(out: Path, count: int, seed: int, split: str, side: int) -> list[dict[str, Any]]:
    """Write the crowded pictures of a split and keep what is said of them for all splits.

    Args:
        out: Folder of grounding.
        count: Pictures.
        seed, split: Of the data set.
        side: Of the pictures in pixels.

    Returns:
        A line of pre-training for each picture: ``image`` and ``elems``.
    """
    (out / "images").mkdir(exist_ok=True)
    images, annotations, refs, lines = [], [], [], []
    for index in range(count):
        scene = sample_crowd(seed, split, index)
        image_id = FIRST_CROWD[split] + index
        name = f"{image_id}.png"
        rng = generator(seed, split, image_id, "picture")
        (out / "images" / name).write_bytes(encode_png(render(scene, side, rng)))
        images.append({"id": image_id, "file_name": name, "height": side, "width": side})
        chooser = RandomChooser(generator(seed, split, index, "crowd_references"))
        for number, shape in enumerate(scene.shapes):
            annotation = {
                "id": image_id * 10 + number,
                "image_id": image_id,
                "category_id": 1 + KINDS.index(shape.kind),
                "bbox": list(shape.box(side)),
                "area": shape.area(side),
                "iscrowd": 0,
            }
            annotations.append(annotation)
            said = [r.words(chooser) for r in sample_references(scene, number, SENTENCES, chooser)]
            if said:
                part = split if split != "test" else f"test{'A' if shape.size == 'big' else 'B'}"
                refs.append(_ref(annotation, name, said, part))
        picture = f"x2vlm/grounding/images/{name}"
        lines.append({"image": picture, **region_record(scene, side, chooser)})
    write_json(out / f"{_PARTS}_{split}.json", [images, annotations, refs])
    return lines


def write_grounding(out: Path, side: int) -> None:
    """Write the lists of the splits, and the files of boxes and expressions of all of them."""
    images, annotations, refs = [], [], []
    for split in FIRST_CROWD:
        path = out / f"{_PARTS}_{split}.json"
        parts = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        images += parts[0]
        annotations += parts[1]
        refs += parts[2]
        records = [
            {
                "image": f"x2vlm/grounding/images/{ref['file_name']}",
                "text": sentence["raw"],
                "ref_id": ref["ref_id"],
            }
            for ref in parts[2]
            for sentence in ref["sentences"]
        ]
        write_json(out / f"{split}.json", records)
    categories = [{"id": k, "name": kind} for k, kind in enumerate(KINDS, start=1)]
    info = {"description": f"shapes, {side} pixels"}
    write_json(out / "refs.json", refs)
    write_json(
        out / "instances.json",
        {"info": info, "images": images, "annotations": annotations, "categories": categories},
    )


def _ref(annotation: dict[str, Any], name: str, said: list[str], split: str) -> dict[str, Any]:
    """All that RefCOCO's ``refs`` say of one object."""
    ids = [annotation["id"] * 10 + number for number in range(len(said))]
    return {
        "ref_id": annotation["id"],
        "ann_id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "file_name": name,
        "split": split,
        "sent_ids": ids,
        "sentences": [
            {"sent_id": sent_id, "raw": text, "sent": text, "tokens": text.split()}
            for sent_id, text in zip(ids, said, strict=True)
        ],
    }
