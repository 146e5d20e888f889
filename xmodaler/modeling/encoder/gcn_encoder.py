"""The graph-convolutional encoder."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_graph import SPATIAL_RELATIONS, spatial_relations
from xmodaler.utils.errors import UserError

from .build import ENCODER_REGISTRY

GRAPHS = ("semantic", "spatial")


@ENCODER_REGISTRY.register()
class GCNEncoder(nn.Module):
    """Gated graph convolution over related regions (Yao et al. 2018, section 3.2).

    With the label r_ij of the edge from i to j, 0 for none, and one gate per edge::

        loop_i = s(w_l v_i + b_l) (W_l v_i + b)
        sub_i  = sum_j s(w_s v_j + c[r_ij]) (W_s v_j + b[r_ij])
        obj_j  = sum_i s(w_o v_i + c[r_ij]) (W_o v_i + b[r_ij])
        f      = dropout(relu(loop + sub + obj + v)),  g = mean of f

    The tables b and c of the labels serve both directions. The sum over edges of ``b[r_ij]`` is
    one over labels: the gates of equal labels are added up first, so that no (N, N, D) tensor
    arises.

    Args:
        in_dim: Width D of the regions.
        out_dim: Width of the result; equal to ``in_dim``, since the input is added.
        relation_num: Number of labels, 0 included.
        dropout: Dropout on the result.
        graph: ``"semantic"`` takes the labels from RELATION; ``"spatial"`` derives them from the
            boxes in ATT_FEATS_LOC, see :func:`~xmodaler.functional.spatial_relations`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        relation_num: int,
        dropout: float,
        graph: str = "semantic",
    ) -> None:
        super().__init__()
        _check(in_dim, out_dim, relation_num, graph)
        self.relation_num, self.graph = relation_num, graph
        self.gcn_loop = nn.Linear(in_dim, out_dim)
        self.gcn_sub = nn.Linear(in_dim, out_dim, bias=False)
        self.gcn_obj = nn.Linear(in_dim, out_dim, bias=False)
        self.gcn_loop_gate = nn.Linear(in_dim, 1)
        self.gcn_sub_gate = nn.Linear(in_dim, 1, bias=False)
        self.gcn_obj_gate = nn.Linear(in_dim, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(relation_num, out_dim))
        self.gate_bias = nn.Parameter(torch.zeros(relation_num, 1))
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.GCN
        if node.OUT_DIM != cfg.MODEL.VISUAL_EMBED.OUT_DIM:
            raise UserError(
                f"MODEL.VISUAL_EMBED.OUT_DIM {cfg.MODEL.VISUAL_EMBED.OUT_DIM} must equal "
                f"MODEL.GCN.OUT_DIM {node.OUT_DIM}, the width that the decoder receives"
            )
        return {
            "in_dim": node.IN_DIM,
            "out_dim": node.OUT_DIM,
            "relation_num": node.RELATION_NUM,
            "dropout": node.DROPOUT,
            "graph": node.GRAPH,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.GCN."""
        cfg.MODEL.GCN = CfgNode(
            {
                "IN_DIM": 2048,
                "OUT_DIM": 2048,
                "RELATION_NUM": 21,
                "DROPOUT": 0.5,
                # 'semantic': labels from RELATION; 'spatial': from boxes, RELATION_NUM 12
                "GRAPH": "semantic",
            }
        )

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """In mode 'v', ATT_FEATS (B, N, D) and GLOBAL_FEATS (B, D), the mean over real regions.

        Reads ATT_FEATS (B, N, D), ATT_MASKS (B, N), and RELATION (B, N, N) int64 or ATT_FEATS_LOC
        (B, N, 5). What is hidden by the mask has no edges.
        """
        if mode is not None and "v" not in mode:
            return {}
        v, visible = batched_inputs[kfg.ATT_FEATS], batched_inputs[kfg.ATT_MASKS].bool()
        if v.shape[-1] != self.gcn_loop.in_features:
            raise UserError(
                f"{kfg.ATT_FEATS} has features of width {v.shape[-1]} but MODEL.GCN.IN_DIM is "
                f"{self.gcn_loop.in_features}; the two must agree"
            )
        relation = self._relation(batched_inputs)
        edges = (relation > 0) & visible.unsqueeze(2) & visible.unsqueeze(1)
        f = self.gcn_loop(v) * torch.sigmoid(self.gcn_loop_gate(v)) + self._messages(
            v, relation, edges
        )
        f = self.dropout(torch.relu(f + v)).masked_fill(~visible.unsqueeze(-1), 0)
        count = visible.sum(dim=1, keepdim=True).clamp(min=1)
        return {kfg.ATT_FEATS: f, kfg.GLOBAL_FEATS: f.sum(dim=1) / count.to(f.dtype)}

    def _messages(self, v: Tensor, relation: Tensor, edges: Tensor) -> Tensor:
        """``sub + obj`` (B, N, D) for labels and bool edges (B, N, N)."""
        label_bias = F.embedding(relation, self.gate_bias).squeeze(-1)
        gates = torch.cat(
            [
                torch.sigmoid(self.gcn_sub_gate(v).transpose(1, 2) + label_bias) * edges,
                (torch.sigmoid(self.gcn_obj_gate(v) + label_bias) * edges).transpose(1, 2),
            ],
            dim=2,
        )
        senders = torch.cat([self.gcn_sub(v), self.gcn_obj(v)], dim=1)
        labels = torch.cat([relation, relation.transpose(1, 2)], dim=2)
        by_label = gates.new_zeros(*gates.shape[:2], self.relation_num)
        by_label = by_label.scatter_add(2, labels, gates)
        return torch.bmm(gates.to(senders.dtype), senders) + by_label @ self.bias

    def _relation(self, batched_inputs: dict[str, Any]) -> Tensor:
        """The labels of the edges (B, N, N) int64, checked."""
        feats = batched_inputs[kfg.ATT_FEATS]
        if self.graph == "spatial":
            boxes = batched_inputs.get(kfg.ATT_FEATS_LOC)
            if boxes is None:
                raise UserError(
                    f"{kfg.ATT_FEATS_LOC} is missing from the batch; MODEL.GCN.GRAPH 'spatial' "
                    "needs feature files with boxes, image_w and image_h"
                )
            return spatial_relations(boxes[..., :4])
        relation = batched_inputs.get(kfg.RELATION)
        if relation is None:
            raise UserError(
                f"{kfg.RELATION} is missing from the batch; GCNEncoder needs the labels of the "
                "edges: set DATALOADER.RELATION_FILE, or MODEL.GCN.GRAPH to 'spatial'"
            )
        images, regions = feats.shape[:2]
        if relation.shape != (images, regions, regions):
            raise UserError(
                f"{kfg.RELATION} has shape {tuple(relation.shape)}, but {images} pictures with up "
                f"to {regions} regions need ({images}, {regions}, {regions}); the file must "
                "belong to these features"
            )
        relation = relation.long()
        if not torch.compiler.is_compiling():
            least, greatest = (int(value) for value in torch.stack(relation.aminmax()))
            if least < 0 or greatest >= self.relation_num:
                raise UserError(
                    f"{kfg.RELATION} holds labels from {least} to {greatest}, but "
                    f"MODEL.GCN.RELATION_NUM {self.relation_num} admits 0 to "
                    f"{self.relation_num - 1}"
                )
        return relation


def _check(in_dim: int, out_dim: int, relation_num: int, graph: str) -> None:
    if in_dim != out_dim:
        raise UserError(
            f"MODEL.GCN.IN_DIM {in_dim} and OUT_DIM {out_dim} differ; they must be equal, since "
            "GCNEncoder adds its input to its output"
        )
    if graph not in GRAPHS:
        raise UserError(f"MODEL.GCN.GRAPH is '{graph}'; it must be one of {', '.join(GRAPHS)}")
    if graph == "spatial" and relation_num < SPATIAL_RELATIONS:
        raise UserError(
            f"MODEL.GCN.RELATION_NUM is {relation_num}; the spatial graph has "
            f"{SPATIAL_RELATIONS} labels"
        )
