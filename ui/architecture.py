"""The sidebar's architecture controls: the one place where widgets become a `NiNConfig`.

The network being edited is a plain nested dict, the *draft*, in the session; every widget shows a
value of it and writes back to it. The draft may pass through states that cannot be built (a kernel
too large for its map): then the sentence of the `ConfigError` stands above the controls with a
button for the value that works, pages go on showing the last network that can, and nothing typed
is lost.

Changes are taken over at the start of the script (`_take_changes`), not in widget callbacks:
Streamlit may break a callback off when the next interaction arrives while it runs, and a slider
moved quickly would lose its last steps.

The URL holds the network (`ui.link`), so that a reload or a link brings it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import streamlit as st

from nin_core import (
    PRESETS,
    ConfigError,
    NiNConfig,
    PoolConfig,
    preset,
    preset_name,
    summarize,
)
from nin_core import config as bounds
from ui import address, link, numbers

BATCH_SIZE = 64  # the tutorial's; the sidebar's memory figure is for it
MORE = "nin:more"  # key of the expander with everything but the widths

_DESCRIPTIONS = {
    "nin-224": "The tutorial's full network, for 224×224 grey images.",
    "nin-slim-128": "The narrow network that the tutorial trains, for 128×128 grey images.",
    "nin-28": "Ours: Fashion-MNIST's 28×28 images as they are, with batch norm.",
    "nin-cifar10": "The paper's network for 32×32 colour images.",
}

Path = tuple[str | int, ...]


def current() -> NiNConfig:
    """The session's network: the last draft that could be built."""
    _ensure()
    return st.session_state["nin_config"]


def base_preset() -> str:
    """The preset the session's network started from."""
    _ensure()
    return st.session_state["nin_base"]


def problem() -> str | None:
    """Why the draft cannot be built, if it cannot."""
    return st.session_state.get("nin_problem")


def show(config: NiNConfig) -> None:
    """Make `config` the session's network, e.g. a run's; the sidebar and the URL follow.

    For use in a widget's callback: the sidebar's own widgets are drawn after it.
    """
    current_base = st.session_state.get("nin_base", link.DEFAULT_PRESET)
    _load(preset_name(config) or current_base, config)


def controls() -> None:
    """Draw the architecture part of the sidebar and take over what was changed."""
    _ensure()
    _take_changes()
    error = _validate()
    st.markdown("#### Architecture")
    st.selectbox(
        "Preset",
        list(PRESETS),
        key=_shown("nin:preset", st.session_state["nin_base"], _take_preset),
    )
    st.caption(_DESCRIPTIONS[st.session_state["nin_base"]])
    if notice := st.session_state.get("nin_notice"):
        st.warning(notice)
    if error is not None:
        _show_error(error)
    _width_sliders()
    _totals(current())
    # Drawn only when open: 20 widgets that nobody sees cost a fifth of a slider's step.
    more = st.expander("More settings", key=MORE, on_change="rerun")
    if more.open:
        with more:
            _more()
    if current() != preset(st.session_state["nin_base"]) or error is not None:
        st.button(f"Back to {st.session_state['nin_base']}", on_click=_back_to_preset)
    _write_url()


# --- the draft --------------------------------------------------------------------------------


def _ensure() -> None:
    """At the start of a session, take the network from the URL."""
    if "nin_draft" in st.session_state:
        return
    query = {key: st.query_params[key] for key in link.KEYS if key in st.query_params}
    try:
        base, config = link.from_query(query)
        st.session_state["nin_notice"] = None
    except ConfigError as error:
        base = query.get("net", "")
        base = base if base in PRESETS else link.DEFAULT_PRESET
        config = preset(base)
        st.session_state["nin_notice"] = f"The link's network cannot be: {error} Shown is {base}."
    _load(base, config)


def _load(base: str, config: NiNConfig) -> None:
    _renew()
    st.session_state["nin_base"] = base
    st.session_state["nin_config"] = config
    st.session_state["nin_draft"] = _plain(config)
    st.session_state["nin_problem"] = None
    # A block's slider scales all its widths from these, so that going back and forth loses nothing.
    st.session_state["nin_anchors"] = [list(block.channels) for block in config.blocks]
    # A slider's bounds are part of its identity: they are set here and stay while it is dragged.
    widest = max((width for block in config.blocks[:-1] for width in block.channels), default=32)
    limit = min(max(64, 2 ** (2 * widest - 1).bit_length()), bounds.MAX_CHANNELS)
    st.session_state["nin_slider_limit"] = limit


