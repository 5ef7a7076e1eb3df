"""Random networks for property tests: valid ones, and ones with a single fault."""

from __future__ import annotations

from hypothesis import strategies as st

from nin_core import BlockConfig, ConfigError, NiNConfig, PoolConfig


@st.composite
def blocks(draw: st.DrawFn, last_width: int | None = None) -> BlockConfig:
    """A NiN block on its own; whether its maps survive depends on the network around it."""
    widths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    if last_width is not None:
        widths[-1] = last_width
    kernel = draw(st.integers(1, 7))
    pool = None
    if draw(st.booleans()):
        window = draw(st.integers(1, 4))
        pool = PoolConfig(
            window,
            draw(st.integers(1, 3)),
            draw(st.integers(0, window // 2)),
            draw(st.sampled_from(["max", "avg"])),
        )
    return BlockConfig(
        tuple(widths), kernel, draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1)), pool
    )


@st.composite
def networks(draw: st.DrawFn) -> NiNConfig:
    """Networks of 1 to 4 blocks with every option, small enough to build and run in milliseconds.

    The image is enlarged to the smallest that the drawn blocks leave something of.
    """
    classes = draw(st.integers(2, 12))
    body = [draw(blocks()) for _ in range(draw(st.integers(0, 3)))]
    chosen = (*body, draw(blocks(last_width=classes)))
    size = draw(st.integers(1, 40))
    while True:
        try:
            return NiNConfig(
                in_channels=draw(st.integers(1, 4)),
                image_size=size,
                num_classes=classes,
                blocks=chosen,
                dropout=draw(st.sampled_from([0.0, 0.3, 0.5])),
                global_pool=draw(st.sampled_from(["max", "avg"])),
                final_relu=draw(st.booleans()),
                batch_norm=draw(st.booleans()),
            )
        except ConfigError:
            size += 3
