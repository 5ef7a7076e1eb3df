"""What a trained network gets right and wrong, from its logits on the test set. Numpy only.

Logits are kept as float16 with each image's largest taken away. That changes neither the softmax
nor the prediction, keeps the most precision where classes compete, and cannot overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LOWEST = float(np.finfo(np.float16).min)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test image (`index` in the set) whose class was predicted wrongly.

    `confidence` is the softmax probability of the predicted class, 0 to 1.
    """

    index: int
    label: int
    predicted: int
    confidence: float


def pack_logits(logits: ArrayLike) -> bytes:
    """Logits [N, classes] as the bytes that the store keeps (2 per value)."""
    values = np.asarray(logits, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"logits have the shape {values.shape}; [images, classes] would work.")
    with np.errstate(invalid="ignore"):  # a diverged network: ∞ − ∞ is NaN, and stays so
        shifted = values - values.max(axis=1, keepdims=True, initial=-np.inf)
    return np.maximum(shifted, _LOWEST).astype("<f2").tobytes()


def read_logits(data: bytes, images: int, classes: int) -> NDArray[np.float32]:
    """Logits [images, classes] from `pack_logits`, each row's largest being 0.

    Raises:
        ValueError: if the bytes are not that many values.
    """
    if len(data) != 2 * images * classes:
        raise ValueError(
            f"{len(data)} bytes do not hold the logits of {images} images for {classes} classes."
        )
    return np.frombuffer(data, dtype="<f2").reshape(images, classes).astype(np.float32)


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities [N, classes] of logits [N, classes]; NaN rows stay NaN."""
    values = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
        return powers / powers.sum(axis=1, keepdims=True)


def confusion_matrix(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """How often class i (row) was predicted as class j (column): counts [classes, classes].

    Args:
        logits: [N, classes].
        labels: at least N of them; the first N belong to the logits.
    """
    values, truth = _matched(logits, labels)
    classes = values.shape[1]
    pairs = truth * classes + values.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class_accuracy(confusion: ArrayLike) -> NDArray[np.float64]:
    """Share of each class's images predicted right [classes]; NaN for a class without images."""
    counts = np.asarray(confusion, dtype=np.float64)
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(totals > 0, np.diagonal(counts) / np.maximum(totals, 1), np.nan)


def confident_mistakes(logits: ArrayLike, labels: ArrayLike, count: int = 12) -> list[Mistake]:
    """The wrong predictions the network was surest of, surest first.

    Images with NaN logits (a diverged network) are left out: it is sure of nothing there.
    """
    values, truth = _matched(logits, labels)
    probabilities = softmax(values)
    predicted = values.argmax(axis=1)
    confidence = probabilities[np.arange(len(values)), predicted]
    wrong = np.flatnonzero((predicted != truth) & np.isfinite(confidence))
    # Stable, so that equally sure mistakes come in the order of the test set.
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][: max(count, 0)]
    return [Mistake(int(i), int(truth[i]), int(predicted[i]), float(confidence[i])) for i in order]


def wrong_images(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Test images whose class was predicted wrongly, ascending; those with NaN logits left out.

    Args:
        logits, labels: as for `confusion_matrix`.
    """
    values, truth = _matched(logits, labels)
    return np.flatnonzero((values.argmax(axis=1) != truth) & np.isfinite(values).all(axis=1))


def by_confidence(logits: ArrayLike) -> NDArray[np.int64]:
    """Test images [N] from the least sure prediction (its softmax probability) to the surest.

    Images with NaN logits are left out; equally sure ones come in the order of the test set.
    """
    confidence = softmax(logits).max(axis=1, initial=0)
    order = np.argsort(confidence, kind="stable")  # NaN comes last
    return order[np.isfinite(confidence[order])]


def _matched(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    values = np.asarray(logits, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"logits have the shape {values.shape}; [images, classes] would work.")
    truth = np.asarray(labels, dtype=np.int64)[: len(values)]
    if len(truth) != len(values):
        raise ValueError(f"{len(values)} rows of logits need as many labels, not {len(truth)}.")
    if truth.size and not 0 <= truth.min() <= truth.max() < values.shape[1]:
        raise ValueError(f"labels must lie between 0 and {values.shape[1] - 1}.")
    return values, truth
