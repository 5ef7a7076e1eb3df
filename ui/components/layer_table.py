"""A table whose rows are sorted in the browser and chosen by click or key.

    layer_table(data, key="layers", label="Layers", on_click=choose, selected="block1.conv")

Why not `st.dataframe`: at one slider step (two busy cores, medians of 20) the sidebar's totals had
changed after 365 ms, its canvas after 546, and what tests and screen readers can read of it after
907, since its grid holds that back for 200 ms. This is a plain `<table>` that changes with the page
and has a totals row, headings in two lines, bars in its cells, and each figure in its own unit.

Choices:

* A click on a heading sorts, largest first for numbers; a second one the other way round; a third
  restores the order of the rows as sent. Python is not asked, and the order holds when figures
  change. A figure that is missing comes last, and the totals stay where they are.
* A row is chosen with a click, or with the arrow keys and Enter; it is marked at once and Python
  hears of it. One row is in the Tab order, as in a list.
* Wider than the page, it scrolls sideways in its own box, and the first column stays in view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ui.components.wire import OnClick, check_key, check_on_click, click_callback, read_assets

_mount = st.components.v2.component(
    "nin_layer_table",
    js=read_assets("layer_table.js"),
    css=read_assets("layer_table.css"),
    isolate_styles=False,
)


def layer_table(
    data: Mapping[str, Any],
    *,
    key: str,
    label: str,
    on_click: OnClick = None,
    selected: str | None = None,
) -> None:
    """Show a table.

    Args:
        data: what `ui.tables.table_data` makes: "columns", each with id, title, group, heading,
            kind and help; "rows", each with id, color and cells; "total", the cells of the last
            row. A cell is ``[text, figure]``.
        key: names the table on its page. The same key is the same table: its order stays.
        label: what screen readers are told.
        on_click: a function that is called with the id of a row that was clicked; "rerun": a click
            only reruns the script; None: rows cannot be chosen.
        selected: the id of the row that is marked.

    Raises:
        ValueError: a row has not as many cells as there are columns.
    """
    check_key(key)
    check_on_click(on_click)
    for row in data["rows"]:
        if len(row["cells"]) != len(data["columns"]):
            raise ValueError(
                f"Row {row['id']!r} has {len(row['cells'])} cells; there are "
                f"{len(data['columns'])} columns."
            )
    ids = {row["id"] for row in data["rows"]}
    _mount(
        key=key,
        data={
            **data,
            "key": key,
            "label": label,
            "clicks": on_click is not None,
            "selected": selected,
        },
        on_click_change=click_callback(
            key, on_click, lambda id_: id_ if isinstance(id_, str) and id_ in ids else None
        ),
    )
