"""What is taken along: the lines of PyTorch, run in a folder of their own, give the arrays."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save

from nin_core import PRESETS, BlockConfig, NiNConfig, PoolConfig
from nin_core.features import class_maps, extract_feature_maps, load_model, untrained_model
from nin_core.maps_export import Side, archive, arrays, code, npz
from nin_core.snapshots import halved
from nin_core.weights import plain_weights

from .test_features import lively

SMALL = NiNConfig(
    in_channels=3,
    image_size=20,
    num_classes=4,
    blocks=(
        BlockConfig(channels=(5, 6), kernel_size=3, stride=1, padding=1, pool=PoolConfig(2, 2)),
        BlockConfig(channels=(7, 4), kernel_size=3, stride=1, padding=0),
    ),
    global_pool="avg",
    batch_norm=True,
)


def side(
    name: str, network: NiNConfig, weights: bytes, seed: int, layers: list[str], title: str = "One"
) -> Side:
    model = load_model(network, weights)
    shape = (network.in_channels, network.image_size, network.image_size)
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Side(
        name=name,
        title=title,
        network=network,
        weights_key=weights,
        image=image,
        maps=extract_feature_maps(model, image, layers),
        logits=class_maps(model, image).logits,
    )


def unpacked(data: bytes, folder: Path) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as whole:
        whole.extractall(folder)
        return sorted(whole.namelist())


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """The lines as a person runs them: there, without this project in the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "maps.py"],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_lines_give_the_arrays_of_one_network(tmp_path: Path) -> None:
    network = PRESETS["nin-slim-128"]
    weights = save(untrained_model(network, 1).state_dict())
    layers = ["block1.conv1x1_1", "block2.relu_2", "pool2"]
    sides = [side("", network, weights, 0, layers)]
    names = unpacked(archive(sides, [lambda: weights], b"PNG"), tmp_path)
    assert names == ["maps.npz", "maps.png", "maps.py", "nin_slim_128.py", "weights.safetensors"]
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split()[0] for line in said] == [*layers, "logits"]
    assert all(line.endswith("the same") for line in said)


def test_the_lines_give_the_arrays_of_two_networks_with_other_shapes(tmp_path: Path) -> None:
    networks = (PRESETS["nin-28"], SMALL)
    # As a snapshot has them: in half precision, which the file taken along holds as float32.
    weights = [plain_weights(save(halved(lively(network, 3).state_dict()))) for network in networks]
    sides = [
        side("left", networks[0], weights[0], 0, ["block1.relu_1"], 'a "quoted"\nname'),
        side("right", networks[1], weights[1], 1, ["block1.relu_1", "block2.bn_1"]),
    ]
    made = archive(sides, [lambda: weights[0], lambda: weights[1]])
    assert unpacked(made, tmp_path) == [
        "left.safetensors",
        "left_nin_28.py",
        "maps.npz",
        "maps.py",
        "right.safetensors",
        "right_nin_custom.py",
    ]
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "right/block2.bn_1 (4, 8, 8): the same" in done.stdout
    # And they would say so if they were not.
    other = dict(np.load(tmp_path / "maps.npz"))
    other["right/block2.bn_1"] = other["right/block2.bn_1"] + 0.01
    np.savez(tmp_path / "maps.npz", **other)
    assert "Mismatch" in run(tmp_path).stderr


def test_two_pictures_of_one_network_share_its_files(tmp_path: Path) -> None:
    weights = save(lively(SMALL, 1).state_dict())
    sides = [side(name, SMALL, weights, n, ["pool1"]) for n, name in enumerate(("left", "right"))]

    def never() -> bytes:
        raise AssertionError("made twice")

    names = unpacked(archive(sides, [lambda: weights, never]), tmp_path)
    assert names == ["maps.npz", "maps.py", "nin_custom.py", "weights.safetensors"]
    assert run(tmp_path).returncode == 0


def test_the_arrays_are_named_and_say_what_they_are() -> None:
    weights = save(lively(SMALL, 1).state_dict())
    one = side("left", SMALL, weights, 0, ["pool1"], "Run #1")
    read = np.load(io.BytesIO(npz([one])), allow_pickle=False)
    assert sorted(read) == ["left/input", "left/logits", "left/pool1", "names"]
    for name, values in arrays([one]).items():
        assert np.array_equal(read[name], values)
    assert (read["left/input"] == one.image).all()
    words = str(read["names"]).splitlines()
    assert words[0] == "left: Run #1"
    assert "left/pool1: the output of layer pool1, [channel, row, column], [6, 10, 10]" in words


@pytest.mark.parametrize("names", [("",), ("left", "right")])
def test_the_code_is_formatted(names: tuple[str, ...], tmp_path: Path) -> None:
    weights = save(lively(SMALL, 1).state_dict())
    (tmp_path / "maps.py").write_text(code([side(n, SMALL, weights, 0, ["pool1"]) for n in names]))
    check = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "maps.py"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
