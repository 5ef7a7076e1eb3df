"""Architecture: the network to scale, its per-layer table, and where its parameters sit."""

import streamlit as st

from nin_core import preset, summarize
from ui import architecture_page as parts
from ui import frame

config = frame.begin()
st.title("Architecture")
base, batch_size = parts.choices()
network, other = summarize(config, batch_size), summarize(preset(base), batch_size)
parts.totals(network, other)
parts.drawing(config, network)
granularity = parts.layers(network)
parts.whereabouts(network, other, granularity)
parts.dense_networks(config, network)