def _plain(config: NiNConfig) -> dict[str, Any]:
    draft = config.to_dict()
    draft["blocks"] = [{**block, "channels": list(block["channels"])} for block in draft["blocks"]]
    return draft


def _validate() -> ConfigError | None:
    """Turn the draft into the session's network, or say why that cannot be."""
    try:
        st.session_state["nin_config"] = NiNConfig.from_dict(
            deepcopy(st.session_state["nin_draft"])
        )
    except ConfigError as error:
        st.session_state["nin_problem"] = str(error)
        return error
    st.session_state["nin_problem"] = None
    return None


def _take_preset() -> None:
    name = st.session_state[_key("nin:preset")]
    _load(name, preset(name))
    st.session_state["nin_notice"] = None


def _back_to_preset() -> None:
    name = st.session_state["nin_base"]
    _load(name, preset(name))
    st.session_state["nin_notice"] = None


def _get(path: Path) -> Any:
    value = st.session_state["nin_draft"]
    for step in path:
        value = value[step]
    return value


def _set(path: Path, value: Any) -> None:
    holder = st.session_state["nin_draft"]
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    st.session_state["nin_notice"] = None


def _shown(key: str, value: Any, take: Callable[..., None], *args: Any) -> str:
    """Have the widget `key` show `value`, and `take(*args)` called when it shows another.

    A widget that shows the value already is left alone, so that a drag is not undone.
    """
    key = _key(key)
    if st.session_state.get(key) != value:
        st.session_state[key] = value
    st.session_state["nin_shown"][key] = (value, take, args)
    return key


def _key(name: str) -> str:
    """The key of a widget of the present generation.

    A value that another widget changed (a preset, a block's slider, a layer's field) goes to a
    new widget: the browser would go on reporting the old one's value until it has heard of the
    change, which cannot be told from a person's wish.
    """
    return f"{name}@{st.session_state['nin_generation']}"


def _renew() -> None:
    """Begin a generation of widgets: none of the present ones speaks for the draft any more."""
    st.session_state["nin_generation"] = st.session_state.get("nin_generation", 0) + 1
    st.session_state["nin_shown"] = {}


def _take_changes() -> None:
    """Write into the draft what widgets show beside what they were last told to show.

    Every `take` gives the same result when it is repeated: a run of the script that is broken off
    is followed by one that begins here again.
    """
    shown = st.session_state["nin_shown"]
    for key, (value, take, args) in list(shown.items()):
        if key not in st.session_state:  # not drawn any more
            del shown[key]
        elif st.session_state[key] != value:
            found = st.session_state[key]
            take(*args)
            if st.session_state["nin_shown"] is not shown:  # a new generation has begun
                return
            shown[key] = (found, take, args)


def _bound(path: Path) -> dict[str, Any]:
    """Arguments that tie a widget to one value of the draft."""
    name = "nin:" + ".".join(map(str, path))
    if "channels" in path:  # the block's slider changes it, too
        name += f"={_get(path)}"
    return {"key": _shown(name, _get(path), _changed, path, name)}


def _changed(path: Path, key: str) -> None:
    value = st.session_state[_key(key)]
    _set(path, value)
    if path[-2:-1] == ("channels",):  # one layer's width: the block's proportions are new
        index = int(path[1])
        st.session_state["nin_anchors"][index] = list(_get(("blocks", index, "channels")))
        _renew()
    if path == ("num_classes",):
        _get(("blocks",))[-1]["channels"][-1] = value


# --- drawing ----------------------------------------------------------------------------------


def _show_error(error: ConfigError) -> None:
    st.error(str(error)[0].upper() + str(error)[1:])
    path = _path(error.field)
    if error.suggestion is None or path is None:
        return
    st.button("Use the value that works", on_click=_use, args=(path, error.suggestion))


