"""The ViT tower of CLIP."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xmodaler.utils.errors import UserError

from .tower import RegionTokens, VisionTower, import_timm


class ClipVitTower(VisionTower):
    """The picture side of CLIP (Radford et al. 2021): a pre-norm ViT with learned positions.

    Token 0 is its class token. Regions are cut out within the network: the last ``region_layers``
    blocks run on a copy of the picture's tokens per region, in which nobody attends to patches
    outside of the region.

    Args:
        image_size: Side of the pictures.
        patch_size: Side of a patch.
        width: D.
        layers: Number of blocks.
        heads: Attention heads.
        inner_width: Width of the inner layer.
        activation: 'quick_gelu' for OpenAI's weights, 'gelu' for others.
        region_layers: Blocks that regions run through on their own.
        drop_path: Greatest rate of stochastic depth.
        attention_dropout: Dropout on attention weights.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        inner_width: int = 3072,
        activation: str = "quick_gelu",
        region_layers: int = 4,
        drop_path: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__(image_size=image_size, stride=patch_size, width=width)
        if not 0 <= region_layers <= layers:
            raise UserError(
                f"MODEL.VISION.REGION_LAYERS is {region_layers}; with {layers} blocks it must be "
                f"0 to {layers}"
            )
        import_timm(type(self).__name__)
        from timm.models.vision_transformer import VisionTransformer

        self.region_layers = region_layers
        self.backbone = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            num_classes=0,
            embed_dim=width,
            depth=layers,
            num_heads=heads,
            mlp_ratio=inner_width / width,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            act_layer=activation,
            drop_path_rate=drop_path,
            attn_drop_rate=attention_dropout,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1 + P, D)."""
        self.check_pixels(pixels)
        return self.backbone.forward_features(pixels)

    def regions(self, pixels: Tensor, index: Tensor, shown: Tensor) -> tuple[RegionTokens, Tensor]:
        """As :meth:`VisionTower.regions`; each region has patches of its own."""
        self.check_pixels(pixels)
        net = self.backbone
        x = net.norm_pre(net._pos_embed(net.patch_embed(pixels)))
        shared = len(net.blocks) - self.region_layers
        for block in net.blocks[:shared]:
            x = self._through(block, x, None)
        seen = torch.cat([shown.bool(), shown.new_ones(x.shape[:2], dtype=torch.bool)])
        seen[:, 0] = True
        x = torch.cat([x.index_select(0, index), x])
        for block in net.blocks[shared:]:
            x = self._through(block, x, seen[:, None, None, :])
        x = net.norm(x)
        inside, tokens = x[: len(index)], x[len(index) :]
        own = torch.arange(len(index), device=index.device)
        return RegionTokens(inside[:, 0], inside[:, 1:], own), tokens

    def _through(self, block: nn.Module, x: Tensor, seen: Tensor | None) -> Tensor:
        if self.backbone.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(masked_block, block, x, seen, use_reentrant=False)
        return masked_block(block, x, seen)


def masked_block(block: nn.Module, x: Tensor, seen: Tensor | None) -> Tensor:
    """A timm ViT block in which some keys are hidden.

    Args:
        block: The block.
        x: (N, T, D).
        seen: Bool, broadcastable to (N, heads, T, T); None shows all.
    """
    attention = block.attn
    parts = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = parts.permute(2, 0, 3, 1, 4)
    dropout = attention.attn_drop.p if block.training else 0.0
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
    y = attention.proj_drop(attention.proj(y.transpose(1, 2).flatten(2)))
    x = x + block.drop_path1(block.ls1(y))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
