"""A layer's figures worked out: the rule, this layer's numbers put in, and why, in words.

    ⌊(224 − 11 + 2·0)/4⌋ + 1 = 54

Choices made here:

* A formula is written from the layer's own numbers and carries the figure of the table. A test
  reads the written arithmetic back, computes it and compares, so neither can be wrong alone.
* One letter means one thing in every rule (`SYMBOLS`).
* A figure that needs no arithmetic (ReLU learns nothing) has its sentence and no formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .checks import ConfigError
from .operations import biases, lost_pixels, operations, window
from .summary import BYTES, INDEX_BYTES, KEEPS_INPUT, LayerSummary, NetworkSummary

SYMBOLS = {
    "n": "side of the input map",
    "m": "side of the output map",
    "k": "side of the window",
    "s": "stride",
    "p": "padding",
    "Cᵢ": "channels (or features) in",
    "Cₒ": "channels (or features) out",
    "r": "receptive field before",
    "j": "effective stride before",
    "N": "images in a batch",
}


class Formula(NamedTuple):
    """One figure of a layer and where it comes from.

    Attributes:
        figure: what it is a figure of: a field of `LayerSummary` or `Operations`, "output_size"
            (side of the map, or features) or "lost_pixels".
        title: the same for people.
        rule: the formula in the letters of `SYMBOLS`; empty where there is nothing to compute.
        worked: the same with numbers in place of letters; its value is `result`.
        result: the figure.
        unit: "px", "B" or nothing.
        words: why, in a sentence.
    """

    figure: str
    title: str
    rule: str
    worked: str
    result: int
    unit: str
    words: str

    @property
    def text(self) -> str:
        """The worked formula with its result, or the result alone."""
        result = f"{self.result:,}{f' {self.unit}' if self.unit else ''}"
        return f"{self.worked} = {result}" if self.worked else result


def arithmetic(network: NetworkSummary, name: str) -> tuple[Formula, ...]:
    """Every figure of the layer `name`, worked out; byte figures for the network's batch.

    Raises:
        ConfigError: if the network has no layer of that name.
    """
    names = [layer.name for layer in network.layers]
    if name not in names:
        raise ConfigError(
            f"{network.name} has no layer {name!r}; it has {', '.join(names)}.",
            field="name",
            suggestion=names[0],
        )
    index = names.index(name)
    layer = network.layers[index]
    before = network.layers[index - 1] if index else None
    following = network.layers[index + 1] if index + 1 < len(names) else None
    return (
        *_output(layer),
        _parameters(layer, network),
        _macs(layer, network),
        *_operations(layer),
        *_view(layer, before),
        _activations(layer, network.batch_size),
        _saved(layer, before, following, network.batch_size),
    )


def sums(layers: Sequence[LayerSummary]) -> tuple[Formula, ...]:
    """What adds up over layers that share a row of the table, layer by layer."""
    columns = (
        ("parameters", "Parameters", "", [layer.parameters for layer in layers]),
        ("macs", "MACs", "", [layer.macs for layer in layers]),
        (
            "other_operations",
            "Other operations",
            "",
            [operations(layer).total for layer in layers],
        ),
        ("activation_bytes", "Activations", "B", [layer.activation_bytes for layer in layers]),
        ("saved_bytes", "Kept for backward", "B", [layer.saved_bytes for layer in layers]),
    )
    return tuple(
        Formula(
            figure,
            title,
            "",
            " + ".join(f"{count:,}" for count in counts if count)
            if sum(map(bool, counts)) > 1
            else "",
            sum(counts),
            unit,
            "",
        )
        for figure, title, unit, counts in columns
    )


# --- what comes out ---------------------------------------------------------------------------


def _output(layer: LayerSummary) -> tuple[Formula, ...]:
    """The output's size, and what of the input is never looked at."""
    size = layer.output_shape[-1]
    title = "Output features" if len(layer.output_shape) == 1 else "Output side"
    unit = "" if len(layer.output_shape) == 1 else "px"
    shape = "×".join(map(str, layer.output_shape))

    def made(rule: str, worked: str, words: str) -> Formula:
        return Formula("output_size", title, rule, worked, size, unit, words)

    if layer.kernel_size:
        n, k, s, p = layer.input_shape[1], layer.kernel_size, layer.stride, layer.padding
        what = "one map a filter" if layer.kind.startswith("conv") else "each map by itself"
        output = made(
            "⌊(n − k + 2p)/s⌋ + 1",
            f"⌊({n:,} − {k} + 2·{p})/{s}⌋ + 1",
            f"How often the window fits, step by step; {what}, so the output is {shape}.",
        )
        return output, _lost(layer)
    match layer.kind:
        case "global_max_pool" | "global_avg_pool":
            return (made("", "", f"One window over the whole map, so one value a map: {shape}."),)
        case "flatten":
            channels, height, width = layer.input_shape
            worked = f"{channels:,}·{height:,}·{width:,}"
            return (made("Cᵢ·n·n", worked, "The same values as one row of numbers."),)
        case "linear":
            return (made("", "", "One value a unit."),)
        case _:
            return (made("", "", f"Each value becomes one value: the shape stays {shape}."),)


