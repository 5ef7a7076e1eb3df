"""Logits of many images: those of the network itself, and progress to the last image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nin_core import PRESETS, ConfigError
from nin_core.features import class_maps, untrained_model
from nin_core.predictions import PreparedImages, predict

NETWORK = PRESETS["nin-28"]


def images(count: int) -> PreparedImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return PreparedImages(pixels, NETWORK, (0.3,), (0.35,))


def test_the_logits_are_those_of_each_image_alone() -> None:
    model, given = untrained_model(NETWORK, 0), images(300)
    seen: list[tuple[int, int]] = []
    logits = predict(model, given, progress=lambda done, total: seen.append((done, total)))
    assert logits.shape == (300, 10)
    assert logits.dtype == np.float32
    for index in (0, 127, 128, 299):
        alone = class_maps(model, given[index : index + 1][0]).logits
        np.testing.assert_allclose(logits[index], alone, rtol=1e-4, atol=1e-5)
    assert [total for _, total in seen] == [300] * len(seen)
    assert seen[-1][0] == 300
    assert sorted(seen) == seen


def test_whoever_watches_can_end_it() -> None:
    def enough(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        predict(untrained_model(NETWORK, 0), images(300), progress=enough)


def test_no_images() -> None:
    with pytest.raises(ConfigError, match="no images"):
        predict(untrained_model(NETWORK, 0), images(0))
