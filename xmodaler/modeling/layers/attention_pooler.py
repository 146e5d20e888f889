"""The pooler of TDEN: the states of a sequence become one vector."""

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError


class AttentionPooler(nn.Module):
    """A projected mean whose weights a small network chooses (Li et al., AAAI 2021).

    ``a = softmax(w_2^T dropout(relu(W_1 h + b_1)) + b_2 + mask)`` over positions, then
    ``W_e (sum_i a_i h_i) + b_e``, and batch normalisation if asked for.

    Args:
        hidden_size: Width D of the states.
        output_size: Width P of the result.
        dropout: Dropout in the small network.
        use_bn: Whether to normalise over the batch.
    """

    def __init__(
        self, *, hidden_size: int, output_size: int, dropout: float, use_bn: bool = False
    ) -> None:
        super().__init__()
        self.att = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, 1),
        )
        self.embed = nn.Linear(hidden_size, output_size)
        self.bn = nn.BatchNorm1d(output_size) if use_bn else None

    @classmethod
    def from_node(cls, node: CfgNode) -> "AttentionPooler":
        """The pooler that the POOLER settings of a node such as MODEL.MM_PREDICTOR describe."""
        return cls(
            hidden_size=node.POOLER_INPUT_SIZE,
            output_size=node.POOLER_OUTPUT_SIZE,
            dropout=node.POOLER_DROPOUT,
            use_bn=node.POOLER_BN,
        )

    def forward(self, hidden_states: Tensor, masks: Tensor | None = None) -> Tensor:
        """Pool every row.

        Args:
            hidden_states: (R, T, D).
            masks: Additive, (R, T) or (R, 1, 1, T).

        Returns:
            (R, P).

        Raises:
            UserError: A single row is to be normalised over the batch.
        """
        scores = self.att(hidden_states).squeeze(-1)
        if masks is not None:
            scores = scores + masks.reshape(scores.shape)
        weights = torch.softmax(scores, dim=-1).to(hidden_states.dtype)
        pooled = self.embed(torch.bmm(weights.unsqueeze(1), hidden_states).squeeze(1))
        if self.bn is None:
            return pooled
        if self.training and self.bn.training and pooled.shape[0] == 1:
            raise UserError(
                "a batch of one cannot be normalised over the batch; raise "
                "DATALOADER.TRAIN_BATCH_SIZE or set MODEL.MM_PREDICTOR.POOLER_BN to False"
            )
        return self.bn(pooled)
