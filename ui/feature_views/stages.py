"""The layers of a network as the Feature maps page offers them, and those that two share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from nin_core import NiNConfig, summarize


@dataclass(frozen=True)
class Stage:
    """A choice in the list of layers: a convolution with what belongs to it, or a pooling.

    Attributes:
        title: for people.
        kind: "conv" (k×k), "conv1x1" or "pool".
        block: from 1; 0 for pooling.
        before, after: layers whose maps it has before and after its (batch norm and) ReLU; equal
            without one and for pooling.
        entering: the layer whose maps enter it; None: the image does.
    """

    title: str
    kind: Literal["conv", "conv1x1", "pool"]
    block: int
    before: str
    after: str
    entering: str | None


def stages(network: NiNConfig) -> list[Stage]:
    """The layers to choose from, in the order of the forward pass."""
    rows = summarize(network).layers
    # Batch norm and ReLU belong to the convolution before them.
    starts = [i for i, row in enumerate(rows) if row.kind not in ("batch_norm", "relu")]
    found: list[Stage] = []
    for start, end in pairwise([*starts, len(rows)]):
        row, parts = rows[start], rows[start:end]
        entering = found[-1].after if found else None
        if row.kind in ("conv", "conv1x1"):
            window = f"{row.kernel_size}×{row.kernel_size} convolution"
            what = window if row.kind == "conv" else f"1×1 convolution {row.name[-1]}"
            extras = {"batch_norm": " + batch norm", "relu": " + ReLU"}
            title = f"Block {row.block} · {what}" + "".join(extras[p.kind] for p in parts[1:])
            found.append(Stage(title, row.kind, row.block, row.name, parts[-1].name, entering))
        elif row.kind in ("max_pool", "avg_pool"):
            how = "maximum" if row.kind == "max_pool" else "mean"
            title = (
                f"Pooling {row.name.removeprefix('pool')} · {how} of "
                f"{row.kernel_size}×{row.kernel_size}, stride {row.stride}"
            )
            found.append(Stage(title, "pool", 0, row.name, row.name, entering))
    return found


def block_stages(network: NiNConfig, block: int) -> list[Stage]:
    """A block's convolutions: the k×k one first, then the 1×1 ones."""
    return [stage for stage in stages(network) if stage.block == block]


def layers_of(chosen: list[Stage]) -> tuple[str, ...]:
    """The layers whose maps these stages show, before and after ReLU."""
    return tuple(sorted({name for stage in chosen for name in (stage.before, stage.after)}))


@dataclass(frozen=True)
class Pairs:
    """Which layers of two networks correspond: those with the same name, whatever their shapes.

    Attributes:
        both: by the left one's `after`: the layer in both.
        only_left, only_right: those without a counterpart.
    """

    both: dict[str, tuple[Stage, Stage]]
    only_left: list[Stage]
    only_right: list[Stage]


def paired(left: NiNConfig, right: NiNConfig) -> Pairs:
    """The layers of two networks beside each other.

    A convolution's counterpart is the one in the same place of the same block, with or without
    batch norm and ReLU behind it; a pooling's is the one after the same block.
    """
    there = {stage.before: stage for stage in stages(right)}
    both: dict[str, tuple[Stage, Stage]] = {}
    only_left: list[Stage] = []
    for stage in stages(left):
        if stage.before in there:
            both[stage.after] = stage, there.pop(stage.before)
        else:
            only_left.append(stage)
    return Pairs(both, only_left, list(there.values()))


def short_title(stage: Stage) -> str:
    """ "Block 2 · 1×1 convolution 1", "Pooling 2"."""
    if stage.kind == "pool":
        return stage.title.partition(" · ")[0]
    return stage.title.partition(" + ")[0]
