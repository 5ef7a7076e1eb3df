"""A link reproduces the network it was made from, and a broken one says what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nin_core import PRESETS, ConfigError, NiNConfig
from ui.link import KEYS, from_query, to_query

from .strategies import networks


@settings(max_examples=200, deadline=None)
@given(config=networks(), base=st.sampled_from(sorted(PRESETS)))
def test_round_trip(config: NiNConfig, base: str) -> None:
    query = to_query(config, base)
    assert set(query) <= set(KEYS)
    assert from_query(query) == (base, config)


def test_only_the_difference_is_written() -> None:
    for name, config in PRESETS.items():
        assert to_query(config, name) == {"net": name}
    slim = PRESETS["nin-slim-128"]
    changed = replace(slim.with_widths((8, 16, 32)), global_pool="avg", final_relu=False)
    assert to_query(changed, "nin-slim-128") == {
        "net": "nin-slim-128",
        "widths": "8-16-32",
        "head": "avg",
        "relu": "0",
    }


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"net": "vgg"}, "no preset 'vgg'"),
        ({"widths": "8-16"}, "3 would work"),
        ({"widths": "8-x-16"}, "widths=x cannot be read"),
        ({"widths": "8-0-16"}, "block 2"),
        ({"image": "1e3"}, "image=1e3 cannot be read"),
        ({"image": "20"}, "pooling meets"),
        ({"dropout": "half"}, "dropout=half"),
        ({"dropout": "nan"}, "not a number"),
        ({"head": "sum"}, "'max', 'avg'"),
        ({"relu": "maybe"}, "relu=maybe"),
        ({"blocks": "96-96_k3"}, "blocks=96-96_k3"),
        ({"blocks": "10_k3s1p1_max3s2p9"}, "pooling padding"),
    ],
)
def test_a_broken_link_says_what_is_wrong(query: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_query(query)
