// Receptive fields, cell by cell, behind receptive_field.js. Python's half is field.py.

const PANEL = 288; // about the pixels of a panel: decides which grids are too fine to draw
const FINEST = 4; // pixels a cell must have for lines around it

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const root = parentElement.querySelector(".nin-field") ?? newRoot(parentElement);
  const state = root.nin;
  state.choose = (name) => setTriggerValue("click", name);
  // A choice made here is shown at once; Python's answer to it changes nothing any more.
  const moved = !state.data || state.data.layer !== data.layer || !named(data, state.layer);
  state.data = data;
  list(root);
  go(root, moved ? data.layer : state.layer);
}

function newRoot(parent) {
  const host = document.createElement("div");
  host.className = "nin-field-host";
  host.innerHTML = `<div class="nin-field">
    <p class="nin-field-use">Point at a cell of the map, tap it or use the arrow keys: the bright part
      of the picture is all that can change this cell's values; hatched is what of its receptive field
      is padding. The picture is an example, the place does not depend on it.</p>
    <div class="nin-field-controls">
      <label>Layer <select aria-label="Layer"></select></label>
      <label>Row <input type="number" name="row" aria-label="Row" min="0" step="1"></label>
      <label>Column <input type="number" name="column" aria-label="Column" min="0" step="1"></label>
    </div>
    <figure>
      <svg class="nin-field-map" tabindex="0" role="application">
        <rect class="ground"/><path class="line"/>
        <rect class="cross across"/><rect class="cross down"/><rect class="cell"/>
      </svg>
      <figcaption></figcaption>
    </figure>
    <figure>
      <svg class="nin-field-image" role="img">
        <defs><pattern id="hatch" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
          <line class="stripe" x1="0" y1="0" x2="0"/></pattern></defs>
        <image x="0" y="0" preserveAspectRatio="none"/>
        <path class="dim" fill-rule="evenodd"/><rect class="edge" x="0" y="0"/>
        <path class="padding" fill="url(#hatch)" fill-rule="evenodd"/>
        <rect class="whole"/><rect class="seen"/>
      </svg>
      <figcaption></figcaption>
    </figure>
    <div class="nin-field-told" aria-live="polite"></div>
  </div>`;
  parent.append(host);
  const root = host.firstElementChild;
  root.nin = { data: null, layer: null, row: 0, column: 0, cells: 0, choose: null };

  const map = root.querySelector(".nin-field-map");
  const point = (event) => {
    const box = map.getBoundingClientRect();
    const { cells } = root.nin;
    const at = (part, whole) => Math.floor((part / whole) * cells);
    move(root, at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width));
  };
  map.addEventListener("pointerdown", point);
  map.addEventListener("pointermove", point);
  map.addEventListener("keydown", (event) => pressed(root, event));
  root.querySelector("select").addEventListener("change", (event) => {
    go(root, event.target.value);
    root.nin.choose(event.target.value);
  });
  for (const input of root.querySelectorAll("input")) {
    input.addEventListener("input", () => typed(root, input));
    // What was not a cell gives way to the cell that is shown.
    input.addEventListener("change", () => draw(root));
  }
  return root;
}

function named(data, name) {
  return data.layers.find((layer) => layer.name === name);
}

function list(root) {
  const select = root.querySelector("select");
  const names = root.nin.data.layers.map(({ name, title }) => `${name}\n${title}`).join("\n");
  if (select.ninNames === names) return;
  select.ninNames = names;
  select.replaceChildren(
    ...root.nin.data.layers.map(({ name, title }) => new Option(title, name)),
  );
}

/** Show a layer's map, keeping to the place that was looked at. */
function go(root, name) {
  const state = root.nin;
  const { layers, size } = state.data;
  const index = layers.findIndex((layer) => layer.name === name);
  state.steps = layers.slice(0, index + 1).map((layer) => layer.step).filter(Boolean);
  const cells = state.steps.length ? state.steps.at(-1)[3] : size;
  const same = (cell) =>
    state.cells ? Math.floor(((cell + 0.5) / state.cells) * cells) : Math.floor(cells / 2);
  [state.row, state.column] = [same(state.row), same(state.column)];
  state.layer = name;
  state.cells = cells;
  draw(root);
}

function move(root, row, column) {
  const state = root.nin;
  const within = (cell) => Math.max(0, Math.min(cell, state.cells - 1));
  [row, column] = [within(row), within(column)];
  if (row === state.row && column === state.column) return;
  [state.row, state.column] = [row, column];
  draw(root);
}

