"""Changes of pictures against the reference."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from xmodaler.datasets.augmentation import (
    ALL_CHANGES,
    PictureAugment,
    RandAugment,
    amount,
    change_picture,
)
from xmodaler.utils.errors import UserError

FAMILY = "augmentation"
WARP = 2
"""Values of a byte by which two programs may differ that move pictures."""


@pytest.fixture(scope="module")
def image(fixture: Any) -> torch.Tensor:
    return fixture.inputs["image"].permute(2, 0, 1).contiguous()


def difference(found: torch.Tensor, expected: torch.Tensor) -> int:
    return int((found.permute(1, 2, 0).int() - expected.int()).abs().max())


def test_every_change(fixture, image):
    for case, (value,) in fixture.meta["op_arguments"].items():
        name = case.split("_")[0]
        moves = name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
        if value is not None:
            assert amount(name, fixture.meta["level"]) == pytest.approx(abs(value))
        found = change_picture(image, name, value or 0.0, wraps=True)
        assert difference(found, fixture.expected[case]) <= (WARP if moves else 0), case


def test_changes_drawn_by_chance(fixture, image):
    rng = np.random.RandomState(fixture.meta["seed_numpy"])
    augment = RandAugment(2, fixture.meta["level"], wraps=True, rng=rng)
    names = [name for name in fixture.expected if name.startswith("randaugment_seeded_")]
    for number in range(len(names)):
        expected = fixture.expected[f"randaugment_seeded_{number}"]
        assert difference(augment(image), expected) <= 2 * WARP, number


def test_without_wrapping_contrast_is_that_of_pil(image):
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    expected = torch.from_numpy(np.array(ImageOps.autocontrast(picture)))
    assert difference(change_picture(image, "AutoContrast"), expected) == 0
    flat = torch.full((3, 4, 4), 9, dtype=torch.uint8)
    assert torch.equal(change_picture(flat, "AutoContrast"), flat)


def test_without_wrapping_sharpness_stays_in_range():
    image = torch.full((3, 5, 5), 200, dtype=torch.uint8)
    image[:, 2, 2] = 0
    assert change_picture(image, "Sharpness", 1.36)[0, 2, 2] == 0
    assert change_picture(image, "Sharpness", 1.36, wraps=True)[0, 2, 2] > 128


def test_unknown_changes_are_refused():
    with pytest.raises(UserError, match="did you mean 'Rotate'"):
        RandAugment(changes=["Rotat"])


def test_a_crop_has_the_size_asked_for_and_is_mirrored_only_where_it_may():
    columns = np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1))
    picture = Image.fromarray(np.stack([columns] * 3, axis=-1))
    augment = PictureAugment(16, 0.5, RandAugment(changes=ALL_CHANGES[:1]))
    for _ in range(8):
        found = augment(picture, may_mirror=False)
        assert found.shape == (3, 16, 16) and found.dtype == torch.uint8
        assert found[0, 0, 0] < found[0, 0, -1]
    assert any(augment(picture)[0, 0, 0] > augment(picture)[0, 0, -1] for _ in range(40))
