"""Numbers as people read them: thousands, SI prefixes, bytes, seconds and changes."""

from __future__ import annotations


def short(value: float) -> str:
    """A count in three significant digits: 950, 10.8 k, 1.46 M, 762 M."""
    for limit, divisor, unit in (
        (1e3, 1, ""),
        (1e6, 1e3, " k"),
        (1e9, 1e6, " M"),
        (1e12, 1e9, " G"),
    ):
        # Below 999.5 of a unit, three digits do not round up to the next one.
        if abs(value) < limit * 0.9995:
            return _three(value / divisor) + unit
    return _three(value / 1e12) + " T"


def size(count: float) -> str:
    """Bytes in binary units, three significant digits: 812 B, 41.8 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1023.5:
            return f"{_three(count)} {unit}"
        count /= 1024
    return f"{_three(count)} TiB"


def duration(seconds: float) -> str:
    """A time in the one or two units that matter: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min"


def change(value: float, reference: float) -> str:
    """How `value` stands to `reference`: "same", "+12 %", "−40 %", "×3.2", "÷3.2"."""
    if value == reference:
        return "same"
    if not reference or not value:
        return "new" if not reference else "none"
    ratio = value / reference
    if ratio >= 2:
        return f"×{_three(ratio)}"
    if ratio <= 0.5:
        return f"÷{_three(1 / ratio)}"
    percent = (ratio - 1) * 100
    digits = 1 if abs(percent) < 10 else 0
    sign = "+" if percent > 0 else "−"
    if abs(percent) < 0.05:
        return f"{sign}<0.1 %"
    return f"{sign}{abs(percent):.{digits}f} %"


def share(value: float) -> str:
    """A share of a whole: 22.4 %, and <0.1 % rather than 0.0 %."""
    return "<0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def shape(sides: tuple[int, ...]) -> str:
    """A shape as it is spoken: 96×54×54."""
    return "×".join(map(str, sides))


def _three(value: float) -> str:
    """Three significant digits without an exponent; whole numbers stay whole."""
    if float(value).is_integer() and abs(value) < 1000:
        return f"{int(value)}"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
