"""Mirrored and moved images: each pixel against a slow reference, and the same by the same seed."""

from __future__ import annotations

import pytest
import torch

from nin_core.augmentation import Augmentation


def drawn(images: int, seed: int = 0, *, flip: bool = True, shift: int = 2) -> Augmentation:
    generator = torch.Generator().manual_seed(seed)
    return Augmentation.draw(images, generator, flip=flip, shift=shift)


def slow(image: torch.Tensor, mirrored: bool, down: int, right: int) -> torch.Tensor:
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y - down, x - right
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[c, y, x] = image[c, from_y, width - 1 - from_x if mirrored else from_x]
    return out


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 5, 8)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_every_pixel_is_where_it_belongs(shape: tuple[int, ...], flip: bool, shift: int) -> None:
    images = torch.randint(0, 256, (24, *shape), dtype=torch.uint8)
    what = drawn(24, flip=flip, shift=shift)
    after = what.apply(images)
    assert (after.dtype, after.shape) == (images.dtype, images.shape)
    for n, image in enumerate(images):
        expected = slow(image, bool(what.mirrored[n]), int(what.down[n]), int(what.right[n]))
        assert torch.equal(after[n], expected)


def test_a_move_as_wide_as_the_image_leaves_nothing_of_it() -> None:
    what = Augmentation(torch.tensor([False]), torch.tensor([4]), torch.tensor([0]), 4)
    assert not what.apply(torch.ones(1, 1, 4, 4)).any()


def test_all_moves_and_both_sides_come_and_come_again_by_the_seed() -> None:
    what, again, other = drawn(2000), drawn(2000), drawn(2000, seed=1)
    assert 900 < int(what.mirrored.sum()) < 1100
    for moves in (what.down, what.right):
        assert torch.bincount(moves + 2, minlength=5).min() > 300
        assert moves.unique().tolist() == [-2, -1, 0, 1, 2]
    assert not torch.equal(what.down, what.right)
    for values, same, others in zip(what[:3], again[:3], other[:3], strict=True):
        assert torch.equal(values, same)
        assert not torch.equal(values, others)


def test_a_part_is_that_of_its_images() -> None:
    images = torch.randint(0, 256, (10, 1, 6, 6), dtype=torch.uint8)
    what = drawn(10)
    assert torch.equal(what.part(4, 7).apply(images[4:7]), what.apply(images)[4:7])


def test_nothing_to_do_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    what = Augmentation.draw(5, generator, flip=False, shift=0)
    assert torch.equal(generator.get_state(), before)
    images = torch.randint(0, 256, (5, 1, 6, 6), dtype=torch.uint8)
    assert torch.equal(what.apply(images), images)
