// All channels of a layer on one canvas. Python's half is sprite.py.

const STEPS = 511; // colours in a scale; odd, so that zero has one of its own
const SMALLEST_TILE = 40; // CSS pixels
const TOO_TALL = 1400; // a grid above it gets smaller ones, down to …
const TINY_TILE = 20;
const LARGEST_SIDE = 16000; // what browsers can draw: pixels a side, and in all
const LARGEST_AREA = 6e7;

const sprites = (window.ninSprites ??= new Map()); // key -> sprite; outlives Streamlit's remounts

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const sprite = sprites.get(data.key) ?? newSprite(data.key);
  settle(sprite.root, parentElement, data.key);
  sprite.send = data.clicks ? (spot) => setTriggerValue("click", spot) : null;
  update(sprite, data);
  return () => whenGone(sprite.root, () => dispose(sprite));
}

// --- the elements -----------------------------------------------------------------------------

function element(parent, tag, name) {
  const node = document.createElement(tag);
  node.className = `nin-sprite-${name}`;
  parent.append(node);
  return node;
}

function newSprite(key) {
  const root = document.createElement("div");
  root.className = "nin-sprite";
  const head = element(root, "div", "head");
  const title = element(head, "span", "title");
  const scale = element(head, "span", "scale");
  const low = element(scale, "span", "low");
  const bar = element(scale, "span", "bar");
  const high = element(scale, "span", "high");
  const notes = element(head, "span", "notes");
  const frame = element(root, "div", "frame");
  const grid = element(frame, "div", "grid");
  const canvas = element(grid, "canvas", "canvas");
  const pixels = element(grid, "canvas", "pixels");
  const mark = element(grid, "div", "mark");
  const cell = element(grid, "div", "cell");
  const tip = element(root, "div", "tip");
  const said = element(root, "div", "said");
  grid.tabIndex = 0;
  grid.setAttribute("role", "application");
  grid.setAttribute("aria-roledescription", "grid of maps");
  said.setAttribute("aria-live", "polite");

  const sprite = {
    key, root, title, low, bar, high, notes, frame, grid, canvas, pixels, mark, cell, tip, said,
    data: null, arrays: null, layout: null, selected: null, asked: null, under: null,
    pixel: null, // [row, column], marked in every map
    moment: Infinity, // the frame of a film that is wanted; beyond its end: the last
  };
  sprite.turn = (moment) => {
    sprite.moment = moment;
    if (sprite.told) update(sprite, sprite.told);
  };
  sprite.observer = new ResizeObserver(() => sprite.arrays && draw(sprite));
  sprite.observer.observe(root);
  grid.addEventListener("pointerdown", (event) => hover(sprite, event));
  grid.addEventListener("pointermove", (event) => hover(sprite, event));
  // A finger leaves at once: its tip stays until it touches something else.
  grid.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") leave(sprite);
  });
  sprite.listening = new AbortController();
  document.addEventListener(
    "pointerdown",
    (event) => grid.contains(event.target) || leave(sprite),
    { signal: sprite.listening.signal },
  );
  // What the tip named is what is chosen: a click's own position is rounded to whole pixels, which
  // can be the next cell.
  grid.addEventListener("click", () => {
    if (sprite.under && !isPythons(sprite)) select(sprite, sprite.under, 0);
  });
  grid.addEventListener("keydown", (event) => pressed(sprite, event));
  grid.addEventListener("blur", () => {
    if (!isPythons(sprite)) return;
    sprite.selected = sprite.data.selected;
    outline(sprite);
  });
  sprites.set(key, sprite);
  return sprite;
}

function dispose(sprite) {
  sprite.observer.disconnect();
  sprite.root.ninMoves?.disconnect();
  sprite.listening.abort();
  clearTimeout(sprite.timer);
  if (sprites.get(sprite.key) === sprite) sprites.delete(sprite.key);
}

