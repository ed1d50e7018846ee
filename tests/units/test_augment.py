"""Inputs changed at random, repeatably."""

import pytest
import torch

from tenfold.augment import as_augment, flip


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
        ValueError, match=r"augment is 'turn'; it needs 'flip', a function augment\(inputs, generator\) or None: choose one"
    ):
        as_augment("turn")
