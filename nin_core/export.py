"""A network to take away: PyTorch code, a test of all its figures, ONNX, and JSON to return with.

Choices made here:

* The code is what a person would write: nothing of this project is imported, every layer has the
  name it has here, so that weights load without a mapping, and shapes stand beside the layers.
* The test stands beside the code and measures the real module: shapes and kept bytes on PyTorch's
  "meta" device (tensors without contents, so that any batch is free), MACs with PyTorch's own
  counter, receptive fields by walking one value's window back through the modules. What it
  compares with are the figures that this program shows.
* Both are written as `ruff format` (at 88 and at 100 columns) leaves them.
* JSON carries a name and a version of its format, so that a later version can tell what it reads.
* Only `onnx_model` imports torch. It takes seconds and memory: pages call it in another process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from importlib.util import find_spec
from itertools import groupby
from typing import Any

from .checks import ConfigError
from .config import BlockConfig, Layer, NiNConfig, preset_name
from .summary import LayerSummary, NetworkSummary, summarize

JSON_FORMAT = "nin-explorer/network"
JSON_VERSION = 1
MAX_JSON = 64 * 1024  # characters; the largest network there can be needs about 5,000

ONNX_PACKAGES = ("onnx", "onnxscript")
ONNX_INSTALL = "pip install -r requirements-onnx.txt"

_COLUMNS = 88  # what ruff and black take unless told otherwise


# --- names ------------------------------------------------------------------------------------


def network_name(config: NiNConfig) -> str:
    """A preset's name, else "nin-custom": the stem of what is saved."""
    return preset_name(config) or "nin-custom"


def module_name(config: NiNConfig) -> str:
    """`network_name` as Python can import it."""
    return network_name(config).replace("-", "_")


# --- PyTorch code -----------------------------------------------------------------------------


def pytorch_code(config: NiNConfig) -> str:
    """A module whose `nin()` builds the network; run as a script, it prints every layer's shape."""
    network = summarize(config)
    body = "\n".join(_layer_lines(config.plan(), network.layers))
    channels, height, width = network.input_shape
    head = (
        f"{network_name(config)}: a Network in Network for {channels} x {height} x {width} "
        f"inputs and {config.num_classes} classes."
    )
    return _CODE.format(
        head=head,
        parameters=f"{network.total_parameters:,}",
        macs=f"{network.total_macs:,}",
        body=body,
        input=", ".join(map(str, network.input_shape)),
        classes=config.num_classes,
    )


_CODE = '''"""{head}

{parameters} parameters, {macs} multiply-accumulates an image.
Written by NiN Explorer; needs nothing but PyTorch. The layers have the names of
NiN Explorer's checkpoints, so their weights load as they are:

    from safetensors.torch import load_file

    model = nin()
    model.load_state_dict(load_file("weights.safetensors"))

Lin, Chen and Yan, "Network In Network", https://arxiv.org/abs/1312.4400
"""

from collections import OrderedDict

import torch
from torch import nn


def named(**layers: nn.Module) -> nn.Sequential:
    """Put layers one after the other, under these names."""
    return nn.Sequential(OrderedDict(layers))


def nin() -> nn.Sequential:
    """Build the network: [N, {input}] images to [N, {classes}] logits."""
    return named(
        # Behind each layer that changes it: the shape of its output for one image.
{body}
    )


if __name__ == "__main__":
    model = nin().eval()
    x = torch.zeros(1, {input})
    print(f"{{'input':<12}} {{tuple(x.shape[1:])}}")
    for name, layer in model.named_children():
        x = layer(x)
        print(f"{{name:<12}} {{tuple(x.shape[1:])}}")
    print(f"{{sum(p.numel() for p in model.parameters()):,}} parameters")
'''


