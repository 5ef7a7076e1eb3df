"""The picture on the home page: how AlexNet and VGG end, and how Network in Network does.

Two columns, read downwards. Left the pattern of LeNet, AlexNet and VGG: convolutions and pooling,
then dense layers over the flattened maps, where nearly all parameters are. Right NiN's: a small
dense layer at every pixel (1×1 convolutions) inside the blocks, one map a class at the end, and
each pooled to its logit. The symbols and colours are those of the architecture diagram, and the
figures are computed. The drawing is narrow, so that it stays legible on a telephone.
"""

from __future__ import annotations

from functools import lru_cache
from html import escape

from nin_core import preset, summarize
from nin_core.reference_nets import reference_summary
from ui import numbers, theme
from ui.diagram_shapes import STYLE, SYMBOLS
from ui.notes import dense_parameters

COLUMN, BETWEEN = 218.0, 28.0  # pixels
WIDTH = round(2 * COLUMN + BETWEEN)
HEIGHT = 506

_TOP = 84.0  # of the first layer
_ROW = 27.0  # height of a layer's box
_STEP = 33.0  # from one layer to the next
_MESH = 44.6  # from one dense layer to the next
_CENTRE = COLUMN / 2

_RULES = (
    "<style>"
    ".nin-diagram .head-line{font:600 16px var(--st-font,sans-serif)}"
    ".nin-diagram .box text,.nin-diagram .note{font-size:13.5px}"
    ".nin-diagram .frame{fill-opacity:.13;stroke-width:1}"
    ".nin-diagram .arrow{fill:none;stroke:var(--st-gray-text-color,#5a6672);stroke-width:1.2}"
    + "".join(
        f".nin-diagram .{role} .frame{{fill:{color};stroke:{color}}}"
        for role, color in (
            ("conv", theme.CONV),
            ("conv1x1", theme.POINTWISE),
            ("pool", theme.POOL),
        )
    )
    + f".nin-diagram .dense .l{{stroke:{theme.DENSE};stroke-opacity:.55}}"
    f".nin-diagram .dense .f{{fill:{theme.DENSE}}}"
    "</style>"
)


@lru_cache(maxsize=1)
def picture() -> str:
    """The SVG."""
    alexnet = reference_summary("AlexNet", 1, 224, 10)
    nin = summarize(preset("nin-224"))
    dense = dense_parameters(alexnet)
    words = (
        "Two networks side by side. AlexNet and VGG: convolutions and pooling, then dense layers. "
        "Network in Network: blocks with 1×1 convolutions, one map a class, global pooling."
    )
    left = _pattern_of_dense_layers(
        f"{numbers.short(dense)} of AlexNet's {numbers.short(alexnet.total_parameters)}"
    )
    right = _pattern_of_nin(f"{numbers.short(nin.total_parameters)} parameters in all")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nin-diagram" role="img" width="{WIDTH}" '
        f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(words)}">'
        f"{STYLE}{_RULES}<g>{left}</g>"
        f'<g transform="translate({COLUMN + BETWEEN:.0f} 0)">{right}</g></svg>'
    )


