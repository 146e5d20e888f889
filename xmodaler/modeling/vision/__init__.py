"""Vision towers: from normalised pixels to a sequence of tokens, the class token in front."""

from .beit import BeitTower
from .clip_vit import ClipVitTower
from .swin import SwinTower
from .tower import RegionTokens, VisionTower
from .vit import TimmTower

__all__ = [
    "BeitTower",
    "ClipVitTower",
    "RegionTokens",
    "SwinTower",
    "TimmTower",
    "VisionTower",
]
