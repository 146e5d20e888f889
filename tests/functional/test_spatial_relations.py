"""The spatial graph of regions."""

import math

import pytest
import torch

from xmodaler.functional import SPATIAL_RELATIONS, spatial_relations


def label(one, other, **options):
    return int(spatial_relations(torch.tensor([one, other]), **options)[0, 1])


def around(x, y, radius=0.02):
    return [x - radius, y - radius, x + radius, y + radius]


def test_inside_cover_and_overlap():
    whole, part = [0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.4, 0.4]
    assert label(whole, part) == 1
    assert label(part, whole) == 2
    assert label([0.0, 0.0, 0.4, 0.4], [0.1, 0.0, 0.5, 0.4]) == 3  # 0.3 / 0.5
    assert label(part, part) == 3
    assert label([0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.4]) == 11  # 1 / 3: only a direction


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (1, 4),
        (45, 4),
        (46, 5),
        (90, 5),
        (100, 6),
        (179, 7),
        (181, 8),
        (260, 9),
        (280, 10),
        (350, 11),
    ],
)
def test_directions_turn_counterclockwise_from_the_right(degrees, expected):
    angle = math.radians(degrees)
    # The picture's y points down.
    other = around(0.5 + 0.3 * math.cos(angle), 0.5 - 0.3 * math.sin(angle))
    assert label(around(0.5, 0.5), other) == expected


def test_far_regions_have_no_edge():
    assert label(around(0.1, 0.5), around(0.7, 0.5)) == 11
    assert label(around(0.1, 0.5), around(0.9, 0.5)) == 0  # 0.8 > 0.5 * sqrt(2)
    assert label(around(0.1, 0.5), around(0.9, 0.5), max_distance=0.6) == 11


def test_pixels_with_the_size_of_the_picture_keep_true_distances():
    # 100 x 10 pixels: the diagonal is 100.5.
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [60.0, 0.0, 64.0, 4.0]])
    assert int(spatial_relations(boxes, picture_size=(100.0, 10.0))[0, 1]) == 0
    assert int(spatial_relations(boxes, picture_size=(140.0, 10.0))[0, 1]) == 11


def test_mirrored_directions_are_opposite():
    torch.manual_seed(0)
    centres, radius = torch.rand(4, 9, 2), torch.rand(4, 9, 1) / 10
    boxes = torch.cat([centres - radius, centres + radius], -1)
    labels = spatial_relations(boxes)
    assert labels.shape == (4, 9, 9) and labels.dtype == torch.int64
    assert labels.min() >= 0 and labels.max() < SPATIAL_RELATIONS
    assert not labels.diagonal(dim1=-2, dim2=-1).any()
    back = labels.transpose(-1, -2)
    directed = labels > 3
    assert directed.any() and (back[directed] > 3).all()
    assert ((labels - back)[directed].abs() == 4).all()
    assert torch.equal(labels == 1, back == 2)
    assert torch.equal(labels[2], spatial_relations(boxes[2]))
