"""The X-linear attention block: low-rank bilinear attention over regions and channels."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.utils.errors import UserError

from .bilinear_pooling import Regions, pool
from .create_act import build_act_layer
from .dot_product import check_heads
from .few_rows import linear
from .grouping import queries_per_image

Apply = Callable[[nn.Linear, Tensor], Tensor]
"""How a linear layer is applied to rows."""


class RowGroupNorm(nn.GroupNorm):
    """Group normalisation of rows (..., D), each by itself.

    The same as layer normalisation of every group, which is faster where nothing but channels is
    normalised.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        groups = x.unflatten(-1, (self.num_groups, -1))
        normed = F.layer_norm(groups, groups.shape[-1:], eps=self.eps).flatten(-2)
        return torch.addcmul(self.bias, normed, self.weight)


class BilinearScores(nn.Module):
    """Which regions and which channels of joint features count (Pan et al. 2020, eq. 3 to 6).

    ``a_n = drop(relu(W z_n))`` for every region, once per hidden layer; the weight of a region
    comes from ``w_s . a_n``, that of the channels from ``sigmoid(W_c mean_n a_n)``.

    Args:
        dims: Width of a head, widths of the hidden layers, width of a head again.
        dropout: Dropout after every hidden layer.
    """

    def __init__(self, *, dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(dims[:-1]):
            layers += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        self.attention_basic = nn.Sequential(*layers) if layers else None
        self.attention_last = nn.Linear(dims[-2], 1)
        self.attention_last2 = nn.Linear(dims[-2], dims[-1])

    def hidden(self, joint: Tensor) -> Tensor:
        """(..., d) -> (..., mid), the features a_n."""
        return joint if self.attention_basic is None else self.attention_basic(joint)

    def gate(self, pooled: Tensor) -> Tensor:
        """(..., mid) -> (..., d), how much of every channel passes."""
        return self.attention_last2(pooled).sigmoid()


class LowRankBilinearLayer(nn.Module):
    """X-linear attention of G queries per image (Pan et al. 2020, "X-Linear Attention Networks
    for Image Captioning", section 3.1).

    With ``p_x(y) = GroupNorm(act(W_x y + b_x))`` in heads of width d::

        z_n = p_q(q) * p_k(f_n)                  joint features, second order in q and f
        w = softmax_n(w_s . a(z_n) + b_s)        one weight per region and head
        b = sigmoid(W_c mean_n a(z_n) + b_c)     one gate per channel
        out = p_v1(v) * b * sum_n w_n p_v2(f_n)

    where the query q and the first value v are given the same vector, and regions that are hidden
    take no part in mean and softmax. An image without any region yields zeros.

    Args:
        query_dim: Width of the queries.
        memory_dim: Width of the regions.
        embed_dim: Width D of all heads together.
        num_heads: Number of heads; must divide ``embed_dim``.
        mid_dims: Width of a head, widths of the hidden layers of a, width of a head.
        mid_dropout: Dropout inside a.
        act: Activation of the projections: relu, elu, celu, sigmoid, tanh or none.
        elu_alpha: Alpha of elu and celu.
        where: Setting that holds the sizes, for messages.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        memory_dim: int,
        embed_dim: int,
        num_heads: int,
        mid_dims: Sequence[int],
        mid_dropout: float,
        act: str = "celu",
        elu_alpha: float = 1.3,
        where: str = "MODEL.BILINEAR",
    ) -> None:
        super().__init__()
        check_heads(embed_dim, num_heads, where)
        head = embed_dim // num_heads
        if len(mid_dims) < 2 or mid_dims[0] != head or mid_dims[-1] != head:
            raise UserError(
                f"{where}: ATT_MID_DIM is {list(mid_dims)}, but must begin and end with the width "
                f"of a head, {embed_dim} / {num_heads} = {head}"
            )
        self.num_heads = num_heads

        def projection(width: int) -> nn.Sequential:
            activation = build_act_layer(act, elu_alpha)
            if hasattr(activation, "inplace"):
                activation.inplace = True
            layers = [nn.Linear(width, embed_dim), activation, RowGroupNorm(num_heads, embed_dim)]
            return nn.Sequential(*(layer for layer in layers if layer is not None))

        self.in_proj_q = projection(query_dim)
        self.in_proj_k = projection(memory_dim)
        self.in_proj_v1 = projection(query_dim)
        self.in_proj_v2 = projection(memory_dim)
        self.attn_net = BilinearScores(dims=mid_dims, dropout=mid_dropout)

    def query_layers(self) -> list[nn.Linear]:
        """The linear layers that queries run through."""
        return [self.in_proj_q[0], self.in_proj_v1[0]]

    def project_memory(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and second values of regions (rows, memory_dim), (rows, D) each."""
        return self.in_proj_k(regions), self.in_proj_v2(regions)

    def bilinear(
        self, query: Tensor, regions: Regions, need_weights: bool = False, apply: Apply = linear
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to projected regions.

        Args:
            query: (B * G, query_dim), the G queries of an image adjacent.
            regions: Keys and values as :meth:`project_memory` makes them, of B images.
            need_weights: The weights are wanted; without it they may be None.
            apply: How the projections of the query are computed.

        Returns:
            (B * G, D), and the weights of the regions, (B * G, N), the mean over the heads.
        """
        images = regions.images
        queries_per_image(query.shape[0], images)
        q = _through(self.in_proj_q, query, apply)
        first = _through(self.in_proj_v1, query, apply)
        found = pool(self.attn_net, q.unflatten(0, (images, -1)), regions, need_weights)
        gate = self.attn_net.gate(found.hidden).flatten(2).flatten(0, 1)
        attended = first * found.context.flatten(0, 1) * gate
        weights = found.weights
        return attended, None if weights is None else weights.mean(dim=-1).flatten(0, 1)


class BilinearBlock(nn.Module):
    """What released weights of X-LAN call a layer: its attention, under the name they give it.

    Args:
        encoder_attn: The attention.
    """

    def __init__(self, encoder_attn: nn.Module) -> None:
        super().__init__()
        self.encoder_attn = encoder_attn


def _through(projection: nn.Sequential, x: Tensor, apply: Apply) -> Tensor:
    x = apply(projection[0], x)
    for layer in projection[1:]:
        x = layer(x)
    return x
