"""A network changed in one respect, for the tutorial's exercises on NiN's blocks.

Exercise 2 asks why a block has two 1×1 convolutions, exercise 4 what is lost when 384 channels
become 10 class maps in one step. Each function returns the changed network, or None where it
cannot be changed so. A change that is refused by the bounds of `config.py` is None as well.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from .checks import ConfigError
from .config import MAX_POINTWISE, BlockConfig, NiNConfig


def fewer_pointwise(config: NiNConfig) -> NiNConfig | None:
    """One 1×1 convolution fewer in every block that has one; the last block keeps its classes."""
    *body, last = config.blocks
    blocks = [_without_last(block) for block in body]
    channels = last.channels
    if len(channels) > 1:
        last = replace(last, channels=(*channels[:-2], channels[-1]))
    return _changed(config, (*blocks, last))


def more_pointwise(config: NiNConfig) -> NiNConfig | None:
    """One 1×1 convolution more in every block that can take one, as wide as the one before it."""
    *body, last = config.blocks
    blocks = [
        replace(block, channels=(*block.channels, block.channels[-1]))
        if len(block.channels) <= MAX_POINTWISE
        else block
        for block in body
    ]
    if len(last.channels) <= MAX_POINTWISE:
        # Before the class maps, as wide as what it follows; a lone convolution makes class maps.
        width = last.channels[-2] if len(last.channels) > 1 else last.channels[-1]
        last = replace(last, channels=(*last.channels[:-1], width, last.channels[-1]))
    return _changed(config, (*blocks, last))


def incoming_channels(config: NiNConfig) -> int:
    """Channels that the last block receives: the tutorial's 384."""
    return config.blocks[-2].channels[-1] if len(config.blocks) > 1 else config.in_channels


def in_one_step(config: NiNConfig) -> NiNConfig | None:
    """The last block as wide as the classes throughout: its k×k convolution narrows at once."""
    return _narrowing(config, config.num_classes)


def half_way(config: NiNConfig) -> int | None:
    """A width between the last block's input and the classes, as far from both in proportion.

    √(384 · 10) = 61; None where no whole number lies between.
    """
    before, after = incoming_channels(config), config.num_classes
    between = isqrt(before * after)
    return between if after < between < before else None


def in_two_steps(config: NiNConfig) -> NiNConfig | None:
    """The last block `half_way` wide before its last layer."""
    between = half_way(config)
    return None if between is None else _narrowing(config, between)


def in_the_last_layer(config: NiNConfig) -> NiNConfig | None:
    """The last block as wide as its input until its last 1×1 convolution, as the paper has it."""
    before = incoming_channels(config)
    return _narrowing(config, before) if before > config.num_classes else None


def _narrowing(config: NiNConfig, width: int) -> NiNConfig | None:
    """The last block `width` wide but for the classes; a lone convolution gets a 1×1 after it."""
    last = config.blocks[-1]
    number = max(len(last.channels) - 1, int(width != config.num_classes))
    changed = replace(last, channels=(width,) * number + last.channels[-1:])
    return _changed(config, (*config.blocks[:-1], changed))


def _without_last(block: BlockConfig) -> BlockConfig:
    return replace(block, channels=block.channels[:-1]) if len(block.channels) > 1 else block


def _changed(config: NiNConfig, blocks: tuple[BlockConfig, ...]) -> NiNConfig | None:
    if blocks == config.blocks:
        return None
    try:
        return replace(config, blocks=blocks)
    except ConfigError:
        return None
