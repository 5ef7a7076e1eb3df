"""What a layer's forward pass does besides multiply-accumulates, and the pixels it never looks at.

Closed forms of a `LayerSummary`, next to the table rather than in it: `summarize` is for sliders
and sweeps, these are for whoever looks at one network.

Conventions, the same as for MACs: figures are for one image; a window at the border counts as a
full one, its padding included; what is computed once and used for every image (batch norm's scale
and shift in evaluation) is not counted.
"""

from __future__ import annotations

from typing import NamedTuple

from .summary import LayerSummary, volume


class Operations(NamedTuple):
    """Operations of one image's forward pass (in evaluation) that are not multiply-accumulates.

    Attributes:
        comparisons: of max pooling and ReLU.
        additions: of biases, average pooling and batch norm's shift.
        multiplications: batch norm's scale and average pooling's division; exponentials, which
            only sigmoid has, are not counted.
    """

    comparisons: int = 0
    additions: int = 0
    multiplications: int = 0

    @property
    def total(self) -> int:
        """All of them together."""
        return self.comparisons + self.additions + self.multiplications


def operations(*layers: LayerSummary) -> Operations:
    """The layers' operations for one image, added up; block rows are not layers and have none."""
    counts = [_operations(layer) for layer in layers]
    return Operations(*map(sum, zip(*counts, strict=True))) if counts else Operations()


def _operations(layer: LayerSummary) -> Operations:
    values = volume(layer.output_shape)
    match layer.kind:
        case "conv" | "conv1x1" | "linear":
            return Operations(additions=values if biases(layer) else 0)
        case "batch_norm":
            return Operations(additions=values, multiplications=values)
        case "relu":
            return Operations(comparisons=values)
        case "sigmoid":  # 1 / (1 + e⁻ˣ)
            return Operations(additions=values, multiplications=values)
        case "max_pool" | "global_max_pool":
            return Operations(comparisons=values * (window(layer) ** 2 - 1))
        case "avg_pool" | "global_avg_pool":
            return Operations(
                additions=values * (window(layer) ** 2 - 1),
                multiplications=values,
            )
        case _:  # dropout lets everything through in evaluation; flatten is a view
            return Operations()


def biases(layer: LayerSummary) -> int:
    """How many biases a convolution or dense layer learns: its output channels, or none."""
    inputs = layer.input_shape[0] * max(layer.kernel_size, 1) ** 2
    return layer.parameters - layer.output_shape[0] * inputs


def window(layer: LayerSummary) -> int:
    """Side of a pooling's window in pixels; a global pooling's is the whole map."""
    return layer.kernel_size or layer.input_shape[1]


def pixels_seen(layer: LayerSummary) -> int:
    """How many of the columns (or rows) of its input the windows of a layer that has some reach."""
    return layer.input_shape[1] - lost_pixels(layer)


def lost_pixels(layer: LayerSummary) -> int:
    """How many of the columns (or rows) of its input no window of the layer reaches.

    Most are lost to flooring: what is left at the far side is too narrow for one more step. With a
    stride above the kernel size, the gaps between windows come on top. 0 for a layer without a
    window, and for a block that of its k×k convolution.
    """
    if not layer.kernel_size:
        return 0
    size, steps = layer.input_shape[1], layer.output_shape[1] - 1
    end = steps * layer.stride + layer.kernel_size - layer.padding
    return steps * max(layer.stride - layer.kernel_size, 0) + max(size - end, 0)
