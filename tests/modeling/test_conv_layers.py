"""Convolutional layers give what their formulas say, position by position."""

import math

import pytest
import torch
import torch.nn.functional as F

from xmodaler.modeling.layers.causal_conv import ShiftedConvLayer
from xmodaler.modeling.layers.temporal_deform import (
    TemporalDeformableBlock,
    TemporalDeformableLayer,
    interpolation,
)
from xmodaler.modeling.layers.weight_norm import WeightNormConv1d, WeightNormLinear
from xmodaler.utils.errors import UserError

HALF = math.sqrt(0.5)


def with_large_offsets(block, seed=0):
    torch.manual_seed(seed)
    for name, parameter in block.named_parameters():
        if "offset_conv" in name:
            torch.nn.init.normal_(parameter, std=0.7)
    return block


def read(sequence, position):
    """An entry between two entries of a sequence (L, C), read by linear interpolation."""
    lower = math.floor(position)
    upper = min(lower + 1, len(sequence) - 1)
    fraction = position - lower
    return (1 - fraction) * sequence[lower] + fraction * sequence[upper]


def offsets_of(block, x):
    """(B, F, k)."""
    conv = block.offset_conv
    return torch.tanh(F.conv1d(x.mT, conv.weight, conv.bias, padding=block.kernel_size // 2)).mT


def naive_released(block, x):
    """The released sampling by the library's 2-D sampler, one tap of one clip at a time."""
    batch, frames, channels = x.shape
    offsets = offsets_of(block, x)
    out = torch.zeros(batch, frames, block.conv.bias.shape[0])
    across = torch.linspace(-1, 1, channels)
    for b in range(batch):
        for t in range(frames):
            total = block.conv.bias.clone()
            for j in range(block.kernel_size):
                step = 2 / (frames - 1)
                u = 2 * t / (frames - 1) - 1 + (j - block.kernel_size // 2) * step
                u = (u + offsets[b, t, j]).clamp(-1, 1)
                grid = torch.stack([across, u.expand(channels)], dim=-1)[None, None]
                picture = x[b][None, None]
                sample = F.grid_sample(picture, grid, padding_mode="border", align_corners=False)
                total = total + block.conv.weight[:, :, j] @ sample.flatten()
            out[b, t] = total
    return out


def naive_corrected(block, x, lengths):
    """The clip-wise sampling, one tap of one clip at a time."""
    out = torch.zeros(*x.shape[:2], block.conv.bias.shape[0])
    for b, length in enumerate(lengths):
        clip = x[b : b + 1, :length]
        offsets = offsets_of(block, clip)[0]
        for t in range(length):
            total = block.conv.bias.clone()
            for j in range(block.kernel_size):
                p = t + j - block.kernel_size // 2 + offsets[t, j].item() * (length - 1) / 2
                sample = read(clip[0], min(max(p, 0), length - 1))
                total = total + block.conv.weight[:, :, j] @ sample
            out[b, t] = total
    return out


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("use_norm", [True, False])
def test_released_sampling_is_that_of_grid_sample(kernel_size, use_norm):
    block = with_large_offsets(TemporalDeformableBlock(6, 4, kernel_size, use_norm=use_norm))
    x = torch.randn(2, 7, 6)
    torch.testing.assert_close(block(x), naive_released(block, x), atol=1e-5, rtol=1e-4)


def test_zero_padding_is_that_of_grid_sample():
    block = with_large_offsets(TemporalDeformableBlock(5, 4, 3, padding_mode="zeros"))
    x = torch.randn(1, 4, 5)
    offsets = offsets_of(block, x)
    t = torch.arange(4)[:, None]
    u = (2 * (t + torch.arange(3) - 1) / 3 - 1 + offsets[0]).clamp(-1, 1).reshape(-1, 1)
    grid = torch.stack(torch.broadcast_tensors(torch.linspace(-1, 1, 5), u), dim=-1)[None]
    samples = F.grid_sample(x[None], grid, padding_mode="zeros", align_corners=False)
    expected = (
        torch.einsum("tjc,ocj->to", samples.view(4, 3, 5), block.conv.weight) + block.conv.bias
    )
    torch.testing.assert_close(block(x)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_corrected_sampling_is_a_loop_over_clips(kernel_size):
    block = with_large_offsets(TemporalDeformableBlock(6, 4, kernel_size, compatible=False))
    lengths = [7, 1, 4]
    x = torch.randn(3, 7, 6)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    out, expected = block(x, mask), naive_corrected(block, x, lengths)
    torch.testing.assert_close(out[mask], expected[mask], atol=1e-5, rtol=1e-4)


def test_corrected_sampling_begins_as_a_plain_convolution_and_moves():
    block = TemporalDeformableBlock(6, 4, 3, compatible=False)
    x = torch.randn(2, 7, 6)
    padded = torch.cat([x[:, :1], x, x[:, -1:]], dim=1).mT  # the border repeats
    plain = F.conv1d(padded, block.conv.weight, block.conv.bias).mT
    torch.testing.assert_close(block(x), plain, atol=1e-5, rtol=1e-4)
    block(x).square().sum().backward()
    assert block.offset_conv.weight_g.grad.abs().max() > 0


@pytest.mark.parametrize("compatible", [True, False])
def test_gradients_of_offsets_are_those_of_finite_differences(compatible):
    layer = TemporalDeformableLayer(4, 4, 3, compatible=compatible).double()
    with_large_offsets(layer)
    x = torch.randn(2, 5, 4, dtype=torch.double, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    assert torch.autograd.gradcheck(lambda x: layer(x, mask)[mask], x)


@pytest.mark.parametrize("compatible", [True, False])
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_clips(compatible, frames):
    layer = TemporalDeformableLayer(4, 4, 3, compatible=compatible)
    out = layer(torch.randn(2, frames, 4), torch.zeros(2, frames, dtype=torch.bool))
    assert out.shape == (2, frames, 4) and out.isfinite().all()


def test_the_interpolation_matrix():
    positions = torch.tensor([[0.0, 0.25, 2.0, 5.0, -1.0]])
    expected = torch.tensor([[1, 0, 0], [0.75, 0.25, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]])
    assert torch.equal(interpolation(positions, 3)[0], expected)
    outside = interpolation(torch.tensor([[-0.5, 2.5]]), 3, zeros_outside=True)[0]
    assert torch.equal(outside, torch.tensor([[0.5, 0, 0], [0, 0, 0.5]]))


def test_the_future_never_changes_the_past():
    layer = ShiftedConvLayer(4, 4, 3)
    x = torch.randn(1, 8, 4, requires_grad=True)
    out = layer(x)
    for t in range(8):
        (grad,) = torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)
        reached = grad[0].abs().sum(-1) > 0
        assert reached.nonzero().flatten().tolist() == list(range(max(t - 2, 0), t + 1))


@pytest.mark.parametrize("kernel_size", [1, 2, 5])
@pytest.mark.parametrize("use_norm", [True, False])
def test_causal_convolution_is_a_loop(kernel_size, use_norm):
    layer = ShiftedConvLayer(4, 4, kernel_size, use_norm=use_norm)
    x = torch.randn(3, 6, 4)
    padded = torch.cat([torch.zeros(3, kernel_size - 1, 4), x], dim=1)
    weight = layer.conv.weight
    past = layer.no_past(x[:, 0])
    for t in range(6):
        conv = torch.einsum("rkc,ock->ro", padded[:, t : t + kernel_size], weight) + layer.conv.bias
        expected = HALF * (conv[:, :4] * torch.sigmoid(conv[:, 4:]) + x[:, t])
        torch.testing.assert_close(layer(x)[:, t], expected, atol=1e-5, rtol=1e-4)
        out, past = layer.step(x[:, t], past)
        assert past.shape == (3, kernel_size - 1, 4)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_weight_norm_is_that_of_torch():
    for ours, plain in (
        (WeightNormLinear(5, 3), torch.nn.Linear(5, 3)),
        (WeightNormConv1d(5, 3, 3), torch.nn.Conv1d(5, 3, 3)),
    ):
        with torch.no_grad():
            ours.weight_g.mul_(1.7)
        assert {name for name, _ in ours.named_parameters()} == {"weight_g", "weight_v", "bias"}
        normed = torch.nn.utils.parametrizations.weight_norm(plain)
        original = normed.parametrizations.weight
        with torch.no_grad():
            original.original0.copy_(ours.weight_g)
            original.original1.copy_(ours.weight_v)
            normed.bias.copy_(ours.bias)
        x = torch.randn(2, 5, *([4] if ours.weight.dim() == 3 else []))
        torch.testing.assert_close(ours(x), normed(x))
    start = WeightNormLinear(5, 3)
    torch.testing.assert_close(start.weight, start.weight_v)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TemporalDeformableBlock(4, 4, 2), "kernel size 2"),
        (lambda: TemporalDeformableBlock(4, 4, 3, padding_mode="wrap"), "padding mode 'wrap'"),
        (lambda: TemporalDeformableLayer(4, 5, 3), "4 and 5"),
        (lambda: ShiftedConvLayer(4, 5, 3), "widths 4 and 5"),
        (lambda: ShiftedConvLayer(4, 4, 0), "at least 1"),
    ],
)
def test_layers_that_cannot_be_are_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()
