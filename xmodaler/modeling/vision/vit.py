"""Any other backbone of timm whose features are a square grid of tokens."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.utils.errors import UserError, did_you_mean

from .tower import VisionTower, import_timm


class TimmTower(VisionTower):
    """A backbone of timm by name: ViT, DeiT, EVA, DINOv2, ConvNeXt, ...

    Token 0 is the class token of the backbone if it has one, else the mean of the patches; other
    tokens in front (registers, distillation) are left out.

    Args:
        name: A timm model name.
        image_size: Side of the pictures.
        pretrained: Fetch the weights of that name from the model hub.
        drop_path: Greatest rate of stochastic depth.
        **arguments: Further arguments of ``timm.create_model``.
    """

    def __init__(
        self,
        *,
        name: str,
        image_size: int = 224,
        pretrained: bool = False,
        drop_path: float = 0.0,
        **arguments: Any,
    ) -> None:
        import_timm(type(self).__name__)
        import timm

        if not timm.is_model(name):
            hint = did_you_mean(name, timm.list_models())
            raise UserError(f"MODEL.VISION.MODEL_NAME '{name}' is no timm model{hint}")
        settings = timm.get_pretrained_cfg(name)
        if settings is not None and settings.fixed_input_size:
            arguments.setdefault("img_size", image_size)
        backbone = timm.create_model(
            name, pretrained=pretrained, num_classes=0, drop_path_rate=drop_path, **arguments
        )
        super().__init__(
            image_size=image_size,
            stride=int(backbone.feature_info[-1]["reduction"]),
            width=backbone.num_features,
        )
        self.backbone = backbone
        self.prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        self.has_class = getattr(backbone, "cls_token", None) is not None
        self.channels_last = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1 + P, D)."""
        self.check_pixels(pixels)
        x = self.backbone.forward_features(pixels)
        if x.dim() == 4:
            x = x.flatten(1, 2) if self.channels_last else x.flatten(2).transpose(1, 2)
        patches = x[:, self.prefix :] if x.shape[1] == self.prefix + self.patches else x
        if patches.shape[1] != self.patches:
            raise UserError(
                f"TimmTower: {patches.shape[1]} patches came out of the backbone where "
                f"{self.patches} were expected; it gives no square grid of its stride"
            )
        first = x[:, :1] if self.has_class else patches.mean(dim=1, keepdim=True)
        return torch.cat([first, patches], dim=1)
