"""Which pixels of the image one cell of a layer's map sees, along one side, in closed form.

The sides of an image are independent of each other: rows and columns follow the same steps. Each
layer with a window is one step from the map before to its own: cell i covers the cells i·s − p to
i·s − p + k − 1. Two ranges follow from that, and both are given:

* the *whole* receptive field, as it would be on an endless image: its size r is the table's, the
  same for every cell, and it starts at o + i·j with r ← r + (k − 1)·j, o ← o − p·j, j ← j·s;
* what of it is *seen*: at every map on the way down, cells beyond its border are padding. That is
  not always the whole range cut off at the image's border: behind a layer that lost pixels to
  flooring, padding stands where those pixels would have been.

Cells and pixels count from 0. Nothing here imports torch; the tests compare with the gradients of
real networks. `ui/components/receptive_field.js` does the same arithmetic in the browser.

Source: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks"
(Distill 2019), for the whole field; the cuts at each border are the definition of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .checks import ConfigError, whole
from .summary import LayerSummary, NetworkSummary


class Step(NamedTuple):
    """From one map to the next along a side: the window, and the cells of the new map."""

    kernel_size: int
    stride: int
    padding: int
    cells: int


class Span(NamedTuple):
    """Pixels `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class Field(NamedTuple):
    """A cell's receptive field along a side: `whole` as if nothing ended, and what is `seen`."""

    whole: Span
    seen: Span

    @property
    def padding(self) -> tuple[int, int]:
        """Positions of the whole field that are padding: (before what is seen, after it)."""
        return self.seen.first - self.whole.first, self.whole.last - self.seen.last


def layer_step(layer: LayerSummary) -> Step | None:
    """The step that a layer makes; None for one whose cells each see one cell in the same place."""
    if layer.kind.startswith("global") or layer.kind == "flatten":
        side = layer.input_shape[1]
        return Step(side, 1, 0, 1) if side > 1 else None
    if layer.kernel_size == 0 or (layer.kernel_size, layer.stride, layer.padding) == (1, 1, 0):
        return None
    return Step(layer.kernel_size, layer.stride, layer.padding, layer.output_shape[1])


def steps_to(network: NetworkSummary, name: str) -> tuple[Step, ...]:
    """The steps from the image to the map of the layer `name`.

    Raises:
        ConfigError: if the network has no layer of that name.
    """
    steps: list[Step] = []
    for layer in network.layers:
        step = layer_step(layer)
        if step is not None:
            steps.append(step)
        if layer.name == name:
            return tuple(steps)
    raise ConfigError(
        f"there is no layer {name!r}; the last one is {network.layers[-1].name!r}.", field="layer"
    )


def receptive_field(steps: Sequence[Step], image_size: int, cell: int) -> Field:
    """The receptive field of one cell of the map behind `steps`.

    Args:
        steps: from the image on, as `steps_to` gives them; none means the image itself.
        image_size: pixels along the side.
        cell: the cell's row, for rows of the image, or its column, for columns; from 0.

    Raises:
        ConfigError: if the map has no such cell.
    """
    whole(cell, "cell", 0, (steps[-1].cells if steps else image_size) - 1, field="cell")
    first = last = seen_first = seen_last = cell
    for index in range(len(steps) - 1, -1, -1):
        kernel, stride, padding, _ = steps[index]
        border = (steps[index - 1].cells if index else image_size) - 1
        first, last = first * stride - padding, last * stride - padding + kernel - 1
        seen_first = max(seen_first * stride - padding, 0)
        seen_last = min(seen_last * stride - padding + kernel - 1, border)
    return Field(Span(first, last), Span(seen_first, seen_last))


def skips_pixels(steps: Sequence[Step]) -> bool:
    """Whether the field of a cell has gaps: pixels within it that the cell does not see.

    So it is behind a map whose neighbouring cells' fields do not touch (stride wider than field),
    once a window joins several of its cells.
    """
    field, stride = 1, 1
    apart = False
    for kernel, step, _, _ in steps:
        if apart and kernel > 1:
            return True
        field += (kernel - 1) * stride
        stride *= step
        apart = apart or stride > field
    return False
