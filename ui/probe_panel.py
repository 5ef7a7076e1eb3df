"""Under the cost of a run: how its steps will be computed, and the timings that speak for it.

What is fastest for networks of a size is found out after the first such run; the button is for
whoever does not want to wait for that.
"""

from __future__ import annotations

import streamlit as st

from nin_core import NiNConfig, machine, probing, tuning
from nin_core.background import Report
from nin_core.recipes import TrainConfig
from ui import background, resources, small_table

_ASKED = "tr:probe"


def draw(network: NiNConfig, train: TrainConfig, dataset: str) -> None:
    """The settings that a run would get, or the button that has them looked for."""
    if machine.accelerators():
        return
    found = tuning.known(network, train.batch_size)
    if found is not None:
        _draw_found(found)
        return
    plan = (network, train.batch_size, dataset)
    if st.session_state.get(_ASKED) != plan:
        st.button(
            "Find the fastest way to train it",
            type="tertiary",
            icon=":material/speed:",
            on_click=lambda: st.session_state.update({_ASKED: plan}),
            help="Times real training steps on this computer: batch in parts or whole, threads, "
            "layout, bfloat16. Runs of networks of this size then get the fastest. Takes some "
            "seconds while nothing trains; without it, it happens after the first such run.",
        )
        return

    def work(report: Report) -> None:
        report(0.0)
        probing.probe_apart(resources.store(), network, train, dataset, report)

    name, look = background.ask("probe", plan, work)
    if isinstance(look.problem, probing.DisturbedError):
        st.caption(str(look.problem))
        st.button(
            "Try again", key="again:probe", on_click=background.background().forget, args=(name,)
        )
    elif look.state == "done":  # it was found, but could not be written down
        st.caption("What was found could not be kept beside the runs, so runs get the usual way.")
    else:
        background.wait(name, look, "Timing training steps")


def _draw_found(found: tuning.Tuning) -> None:
    with st.expander(
        f"{found.chosen.words()}: {found.images_per_second:,.0f} images/s", key="tr:tuning"
    ):
        st.html(table(found))
        st.caption(
            "Timed on this computer with random images, for networks of this size. A run keeps the "
            "settings that it began with, but for its threads: runs that train at once share the "
            "cores."
        )


def table(found: tuning.Tuning) -> str:
    """The trials as HTML: their settings, images a second; the chosen one stands out."""
    rows: list[tuple[str | small_table.Cell, ...]] = []
    for trial in found.trials:
        texts = trial.settings.words(), f"{trial.images_per_second:,.0f}"
        chosen = trial.settings == found.chosen
        rows.append(tuple(small_table.Cell(t, marked=True) for t in texts) if chosen else texts)
    return small_table.html("Ways to train and their speed", ("settings", "images/s"), rows)
