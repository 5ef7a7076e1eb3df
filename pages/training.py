"""Training: start a run, watch it learn, see what it gets wrong, compare it with others."""

import streamlit as st

from ui import fan_panel, frame, results, run_choice, runs, start_panel, training

config = frame.begin()
st.title("Training")
with frame.guarded(recovers=True):
    run = run_choice.opened()
    left, right = st.columns([1, 2], gap="large")
    with left, st.container(gap="xsmall"):
        start_panel.draw(config)
    with right:
        if run is not None:
            training.show(run)
        else:
            training.welcome(config)
    with st.container():  # a place of its own: what follows stays where it is when results come
        if run is not None:
            results.show(run)
    fan_panel.show()
    runs.show(run)
    training.prepare()
