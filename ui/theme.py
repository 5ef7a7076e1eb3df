"""The colours that mean something, the same on every page and in both themes.

Each is readable on white and on the dark background (contrast at least 3:1 on both, which a test
checks), and no two that stand in one chart differ in hue alone for the common kinds of colour
blindness: curves also differ in dash, layers also in shape.
"""

from __future__ import annotations

# Kinds of layer, in diagrams, tables and bar charts.
CONV = "#3b7dbf"  # k×k convolution
POINTWISE = "#d9722b"  # 1×1 convolution
POOL = "#7d8590"  # pooling
HEAD = "#8a63d2"  # global pooling, the logits
DROPOUT = "#9a8f6a"
NORM = "#4f9d9d"  # batch normalisation
DENSE = "#c9507a"  # dense layers, only in the networks NiN is compared with

LAYER_COLORS: dict[str, str] = {
    "conv": CONV,
    "conv1x1": POINTWISE,
    "batch_norm": NORM,
    "relu": POOL,
    "max_pool": POOL,
    "avg_pool": POOL,
    "dropout": DROPOUT,
    "global_max_pool": HEAD,
    "global_avg_pool": HEAD,
    "flatten": HEAD,
    "linear": DENSE,
    "block": CONV,
}

# The tutorial's three curves.
TRAIN_LOSS = "#d9534f"
TRAIN_ACCURACY = "#3b7dbf"
TEST_ACCURACY = "#2f9e5f"

# Runs laid over each other: distinct in lightness as well as hue.
RUNS = ("#3b7dbf", "#d9722b", "#2f9e5f", "#c9507a", "#8a63d2", "#9a8f6a", "#4f9d9d", "#7d8590")

LIGHT_BACKGROUND = "#ffffff"
DARK_BACKGROUND = "#14171c"
