// Shows a table, sorts its rows and tells which was chosen. Python's half is layer_table.py.

// Orders live on the window: a component that Streamlit mounts again keeps its order.
const orders = (window.ninTableOrders ??= new Map());

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const root = parentElement.querySelector(".nin-scroll") ?? newRoot(parentElement);
  root.ninSend = (id) => setTriggerValue("click", id);
  root.ninData = data;
  show(root);
}

function newRoot(parent) {
  const root = element("div", "nin-scroll");
  const table = element("table", "nin-layers");
  table.append(element("thead"), element("tbody"), element("tfoot"));
  root.append(table);
  parent.append(root);
  root.addEventListener("scroll", () => showEdges(root));
  // Called after the layout, so that asking for widths forces none; at the first time, too.
  const resized = new ResizeObserver(() => showEdges(root));
  resized.observe(root);
  resized.observe(table);
  root.addEventListener("click", (event) => {
    const heading = event.target.closest("button[data-column]");
    if (heading) sort(root, heading.dataset.column);
    // Marking a figure to copy it is no choice.
    else if (getSelection().isCollapsed) choose(root, event.target.closest("tbody tr"));
  });
  root.addEventListener("keydown", (event) => pressed(root, event));
  return root;
}

function show(root) {
  const { label, clicks } = root.ninData;
  const table = root.firstChild;
  table.setAttribute("aria-label", label);
  table.setAttribute("role", clicks ? "grid" : "table");
  table.classList.toggle("clicks", clicks);
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  const { column, id } = focused?.dataset ?? {};
  showHeadings(root);
  showRows(root);
  // What had the focus was replaced: its successor gets it.
  const name = CSS.escape(column ?? id ?? "");
  if (column) table.querySelector(`button[data-column="${name}"]`)?.focus();
  else if (id) table.querySelector(`tr[data-id="${name}"]`)?.focus();
}

/** Tell the style sheet at which sides there is more than is seen. */
function showEdges(root) {
  root.classList.toggle("scrolled", root.scrollLeft > 0);
  root.classList.toggle("more", root.scrollLeft + root.clientWidth < root.scrollWidth - 1);
}

/** Two lines of headings; a group stands over its columns once, unless it has only one. */
function showHeadings(root) {
  const { key, columns } = root.ninData;
  const order = orders.get(key);
  const signature = JSON.stringify([columns, order ?? null]);
  if (root.ninHeadings === signature) return;
  root.ninHeadings = signature;
  const above = element("tr");
  const below = element("tr");
  for (let at = 0; at < columns.length; ) {
    const { group } = columns[at];
    let end = at + 1;
    while (group && end < columns.length && columns[end].group === group) end += 1;
    const alone = end === at + 1;
    if (!alone) {
      const heading = element("th", "group", group);
      heading.colSpan = end - at;
      heading.scope = "colgroup";
      above.append(heading);
    }
    for (const column of columns.slice(at, end)) {
      const heading = element("th", column.kind);
      heading.scope = "col";
      heading.title = column.help;
      if (alone) heading.rowSpan = 2;
      const sorted = order?.id === column.id;
      if (sorted) heading.setAttribute("aria-sort", order.up ? "ascending" : "descending");
      const button = element("button", "", alone ? column.title : column.heading);
      button.type = "button";
      button.dataset.column = column.id;
      heading.append(button);
      (alone ? above : below).append(heading);
    }
    at = end;
  }
  root.querySelector("thead").replaceChildren(above, below);
}

/** At a step of a slider most cells stay as they are: only those that changed are made anew. */
function showRows(root) {
  const { columns, rows, total, selected, clicks } = root.ninData;
  const signature = JSON.stringify(columns);
  if (root.ninColumns !== signature) root.ninLines = new Map();
  root.ninColumns = signature;
  const shown = sorted(root.ninData).map((row) => {
    const line = brought(root, `row ${row.id}`, row.cells, row.color);
    line.dataset.id = row.id;
    if (clicks) line.setAttribute("aria-selected", row.id === selected);
    else line.removeAttribute("aria-selected");
    return line;
  });
  place(root.querySelector("tbody"), shown);
  place(root.querySelector("tfoot"), [brought(root, "total", total, "")]);
  for (const id of root.ninLines.keys()) {
    if (!root.ninLines.get(id).line.isConnected) root.ninLines.delete(id);
  }
  if (clicks && rows.length) {
    const current = shown.find((line) => line.dataset.id === selected) ?? shown[0];
    for (const line of shown) line.tabIndex = line === current ? 0 : -1;
  }
}

