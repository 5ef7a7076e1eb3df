"""The architecture as a query string, and back: a link reproduces the network.

Only what differs from the preset is written, in words a person can edit::

    ?net=nin-slim-128&widths=8-16-32&head=avg
    ?net=nin-28&blocks=32-32_k5s1p2_max3s2p0~64-64-10_k3s1p1

`widths` when every convolution of a block is equally wide, else `blocks` with, per block, its
widths, kernel, stride, padding and pooling. Whatever comes in is checked by `NiNConfig`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nin_core import BlockConfig, ConfigError, NiNConfig, preset

DEFAULT_PRESET = "nin-slim-128"
KEYS = ("net", "widths", "blocks", "image", "in", "classes", "dropout", "head", "relu", "bn")

_BLOCK = re.compile(
    r"(?P<channels>\d{1,6}(?:-\d{1,6})*)_k(?P<k>\d{1,4})s(?P<s>\d{1,4})p(?P<p>\d{1,4})"
    r"(?:_(?P<mode>max|avg)(?P<pk>\d{1,4})s(?P<ps>\d{1,4})p(?P<pp>\d{1,4}))?"
)


def to_query(config: NiNConfig, base: str) -> dict[str, str]:
    """The query parameters of `config`, as changes to the preset `base`."""
    start = preset(base)
    query = {"net": base}
    if config.blocks != start.blocks:
        same = (
            len(config.blocks) == len(start.blocks)
            and start.with_widths(config.widths).blocks == config.blocks
        )
        if same:
            query["widths"] = "-".join(map(str, config.widths))
        else:
            query["blocks"] = "~".join(map(_block_text, config.blocks))
    if config.image_size != start.image_size:
        query["image"] = str(config.image_size)
    if config.in_channels != start.in_channels:
        query["in"] = str(config.in_channels)
    if config.num_classes != start.num_classes:
        query["classes"] = str(config.num_classes)
    if config.dropout != start.dropout:
        query["dropout"] = repr(config.dropout)
    if config.global_pool != start.global_pool:
        query["head"] = config.global_pool
    if config.final_relu != start.final_relu:
        query["relu"] = str(int(config.final_relu))
    if config.batch_norm != start.batch_norm:
        query["bn"] = str(int(config.batch_norm))
    return query


def from_query(query: Mapping[str, str]) -> tuple[str, NiNConfig]:
    """Read what `to_query` wrote: the preset's name and the network.

    Raises:
        ConfigError: names the parameter that cannot be read, or why the network cannot be.
    """
    base = query.get("net", DEFAULT_PRESET)
    start = preset(base)
    values = start.to_dict()
    if "widths" in query:
        widths = [_int(part, "widths") for part in query["widths"].split("-")]
        if len(widths) != len(start.widths):
            start.with_widths(widths)  # raises, with a sentence that says how many would work
        for block, width in zip(values["blocks"], widths, strict=False):
            block["channels"] = [width] * len(block["channels"])
    if "blocks" in query:
        values["blocks"] = [_block(text) for text in query["blocks"].split("~")]
    for key, field in (("image", "image_size"), ("in", "in_channels"), ("classes", "num_classes")):
        if key in query:
            values[field] = _int(query[key], key)
    if "dropout" in query:
        try:
            values["dropout"] = float(query["dropout"])
        except ValueError:
            raise _unreadable("dropout", query["dropout"], "0.5") from None
    if "head" in query:
        values["global_pool"] = query["head"]
    for key, field in (("relu", "final_relu"), ("bn", "batch_norm")):
        if key in query:
            if query[key] not in ("0", "1"):
                raise _unreadable(key, query[key], "0 or 1")
            values[field] = query[key] == "1"
    return base, NiNConfig.from_dict(values)


def _block_text(block: BlockConfig) -> str:
    text = "-".join(map(str, block.channels))
    text += f"_k{block.kernel_size}s{block.stride}p{block.padding}"
    if block.pool is not None:
        pool = block.pool
        text += f"_{pool.mode}{pool.kernel_size}s{pool.stride}p{pool.padding}"
    return text


def _block(text: str) -> dict[str, object]:
    match = _BLOCK.fullmatch(text)
    if match is None:
        raise _unreadable("blocks", text, "32-32-32_k5s1p2_max3s2p0")
    pool = match["mode"] and {
        "kernel_size": int(match["pk"]),
        "stride": int(match["ps"]),
        "padding": int(match["pp"]),
        "mode": match["mode"],
    }
    return {
        "channels": tuple(int(width) for width in match["channels"].split("-")),
        "kernel_size": int(match["k"]),
        "stride": int(match["s"]),
        "padding": int(match["p"]),
        "pool": pool,
    }


def _int(text: str, key: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise _unreadable(key, text, "a whole number")
    return int(text)


def _unreadable(key: str, text: str, works: str) -> ConfigError:
    return ConfigError(f"{key}={text[:60]} cannot be read; {works} would work.", field=key)
