"""The Swin tower."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .tower import VisionTower, import_timm


class SwinTower(VisionTower):
    """Swin Transformer (Liu et al. 2021), whose tokens are the cells of the last stage.

    Token 0 is the mean of the cells. Windows that are larger than a stage's map shrink to it and
    are not shifted.

    Args:
        image_size: Side of the pictures.
        patch_size: Side of the first patches; every later stage halves the map.
        embed_dim: Width of the first stage; every later stage doubles it.
        depths: Blocks of every stage.
        heads: Heads of every stage.
        window: Side of the attention windows, in cells.
        mlp_ratio: Width of the inner layers as a multiple.
        drop_path: Greatest rate of stochastic depth.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 4,
        embed_dim: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (4, 8, 16, 32),
        window: int = 7,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
    ) -> None:
        doublings = 2 ** (len(depths) - 1)
        super().__init__(
            image_size=image_size, stride=patch_size * doublings, width=embed_dim * doublings
        )
        import_timm(type(self).__name__)
        from timm.models.swin_transformer import SwinTransformer

        self.backbone = SwinTransformer(
            img_size=image_size,
            patch_size=patch_size,
            num_classes=0,
            embed_dim=embed_dim,
            depths=tuple(depths),
            num_heads=tuple(heads),
            window_size=window,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1 + P, D)."""
        self.check_pixels(pixels)
        cells = self.backbone.forward_features(pixels).flatten(1, 2)
        return torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
