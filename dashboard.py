"""NiN Explorer: `streamlit run dashboard.py`."""

from ui import frame

frame.run()
