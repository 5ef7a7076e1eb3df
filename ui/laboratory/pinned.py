"""Networks kept by name: one is chosen to compare with, the present one pinned, others managed.

The choice is by a preset's name or a pin's number, so that a pin stays chosen when it is renamed,
and when another preset is taken up. A store that fails costs the pins, never the page.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from nin_core import PRESETS, NetworkSummary, NiNConfig, preset, summarize
from nin_core.database import StoreError
from nin_core.pins import Pin, Pins
from nin_core.tables import MAX_PIN_NAME
from ui import architecture, notes, numbers, resources
from ui.laboratory import information

_CHOICE = "architecture:other"
_CHOICE_BASE = "architecture:other-base"
_NAME = "architecture:pin-name"
_SAID = "architecture:pin-said"  # what the last action on a pin led to: (place, sentence)
_MANAGED = "architecture:pin-managed"

Choice = str | int  # a preset's name or a pin's number


def listed() -> tuple[list[Pin], str | None]:
    """All pins; and why there are none, if the store cannot be used."""
    try:
        return _pins().all(), None
    except StoreError as error:
        return [], f"Pinned networks cannot be read: {error}"


def choose(pins: list[Pin]) -> tuple[str, NiNConfig]:
    """Draw the choice of what to compare with; returns its name and network."""
    base = architecture.base_preset()
    networks: dict[Choice, tuple[str, NiNConfig]] = {name: (name, preset(name)) for name in PRESETS}
    networks |= {pin.id: (pin.name, pin.network) for pin in pins if pin.network is not None}
    chosen = st.session_state.get(_CHOICE, base)
    moved_on = st.session_state.get(_CHOICE_BASE) != base and isinstance(chosen, str)
    if moved_on or chosen not in networks:
        chosen = base
    if st.session_state.get(_CHOICE) != chosen:
        st.session_state[_CHOICE] = chosen
    st.session_state[_CHOICE_BASE] = base
    chosen = st.selectbox(
        "Compare with",
        list(networks),
        format_func=lambda choice: _title(choice, networks[choice][0]),
        key=_CHOICE,
        persist_state="session",
        width=220,
    )
    return networks[chosen]


def _title(choice: Choice, name: str) -> str:
    return name if isinstance(choice, str) else f"{name} · pinned"


def pin_button(config: NiNConfig) -> None:
    """Draw the button that keeps the present network under a name."""
    popover = st.popover(
        "Pin this network",
        icon=":material/keep:",
        width="content",
        key="architecture:pin:open",
        on_change="rerun",
    )
    if not popover.open:  # what nobody sees is not drawn at each step of a slider
        return
    with popover, st.form("architecture:pin", border=False):
        st.text_input("Name", key=_NAME, max_chars=MAX_PIN_NAME, placeholder="e.g. wider block 3")
        st.form_submit_button("Pin", on_click=_attempt, args=("pin", _add, config))
        _say("pin")


def manage(pins: list[Pin], network: NetworkSummary) -> None:
    """Draw the pinned networks beside the present one, with what can be done with them."""
    st.subheader("Pinned networks")
    if not pins:
        st.caption(
            "None yet. “Pin this network” above keeps the present one under a name, to compare "
            "others with it; pins are kept with the runs."
        )
        _say("manage")
        return
    st.caption("Kept by name with the runs; the change is the present network's against each.")
    st.html(pins_table(pins, network))
    information(*(pin.problem for pin in pins))
    by_id = {pin.id: pin for pin in pins}
    if st.session_state.get(_MANAGED) not in by_id:
        st.session_state[_MANAGED] = pins[-1].id
    with st.container(horizontal=True, vertical_alignment="bottom"):
        managed = by_id[
            st.selectbox(
                "Pinned network",
                list(by_id),
                format_func=lambda pin_id: by_id[pin_id].name,
                key=_MANAGED,
                persist_state="session",
                width=220,
            )
        ]
        st.button(
            "Put into the sidebar",
            icon=":material/input:",
            disabled=managed.network is None,
            on_click=architecture.show,
            args=(managed.network,),
        )
        st.button(
            "Compare with it",
            icon=":material/compare_arrows:",
            disabled=managed.network is None,
            on_click=_choose,
            args=(managed.id,),
        )
        with (
            st.popover("Rename", icon=":material/edit:", width="content"),
            st.form(f"architecture:rename:{managed.id}", border=False),
        ):
            key = f"architecture:pin-name:{managed.id}"
            st.text_input("New name", managed.name, key=key, max_chars=MAX_PIN_NAME)
            st.form_submit_button(
                "Rename", on_click=_attempt, args=("rename", _rename, managed.id, key)
            )
            _say("rename")
        st.button(
            "Delete",
            icon=":material/delete:",
            on_click=_attempt,
            args=("manage", _delete, managed),
        )
    _say("manage")


def pins_table(pins: list[Pin], network: NetworkSummary) -> str:
    """A row a pin that can be read: its figures and the present network's change against them."""
    rows = []
    for pin in pins:
        if pin.network is None:
            continue
        pinned = summarize(pin.network, network.batch_size)
        pairs = (
            (pinned.total_parameters, network.total_parameters, numbers.short),
            (pinned.total_macs, network.total_macs, numbers.short),
            (pinned.training_bytes(), network.training_bytes(), numbers.size),
        )
        cells = "".join(
            f"<td>{words(then)}<small>{numbers.change(now, then)}</small></td>"
            for then, now, words in pairs
        )
        field = notes.last_convolution(pinned).receptive_field
        widths = "-".join(map(str, pin.network.widths)) or str(pin.network.num_classes)
        side = pin.network.image_size
        rows.append(
            f'<tr><th scope="row">{escape(pin.name)}<small>{widths} @ {side} px</small></th>'
            f"{cells}<td>{field} px</td></tr>"
        )
    return (
        f'{TABLE_STYLE}<div class="nin-changes"><table aria-label="Pinned networks"><thead><tr>'
        "<th>name</th><th>parameters</th><th>MACs an image</th><th>training memory</th>"
        f"<th>receptive field</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


# --- actions ----------------------------------------------------------------------------------


def _pins() -> Pins:
    return Pins(resources.store().database)


def _attempt(place: str, action: Callable[..., str | None], *args: object) -> None:
    """Do it in a widget's callback; the page then says, at that place, what came of it."""
    try:
        st.session_state[_SAID] = (place, action(*args), True)
    except StoreError as error:
        st.session_state[_SAID] = (place, str(error), False)


def _say(place: str) -> None:
    """Say once what came of an action at this place."""
    where, sentence, done = st.session_state.get(_SAID, (None, None, True))
    if where != place:
        return
    del st.session_state[_SAID]
    if sentence:
        (st.success if done else st.error)(sentence)


def _add(config: NiNConfig) -> str:
    pin = _pins().add(st.session_state[_NAME], config)
    st.session_state[_NAME] = ""
    _choose(pin.id)
    return f"Pinned as “{pin.name}”; the page now compares with it."


def _choose(pin_id: int) -> None:
    st.session_state[_CHOICE] = pin_id


def _rename(pin_id: int, key: str) -> str:
    _pins().rename(pin_id, st.session_state[key])
    return "Renamed."


def _delete(pin: Pin) -> str:
    _pins().delete(pin.id)
    return f"“{pin.name}” is deleted."


TABLE_STYLE = """<style>
.nin-changes { overflow-x: auto; }
.nin-changes table { width: 100%; border-collapse: collapse; font-size: .85rem; margin: 0;
  font-variant-numeric: tabular-nums; }
.nin-changes th, .nin-changes td { border: 0; border-top: 1px solid rgba(128,128,128,.22);
  padding: .3rem .6rem; text-align: right; vertical-align: top; font-weight: 400;
  white-space: nowrap; }
.nin-changes thead th { border-top: 0; opacity: .75; font-size: .8rem; }
.nin-changes th:first-child { text-align: left; padding-left: 0; }
.nin-changes td:last-child, .nin-changes th:last-child { padding-right: 0; }
.nin-changes tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
.nin-changes small { display: block; font-size: .75rem; line-height: 1.25; opacity: .78; }
.nin-changes tfoot th, .nin-changes tfoot td { font-weight: 600;
  border-top: 2px solid rgba(128,128,128,.55); }
</style>"""
