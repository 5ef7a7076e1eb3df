"""LeNet, AlexNet and VGG-11 against the same networks written out in torch by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nin_core import ConfigError
from nin_core.model import build_layers
from nin_core.reference_nets import REFERENCE_NETS, reference_net, reference_summary


def lenet(in_channels: int, flat: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, kernel_size=5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Flatten(),
        nn.Linear(flat, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, classes),
    )


def alexnet(in_channels: int, flat: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 96, kernel_size=11, stride=4, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(96, 256, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(256, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Flatten(),
        nn.Linear(flat, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )


def vgg11(in_channels: int, flat: int, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, width in ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)):
        for _ in range(number):
            layers += [nn.Conv2d(in_channels, width, kernel_size=3, padding=1), nn.ReLU()]
            in_channels = width
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(flat, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )


BY_HAND = {"LeNet": lenet, "AlexNet": alexnet, "VGG-11": vgg11}
SIZES = [12, 28, 32, 33, 65, 96, 224]
CASES = [
    (name, size, channels)
    for name, net in REFERENCE_NETS.items()
    for size in SIZES
    for channels in (1, 3)
    if size >= net.smallest_image_size
]


def trace(model: nn.Module, channels: int, size: int) -> list[tuple[tuple[int, ...], int, int]]:
    """(output shape, parameters, MACs) of every leaf, from hooks; no memory: on torch's meta."""
    rows: list[tuple[tuple[int, ...], int, int]] = []

    def record(module: nn.Module, _: object, output: torch.Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters())
        macs = 0
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Every output position takes each of the weights once.
            positions = output[0, 0].numel() if output.dim() == 4 else 1
            macs = module.weight.numel() * positions
        rows.append((tuple(output.shape[1:]), parameters, macs))

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(record)
    model(torch.zeros(2, channels, size, size, device="meta"))
    return rows


@pytest.mark.parametrize(("name", "size", "channels"), CASES)
def test_every_layer_is_as_in_torch(name: str, size: int, channels: int) -> None:
    summary = reference_summary(name, channels, size, 10)
    flat = next(layer for layer in summary.layers if layer.kind == "flatten").output_shape[0]
    with torch.device("meta"):
        model = BY_HAND[name](channels, flat, 10)
    ours = [(layer.output_shape, layer.parameters, layer.macs) for layer in summary.layers]
    assert ours == trace(model, channels, size)


@pytest.mark.parametrize("name", REFERENCE_NETS)
def test_the_plan_builds_the_same_module(name: str) -> None:
    size = 96
    summary = reference_summary(name, 1, size, 10)
    flat = next(layer for layer in summary.layers if layer.kind == "flatten").output_shape[0]
    plan = reference_net(name).plan(in_channels=1, image_size=size, num_classes=10)
    with torch.device("meta"):
        built, by_hand = build_layers(plan), BY_HAND[name](1, flat, 10)
    assert [layer.name for layer in plan] == [key for key, _ in built.named_children()]
    assert list(map(repr, built)) == list(map(repr, by_hand))


def test_published_totals() -> None:
    assert reference_summary("AlexNet", 1, 224, 10).total_parameters == 46_764_746
    assert reference_summary("LeNet", 1, 28, 10).total_parameters == 61_706
    # torchvision's own VGG-11 has 132,863,336 for 3×224×224 and 1,000 classes.
    assert reference_summary("VGG-11", 3, 224, 1000).total_parameters == 132_863_336


@pytest.mark.parametrize("name", REFERENCE_NETS)
def test_the_smallest_image_is_the_smallest(name: str) -> None:
    smallest = reference_net(name).smallest_image_size
    assert reference_summary(name, 1, smallest, 10).layers[-1].output_shape == (10,)
    with pytest.raises(ConfigError, match=f"{smallest}×{smallest} is the smallest") as caught:
        reference_summary(name, 1, smallest - 1, 10)
    assert caught.value.field == "image_size"
    assert caught.value.suggestion == smallest
    with torch.device("meta"):
        trunk = [m for m in BY_HAND[name](1, 1, 10) if not isinstance(m, nn.Linear)]
        with pytest.raises(RuntimeError):
            nn.Sequential(*trunk)(torch.zeros(1, 1, smallest - 1, smallest - 1, device="meta"))


def test_saved_bytes_of_sigmoids_and_average_pooling_are_what_autograd_keeps() -> None:
    """LeNet on the CPU: every tensor that autograd keeps, each once, but not the weights."""
    summary = reference_summary("LeNet", 1, 28, 10, batch_size=4)
    model = lenet(1, 400, 10)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(4, 1, 28, 28)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(images)
    assert logits.shape == (4, 10)
    assert summary.saved_bytes == sum(kept.values())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="LeNet, AlexNet, VGG-11"):
        reference_summary("ResNet", 1, 224, 10)


def test_out_of_range_input_is_refused() -> None:
    for channels, size, classes in ((0, 224, 10), (1, 5000, 10), (1, 224, 1), (1, 22.4, 10)):
        with pytest.raises(ConfigError):
            reference_summary("AlexNet", channels, size, classes)
