// Shows an SVG drawing. Python's half is diagram.py, which has checked the markup.

const SCALE = 2; // pixels of the PNG a unit of the drawing
const MARGIN = 16; // units around the drawing in a file

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const root = parentElement.querySelector(".nin-svg") ?? newRoot(parentElement);
  root.ninClick = data.clicks ? (id) => setTriggerValue("click", id) : null;
  root.ninData = data;
  fit(root);
  root.querySelector(".nin-svg-save").hidden = !data.download;
}

function newRoot(parent) {
  const root = document.createElement("div");
  root.className = "nin-svg";
  root.innerHTML =
    '<div class="nin-svg-frame"></div>' +
    '<div class="nin-svg-save" hidden><span>Download the drawing</span>' +
    '<button type="button" data-kind="svg">SVG</button>' +
    '<button type="button" data-kind="png">PNG</button></div><div class="nin-svg-tip"></div>';
  parent.append(root);
  root.addEventListener("pointermove", (event) => explain(root, event.target, event));
  root.addEventListener("pointerleave", () => explain(root, null));
  root.addEventListener("focusin", (event) => explain(root, event.target));
  root.addEventListener("focusout", () => explain(root, null));
  root.addEventListener("click", (event) => {
    const kind = event.target.dataset.kind;
    if (kind) save(root, kind);
    else click(root, event.target);
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    if (click(root, event.target)) event.preventDefault();
  });
  // It tells the width after a layout; asking the node would force one in every update.
  new ResizeObserver(([{ contentRect }]) => {
    root.ninWidth = contentRect.width;
    fit(root);
  }).observe(root);
  return root;
}

/** Show the widest drawing that fits, if it is not shown already, and mark the selected part. */
function fit(root) {
  const { drawings, clicks, selected } = root.ninData;
  const width = root.ninWidth;
  if (!width) return; // not laid out yet, or in a hidden tab: the observer calls again
  const [, markup] = drawings.findLast(([least]) => least <= width) ?? drawings[0];
  if (root.ninMarkup !== markup || root.ninClicks !== clicks) show(root, markup);
  for (const node of root.querySelectorAll("[data-id]")) {
    const chosen = node.dataset.id === selected;
    node.classList.toggle("selected", chosen);
    if (clicks) node.setAttribute("aria-pressed", chosen);
  }
}

function parsed(markup) {
  return new DOMParser().parseFromString(markup, "image/svg+xml").documentElement;
}

function show(root, markup) {
  const data = root.ninData;
  root.ninMarkup = markup;
  root.ninClicks = data.clicks;
  const drawing = parsed(markup);
  const { width } = drawing.viewBox.baseVal;
  drawing.removeAttribute("width");
  drawing.removeAttribute("height");
  drawing.style.maxWidth = `${width}px`;
  drawing.style.minWidth = `${Math.min(data.minWidth, width)}px`;
  // Who can press its parts must reach them: the parts of an "img" are hidden from screen readers.
  if (data.clicks) drawing.setAttribute("role", "group");
  else if (!drawing.hasAttribute("role")) drawing.setAttribute("role", "img");

  // A <title> becomes our own tip: the browser's comes late and cannot be reached by keyboard.
  for (const title of [...drawing.querySelectorAll("title")]) {
    const owner = title.parentElement;
    const text = title.textContent.trim();
    owner.setAttribute("aria-label", text);
    if (owner !== drawing) owner.dataset.tip = text;
    title.remove();
  }
  if (data.clicks) {
    for (const node of drawing.querySelectorAll("[data-id]")) {
      node.setAttribute("tabindex", "0");
      node.setAttribute("role", "button");
    }
  }
  const focused = root.querySelector(":focus")?.dataset.id;
  root.querySelector(".nin-svg-frame").replaceChildren(drawing);
  if (focused) root.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  explain(root, null);
}

function click(root, target) {
  const node = target.closest("[data-id]");
  if (!node || !root.ninClick) return false;
  root.ninClick(node.dataset.id);
  return true;
}

/** Show the tip of the element, at the pointer or, for the keyboard, above the element. */
function explain(root, target, pointer) {
  const tip = root.querySelector(".nin-svg-tip");
  const node = target?.closest?.("[data-tip]");
  if (!node) {
    tip.style.display = "none";
    return;
  }
  tip.textContent = node.dataset.tip;
  tip.style.display = "block";
  const box = root.getBoundingClientRect();
  const at = node.getBoundingClientRect();
  const x = (pointer ? pointer.clientX : at.left) - box.left;
  const y = (pointer ? pointer.clientY : at.top) - box.top;
  const above = y - tip.offsetHeight - 10;
  tip.style.left = `${Math.max(0, Math.min(x + 10, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${above < -20 ? y + 20 : above}px`;
}

/** The widest drawing as a file of its own: {text, width, height}. */
function file(root) {
  const theme = getComputedStyle(root);
  const markup = root.ninData.drawings.at(-1)[1];
  const plain = markup.replace(/var\((--[\w-]+)(?:,([^()]*))?\)/g, (_, name, fallback) =>
    escaped(theme.getPropertyValue(name).trim() || fallback || "inherit"),
  );
  const drawing = parsed(plain);
  const box = drawing.viewBox.baseVal;
  const place = {
    x: box.x - MARGIN,
    y: box.y - MARGIN,
    width: box.width + 2 * MARGIN,
    height: box.height + 2 * MARGIN,
  };
  drawing.setAttribute("viewBox", Object.values(place).join(" "));
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries(place)) {
    ground.setAttribute(name, value);
    if (name === "width" || name === "height") drawing.setAttribute(name, value);
  }
  ground.setAttribute("fill", theme.getPropertyValue("--st-background-color").trim() || "#ffffff");
  drawing.prepend(ground);
  const text = new XMLSerializer().serializeToString(drawing);
  return { text, width: place.width, height: place.height };
}

/** A variable's value as text of an XML element or attribute. */
function escaped(value) {
  return value.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "'");
}

async function save(root, kind) {
  const { text, width, height } = file(root);
  const vector = new Blob([text], { type: "image/svg+xml" });
  const name = `${root.ninData.download}.${kind}`;
  if (kind === "svg") {
    hand(vector, name);
    return;
  }
  const picture = new Image();
  picture.src = URL.createObjectURL(vector);
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = width * SCALE;
  canvas.height = height * SCALE;
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(picture.src);
  canvas.toBlob((raster) => hand(raster, name), "image/png");
}

/** Give `blob` to the browser's downloads. */
function hand(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
