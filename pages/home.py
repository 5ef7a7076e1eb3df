"""Home: what Network in Network is, where to go, and what is there."""

import streamlit as st

from ui import frame, home

frame.begin()
st.title("NiN Explorer")
st.markdown("**Take the Network-in-Network architecture apart: its cost, its training, its maps.**")
home.doors()
left, right = st.columns(2, gap="large")
with left:
    home.picture()
with right:
    home.words()
    home.latest_runs()
    home.data_status()
