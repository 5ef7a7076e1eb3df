"""Feature maps to take away: their arrays, and the PyTorch lines that compute them anew.

Choices made here:

* The arrays are named as the layers are; where there are two sides, the side stands in front:
  "input", "block1.relu_1", "logits", or "left/input" and so on. The array "names" says so in words,
  so that a file found a year later explains itself.
* The code needs the network as `export.pytorch_code` writes it and the weights as safetensors. All
  of it lies in one archive, in which the code runs as it is, and ends by comparing its results with
  the arrays.
* Two sides with the same network, or the same weights, share the file.
* No torch here: who has the maps has computed them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import NiNConfig
from .export import module_name, pytorch_code

ARRAYS = "maps.npz"
CODE = "maps.py"
PICTURE = "maps.png"


@dataclass(frozen=True, eq=False)
class Side:
    """One network that looks at one picture.

    Attributes:
        name: what stands in front of its arrays' names: "left", "right"; "" where it is alone.
        title: what it is, in words.
        network: its architecture.
        weights_key: equal for equal weights; hashable.
        image: float32 ``[in_channels, image_size, image_size]``, as the network gets it.
        maps: layer -> float32 ``[channels, height, width]``.
        logits: float32 ``[classes]``.
    """

    name: str
    title: str
    network: NiNConfig
    weights_key: Any
    image: NDArray[np.float32]
    maps: Mapping[str, NDArray[np.float32]]
    logits: NDArray[np.float32]

    @property
    def prefix(self) -> str:
        return f"{self.name}/" if self.name else ""


def arrays(sides: Sequence[Side]) -> dict[str, NDArray[Any]]:
    """The arrays of all sides by name, and "names", which says what each is."""
    found: dict[str, NDArray[Any]] = {}
    lines = []

    def add(side: Side, name: str, values: NDArray[Any], what: str) -> None:
        found[f"{side.prefix}{name}"] = values
        lines.append(f"{side.prefix}{name}: {what}, {list(values.shape)}")

    for side in sides:
        lines.append(f"{side.name or 'all'}: {side.title}")
        add(side, "input", side.image, "the picture as the network gets it, [channel, row, column]")
        for layer, maps in side.maps.items():
            add(side, layer, maps, f"the output of layer {layer}, [channel, row, column]")
        add(side, "logits", side.logits, "one number a class, before softmax")
    found["names"] = np.array("\n".join(lines))
    return found


def npz(sides: Sequence[Side]) -> bytes:
    """`arrays` as NumPy's compressed archive; it holds no pickle."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays(sides))
    return file.getvalue()


def code(sides: Sequence[Side]) -> str:
    """The lines of PyTorch that give the sides' arrays, and compare them with the file's."""
    modules, weights = _modules(sides), _weights(sides)
    builders = {module: "nin" if len(set(modules)) == 1 else f"{module}_nin" for module in modules}
    imports = [
        f"from {module} import nin" + ("" if name == "nin" else f" as {name}")
        for module, name in sorted(builders.items())
    ]
    runs, checks = [], []
    for side, module, file in zip(sides, modules, weights, strict=True):
        variable = side.name or "found"
        layers = "".join(f'    "{layer}",\n' for layer in side.maps)
        runs.append(
            f"# {' '.join(side.title.split())}\n"
            f"{variable} = outputs(\n"
            f'    {builders[module]}(),\n    "{file}",\n    arrays["{side.prefix}input"],\n'
            + "".join(f"    {line}\n" for line in f"[\n{layers}],".splitlines())
            + ")"
        )
        key = f'f"{side.prefix}{{name}}"' if side.prefix else "name"
        checks.append(f"for name, values in {variable}.items():\n    compare({key}, values)")
    files = ", ".join(sorted({f"{module}.py" for module in modules} | set(weights)))
    return _CODE.format(
        files=files, imports="\n".join(imports), runs="\n".join(runs), checks="\n".join(checks)
    )


_CODE = '''"""The arrays of maps.npz, computed anew.

Beside it: {files}
"""

import numpy as np
import torch
from safetensors.torch import load_file

{imports}

arrays = np.load("maps.npz")


def outputs(model, weights, image, layers):
    """What these layers say to one image [channel, row, column], and the logits."""
    model.load_state_dict(load_file(weights))
    found = {{}}

    def keep(layer):
        return lambda module, inputs, output: found.update({{layer: output[0].numpy()}})

    for layer in layers:
        model.get_submodule(layer).register_forward_hook(keep(layer))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(image)[None])
    return found | {{"logits": logits[0].numpy()}}


def compare(name, values):
    """The same to rounding."""
    largest = np.abs(arrays[name]).max()
    np.testing.assert_allclose(values, arrays[name], rtol=1e-4, atol=1e-5 * largest)
    print(f"{{name}} {{values.shape}}: the same")


{runs}

{checks}
'''


def archive(
    sides: Sequence[Side], weights: Sequence[Callable[[], bytes]], picture: bytes | None = None
) -> bytes:
    """A ZIP file of all that `code` needs, with it, and with the picture.

    Args:
        weights: for each side, what gives its safetensors; called once for each file.
        picture: a PNG.
    """
    contents: dict[str, bytes | str] = {ARRAYS: npz(sides), CODE: code(sides)}
    if picture is not None:
        contents[PICTURE] = picture
    for side, module, file, make in zip(
        sides, _modules(sides), _weights(sides), weights, strict=True
    ):
        contents.setdefault(f"{module}.py", pytorch_code(side.network))
        if file not in contents:
            contents[file] = make()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as into:
        for name, data in contents.items():
            into.writestr(name, data)
    return whole.getvalue()


def _modules(sides: Sequence[Side]) -> list[str]:
    """The module of each side's network, without ".py"."""
    if len({side.network for side in sides}) == 1:
        return [module_name(side.network) for side in sides]
    return [f"{side.name}_{module_name(side.network)}" for side in sides]


def _weights(sides: Sequence[Side]) -> list[str]:
    """The file of each side's weights."""
    if len({side.weights_key for side in sides}) == 1:
        return ["weights.safetensors" for _ in sides]
    return [f"{side.name}.safetensors" for side in sides]
