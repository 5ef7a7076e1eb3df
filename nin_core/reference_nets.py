"""LeNet, AlexNet and VGG-11 as plans of layers, so that `summarize_plan` can set them beside NiN.

They are the tutorial book's versions ("Dive into Deep Learning", the chapters before NiN's), since
those are the networks its readers have just met: LeNet with sigmoids and average pooling, AlexNet
with the full 4,096-wide dense layers, VGG-11 at full width. All three have the pattern that NiN
breaks with: convolutions first, then dense layers that read the flattened maps.

Choices made here:

* A network is data (windows and widths), not code: its trunk, its dense widths, its activation.
* The input is the caller's, so that the comparison is fair. The first dense layer grows with it.
  An image that the trunk would shrink to nothing is refused with the smallest that works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .checks import ConfigError, whole
from .config import MAX_CLASSES, MAX_IMAGE_SIZE, MAX_IN_CHANNELS, Kind, Layer, output_size
from .summary import NetworkSummary, summarize_plan


class Conv(NamedTuple):
    """A convolution of a trunk; its activation follows."""

    channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0


class Pool(NamedTuple):
    """A pooling layer of a trunk."""

    kernel_size: int
    stride: int
    kind: Kind = "max_pool"


@dataclass(frozen=True)
class ReferenceNet:
    """A network of convolutions and pooling, flattened into dense layers.

    Attributes:
        name: as it is written in a figure, and its key in `REFERENCE_NETS`.
        trunk: convolutions and pooling in order; an activation follows every convolution.
        dense: widths of the hidden dense layers; the classes come after them.
        activation: "relu" or "sigmoid".
        dropout: probability after every hidden dense layer; 0 leaves the layers out.
        source: the paper.
    """

    name: str
    trunk: tuple[Conv | Pool, ...]
    dense: tuple[int, ...]
    activation: Kind
    dropout: float
    source: str

    @property
    def smallest_image_size(self) -> int:
        """Smallest image side, in pixels, from which every map is at least 1×1."""
        needed = 1
        for step in reversed(self.trunk):
            padding = step.padding if isinstance(step, Conv) else 0
            needed = max((needed - 1) * step.stride + step.kernel_size - 2 * padding, 1)
        return needed

    def plan(self, *, in_channels: int, image_size: int, num_classes: int) -> tuple[Layer, ...]:
        """All layers in the order of the forward pass, for this input.

        Raises:
            ConfigError: if a value is out of range, or the image is smaller than
                `smallest_image_size`, which is then the suggestion.
        """
        whole(in_channels, "in_channels", 1, MAX_IN_CHANNELS, field="in_channels")
        whole(image_size, "image_size", 1, MAX_IMAGE_SIZE, field="image_size")
        whole(num_classes, "num_classes", 2, MAX_CLASSES, field="num_classes")
        smallest = self.smallest_image_size
        if image_size < smallest:
            raise ConfigError(
                f"{self.name} shrinks a {image_size}×{image_size} image to nothing; "
                f"{smallest}×{smallest} is the smallest that works.",
                field="image_size",
                suggestion=smallest,
            )
        return tuple(self._plan(in_channels, image_size, num_classes))

    def _plan(self, channels: int, size: int, num_classes: int) -> Iterator[Layer]:
        convs = pools = 0
        for step in self.trunk:
            if isinstance(step, Conv):
                convs += 1
                window = (step.kernel_size, step.stride, step.padding)
                yield Layer(f"conv{convs}", "conv", channels, step.channels, *window, bias=True)
                channels = step.channels
                yield Layer(f"{self.activation}{convs}", self.activation, channels, channels)
            else:
                pools += 1
                window = (step.kernel_size, step.stride, 0)
                yield Layer(f"pool{pools}", step.kind, channels, channels, *window)
            size = output_size(size, *window)
        features = channels * size * size
        yield Layer("flatten", "flatten", channels, features)
        for index, width in enumerate(self.dense, start=1):
            yield Layer(f"dense{index}", "linear", features, width, bias=True)
            yield Layer(f"{self.activation}{convs + index}", self.activation, width, width)
            if self.dropout:
                yield Layer(f"dropout{index}", "dropout", width, width, rate=self.dropout)
            features = width
        yield Layer(f"dense{len(self.dense) + 1}", "linear", features, num_classes, bias=True)


def _vgg(*blocks: tuple[int, int]) -> tuple[Conv | Pool, ...]:
    """VGG's trunk: for every (number, width) that many 3×3 convolutions, then the map halved."""
    trunk: list[Conv | Pool] = []
    for number, width in blocks:
        trunk += [Conv(width, 3, padding=1)] * number
        trunk.append(Pool(2, 2))
    return tuple(trunk)


_NETS = (
    ReferenceNet(
        name="LeNet",
        trunk=(
            Conv(6, 5, padding=2),
            Pool(2, 2, "avg_pool"),
            Conv(16, 5),
            Pool(2, 2, "avg_pool"),
        ),
        dense=(120, 84),
        activation="sigmoid",
        dropout=0.0,
        source="LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998",
    ),
    ReferenceNet(
        name="AlexNet",
        trunk=(
            Conv(96, 11, stride=4, padding=1),
            Pool(3, 2),
            Conv(256, 5, padding=2),
            Pool(3, 2),
            Conv(384, 3, padding=1),
            Conv(384, 3, padding=1),
            Conv(256, 3, padding=1),
            Pool(3, 2),
        ),
        dense=(4096, 4096),
        activation="relu",
        dropout=0.5,
        source="Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep CNNs, 2012",
    ),
    ReferenceNet(
        name="VGG-11",
        trunk=_vgg((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
        dense=(4096, 4096),
        activation="relu",
        dropout=0.5,
        source="Simonyan, Zisserman, arXiv 1409.1556, configuration A",
    ),
)

REFERENCE_NETS: dict[str, ReferenceNet] = {net.name: net for net in _NETS}


def reference_net(name: str) -> ReferenceNet:
    """The reference network of that name: "LeNet", "AlexNet" or "VGG-11".

    Raises:
        ConfigError: for an unknown name; it lists the known ones.
    """
    try:
        return REFERENCE_NETS[name]
    except KeyError:
        raise ConfigError(
            f"there is no reference network {name!r}; there are {', '.join(REFERENCE_NETS)}.",
            field="name",
            suggestion="AlexNet",
        ) from None


def reference_summary(
    name: str, in_channels: int, image_size: int, num_classes: int, batch_size: int = 1
) -> NetworkSummary:
    """`summarize` for a reference network on the given input, in closed form.

    Args:
        name: a key of `REFERENCE_NETS`.
        in_channels, image_size: the input is ``in_channels × image_size × image_size``.
        num_classes: width of the last dense layer.
        batch_size: images a batch, for the figures in bytes.

    Raises:
        ConfigError: for an unknown name or a value out of range; for an image that is too small
            it suggests the smallest size that works.
    """
    plan = reference_net(name).plan(
        in_channels=in_channels, image_size=image_size, num_classes=num_classes
    )
    return summarize_plan(
        name, plan, in_channels=in_channels, image_size=image_size, batch_size=batch_size
    )
