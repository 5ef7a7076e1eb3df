// Shows an SVG drawing. Python's half is diagram.py, which has checked the markup.

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const root = parentElement.querySelector(".nin-svg") ?? newRoot(parentElement);
  root.ninClick = data.clicks ? (id) => setTriggerValue("click", id) : null;
  root.ninData = data;
  if (root.ninMarkup !== data.svg || root.ninClicks !== data.clicks) show(root, data);
  for (const node of root.querySelectorAll("[data-id]")) {
    const chosen = node.dataset.id === data.selected;
    node.classList.toggle("selected", chosen);
    if (data.clicks) node.setAttribute("aria-pressed", chosen);
  }
}

function newRoot(parent) {
  const root = document.createElement("div");
  root.className = "nin-svg";
  root.innerHTML = '<div class="nin-svg-frame"></div><div class="nin-svg-tip"></div>';
  parent.append(root);
  root.addEventListener("pointermove", (event) => explain(root, event.target, event));
  root.addEventListener("pointerleave", () => explain(root, null));
  root.addEventListener("focusin", (event) => explain(root, event.target));
  root.addEventListener("focusout", () => explain(root, null));
  root.addEventListener("click", (event) => click(root, event.target));
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    if (click(root, event.target)) event.preventDefault();
  });
  return root;
}

function show(root, data) {
  root.ninMarkup = data.svg;
  root.ninClicks = data.clicks;
  const drawing = new DOMParser().parseFromString(data.svg, "image/svg+xml").documentElement;
  const { width } = drawing.viewBox.baseVal;
  drawing.removeAttribute("width");
  drawing.removeAttribute("height");
  drawing.style.maxWidth = `${width}px`;
  drawing.style.minWidth = `${Math.min(data.minWidth, width)}px`;
  if (!drawing.hasAttribute("role")) drawing.setAttribute("role", data.clicks ? "group" : "img");

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