function pressed(root, event) {
  const { row, column, cells } = root.nin;
  const places = {
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    Home: [row, 0],
    End: [row, cells - 1],
    PageUp: [0, column],
    PageDown: [cells - 1, column],
  };
  if (!(event.key in places) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  move(root, ...places[event.key]);
}

function typed(root, input) {
  const state = root.nin;
  const cell = input.value === "" ? NaN : Number(input.value);
  if (!Number.isInteger(cell) || cell < 0 || cell >= state.cells) return;
  state[input.name] = cell;
  draw(root, input);
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

function rectangle(x, y, width, height) {
  return `M${x} ${y}h${width}v${height}h${-width}z`;
}

/** Draw the state; `typing` is the input that must be left as its user writes it. */
function draw(root, typing) {
  const { data, layer: name, steps, cells, row, column } = root.nin;
  const layer = named(data, name);
  const { size } = data;
  root.style.setProperty("--chosen", layer.color);
  root.querySelector("select").value = name;
  for (const input of root.querySelectorAll("input")) {
    input.max = cells - 1;
    if (input !== typing) input.value = root.nin[input.name];
  }

  const map = root.querySelector(".nin-field-map");
  const part = (selector) => map.querySelector(selector);
  set(map, { viewBox: `0 0 ${cells} ${cells}`, "aria-label":
    `Map of ${layer.title}, ${cells}×${cells} cells; the arrow keys move through it` });
  set(part(".ground"), { width: cells, height: cells });
  if (map.ninCells !== cells) {
    map.ninCells = cells;
    const lines = PANEL / cells < FINEST ? [] : Array.from({ length: cells - 1 }, (_, i) => i + 1);
    part(".line").setAttribute("d", lines.map((i) => `M${i} 0v${cells}M0 ${i}h${cells}`).join(""));
  }
  set(part(".across"), { x: 0, y: row, width: cells, height: 1 });
  set(part(".down"), { x: column, y: 0, width: 1, height: cells });
  set(part(".cell"), { x: column, y: row, width: 1, height: 1 });

  const rows = receptiveField(steps, size, row);
  const columns = receptiveField(steps, size, column);
  // The view holds the fields of all cells, so that the picture stands still under the pointer.
  const low = Math.min(receptiveField(steps, size, 0).first, 0);
  const high = Math.max(receptiveField(steps, size, cells - 1).last, size - 1);
  // Where they reach far beyond the image, the picture must not become a stamp.
  const from = Math.max(low, -size / 2);
  const to = Math.min(high + 1, 1.5 * size);
  const image = root.querySelector(".nin-field-image");
  const of = (selector) => image.querySelector(selector);
  const margin = (to - from) / 100;
  const extent = to - from + 2 * margin;
  set(image, { viewBox: `${from - margin} ${from - margin} ${extent} ${extent}` });
  set(of("image"), { href: data.picture, width: size, height: size });
  of("image").style.imageRendering = data.smooth ? "auto" : "pixelated";
  set(of(".edge"), { width: size, height: size });
  const seen = [
    columns.seenFirst, rows.seenFirst,
    columns.seenLast - columns.seenFirst + 1, rows.seenLast - rows.seenFirst + 1,
  ];
  const whole = [
    columns.first, rows.first, columns.last - columns.first + 1, rows.last - rows.first + 1,
  ];
  of(".dim").setAttribute("d", rectangle(0, 0, size, size) + rectangle(...seen));
  of(".padding").setAttribute("d", rectangle(...whole) + rectangle(...seen));
  const pitch = extent / 40;
  set(of("pattern"), { width: pitch, height: pitch });
  set(of("line"), { y2: pitch });
  for (const [selector, box] of [[".seen", seen], [".whole", whole]]) {
    const [x, y, width, height] = box;
    set(of(selector), { x, y, width, height });
  }
  tell(root, layer, rows, columns, seen, whole);
}

function tell(root, layer, rows, columns, seen, whole) {
  const { data, cells, row, column } = root.nin;
  const { size } = data;
  const [mapCaption, imageCaption] = root.querySelectorAll("figcaption");
  mapCaption.textContent = `A map of ${layer.name}: ${cells}×${cells} cells.`;
  imageCaption.textContent = data.caption;
  const share = (seen[2] * seen[3]) / (whole[2] * whole[3]);
  const outside = {
    above: rows.seenFirst - rows.first,
    below: rows.last - rows.seenLast,
    left: columns.seenFirst - columns.first,
    right: columns.last - columns.seenLast,
  };
  const beyond = Object.entries(outside).filter(([, count]) => count);
  const facts = [
    ["Cell", `row ${row}, column ${column}`],
    ["Image rows", `${rows.seenFirst} to ${rows.seenLast} (of ${size})`],
    ["Image columns", `${columns.seenFirst} to ${columns.seenLast} (of ${size})`],
    ["Sees", `${seen[3]} × ${seen[2]} pixels`],
    ["Receptive field", `${whole[3]} × ${whole[2]}`],
    [
      "In the padding",
      beyond.length
        ? `${beyond.map(([side, count]) => `${count} ${side}`).join(", ")}: ${percent(1 - share)}`
        : "nothing",
    ],
  ];
  const rest = [];
  if (layer.gaps) rest.push(["", "Strides wider than their windows skip pixels in between."]);
  if (whole[2] > size) {
    rest.push(["warning", `The receptive field is larger than the ${size}×${size} image.`]);
  }
  const terms = document.createElement("dl");
  for (const [term, fact] of facts) {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [term, fact];
    terms.append(dt, dd);
  }
  const sentences = rest.map(([kind, text]) => {
    const sentence = document.createElement("p");
    [sentence.className, sentence.textContent] = [kind, text];
    return sentence;
  });
  root.querySelector(".nin-field-told").replaceChildren(terms, ...sentences);
  root.querySelector(".nin-field-image").setAttribute("aria-label",
    `The picture: rows ${rows.seenFirst} to ${rows.seenLast}, ` +
    `columns ${columns.seenFirst} to ${columns.seenLast} are seen`);
}

/** 0.4 % and 99.6 % are neither nothing nor all. */
function percent(share) {
  const value = 100 * share;
  return `${value < 1 || value > 99 ? value.toFixed(1) : Math.round(value)} % of the field`;
}
