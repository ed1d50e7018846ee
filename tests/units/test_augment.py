"""Inputs changed at random, repeatably."""

import pytest
import torch

from tenfold.augment import as_augment, crop, flip


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_flip_mirrors_about_half_of_the_images_left_to_right():
    images = torch.randn(200, 3, 4, 5, generator=generator())
    got = flip(images, generator())
    is_mirrored = (got == images.flip(-1)).flatten(1).all(1)
    is_same = (got == images).flatten(1).all(1)
    assert bool((is_mirrored ^ is_same).all())
    assert 70 <= int(is_mirrored.sum()) <= 130  # 4 standard deviations are 28
    torch.testing.assert_close(flip(images, generator()), got, rtol=0, atol=0)


@pytest.mark.parametrize(("inputs", "shown"), [(torch.zeros(4, 3), r"\(4, 3\)"), ((torch.zeros(4, 3, 2, 2),), "tuple")])
def test_flip_needs_images(inputs, shown):
    with pytest.raises(
        ValueError, match=rf"augment='flip' got inputs {shown}; it needs images \(N, channels, height, width\): leave it out"
    ):
        flip(inputs, generator())


def test_names():
    assert as_augment("flip") is flip
    assert as_augment(None) is None
    assert as_augment(flip) is flip
    with pytest.raises(
        ValueError, match=r"augment is 'turn'; it needs 'flip', 'crop', a function augment\(inputs, generator\) or None: choose one"
    ):
        as_augment("turn")


def test_crops_are_parts_of_the_padded_image_or_of_its_mirror():
    images = torch.rand(12, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    cut = crop(images, torch.Generator().manual_seed(1))
    assert cut.shape == images.shape
    shifts = set()
    for image, found in zip(images, cut, strict=True):
        padded = [torch.nn.functional.pad(one, (1, 1, 2, 2)) for one in (image, image.flip(-1))]
        places = [
            (mirror, top, left) for mirror in (0, 1) for top in range(5) for left in range(3)
            if torch.equal(padded[mirror][:, top : top + 16, left : left + 8], found)
        ]  # fmt: skip
        assert len(places) == 1
        shifts.add(places[0])
    assert len(shifts) > 6
    assert torch.equal(cut, crop(images, torch.Generator().manual_seed(1)))
