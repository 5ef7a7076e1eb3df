"""A drawing made in Python, shown as SVG: it follows the width and the theme and can be clicked.

    block = svg(markup, key="network", on_click="rerun", selected=block)
    svg({360: narrow, 960: wide}, key="network", download="nin-224")

Choices:

* The drawing lives in a shadow root, so its `<style>`, ids and class names stay its own. The theme
  variables of Streamlit reach into it: `fill: var(--st-text-color)` is right in light and in dark.
* An element with `data-id` can be clicked and reached with the Tab key. An element with a
  `<title>` child explains itself when the pointer is over it, at once and in the page's own look.
* It shrinks with the page and never grows beyond the `viewBox`'s own size, so that its letters stay
  near the size they were drawn in; below `min_width` it scrolls sideways inside its own frame. Of
  drawings for several widths the browser shows the widest that fits, and only that one is built.
* What can be downloaded is the widest drawing as a file of its own: the theme's colours are put in
  where variables stood, on the theme's background. PNG is drawn by the browser from that file, two
  pixels a unit.
* The markup is checked: only shapes and text, nothing that runs or loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from xml.etree import ElementTree

import streamlit as st

from ui.components.wire import (
    OnClick,
    check_key,
    check_on_click,
    click_callback,
    last_click,
    read_assets,
)

_SVG = "{http://www.w3.org/2000/svg}"
_FORBIDDEN = {"script", "foreignObject", "image", "iframe", "a", "animate", "set"}
_LOADS = re.compile(r"@import|url\((?!\s*['\"]?#)", re.IGNORECASE)
_SUSPECT = (b"@", b"&#", b"\\", b"l(", b"L(")  # what could be, or by an escape hide, one of those

_mount = st.components.v2.component(
    "nin_svg", js=read_assets("diagram.js"), css=read_assets("diagram.css")
)


def svg(
    markup: str | Mapping[int, str],
    *,
    key: str,
    on_click: OnClick = None,
    selected: str | None = None,
    min_width: int = 0,
    download: str | None = None,
) -> str | None:
    """Show an SVG drawing and return the `data-id` clicked last.

    Args:
        markup: one `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 W H">` element. Text from
            users must be escaped in it (`html.escape`). Or several that show the same, each by the
            width in CSS pixels from which on it fits; the narrowest serves below its own, too.
        key: names the drawing on its page.
        on_click: None: nothing can be clicked. "rerun": a click on an element with `data-id`
            reruns the script (or the fragment). A function: it is called with the id first.
        selected: the element with this `data-id` gets the class `selected`; the drawing's `<style>`
            says what that looks like.
        min_width: CSS pixels below which the drawing scrolls sideways rather than shrink.
        download: offer the drawing as ``<download>.svg`` and ``<download>.png``; None offers none.

    Returns:
        The id clicked last in this session, or None before the first click and when the drawing
        has no such element any more.

    Raises:
        ValueError: the markup is not well formed, has no viewBox or holds what a drawing does not
            need (scripts, links, event handlers, things loaded from elsewhere).
    """
    check_key(key)
    check_on_click(on_click)
    drawings = {0: markup} if isinstance(markup, str) else dict(sorted(markup.items()))
    if not drawings:
        raise ValueError("There must be at least one drawing.")
    ids = frozenset().union(*map(_checked, drawings.values()))
    _mount(
        key=key,
        data={
            "drawings": list(drawings.items()),
            "clicks": on_click is not None,
            "selected": selected,
            "minWidth": min_width,
            "download": download,
        },
        on_click_change=click_callback(key, on_click, lambda id_: id_ if id_ in ids else None),
    )
    clicked = last_click(key)
    return clicked if on_click is not None and clicked in ids else None


@lru_cache(maxsize=64)
def _checked(markup: str) -> frozenset[str]:
    """Return the data-ids of a drawing that may be shown; raise ValueError for any other."""
    raw = markup.encode()  # searches are faster in bytes
    if raw.count(b"<!") > raw.count(b"<!--") or b"<?" in raw:
        raise ValueError("The drawing must not hold a document type, CDATA or <?…?>.")
    try:
        root = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise ValueError(f"The drawing is not well-formed SVG: {error}.") from error
    if root.tag != f"{_SVG}svg":
        raise ValueError(
            'The drawing must be one <svg xmlns="http://www.w3.org/2000/svg"> element.'
        )
    sides = root.get("viewBox", "").replace(",", " ").split()
    try:
        fits = len(sides) == 4 and float(sides[2]) > 0 and float(sides[3]) > 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError('The drawing needs a viewBox such as "0 0 800 300".')
    elements = list(root.iter())
    tags = {element.tag for element in elements}
    forbidden = _FORBIDDEN & {tag.rpartition("}")[2] for tag in tags}
    if forbidden:
        raise ValueError(f"The drawing must not hold <{min(forbidden)}>.")
    names = set().union(*(element.attrib for element in elements))
    plain = {name.rpartition("}")[2].lower() for name in names}
    # The whole drawing at once; only one that holds something suspect is searched by element.
    suspect = any(hint in raw for hint in _SUSPECT)
    if suspect or "href" in plain or any(name.startswith("on") for name in plain):
        for element in elements:
            _check_element(element)
    return frozenset(e.attrib["data-id"] for e in elements if "data-id" in e.attrib)


def _check_element(element: ElementTree.Element) -> None:
    """Raise ValueError for an event handler, a link, or something loaded from elsewhere."""
    name = element.tag.rpartition("}")[2]
    values = " ".join(element.attrib.values())
    # A backslash in a style could spell url with an escape; in a text it is only a backslash.
    hidden = "\\" in (f"{values} {element.text}" if name == "style" else values)
    if hidden or _LOADS.search(f"{element.text} {values}"):
        raise ValueError(f"The drawing's <{name}> must not load anything (url, @import).")
    for attribute, value in element.attrib.items():
        plain = attribute.rpartition("}")[2].lower()
        if plain.startswith("on") or (plain == "href" and not value.startswith("#")):
            raise ValueError(f"The drawing must not hold the attribute {plain}={value!r}.")