async function update(sprite, told) {
  sprite.told = told;
  const data = momentOf(told, sprite.moment);
  sprite.newest = data;
  const arrays =
    sprite.data?.parcel === data.parcel ? sprite.arrays : await parcel(data.parcel);
  if (sprite.newest !== data) return; // overtaken while waiting
  sprite.data = data;
  sprite.arrays = arrays;
  // Python's wish counts when it changes; until then the user's own choice stands.
  if (data.selected !== sprite.asked) {
    // What Python outlined, it can let go of.
    if (data.selected !== null || sprite.selected === sprite.asked) sprite.selected = data.selected;
    sprite.asked = data.selected;
  }
  if (sprite.selected >= data.shape[0]) sprite.selected = null;
  // The same for the marked pixel, but that Python can take it away.
  if (String(data.pixel) !== sprite.askedPixel) {
    sprite.askedPixel = String(data.pixel);
    sprite.pixel = data.pixel;
  }
  // What paints the canvas: a mark that moves does not.
  sprite.painting = JSON.stringify({ ...data, selected: null, pixel: null });
  draw(sprite);
}

/** A film's picture at one moment; any other picture as it is. */
function momentOf(told, moment) {
  if (!told.frames) return told;
  const frame = told.frames[Math.max(0, Math.min(moment, told.frames.length - 1))];
  return { ...told, ...frame, frames: null };
}

// --- drawing ----------------------------------------------------------------------------------

function draw(sprite) {
  const available = sprite.root.clientWidth;
  if (!available) return; // not laid out, as in a hidden tab; the ResizeObserver calls again
  const theme = themeOf(sprite.root);
  const look = ["text-color", "background-color", "chart-sequential-colors"].map(theme.read).join();
  const ratio = window.devicePixelRatio || 1;
  const { data, arrays, painting } = sprite;
  const same = sprite.drawn;
  if (same?.arrays !== arrays || same.painting !== painting || same.available !== available
      || same.look !== look || same.ratio !== ratio) {
    sprite.layout = arrange(data, available, ratio);
    paint(sprite, theme);
    describe(sprite);
    leave(sprite);
    sprite.drawn = { arrays, painting, available, look, ratio };
  }
  outline(sprite);
  markPixel(sprite, theme);
}

/** Where every map goes. Lengths are in device pixels, so that every cell is a whole number. */
function arrange(data, available, ratio) {
  const [channels, height, width] = data.shape;
  const overImage = data.image !== null;
  const gap = Math.round((overImage ? 10 : 5) * ratio);
  const top = Math.round((overImage ? 18 : 13) * ratio);
  const bottom = overImage && data.captions ? Math.round(17 * ratio) : 0;
  const room = Math.floor(available * ratio);

  const gridFor = (cell) => {
    const tileWidth = cell * width;
    const tileHeight = cell * height;
    const most = Math.max(1, Math.floor((room + gap) / (tileWidth + gap)));
    const rows = Math.ceil(channels / most);
    const columns = Math.ceil(channels / rows); // rows of equal length: ten as 5 + 5, not 6 + 4
    return {
      cell, columns, rows, tileWidth, tileHeight, gap, top, bottom, ratio,
      width: columns * (tileWidth + gap) - gap,
      height: rows * (top + tileHeight + bottom + gap) - gap,
    };
  };
  const cellFor = (pixels) => (pixels * ratio) / Math.max(width, overImage ? height : 1);

  const smallest = overImage ? Math.min(112, (available - 10) / 2) : SMALLEST_TILE;
  let cell = Math.max(1, Math.round(ratio), Math.ceil(cellFor(smallest) - 0.001));
  if (overImage) cell = Math.max(1, Math.floor(cellFor(smallest)));
  while (cell > 1 && cell * width > room) cell--;
  // Few maps: make them larger while they still fit into the height that is wanted.
  const largest = Math.floor(cellFor(overImage ? 176 : data.tile));
  for (let larger = cell + 1; larger <= largest; larger++) {
    const grid = gridFor(larger);
    if (grid.width > room || grid.height > data.height * ratio) break;
    cell = larger;
  }
  let layout = gridFor(cell);
  // Hundreds of maps on a narrow screen: smaller ones rather than a page without end.
  while (!overImage && cell > Math.max(1, Math.ceil(cellFor(TINY_TILE)))
      && layout.height > TOO_TALL * ratio) layout = gridFor(--cell);
  const tooLarge = (it) =>
    it.height > LARGEST_SIDE || it.width > LARGEST_SIDE || it.width * it.height > LARGEST_AREA;
  while (cell > 1 && tooLarge(layout)) layout = gridFor(--cell);
  return layout;
}

