"""The graph-convolutional encoder."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.functional import spatial_relations
from xmodaler.modeling.encoder import GCNEncoder
from xmodaler.utils.errors import UserError

LABELS, WIDTH = 5, 6


def random_encoder(**options):
    torch.manual_seed(0)
    options = {"relation_num": LABELS, "dropout": 0.0, **options}
    encoder = GCNEncoder(in_dim=WIDTH, out_dim=WIDTH, **options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_()
    return encoder


def edge_by_edge(encoder, v, relation):
    """The formula for one picture without padding, one edge after the other."""
    total = encoder.gcn_loop(v) * torch.sigmoid(encoder.gcn_loop_gate(v)) + v
    total = list(total.unbind(0))
    regions = range(len(v))
    for i in regions:
        for j in regions:
            label = int(relation[i, j])
            if label == 0:
                continue
            gate_bias, bias = encoder.gate_bias[label], encoder.bias[label]
            sub = torch.sigmoid(encoder.gcn_sub_gate(v[j]) + gate_bias)
            total[i] = total[i] + sub * (encoder.gcn_sub(v[j]) + bias)
            obj = torch.sigmoid(encoder.gcn_obj_gate(v[i]) + gate_bias)
            total[j] = total[j] + obj * (encoder.gcn_obj(v[i]) + bias)
    return torch.relu(torch.stack(total))


def pictures(counts=(4, 2, 6, 0)):
    torch.manual_seed(1)
    longest = max(counts)
    masks = torch.arange(longest) < torch.tensor(counts)[:, None]
    return {
        kfg.ATT_FEATS: torch.randn(len(counts), longest, WIDTH) * masks[..., None],
        kfg.ATT_MASKS: masks,
        kfg.RELATION: torch.randint(0, LABELS, (len(counts), longest, longest)),
    }


def test_equals_the_sum_over_edges_in_value_and_gradient():
    encoder, batch = random_encoder(), pictures()
    produced = encoder(batch, mode="v")
    expected = []
    for feats, masks, relation in zip(
        batch[kfg.ATT_FEATS], batch[kfg.ATT_MASKS], batch[kfg.RELATION], strict=True
    ):
        n = int(masks.sum())
        expected.append(edge_by_edge(encoder, feats[:n], relation[:n, :n]) if n else feats[:0])
    for row, alone in enumerate(expected):
        torch.testing.assert_close(produced[kfg.ATT_FEATS][row, : len(alone)], alone)
        assert not produced[kfg.ATT_FEATS][row, len(alone) :].any()
        mean = alone.mean(0) if len(alone) else torch.zeros(WIDTH)
        torch.testing.assert_close(produced[kfg.GLOBAL_FEATS][row], mean)
    weights = list(encoder.parameters())
    one = torch.autograd.grad(produced[kfg.ATT_FEATS].pow(2).sum(), weights)
    other = torch.autograd.grad(sum(e.pow(2).sum() for e in expected), weights)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_no_tensor_holds_a_vector_per_edge():
    """The labels' biases are not gathered: memory grows with N * N, not with N * N * D."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, list | tuple) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return out

    regions, width = 12, 32  # the weights, 32 x 32, are smaller
    encoder = GCNEncoder(in_dim=width, out_dim=width, relation_num=LABELS, dropout=0.0)
    batch = {
        kfg.ATT_FEATS: torch.randn(2, regions, width),
        kfg.ATT_MASKS: torch.ones(2, regions, dtype=torch.bool),
        kfg.RELATION: torch.randint(0, LABELS, (2, regions, regions)),
    }
    with Largest() as seen:
        encoder(batch)[kfg.ATT_FEATS].sum().backward()
    assert 0 < seen.elements <= 2 * 2 * regions * width


def test_the_spatial_graph_comes_from_the_boxes():
    spatial = random_encoder(relation_num=12, graph="spatial")
    given = GCNEncoder(in_dim=WIDTH, out_dim=WIDTH, relation_num=12, dropout=0.0)
    given.load_state_dict(spatial.state_dict())
    batch = pictures()
    corners = torch.rand(4, 6, 2, 2).sort(dim=2).values.flatten(2)
    batch[kfg.ATT_FEATS_LOC] = torch.cat([corners, torch.rand(4, 6, 1)], -1)
    found = spatial(batch)
    expected = given({**batch, kfg.RELATION: spatial_relations(corners)})
    torch.testing.assert_close(found, expected)
    del batch[kfg.ATT_FEATS_LOC]
    with pytest.raises(UserError, match="ATT_FEATS_LOC is missing"):
        spatial(batch)


def test_only_pictures_are_encoded():
    assert random_encoder()(pictures(), mode="t") == {}