def _lost(layer: LayerSummary) -> Formula:
    n, m = layer.input_shape[1], layer.output_shape[1]
    k, s, p = layer.kernel_size, layer.stride, layer.padding
    rule = "max(0, n − ((m − 1)·s + k − p))"
    worked = f"max(0, {n:,} − (({m:,} − 1)·{s} + {k} − {p}))"
    lost = lost_pixels(layer)
    if s > k:
        rule += " + (m − 1)·(s − k)"
        worked += f" + ({m:,} − 1)·({s} − {k})"
        words = "Columns and rows after the last window, and those between windows."
    elif lost:
        words = (
            "Columns at the right, and rows at the bottom, after the last window: a further step "
            "does not fit, which is what ⌊ ⌋ rounds away."
        )
    else:
        words = "The last window reaches the border: no column or row is left out."
    return Formula("lost_pixels", "Pixels lost a side", rule, worked, lost, "px", words)


# --- what it costs ----------------------------------------------------------------------------


def _window(layer: LayerSummary) -> tuple[str, str]:
    """The weights one output value is made with: (rule, with numbers)."""
    k = layer.kernel_size
    return "(Cᵢ·k·k)", f"({layer.input_shape[0]:,}·{k}·{k})"


def _parameters(layer: LayerSummary, network: NetworkSummary) -> Formula:
    rule = worked = ""
    channels = layer.output_shape[0]
    match layer.kind:
        case "conv" | "conv1x1" | "linear":
            if layer.kind == "linear":
                inside = ("Cᵢ", f"{layer.input_shape[0]:,}")
                words = "Every unit has a weight for every feature"
            else:
                inside = _window(layer)
                words = f"{channels:,} filters of {inside[1].strip('()')} weights"
            rule, worked = f"Cₒ·{inside[0]}", f"{channels:,}·{inside[1]}"
            if biases(layer):
                rule, worked = f"{rule} + Cₒ", f"{worked} + {channels:,}"
                words += ", and a bias each"
            else:
                words += "; no biases, since batch norm follows and would subtract them"
        case "batch_norm":
            rule, worked = "2·Cₒ", f"2·{channels:,}"
            words = "A scale and a shift for each channel"
        case _:
            words = "Nothing to learn"
    return Formula(
        "parameters",
        "Parameters",
        rule,
        worked,
        layer.parameters,
        "",
        words + _share(layer.parameters, network.total_parameters),
    )


def _macs(layer: LayerSummary, network: NetworkSummary) -> Formula:
    rule = worked = ""
    channels = layer.output_shape[0]
    match layer.kind:
        case "conv" | "conv1x1":
            inside = _window(layer)
            m = layer.output_shape[1]
            rule, worked = f"m·m·Cₒ·{inside[0]}", f"{m:,}·{m:,}·{channels:,}·{inside[1]}"
            words = "Every filter, at every place of the output"
        case "linear":
            rule, worked = "Cₒ·Cᵢ", f"{channels:,}·{layer.input_shape[0]:,}"
            words = "Every weight is used once"
        case _:
            words = "No weight is multiplied with an input"
    return Formula(
        "macs", "MACs", rule, worked, layer.macs, "", words + _share(layer.macs, network.total_macs)
    )


