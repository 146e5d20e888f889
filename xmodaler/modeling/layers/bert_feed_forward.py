"""The feed-forward block of BERT (Devlin et al. 2019)."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .create_act import get_activation
from .few_rows import StepWeights, linear
from .layer_stack import run_layer
from .packing import Packing
from .projected_residual import LAYER_NORM_EPS, ProjectedResidual


class BertIntermediate(nn.Module):
    """The first half of the feed-forward block: ``dropout(act(W x))``.

    Args:
        hidden_size: Width D.
        hidden_act: Name of the activation.
        intermediate_size: Inner width.
        intermediate_drop: Dropout after the activation.
        recompute: Whether :func:`feed_forward` computes the inner states again for the gradient.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        hidden_act: str,
        intermediate_size: int,
        intermediate_drop: float,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, intermediate_size)
        self.activation = get_activation(hidden_act)
        self.dropout = nn.Dropout(intermediate_drop)
        self.recompute = recompute

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        bert = cfg.MODEL.BERT
        return {
            "hidden_size": bert.HIDDEN_SIZE,
            "hidden_act": bert.HIDDEN_ACT,
            "intermediate_size": bert.INTERMEDIATE_SIZE,
            "intermediate_drop": bert.INTERMEDIATE_DROP,
            "recompute": bert.RECOMPUTE_INNER,
        }

    def forward(self, hidden_states: Tensor, weights: StepWeights | None = None) -> Tensor:
        """(..., D) -> (..., inner width)."""
        return self.dropout(self.activation(linear(self.dense, hidden_states, weights)))


class BertOutput(ProjectedResidual):
    """The second half of the feed-forward block, :class:`ProjectedResidual` from the inner width.

    Args:
        hidden_size: Width D.
        intermediate_size: Inner width.
        layer_norm_eps: Epsilon of the norm.
        ffn_dropout_prob: Dropout before the residual.
        drop_path_prob: Probability that the residual goes on alone.
        recompute: As for :class:`ProjectedResidual`.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        intermediate_size: int,
        layer_norm_eps: float,
        ffn_dropout_prob: float,
        drop_path_prob: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            inputs=intermediate_size,
            hidden_size=hidden_size,
            layer_norm_eps=layer_norm_eps,
            dropout=ffn_dropout_prob,
            drop_path_prob=drop_path_prob,
            recompute=recompute,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "hidden_size": cfg.MODEL.BERT.HIDDEN_SIZE,
            "intermediate_size": cfg.MODEL.BERT.INTERMEDIATE_SIZE,
            "layer_norm_eps": LAYER_NORM_EPS,
            "ffn_dropout_prob": cfg.MODEL.BERT.FFN_DROPOUT_PROB,
            "recompute": cfg.MODEL.BERT.RECOMPUTE_INNER,
        }


def feed_forward(
    intermediate: BertIntermediate, output: BertOutput, x: Tensor, packing: Packing | None = None
) -> Tensor:
    """The whole block, ``LN(dropout(W_2 dropout(act(W_1 x))) + x)``.

    Args:
        intermediate: Its first half.
        output: Its second half.
        x: (..., D), or (count, D) with ``packing``.
        packing: Which positions of the padded rows are real.

    Returns:
        Shaped like ``x``.
    """

    def inner(x: Tensor) -> Tensor:
        return output.dense(intermediate(x))

    recompute = intermediate.recompute and intermediate.training
    return output.finish(run_layer(inner, x, recompute=recompute), x, packing)
