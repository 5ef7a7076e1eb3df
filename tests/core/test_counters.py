"""Each tool's figure by rule against the tool itself, on the real module.

The oracles are the tools, in the versions that `requirements-dev.txt` installs; a tool that cannot
be imported is skipped, in CI that is a failure.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from nin_core import (
    PRESETS,
    BlockConfig,
    ConfigError,
    NiNConfig,
    PoolConfig,
    build_nin,
    summarize,
)
from nin_core.counters import count_like_tools
from nin_core.reference_nets import reference_summary
from tests.conftest import missing

from .strategies import networks

Shape = tuple[int, int, int]


def _fvcore(model: nn.Module, shape: Shape) -> float:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, torch.zeros(1, *shape))
    analysis.unsupported_ops_warnings(False)
    return analysis.total()


def _thop(model: nn.Module, shape: Shape) -> float:
    import thop

    return thop.profile(model, (torch.zeros(1, *shape),), verbose=False)[0]


def _torchinfo(model: nn.Module, shape: Shape) -> float:
    import torchinfo

    return torchinfo.summary(model, (1, *shape), verbose=0).total_mult_adds


def _ptflops(model: nn.Module, shape: Shape) -> float:
    from ptflops import get_model_complexity_info

    figure, _ = get_model_complexity_info(
        model, shape, as_strings=False, print_per_layer_stat=False
    )
    assert figure is not None
    return float(figure)


def _flop_counter_mode(model: nn.Module, shape: Shape) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    return counter.get_total_flops()


# tool: the module that must be importable, and how it is asked
TOOLS: dict[str, tuple[str, Callable[[nn.Module, Shape], float]]] = {
    "fvcore": ("fvcore.nn", _fvcore),
    "thop": ("thop", _thop),
    "torchinfo": ("torchinfo", _torchinfo),
    "ptflops": ("ptflops", _ptflops),
    "FlopCounterMode": ("torch.utils.flop_counter", _flop_counter_mode),
}

SLIM = PRESETS["nin-slim-128"]
ODD: dict[str, NiNConfig] = {
    "average head": replace(SLIM, global_pool="avg"),
    "batch norm": replace(SLIM, batch_norm=True),
    "batch norm, no final ReLU": replace(SLIM, batch_norm=True, final_relu=False),
    "no final ReLU, no dropout": replace(SLIM, final_relu=False, dropout=0.0),
    "one block, one layer": NiNConfig(3, 8, 2, (BlockConfig((2,), 3),)),
    "average pooling": replace(
        SLIM,
        blocks=tuple(
            replace(block, pool=block.pool and replace(block.pool, mode="avg"))
            for block in SLIM.blocks
        ),
    ),
    "0 to 4 1×1 layers": NiNConfig(
        2,
        33,
        7,
        (
            BlockConfig((5,), 5, 2, 1, PoolConfig(3, 2, 1, "avg")),
            BlockConfig((6, 4), 3, 1, 1, PoolConfig(2, 2)),
            BlockConfig((8, 6, 5), 1),
            BlockConfig((4, 9, 3, 5), 3, 1, 2),
            BlockConfig((5, 6, 8, 9, 7), 3, 1, 1),
        ),
        global_pool="avg",
        batch_norm=True,
    ),
}


def ask(tool: str, config: NiNConfig) -> float:
    module, count = TOOLS[tool]
    try:
        import_module(module)
    except ImportError as error:
        missing(f"{tool} cannot be imported ({error}); pip install -r requirements-dev.txt.")
    # A model of its own: thop and ptflops write into the modules they look at.
    model = build_nin(config).eval()
    return count(model, (config.in_channels, config.image_size, config.image_size))


def by_rule(config: NiNConfig) -> dict[str, int]:
    return {count.tool: count.figure for count in count_like_tools(summarize(config))}


@pytest.mark.parametrize("config", [*PRESETS.values(), *ODD.values()], ids=[*PRESETS, *ODD])
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_rule_gives_the_tools_own_figure(tool: str, config: NiNConfig) -> None:
    assert by_rule(config)[tool] == ask(tool, config)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_rule_holds_for_random_networks(tool: str) -> None:
    @settings(max_examples=20, deadline=None)
    @given(config=networks())
    def compare(config: NiNConfig) -> None:
        assert by_rule(config)[tool] == ask(tool, config)

    compare()


def test_the_figures_of_nin_224_are_the_measured_ones() -> None:
    """What the tools said of the tutorial's network; with the average head of its text, for two."""
    assert summarize(PRESETS["nin-224"]).total_macs == 762_297_352
    figures = by_rule(PRESETS["nin-224"])
    assert figures["torchinfo"] == 763_822_966
    assert figures["ptflops"] == 767_891_270
    assert figures["FlopCounterMode"] == 1_524_594_704
    average = by_rule(replace(PRESETS["nin-224"], global_pool="avg"))
    assert average["fvcore"] == 762_297_602
    assert average["thop"] == 762_297_612


@settings(max_examples=100, deadline=None)
@given(config=networks())
def test_terms_add_up_and_nothing_is_left_unsaid(config: NiNConfig) -> None:
    network = summarize(config, batch_size=3)
    for count in count_like_tools(network):
        assert count.terms[0].count == network.total_macs
        assert count.figure == sum(term.each * term.values for term in count.terms)
        assert count.extra == count.figure - network.total_macs
        assert all(term.count > 0 and term.rule for term in count.terms)
        assert not {term.name for term in count.terms} & set(count.leaves_out)
        # Whatever the network has is either counted or said not to be.
        assert "global pooling" in (*count.leaves_out, *(term.name for term in count.terms))


def test_other_networks_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="sigmoid layer"):
        count_like_tools(reference_summary("LeNet", 1, 28, 10))


def test_counting_needs_neither_torch_nor_a_tool() -> None:
    code = (
        "import sys; from nin_core import PRESETS, summarize\n"
        "from nin_core.counters import count_like_tools\n"
        "count_like_tools(summarize(PRESETS['nin-224']))\n"
        "print([m for m in ('torch', 'fvcore', 'thop', 'ptflops') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
