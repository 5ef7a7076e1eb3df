"""Commands about a network that need not train: `summary` and `export`.

But for ONNX neither imports PyTorch, and without a run's weights neither opens the store.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..checks import ConfigError, choice
from ..config import PRESETS
from ..summary import NetworkSummary, summarize
from .arguments import Commands, add_command, add_json, add_network, add_output, network_of
from .output import bytes_text, print_json, print_table, shape_text, write_file, write_text
from .store import opened_store, weights_of

FORMATS = ("pytorch", "pytest", "json", "onnx")


# --- summary ----------------------------------------------------------------------------------


def add_summary(commands: Commands) -> None:
    """`summary`: the layers of a network."""
    text = "the layers of a network: shapes, parameters, MACs"
    command = add_command(commands, "summary", text)
    command.set_defaults(action=_summary)
    add_network(command)
    add_json(command)
    command.add_argument("--batch-size", type=int, default=1, help="images, for memory (1)")


def _summary(options: argparse.Namespace) -> int:
    network = network_of(options)
    table = summarize(network, options.batch_size)
    if options.json:
        print_json(_summary_values(table))
        return 0
    same = network == PRESETS.get(options.name)
    name = options.name if same or options.name not in PRESETS else f"{options.name}, changed"
    print(f"{name}: input {shape_text(table.input_shape)}, {network.num_classes} classes\n")
    _print_layers(table)
    images = "1 image" if options.batch_size == 1 else f"{options.batch_size:,} images"
    print(
        f"\nActivations of {images}: {bytes_text(table.total_activation_bytes)}; "
        f"weights: {bytes_text(table.parameter_bytes)} (float32)."
    )
    return 0


def _summary_values(table: NetworkSummary) -> dict[str, Any]:
    return {
        "name": table.name,
        "total_parameters": table.total_parameters,
        "total_macs": table.total_macs,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "output_shape": list(layer.output_shape),
                "parameters": layer.parameters,
                "macs": layer.macs,
                "receptive_field": layer.receptive_field,
            }
            for layer in table.layers
        ],
    }


def _print_layers(table: NetworkSummary) -> None:
    rows = [
        (
            layer.name,
            layer.kind,
            f"{layer.kernel_size}×{layer.kernel_size}" if layer.kernel_size else "",
            str(layer.stride) if layer.kernel_size else "",
            str(layer.padding) if layer.kernel_size else "",
            shape_text(layer.output_shape),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.parameter_share:.1%}" if layer.parameters else "",
            f"{layer.macs:,}" if layer.macs else "",
            f"{layer.mac_share:.1%}" if layer.macs else "",
            f"{layer.receptive_field:,}",
        )
        for layer in table.layers
    ]
    totals = ("total", "", "", "", "", "", f"{table.total_parameters:,}", "")
    totals += (f"{table.total_macs:,}", "", "")
    head = ("layer", "kind", "kernel", "stride", "pad", "output", "parameters", "", "MACs", "")
    print_table((*head, "field"), rows, right=range(2, 11), last=totals)


# --- export -----------------------------------------------------------------------------------


def add_export(commands: Commands) -> None:
    """`export`: a network to take away."""
    text = "the network as PyTorch code, its test, JSON or ONNX"
    command = add_command(commands, "export", text)
    command.set_defaults(action=_export)
    add_network(command)
    add_output(command, FORMATS, "pytorch")
    command.add_argument(
        "--batch-size", type=int, default=64, help="images, for pytest's bytes (64)"
    )
    command.add_argument("--run", type=int, help="the run whose weights ONNX gets (untrained)")


def _export(options: argparse.Namespace) -> int:
    from .. import export

    choice(options.format, "--format", FORMATS, field="format")
    network = network_of(options)
    if options.run is not None and options.format != "onnx":
        raise ConfigError("--run is for --format onnx; the other formats hold no weights.")
    if options.format == "onnx":
        if options.output is None:
            raise ConfigError("ONNX is no text; --output nin.onnx would work.")
        weights = None
        if options.run is not None:
            with opened_store(create=False) as store:
                weights = weights_of(store, options.run)
        write_file(options.output, export.onnx_model(network, weights))
        return 0
    if options.format == "pytest":
        text = export.pytest_code(network, options.batch_size)
    else:
        text = {"pytorch": export.pytorch_code, "json": export.to_json}[options.format](network)
    write_text(options.output, text)
    return 0
