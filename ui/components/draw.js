// A small canvas to draw on. Python's half is draw.py.

const WIDTHS = { thin: 0.05, medium: 0.1, thick: 0.2 }; // of the canvas's side

// key -> drawing: strokes and pen outlive the canvas, which goes when another tab is chosen
const drawings = (window.ninDrawings ??= new Map());

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  let root = parentElement.querySelector(".nin-draw");
  const look = JSON.stringify([data.pixels, data.colors, data.paper]);
  const drawing = drawings.get(data.key)?.look === look
    ? drawings.get(data.key)
    : { look, strokes: [], color: data.colors[0], width: "medium", pen: null, down: false };
  drawings.set(data.key, drawing);
  drawing.data = data;
  drawing.send = (picture) => setTriggerValue("click", picture);
  if (root && root.ninDrawing !== drawing) {
    root.remove();
    root = null;
  }
  if (!root) {
    root = newRoot(parentElement, drawing);
    // A server that has started anew, or another pen box, has not heard of these strokes.
    if (drawing.strokes.length > 0 !== data.known) drawing.report();
  }
}

function newRoot(parent, drawing) {
  const { data } = drawing;
  const root = document.createElement("div");
  root.className = "nin-draw";
  root.ninDrawing = drawing;
  root.innerHTML = `
    <div class="nin-draw-paper">
      <canvas tabindex="0" role="application"></canvas><div class="nin-draw-pen" hidden></div>
    </div>
    <div class="nin-draw-tools">
      <div role="group" aria-label="Pen" class="nin-draw-widths"></div>
      <div role="group" aria-label="Colour" class="nin-draw-colors"></div>
      <div class="nin-draw-actions">
        <button type="button" name="undo">Undo</button>
        <button type="button" name="clear">Clear</button>
      </div>
    </div>
    <div class="nin-draw-said" aria-live="polite"></div>`;
  parent.append(root);
  const canvas = root.querySelector("canvas");
  canvas.width = canvas.height = data.pixels;
  canvas.setAttribute(
    "aria-label",
    "Canvas to draw on. The arrow keys move the pen, Space sets it down and lifts it, " +
      "Control and Z take a stroke back.",
  );
  const paint = () => repaint(canvas, drawing);
  const pens = root.querySelector(".nin-draw-widths");
  for (const name of Object.keys(WIDTHS)) {
    const button = tool(pens, name, () => { drawing.width = name; });
    const dot = document.createElement("i");
    dot.style.width = dot.style.height = `${6 + 60 * WIDTHS[name]}px`;
    button.replaceChildren(dot);
  }
  const colors = root.querySelector(".nin-draw-colors");
  for (const color of [...data.colors, data.paper]) {
    const eraser = color === data.paper;
    const button = tool(colors, eraser ? "eraser" : color, () => { drawing.color = color; });
    button.style.background = color;
    button.ninColor = color;
    if (eraser) button.classList.add("nin-draw-eraser");
  }

  function tool(group, label, choose) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => { choose(); pressed(); });
    group.append(button);
    return button;
  }

  function pressed() {
    for (const button of pens.children) {
      button.setAttribute("aria-pressed", button.title === drawing.width);
    }
    for (const button of colors.children) {
      button.setAttribute("aria-pressed", button.ninColor === drawing.color);
    }
  }

  drawing.report = () => {
    drawing.send(drawing.strokes.length ? canvas.toDataURL("image/png") : "");
  };
  const said = root.querySelector(".nin-draw-said");
  const undo = () => {
    if (!drawing.strokes.length) return;
    drawing.strokes.pop();
    lift();
    paint();
    drawing.report();
  };
  root.querySelector("[name=undo]").addEventListener("click", undo);
  root.querySelector("[name=clear]").addEventListener("click", () => {
    if (!drawing.strokes.length) return;
    drawing.strokes.length = 0;
    lift();
    paint();
    drawing.report();
  });

  // --- mouse and finger ---
  let stroke = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * data.pixels,
      ((event.clientY - box.top) / box.height) * data.pixels,
    ];
  };
  const begun = (points) => {
    const begins = { color: drawing.color, width: WIDTHS[drawing.width] * data.pixels, points };
    drawing.strokes.push(begins);
    return begins;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || stroke) return; // a second finger draws nothing
    canvas.setPointerCapture(event.pointerId);
    lift();
    stroke = begun([at(event)]);
    stroke.pointer = event.pointerId;
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (stroke?.pointer !== event.pointerId) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) stroke.points.push(at(one));
    paint();
  });
  const ended = (event) => {
    if (stroke?.pointer !== event.pointerId) return;
    stroke = null;
    drawing.report();
  };
  canvas.addEventListener("pointerup", ended);
  canvas.addEventListener("pointercancel", ended);

  // --- keyboard ---
  const pen = root.querySelector(".nin-draw-pen");
  const middle = [data.pixels / 2, data.pixels / 2];
  function showPen() {
    const [x, y] = (drawing.pen ??= [...middle]);
    pen.hidden = !canvas.matches(":focus-visible"); // who draws with the mouse needs no second pen
    pen.style.left = `${(100 * x) / data.pixels}%`;
    pen.style.top = `${(100 * y) / data.pixels}%`;
    pen.classList.toggle("nin-draw-down", drawing.down);
  }
  function lift() {
    drawing.down = false;
    showPen();
  }
  canvas.addEventListener("focus", showPen);
  canvas.addEventListener("blur", () => {
    if (drawing.down) drawing.report();
    drawing.down = false;
    pen.hidden = true;
  });
  canvas.addEventListener("keydown", (event) => {
    const step = data.pixels / data.side;
    const moves = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
    };
    const control = event.ctrlKey || event.metaKey;
    if (control && event.key.toLowerCase() === "z") undo();
    else if (control || event.altKey) return;
    else if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      const within = (value) => Math.max(0, Math.min(value, data.pixels));
      const [x, y] = drawing.pen ?? middle;
      drawing.pen = [within(x + dx), within(y + dy)];
      if (drawing.down) drawing.strokes.at(-1)?.points.push([...drawing.pen]);
      paint();
    } else if (event.key === " " || event.key === "Enter") {
      if (event.repeat) return event.preventDefault();
      drawing.down = !drawing.down;
      if (drawing.down) begun([[...(drawing.pen ??= [...middle])]]);
      else drawing.report();
      paint();
      said.textContent = drawing.down ? "Pen down" : "Pen up";
    } else if (event.key === "Escape" && drawing.down) {
      drawing.down = false;
      drawing.report();
      said.textContent = "Pen up";
    } else return;
    event.preventDefault();
    event.stopPropagation(); // the page's own shortcuts
    showPen();
  });

  pressed();
  paint();
  return root;
}

function repaint(canvas, { strokes, data }) {
  const context = canvas.getContext("2d");
  context.fillStyle = data.paper;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.lineCap = context.lineJoin = "round";
  for (const { color, width, points } of strokes) {
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = width;
    context.beginPath();
    if (points.length === 1) {
      context.arc(...points[0], width / 2, 0, 2 * Math.PI);
      context.fill();
      continue;
    }
    context.moveTo(...points[0]);
    for (const point of points.slice(1)) context.lineTo(...point);
    context.stroke();
  }
}
