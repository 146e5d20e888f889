"""Boxes drawn on pictures, and pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FOUND", "RIGHT", "draw_boxes", "side_by_side"]

FOUND = (230, 57, 70)
"""Colour of what a model found."""
RIGHT = (42, 157, 74)
"""Colour of what people drew."""
GAP = 8


def draw_boxes(
    picture: Image.Image,
    boxes: Sequence[Sequence[float]],
    colour: tuple[int, int, int] = FOUND,
    label: str = "",
) -> Image.Image:
    """A copy of a picture with boxes.

    Args:
        picture: RGB.
        boxes: Each x, y, width, height in pixels.
        colour: Of the lines.
        label: Written above the first box; '' for nothing.
    """
    from PIL import ImageDraw, ImageFont

    drawn = picture.convert("RGB")
    drawn = drawn.copy() if drawn is picture else drawn
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(picture.size) / 200))
    for x, y, wide, high in boxes:
        left, top = max(0.0, x), max(0.0, y)
        right = max(left, min(picture.width - 1.0, x + wide))
        bottom = max(top, min(picture.height - 1.0, y + high))
        pen.rectangle((left, top, right, bottom), outline=colour, width=width)
    if label and boxes:
        font = ImageFont.load_default(max(10.0, max(picture.size) / 28))
        x, y = max(0.0, boxes[0][0]), max(0.0, boxes[0][1])
        left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
        y = y - bottom - 2 * width if y > bottom + 2 * width else y
        pen.rectangle((x, y, x + right + 2 * width, y + bottom + width), fill=colour)
        pen.text((x + width, y), label, fill="white", font=font)
    return drawn


def side_by_side(first: Image.Image, second: Image.Image, gap: int = GAP) -> Image.Image:
    """Two pictures of one height, with a gap of so many pixels between them."""
    from PIL import Image

    height = max(first.height, second.height)
    parts = [
        part.resize((max(1, round(part.width * height / part.height)), height))
        for part in (first, second)
    ]
    whole = Image.new("RGB", (sum(part.width for part in parts) + gap, height), "white")
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (parts[0].width + gap, 0))
    return whole
