"""What decoders with a recurrent state share."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, kfg
from xmodaler.utils.errors import UserError

from ..attention import build_attention
from ..layers.packing import pack_or_flatten, unpack_or_keep
from ..stage_keys import ATT_PACKING, ATTENTION_WEIGHTS, RETURN_ATTENTION
from .decoder import Decoder


class RecurrentDecoder(Decoder):
    """Base of the decoders that read one word at a time into hidden states.

    Images come once each and hypotheses in groups of G per image, so nothing of an image is
    repeated. States begin at zero. A decoder that attends keeps a
    :class:`~xmodaler.modeling.attention.CrossAttention` as ``att`` and the projection of the
    image that the attention asks for as ``p_att_feats``; see :meth:`attention_from_config`.

    A subclass that offers ``unroll(x, stairs, batched_inputs, feedback)`` computes all steps of
    given sentences in one call; any other is called step by step.
    """

    folds_queries = True

    needs_attention = True
    """Whether an empty ``MODEL.ATTENTION`` is a mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.att: nn.Module | None = None
        self.p_att_feats: nn.Module | None = None

    @classmethod
    def attention_from_config(
        cls, cfg: CfgNode, query_dim: int, memory_dim: int, embed_dim: int, dropout: float
    ) -> nn.Module | None:
        """The attention that ``MODEL.ATTENTION`` names, or None where the name is empty.

        Args:
            cfg: The config.
            query_dim: Width of the query, a hidden state.
            memory_dim: Width of the regions.
            embed_dim: Width in which the two are compared.
            dropout: Dropout inside the attention.

        Raises:
            UserError: The name is empty and this decoder needs an attention.
        """
        if not cfg.MODEL.ATTENTION:
            if cls.needs_attention:
                raise UserError(
                    f"MODEL.ATTENTION is empty, but {cls.__name__} attends to the image at every "
                    "step; name an attention such as AdditiveAttention"
                )
            return None
        sizes = {"query_dim": query_dim, "memory_dim": memory_dim, "embed_dim": embed_dim}
        return build_attention(cfg, **sizes, dropout=dropout)

    def attention_memory(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, what the attention prepares of each image; empty without attention.

        Reads ATT_FEATS (B, N, D) and EXT_ATT_MASKS (B, N).
        """
        if self.att is None:
            return {}
        return {kfg.P_ATT_FEATS: self.memory_of(self.att, self.p_att_feats, batched_inputs)}

    @staticmethod
    def memory_of(
        attention: nn.Module, projection: nn.Module, batched_inputs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """What an attention with that memory projection prepares of each image."""
        feats, packing = batched_inputs[kfg.ATT_FEATS], batched_inputs.get(ATT_PACKING)
        if feats.dim() > 3:  # levels of an encoder
            if not getattr(attention, "takes_levels", False):
                raise UserError(
                    f"the encoder hands on {feats.shape[1]} levels of features, but "
                    f"{type(attention).__name__} reads one; set MODEL.ATTENTION to "
                    "MeshedQueryAttention, or let the encoder hand on its last layer alone"
                )
            packing = None
        projected = unpack_or_keep(projection(pack_or_flatten(feats, packing)), packing)
        mask = batched_inputs.get(kfg.EXT_ATT_MASKS)
        return attention.precompute(feats, mask, projected)

    def attend(
        self, query: Tensor, batched_inputs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step attends to.

        Args:
            query: (B * G, query width).
            batched_inputs: Holds P_ATT_FEATS; RETURN_ATTENTION asks for the weights.

        Returns:
            The context (B * G, D), and the weights (B * G, N) under their key where asked for.
        """
        wanted = bool(batched_inputs.get(RETURN_ATTENTION, False))
        context, weights = self.att(query, batched_inputs[kfg.P_ATT_FEATS], wanted)
        return context, {ATTENTION_WEIGHTS: weights} if wanted and weights is not None else {}

    def vector_of(
        self, batched_inputs: dict[str, Any], key: str, width: int, setting: str
    ) -> Tensor:
        """The vector of each image under a key, as (B, width).

        Args:
            batched_inputs: Holds (B, width) or (B, 1, width) under the key.
            key: For example GLOBAL_FEATS.
            width: The width that this decoder needs.
            setting: The config key that says so.

        Raises:
            UserError: There is none, or one of another width.
        """
        value, name = batched_inputs.get(key), type(self).__name__
        if value is None:
            raise UserError(
                f"{key} is missing from the batch; {name} needs vectors of width {width} "
                f"({setting}), from the data or from an encoder such as UpDownEncoder"
            )
        value = value.flatten(1)
        if value.shape[1] != width:
            raise UserError(
                f"{key} has width {value.shape[1]}, but {name} needs {width} ({setting}); give "
                "vectors of that width or change the setting"
            )
        return value

    @staticmethod
    def state_numbers(like: Tensor) -> dict[str, Tensor]:
        """HISTORY_STATES (R,), which numbers the rows of a new state (R, ...).

        Strategies reorder the numbers with the state, so equal numbers mean equal states.
        """
        return {kfg.HISTORY_STATES: torch.arange(like.shape[0], device=like.device)}
