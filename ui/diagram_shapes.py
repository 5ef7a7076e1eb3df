"""What the drawings of networks are made of: volumes, the operations' symbols, and their style.

Colours come from `ui.theme`, one a role; a volume has three tints of it. Text and background take
Streamlit's CSS variables with light fallbacks, so that the same string serves both themes and a
file on disk.
"""

from __future__ import annotations

from nin_core import LayerSummary
from ui import theme

SLANT = (0.40, 0.26)  # of a side: how far the volume's depth goes right and up


def volume(
    x: float,
    side: float,
    depth: float,
    size: int,
    following: LayerSummary,
    rod: bool = False,
) -> list[str]:
    """A box with its front, top and right faces, and on the right one the next layer's window."""
    right, up = side * SLANT[0], side * SLANT[1]
    half = side / 2
    end = x + depth
    shapes = [
        _polygon("t", (x, -half), (x + right, -half - up), (end + right, -half - up), (end, -half)),
        _polygon(
            "s", (end, -half), (end + right, -half - up), (end + right, half - up), (end, half)
        ),
        f'<rect class="f" x="{x:.1f}" y="{-half:.1f}" width="{depth:.1f}" height="{side:.1f}"/>',
    ]
    pixel = max(side / size, 2.0)
    if rod or following.kind == "conv1x1":
        shapes.append(
            f'<rect class="rod" x="{x:.1f}" y="{-pixel / 2:.1f}" width="{depth:.1f}" '
            f'height="{pixel:.1f}"/>'
        )
    if following.kernel_size > 1:
        part = min(following.kernel_size / size, 1.0)
        a, b = 0.5 - part / 2, 0.5 + part / 2

        def at(u: float, v: float) -> tuple[float, float]:
            return end + u * right, -half + v * side - u * up

        shapes.append(
            _polygon(f"window {role_of(following.kind)}", at(a, a), at(b, a), at(b, b), at(a, b))
        )
    return shapes


def _polygon(name: str, *points: tuple[float, float]) -> str:
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="{name}" points="{listed}"/>'


def _convolution_symbol(x: float) -> str:
    """A 3×3 window closing on one point."""
    left, top = x - 13, -7
    grid = "".join(
        f"M{left + i * 14 / 3:.1f} {top}v14M{left:.1f} {top + i * 14 / 3:.1f}h14" for i in range(4)
    )
    return (
        f'<path class="l" d="{grid}M{left + 14:.1f} {top}L{x + 11:.1f} 0L{left + 14:.1f} '
        f'{top + 14}"/><circle class="f" cx="{x + 11:.1f}" cy="0" r="2"/>'
    )


def _dense_symbol(x: float) -> str:
    """Three nodes fully joined to three: a dense layer."""
    heights = (-9, 0, 9)
    lines = "".join(f"M{x - 10:.1f} {a}L{x + 10:.1f} {b}" for a in heights for b in heights)
    nodes = "".join(
        f'<circle class="f" cx="{end:.1f}" cy="{y}" r="2.4"/>'
        for end in (x - 10, x + 10)
        for y in heights
    )
    return f'<path class="l" d="{lines}"/>{nodes}'


def _pool_symbol(x: float) -> str:
    """A funnel: a large map in, a small one out."""
    return _polygon("f", (x - 9, -11), (x + 9, -5), (x + 9, 5), (x - 9, 11))


def _head_symbol(x: float) -> str:
    """A whole map drawn together into one number."""
    return (
        f'<path class="l" d="M{x - 12:.1f} -11h7v22h-7zM{x - 5:.1f} -11L{x + 10:.1f} 0'
        f'L{x - 5:.1f} 11"/><circle class="f" cx="{x + 10:.1f}" cy="0" r="2.6"/>'
    )


SYMBOLS = {
    "conv": _convolution_symbol,
    "conv1x1": _dense_symbol,
    "pool": _pool_symbol,
    "head": _head_symbol,
}


def role_of(kind: str) -> str:
    """The class under which a kind is drawn."""
    if kind.startswith("global"):
        return "head"
    return "pool" if kind.endswith("pool") else kind


def mix(color: str, other: str, share: float) -> str:
    """`color` with `share` of `other` in it, both ``#rrggbb``."""
    pairs = zip(_channels(color), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _channels(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _rules() -> str:
    """The style sheet: one colour a role, three tints a volume, text in the theme's colours."""
    colors = {
        "input": "#9aa7b4",
        "conv": theme.CONV,
        "conv1x1": theme.POINTWISE,
        "pool": theme.POOL,
        "dropout": theme.DROPOUT,
        "head": theme.HEAD,
    }
    rules = [
        "text{font:12px var(--st-font,sans-serif);fill:var(--st-text-color,#1d2733)}",
        ".strong,.title{font-weight:600}",
        ".muted{fill:var(--st-gray-text-color,#5a6672)}",
        ".card{fill:var(--st-secondary-background-color,#f3f5f7)}",
        ".warning{font-weight:600;fill:var(--st-orange-text-color,#a14f00)}",
        ".hit{fill:none;pointer-events:all}",
        ".selected>.hit{stroke:var(--st-primary-color,#1f5fa8);stroke-width:2;"
        "fill:var(--st-primary-color,#1f5fa8);fill-opacity:.14}",
        ".l{fill:none;stroke-width:1}",
        ".f,.t,.s{stroke-width:.6;stroke-linejoin:round}",
        f".rod{{fill:{mix(theme.POINTWISE, '#ffffff', 0.55)}}}",
        ".window{stroke:#fff;stroke-width:.8}",
    ]
    for role, color in colors.items():
        edge = mix(color, "#000000", 0.45)
        rules += [
            f".{role} .f{{fill:{color};stroke:{edge}}}",
            f".{role} .t{{fill:{mix(color, '#ffffff', 0.35)};stroke:{edge}}}",
            f".{role} .s{{fill:{mix(color, '#ffffff', 0.15)};stroke:{edge}}}",
            f".{role} .l{{stroke:{color}}}",
            f".{role} .o{{fill:none;stroke:{color}}}",
            f".window.{role}{{fill:{mix(color, '#000000', 0.1)}}}",
        ]
    return "".join(f".nin-diagram {rule}" for rule in rules)


STYLE = f"<style>{_rules()}</style>"
