"""What a `shapes` scene can be made of: names of things, never words of a language.

Every caption, question or label of the data set is derived from these identifiers. How a language
calls them is written in that language's own table (see `language.py`), so that a new language adds
a table and no scene.
"""

from __future__ import annotations

KINDS: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "crescent",
)

# Middle of each colour's range in RGB; the renderer jitters around it.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (246, 140, 18),
    "yellow": (250, 222, 40),
    "green": (44, 160, 60),
    "blue": (36, 84, 212),
    "purple": (134, 54, 172),
    "pink": (250, 130, 186),
    "brown": (124, 72, 32),
}

SIZES: tuple[str, ...] = ("small", "big")

# Range of the outer radius, as a fraction of the picture's side.
RADII: dict[str, tuple[float, float]] = {"small": (0.106, 0.116), "big": (0.18, 0.2)}

GROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (240, 240, 238),
    "grey": (160, 162, 164),
    "black": (34, 34, 38),
    "beige": (222, 204, 164),
}

PATTERNS: tuple[str, ...] = ("plain", "striped", "dotted", "checkered", "speckled")

RING_HOLE = 0.66  # radius of a ring's hole as a fraction of its outer radius

# Labels of the pairwise relation graph: `relations[i, j]` says what object i is to object j;
# 0 means no relation.
RELATIONS: tuple[str, ...] = (
    "none",
    "left_of",
    "right_of",
    "above",
    "below",
    "near_left_of",
    "near_right_of",
    "near_above",
    "near_below",
    "inside",
    "around",
    "on_ground",
    "ground_of",
)

OPPOSITE: dict[str, str] = {
    "left_of": "right_of",
    "right_of": "left_of",
    "above": "below",
    "below": "above",
    "next_to": "next_to",
    "inside": "around",
    "around": "inside",
}

SPLITS: tuple[str, ...] = ("train", "val", "test")

MOTIONS: tuple[str, ...] = (
    "still",
    "move_left",
    "move_right",
    "move_up",
    "move_down",
    "grow",
    "shrink",
    "blink",
)
