"""Embedding of frames that knows their order."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.packing import pack_or_flatten
from ..stage_keys import ATT_PACKING
from .build import EMBEDDING_REGISTRY
from .position_embedding import POSITION_ENC_REGISTRY
from .visual_embed import VisualBaseEmbedding


@EMBEDDING_REGISTRY.register()
class FrameEmbedding(VisualBaseEmbedding):
    """``dropout(norm(act(W f_t + P_t)))``: :class:`VisualBaseEmbedding` with positions of frames.

    Attention and mean pooling see a set of frames; with the position of each in it, a model can
    tell a motion to the left from one to the right.

    Args:
        in_dim: Width of the features.
        out_dim: Width D of the embedding.
        position: Called with a tensor (B, F, ...), gives P (1, F, D).
        max_frames: Greatest F that ``position`` knows.
        **layers: The optional layers of :class:`VisualBaseEmbedding`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        position: nn.Module,
        max_frames: int,
        **layers: nn.Module | None,
    ) -> None:
        super().__init__(in_dim=in_dim, out_dim=out_dim, **layers)
        self.position = position
        self.max_frames = max_frames

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.FRAME_EMBED
        encoding = POSITION_ENC_REGISTRY.get(node.POSITION)
        width = cfg.MODEL.VISUAL_EMBED.OUT_DIM
        position = encoding(width, node.MAX_FRAMES)
        return {**super().from_config(cfg), "position": position, "max_frames": node.MAX_FRAMES}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.FRAME_EMBED."""
        # A class of POSITION_ENC_REGISTRY, and the number of frames that have a position.
        cfg.MODEL.FRAME_EMBED = CfgNode({"POSITION": "SinusoidEncoding", "MAX_FRAMES": 512})

    def project(self, batched_inputs: dict[str, Any]) -> Tensor:
        """The sum of what the Linears and the positions give, packed where frames are left out."""
        projected = super().project(batched_inputs)
        feats = batched_inputs[kfg.ATT_FEATS]
        if feats.shape[1] > self.max_frames:
            raise UserError(
                f"a clip of {feats.shape[1]} frames exceeds the {self.max_frames} that have a "
                "position; raise MODEL.FRAME_EMBED.MAX_FRAMES or lower DATALOADER.MAX_FEAT_NUM"
            )
        positions = self.position(feats).expand(feats.shape[0], -1, -1)
        return projected + pack_or_flatten(positions, batched_inputs.get(ATT_PACKING))
