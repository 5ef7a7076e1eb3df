"""What a network says to many images: their logits, in batches, with progress.

`training.evaluate` measures a run where it trains; this is for a page that shows how far it is, and
can give up between two batches by raising from `progress`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .channels import Images, Progress, _batch, _batch_size, _count
from .features import _evaluating


def predict(
    model: nn.Sequential, images: Images, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Logits ``[N, classes]`` of the images, in eval mode.

    Args:
        model: a network of `build_nin`.
        images: prepared as for training; at least one.
        progress: called after each batch with the images done and all.

    Raises:
        ConfigError: for no images.
    """
    total = _count(images)
    logits = []
    with torch.no_grad(), _evaluating(model):
        size = _batch_size(model, images)
        for start in range(0, total, size):
            logits.append(model(_batch(model, images, start, size)))
            if progress is not None:
                progress(min(start + size, total), total)
    return torch.cat(logits).float().numpy()
