"""What a network, a recipe and a run *are*: frozen dataclasses, presets, validation.

Choices made here:

* A configuration is validated once, when it is made. An object of these classes that exists is
  a network that can be built, so neither the page nor the worker checks again.
* An error names the layer or field and a value that would work (`ConfigError.suggestion`), and
  the suggestion is computed, not a fixed hint: putting it in makes that very check pass.
* `NiNConfig.plan()` is the one description of the layers in order. The module (`model.py`), the
  table (`summary.py`) and the checks below all read it, so they cannot drift apart.
* Nothing here imports torch: the architecture page must be usable before torch is loaded.

Source of the architecture: Lin, Chen, Yan, "Network In Network", arXiv 1312.4400; the presets
`nin-224` and `nin-slim-128` are the two networks of the tutorial's NiN chapter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Self

from .checks import ConfigError, choice, flag, real, record, whole

GlobalPool = Literal["max", "avg"]
PoolMode = Literal["max", "avg"]
Kind = Literal[
    "conv",
    "conv1x1",
    "batch_norm",
    "relu",
    "sigmoid",
    "max_pool",
    "avg_pool",
    "dropout",
    "global_max_pool",
    "global_avg_pool",
    "flatten",
    "linear",
]

# Bounds keep a typing slip (or a crafted link) from asking torch for a terabyte. They are far
# beyond what a laptop trains, and each is named in the error that it causes.
MAX_CHANNELS = 4096
MAX_KERNEL_SIZE = 63
MAX_STRIDE = 32
MAX_IMAGE_SIZE = 1024
MAX_IN_CHANNELS = 64
MAX_CLASSES = 1000
MAX_BLOCKS = 12
MAX_POINTWISE = 4
MAX_PARAMETERS = 200_000_000
MAX_ACTIVATIONS = 400_000_000  # values in all outputs of one image's forward pass


# --- the layers, in order ---------------------------------------------------------------------


class Layer(NamedTuple):
    """One layer of a network as it will be built: what `plan()` yields.

    `kernel_size`, `stride`, `padding` are in pixels (0, 1, 0 where they do not apply);
    `in_channels`/`out_channels` are channels, for a linear layer features; `rate` is a
    dropout layer's probability. `block` counts from 1, 0 for layers outside any block.
    """

    name: str
    kind: Kind
    in_channels: int
    out_channels: int
    kernel_size: int = 0
    stride: int = 1
    padding: int = 0
    bias: bool = False
    rate: float = 0.0
    block: int = 0


def output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    """Side of the map a convolution or pooling leaves: ⌊(n − k + 2p)/s⌋ + 1 (≤ 0: none is left)."""
    return (size - kernel_size + 2 * padding) // stride + 1


# --- the network ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Pooling after a block: window side, stride and padding in pixels; `mode` max or avg."""

    kernel_size: int = 3
    stride: int = 2
    padding: int = 0
    mode: PoolMode = "max"


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """A NiN block (the paper's mlpconv): a k×k convolution, then 1×1 convolutions, each + ReLU.

    Attributes:
        channels: widths; ``channels[0]`` is the k×k convolution's, every further entry is
            one 1×1 convolution's (0 to 4 of them).
        kernel_size, stride, padding: of the k×k convolution, in pixels.
        pool: pooling after the block, or None for none.
    """

    channels: tuple[int, ...]
    kernel_size: int
    stride: int = 1
    padding: int = 0
    pool: PoolConfig | None = None


