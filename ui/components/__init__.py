"""The browser components: what Streamlit's own elements cannot do.

    plot(figure, key=..., height=360, on_click=None)         charts, still or live, updated in place
    sprite(maps, key=..., on_click="rerun")                  all channels of a layer in one picture
    class_maps(maps, image, labels=..., key=...)             class maps over the input image
    film(reel(moments), key=...)                             a picture of maps at several moments
    replay(moments, curves, film=..., key=...)               a slider through a film's moments
    svg(markup, key=..., on_click=None)                      a drawing: hover, click, download
    field(layers, picture, image_size=..., layer=..., key=..) receptive fields, cell by cell
    closeup(map, picture, steps=..., key=..., pixel=...)     one map over its picture, cell by cell
    layer_table(data, key=..., label=..., on_click=None)     a table: sorted, its rows chosen
    gallery(pictures, labels=..., key=..., selected=None)    small pictures, one of which is chosen
    draw(key=..., side=..., colors=..., paper=...)           a canvas to draw on, as a PNG
    follow(url, key=..., version=..., serial=...)            news from a feed, without reruns
    tick(seconds, key=..., watch=None)                       a fragment that runs again while seen
    forget_click(key)                                        drop the click that a component keeps

Each returns what was clicked last in this session (None before the first click) and raises
ValueError, with a sentence that says what is wrong, for input it cannot show. With
`on_click="rerun"` a click reruns the script or the fragment; with a function, the function is
called with the click first; with None, nothing is sent. A `key` is required: it is what keeps zoom
and selection over reruns.
"""

from ui.components.closeup import closeup
from ui.components.diagram import svg
from ui.components.draw import draw
from ui.components.field import FieldLayer, field
from ui.components.follow import follow
from ui.components.gallery import gallery
from ui.components.layer_table import layer_table
from ui.components.plot import plot
from ui.components.replay import Curves, Moment, replay
from ui.components.sprite import Film, class_maps, film, reel, sprite
from ui.components.tick import tick
from ui.components.wire import forget_click

__all__ = [
    "Curves",
    "FieldLayer",
    "Film",
    "Moment",
    "class_maps",
    "closeup",
    "draw",
    "field",
    "film",
    "follow",
    "forget_click",
    "gallery",
    "layer_table",
    "plot",
    "reel",
    "replay",
    "sprite",
    "svg",
    "tick",
]