def _layer_lines(plan: Sequence[Layer], rows: Sequence[LayerSummary]) -> Iterator[str]:
    pairs = zip(plan, rows, strict=True)
    for block, group in groupby(pairs, key=lambda pair: pair[0].block):
        members = list(group)
        if block == 0:
            for layer, row in members:
                yield from _layer_line(layer.name, layer, row, indent=8)
            continue
        window = members[0][0].kernel_size
        pointwise = sum(layer.kind == "conv1x1" for layer, _ in members)
        yield f"        # {_block_comment(block, window, pointwise)}"
        yield f"        block{block}=named("
        for layer, row in members:
            yield from _layer_line(layer.name.partition(".")[2], layer, row, indent=12)
        yield "        ),"


def _block_comment(block: int, window: int, pointwise: int) -> str:
    # an eight, an eleven, an eighteen, an eighty
    article = "an" if window in (8, 11, 18) or str(window)[0] == "8" else "a"
    text = f"Block {block}: {article} {window}x{window} convolution"
    number = ("", "one", "two", "three", "four")[pointwise]
    if not number:
        return f"{text} on its own."
    return f"{text}, then {number} 1x1 convolution{'s' * (pointwise > 1)} at every pixel."


def _layer_line(name: str, layer: Layer, row: LayerSummary, indent: int) -> Iterator[str]:
    line = f"{' ' * indent}{name}={_constructor(layer)},"
    changes = layer.kind in ("conv", "conv1x1") or row.input_shape != row.output_shape
    if not changes:
        yield line
        return
    comment = "# -> " + " x ".join(map(str, row.output_shape))
    if len(line) + 2 + len(comment) <= _COLUMNS:
        yield f"{line}  {comment}"
    else:
        yield f"{' ' * indent}{comment}"
        yield from _split(line)


def _split(line: str) -> Iterator[str]:
    """The line, or, where it is too long, its call with an argument a line."""
    if len(line) <= _COLUMNS:
        yield line
        return
    indent = len(line) - len(line.lstrip())
    start, _, rest = line.partition("(")
    yield f"{start}("
    for argument in rest.removesuffix("),").split(", "):
        yield f"{' ' * (indent + 4)}{argument},"
    yield f"{' ' * indent}),"


def _constructor(layer: Layer) -> str:
    match layer.kind:
        case "conv" | "conv1x1":
            arguments = [str(layer.in_channels), str(layer.out_channels)]
            arguments.append(f"kernel_size={layer.kernel_size}")
            if layer.stride != 1:
                arguments.append(f"stride={layer.stride}")
            if layer.padding:
                arguments.append(f"padding={layer.padding}")
            if not layer.bias:
                arguments.append("bias=False")
            return f"nn.Conv2d({', '.join(arguments)})"
        case "max_pool" | "avg_pool":
            # The stride is said even where it is 1: PyTorch would take the window's side.
            module = "nn.MaxPool2d" if layer.kind == "max_pool" else "nn.AvgPool2d"
            padding = f", padding={layer.padding}" if layer.padding else ""
            return f"{module}(kernel_size={layer.kernel_size}, stride={layer.stride}{padding})"
        case "batch_norm":
            return f"nn.BatchNorm2d({layer.out_channels})"
        case "dropout":
            return f"nn.Dropout(p={layer.rate!r})"
        case "relu":
            return "nn.ReLU()"
        case "global_max_pool":
            return "nn.AdaptiveMaxPool2d(1)"
        case "global_avg_pool":
            return "nn.AdaptiveAvgPool2d(1)"
        case "flatten":
            return "nn.Flatten()"
        case _:
            raise ConfigError(f"{layer.name}: a {layer.kind} layer cannot be written as code.")


# --- its test ---------------------------------------------------------------------------------


def pytest_code(config: NiNConfig, batch_size: int = 64, module: str | None = None) -> str:
    """A pytest file that measures the exported network and compares every figure shown here.

    Args:
        batch_size: images, for the figures in bytes; 1 counts as 2, since batch norm cannot be
            trained with one value a channel.
        module: what `pytorch_code` was saved as, without ".py"; default `module_name(config)`.

    Raises:
        ConfigError: if batch_size is not a whole number from 1 to 65,536.
    """
    network = summarize(config, max(batch_size, 2))
    rows = "\n".join(line for row in network.layers for line in _figures_line(row))
    return _TEST.format(
        module=module or module_name(config),
        input=", ".join(map(str, network.input_shape)),
        batch_size=f"{network.batch_size:_}",
        rows=rows,
        **{name: f"{value:_}" for name, value in _totals(network).items()},
    )


