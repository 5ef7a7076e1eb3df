"""Why tools disagree: the ledger's figures are the computed ones, for every kind of network."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from nin_core import PRESETS, NiNConfig, summarize
from nin_core.counters import count_like_tools
from tests.conftest import dashboard
from tests.core.test_counters import ODD
from ui.laboratory import counters

NETWORKS = {**PRESETS, **ODD}


def cards(config: NiNConfig) -> dict[str, list[int]]:
    """Per tool the numbers of its card, the figure last, as a reader sees them."""
    network = summarize(config)
    html = counters.ledger(count_like_tools(network), network.total_macs)
    tree = ElementTree.fromstring(html[html.index("<div") :])
    found = {}
    for section in tree.iter("section"):
        figures = [
            row.findtext("dd") or "" for row in section.iter("div") if row.get("class") != "none"
        ]
        found[section.get("aria-label") or ""] = [int(text.replace(",", "")) for text in figures]
    return found


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_what_stands_in_a_card_adds_up(config: NiNConfig) -> None:
    shown = cards(config)
    assert list(shown) == ["fvcore", "thop", "torchinfo", "ptflops", "FlopCounterMode"]
    for *terms, figure in shown.values():
        assert sum(terms) == figure
        assert terms[0] == summarize(config).total_macs


def test_the_chart_shows_what_comes_on_top() -> None:
    counts = count_like_tools(summarize(PRESETS["nin-224"]))
    figure = counters.extras_figure(counts)
    assert figure is not None
    assert {trace["name"] for trace in figure["data"]} == {
        *("biases", "ReLU", "pooling", "global pooling"),
    }
    for index, tool in enumerate(figure["data"][0]["y"]):
        count = next(count for count in counts if count.tool == tool)
        assert sum(trace["x"][index] for trace in figure["data"]) == count.extra
    assert "FlopCounterMode" not in figure["data"][0]["y"]
    assert set(counters.TERM_COLORS) >= {term.name for count in counts for term in count.terms}


@pytest.mark.usefixtures("store")
def test_the_view_is_on_the_page_and_follows_the_network() -> None:
    app = dashboard("architecture", view="counters", net="nin-224", head="avg").run()
    assert not app.exception
    shown = " ".join(element.proto.body for element in app.get("html"))
    network = summarize(replace(PRESETS["nin-224"], global_pool="avg"))
    for count in count_like_tools(network):
        assert f"{count.figure:,}" in shown
    assert "762,297,602" in shown
    text = " ".join(caption.value for caption in app.main.caption)
    assert re.search(r"762,297,352 multiply-accumulates", text)
