"""The files around the code hold what they promise: the theme, the server's limits, the commands.

The oracle for the keys of `.streamlit/config.toml` is Streamlit's own table of options, which
ignores a misspelt key with no more than a warning in the log.
"""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.prerequisites import PROJECT, first_error
from ui import theme
from ui.laboratory.export import MAX_WEIGHTS_MB

AA_TEXT = 4.5  # WCAG 2.1, 1.4.3: contrast of normal text, level AA
THEMES = ("light", "dark")


def config() -> dict[str, Any]:
    return tomllib.loads((PROJECT / ".streamlit" / "config.toml").read_text())


def flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def luminance(color: str) -> float:
    """WCAG relative luminance of "#rrggbb"."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio, 1 to 21."""
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_of_black_on_white_is_the_standards_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_every_key_is_one_that_streamlit_knows() -> None:
    from streamlit.config import get_config_options

    known = get_config_options()
    assert [key for key, _ in flat(config()) if key not in known] == []


def test_the_server_is_private_and_limited() -> None:
    values = dict(flat(config()))
    assert values["server.address"] == "127.0.0.1"
    assert values["server.maxUploadSize"] == MAX_WEIGHTS_MB
    assert values["browser.gatherUsageStats"] is False


@pytest.mark.parametrize("name", THEMES)
def test_text_and_links_are_readable_on_every_background(name: str) -> None:
    page = config()["theme"][name]
    places = [page, {**page, **page["sidebar"]}]
    for place, ground in product(places, ("backgroundColor", "secondaryBackgroundColor")):
        for text in ("textColor", "linkColor"):
            assert contrast(place[text], place[ground]) >= AA_TEXT, (text, ground)
    # Streamlit writes white on a primary button, whatever its colour.
    assert contrast("#ffffff", page["primaryColor"]) >= AA_TEXT
    sidebar = places[1]
    assert contrast(sidebar["primaryColor"], sidebar["backgroundColor"]) >= AA_TEXT


def test_figures_know_the_backgrounds() -> None:
    themes = config()["theme"]
    assert themes["light"]["backgroundColor"] == theme.LIGHT_BACKGROUND
    assert themes["dark"]["backgroundColor"] == theme.DARK_BACKGROUND


@pytest.mark.parametrize("target", ["run", "test", "lint", "format", "screenshots"])
def test_make_says_how_each_target_is_done(target: str) -> None:
    """`make -n` parses the Makefile and lists the commands without running one."""
    plan = subprocess.run(
        ["make", "-n", target], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert plan.returncode == 0, plan.stderr
    assert ".venv/bin/python" in plan.stdout
    described = subprocess.run(
        ["make", "help"], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert f"make {target} " in described.stdout


def test_a_failed_attempt_is_told_in_one_line() -> None:
    output = "Downloading\nError: getaddrinfo ENOTFOUND a.host\n    at line 3\n"
    assert first_error(output) == "Error: getaddrinfo ENOTFOUND a.host"
    assert first_error("first\nlast\n\n") == "last"
    assert first_error("") == "(no output)"
    assert len(first_error("word " * 500)) <= 160
