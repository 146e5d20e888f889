"""Semantic words of pictures as COS-Net takes them: what a fallible retriever might propose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.datasets.synthetic.chance import generator
from xmodaler.datasets.synthetic.concepts import SPLITS
from xmodaler.datasets.synthetic.features import ATTRIBUTES
from xmodaler.datasets.synthetic.scene import Scene
from xmodaler.utils.atomic import atomic_write

IRRELEVANT = len(ATTRIBUTES)
"""Label of a proposed word that is not in the picture; words are classes 0 to IRRELEVANT - 1."""

LEAST_WORDS = 3
_ACCEPTED = 0.5


def semantic_words(scene: Scene, rng: np.random.Generator) -> dict[str, list[int]]:
    """The words proposed for a scene, and the truth about them.

    About one true word of nine is overlooked, and about one word a picture is proposed wrongly.

    Args:
        scene: The scene; the truth is what its shapes and its ground look like.
        rng: Source of the mistakes.

    Returns:
        ``attr_pred``, proposed classes, the surest first; ``attr_labels``, the same class where it
        is true and IRRELEVANT where not; ``missing_labels``, true classes not proposed.
    """
    present = {word for shape in scene.shapes for word in shape.look}
    present |= {scene.ground.pattern, scene.ground.colour}
    truth = np.array([word in present for word in ATTRIBUTES])
    scores = np.where(truth, rng.beta(5, 2, truth.shape), rng.beta(1, 4, truth.shape))
    order = np.argsort(-scores, kind="stable")
    proposed = order[: max(LEAST_WORDS, int((scores > _ACCEPTED).sum()))]
    labels = np.where(truth[proposed], proposed, IRRELEVANT)
    missing = np.setdiff1d(np.flatnonzero(truth), proposed)
    return {
        "attr_pred": proposed.tolist(),
        "attr_labels": labels.tolist(),
        "missing_labels": missing.tolist(),
    }


def write_semantics(folder: Path, seed: int) -> None:
    """Write ``cosnet/`` beside the encoded captions, as ``MSCoCoCOSNetDataset`` reads it.

    Args:
        folder: A data set with its scenes and encoded captions.
        seed: Of the data set.
    """
    (folder / "cosnet").mkdir(exist_ok=True)
    for split in SPLITS:
        lines = (folder / f"scenes_{split}.jsonl").read_text(encoding="utf-8").splitlines()
        words = {}
        for index, line in enumerate(lines):
            record = json.loads(line)
            rng = generator(seed, split, index, "semantics")
            words[str(record["image_id"])] = semantic_words(Scene.from_json(record), rng)
        captions: list[dict[str, Any]] = json.loads(
            (folder / f"mscoco_caption_anno_{split}.json").read_text(encoding="utf-8")
        )
        records = [{**record, **words[record["image_id"]]} for record in captions]
        name = f"mscoco_caption_anno_clipfilter_fast_{split}.json"
        with atomic_write(str(folder / "cosnet" / name)) as file:
            file.write(json.dumps(records).encode("utf-8"))
