"""The BEiT-2 tower."""

import torch
from torch import Tensor

from .tower import VisionTower, import_timm


class BeitTower(VisionTower):
    """BEiT-2 (Peng et al. 2022) with one table of relative positions per block.

    After the last block the class token gives way to the mean of the normalised patches:
    ``[mean(LN(x_1..P)); LN(x_1..P)]``. The learned class token still matters, since patches
    attend to it.

    Args:
        image_size: Side of the pictures.
        patch_size: Side of a patch.
        width: D.
        layers: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Width of the inner layer as a multiple of D.
        drop_path: Greatest rate of stochastic depth, which grows linearly over the blocks.
        layer_scale: Value at which the scales of the residual branches start.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        layer_scale: float = 0.1,
    ) -> None:
        super().__init__(image_size=image_size, stride=patch_size, width=width)
        import_timm(type(self).__name__)
        from timm.models.beit import Beit

        self.backbone = Beit(
            img_size=image_size,
            patch_size=patch_size,
            num_classes=0,
            global_pool="avg",
            embed_dim=width,
            depth=layers,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path,
            init_values=layer_scale,
            use_abs_pos_emb=False,
            use_rel_pos_bias=True,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1 + P, D)."""
        self.check_pixels(pixels)
        patches = self.backbone.fc_norm(self.backbone.forward_features(pixels)[:, 1:])
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