def _path(field: str) -> Path | None:
    """ "blocks[2].pool.stride" as steps into the draft; None if it does not lead there."""
    steps = [int(part) if part.isdigit() else part for part in re.findall(r"[A-Za-z_]+|\d+", field)]
    try:
        _get(tuple(steps))
    except (KeyError, IndexError, TypeError):
        return None
    return tuple(steps) or None


def _use(path: Path, suggestion: Any) -> None:
    _renew()
    if path[-1] == "channels" and isinstance(suggestion, int):
        for block in _get(("blocks",)):
            block["channels"] = [min(width, suggestion) for width in block["channels"]]
        return
    if isinstance(suggestion, PoolConfig):
        suggestion = asdict(suggestion)
    _set(path, list(suggestion) if isinstance(suggestion, tuple) else suggestion)


def _width_sliders() -> None:
    blocks = _get(("blocks",))
    limit = st.session_state["nin_slider_limit"]
    for index, block in enumerate(blocks[:-1]):
        widths = block["channels"]
        key = f"nin:width.{index}"
        st.slider(
            f"Block {index + 1} channels",
            1,
            max(limit, widths[0]),
            key=_shown(key, widths[0], _scale_block, index, key),
            help=f"Width of block {index + 1}'s {block['kernel_size']}×{block['kernel_size']} "
            "convolution; its 1×1 convolutions follow in proportion.",
        )


def _scale_block(index: int, key: str) -> None:
    width = st.session_state[_key(key)]
    anchor = st.session_state["nin_anchors"][index]
    scaled = [max(1, min(bounds.MAX_CHANNELS, round(c * width / anchor[0]))) for c in anchor]
    _set(("blocks", index, "channels"), scaled)