@dataclass(frozen=True)
class NiNConfig:
    """A Network-in-Network: blocks, dropout before the last one, and a global pooling head.

    Attributes:
        in_channels, image_size: the input is ``in_channels × image_size × image_size``.
        num_classes: also the last width of the last block.
        blocks: the NiN blocks, first to last.
        dropout: probability of zeroing a value before the last block; 0 leaves the layer out.
        global_pool: the head over the class maps, "max" (the tutorial's code) or "avg" (its
            text and the paper).
        final_relu: whether the last convolution is followed by ReLU, as in the tutorial.
        batch_norm: batch normalisation between each convolution and its ReLU (the convolution
            then has no bias of its own, since the normalisation would subtract it).

    Raises:
        ConfigError: when made, if torch could not build it or it exceeds the bounds above.
    """

    in_channels: int
    image_size: int
    num_classes: int
    blocks: tuple[BlockConfig, ...]
    dropout: float = 0.5
    global_pool: GlobalPool = "max"
    final_relu: bool = True
    batch_norm: bool = False

    def __post_init__(self) -> None:
        _validate_network(self)

    # -- reading --

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the k×k convolution of every block but the last (whose width is classes)."""
        return tuple(block.channels[0] for block in self.blocks[:-1])

    def plan(self) -> tuple[Layer, ...]:
        """All layers in the order of the forward pass."""
        return tuple(_plan(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, for JSON; `from_dict` reads them back."""
        return asdict(self)

    # -- making others --

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Read what `to_dict` (or its JSON) gives.

        Raises:
            ConfigError: for unknown or missing fields and for an invalid network.
        """
        values = record(cls, data, "a network")
        if "blocks" not in values or not isinstance(values["blocks"], Sequence):
            raise ConfigError("a network needs a list of blocks.", field="blocks")
        blocks = []
        for index, item in enumerate(values["blocks"]):
            block = record(BlockConfig, item, f"block {index + 1}")
            if block.get("pool") is not None:
                block["pool"] = PoolConfig(
                    **record(PoolConfig, block["pool"], f"block {index + 1} pooling")
                )
            if isinstance(block.get("channels"), list):
                block["channels"] = tuple(block["channels"])
            try:
                blocks.append(BlockConfig(**block))
            except TypeError as error:
                raise ConfigError(
                    f"block {index + 1} needs channels and kernel_size.",
                    field=f"blocks[{index}]",
                ) from error
        values["blocks"] = tuple(blocks)
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(
                "a network needs in_channels, image_size, num_classes and blocks."
            ) from error

    def with_widths(self, widths: Sequence[int]) -> Self:
        """The same network with every convolution of block i as wide as ``widths[i]``.

        The last block keeps its widths, since it ends in the classes. In a block whose widths
        differ (``nin-cifar10``) all become equal.

        Raises:
            ConfigError: if the number of widths is not the number of blocks less one.
        """
        expected = len(self.blocks) - 1
        if len(widths) != expected:
            raise ConfigError(
                f"{len(widths)} widths were given, but this network has {expected} blocks before "
                f"its last, so {expected} would work, e.g. {','.join(map(str, self.widths))}.",
                field="widths",
                suggestion=self.widths,
            )
        blocks = tuple(
            replace(block, channels=(width,) * len(block.channels))
            for block, width in zip(self.blocks, widths, strict=False)
        )
        return replace(self, blocks=blocks + self.blocks[-1:])


def _plan(config: NiNConfig) -> Iterator[Layer]:
    channels = config.in_channels
    last = len(config.blocks)
    for number, block in enumerate(config.blocks, start=1):
        if number == last and config.dropout > 0:
            yield Layer("dropout", "dropout", channels, channels, rate=config.dropout)
        for index, width in enumerate(block.channels):
            is_final = number == last and index == len(block.channels) - 1
            activated = config.final_relu or not is_final
            normed = config.batch_norm and activated
            suffix = f"_{index}" if index else ""
            if index == 0:
                yield Layer(
                    f"block{number}.conv",
                    "conv",
                    channels,
                    width,
                    block.kernel_size,
                    block.stride,
                    block.padding,
                    bias=not normed,
                    block=number,
                )
            else:
                name = f"block{number}.conv1x1_{index}"
                yield Layer(
                    name, "conv1x1", channels, width, 1, 1, 0, bias=not normed, block=number
                )
            if normed:
                yield Layer(f"block{number}.bn{suffix}", "batch_norm", width, width, block=number)
            if activated:
                yield Layer(f"block{number}.relu{suffix}", "relu", width, width, block=number)
            channels = width
        if block.pool is not None:
            pool = block.pool
            kind: Kind = "max_pool" if pool.mode == "max" else "avg_pool"
            yield Layer(
                f"pool{number}",
                kind,
                channels,
                channels,
                pool.kernel_size,
                pool.stride,
                pool.padding,
            )
    head: Kind = "global_max_pool" if config.global_pool == "max" else "global_avg_pool"
    yield Layer("global_pool", head, channels, channels)
    yield Layer("flatten", "flatten", channels, channels)


def _validate_network(config: NiNConfig) -> None:
    whole(config.in_channels, "in_channels", 1, MAX_IN_CHANNELS, field="in_channels")
    whole(config.image_size, "image_size", 1, MAX_IMAGE_SIZE, field="image_size", default=28)
    whole(config.num_classes, "num_classes", 2, MAX_CLASSES, field="num_classes", default=10)
    real(config.dropout, "dropout", 0.0, 0.95, field="dropout", good=0.5)
    choice(config.global_pool, "global_pool", ("max", "avg"), field="global_pool")
    flag(config.final_relu, "final_relu", field="final_relu")
    flag(config.batch_norm, "batch_norm", field="batch_norm")
    if not isinstance(config.blocks, tuple) or not all(
        isinstance(block, BlockConfig) for block in config.blocks
    ):
        raise ConfigError("blocks must be a tuple of BlockConfig.", field="blocks")
    if not 1 <= len(config.blocks) <= MAX_BLOCKS:
        raise ConfigError(
            f"the network has {len(config.blocks)} blocks; 1 to {MAX_BLOCKS} would work.",
            field="blocks",
        )
    for index, block in enumerate(config.blocks):
        _validate_block(block, index)
    last = len(config.blocks) - 1
    final = config.blocks[last].channels[-1]
    if final != config.num_classes:
        raise ConfigError(
            f"block {last + 1} ends with {final} channels, but each class needs one class map: "
            f"its last width must be {config.num_classes}.",
            field=f"blocks[{last}].channels[{len(config.blocks[last].channels) - 1}]",
            suggestion=config.num_classes,
        )
    _validate_sizes(config)


def _validate_block(block: BlockConfig, index: int) -> None:
    where, field = f"block {index + 1}", f"blocks[{index}]"
    if not isinstance(block.channels, tuple) or not block.channels:
        raise ConfigError(
            f"{where} has no channels; (96, 96, 96) would work.",
            field=f"{field}.channels",
            suggestion=(96, 96, 96),
        )
    if len(block.channels) - 1 > MAX_POINTWISE:
        raise ConfigError(
            f"{where} has {len(block.channels) - 1} 1×1 convolutions; at most {MAX_POINTWISE} "
            "would work.",
            field=f"{field}.channels",
            suggestion=block.channels[: MAX_POINTWISE + 1],
        )
    for position, width in enumerate(block.channels):
        what = "k×k convolution" if position == 0 else f"1×1 convolution {position}"
        whole(
            width,
            f"the width of {where}'s {what}",
            1,
            MAX_CHANNELS,
            field=f"{field}.channels[{position}]",
        )
    whole(
        block.kernel_size,
        f"{where}'s kernel_size",
        1,
        MAX_KERNEL_SIZE,
        field=f"{field}.kernel_size",
        default=3,
    )
    whole(block.stride, f"{where}'s stride", 1, MAX_STRIDE, field=f"{field}.stride")
    whole(
        block.padding,
        f"{where}'s padding (below its kernel size, so that no window sees only padding)",
        0,
        block.kernel_size - 1,
        field=f"{field}.padding",
    )
    if block.pool is None:
        return
    pool = block.pool
    if not isinstance(pool, PoolConfig):
        raise ConfigError(f"{where}'s pool must be a PoolConfig or None.", field=f"{field}.pool")
    whole(
        pool.kernel_size,
        f"{where}'s pooling kernel_size",
        1,
        MAX_KERNEL_SIZE,
        field=f"{field}.pool.kernel_size",
        default=3,
    )
    whole(pool.stride, f"{where}'s pooling stride", 1, MAX_STRIDE, field=f"{field}.pool.stride")
    # torch: "pad should be at most half of effective kernel size"
    whole(
        pool.padding,
        f"{where}'s pooling padding (at most half its kernel size)",
        0,
        pool.kernel_size // 2,
        field=f"{field}.pool.padding",
    )
    choice(pool.mode, f"{where}'s pooling mode", ("max", "avg"), field=f"{field}.pool.mode")


def smallest_image_size(blocks: Sequence[BlockConfig]) -> int:
    """Smallest image side, in pixels, from which every map of these blocks is at least 1×1."""
    needed = 1
    for block in reversed(blocks):
        if block.pool is not None:
            pool = block.pool
            needed = max((needed - 1) * pool.stride + pool.kernel_size - 2 * pool.padding, 1)
        needed = max((needed - 1) * block.stride + block.kernel_size - 2 * block.padding, 1)
    return needed


def _validate_sizes(config: NiNConfig) -> None:
    """Walk the maps from the image to the head; refuse what shrinks away or cannot be held."""
    size = config.image_size
    parameters = [0] * len(config.blocks)
    activations = 0
    for layer in config.plan():
        if layer.kernel_size:
            left = output_size(size, layer.kernel_size, layer.stride, layer.padding)
            if left < 1:
                raise _too_small(config, layer, size)
            size = left
        if layer.kind in ("conv", "conv1x1"):
            weights = layer.out_channels * (layer.in_channels * layer.kernel_size**2 + 1)
            parameters[layer.block - 1] += weights
        activations += layer.out_channels * size * size
    if sum(parameters) > MAX_PARAMETERS:
        raise _too_many_parameters(config, parameters)
    if activations > MAX_ACTIVATIONS:
        # Values grow with the square of the side; a little less makes up for the rounding.
        side = int(config.image_size * math.sqrt(MAX_ACTIVATIONS / activations) * 0.95)
        works = side >= smallest_image_size(config.blocks)
        advice = f"an image size of {side} would work" if works else "use smaller widths"
        raise ConfigError(
            f"one image would have {activations:,} activations; at most {MAX_ACTIVATIONS:,} are "
            f"allowed, so {advice}.",
            field="image_size",
            suggestion=side if works else None,
        )


def _too_small(config: NiNConfig, layer: Layer, size: int) -> ConfigError:
    """The error for a window larger than the map it meets, with the nearest value that works."""
    smallest = smallest_image_size(config.blocks)
    larger = f", or an image size of at least {smallest}" if smallest <= MAX_IMAGE_SIZE else ""
    window = f"{layer.kernel_size}×{layer.kernel_size}"
    if layer.kind == "conv":
        padding = math.ceil((layer.kernel_size - size) / 2)
        return ConfigError(
            f"block {layer.block}'s {window} convolution meets a map of {size}×{size} with padding "
            f"{layer.padding}, which leaves nothing; padding {padding} would work{larger}.",
            field=f"blocks[{layer.block - 1}].padding",
            suggestion=padding,
        )
    number = int(layer.name.removeprefix("pool"))
    return ConfigError(
        f"block {number}'s {window} pooling meets a map of {size}×{size}, which leaves nothing; "
        f"no pooling here or a window of {size} would work{larger}.",
        field=f"blocks[{number - 1}].pool",
        suggestion=PoolConfig(size, 1),
    )


def _too_many_parameters(config: NiNConfig, parameters: Sequence[int]) -> ConfigError:
    """The error for a network over `MAX_PARAMETERS`: one width for all blocks that fits."""
    index = max(range(len(parameters)), key=parameters.__getitem__)
    width = MAX_CHANNELS
    blocks = config.blocks
    while width > 1 and _count_parameters(config.in_channels, blocks) > MAX_PARAMETERS:
        width //= 2
        blocks = tuple(
            replace(block, channels=tuple(min(c, width) for c in block.channels))
            for block in blocks
        )
    return ConfigError(
        f"the network would have {sum(parameters):,} parameters, most of them in block "
        f"{index + 1}; at most {MAX_PARAMETERS:,} are allowed, so widths of at most {width} "
        "would work.",
        field=f"blocks[{index}].channels",
        suggestion=width,
    )


def _count_parameters(in_channels: int, blocks: Sequence[BlockConfig]) -> int:
    total = 0
    for block in blocks:
        for index, width in enumerate(block.channels):
            total += width * (in_channels * (block.kernel_size**2 if index == 0 else 1) + 1)
            in_channels = width
    return total


def _tutorial(image_size: int, widths: tuple[int, int, int]) -> NiNConfig:
    """The tutorial's network: 11×11/4, 5×5, 3×3 and the class block, three poolings between."""
    pool = PoolConfig(3, 2)
    first, second, third = ((width,) * 3 for width in widths)
    return NiNConfig(
        in_channels=1,
        image_size=image_size,
        num_classes=10,
        blocks=(
            BlockConfig(first, kernel_size=11, stride=4, padding=0, pool=pool),
            BlockConfig(second, kernel_size=5, stride=1, padding=2, pool=pool),
            BlockConfig(third, kernel_size=3, stride=1, padding=1, pool=pool),
            BlockConfig((10, 10, 10), kernel_size=3, stride=1, padding=1),
        ),
        dropout=0.5,
        global_pool="max",
    )


