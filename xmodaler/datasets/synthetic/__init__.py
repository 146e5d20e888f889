"""``shapes``: a generated data set of coloured shapes, written as real data sets are."""

from .captions import oracle_caption, sample_captions
from .sampling import sample_scene
from .scene import Ground, Scene, Shape
from .understanding import add_understanding
from .writer import is_made_with, make_shapes
from .x2vlm import add_x2vlm

__all__ = [
    "Ground",
    "Scene",
    "Shape",
    "add_understanding",
    "add_x2vlm",
    "is_made_with",
    "make_shapes",
    "oracle_caption",
    "sample_captions",
    "sample_scene",
]