def _totals(network: NetworkSummary) -> dict[str, int]:
    return {
        "total_parameters": network.total_parameters,
        "total_macs": network.total_macs,
        "total_activations": network.total_activation_bytes,
        "total_kept": network.saved_bytes,
        "training": network.training_bytes(),
    }


def _figures_line(row: LayerSummary) -> Iterator[str]:
    shape = ", ".join(map(str, row.output_shape)) + ("," if len(row.output_shape) == 1 else "")
    figures = (
        *(row.parameters, row.macs, row.activation_bytes, row.saved_bytes),
        *(row.receptive_field, row.effective_stride),
    )
    written = ", ".join(f"{figure:_}" for figure in figures)
    line = f'    "{row.name}": Figures(({shape}), {written}),'
    if len(line) <= _COLUMNS:
        yield line
        return
    yield f'    "{row.name}": Figures('
    yield f"        ({shape}),"
    yield from (f"        {figure:_}," for figure in figures)
    yield "    ),"


_TEST = '''"""Every figure that NiN Explorer shows for the network of {module}.py, measured.

Run `pytest test_{module}.py` with {module}.py beside it; needs PyTorch and pytest. Shapes
and bytes are measured on PyTorch's "meta" device, where tensors have no contents.
"""

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from {module} import nin

INPUT = ({input})
BATCH_SIZE = {batch_size}  # images; every figure in bytes is for so many
BYTES = 4  # a float32 value


class Figures(NamedTuple):
    """What is shown for a layer: `kept` is what the backward pass needs, in bytes."""

    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    kept_bytes: int
    receptive_field: int
    effective_stride: int


FIGURES = {{
{rows}
}}
TOTAL_PARAMETERS = {total_parameters}
TOTAL_MACS = {total_macs}
TOTAL_ACTIVATION_BYTES = {total_activations}
# With the images, where the first layer needs them:
TOTAL_KEPT_BYTES = {total_kept}
# A step of SGD with momentum:
TRAINING_BYTES = {training}


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    return {{n: m for n, m in model.named_modules() if not list(m.children())}}


class Forward:
    """A training forward pass on the meta device: outputs, and what autograd keeps."""

    def __init__(self) -> None:
        with torch.device("meta"):
            model = nin().train()
            images = torch.empty(BATCH_SIZE, *INPUT)
        self.outputs: dict[str, torch.Tensor] = {{}}
        self.kept: dict[str, int] = {{}}
        running = ""
        # Storages, each with the layer that made it. A view has the storage it looks at.
        owners = {{images.untyped_storage()._cdata: "images"}}
        state = (*model.parameters(), *model.buffers())
        own = {{tensor.untyped_storage()._cdata for tensor in state}}
        counted: dict[int, torch.UntypedStorage] = {{}}

        def begin(name: str) -> None:
            nonlocal running
            running = name

        def end(name: str, output: torch.Tensor) -> None:
            self.outputs[name] = output
            owners.setdefault(output.untyped_storage()._cdata, name)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                counted[storage._cdata] = storage
                # A layer saves its own output before its hook is called.
                owners.setdefault(storage._cdata, running)
            return tensor

        for name, module in leaves(model).items():
            module.register_forward_pre_hook(lambda m, i, name=name: begin(name))
            module.register_forward_hook(lambda m, i, o, name=name: end(name, o))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(images)
        for key, storage in counted.items():
            name = owners[key]
            self.kept[name] = self.kept.get(name, 0) + storage.nbytes()
        self.image_bytes = images.untyped_storage().nbytes()


@pytest.fixture(scope="module")
def forward() -> Forward:
    return Forward()


def shown(field: str) -> dict[str, object]:
    return {{name: getattr(figures, field) for name, figures in FIGURES.items()}}


def test_it_runs() -> None:
    logits = nin().eval()(torch.rand(1, *INPUT))
    assert logits.shape == (1, *FIGURES["flatten"].output_shape)
    assert logits.isfinite().all()


def test_names_and_output_shapes(forward: Forward) -> None:
    measured = {{n: tuple(o.shape[1:]) for n, o in forward.outputs.items()}}
    assert measured == shown("output_shape")


def test_parameters() -> None:
    layers = leaves(nin())
    measured = {{n: sum(p.numel() for p in m.parameters()) for n, m in layers.items()}}
    assert measured == shown("parameters")
    assert sum(measured.values()) == TOTAL_PARAMETERS


def test_macs() -> None:
    with torch.device("meta"):
        model, image = nin().eval(), torch.empty(1, *INPUT)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    flops = counter.get_flop_counts()  # 2 for a multiply-accumulate
    root = type(model).__name__
    measured = {{n: sum(flops.get(f"{{root}}.{{n}}", {{}}).values()) // 2 for n in FIGURES}}
    assert measured == shown("macs")
    assert counter.get_total_flops() == 2 * TOTAL_MACS


def test_bytes_of_the_activations(forward: Forward) -> None:
    measured = {{n: o.numel() * BYTES for n, o in forward.outputs.items()}}
    assert measured == shown("activation_bytes")
    assert sum(measured.values()) == TOTAL_ACTIVATION_BYTES


def test_bytes_kept_for_the_backward_pass(forward: Forward) -> None:
    measured = {{name: forward.kept.get(name, 0) for name in FIGURES}}
    assert measured == shown("kept_bytes")
    assert sum(forward.kept.values()) == TOTAL_KEPT_BYTES


def test_bytes_of_a_training_step(forward: Forward) -> None:
    """Weights, gradients, momentum, what is kept, and the largest pair of input and output."""
    parameters = sum(p.numel() for p in nin().parameters())
    outputs = forward.outputs.values()
    sizes = [forward.image_bytes, *(o.numel() * BYTES for o in outputs)]
    largest = max(a + b for a, b in pairwise(sizes))
    kept = sum(forward.kept.values())
    assert 3 * BYTES * parameters + kept + largest == TRAINING_BYTES


def test_receptive_fields_and_effective_strides(forward: Forward) -> None:
    """Walk the windows of two neighbouring values back to the image."""
    windows: list[tuple[int, int, int]] = []
    fields, strides = {{}}, {{}}
    side = INPUT[1]
    for name, module in leaves(nin()).items():
        if isinstance(module, nn.AdaptiveMaxPool2d | nn.AdaptiveAvgPool2d):
            windows.append((side, 1, 0))
        elif hasattr(module, "kernel_size"):
            window = (module.kernel_size, module.stride, module.padding)
            windows.append(tuple(v[0] if isinstance(v, tuple) else v for v in window))
        spans = []
        for first in (0, 1):
            last = first
            for kernel, stride, padding in reversed(windows):
                first = first * stride - padding
                last = last * stride - padding + kernel - 1
            spans.append((first, last))
        fields[name] = spans[0][1] - spans[0][0] + 1
        strides[name] = spans[1][0] - spans[0][0]
        side = forward.outputs[name].shape[-1]
    assert fields == shown("receptive_field")
    assert strides == shown("effective_stride")
'''