def _share(count: int, total: int) -> str:
    if not count:
        return "."
    percent = 100 * count / total
    written = "under 0.1" if percent < 0.05 else f"{percent:.1f}"
    return f": {written}\u00a0% of the network's {total:,}."


def _operations(layer: LayerSummary) -> tuple[Formula, ...]:
    """Comparisons, additions and multiplications that are no MACs, as far as there are any."""
    found = operations(layer)
    values, numbers = _values(layer.output_shape)
    if not found.total:
        alone = "A window of one value needs no comparison."
        words = {
            "dropout": "In evaluation dropout passes every value on. (In training it multiplies "
            "each by its mask: 0, or 1/(1 − rate).)",
            "flatten": "Nothing is computed and nothing copied.",
            "max_pool": alone,
            "global_max_pool": alone,
        }.get(layer.kind, "No bias to add.")
        return (Formula("comparisons", "Other operations", "", "", 0, "", words),)

    def made(figure: str, rule: str, worked: str, words: str) -> Formula:
        return Formula(figure, figure.capitalize(), rule, worked, getattr(found, figure), "", words)

    match layer.kind:
        case "relu":
            return (made("comparisons", values, numbers, "Each value with 0."),)
        case "max_pool" | "global_max_pool":
            words = "To find the largest of a window takes one less than it has values."
            return (made("comparisons", *_less_one_a_window(layer), words),)
        case "avg_pool" | "global_avg_pool":
            return (
                made("additions", *_less_one_a_window(layer), "Each window is added up."),
                made(
                    "multiplications",
                    values,
                    numbers,
                    "Each sum is divided by the number of values in a window, padding counted.",
                ),
            )
        case "batch_norm":
            words = "Mean and variance are known in evaluation: what is left is a·x + b a value."
            return (
                made("additions", values, numbers, words),
                made("multiplications", values, numbers, "The a of a·x + b."),
            )
        case "sigmoid":
            return (
                made("additions", values, numbers, "The sum in 1/(1 + e⁻ˣ)."),
                made("multiplications", values, numbers, "Its division; e⁻ˣ is not counted."),
            )
        case _:
            return (made("additions", values, numbers, "The bias, once a value."),)


def _less_one_a_window(layer: LayerSummary) -> tuple[str, str]:
    """One operation less than the window has values, for each value: (rule, with numbers)."""
    values, numbers = _values(layer.output_shape)
    side, k = ("k" if layer.kernel_size else "n"), window(layer)
    return f"{values}·({side}·{side} − 1)", f"{numbers}·({k:,}·{k:,} − 1)"


# --- what it sees -----------------------------------------------------------------------------


def _view(layer: LayerSummary, before: LayerSummary | None) -> tuple[Formula, Formula]:
    """Receptive field and effective stride."""
    r, j = (before.receptive_field, before.effective_stride) if before else (1, 1)
    rule = worked = stride_rule = stride_worked = ""
    stays = "No step of its own: neighbouring values stay as far apart as before."
    if layer.kernel_size:
        k, s = layer.kernel_size, layer.stride
        rule, worked = "r + (k − 1)·j", f"{r:,} + ({k} − 1)·{j:,}"
        stride_rule, stride_worked = "j·s", f"{j:,}·{s}"
        words = (
            f"A window of {k} spans {k - 1} steps of {j:,} px between its outer values, each of "
            f"which sees {r:,} px."
            if k > 1
            else "A window of one value sees what that value sees."
        )
        steps = f"{s} steps" if s > 1 else "one step"
        stays = f"Image pixels between neighbouring values: {steps} of {j:,} px."
    elif layer.kind.startswith("global") or layer.kind == "flatten":
        n = layer.input_shape[1]
        rule, worked = "r + (n − 1)·j", f"{r:,} + ({n:,} − 1)·{j:,}"
        words = "The whole map is one window."
        if layer.kind == "flatten":
            words = "From here on every value can reach the whole map."
        stays = "Only one place is left, so this is the step before it."
    else:
        words = "No window: every value sees what it saw before."
    return (
        Formula(
            "receptive_field", "Receptive field", rule, worked, layer.receptive_field, "px", words
        ),
        Formula(
            "effective_stride",
            "Effective stride",
            stride_rule,
            stride_worked,
            layer.effective_stride,
            "px",
            stays,
        ),
    )


