"""What leaves the project works without it, and what comes in is checked before it is believed."""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nin_core import (
    PRESETS,
    BlockConfig,
    ConfigError,
    NiNConfig,
    PoolConfig,
    build_nin,
    checkpoints,
    export,
    scoring,
    summarize,
    weights,
)
from nin_core.__main__ import main
from nin_core.evaluation import read_logits
from nin_core.features import load_model, untrained_model
from nin_core.machine import PROJECT
from nin_core.processes import this_worker
from nin_core.recipes import RECIPES
from nin_core.records import Checkpoint
from nin_core.store import RunStore, StoreError
from nin_core.weights import PickleError, import_run, plain_weights, read_weights
from tests.conftest import missing

from .strategies import networks

SLIM = PRESETS["nin-slim-128"]
TINY = NiNConfig(1, 12, 3, (BlockConfig((4, 5), 3, pool=PoolConfig()), BlockConfig((3, 3), 3)))


def random_networks(count: int, seed: int = 0) -> list[NiNConfig]:
    """Valid networks with every option, from a fixed seed."""
    rng = random.Random(seed)
    found: list[NiNConfig] = []
    while len(found) < count:
        classes = rng.randint(2, 12)
        number = rng.randint(1, 4)
        blocks = []
        for index in range(number):
            widths = [rng.randint(1, 40) for _ in range(rng.randint(1, 5))]
            if index == number - 1:
                widths[-1] = classes
            kernel, window = rng.randint(1, 11), rng.randint(1, 4)
            pool = PoolConfig(
                window, rng.randint(1, 3), rng.randint(0, window // 2), rng.choice(["max", "avg"])
            )
            blocks.append(
                BlockConfig(
                    tuple(widths),
                    kernel,
                    rng.randint(1, 3),
                    rng.randint(0, kernel - 1),
                    rng.choice([pool, None]),
                )
            )
        try:
            found.append(
                NiNConfig(
                    rng.randint(1, 4),
                    rng.randint(1, 64),
                    classes,
                    tuple(blocks),
                    dropout=rng.choice([0.0, 0.25, 0.5]),
                    global_pool=rng.choice(["max", "avg"]),
                    final_relu=rng.random() < 0.5,
                    batch_norm=rng.random() < 0.5,
                )
            )
        except ConfigError:
            continue
    return found


def environment() -> dict[str, str]:
    """Without the project on the path, and one thread."""
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return others | {"OMP_NUM_THREADS": "1"}


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "."],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )


def assert_formatted(folder: Path) -> None:
    """`ruff format` would change nothing, whether a line has 88 columns or 100."""
    for columns in ("88", "100"):
        style = [sys.executable, "-m", "ruff", "format", "--check", "--isolated"]
        style += ["--line-length", columns, "."]
        done = subprocess.run(style, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[:2000]


# --- code -------------------------------------------------------------------------------------


def test_code_and_test_of_presets_and_of_fifty_others_run(tmp_path: Path) -> None:
    """One pytest for all of them, in a folder that knows nothing of this project."""
    everything = [*PRESETS.values(), *random_networks(50)]
    batch_sizes = random.Random(1)
    for number, config in enumerate(everything):
        module = f"nin_{number}"
        (tmp_path / f"{module}.py").write_text(export.pytorch_code(config))
        text = export.pytest_code(config, batch_sizes.choice([1, 2, 64, 65_536]), module)
        (tmp_path / f"test_{module}.py").write_text(text)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    tests = done.stdout.rpartition("\n")[0].rpartition("\n")[2] + done.stdout[-200:]
    assert f"{8 * len(everything)} passed" in tests
    assert_formatted(tmp_path)
    rules = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "100"]
    rules += ["--select", "E,F,I,B,UP,SIM,C4,PIE", "."]
    checked = subprocess.run(rules, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout[:2000]


def test_the_widest_network_stays_within_100_columns(tmp_path: Path) -> None:
    """Where numbers are longest: lines are split as a formatter splits them."""
    wide = (4096, 4096, 10, 4096, 4096)
    config = NiNConfig(
        64,
        1024,
        1000,
        (
            BlockConfig((10,), 63, 32, 62, PoolConfig(63, 32, 31, "avg")),
            BlockConfig(wide, 1),
            BlockConfig((4096, 1000), 1, 1, 0, PoolConfig(1, 1)),
        ),
        batch_norm=True,
    )
    (tmp_path / "a.py").write_text(export.pytorch_code(config))
    (tmp_path / "test_a.py").write_text(export.pytest_code(config, 65_536, "a"))
    assert_formatted(tmp_path)
    for path in tmp_path.glob("*.py"):
        assert max(map(len, path.read_text().splitlines())) <= 100


def test_the_test_notices_another_network(tmp_path: Path) -> None:
    """Measured, not repeated: another network misses the figures of nin-slim-128."""
    other = replace(SLIM.with_widths((6, 16, 25)), global_pool="avg", image_size=136)
    (tmp_path / "nin.py").write_text(export.pytorch_code(other))
    (tmp_path / "test_nin.py").write_text(export.pytest_code(SLIM, 64, "nin"))
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    for name in (
        "test_names_and_output_shapes",
        "test_parameters",
        "test_macs",
        "test_bytes_of_the_activations",
        "test_bytes_kept_for_the_backward_pass",
        "test_bytes_of_a_training_step",
    ):
        assert f"FAILED test_nin.py::{name}" in done.stdout


@pytest.mark.parametrize("config", [*PRESETS.values(), *random_networks(50, seed=2)])
def test_the_code_builds_the_same_module(config: NiNConfig) -> None:
    code = export.pytorch_code(config)
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported == {"collections", "torch"}
    names: dict[str, Any] = {"__name__": "exported"}
    exec(compile(code, "exported.py", "exec"), names)
    theirs, ours = names["nin"](), build_nin(config)
    ours_state = ours.state_dict()
    assert {n: t.shape for n, t in theirs.state_dict().items()} == {
        n: t.shape for n, t in ours_state.items()
    }
    theirs.load_state_dict(ours_state)
    images = torch.rand(2, config.in_channels, config.image_size, config.image_size)
    with torch.no_grad():
        assert torch.equal(theirs.eval()(images), ours.eval()(images))
    network = summarize(config)
    assert f"{network.total_parameters:,} parameters" in code
    assert f"{network.total_macs:,} multiply-accumulates" in code


def test_run_as_a_script_it_prints_the_shapes(tmp_path: Path) -> None:
    (tmp_path / "nin.py").write_text(export.pytorch_code(SLIM))
    done = subprocess.run(
        [sys.executable, "nin.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["input", "(1, 128, 128)"]
    assert ["block2", "(16, 14, 14)"] in [line.split(maxsplit=1) for line in lines]
    assert lines[-1] == "10,846 parameters"


def test_writing_code_needs_no_torch() -> None:
    code = (
        "import sys; from nin_core import PRESETS, export\n"
        "for make in (export.pytorch_code, export.pytest_code, export.to_json):\n"
        "    make(PRESETS['nin-224'])\n"
        "import nin_core.weights\n"
        "print([m for m in ('torch', 'onnx', 'streamlit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- ONNX -------------------------------------------------------------------------------------

ONNX_NETWORKS = {
    **PRESETS,
    "padded average pooling, batch norm": NiNConfig(
        2,
        21,
        5,
        (
            BlockConfig((6, 7), 4, 2, 3, PoolConfig(4, 3, 2, "avg")),
            BlockConfig((8,), 1, 1, 0, PoolConfig(2, 1, 1, "max")),
            BlockConfig((4, 5), 2, 1, 1),
        ),
        final_relu=False,
        batch_norm=True,
    ),
    "one layer": NiNConfig(1, 3, 2, (BlockConfig((2,), 3),), dropout=0.0),
}


@pytest.mark.parametrize("config", ONNX_NETWORKS.values(), ids=ONNX_NETWORKS)
def test_onnx_gives_the_same_logits(config: NiNConfig) -> None:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        missing(f"{error}; pip install -r requirements-dev.txt.")
    torch.manual_seed(1)
    model = untrained_model(config, seed=3)
    # Batch norm with other than its first statistics, and biases that are not nearly zero.
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.uniform_(-0.5, 0.5)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    blob = export.onnx_model(config, safetensors.torch.save(model.state_dict()))
    onnx.checker.check_model(onnx.load_from_string(blob), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["images"]
    for count in (1, 2, 5):
        images = torch.rand(count, config.in_channels, config.image_size, config.image_size)
        with torch.no_grad():
            expected = model(images).numpy()
        (found,) = session.run(["logits"], {"images": images.numpy()})
        assert found.shape == (count, config.num_classes)
        assert np.abs(found - expected).max() <= 1e-5


def test_without_the_onnx_packages_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-onnx\.txt"):
        export.onnx_model(TINY)


# --- JSON -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(config=networks())
def test_json_round_trip(config: NiNConfig) -> None:
    text = export.to_json(config)
    assert export.from_json(text) == config
    assert export.from_json(text.encode()) == config
    assert export.from_json(json.dumps(config.to_dict())) == config


def altered(change: Any) -> str:
    content = json.loads(export.to_json(SLIM))
    change(content)
    return json.dumps(content)


def setting(*path: Any, to: Any) -> str:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = to

    return altered(change)


def without(*path: Any) -> str:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return altered(change)


BAD_JSON = [
    ("", "not JSON"),
    ("{", "line 1"),
    ("nin-224", "not JSON"),
    ("null", "missing or null"),
    ("[]", "a list"),
    ('"network"', "a text"),
    ("3", "a number"),
    ("NaN", "a number"),
    ("{}", "in_channels"),
    (b"\xff\xfe\x00", "cannot be read"),
    ("[" * 60_000, "cannot be read"),
    ('{"a":' * 10_000, "cannot be read"),
    ("1" * 5000, "cannot be read"),
    (" " * 70_000, "65,536"),
    (setting("format", to="keras"), "format"),
    (setting("version", to=2), "version"),
    (setting("version", to=True), "version"),
    (setting("network", to=None), "network"),
    (setting("network", to=[1]), "network"),
    (without("format"), "format"),
    (without("network", "image_size"), "image_size"),
    (without("network", "blocks"), "blocks"),
    (without("network", "blocks", 1, "channels"), r"blocks[1].channels"),
    (without("network", "blocks", 0, "kernel_size"), r"blocks[0].kernel_size"),
    (setting("network", "depth", to=3), "depth"),
    (setting("network", "image_size", to="128"), "image_size"),
    (setting("network", "image_size", to=1e400), "image_size"),
    (setting("network", "image_size", to=128.0), "image_size"),
    (setting("network", "image_size", to=10**4000), "image_size"),
    (setting("network", "num_classes", to=True), "num_classes"),
    (setting("network", "dropout", to="half"), "dropout"),
    (setting("network", "dropout", to=2), "dropout"),
    (setting("network", "global_pool", to=["max"]), "global_pool"),
    (setting("network", "global_pool", to="x" * 5000), "global_pool"),
    (setting("network", "final_relu", to="yes"), "final_relu"),
    (setting("network", "blocks", to={}), "blocks"),
    (setting("network", "blocks", to=[]), "blocks"),
    (setting("network", "blocks", to="abc"), "blocks"),
    (setting("network", "blocks", 0, to=None), "block 1"),
    (setting("network", "blocks", 0, "channels", to=96), r"blocks[0].channels"),
    (setting("network", "blocks", 0, "channels", to=[0, 6]), "block 1"),
    (setting("network", "blocks", 0, "channels", to=[6] * 99), "block 1"),
    (setting("network", "blocks", 0, "stride", to=0), "stride"),
    (setting("network", "blocks", 0, "pool", to="max"), "block 1"),
    (setting("network", "blocks", 0, "pool", "mode", to="mean"), "mode"),
    (setting("network", "blocks", 0, "pool", "padding", to=2), "padding"),
    (setting("network", "blocks", 3, "channels", to=[10, 9]), "block 4"),
    (setting("network", "image_size", to=20), "pooling"),
]


@pytest.mark.parametrize(("text", "named"), BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_json_is_one_sentence_that_names_the_place(text: str | bytes, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        export.from_json(text)
    sentence = str(caught.value)
    assert named in sentence
    assert "\n" not in sentence
    assert 20 < len(sentence) < 420
    assert any(word in sentence for word in ("would work", "must be", "the fields are", "at most"))


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_any_text_is_refused_in_a_sentence(data: bytes | str) -> None:
    with pytest.raises(ConfigError):
        export.from_json(data)


# --- weights: what fits -----------------------------------------------------------------------


def numbered(model: nn.Sequential) -> nn.Sequential:
    """The same modules as the tutorial nests them: blocks and layers without names."""
    return nn.Sequential(
        *(
            nn.Sequential(*child.children()) if isinstance(child, nn.Sequential) else child
            for child in model.children()
        )
    )


def flat(model: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*(m for m in model.modules() if not list(m.children())))


def trained_like(config: NiNConfig) -> nn.Sequential:
    torch.manual_seed(5)
    model = build_nin(config)
    model.train()(torch.rand(4, config.in_channels, config.image_size, config.image_size))
    return model.eval()


def saved(state: dict[str, torch.Tensor], prefix: str = "") -> bytes:
    return safetensors.torch.save({f"{prefix}{n}": t.contiguous() for n, t in state.items()})


@pytest.mark.parametrize("prefix", ["", "net.", "module._orig_mod."])
@pytest.mark.parametrize("style", ["own", "numbered", "flat"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_state_dict_of_either_style_becomes_the_same_network(
    name: str, style: str, prefix: str
) -> None:
    config = replace(PRESETS[name], image_size=min(PRESETS[name].image_size, 128))
    model = trained_like(config)
    as_saved = {"own": lambda m: m, "numbered": numbered, "flat": flat}[style](model)
    found = read_weights(config, saved(as_saved.state_dict(), prefix))
    assert found.numbered == (style != "own")
    loaded = load_model(config, found.checkpoint)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert found.tensors == len(model.state_dict())


def test_the_tutorials_own_code_gives_names_that_are_understood() -> None:
    def block(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel_size=1),
            nn.ReLU(),
        )

    net = nn.Sequential(
        block(1, 6, 11, 4, 0),
        nn.MaxPool2d(3, stride=2),
        block(6, 16, 5, 1, 2),
        nn.MaxPool2d(3, stride=2),
        block(16, 24, 3, 1, 1),
        nn.MaxPool2d(3, stride=2),
        nn.Dropout(0.5),
        block(24, 10, 3, 1, 1),
        nn.AdaptiveMaxPool2d((1, 1)),
        nn.Flatten(),
    ).eval()
    assert {"0.0.weight", "0.2.weight", "7.4.bias"} <= set(net.state_dict())
    model = load_model(SLIM, read_weights(SLIM, saved(net.state_dict())).checkpoint)
    images = torch.rand(3, 1, 128, 128)
    with torch.no_grad():
        assert torch.equal(model(images), net(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    state = {n: t.to(dtype) for n, t in trained_like(TINY).state_dict().items()}
    loaded = load_model(TINY, read_weights(TINY, saved(state)).checkpoint).state_dict()
    for name, tensor in state.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.float())


def test_a_count_of_batches_may_be_missing() -> None:
    config = replace(TINY, batch_norm=True)
    state = trained_like(config).state_dict()
    kept = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    loaded = load_model(config, read_weights(config, saved(kept)).checkpoint).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in kept.items())


def test_a_checkpoint_of_ours_loads_without_its_training_state() -> None:
    state = trained_like(TINY).state_dict()
    rest = {"momentum.0": torch.ones(7), "random/shuffling": torch.get_rng_state()}
    blob = saved({**state, **{f"{checkpoints.REST}{name}": kept for name, kept in rest.items()}})
    plain = safetensors.torch.load(plain_weights(blob))
    assert {n: t.tolist() for n, t in plain.items()} == {n: t.tolist() for n, t in state.items()}
    assert read_weights(TINY, blob).tensors == len(state)


# --- weights: what does not -------------------------------------------------------------------


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: Any, begin: Any = 0, end: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    if end is None:
        end = begin + 4 * int(np.prod(shape, dtype=np.int64))
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = saved(trained_like(TINY).state_dict())


class _Torch:
    """What torch.save writes, made without a file."""

    def __init__(self, **options: Any) -> None:
        import io

        buffer = io.BytesIO()
        torch.save(OrderedDict(trained_like(TINY).state_dict()), buffer, **options)
        self.data = buffer.getvalue()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "0 bytes"),
    "seven bytes": (b"\x01" * 7, "7 bytes"),
    "a length alone": (struct.pack("<Q", 40), "cut off"),
    "an endless header": (struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
    "a header of 1 GB": (struct.pack("<Q", 10**9) + b"{}", "not a safetensors file"),
    "a header past the end": (raw({}, length=500), "cut off"),
    "cut in the header": (GOOD[:60], "cut off"),
    "cut in the data": (GOOD[:-1], "cut off"),
    "cut by half": (GOOD[: len(GOOD) // 2], "cut off"),
    "bytes at the end": (GOOD + b"\0", "belong to no tensor"),
    "no JSON": (raw(b"{not json}"), "damaged"),
    "no UTF-8": (raw(b'{"\xff\xff": 1}'), "damaged"),
    "a list": (raw(b"{}", length=2)[:8] + b"[]", "not a safetensors file"),
    "brackets without end": (raw(b'{"a":' + b"[" * 100_000), "damaged"),
    "endless digits": (raw(b'{"a":' + b"9" * 100_000 + b"}"), "damaged"),
    "no tensors": (raw({}), "no tensors"),
    "metadata only": (raw({"__metadata__": {"format": "pt"}}), "no tensors"),
    "a name twice": (raw(b'{"a": {"x": 1, "x": 2}}'), "twice"),
    "a tensor that is a number": (raw({"a": 3}), "needs dtype"),
    "a tensor without a shape": (raw({"a": {"dtype": "F32", "data_offsets": [0, 4]}}), "needs"),
    "an unknown type": (raw({"a": tensor([1], dtype="F8_E4M3")}, b"\0" * 4), "F8_E4M3"),
    "a type that is a list": (raw({"a": tensor([1], dtype=["F32"])}, b"\0" * 4), "type"),
    "a negative shape": (raw({"a": tensor([-1, -1], 0, 4)}, b"\0" * 4), "whole numbers"),
    "a shape of fractions": (raw({"a": tensor([1.0], 0, 4)}, b"\0" * 4), "whole numbers"),
    "a shape of booleans": (raw({"a": tensor([True], 0, 4)}, b"\0" * 4), "whole numbers"),
    "a shape that is a text": (raw({"a": tensor("1", 0, 4)}, b"\0" * 4), "whole numbers"),
    "a shape that overflows": (raw({"a": tensor([2**32, 2**32], 0, 0)}), "does not match"),
    "a hundred dimensions": (raw({"a": tensor([1] * 100, 0, 4)}, b"\0" * 4), "whole numbers"),
    "offsets backwards": (raw({"a": tensor([1], 4, 0)}, b"\0" * 4), "does not match"),
    "offsets past the end": (raw({"a": tensor([10**12])}), "cut off"),
    "three offsets": (
        raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"\0" * 8),
        "two whole numbers",
    ),
    "overlapping": (raw({"a": tensor([2]), "b": tensor([2], 4)}, b"\0" * 12), "one before"),
    "a gap": (raw({"a": tensor([1]), "b": tensor([1], 8)}, b"\0" * 12), "one before"),
    "too many tensors": (raw({str(i): tensor([0]) for i in range(2000)}), "2,000"),
    "another network's names": (
        raw({"features.conv.weight": tensor([1])}, b"\0" * 4),
        "names like block1.conv.weight or 0.0.weight",
    ),
    "a terrible name": (raw({"<b>\n\x1b[31m" + "x" * 999: tensor([1])}, b"\0" * 4), "?[31m"),
    "an HTML page": (b"<!DOCTYPE html><html><body>404</body></html>", "not a safetensors file"),
    "JSON": (b'{"block1.conv.weight": [[1.0]]}', "not a safetensors file"),
    "a NumPy array": (b"\x93NUMPY\x01\x00" + b"\0" * 80, "NumPy"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 80, "HDF5"),
    "zeros": (bytes(4096), "not a safetensors file"),
}

PICKLES: dict[str, bytes] = {
    "torch.save": _Torch().data,
    "torch.save before 1.6": _Torch(_use_new_zipfile_serialization=False).data,
    "pickle 2": pickle.dumps({"a": 1}, protocol=2),
    "pickle 5": pickle.dumps({"a": 1}, protocol=5),
    "a program": pickle.dumps(print, protocol=4),
    "an empty zip": b"PK\x05\x06" + b"\0" * 18,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(name: str) -> None:
    data, says = HOSTILE[name]
    with pytest.raises(ConfigError) as caught:
        read_weights(TINY, data)
    sentence = str(caught.value)
    assert says in sentence
    assert "would work" in sentence or "makes one" in sentence
    assert sentence.isprintable() and len(sentence) < 400
    assert not isinstance(caught.value, PickleError)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_refused_and_never_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    for module, function in ((pickle, "loads"), (pickle, "load"), (torch, "load")):
        monkeypatch.setattr(module, function, opened)
    with pytest.raises(PickleError, match="can run any program"):
        read_weights(TINY, PICKLES[name])


def test_the_two_lines_that_convert_do_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_like(TINY)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    assert len(weights.CONVERT.splitlines()) == 2
    exec(weights.CONVERT, {"torch": torch, "safetensors": safetensors})
    found = read_weights(TINY, (tmp_path / "weights.safetensors").read_bytes())
    assert found.tensors == len(model.state_dict())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_change_of_a_byte_gives_anything_but_a_sentence(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_weights(TINY, bytes(damaged[: data.draw(st.integers(0, len(GOOD)))]))
    except ConfigError as error:
        assert str(error).isprintable()
    else:
        load_model(TINY, found.checkpoint)


STATE = trained_like(TINY).state_dict()
WIDER = trained_like(TINY.with_widths((6,))).state_dict()
MISFITS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "wider": (WIDER, "block1.conv.weight: it is 6×1×3×3 in the file, and this network's is 4×1×3"),
    "wider, numbered": (
        numbered(trained_like(TINY.with_widths((6,)))).state_dict(),
        "0.0.weight: it is 6×1×3×3 in the file, and this network's block1.conv.weight is 4×1×3×3",
    ),
    "a tensor less": (
        {n: t for n, t in STATE.items() if n != "block2.conv.bias"},
        "no block2.conv.bias",
    ),
    "a tensor more": ({**STATE, "block9.conv.bias": torch.ones(3)}, "block9.conv.bias"),
    "numbered, a layer less": (
        {n: t for n, t in numbered(trained_like(TINY)).state_dict().items() if n[:1] == "0"},
        "2 layers with weights, but this network has 4",
    ),
    "numbered, a layer more": (
        {**numbered(trained_like(TINY)).state_dict(), "9.0.weight": torch.ones(2, 2)},
        "9.0.weight",
    ),
    "numbered, a bias less": (
        {n: t for n, t in numbered(trained_like(TINY)).state_dict().items() if n != "0.0.bias"},
        "layer 0.0 has no bias",
    ),
    "whole numbers": ({n: t.long() for n, t in STATE.items()}, "F32 would work"),
    "without batch norm": (
        trained_like(replace(TINY, batch_norm=True)).state_dict(),
        "no block1.conv.bias",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_weights_of_another_network_are_told_by_their_first_tensor(name: str) -> None:
    state, says = MISFITS[name]
    with pytest.raises(ConfigError) as caught:
        read_weights(replace(TINY, image_size=40), saved(state))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- weights: as a run ------------------------------------------------------------------------


def wait_until_measured(store: RunStore, run_id: int) -> None:
    for _ in range(600):
        if store.get(run_id).worker is None:
            return
        time.sleep(0.1)
    raise AssertionError(f"run #{run_id} is still being measured: {store.log(run_id)}")


def test_weights_that_cannot_be_kept_leave_no_run(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("Its disk is full.", "full")

    config = replace(PRESETS["nin-28"].with_widths((4, 5, 6)), dropout=0.0)
    found = read_weights(config, saved(numbered(trained_like(config)).state_dict()))
    monkeypatch.setattr("nin_core.store.put_checkpoint", full)
    with pytest.raises(StoreError, match="disk is full"):
        import_run(store, config, found, dataset="shapes", name="a", standardize=True)
    assert store.list_runs() == []


@pytest.mark.parametrize("standardize", [True, False])
def test_imported_weights_are_a_finished_run_that_is_measured(
    store: RunStore, standardize: bool
) -> None:
    from nin_core import load_dataset
    from nin_core.diagnosis import evaluate
    from nin_core.inputs import Inputs

    config = replace(PRESETS["nin-28"].with_widths((4, 5, 6)), dropout=0.0)
    model = trained_like(config)
    found = read_weights(config, saved(numbered(model).state_dict()))
    run_id = import_run(
        store,
        config,
        found,
        dataset="shapes",
        name="  from  my laptop ",
        standardize=standardize,
        source="net.safetensors",
    )
    run = store.get(run_id)
    assert (run.state, run.name, run.imported) == ("finished", "from my laptop", True)
    assert run.network == config and run.problem is None
    checkpoint = store.load_checkpoint(run_id)
    assert checkpoint is not None
    assert checkpoint.info == {"imported": "net.safetensors", "numbered": True}
    wait_until_measured(store, run_id)
    run, evaluation = store.get(run_id), store.load_evaluation(run_id)
    assert evaluation is not None, store.log(run_id)
    shapes = load_dataset("shapes")
    scaled = (shapes.mean, shapes.std) if standardize else (None, None)
    inputs = Inputs(config, *scaled)
    expected = evaluate(model, shapes.test_images, shapes.test_labels, inputs)
    assert run.test_accuracy == pytest.approx(expected.accuracy, abs=1e-6)
    assert run.test_examples == evaluation.images == len(shapes.test_labels)
    logits = read_logits(evaluation.logits, evaluation.images, evaluation.classes)
    assert (logits.argmax(1) == expected.logits.argmax(1).numpy()).mean() > 0.99
    assert run.worker is None and run.state == "finished"


def test_a_run_whose_data_set_cannot_be_read_stays_finished(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Measuring fails, in the other process; the weights are kept and the slot is free."""
    monkeypatch.setattr(scoring, "sys", type("_", (), {"executable": "/nowhere/python"}))
    config = replace(TINY, num_classes=10, blocks=(TINY.blocks[0], BlockConfig((10,), 3)))
    found = read_weights(config, saved(trained_like(config).state_dict()))
    run_id = import_run(store, config, found, dataset="shapes", name="a", standardize=True)
    wait_until_measured(store, run_id)
    run = store.get(run_id)
    assert run.state == "finished" and run.has_checkpoint and not run.has_evaluation
    assert "could not be measured" in store.log(run_id)


def test_what_measures_imported_weights_ends_with_its_server(store: RunStore) -> None:
    config = replace(TINY, num_classes=10, blocks=(TINY.blocks[0], BlockConfig((10,), 3)))
    found = read_weights(config, saved(trained_like(config).state_dict()))
    train = RECIPES["fast"].configure(config)
    kept = Checkpoint(0, 0, found.checkpoint)
    run_id, attempt = store.create_finished(config, train, "shapes", "a", kept, this_worker())
    command = [sys.executable, "-m", "nin_core.scoring", str(run_id), str(attempt)]
    for parent, measured in ((os.getpid() + 1, False), (os.getpid(), True)):
        subprocess.run([*command, str(parent)], cwd=PROJECT, check=True)
        assert store.get(run_id).has_evaluation is measured


def test_what_cannot_be_a_run_is_refused(store: RunStore) -> None:
    found = read_weights(TINY, GOOD)
    with pytest.raises(ConfigError, match="10 would work"):
        import_run(store, TINY, found, dataset="shapes", name="a", standardize=True)
    with pytest.raises(ConfigError, match="no data set"):
        import_run(store, TINY, found, dataset="imagenet", name="a", standardize=True)
    assert store.list_runs() == []


# --- the command line -------------------------------------------------------------------------


def test_export_writes_each_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PRESETS["nin-28"].with_widths((8, 9, 10))
    changed = ["nin-28", "--widths", "8,9,10"]
    assert main(["export", *changed]) == 0
    assert capsys.readouterr().out == export.pytorch_code(config)
    assert main(["export", *changed, "--format", "pytest", "--batch-size", "3"]) == 0
    assert capsys.readouterr().out == export.pytest_code(config, 3)
    path = tmp_path / "net.json"
    assert main(["export", *changed, "--format", "json", "--output", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert export.from_json(path.read_bytes()) == config
    assert main(["summary", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["total_parameters"] == summarize(config).total_parameters


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nin-28", "--format", "tar"], "--format"),
        (["nin-28", "--format", "onnx"], "--output nin.onnx would work"),
        (["nin-28", "--run", "3"], "--format onnx"),
        (["nin-28", "--format", "onnx", "--output", "x.onnx", "--run", "3"], ""),
        (["nowhere.json"], "cannot be read"),
        (["nin-28", "--output", "/nowhere/a.py"], "cannot be written"),
        (["nin-29"], "no preset"),
    ],
)
def test_export_refuses_in_a_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], store: RunStore
) -> None:
    assert main(["export", *arguments]) == 2
    told = capsys.readouterr()
    assert says in told.err and told.err.count("\n") == 1
    assert told.out == ""