PRESETS: dict[str, NiNConfig] = {
    # The two networks of the tutorial, exactly: the full one and the one it trains.
    "nin-224": _tutorial(224, (96, 256, 384)),
    "nin-slim-128": _tutorial(128, (6, 16, 24)),
    # Ours, for 28×28 images as they are: no enlargement, so an epoch is short.
    "nin-28": NiNConfig(
        in_channels=1,
        image_size=28,
        num_classes=10,
        blocks=(
            BlockConfig((32, 32, 32), kernel_size=5, padding=2, pool=PoolConfig(3, 2)),
            BlockConfig((64, 64, 64), kernel_size=5, padding=2, pool=PoolConfig(3, 2)),
            BlockConfig((64, 64, 64), kernel_size=3, padding=1),
            BlockConfig((64, 64, 10), kernel_size=3, padding=1),
        ),
        dropout=0.5,
        global_pool="avg",
        final_relu=False,
        batch_norm=True,
    ),
    # The same for accuracy in little time: convolutions of 3×3 and one 1×1 layer each, so that two
    # cores see every image often, and most channels where the maps are small.
    "nin-28-best": NiNConfig(
        in_channels=1,
        image_size=28,
        num_classes=10,
        blocks=(
            BlockConfig((24, 24), kernel_size=3, padding=1, pool=PoolConfig(3, 2)),
            BlockConfig((64, 64), kernel_size=3, padding=1, pool=PoolConfig(3, 2)),
            BlockConfig((96, 96), kernel_size=3, padding=1),
            BlockConfig((96, 10), kernel_size=3, padding=1),
        ),
        dropout=0.1,
        global_pool="avg",
        final_relu=False,
        batch_norm=True,
    ),
    # The authors' CIFAR-10 network. Pooling is padded by 1, which gives the 16×16 and 8×8 maps
    # that their framework got by rounding up; their second dropout (after block 1) is left out,
    # since dropout stands before the last block here.
    "nin-cifar10": NiNConfig(
        in_channels=3,
        image_size=32,
        num_classes=10,
        blocks=(
            BlockConfig((192, 160, 96), kernel_size=5, padding=2, pool=PoolConfig(3, 2, 1)),
            BlockConfig((192, 192, 192), kernel_size=5, padding=2, pool=PoolConfig(3, 2, 1, "avg")),
            BlockConfig((192, 192, 10), kernel_size=3, padding=1),
        ),
        dropout=0.5,
        global_pool="avg",
    ),
}


def preset(name: str) -> NiNConfig:
    """The preset of that name.

    Raises:
        ConfigError: for an unknown name; it lists the known ones.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(
            f"there is no preset {name!r}; there are {', '.join(PRESETS)}.",
            field="preset",
            suggestion="nin-slim-128",
        ) from None


def preset_name(config: NiNConfig) -> str | None:
    """The name under which this very network is a preset, or None."""
    return next((name for name, known in PRESETS.items() if known == config), None)