/** Top left corner of a map. */
function corner({ columns, tileWidth, tileHeight, gap, top, bottom }, channel) {
  return [
    (channel % columns) * (tileWidth + gap),
    Math.floor(channel / columns) * (top + tileHeight + bottom + gap) + top,
  ];
}

function paint(sprite, theme) {
  const { data, arrays, canvas, grid, layout } = sprite;
  const [channels, height, width] = data.shape;
  const { ratio, tileWidth, tileHeight, bottom } = layout;
  canvas.width = layout.width;
  canvas.height = layout.height;
  canvas.style.width = `${layout.width / ratio}px`;
  canvas.style.height = `${layout.height / ratio}px`;
  grid.style.width = canvas.style.width;
  grid.style.height = canvas.style.height;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;

  const scale = colours(sprite, theme);
  const { across, picture } = atlas(sprite, scale);
  const photo = data.image && photograph(arrays.image, data.image);
  const dead = new Set(data.dead);
  const text = theme.read("text-color");
  const muted = theme.read("gray-text-color");
  const line = theme.read("border-color");
  const font = theme.read("font");

  for (let channel = 0; channel < channels; channel++) {
    const [x, y] = corner(layout, channel);
    if (photo) {
      // A photograph is smoothed when it has more pixels than the tile; a tiny image never is.
      context.imageSmoothingEnabled = photo.width > tileWidth;
      context.drawImage(photo, x, y, tileWidth, tileHeight);
      context.imageSmoothingEnabled = false;
    }
    context.drawImage(
      picture,
      (channel % across) * width, Math.floor(channel / across) * height, width, height,
      x, y, tileWidth, tileHeight,
    );
    context.lineWidth = Math.max(1, Math.round(ratio));
    context.strokeStyle = line;
    const half = context.lineWidth / 2;
    if (dead.has(channel) && !photo) {
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + tileWidth, y + tileHeight);
      context.moveTo(x + tileWidth, y);
      context.lineTo(x, y + tileHeight);
      context.strokeStyle = muted;
      context.stroke();
    }
    context.strokeRect(x + half, y + half, tileWidth - 2 * half, tileHeight - 2 * half);

    context.textBaseline = "alphabetic";
    context.fillStyle = photo ? text : muted;
    context.font = `${photo ? 600 : 400} ${(photo ? 12 : 10) * ratio}px ${font}`;
    const label = data.labels?.[channel] ?? String(channel);
    context.fillText(shortened(context, label, tileWidth), x, y - (photo ? 5 : 3) * ratio);
    if (bottom) {
      context.fillStyle = muted;
      context.font = `400 ${12 * ratio}px ${font}`;
      const note = data.captions[channel] + (dead.has(channel) ? " · map all zero" : "");
      context.fillText(shortened(context, note, tileWidth), x, y + tileHeight + 13 * ratio);
    }
  }
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let kept = text;
  while (kept && context.measureText(`${kept}…`).width > width) kept = kept.slice(0, -1);
  return kept ? `${kept}…` : "";
}

