"""Written arithmetic, read back and computed, against the table."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nin_core import PRESETS, ConfigError, LayerSummary, NetworkSummary, NiNConfig, summarize
from nin_core.arithmetic import SYMBOLS, Formula, arithmetic, sums
from nin_core.operations import lost_pixels, operations
from nin_core.reference_nets import REFERENCE_NETS, reference_summary

from .strategies import networks


def value(written: str) -> int:
    """Compute arithmetic as people write it: 2·96 + ⌊(1,024 − 11)/4⌋."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", written)
    for sign, operator in (("·", "*"), ("−", "-"), ("⌊", "floor("), ("⌋", ")")):
        plain = plain.replace(sign, operator)
    exact = re.sub(r"\d+", r"Fraction(\g<0>)", plain)
    result = eval(
        exact,
        {"__builtins__": {}},
        {  # our own text, digits and signs only
            "Fraction": Fraction,
            "floor": math.floor,
            "max": max,
        },
    )
    assert result == int(result)
    return int(result)


def figure(layer: LayerSummary, name: str) -> int:
    """A figure of the table by its name."""
    if name == "output_size":
        return layer.output_shape[-1]
    if name == "lost_pixels":
        return lost_pixels(layer)
    if name in ("comparisons", "additions", "multiplications"):
        return getattr(operations(layer), name)
    return getattr(layer, name)


def check(network: NetworkSummary) -> None:
    """Every formula of every layer: as written, as computed and as in the table."""
    for layer in network.layers:
        formulas = arithmetic(network, layer.name)
        assert len({formula.figure for formula in formulas}) == len(formulas)
        shown = {formula.figure for formula in formulas}
        assert shown >= {
            *("output_size", "parameters", "macs", "receptive_field", "effective_stride"),
            *("activation_bytes", "saved_bytes"),
        }
        assert ("lost_pixels" in shown) == bool(layer.kernel_size)
        counted = operations(layer)
        for name in counted._fields:
            assert name in shown or not getattr(counted, name)
        for formula in formulas:
            assert formula.result == figure(layer, formula.figure), formula
            assert bool(formula.rule) == bool(formula.worked)
            assert formula.words.endswith((".", ")")), formula
            if formula.worked:
                assert value(formula.worked) == formula.result, formula
                assert same_form(formula), formula
                assert formula.text.startswith(f"{formula.worked} = {formula.result:,}")
            elif formula.figure in ("parameters", "macs", "saved_bytes"):
                assert formula.result == 0, formula


def same_form(formula: Formula) -> bool:
    """Whether rule and worked formula differ only in letters against numbers."""
    letters = "|".join(sorted(SYMBOLS, key=len, reverse=True))
    rule = re.sub(r"\d(?=p)", r"\g<0>·", formula.rule)  # 2p
    rule = re.sub("max", "M", rule)
    rule = re.sub(rf"(?:{letters}|\d+)", "#", rule)
    worked = re.sub("max", "M", formula.worked)
    return rule == re.sub(r"\d[\d,]*(?!\d)(?<!,)", "#", worked)


@settings(max_examples=300, deadline=None)
@given(config=networks(), batch_size=st.sampled_from([1, 2, 64, 1000]))
def test_what_is_written_is_what_the_table_says(config: NiNConfig, batch_size: int) -> None:
    check(summarize(config, batch_size))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(name: str) -> None:
    check(summarize(PRESETS[name], 128))


@pytest.mark.parametrize("name", REFERENCE_NETS)
def test_dense_layers_too(name: str) -> None:
    check(reference_summary(name, 1, 224, 10, batch_size=4))


def test_the_first_layer_of_nin_224_as_in_the_tutorial() -> None:
    network = summarize(PRESETS["nin-224"], 128)
    written = {formula.figure: formula.text for formula in arithmetic(network, "block1.conv")}
    assert written["output_size"] == "⌊(224 − 11 + 2·0)/4⌋ + 1 = 54 px"
    assert written["lost_pixels"] == "max(0, 224 − ((54 − 1)·4 + 11 − 0)) = 1 px"
    assert written["parameters"] == "96·(1·11·11) + 96 = 11,712"
    assert written["macs"] == "54·54·96·(1·11·11) = 33,872,256"
    assert written["additions"] == "96·54·54 = 279,936"
    assert written["receptive_field"] == "1 + (11 − 1)·1 = 11 px"
    assert written["effective_stride"] == "1·4 = 4 px"
    assert written["activation_bytes"] == "128·96·54·54·4 = 143,327,232 B"
    assert written["saved_bytes"] == "0 B"
    pool = {formula.figure: formula.text for formula in arithmetic(network, "pool1")}
    assert pool["comparisons"] == "96·26·26·(3·3 − 1) = 519,168"
    assert pool["receptive_field"] == "11 + (3 − 1)·4 = 19 px"
    assert pool["saved_bytes"] == "128·96·26·26·4 + 128·96·26·26·8 = 99,680,256 B"


def test_a_layer_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no layer 'block9"):
        arithmetic(summarize(PRESETS["nin-28"]), "block9.conv")


@settings(max_examples=100, deadline=None)
@given(config=networks(), batch_size=st.integers(1, 3))
def test_sums_are_the_blocks(config: NiNConfig, batch_size: int) -> None:
    network = summarize(config, batch_size)
    for block in network.blocks:
        members = [layer for layer in network.layers if layer.block == block.block != 0]
        if not members:
            continue
        for formula in sums(members):
            if formula.figure == "other_operations":
                assert formula.result == operations(*members).total
            else:
                assert formula.result == getattr(block, formula.figure)
            if formula.worked:
                assert value(formula.worked) == formula.result
