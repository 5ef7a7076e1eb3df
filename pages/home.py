"""home"""

from ui import frame

config = frame.begin()