/** The colour scale: RGBA words for -1 … 1 (signed) or 0 … 1, and the same as CSS colours. */
function colours({ data, arrays }, theme) {
  let [low, high] = data.scale ?? [0, 0];
  let smallest = Infinity;
  for (const value of arrays.values) {
    if (value === NOT_A_NUMBER) continue;
    if (value < low) low = value;
    if (value > high) high = value;
    if (value < smallest) smallest = value;
  }
  const dark = luminance(rgb(theme.read("background-color"))) < 0.5;
  const reach = Math.max(high, -low) || 1;
  const overImage = data.image !== null;

  let stops;
  if (overImage) {
    // Over a picture, the amount of colour says how much; these two show on black and on white.
    const [warm, cold] = ["255,106,19", "38,139,255"];
    stops = data.signed
      ? [`rgba(${cold},0.7)`, `rgba(${cold},0)`, `rgba(${warm},0)`, `rgba(${warm},0.7)`]
      : [`rgba(${warm},0)`, `rgba(${warm},0.7)`];
  } else {
    const zero = theme.read("secondary-background-color");
    const up = theme.list("chart-sequential-colors");
    const down = dark
      ? ["#6b2a1f", "#a8452f", "#dd6b47", "#f49a73", "#ffd0b5"]
      : ["#ffd9c2", "#f6a981", "#e07345", "#b34722", "#742a12"];
    stops = data.signed ? [...[...down].reverse(), zero, ...up] : [zero, ...up];
  }
  const words = new Uint32Array(STEPS);
  const css = [];
  for (let step = 0; step < STEPS; step++) {
    const at = data.signed ? (step / (STEPS - 1)) * 2 - 1 : step / (STEPS - 1);
    const [r, g, b, a] = blend(stops, at, data.signed);
    words[step] = ((Math.round(a * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;
    css.push(`rgba(${r},${g},${b},${a})`);
  }
  const stepOf = data.signed
    ? (value) => Math.round(((value / reach + 1) / 2) * (STEPS - 1))
    : (value) => Math.round((value / reach) * (STEPS - 1));
  return { words, css, stepOf, low, high, smallest, reach };
}

/** The colour at -1 … 1 (or 0 … 1) between stops that are evenly spaced on each side of zero. */
function blend(stops, at, signed) {
  const parts = (blend.parsed ??= new Map());
  const parse = (color) => {
    if (!parts.has(color)) {
      const alpha = /^rgba\((\d+),(\d+),(\d+),([\d.]+)\)$/.exec(color);
      parts.set(color, alpha ? alpha.slice(1).map(Number) : [...rgb(color), 1]);
    }
    return parts.get(color);
  };
  let position;
  if (!signed) {
    position = at * (stops.length - 1);
  } else if (stops.length === 4) {
    position = at < 0 ? at + 1 : 2 + at; // over an image: two scales side by side
  } else {
    const middle = 5; // five colours below zero
    position = at < 0 ? (at + 1) * middle : middle + at * (stops.length - 1 - middle);
  }
  const left = Math.min(Math.floor(position), stops.length - 2);
  const [from, to] = [parse(stops[left]), parse(stops[left + 1])];
  const share = position - left;
  const mixed = from.map((value, i) => value + (to[i] - value) * share);
  return [Math.round(mixed[0]), Math.round(mixed[1]), Math.round(mixed[2]), mixed[3]];
}

function luminance([r, g, b]) {
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}

/** All maps at one pixel a cell, side by side on one small canvas, from which tiles are scaled. */
function atlas(sprite, scale) {
  const { data, arrays } = sprite;
  const [channels, height, width] = data.shape;
  const across = Math.ceil(Math.sqrt((channels * height) / width)) || 1;
  const picture = document.createElement("canvas");
  picture.width = across * width;
  picture.height = Math.ceil(channels / across) * height;
  const pixels = new ImageData(picture.width, picture.height);
  const words = new Uint32Array(pixels.data.buffer);
  const invalid = 0xffc800c8; // a purple that no scale has
  let read = 0;
  for (let channel = 0; channel < channels; channel++) {
    const left = (channel % across) * width;
    const top = Math.floor(channel / across) * height;
    const stretch = data.ownScales ? scale.reach / reachOf(arrays.values, read, height * width) : 1;
    for (let row = 0; row < height; row++) {
      let write = (top + row) * picture.width + left;
      for (let column = 0; column < width; column++) {
        const value = arrays.values[read++];
        words[write++] = value === NOT_A_NUMBER ? invalid : scale.words[scale.stepOf(value * stretch)];
      }
    }
  }
  picture.getContext("2d").putImageData(pixels, 0, 0);
  sprite.scale = scale;
  return { across, picture };
}

/** The largest magnitude of one map, whose `count` values begin at `start`; 1 if all are zero. */
function reachOf(values, start, count) {
  let reach = 0;
  for (let i = start; i < start + count; i++) {
    if (values[i] !== NOT_A_NUMBER) reach = Math.max(reach, Math.abs(values[i]));
  }
  return reach || 1;
}

function photograph(bytes, [height, width, depth = 1]) {
  const photo = document.createElement("canvas");
  photo.width = width;
  photo.height = height;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = bytes[i * depth + (depth === 3 ? c : 0)];
    pixels.data[4 * i + 3] = 255;
  }
  photo.getContext("2d").putImageData(pixels, 0, 0);
  return photo;
}

/** The line above the grid: title, colour bar, dead channels. */
function describe(sprite) {
  const { data, scale } = sprite;
  const [channels] = data.shape;
  sprite.title.textContent = data.title;
  sprite.title.hidden = !data.title;
  sprite.bar.replaceChildren();
  if (scale.smallest === Infinity) {
    sprite.low.textContent = "no value is a number";
    sprite.bar.hidden = true;
    sprite.high.textContent = "";
  } else {
    const { signed, ownScales } = data;
    const from = !signed ? 0 : ownScales ? -scale.reach : scale.low;
    const until = signed && ownScales ? scale.reach : Math.max(scale.high, signed ? 0 : 1);
    const colors = [];
    for (let i = 0; i <= 32; i++) {
      colors.push(scale.css[scale.stepOf(from + ((until - from) * i) / 32)]);
    }
    sprite.bar.hidden = false;
    sprite.bar.style.background =
      `linear-gradient(to right, ${colors.join()})` + (data.image ? ", #808080" : "");
    sprite.low.textContent = data.signed ? printed(sprite, scale.low) : "0";
    sprite.high.textContent = printed(sprite, scale.high);
    if (ownScales) {
      sprite.low.textContent = signed ? "−largest" : "0";
      sprite.high.textContent = "largest of each map";
    } else if (!data.signed && scale.smallest > 0) {
      sprite.low.textContent = `0 (smallest ${printed(sprite, scale.smallest)})`;
    }
    if (data.signed) {
      const zero = element(sprite.bar, "span", "zero");
      zero.style.left = `${(100 * (0 - from)) / (until - from)}%`;
    }
  }
  const notes = [];
  const count = data.dead.length;
  if (count && !data.image) {
    notes.push(`${count} of ${channels} channels ${count === 1 ? "is" : "are"} dead (all zero, crossed out)`);
  }
  if (data.broken) {
    notes.push(`${data.broken} of ${channels} maps hold values that are not numbers (purple)`);
  }
  sprite.notes.textContent = notes.join(" · ");
  sprite.grid.setAttribute(
    "aria-label",
    `${data.title || (data.image ? "Class maps" : "Feature maps")}: ${channels} maps. ` +
      `Arrow keys select one${data.pixel ? "; with Shift they move the marked pixel" : ""}.`,
  );
}

// --- hovering and selecting -------------------------------------------------------------------

function printed({ data }, value) {
  return quantised(value, data.decimals);
}

function valueAt({ data, arrays }, { channel, row, column }) {
  const [, height, width] = data.shape;
  return arrays.values[(channel * height + row) * width + column];
}

/** The partner, if it has a cell where this picture has one; it is in the page only while drawn. */
function partnerOf({ data }, { channel }) {
  const partner = data.partner && sprites.get(data.partner.key);
  if (!partner?.layout || !partner.root.isConnected) return null;
  const [channels, ...size] = partner.data.shape;
  return channel < channels && String(size) === String(data.shape.slice(1)) ? partner : null;
}

function told(sprite, spot) {
  const { data } = sprite;
  const [, height, width] = data.shape;
  const label = data.labels?.[spot.channel] ?? spot.channel;
  const name = data.image ? label : `channel ${label}`;
  const place = height * width > 1 ? ` · row ${spot.row}, column ${spot.column}` : "";
  const note = data.dead.includes(spot.channel) ? " · all zero" : "";
  const value = printed(sprite, valueAt(sprite, spot));
  const partner = partnerOf(sprite, spot);
  if (!partner) return `${name}${place} · ${value}${note}`;
  const { here, there } = data.partner;
  return `${name}${place} · ${here} ${value} · ${there} ${printed(partner, valueAt(partner, spot))}`;
}

/** The cell under a pointer, or null between the maps. */
function spotAt(sprite, event) {
  const { layout, data, canvas } = sprite;
  if (!layout) return null;
  const box = canvas.getBoundingClientRect();
  // through the canvas's own box, so that a page zoom or a transform cannot shift it
  const x = ((event.clientX - box.left) * layout.width) / box.width;
  const y = ((event.clientY - box.top) * layout.height) / box.height;
  const { tileWidth, tileHeight, gap, top, bottom, columns, cell } = layout;
  const across = Math.floor(x / (tileWidth + gap));
  const down = Math.floor(y / (top + tileHeight + bottom + gap));
  const channel = down * columns + across;
  if (x < 0 || y < 0 || across >= columns || channel >= data.shape[0]) return null;
  const [left, upper] = corner(layout, channel);
  const [column, row] = [Math.floor((x - left) / cell), Math.floor((y - upper) / cell)];
  if (row < 0 || column < 0 || row >= data.shape[1] || column >= data.shape[2]) return null;
  return { channel, row, column };
}

function hover(sprite, event) {
  const spot = spotAt(sprite, event);
  if (!spot) return leave(sprite);
  sprite.under = spot;
  const { tip, root, grid } = sprite;
  grid.style.cursor = sprite.send ? "pointer" : "default";
  tip.textContent = told(sprite, spot);
  tip.style.display = "block";
  const box = root.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  // above the pointer and inside the picture: a tip must not widen the page
  const above = y - tip.offsetHeight - 10;
  tip.style.left = `${Math.max(0, Math.min(x + 10, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${above < 0 ? y + 18 : above}px`;

  frameCell(sprite, spot);
  const partner = partnerOf(sprite, spot);
  if (partner) frameCell(partner, spot);
}

function frameCell({ cell, layout }, spot) {
  const [left, top] = corner(layout, spot.channel);
  place(cell, layout, left + spot.column * layout.cell, top + spot.row * layout.cell,
    layout.cell, layout.cell, 1);
}

function leave(sprite) {
  const { tip, cell, grid, data } = sprite;
  const partner = data?.partner && sprites.get(data.partner.key);
  if (partner) partner.cell.style.display = "none";
  sprite.under = null;
  tip.style.display = "none";
  cell.style.display = "none";
  grid.style.cursor = "default";
}

function place(node, { ratio }, left, top, width, height, margin) {
  Object.assign(node.style, {
    display: "block",
    left: `${left / ratio - margin}px`,
    top: `${top / ratio - margin}px`,
    width: `${width / ratio + 2 * margin}px`,
    height: `${height / ratio + 2 * margin}px`,
  });
}

function outline({ mark, layout, selected }) {
  if (selected === null) {
    mark.style.display = "none";
  } else {
    const [left, top] = corner(layout, selected);
    place(mark, layout, left, top, layout.tileWidth, layout.tileHeight, 2);
  }
}

/** A ring around the marked pixel in every map. */
function markPixel({ pixels, pixel, layout, data }, theme) {
  pixels.style.display = pixel ? "block" : "none";
  if (!pixel) return;
  pixels.width = layout.width; // which also empties it
  pixels.height = layout.height;
  pixels.style.width = `${layout.width / layout.ratio}px`;
  pixels.style.height = `${layout.height / layout.ratio}px`;
  const context = pixels.getContext("2d");
  const line = Math.max(1, Math.round(layout.ratio));
  const side = Math.max(layout.cell, 3 * line);
  const [row, column] = pixel;
  for (let channel = 0; channel < data.shape[0]; channel++) {
    const [left, top] = corner(layout, channel);
    const x = left + column * layout.cell + (layout.cell - side) / 2;
    const y = top + row * layout.cell + (layout.cell - side) / 2;
    for (const [color, out] of [["background-color", 1.5], ["text-color", 0.5]]) {
      const away = out * line;
      context.lineWidth = line;
      context.strokeStyle = theme.read(color);
      context.strokeRect(x - away, y - away, side + 2 * away, side + 2 * away);
    }
  }
}

/** Whether the outline is a statement of the page's, which only the arrow keys leave for a while. */
function isPythons({ data }) {
  return !data.clicks && data.selected !== null;
}

/** Select a spot's channel; tell Python after `pause` milliseconds without another. */
function select(sprite, spot, pause) {
  sprite.selected = spot.channel;
  outline(sprite);
  if (sprite.data.pixel) {
    sprite.pixel = [spot.row, spot.column];
    markPixel(sprite, themeOf(sprite.root));
  }
  clearTimeout(sprite.timer);
  sprite.timer = setTimeout(() => sprite.send?.(spot), pause);
}

function pressed(sprite, event) {
  const { data, layout, selected } = sprite;
  if (!layout) return;
  if (event.shiftKey && sprite.pixel && event.key.startsWith("Arrow")) return moved(sprite, event);
  const steps = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layout.columns, ArrowDown: layout.columns,
  };
  const last = data.shape[0] - 1;
  let channel;
  if (event.key in steps) channel = selected === null ? 0 : selected + steps[event.key];
  else if (event.key === "Home") channel = 0;
  else if (event.key === "End") channel = last;
  else if (event.key === "Enter" || event.key === " ") channel = selected ?? 0;
  else return;
  event.preventDefault();
  if (channel < 0 || channel > last) return;
  const spot = sprite.pixel
    ? { channel, row: sprite.pixel[0], column: sprite.pixel[1] }
    : strongest(sprite, channel);
  sprite.said.textContent = told(sprite, spot) + (sprite.pixel ? "" : ", its strongest");
  // Held arrow keys pass many channels: Python hears of the one they stop at.
  select(sprite, spot, event.key in steps ? 250 : 0);
  sprite.mark.scrollIntoView({ block: "nearest" });
}

/** Move the marked pixel by one, in the direction of an arrow key. */
function moved(sprite, event) {
  const [, height, width] = sprite.data.shape;
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const [down, right] = steps[event.key];
  const [row, column] = [sprite.pixel[0] + down, sprite.pixel[1] + right];
  event.preventDefault();
  if (row < 0 || column < 0 || row >= height || column >= width) return;
  const spot = { channel: sprite.selected ?? 0, row, column };
  sprite.said.textContent = told(sprite, spot);
  select(sprite, spot, 150); // a held key passes many pixels
}

function strongest({ data, arrays }, channel) {
  const [, height, width] = data.shape;
  let best = 0;
  for (let i = 1; i < height * width; i++) {
    const offset = channel * height * width;
    if (Math.abs(arrays.values[offset + i]) > Math.abs(arrays.values[offset + best])) best = i;
  }
  return { channel, row: Math.floor(best / width), column: best % width };
}
