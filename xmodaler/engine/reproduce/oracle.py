"""What the grammar of the generated data scores when it describes the truth."""

import functools
import json
import os
from pathlib import Path

from xmodaler.datasets.annotations import read_captions
from xmodaler.evaluation.caption_metrics import score
from xmodaler.utils.errors import UserError

__all__ = ["oracle_scores"]


@functools.lru_cache
def oracle_scores(annfile: str | os.PathLike[str]) -> dict[str, float]:
    """Scores of the sentence that the grammar writes from each true scene.

    Args:
        annfile: References of generated pictures or videos, such as ``captions_test.json``; the
            scenes lie beside them.

    Raises:
        UserError: There are no scenes beside the references.
    """
    path = Path(annfile)
    scenes = path.with_name(path.name.replace("captions", "scenes")).with_suffix(".jsonl")
    if scenes == path or not scenes.is_file():
        raise UserError(
            f"'{path}' has no scenes beside it, so no oracle can describe them; it must be a "
            "captions file that tools/make_shapes.py wrote"
        )
    images, _ = read_captions(str(path))
    lines = scenes.read_text(encoding="utf-8").splitlines()
    oracle = {str(scene["image_id"]): scene["oracle"] for scene in map(json.loads, lines)}
    return score({image.image_id: image.captions for image in images}, oracle)[0]