# --- what it holds ----------------------------------------------------------------------------


def _values(shape: tuple[int, ...]) -> tuple[str, str]:
    """The number of an output's values: (rule, with numbers)."""
    return ("Cₒ·m·m" if len(shape) == 3 else "Cₒ"), "·".join(f"{side:,}" for side in shape)


def _activations(layer: LayerSummary, batch_size: int) -> Formula:
    rule, numbers = _values(layer.output_shape)
    words = f"Every value of the output is a float32 of {BYTES} bytes."
    if layer.kind == "flatten":
        words = f"{words} As a view it shares them with its input."
    return Formula(
        "activation_bytes",
        "Activations",
        f"N·{rule}·{BYTES}",
        f"{batch_size:,}·{numbers}·{BYTES}",
        layer.activation_bytes,
        "B",
        words,
    )


def _saved(
    layer: LayerSummary, before: LayerSummary | None, following: LayerSummary | None, batch: int
) -> Formula:
    """What autograd keeps of this layer, by the rules of `nin_core.summary`."""
    rule, numbers = _values(layer.output_shape)
    rule, numbers = f"N·{rule}", f"{batch:,}·{numbers}"
    rules: list[str] = []
    worked: list[str] = []
    words: list[str] = []

    def keep(what: str, amount: str, why: str) -> None:
        rules.append(what)
        worked.append(amount)
        words.append(why)

    if layer.kind in ("relu", "sigmoid"):
        why = "where it is 0, no gradient passes" if layer.kind == "relu" else "its slope is y(1−y)"
        keep(
            f"{rule}·{BYTES}",
            f"{numbers}·{BYTES}",
            f"Its output: {why}. A next layer that needs its input has the same tensor, counted "
            "once, here.",
        )
    elif following is not None and following.kind in KEEPS_INPUT:
        keep(
            f"{rule}·{BYTES}",
            f"{numbers}·{BYTES}",
            f"Its output, because {following.name} needs its input.",
        )
    if layer.kind in ("max_pool", "global_max_pool"):
        keep(
            f"{rule}·{INDEX_BYTES}",
            f"{numbers}·{INDEX_BYTES}",
            f"The place of each maximum, an int64 of {INDEX_BYTES} bytes.",
        )
    elif layer.kind == "dropout" and before is not None:
        keep(f"{rule}·{BYTES}", f"{numbers}·{BYTES}", "Its mask: 0, or 1/(1 − rate), a value.")
    elif layer.kind == "batch_norm":
        keep(
            f"2·Cₒ·{BYTES}",
            f"2·{layer.output_shape[0]:,}·{BYTES}",
            "The batch's mean and inverse deviation for each channel.",
        )
    if not words:
        if layer.kind == "dropout":
            words = ["Nothing: images need no gradient, so no mask is kept."]
        elif layer.kind == "flatten":
            words = ["Nothing: it only renames the places of its input's values."]
        elif following is not None and following.kind in ("relu", "sigmoid"):
            words = [f"Nothing: {following.name} keeps its own output, and that is enough."]
        else:
            words = ["Nothing: no gradient is computed from its output's values."]
    return Formula(
        "saved_bytes",
        "Kept for backward",
        " + ".join(rules),
        " + ".join(worked),
        layer.saved_bytes,
        "B",
        " ".join(words),
    )
