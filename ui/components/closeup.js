// One map over its picture. Python's half is closeup.py.

const WARM = [255, 106, 19];
const COLD = [38, 139, 255];
const BROKEN = [200, 0, 200];

const blends = (window.ninBlends ??= new Map()); // key -> 0 (picture) to 1 (map)

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const root = parentElement.querySelector(".nin-closeup") ?? newRoot(parentElement, data.key);
  root.nin.send = (row, column) => setTriggerValue("click", [row, column]);
  update(root, data);
}

function newRoot(parent, key) {
  const root = document.createElement("div");
  root.className = "nin-closeup";
  root.innerHTML = `
    <div class="nin-closeup-frame" tabindex="0" role="application">
      <canvas class="picture"></canvas><canvas class="map"></canvas>
      <svg preserveAspectRatio="none">
        <rect class="under field"/><rect class="field"/><rect class="under cell"/><rect class="cell"/>
      </svg>
    </div>
    <div class="nin-closeup-side">
      <dl aria-live="polite"></dl>
      <label>Picture <input type="range" min="0" max="1" step="0.05" aria-label="From the picture to the map"> Map</label>
    </div>`;
  parent.append(root);
  root.nin = { data: null, arrays: null, pinned: null, under: null, timer: 0, send: null };
  const slider = root.querySelector("input");
  slider.value = blends.get(key) ?? 0.5;
  slider.addEventListener("input", () => {
    blends.set(key, Number(slider.value));
    blend(root);
  });
  const frame = root.querySelector(".nin-closeup-frame");
  const point = (event) => {
    root.nin.under = cellAt(root, event);
    mark(root);
  };
  frame.addEventListener("pointermove", point);
  frame.addEventListener("pointerdown", point);
  frame.addEventListener("pointerleave", () => {
    root.nin.under = null;
    mark(root);
  });
  frame.addEventListener("click", () => {
    const { under } = root.nin;
    if (under) pin(root, under, 0);
  });
  frame.addEventListener("keydown", (event) => {
    const { pinned, geometry } = root.nin;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!geometry || !(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const within = (cell, axis) => Math.max(0, Math.min(cell, axis.cells - 1));
    const [down, right] = moves[event.key];
    const next = [within(pinned[0] + down, geometry), within(pinned[1] + right, geometry)];
    root.nin.under = null;
    pin(root, next, 200); // a held key passes many
  });
  return root;
}

async function update(root, data) {
  const state = root.nin;
  state.newest = data;
  const [{ values }, { image }] = await Promise.all([parcel(data.values), parcel(data.image)]);
  if (state.newest !== data) return; // overtaken while waiting
  const same = state.data && state.data.values === data.values && state.data.image === data.image
    && state.data.reach === data.reach && String(state.data.steps) === String(data.steps);
  state.data = data;
  state.arrays = { values, image };
  if (String(data.pixel) !== state.asked) {
    state.asked = String(data.pixel);
    state.pinned = data.pixel;
  }
  if (!same) {
    state.geometry = geometryOf(data);
    paint(root);
  }
  blend(root);
  mark(root);
}

/** Where the cells lie in the picture, the same along both sides. */
function geometryOf({ steps, shape, imageShape }) {
  const size = imageShape[0];
  const cells = shape[0];
  const middle = (cell) => {
    const { first, last } = receptiveField(steps, size, cell);
    return (first + last + 1) / 2;
  };
  if (cells === 1) { // no neighbour says how wide it is: it speaks for all it sees
    const { seenFirst, seenLast } = receptiveField(steps, size, 0);
    return { size, cells, start: seenFirst, pitch: seenLast - seenFirst + 1 };
  }
  const pitch = middle(1) - middle(0);
  return { size, cells, start: middle(0) - pitch / 2, pitch };
}

function paint(root) {
  const { data, arrays, geometry } = root.nin;
  const [height, width] = data.shape;
  const [rows, columns, depth = 1] = data.imageShape;
  const picture = root.querySelector(".picture");
  picture.width = columns;
  picture.height = rows;
  draw(picture, (i, pixels) => {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = arrays.image[i * depth + (depth === 3 ? c : 0)];
    pixels[4 * i + 3] = 255;
  });
  const map = root.querySelector(".map");
  map.width = width;
  map.height = height;
  draw(map, (i, pixels) => {
    const value = arrays.values[i];
    const broken = value === NOT_A_NUMBER;
    const color = broken ? BROKEN : value < 0 ? COLD : WARM;
    const amount = broken ? 1 : Math.min(Math.abs(value) / (data.reach || 1), 1);
    pixels.set([...color, Math.round(amount * 255)], 4 * i);
  });
  const share = (length) => `${(100 * length) / geometry.size}%`;
  Object.assign(map.style, {
    left: share(geometry.start), top: share(geometry.start),
    width: share(geometry.pitch * width), height: share(geometry.pitch * height),
  });
  root.querySelector("svg").setAttribute("viewBox", `0 0 ${columns} ${rows}`);
}

function draw(canvas, color) {
  const context = canvas.getContext("2d");
  const pixels = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) color(i, pixels.data);
  context.putImageData(pixels, 0, 0);
}

