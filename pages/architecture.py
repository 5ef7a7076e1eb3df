"""Architecture: the sidebar's network in figures, and the laboratory's views of it."""

import streamlit as st

from ui import architecture_page as parts
from ui import frame, views

config = frame.begin()
st.title("Architecture", anchor=False)
subject = parts.subject(config)
parts.totals(subject)
views.choose(parts.VIEWS, "architecture:view")(subject)
