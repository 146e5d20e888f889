"""Scenes as pictures: textured ground, anti-aliased shapes with a slight shade, sensor noise."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from xmodaler.datasets.synthetic.concepts import COLOURS, GROUND_COLOURS, RING_HOLE
from xmodaler.datasets.synthetic.scene import Ground, Scene, Shape

SUPERSAMPLING = 4
NOISE = 4.0  # standard deviation of the sensor noise, in grey levels
CONTRAST = 34.0  # how far a pattern's second colour is from its first


def render(scene: Scene, side: int, rng: np.random.Generator) -> np.ndarray:
    """Paints a scene.

    Args:
        scene: What to paint.
        side: Height and width in pixels.
        rng: Source of colour jitter, pattern phase, shading and noise.

    Returns:
        Picture `(side, side, 3)` uint8.
    """
    return add_noise(paint(scene, side, Paint(scene, rng)), rng)


class Paint:
    """The random part of a picture that stays the same over the frames of a video."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.colours = [
            np.array(COLOURS[shape.colour]) + rng.normal(0.0, 9.0, 3) for shape in scene.shapes
        ]
        self.shades = rng.uniform(-0.12, 0.12, (len(scene.shapes), 2))
        self.ground = np.array(GROUND_COLOURS[scene.ground.colour]) + _ground_jitter(rng)
        self.ground_phase = rng.uniform(0.0, 1.0, 3)
        self.speckles = rng.random((24, 24))


def _ground_jitter(rng: np.random.Generator) -> np.ndarray:
    """Much of brightness and little of hue, so that grey and white are never seen as a colour."""
    draws = rng.normal(0.0, 6.0, 3)
    brightness = draws.mean() * math.sqrt(3)  # deviates by 6.0, as each draw does
    return brightness + 0.2 * (draws - draws.mean())


def paint(scene: Scene, side: int, look: Paint) -> np.ndarray:
    """Paints a scene without noise: `(side, side, 3)` float64 in 0..255."""
    canvas = _paint_ground(scene.ground, side, look)
    for shape, colour, shade in zip(scene.shapes, look.colours, look.shades, strict=True):
        _paint_shape(canvas, shape, colour, shade)
    return canvas


def add_noise(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds sensor noise and rounds to uint8."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(canvas + NOISE * noise + 0.5, 0, 255).astype(np.uint8)


def encode_png(picture: np.ndarray) -> bytes:
    """PNG bytes of a uint8 picture, the same for the same picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _paint_ground(ground: Ground, side: int, look: Paint) -> np.ndarray:
    amount = _pattern(ground.pattern, side, look)
    brighter = sum(look.ground) < 3 * 128
    return look.ground + (CONTRAST if brighter else -CONTRAST) * amount[:, :, None]


def _pattern(pattern: str, side: int, look: Paint) -> np.ndarray:
    """How much of the second colour is where: `(side, side)` in 0..1."""
    if pattern == "plain":
        return np.zeros((side, side))
    phase_x, phase_y, turn = look.ground_phase
    grid = (np.arange(side) + 0.5) / side
    x, y = grid[None, :], grid[:, None]
    if pattern == "speckled":
        cells = (grid * len(look.speckles)).astype(int)
        return (look.speckles[cells[:, None], cells[None, :]] < 0.3).astype(float)
    softness = side / 16  # edges about one pixel wide
    if pattern == "striped":
        along = x if turn < 0.5 else y
        wave = np.sin(2 * math.pi * (along * 7 + phase_x)) + np.zeros((side, side))
    elif pattern == "checkered":
        wave = np.sin(2 * math.pi * (x * 4 + phase_x)) * np.sin(2 * math.pi * (y * 4 + phase_y))
    else:
        wave = (
            np.cos(2 * math.pi * (x * 8 + phase_x)) + np.cos(2 * math.pi * (y * 8 + phase_y)) - 0.7
        )
    return np.clip(0.5 + wave * softness / 2, 0.0, 1.0)


def _paint_shape(canvas: np.ndarray, shape: Shape, colour: np.ndarray, shade: np.ndarray) -> None:
    if shape.radius == 0:
        return
    side = len(canvas)
    reach = shape.radius * side + 1
    left, top = (max(0, math.floor(centre * side - reach)) for centre in (shape.x, shape.y))
    right, bottom = (min(side, math.ceil(centre * side + reach)) for centre in (shape.x, shape.y))
    if right <= left or bottom <= top:
        return
    cover = _coverage(shape, side, (left, top, right, bottom))[:, :, None]
    x = (np.arange(left, right) + 0.5) / side - shape.x
    y = (np.arange(top, bottom) + 0.5) / side - shape.y
    light = 1 + (shade[0] * x[None, :] + shade[1] * y[:, None]) / shape.radius
    patch = canvas[top:bottom, left:right]
    patch += cover * (colour * light[:, :, None] - patch)


def _coverage(shape: Shape, side: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """Fraction of each pixel of a window that the shape covers, by supersampling."""
    left, top, right, bottom = window
    scale = side * SUPERSAMPLING
    mask = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    corner = np.array([left, top]) * SUPERSAMPLING + 0.5
    outline = shape.outline()
    draw.polygon((outline * scale - corner).ravel().tolist(), fill=255)
    if shape.kind == "ring":
        centre = np.array([shape.x, shape.y])
        hole = centre + (outline - centre) * RING_HOLE
        draw.polygon((hole * scale - corner).ravel().tolist(), fill=0)
    return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float64) / 255