/** At the slider's middle both are whole; from there on the one or the other fades. */
function blend(root) {
  const at = Number(root.querySelector("input").value);
  root.querySelector(".picture").style.opacity = Math.min(1, 2 * (1 - at));
  root.querySelector(".map").style.opacity = Math.min(1, 2 * at);
}

function cellAt(root, event) {
  const { geometry } = root.nin;
  if (!geometry) return null;
  const box = root.querySelector("svg").getBoundingClientRect();
  const cell = (part, whole) => {
    const at = Math.floor(((part / whole) * geometry.size - geometry.start) / geometry.pitch);
    return Math.max(0, Math.min(at, geometry.cells - 1));
  };
  return [cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width)];
}

function pin(root, cell, pause) {
  const state = root.nin;
  state.pinned = cell;
  mark(root);
  clearTimeout(state.timer);
  state.timer = setTimeout(() => {
    state.asked = String(cell);
    state.send(...cell);
  }, pause);
}

/** Frame the cell under the pointer, else the pinned one, and what it sees; tell its value. */
function mark(root) {
  const { data, arrays, geometry, pinned, under } = root.nin;
  if (!geometry) return;
  const [row, column] = under ?? pinned;
  const rows = receptiveField(data.steps, geometry.size, row);
  const columns = receptiveField(data.steps, geometry.size, column);
  const seen = [
    columns.seenFirst, rows.seenFirst,
    columns.seenLast - columns.seenFirst + 1, rows.seenLast - rows.seenFirst + 1,
  ];
  const { start, pitch } = geometry;
  place(root, ".field", seen);
  place(root, ".cell", [start + column * pitch, start + row * pitch, pitch, pitch]);
  const value = arrays.values[row * data.shape[1] + column];
  const range = (first, last) => (first === last ? `${first}` : `${first} to ${last}`);
  const padding = [
    [rows.seenFirst - rows.first, "above"], [rows.last - rows.seenLast, "below"],
    [columns.seenFirst - columns.first, "left"], [columns.last - columns.seenLast, "right"],
  ].filter(([count]) => count > 0).map(([count, where]) => `${count} ${where}`);
  const facts = [
    ["Channel", data.name],
    ["Position", `row ${row}, column ${column}`],
    ["Value", quantised(value, data.decimals)],
    ["Sees", `${seen[3]}×${seen[2]} pixels: rows ${range(rows.seenFirst, rows.seenLast)}, ` +
      `columns ${range(columns.seenFirst, columns.seenLast)}`],
  ];
  if (padding.length) facts.push(["In the padding", padding.join(", ")]);
  const list = root.querySelector("dl");
  list.replaceChildren();
  for (const [term, fact] of facts) {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [term, fact];
    list.append(dt, dd);
  }
  root.querySelector(".nin-closeup-frame").setAttribute("aria-label",
    `Channel ${data.name} over the picture; the arrow keys move the marked pixel`);
}

function place(root, selector, [x, y, width, height]) {
  for (const node of root.querySelectorAll(selector)) {
    for (const [name, value] of Object.entries({ x, y, width, height })) {
      node.setAttribute(name, value);
    }
  }
}