/** Have `parent` hold just these lines, untouched if it does already. */
function place(parent, lines) {
  const there = parent.children;
  if (there.length !== lines.length || lines.some((line, at) => line !== there[at])) {
    parent.replaceChildren(...lines);
  }
}

/** The row of this name, brought up to date: its first cell names it, a share has a bar. */
function brought(root, name, cells, color) {
  const { columns } = root.ninData;
  const known = root.ninLines.get(name);
  if (known?.color !== color) {
    const line = element("tr");
    if (color) line.style.setProperty("--color", color);
    line.append(...cells.map((cell, at) => made(columns[at], cell, at, color)));
    root.ninLines.set(name, { line, cells, color });
    return line;
  }
  cells.forEach((cell, at) => {
    const [text, figure] = known.cells[at];
    if (text !== cell[0] || figure !== cell[1]) {
      known.line.children[at].replaceWith(made(columns[at], cell, at, color));
    }
  });
  known.cells = cells;
  return known.line;
}

function made({ kind }, [text, figure], at, color) {
  const cell = element(at ? "td" : "th", figure === 0 ? `${kind} zero` : kind);
  if (!at) {
    cell.scope = "row";
    if (color) cell.append(element("i"));
  }
  if (kind === "share" && text) {
    const bar = element("span", "", text);
    bar.style.setProperty("--share", `${100 * figure}%`);
    cell.append(bar);
  } else {
    cell.append(text);
  }
  return cell;
}

function sorted({ key, columns, rows }) {
  const order = orders.get(key);
  const at = columns.findIndex((column) => column.id === order?.id);
  if (at < 0) return rows;
  const sign = order.up ? 1 : -1;
  const compare = (a, b) => {
    const [[text, figure], [otherText, otherFigure]] = [a.cells[at], b.cells[at]];
    if (!text || !otherText) return !text - !otherText;
    if (figure === null) return sign * text.localeCompare(otherText, "en", { numeric: true });
    return sign * (figure - otherFigure);
  };
  return [...rows].sort(compare); // stable: equal rows stay in network order
}

/** The next of a column's three orders. */
function sort(root, id) {
  const { key, columns } = root.ninData;
  const order = orders.get(key);
  const up = columns.find((column) => column.id === id).kind === "text"; // the first way round
  if (order?.id !== id) orders.set(key, { id, up });
  else if (order.up === up) orders.set(key, { id, up: !up });
  else orders.delete(key);
  show(root);
}

function choose(root, line) {
  if (!line || !root.ninData.clicks) return;
  const chosen = line.getAttribute("aria-selected") === "true";
  for (const other of line.parentElement.children) {
    other.setAttribute("aria-selected", other === line && !chosen);
  }
  focusRow(line);
  root.ninSend(line.dataset.id);
}

function focusRow(line) {
  for (const other of line.parentElement.children) other.tabIndex = other === line ? 0 : -1;
  line.focus({ preventScroll: true });
  line.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function pressed(root, event) {
  const line = event.target.closest("tbody tr");
  if (!line || !root.ninData.clicks) return;
  const { parentElement: body } = line;
  const next = {
    ArrowUp: line.previousElementSibling,
    ArrowDown: line.nextElementSibling,
    Home: body.firstElementChild,
    End: body.lastElementChild,
  };
  if (event.key in next) {
    if (next[event.key]) focusRow(next[event.key]);
  } else if (event.key === "Enter" || event.key === " ") {
    choose(root, line);
  } else {
    return;
  }
  event.preventDefault();
}

function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
