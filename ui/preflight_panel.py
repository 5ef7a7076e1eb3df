"""Under Start: a look at the weights a run would start with, before it costs any time.

Asked for by a button, since a class of thirty would else have the server do it at every change of a
field; each run that is started looks by itself (`preflight.of_run`). The answer stays for as long
as the plan is the one that was looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from nin_core import NiNConfig
from nin_core.background import Report
from nin_core.recipes import TrainConfig
from ui import background, resources, small_table

if TYPE_CHECKING:
    from nin_core.preflight import Preflight, Verdict

_ASKED = "tr:preflight"

_ICONS: dict[Verdict, str] = {
    "ready": ":green[:material/check_circle:]",
    "doubtful": ":orange[:material/warning:]",
    "stalled": ":red[:material/block:]",
}


def draw(network: NiNConfig, train: TrainConfig, dataset: str) -> None:
    """The button, or how far its work is, or what was found."""
    plan = (network, train, dataset)
    if st.session_state.get(_ASKED) != plan:
        st.button(
            "Check the start first",
            type="tertiary",
            icon=":material/flight_takeoff:",
            on_click=lambda: st.session_state.update({_ASKED: plan}),
            help="Looks at the weights this run would start with, over some training images: dead "
            "class maps and channels, whether the answers differ, and whether a gradient reaches "
            "every layer. Takes seconds.",
        )
        return

    def work(report: Report) -> Preflight:
        report(0.0)
        resources.torch_ready()
        from nin_core.preflight import preflight

        return preflight(resources.dataset(dataset), train, network)

    name, look = background.ask("preflight", plan, work)
    if look.state != "done":
        background.wait(name, look, "Checking the start")
        return
    found: Preflight = look.result
    st.markdown(f"{_ICONS[found.verdict]} {found.sentence}")
    st.html(table(found))
    st.caption(
        f"Before the first step, over {found.images} training images: channels that are zero "
        "everywhere, and the gradient's norm. The logits differ by "
        f"{found.logit_spread:.2g} between images; the loss is {found.loss:.3f}."
    )


def table(found: Preflight) -> str:
    """The convolutions as HTML: dead channels of how many, norm of the gradient."""
    rows = [
        (
            layer.name,
            small_table.Cell(f"{layer.dead} of {layer.channels}", marked=layer.dead > 0),
            f"{layer.gradient:.2g}",
        )
        for layer in found.layers
    ]
    return small_table.html("How each layer starts", ("layer", "dead", "gradient"), rows)
