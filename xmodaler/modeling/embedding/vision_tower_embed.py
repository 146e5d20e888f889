"""Embedding of pictures, regions and videos by a vision tower."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError, did_you_mean

from ..vision import BeitTower, ClipVitTower, SwinTower, TimmTower, VisionTower
from .build import EMBEDDING_REGISTRY
from .timm_backbone import keyword_args
from .visual_embed import visual_layers

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@EMBEDDING_REGISTRY.register()
class VisionTowerEmbedding(nn.Module):
    """Tokens of a vision tower: one for the whole picture, then one for every patch.

    The frames of a video are encoded as pictures and averaged, with a learned vector per frame
    added before where there is one (X²-VLM, Zeng et al. 2022, section 3.4). An average does not
    know the order of the frames.

    Args:
        tower: The network.
        mean: Pixel mean per channel, of pixels in [0, 1].
        std: Pixel standard deviation per channel.
        frames: Number of frames that have a vector of their own; 0 for none.
        embeddings: Linear from the width of the tower to the width of the model, or None.
        embeddings_act: Activation.
        embeddings_norm: Norm over the last axis.
        embeddings_dropout: Dropout.
    """

    reads_pictures = True

    @configurable
    def __init__(
        self,
        *,
        tower: VisionTower,
        mean: tuple[float, ...] = CLIP_MEAN,
        std: tuple[float, ...] = CLIP_STD,
        frames: int = 0,
        embeddings: nn.Module | None = None,
        embeddings_act: nn.Module | None = None,
        embeddings_norm: nn.Module | None = None,
        embeddings_dropout: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.embeddings = embeddings
        self.embeddings_act = embeddings_act
        self.embeddings_norm = embeddings_norm
        self.embeddings_dropout = embeddings_dropout
        self.frame_positions = None
        if frames:
            self.frame_positions = nn.Parameter(torch.zeros(1, frames, 1, tower.width))
            nn.init.trunc_normal_(self.frame_positions, std=0.02)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.VISION
        tower = build_tower(node, cfg.DATALOADER.IMAGE_SIZE)
        if node.GRAD_CHECKPOINT:
            tower.set_grad_checkpointing()
        if node.SINE_POSITIONS:
            start_positions(tower)
        if node.WEIGHTS:
            load_tower(tower, node.WEIGHTS)
        kwargs: dict[str, Any] = {"tower": tower, "mean": node.MEAN, "std": node.STD}
        kwargs["frames"] = node.FRAME_POSITIONS
        if node.PROJECT:
            kwargs["embeddings"] = nn.Linear(tower.width, cfg.MODEL.VISUAL_EMBED.OUT_DIM)
            kwargs.update(visual_layers(cfg, with_location=False))
        return kwargs

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.VISION."""
        cfg.MODEL.VISION = CfgNode(
            {
                "NAME": "BeitTower",  # BeitTower, ClipVitTower, SwinTower or TimmTower
                "MODEL_NAME": "vit_base_patch16_224",  # what TimmTower builds
                "PATCH_SIZE": 16,
                "WIDTH": 768,
                "LAYERS": 12,
                "HEADS": 12,
                "MLP_RATIO": 4.0,
                "DROP_PATH": 0.1,
                "LAYER_SCALE": 0.1,  # BEiT
                "ACTIVATION": "quick_gelu",  # CLIP
                "REGION_LAYERS": 4,  # CLIP: last blocks that regions run through on their own
                "EMBED_DIM": 128,  # Swin, like the next three
                "DEPTHS": [2, 2, 18, 2],
                "STAGE_HEADS": [4, 8, 16, 32],
                "WINDOW": 7,
                "MEAN": list(CLIP_MEAN),
                "STD": list(CLIP_STD),
                "FRAME_POSITIONS": 0,  # frames of a video with a learned vector each; 0: none
                "PROJECT": False,  # a Linear to MODEL.VISUAL_EMBED.OUT_DIM behind the tower
                "GRAD_CHECKPOINT": False,  # compute activations again in the backward pass
                # Learned positions begin as sines and cosines, for training from scratch.
                "SINE_POSITIONS": False,
                "PRETRAINED": False,  # TimmTower: weights of the model hub
                "WEIGHTS": "",  # a local file with weights of the tower
                "ARGS": [],  # TimmTower: further arguments, [KEY, VALUE, KEY, VALUE]
            }
        )

    @property
    def width(self) -> int:
        """Width of the tokens."""
        return self.tower.width if self.embeddings is None else self.embeddings.out_features

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """Embed IMAGES, uint8 or float in [0, 1].

        Pictures (B, 3, H, W) give ATT_FEATS (B, 1 + P, D) and ATT_MASKS, all True. With
        REGION_INDEX (R,) and REGION_MASKS (R, 1 + P) in the batch there also are REGION_FEATS, the
        regions' :class:`~xmodaler.modeling.vision.RegionTokens`. Videos (B, F, 3, H, W) are one
        sequence each; ATT_MASKS (B, F) in the batch tells which frames are real.
        """
        images = self._checked(batched_inputs)
        if images.dim() == 5:
            feats = self._video(images, batched_inputs.get(kfg.ATT_MASKS))
            return self._visible(feats)
        if kfg.REGION_INDEX not in batched_inputs:
            return self._visible(self.finish(self.tower(self.pixels(images))))
        regions, feats = self.tower.regions(
            self.pixels(images),
            batched_inputs[kfg.REGION_INDEX],
            batched_inputs[kfg.REGION_MASKS],
        )
        if self.embeddings is not None:
            raise UserError("MODEL.VISION.PROJECT cannot be combined with regions of pictures")
        return {**self._visible(feats), kfg.REGION_FEATS: regions}

    def pixels(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), uint8 or float in [0, 1], normalised."""
        pixels = images.to(self.mean.dtype)
        if not images.is_floating_point():
            pixels = pixels / 255
        return (pixels - self.mean) / self.std

    def finish(self, x: Tensor) -> Tensor:
        """Tokens as the model wants them."""
        layers = (
            self.embeddings,
            self.embeddings_act,
            self.embeddings_norm,
            self.embeddings_dropout,
        )
        for layer in layers:
            if layer is not None:
                x = layer(x)
        return x

    def _video(self, videos: Tensor, masks: Tensor | None) -> Tensor:
        if masks is None:
            masks = torch.ones(videos.shape[:2], dtype=torch.bool, device=videos.device)
        masks = masks.bool()
        tokens = self.tower(self.pixels(videos[masks]))
        shares = masks / masks.sum(1, keepdim=True).clamp(min=1)
        x = tokens.new_zeros(*masks.shape, *tokens.shape[1:])
        x[masks] = tokens
        if self.frame_positions is not None:
            known = self.frame_positions.shape[1]
            if masks.shape[1] > known:
                raise UserError(
                    f"a video of {masks.shape[1]} frames, but MODEL.VISION.FRAME_POSITIONS is "
                    f"{known}; sample at most so many frames"
                )
            x = x + self.frame_positions[:, : masks.shape[1]]
        return self.finish(torch.einsum("bf,bfpd->bpd", shares.to(x.dtype), x))

    @staticmethod
    def _visible(feats: Tensor) -> dict[str, Tensor]:
        masks = torch.ones(feats.shape[:2], dtype=torch.bool, device=feats.device)
        return {kfg.ATT_FEATS: feats, kfg.ATT_MASKS: masks}

    def _checked(self, batched_inputs: dict[str, Any]) -> Tensor:
        images = batched_inputs.get(kfg.IMAGES)
        if images is None or images.dim() not in (4, 5) or images.shape[-3] != 3:
            found = "is missing" if images is None else f"has shape {tuple(images.shape)}"
            raise UserError(
                f"{kfg.IMAGES} {found}; VisionTowerEmbedding reads pictures (B, 3, height, width) "
                "or videos (B, frames, 3, height, width), uint8 or float in [0, 1]"
            )
        return images


def _sizes(node: CfgNode, size: int) -> dict[str, Any]:
    return {"image_size": size, "patch_size": node.PATCH_SIZE, "drop_path": node.DROP_PATH}


def _vit(node: CfgNode, size: int) -> dict[str, Any]:
    sizes = {"width": node.WIDTH, "layers": node.LAYERS, "heads": node.HEADS}
    return {**_sizes(node, size), **sizes}


TOWERS: Mapping[str, Callable[[CfgNode, int], VisionTower]] = {
    "BeitTower": lambda node, size: BeitTower(
        **_vit(node, size), mlp_ratio=node.MLP_RATIO, layer_scale=node.LAYER_SCALE
    ),
    "ClipVitTower": lambda node, size: ClipVitTower(
        **_vit(node, size),
        inner_width=round(node.WIDTH * node.MLP_RATIO),
        activation=node.ACTIVATION,
        region_layers=node.REGION_LAYERS,
    ),
    "SwinTower": lambda node, size: SwinTower(
        **_sizes(node, size),
        embed_dim=node.EMBED_DIM,
        depths=node.DEPTHS,
        heads=node.STAGE_HEADS,
        window=node.WINDOW,
        mlp_ratio=node.MLP_RATIO,
    ),
    "TimmTower": lambda node, size: TimmTower(
        name=node.MODEL_NAME,
        image_size=size,
        pretrained=node.PRETRAINED,
        drop_path=node.DROP_PATH,
        **keyword_args(node.ARGS),
    ),
}
"""Name of a tower -> how MODEL.VISION and the size of the pictures describe it."""


def build_tower(node: CfgNode, image_size: int) -> VisionTower:
    """The tower that ``MODEL.VISION`` describes.

    Raises:
        UserError: The name is unknown or the sizes do not fit.
    """
    if node.NAME not in TOWERS:
        raise UserError(
            f"MODEL.VISION.NAME '{node.NAME}' is no vision tower; there are {', '.join(TOWERS)}"
            + did_you_mean(node.NAME, TOWERS)
        )
    return TOWERS[node.NAME](node, image_size)


@torch.no_grad()
def start_positions(tower: VisionTower) -> None:
    """Let the learned positions of the patches begin as sines and cosines of row and column.

    Next to patches they are as large as these from the first step on (Beyer et al. 2022, "Better
    plain ViT baselines for ImageNet-1k", section 2); the small random numbers that they begin as
    otherwise let models learn places late.

    Raises:
        UserError: The tower has no such positions, or its width does not divide by 4.
    """
    from timm.layers import build_sincos2d_pos_embed

    positions = getattr(tower.backbone, "pos_embed", None)
    if positions is None or positions.shape[-1] % 4:
        raise UserError(
            "MODEL.VISION.SINE_POSITIONS needs a tower with a learned position for every patch "
            "whose width divides by 4, such as TimmTower with a plain ViT, or ClipVitTower; "
            f"{type(tower).__name__} is not such a tower here"
        )
    grid = list(tower.backbone.patch_embed.grid_size)
    sines = build_sincos2d_pos_embed(grid, dim=positions.shape[-1])
    # Tokens that are no patches come first.
    positions[0, : -len(sines)] = 0
    positions[0, -len(sines) :] = sines


def load_tower(tower: VisionTower, path: str) -> None:
    """Load a file of weights of the tower alone, as its project or timm names them.

    Raises:
        UserError: Weights of the tower are missing in the file.
    """
    from xmodaler.checkpoint.files import load_weights
    from xmodaler.checkpoint.vision_towers import translate_tower

    target = tower.backbone.state_dict()
    state = translate_tower(type(tower).__name__, load_weights(path), target)
    lacking = [key for key in target if key not in state or state[key].shape != target[key].shape]
    if lacking:
        raise UserError(
            f"MODEL.VISION.WEIGHTS '{path}' does not fit {type(tower).__name__}: {len(lacking)} of "
            f"its weights are missing or of another shape, '{lacking[0]}' first"
        )
    tower.backbone.load_state_dict({key: state[key] for key in target})
