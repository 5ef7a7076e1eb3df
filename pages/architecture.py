"""stub"""

import streamlit as st
from ui import frame

config = frame.begin()
st.write(config)