def _totals(config: NiNConfig) -> None:
    now = summarize(config, BATCH_SIZE)
    base = st.session_state["nin_base"]
    then = summarize(preset(base), BATCH_SIZE)
    rows = [
        ("Parameters", f"{now.total_parameters:,}", now.total_parameters, then.total_parameters),
        ("MACs an image", f"{numbers.short(now.total_macs)}", now.total_macs, then.total_macs),
        (
            f"<span title='weights, gradients, momentum and activations of a training step with a "
            f"batch of {BATCH_SIZE}'>Memory, batch {BATCH_SIZE}</span>",
            numbers.size(now.training_bytes()),
            now.training_bytes(),
            then.training_bytes(),
        ),
    ]
    body = "".join(
        f"<tr><td>{label}</td><td><b>{value}</b></td><td>{numbers.change(new, old)}</td></tr>"
        for label, value, new, old in rows
    )
    st.html(
        f"<table class='nin-totals' aria-label='Totals'><thead><tr><th></th><th>now</th>"
        f"<th>vs preset</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _more() -> None:
    st.number_input("Image size (pixels)", 1, bounds.MAX_IMAGE_SIZE, **_bound(("image_size",)))
    left, right = st.columns(2)
    with left:
        st.number_input("Input channels", 1, bounds.MAX_IN_CHANNELS, **_bound(("in_channels",)))
    with right:
        st.number_input("Classes", 2, bounds.MAX_CLASSES, **_bound(("num_classes",)))
    st.segmented_control(
        "Global pooling (head)",
        ["max", "avg"],
        required=True,
        help="The tutorial's code takes the maximum of each class map; its text and the paper "
        "take the average.",
        **_bound(("global_pool",)),
    )
    st.slider("Dropout before the last block", 0.0, 0.95, step=0.05, **_bound(("dropout",)))
    st.toggle("ReLU after the last convolution", **_bound(("final_relu",)))
    st.toggle("Batch norm", **_bound(("batch_norm",)))
    blocks = _get(("blocks",))
    st.number_input(
        "Blocks (the last one makes the class maps)",
        1,
        bounds.MAX_BLOCKS,
        key=_shown("nin:count", len(blocks), _resize_blocks),
    )
    numbers_ = list(range(1, len(blocks) + 1))
    if st.session_state.get("nin:block") not in numbers_:
        st.session_state["nin:block"] = 1
    chosen = st.segmented_control("Edit block", numbers_, required=True, key="nin:block")
    _block_controls(int(chosen) - 1)


def _block_controls(index: int) -> None:
    path: Path = ("blocks", index)
    block = _get(path)
    kernel, stride, padding = st.columns(3)
    with kernel:
        st.number_input("Kernel", 1, bounds.MAX_KERNEL_SIZE, **_bound((*path, "kernel_size")))
    with stride:
        st.number_input("Stride", 1, bounds.MAX_STRIDE, **_bound((*path, "stride")))
    with padding:
        st.number_input("Padding", 0, bounds.MAX_KERNEL_SIZE - 1, **_bound((*path, "padding")))
    key = f"nin:pointwise.{index}"
    st.number_input(
        "1×1 convolutions",
        0,
        bounds.MAX_POINTWISE,
        key=_shown(key, len(block["channels"]) - 1, _resize_pointwise, index, key),
    )
    is_last = index == len(_get(("blocks",))) - 1
    for position in range(len(block["channels"])):
        window = f"{block['kernel_size']}×{block['kernel_size']}"
        label = f"Channels of the {window}" if position == 0 else f"Channels of 1×1 no. {position}"
        if is_last and position == len(block["channels"]) - 1:
            st.caption(f"{label}: {block['channels'][-1]}, one map a class")
            continue
        st.number_input(label, 1, bounds.MAX_CHANNELS, **_bound((*path, "channels", position)))
    _pool_controls(index)


def _pool_controls(index: int) -> None:
    path: Path = ("blocks", index, "pool")
    pool = _get(path)
    key = f"nin:pool.{index}"
    st.segmented_control(
        "Pooling after the block",
        ["none", "max", "avg"],
        required=True,
        key=_shown(key, "none" if pool is None else pool["mode"], _change_pool, index, key),
    )
    if pool is None:
        return
    window, stride, padding = st.columns(3)
    with window:
        st.number_input("Window", 1, bounds.MAX_KERNEL_SIZE, **_bound((*path, "kernel_size")))
    with stride:
        st.number_input("Pool stride", 1, bounds.MAX_STRIDE, **_bound((*path, "stride")))
    with padding:
        st.number_input("Pool padding", 0, bounds.MAX_KERNEL_SIZE, **_bound((*path, "padding")))


def _resize_blocks() -> None:
    blocks = _get(("blocks",))
    anchors = st.session_state["nin_anchors"]
    count = st.session_state[_key("nin:count")]
    while len(blocks) < count:  # a 3×3 block that keeps the map's size fits anywhere
        width = blocks[-2]["channels"][0] if len(blocks) > 1 else blocks[-1]["channels"][0]
        added = {
            "channels": [width] * 3,
            "kernel_size": 3,
            "stride": 1,
            "padding": 1,
            "pool": None,
        }
        blocks.insert(len(blocks) - 1, added)
        anchors.insert(len(anchors) - 1, list(added["channels"]))
    while len(blocks) > count:
        del blocks[-2], anchors[-2]
    st.session_state["nin_notice"] = None


def _resize_pointwise(index: int, key: str) -> None:
    channels = _get(("blocks", index, "channels"))
    wanted = st.session_state[_key(key)] + 1
    is_last = index == len(_get(("blocks",))) - 1
    while len(channels) < wanted:
        # The class block must go on ending in the classes: new layers come before its last.
        channels.insert(len(channels) - 1 if is_last else len(channels), channels[-1])
    while len(channels) > wanted:
        del channels[-2 if is_last else -1]
    st.session_state["nin_anchors"][index] = list(channels)
    st.session_state["nin_notice"] = None


def _change_pool(index: int, key: str) -> None:
    mode = st.session_state[_key(key)]
    pool = _get(("blocks", index, "pool"))
    if mode == "none":
        _set(("blocks", index, "pool"), None)
    elif pool is None:
        _set(("blocks", index, "pool"), {**asdict(PoolConfig()), "mode": mode})
    else:
        _set(("blocks", index, "pool", "mode"), mode)


def _write_url() -> None:
    """Have the URL hold the network; other parameters, a page's own, stay."""
    address.hold(link.KEYS, link.to_query(current(), st.session_state["nin_base"]))
