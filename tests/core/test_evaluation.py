"""Confusion matrix, per-class accuracy and confident mistakes, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nin_core.evaluation import (
    Mistake,
    by_confidence,
    confident_mistakes,
    confusion_matrix,
    pack_logits,
    per_class_accuracy,
    read_logits,
    softmax,
    wrong_images,
)

LOGITS = np.array(
    [[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]], dtype=np.float32
)
LABELS = np.array([0, 1, 0, 1])


def test_confusion_counts_true_classes_in_rows():
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion_matrix(LOGITS, LABELS).tolist() == expected


def test_accuracy_of_a_class_without_images_is_nan():
    accuracy = per_class_accuracy(confusion_matrix(LOGITS, LABELS))
    assert accuracy[:2].tolist() == [0.5, 0.5]
    assert np.isnan(accuracy[2])


def test_the_surest_mistakes_come_first():
    mistakes = confident_mistakes(LOGITS, LABELS, count=5)
    assert [(m.index, m.label, m.predicted) for m in mistakes] == [(3, 1, 0), (2, 0, 1)]
    assert mistakes[0].confidence == pytest.approx(np.exp(3) / (np.exp(3) + 2))
    assert confident_mistakes(LOGITS, LABELS, count=1) == mistakes[:1]
    assert isinstance(mistakes[0], Mistake)


def test_labels_beyond_the_measured_images_are_ignored():
    more = np.concatenate([LABELS, [2, 2, 2]])
    assert confusion_matrix(LOGITS, more).sum() == 4


def test_packing_keeps_predictions_and_probabilities():
    logits = np.random.default_rng(0).normal(scale=8, size=(500, 10)).astype(np.float32)
    data = pack_logits(logits)
    assert len(data) == 500 * 10 * 2
    back = read_logits(data, 500, 10)
    assert (back.argmax(1) == logits.argmax(1)).all()
    assert np.abs(softmax(back) - softmax(logits)).max() < 1e-3


def test_packing_survives_huge_and_nan_logits():
    logits = np.array([[1e30, 0.0], [np.nan, 1.0], [np.inf, 0.0]], dtype=np.float32)
    back = read_logits(pack_logits(logits), 3, 2)
    assert back[0].argmax() == 0
    assert np.isfinite(back[0]).all()
    assert np.isnan(back[1]).any()
    # A network that is sure of nothing makes no confident mistakes.
    assert [m.index for m in confident_mistakes(back, [1, 1, 1])] == [0]


def test_no_images_at_all():
    back = read_logits(pack_logits(np.zeros((0, 10))), 0, 10)
    assert confusion_matrix(back, []).sum() == 0
    assert confident_mistakes(back, []) == []


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: read_logits(b"123", 1, 10), "3 bytes"),
        (lambda: pack_logits(np.zeros(3)), "shape"),
        (lambda: confusion_matrix(LOGITS, [0, 1]), "as many labels"),
        (lambda: confusion_matrix(LOGITS, [0, 1, 2, 3]), "between 0 and 2"),
    ],
)
def test_what_does_not_fit_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_wrong_images_come_in_order_and_the_least_sure_first():
    assert wrong_images(LOGITS, LABELS).tolist() == [2, 3]
    assert by_confidence(LOGITS).tolist() == [2, 0, 3, 1]
    diverged = LOGITS.copy()
    diverged[3, 1] = np.nan
    assert wrong_images(diverged, LABELS).tolist() == [2]
    assert by_confidence(diverged).tolist() == [2, 0, 1]
    assert by_confidence(np.zeros((0, 3))).tolist() == []
