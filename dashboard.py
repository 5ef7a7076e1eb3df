"""NiN Explorer: `streamlit run dashboard.py`.

The server imports this file once and finds `app`; for every visitor it runs it as a script.
"""

import streamlit as st

from ui import frame, server

if __name__ == "__main__":
    frame.run()
else:
    app = st.App(__file__, lifespan=server.lifespan, routes=server.routes())
