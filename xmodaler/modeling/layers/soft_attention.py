"""Additive attention with weight-normed layers."""

from .base_attention import BaseAttention
from .weight_norm import linear_layer


class SoftAttention(BaseAttention):
    """The attention of TDConvED (Chen et al. 2019, section 3.3): :class:`BaseAttention`, normed.

    Args:
        hidden_size: Width of the query.
        att_embed_size: Width in which query and features are compared.
        att_embed_dropout: Dropout after the tanh.
        use_norm: Whether the layers are weight-normed.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        att_embed_size: int,
        att_embed_dropout: float,
        use_norm: bool = True,
    ) -> None:
        super().__init__(
            hidden_size=hidden_size,
            att_embed_size=att_embed_size,
            att_embed_dropout=att_embed_dropout,
        )
        self.w_h = linear_layer(hidden_size, att_embed_size, use_norm, bias=False)
        self.w_alpha = linear_layer(att_embed_size, 1, use_norm, bias=False)
