"""Descriptions of the parts of a picture, as X²-VLM learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xmodaler.datasets.synthetic.chance import RandomChooser
from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.plans import Mention, Plan, salient_groups
from xmodaler.datasets.synthetic.questions import DIRECTIONS
from xmodaler.datasets.synthetic.referring import look_words, sample_references
from xmodaler.datasets.synthetic.scene import Scene

REFERENCES = 2  # expressions of a shape


def region_record(scene: Scene, side: int, chooser: RandomChooser) -> dict[str, Any]:
    """Boxes in pixels with what they hold: shapes, groups of shapes, and pairs in a relation.

    Args:
        scene: The scene.
        side: Of the picture in pixels.
        chooser: Chooses the wordings.

    Returns:
        ``elems``, a list of ``{bb: [x, y, w, h], caption, attributes}``.
    """
    elements: list[dict[str, Any]] = []
    for index, shape in enumerate(scene.shapes):
        box = union_box(scene, (index,), side)
        look = look_words((None, shape.colour, shape.kind))
        elements.append({"bb": box, "caption": look, "attributes": [shape.size]})
        said = [
            reference.words(chooser)
            for reference in sample_references(scene, index, REFERENCES, chooser)
        ]
        if said:
            elements.append({"bb": box, "caption": said})
    groups = salient_groups(scene)
    for members in groups:
        if len(members) > 1:
            words = ENGLISH.noun_phrase(_mention(scene, members), chooser)
            elements.append({"bb": union_box(scene, members, side), "caption": words})
    if len(groups) == 2:
        for relation in DIRECTIONS:
            if scene.holds_between(relation, *groups):
                mentions = tuple(_mention(scene, members) for members in groups)
                words = ENGLISH.sentence(Plan(mentions, relation), chooser)
                everything = [index for members in groups for index in members]
                elements.append({"bb": union_box(scene, everything, side), "caption": words})
    return {"elems": elements}


def union_box(scene: Scene, members: Sequence[int], side: int) -> list[float]:
    """The box around shapes, ``[x, y, width, height]`` in pixels."""
    boxes = [scene.shapes[index].box(side) for index in members]
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    return [left, top, round(right - left, 2), round(bottom - top, 2)]


def _mention(scene: Scene, members: tuple[int, ...]) -> Mention:
    size, colour, kind = scene.shapes[members[0]].look
    return Mention(members, kind, colour, size)