def _pattern_of_dense_layers(figure: str) -> str:
    y = _TOP
    body = [_headline("LeNet, AlexNet, VGG"), _image(y - 42)]
    for role, words in (
        ("conv", "k×k convolution"),
        ("pool", "pooling"),
        ("conv", "k×k convolution"),
        ("conv", "k×k convolution"),
        ("pool", "pooling"),
    ):
        body.append(_layer(role, words, y))
        y += _STEP
    body += [_note("flatten: where things were is lost", y + 12), _arrow(y + 20, y + 36)]
    y += 50
    counts = (9, 9, 9, 5)
    rows = [[_CENTRE + (i - (n - 1) / 2) * 22 for i in range(n)] for n in counts]
    lines, dots = [], []
    for level, xs in enumerate(rows):
        dots += [f'<circle class="f" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x in xs]
        if level + 1 < len(rows):
            lines += [
                f"M{a:.1f} {y:.1f}L{b:.1f} {y + _MESH:.1f}" for a in xs for b in rows[level + 1]
            ]
        y += _MESH
    body.append(f'<g class="dense"><path class="l" d="{"".join(lines)}"/>{"".join(dots)}</g>')
    body += [
        _note("dense layers, then the logits", y - _MESH + 22),
        _strong(figure, y - _MESH + 46),
    ]
    body.append(_note("parameters are in the dense layers", y - _MESH + 64))
    return "".join(body)


def _pattern_of_nin(figure: str) -> str:
    y = _TOP
    body = [_headline("Network in Network"), _image(y - 42)]
    for words in ("NiN block", "NiN block: one map a class"):
        body.append(
            f'<rect class="card" x="0" y="{y - 2:.1f}" width="{COLUMN}" height="{3 * _STEP + 20}" '
            f'rx="6"/><text class="note" x="12" y="{y + 14:.1f}">{escape(words)}</text>'
        )
        y += 20
        for role, layer in (
            ("conv", "k×k convolution"),
            ("conv1x1", "1×1 convolution"),
            ("conv1x1", "1×1 convolution"),
        ):
            body.append(_layer(role, layer, y))
            y += _STEP
        if words == "NiN block":
            y += 5
            body.append(_layer("pool", "pooling", y))
            y += _STEP + 3
    y += 12
    for index in range(5):
        x = _CENTRE + (index - 2) * 40
        body.append(
            f'<g transform="translate({x:.1f} {y:.1f})">'
            '<g class="conv1x1"><rect class="f" x="-14" width="28" height="28"/></g>'
            '<g class="head"><path class="l" d="M-14 28L0 56L14 28"/>'
            '<circle class="f" cy="58" r="4"/></g></g>'
        )
    y += 58
    body += [_note("global pooling: each map, one logit", y + 22), _strong(figure, y + 46)]
    body.append(_note("the only dense layers work per pixel", y + 64))
    return "".join(body)


def _headline(words: str) -> str:
    return f'<text class="head-line" text-anchor="middle" x="{_CENTRE}" y="16">{words}</text>'


def _note(words: str, y: float) -> str:
    return (
        f'<text class="note muted" text-anchor="middle" x="{_CENTRE}" y="{y:.1f}">'
        f"{escape(words)}</text>"
    )


def _strong(words: str, y: float) -> str:
    return (
        f'<text class="note strong" text-anchor="middle" x="{_CENTRE}" y="{y:.1f}">'
        f"{escape(words)}</text>"
    )


def _arrow(start: float, end: float) -> str:
    return (
        f'<path class="arrow" d="M{_CENTRE} {start:.1f}V{end:.1f}M{_CENTRE - 4} {end - 5:.1f}'
        f'L{_CENTRE} {end:.1f}L{_CENTRE + 4} {end - 5:.1f}"/>'
    )


def _image(y: float) -> str:
    """The input: a square picture with a shirt on it."""
    x = _CENTRE - 15
    shirt = "M9 6L4 10L7 14L9 12.5V24H21V12.5L23 14L26 10L21 6H18Q15 9 12 6Z"
    return (
        f'<g class="input" transform="translate({x:.1f} {y - 14:.1f})">'
        f'<rect class="f" width="30" height="30" rx="2"/><path d="{shirt}" fill="#fff"/></g>'
        + _arrow(y + 20, y + 36)
    )


def _layer(role: str, words: str, y: float) -> str:
    return (
        f'<g class="box {role}"><rect class="frame" x="14" y="{y:.1f}" width="{COLUMN - 28}" '
        f'height="{_ROW}" rx="4"/><g transform="translate(36 {y + _ROW / 2:.1f})">'
        f"{SYMBOLS[role](0.0)}</g>"
        f'<text x="62" y="{y + _ROW / 2 + 4.5:.1f}">{escape(words)}</text></g>'
    )
