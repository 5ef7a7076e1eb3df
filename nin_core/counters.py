"""One network, five counters, as many figures: what each tool counts, by rule, in closed form.

Choices made here:

* Every figure is taken apart into terms that add up to it exactly. The first term is always the
  same, our multiply-accumulates of the convolutions; the others are what the tool counts on top.
* A term is so many operations a value, times so many values, so that each can be checked by hand.
* The rules are read off the layers' shapes; no tool and no torch is needed. That they are the
  tools' own is tested against the tools (tests/core/test_counters.py, which names their versions).
* All figures are for one image in eval mode. In training mode fvcore alone counts otherwise: 5
  operations a value of a batch norm in place of 2.

Sources: fvcore.nn.FlopCountAnalysis, thop.profile, torchinfo.summary (total_mult_adds),
ptflops.get_model_complexity_info (its default backend), torch.utils.flop_counter.FlopCounterMode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .checks import ConfigError
from .summary import LayerSummary, NetworkSummary


class Term(NamedTuple):
    """A part of a figure.

    `name` says what is counted ("biases"), `rule` how: `each` operations for every one of `values`
    of the kind that the rule names.
    """

    name: str
    rule: str
    each: int
    values: int

    @property
    def count(self) -> int:
        """What the term contributes."""
        return self.each * self.values


class ToolCount(NamedTuple):
    """What a tool says about a network.

    `quantity` is what the tool calls its figure. `terms` add up to it; the first are the
    convolutions' multiply-accumulates, and a term that is 0 for this network is left out.
    `leaves_out` names what the network has and the tool does not count.
    """

    tool: str
    quantity: str
    terms: tuple[Term, ...]
    leaves_out: tuple[str, ...]

    @property
    def figure(self) -> int:
        """The tool's figure for one image."""
        return sum(term.count for term in self.terms)

    @property
    def extra(self) -> int:
        """What the tool counts on top of the convolutions' multiply-accumulates."""
        return self.figure - self.terms[0].count


def count_like_tools(network: NetworkSummary) -> tuple[ToolCount, ...]:
    """The figures of fvcore, thop, torchinfo, ptflops and torch's FlopCounterMode.

    Args:
        network: a NiN's summary, of any batch size; all figures are for one image.

    Raises:
        ConfigError: for a network with layers whose rules are not here (dense ones, sigmoids).
    """
    values = _Values(network)
    return tuple(_count(tool, values) for tool in _RULES)


# --- the values that rules speak of -----------------------------------------------------------


class _Values:
    """How many values of each kind one image's forward pass has."""

    def __init__(self, network: NetworkSummary) -> None:
        for layer in network.layers:
            if layer.kind not in _KNOWN:
                raise ConfigError(
                    f"{layer.name} is a {layer.kind} layer, which the counters' rules do not cover."
                )
        self._layers = network.layers
        self.macs = network.total_macs
        self.biased = sum(_outputs(layer) for layer in self._of("conv", "conv1x1") if _bias(layer))
        self.normed = self._outputs_of("batch_norm")
        self.norm_parameters = sum(layer.parameters for layer in self._of("batch_norm"))
        self.relu = self._outputs_of("relu")
        self.pooled_from = self._inputs_of("max_pool", "avg_pool")
        self.averages = self._outputs_of("avg_pool")
        self.head_from = self._inputs_of("global_max_pool", "global_avg_pool")
        self.averaged_from = self._inputs_of("global_avg_pool")
        self.global_averages = self._outputs_of("global_avg_pool")

    def _of(self, *kinds: str) -> list[LayerSummary]:
        return [layer for layer in self._layers if layer.kind in kinds]

    def _inputs_of(self, *kinds: str) -> int:
        return sum(math.prod(layer.input_shape) for layer in self._of(*kinds))

    def _outputs_of(self, *kinds: str) -> int:
        return sum(map(_outputs, self._of(*kinds)))


_KNOWN = {
    *("conv", "conv1x1", "batch_norm", "relu", "dropout", "flatten"),
    *("max_pool", "avg_pool", "global_max_pool", "global_avg_pool"),
}


def _outputs(layer: LayerSummary) -> int:
    return math.prod(layer.output_shape)


def _bias(layer: LayerSummary) -> bool:
    """Whether a convolution has biases: parameters beyond its weights, each used at every place."""
    _, height, width = layer.output_shape
    return layer.parameters > layer.macs // (height * width)


# --- the rules --------------------------------------------------------------------------------

# What a network can have besides its convolutions' multiply-accumulates, and in which terms it
# shows: a tool leaves out what the network has and none of its terms names.
_BIASES = "biases"
_NORM = "batch norm"
_RELU = "ReLU"
_POOLING = "pooling"
_HEAD = "global pooling"


def _fvcore(v: _Values) -> list[Term]:
    return [
        Term(_NORM, "scale and shift each value", 2, v.normed),
        Term(_HEAD, "1 a value averaged; maxima are free", 1, v.averaged_from),
    ]


def _thop(v: _Values) -> list[Term]:
    return [
        Term(_NORM, "subtract, divide, scale, shift each value", 4, v.normed),
        Term(_POOLING, "1 an average given; maxima are free", 1, v.averages),
        Term(_HEAD, "1 a value averaged", 1, v.averaged_from),
        Term(_HEAD, "a division an average", 1, v.global_averages),
    ]


def _torchinfo(v: _Values) -> list[Term]:
    return [
        Term(_BIASES, "1 addition an output value", 1, v.biased),
        Term(_NORM, "1 a parameter, not 1 a value", 1, v.norm_parameters),
    ]


def _ptflops(v: _Values) -> list[Term]:
    return [
        Term(_BIASES, "1 addition an output value", 1, v.biased),
        Term(_NORM, "scale and shift each value", 2, v.normed),
        Term(_RELU, "1 a value, but counted twice, as module and as function", 2, v.relu),
        Term(_POOLING, "1 a value that goes in, counted twice, too", 2, v.pooled_from),
        Term(_HEAD, "1 a value that goes in, counted twice, too", 2, v.head_from),
    ]


def _flop_counter_mode(v: _Values) -> list[Term]:
    return [Term("additions", "each beside its multiplication", 1, v.macs)]


class _Rule(NamedTuple):
    tool: str
    quantity: str
    terms: Callable[[_Values], list[Term]]


_RULES = (
    _Rule("fvcore", "FLOPs", _fvcore),
    _Rule("thop", "MACs", _thop),
    _Rule("torchinfo", "mult-adds", _torchinfo),
    _Rule("ptflops", "MACs", _ptflops),
    _Rule("FlopCounterMode", "FLOPs", _flop_counter_mode),
)


def _count(rule: _Rule, v: _Values) -> ToolCount:
    convolutions = Term("convolutions", "1 a multiply-accumulate", 1, v.macs)
    terms = [term for term in rule.terms(v) if term.count]
    named = {term.name for term in terms}
    has = {
        _BIASES: v.biased,
        _NORM: v.normed,
        _RELU: v.relu,
        _POOLING: v.pooled_from,
        _HEAD: v.head_from,
    }
    missed = tuple(name for name, values in has.items() if values and name not in named)
    return ToolCount(rule.tool, rule.quantity, (convolutions, *terms), missed)
