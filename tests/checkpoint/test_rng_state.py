"""Random number generators continue where they were saved."""

import random

import numpy as np
import torch

from xmodaler import checkpoint as ck


def draw():
    return (
        [random.random() for _ in range(3)],
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        np.random.randn(),
        torch.rand(3).tolist(),
    )


def test_every_generator_continues_exactly(tmp_path):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    # An odd number of normal draws leaves a second one waiting in both generators.
    draw()
    torch.save({"rng": ck.rng_state()}, tmp_path / "rng.pth")
    expected = draw()
    draw()
    ck.set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True)["rng"])
    assert draw() == expected