# --- JSON -------------------------------------------------------------------------------------


def to_json(config: NiNConfig) -> str:
    """The configuration as JSON; `from_json` reads it back."""
    content = {"format": JSON_FORMAT, "version": JSON_VERSION, "network": config.to_dict()}
    return json.dumps(content, indent=2) + "\n"


def from_json(text: str | bytes) -> NiNConfig:
    """Read what `to_json` wrote; the network alone, without format and version, will do.

    Raises:
        ConfigError: in one sentence with the field and what would work, whatever the text is.
    """
    if len(text) > MAX_JSON:
        raise ConfigError(
            f"the text has {len(text):,} characters; a network's JSON has at most {MAX_JSON:,}."
        )
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"this is not JSON: line {error.lineno}, column {error.colno}: {error.msg}; a file "
            "that was saved here would work."
        ) from error
    except (ValueError, RecursionError) as error:  # other encodings, endless digits or brackets
        raise ConfigError(
            "this cannot be read as JSON; a file that was saved here would work."
        ) from error
    try:
        return NiNConfig.from_dict(_network_of(content))
    except ConfigError as error:
        raise ConfigError(_shortened(error), field=error.field) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            "the JSON holds no network; a file that was saved here would work."
        ) from error


def _network_of(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(
            f"the JSON is {_kind(content)}, not a network; an object with the fields "
            f"{', '.join(_needed(NiNConfig))} would work."
        )
    if "network" in content or "format" in content:
        if content.get("format") != JSON_FORMAT:
            raise ConfigError(
                f"format is {content.get('format')!r}; {JSON_FORMAT!r} would work.", field="format"
            )
        if content.get("version") != JSON_VERSION or isinstance(content["version"], bool):
            raise ConfigError(
                f"version is {content.get('version')!r}, which this program cannot read; "
                f"{JSON_VERSION} would work.",
                field="version",
            )
        content = content.get("network")
        if not isinstance(content, dict):
            raise ConfigError(
                f"network is {_kind(content)}; an object with the fields "
                f"{', '.join(_needed(NiNConfig))} would work.",
                field="network",
            )
    _check_fields(NiNConfig, content, "", "28" if "image_size" not in content else "10")
    blocks = content["blocks"]
    if not isinstance(blocks, list):
        raise ConfigError(
            f"blocks is {_kind(blocks)}; a list of objects with channels and kernel_size would "
            "work.",
            field="blocks",
        )
    for index, block in enumerate(blocks):
        if isinstance(block, dict):
            _check_fields(BlockConfig, block, f"blocks[{index}].", "3")
    return content


def _check_fields(cls: type, content: dict[str, Any], where: str, example: str) -> None:
    """Name the first field that is missing, with a value that would work."""
    for name in _needed(cls):
        if name not in content:
            works = {"blocks": "a list of blocks", "channels": "a list of widths like [96, 96, 96]"}
            raise ConfigError(
                f"{where}{name} is missing; {works.get(name, example)} would work.",
                field=f"{where}{name}",
            )


def _needed(cls: Any) -> list[str]:
    return [field.name for field in fields(cls) if field.default is MISSING]


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "missing or null"}
    return names.get(type(value), "a number")


