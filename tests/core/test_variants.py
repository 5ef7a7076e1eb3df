"""Networks changed in one respect: just that changes, in every network that can be changed so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from nin_core import PRESETS, BlockConfig, NiNConfig, summarize, variants
from nin_core.config import MAX_POINTWISE
from tests.core.strategies import networks

FULL, UNEQUAL = PRESETS["nin-224"], PRESETS["nin-cifar10"]
CHANGES = (
    *(variants.fewer_pointwise, variants.more_pointwise),
    *(variants.in_one_step, variants.in_two_steps, variants.in_the_last_layer),
)


def widths(config: NiNConfig | None) -> list[tuple[int, ...]]:
    assert config is not None
    return [block.channels for block in config.blocks]


def test_the_tutorials_network_with_one_layer_fewer_and_one_more() -> None:
    fewer, more = variants.fewer_pointwise(FULL), variants.more_pointwise(FULL)
    assert widths(fewer) == [(96, 96), (256, 256), (384, 384), (10, 10)]
    assert widths(more) == [(96,) * 4, (256,) * 4, (384,) * 4, (10,) * 4]
    now = summarize(FULL).total_parameters
    layer = 96 * 97 + 256 * 257 + 384 * 385 + 10 * 11
    assert fewer is not None
    assert more is not None
    assert summarize(fewer).total_parameters == now - layer
    assert summarize(more).total_parameters == now + layer


def test_unequal_widths() -> None:
    assert widths(variants.fewer_pointwise(UNEQUAL)) == [(192, 160), (192, 192), (192, 10)]
    assert widths(variants.more_pointwise(UNEQUAL)) == [
        *((192, 160, 96, 96), (192,) * 4, (192, 192, 192, 10)),
    ]


def test_a_step_between_384_and_10() -> None:
    assert variants.incoming_channels(FULL) == 384
    assert variants.half_way(FULL) == 61
    assert widths(variants.in_two_steps(FULL))[-1] == (61, 61, 10)
    assert widths(variants.in_the_last_layer(FULL))[-1] == (384, 384, 10)
    assert variants.in_one_step(FULL) is None  # it does so already
    assert widths(variants.in_one_step(UNEQUAL))[-1] == (10, 10, 10)
    assert variants.in_the_last_layer(UNEQUAL) is None  # as the authors have it


def test_where_there_is_nothing_to_change() -> None:
    lone = NiNConfig(1, 9, 10, (BlockConfig((8,), 3), BlockConfig((10,), 3)))
    assert variants.fewer_pointwise(lone) is None
    assert variants.half_way(lone) is None
    assert variants.in_two_steps(lone) is None
    assert variants.in_the_last_layer(lone) is None
    assert widths(variants.more_pointwise(lone)) == [(8, 8), (10, 10)]
    full = (8,) * (MAX_POINTWISE + 1)
    crowded = NiNConfig(1, 9, 10, (BlockConfig(full, 3), BlockConfig((*full[1:], 10), 3)))
    assert variants.more_pointwise(crowded) is None
    wide = NiNConfig(1, 9, 10, (BlockConfig((90,), 3), BlockConfig((10,), 3)))
    assert widths(variants.in_two_steps(wide)) == [(90,), (30, 10)]


@settings(max_examples=60, deadline=None)
@given(networks())
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_but_channels_changes(change, config: NiNConfig) -> None:
    changed = change(config)
    if changed is None:
        return
    assert changed != config
    back = [
        replace(block, channels=before.channels)
        for block, before in zip(changed.blocks, config.blocks, strict=True)
    ]
    assert replace(changed, blocks=tuple(back)) == config
    field = [layer.receptive_field for layer in summarize(config).layers][-1]
    assert [layer.receptive_field for layer in summarize(changed).layers][-1] == field
