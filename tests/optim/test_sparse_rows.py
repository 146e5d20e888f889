"""Sparse gradients of embeddings: the same training as with dense ones."""

import copy

import pytest
import torch
import torch.nn.functional as F

from xmodaler.optim.adam import Adam, AdamW
from xmodaler.optim.clipping import GradientClipper

ROWS, WIDTH = 700, 6  # several blocks of rows


def train(sparse, build, clipper=None, steps=6, optimizer=None, weights=None, seed=0):
    torch.manual_seed(3)
    weights = weights or [torch.randn(ROWS, WIDTH), torch.randn(4, WIDTH)]
    embedding, head = (torch.nn.Parameter(weight.clone()) for weight in weights)
    own = build([embedding, head])
    if optimizer is not None:
        own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(0, ROWS, (5, 3), generator=generator)
        ids[0, 1] = ids[0, 0]  # a row may be read more than once
        own.zero_grad()
        F.embedding(ids, embedding, sparse=sparse).matmul(head.t()).square().mean().backward()
        assert embedding.grad.is_sparse == sparse
        if clipper is not None:
            clipper([embedding, head])
        own.step()
    return own, [embedding.detach(), head.detach()]


OPTIMIZERS = {
    "adam": lambda params: Adam(params, lr=0.05),
    "adam-l2": lambda params: Adam(params, lr=0.05, weight_decay=0.1),
    "amsgrad": lambda params: Adam(params, lr=0.05, amsgrad=True),
    "adamw": lambda params: AdamW(params, lr=0.05, betas=(0.8, 0.9), weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "clipper", [None, GradientClipper("norm", 0.01), GradientClipper("value", 0.001)]
)
def test_the_same_weights_as_with_dense_gradients(name, clipper):
    dense, expected = train(False, OPTIMIZERS[name], clipper)
    sparse, weights = train(True, OPTIMIZERS[name], clipper)
    for value, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(value, other, atol=1e-6, rtol=1e-5)
    states = dense.state_dict()["state"], sparse.state_dict()["state"]
    assert states[0][0].keys() == states[1][0].keys()
    for key, value in states[0][0].items():
        torch.testing.assert_close(states[1][0][key], value, atol=1e-6, rtol=1e-5)


def test_a_run_may_go_on_with_the_other_kind():
    build = OPTIMIZERS["adamw"]
    optimizer, weights = train(True, build)
    _, dense = train(False, build, optimizer=optimizer, weights=weights, seed=1)
    _, sparse = train(True, build, optimizer=optimizer, weights=weights, seed=1)
    torch.testing.assert_close(sparse[0], dense[0], atol=1e-6, rtol=1e-5)


def test_the_norm_counts_every_row_once():
    embedding = torch.nn.Parameter(torch.zeros(9, 2))
    ids = torch.tensor([1, 1, 4])
    F.embedding(ids, embedding, sparse=True).sum().backward()
    norm = GradientClipper("norm", 1.0)([embedding])
    assert norm == pytest.approx((2**2 * 2 + 1 * 2) ** 0.5)
    assert embedding.grad.to_dense().norm() == pytest.approx(1.0, rel=1e-5)
