"""What a configuration admits, refuses, and suggests."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nin_core import PRESETS, BlockConfig, ConfigError, NiNConfig, PoolConfig, preset, preset_name
from nin_core.config import MAX_PARAMETERS, smallest_image_size

from .strategies import networks

SLIM = PRESETS["nin-slim-128"]


def with_block(index: int, **changes: Any) -> NiNConfig:
    blocks = list(SLIM.blocks)
    blocks[index] = replace(blocks[index], **changes)
    return replace(SLIM, blocks=tuple(blocks))


def test_presets_are_the_tutorials_and_the_papers() -> None:
    assert PRESETS["nin-224"].widths == (96, 256, 384)
    assert SLIM.widths == (6, 16, 24)
    assert [block.channels for block in PRESETS["nin-cifar10"].blocks] == [
        (192, 160, 96),
        (192, 192, 192),
        (192, 192, 10),
    ]
    assert PRESETS["nin-28"].image_size == 28
    for name, config in PRESETS.items():
        assert preset(name) is config
        assert preset_name(config) == name
    assert preset_name(replace(SLIM, dropout=0.25)) is None


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'nin-9'; there are nin-224, nin-slim-128"):
        preset("nin-9")


@pytest.mark.parametrize(
    ("index", "changes", "field", "suggestion"),
    [
        (1, {"channels": (0, 16, 16)}, "blocks[1].channels[0]", 1),
        (1, {"channels": (16, -4)}, "blocks[1].channels[1]", 1),
        (1, {"channels": (16, 10**9)}, "blocks[1].channels[1]", 4096),
        (1, {"channels": (16, 2.5)}, "blocks[1].channels[1]", 1),
        (1, {"channels": (16, True)}, "blocks[1].channels[1]", 1),
        (0, {"channels": (6,) * 6}, "blocks[0].channels", (6,) * 5),
        (0, {"kernel_size": 0}, "blocks[0].kernel_size", 1),
        (0, {"stride": 0}, "blocks[0].stride", 1),
        (0, {"padding": 11}, "blocks[0].padding", 10),
        (0, {"padding": -1}, "blocks[0].padding", 0),
        (0, {"pool": PoolConfig(3, 2, 2)}, "blocks[0].pool.padding", 1),
        (0, {"pool": PoolConfig(2, 0)}, "blocks[0].pool.stride", 1),
        (3, {"channels": (10, 10, 9)}, "blocks[3].channels[2]", 10),
    ],
)
def test_a_bad_value_is_named_with_one_that_works(
    index: int, changes: dict[str, Any], field: str, suggestion: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        with_block(index, **changes)
    assert caught.value.field == field
    assert caught.value.suggestion == suggestion
    assert f"block {index + 1}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image_size": 10**6}, "image_size"),
        ({"image_size": 3.5}, "image_size"),
        ({"in_channels": 0}, "in_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"global_pool": "median"}, "global_pool"),
        ({"final_relu": 1}, "final_relu"),
        ({"batch_norm": "yes"}, "batch_norm"),
        ({"blocks": ()}, "blocks"),
        ({"blocks": SLIM.blocks * 4}, "blocks"),
    ],
)
def test_a_bad_network_value_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(SLIM, **changes)
    assert caught.value.field == field


def test_a_map_that_shrinks_away_names_the_layer_and_what_works() -> None:
    with pytest.raises(ConfigError, match=r"block 3's 3×3 pooling meets a map of 2×2") as caught:
        replace(SLIM, image_size=60)
    assert caught.value.field == "blocks[2].pool"
    smallest = smallest_image_size(SLIM.blocks)
    assert f"at least {smallest}" in str(caught.value)
    replace(SLIM, image_size=smallest)
    with pytest.raises(ConfigError):
        replace(SLIM, image_size=smallest - 1)


def test_too_many_parameters_are_refused_with_a_width_that_fits() -> None:
    wide = BlockConfig((4096, 4096, 4096), kernel_size=11, padding=5)
    last = BlockConfig((10,), kernel_size=1)
    with pytest.raises(ConfigError, match=f"{MAX_PARAMETERS:,}") as caught:
        NiNConfig(1, 16, 10, (wide, wide, last))
    width = caught.value.suggestion
    fitting = replace(wide, channels=(width,) * 3)
    assert NiNConfig(1, 16, 10, (fitting, fitting, last)).widths == (width, width)


def test_too_many_activations_are_refused_with_an_image_size_that_fits() -> None:
    blocks = (
        BlockConfig((512, 512), kernel_size=3, padding=1),
        BlockConfig((10,), kernel_size=1),
    )
    with pytest.raises(ConfigError, match="activations") as caught:
        NiNConfig(1, 1024, 10, blocks)
    assert NiNConfig(1, caught.value.suggestion, 10, blocks).image_size < 1024


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 15),
    stride=st.integers(1, 3),
    window=st.integers(1, 9),
)
def test_following_the_suggestion_passes_that_check(
    size: int, kernel: int, stride: int, window: int
) -> None:
    """A repaired value never raises the same complaint again, so repairs come to an end."""
    values: dict[str, Any] = {
        "in_channels": 1,
        "image_size": size,
        "num_classes": 3,
        "blocks": [
            {
                "channels": [4, 4],
                "kernel_size": kernel,
                "stride": stride,
                "padding": 0,
                "pool": {"kernel_size": window, "stride": 2, "padding": 0, "mode": "max"},
            },
            {"channels": [3], "kernel_size": 3, "stride": 1, "padding": 0, "pool": None},
        ],
    }
    seen: set[str] = set()
    while True:
        try:
            NiNConfig.from_dict(values)
            return
        except ConfigError as error:
            assert error.field not in seen
            seen.add(error.field)
            block = values["blocks"][int(error.field[7])]
            if error.field.endswith("padding"):
                block["padding"] = error.suggestion
            else:
                assert isinstance(error.suggestion, PoolConfig)
                block["pool"] = {"kernel_size": error.suggestion.kernel_size, "stride": 1}


@settings(deadline=None)
@given(networks())
def test_json_brings_the_same_network_back(config: NiNConfig) -> None:
    assert NiNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"blocks": 3},
        {"blocks": [{}], "in_channels": 1, "image_size": 28, "num_classes": 10},
        {**SLIM.to_dict(), "colour": "red"},
        {**SLIM.to_dict(), "blocks": [{"channels": "96", "kernel_size": 3}]},
        {**SLIM.to_dict(), "blocks": [{"channels": [10], "kernel_size": None}]},
        {**SLIM.to_dict(), "blocks": [{"channels": [10], "kernel_size": 3, "pool": 7}]},
    ],
)
def test_from_dict_refuses_what_is_not_a_network(data: object) -> None:
    with pytest.raises(ConfigError):
        NiNConfig.from_dict(data)


def test_with_widths() -> None:
    assert SLIM.with_widths((96, 256, 384)).blocks == PRESETS["nin-224"].blocks
    with pytest.raises(ConfigError, match="3 would work"):
        SLIM.with_widths((1, 2))
    with pytest.raises(ConfigError, match="block 2"):
        SLIM.with_widths((1, 0, 2))
