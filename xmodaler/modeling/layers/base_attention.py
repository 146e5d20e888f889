"""Additive attention."""

import torch
from torch import Tensor, nn

from .few_rows import linear
from .grouping import queries_per_image


class BaseAttention(nn.Module):
    """``score_n = w_alpha . dropout(tanh(W_h h + p_n)) + mask_n`` (Bahdanau et al. 2015).

    The softmax of the scores weighs the features. ``p_n``, the projected features, is the same
    for all queries of an image.

    Args:
        hidden_size: Width of the query.
        att_embed_size: Width E in which query and features are compared.
        att_embed_dropout: Dropout after the tanh.
    """

    def __init__(self, *, hidden_size: int, att_embed_size: int, att_embed_dropout: float) -> None:
        super().__init__()
        self.w_h = nn.Linear(hidden_size, att_embed_size, bias=False)
        self.w_alpha = nn.Linear(att_embed_size, 1, bias=False)
        self.dropout = nn.Dropout(att_embed_dropout) if att_embed_dropout > 0 else None

    def forward(
        self,
        hidden_states: Tensor,
        att_feats: Tensor,
        p_att_feats: Tensor,
        att_masks: Tensor | None = None,
    ) -> Tensor:
        """The attended features.

        Args:
            hidden_states: (B * G, hidden), the G queries of an image adjacent.
            att_feats: (B, N, D).
            p_att_feats: (B, N, E).
            att_masks: (B, N) additive.

        Returns:
            (B * G, D).
        """
        return self.attend(hidden_states, att_feats, p_att_feats, att_masks)[0]

    def attend(
        self,
        hidden_states: Tensor,
        att_feats: Tensor,
        p_att_feats: Tensor,
        att_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the weights (B * G, N)."""
        images = att_feats.shape[0]
        queries_per_image(hidden_states.shape[0], images)
        query = linear(self.w_h, hidden_states).reshape(images, -1, self.w_h.out_features)
        if query.device.type == "cpu" and not torch.is_grad_enabled() and not self.training:
            scores = self._scores_by_image(query, p_att_feats, att_masks)
        else:
            scores = self._scores(query.unsqueeze(2), p_att_feats.unsqueeze(1))
        if att_masks is not None:
            scores = scores + att_masks.unsqueeze(1)
        weights = torch.softmax(scores, dim=-1)
        return torch.bmm(weights, att_feats).flatten(0, 1), weights.flatten(0, 1)

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """(..., G, 1, E) and (..., 1, N, E) -> (..., G, N)."""
        joint = (query + keys).tanh_()
        if self.dropout is not None:
            joint = self.dropout(joint)
        return self.w_alpha(joint).squeeze(-1)

    def _scores_by_image(self, query: Tensor, keys: Tensor, masks: Tensor | None) -> Tensor:
        """Scores (B, G, N), image by image: what is in between fits into the cache.

        Regions behind the last visible one are left out; their scores are 0.
        """
        images, regions, _ = keys.shape
        counts = [regions] * images
        if masks is not None:
            position = torch.arange(1, regions + 1)
            counts = ((masks == 0) * position).amax(dim=1).tolist()
        scores = query.new_zeros(images, query.shape[1], regions)
        for image, count in enumerate(counts):
            scores[image, :, :count] = self._scores(query[image].unsqueeze(1), keys[image, :count])
        return scores