def _shortened(error: ConfigError) -> str:
    """The sentence, and the field's path where it does not say it, without a page of digits."""
    text = str(error)
    if len(text) > 300:
        text = f"{text[:200]} … {text[-90:]}"
    named = not error.field or error.field in text
    return text if named else f"{error.field}: {text}"


# --- ONNX -------------------------------------------------------------------------------------


def missing_for_onnx() -> list[str]:
    """The packages that `onnx_model` needs and that are not installed."""
    return [name for name in ONNX_PACKAGES if find_spec(name) is None]


def onnx_model(config: NiNConfig, weights: bytes | None = None, *, seed: int = 0) -> bytes:
    """The network as an ONNX file: "images" [N, C, H, W] to "logits" [N, classes], any N.

    Args:
        weights: safetensors bytes under the network's own names, e.g. a run's checkpoint; None
            for PyTorch's random initial weights from `seed`.

    Raises:
        ConfigError: if onnx or onnxscript is missing, with the command that installs them, or if
            the weights do not fit.
    """
    if missing := missing_for_onnx():
        raise ConfigError(
            f"{' and '.join(missing)} must be installed for ONNX; `{ONNX_INSTALL}` would do it."
        )
    import contextlib
    import io
    import logging
    import tempfile
    import warnings
    from pathlib import Path

    import torch

    from .features import load_model, untrained_model

    model = untrained_model(config, seed) if weights is None else load_model(config, weights)
    side = config.image_size
    # Two images: the exporter would take a batch of one for a constant.
    images = torch.zeros(2, config.in_channels, side, side)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        with contextlib.redirect_stdout(io.StringIO()):  # the exporter tells its progress
            torch.onnx.export(
                model,
                (images,),
                str(path),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
            )
        return path.read_bytes()
