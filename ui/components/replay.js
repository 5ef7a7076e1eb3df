// A slider through the moments of a film, over the curves of the run. Python's half is replay.py.

const PAUSE = 300; // milliseconds a moment while it plays
const PLAY = '<svg viewBox="0 0 16 16"><path d="M3 1.5v13l11-6.5z"/></svg>';
const HALT = '<svg viewBox="0 0 16 16"><path d="M3 2h4v12H3zM9 2h4v12H9z"/></svg>';
const SVG = "http://www.w3.org/2000/svg";

const replays = (window.ninReplays ??= new Map()); // key -> replay; outlives Streamlit's remounts

export default function ({ data, parentElement }) {
  if (!data) return;
  const replay = replays.get(data.key) ?? newReplay(data.key);
  settle(replay.root, parentElement, data.key);
  const before = replay.data;
  replay.data = data;
  const last = data.moments.length - 1;
  let at = last;
  if (before?.subject === data.subject) {
    // Who is at the newest moment goes on to the new one; others stay, by the step, as moments
    // before it may have gone.
    const { step } = before.moments[replay.at];
    const same = data.moments.findLastIndex((moment) => moment.step <= step);
    if (replay.at < before.moments.length - 1) at = Math.max(0, same);
  } else {
    halt(replay);
  }
  replay.slider.max = String(last);
  replay.slider.disabled = replay.play.disabled = last === 0;
  for (const name of ["accuracy", "loss"]) {
    replay[name].style.setProperty("--nin-replay-color", data.colors[name]);
  }
  show(replay, at);
  return () => whenGone(replay.root, () => dispose(replay));
}

function element(parent, tag, name) {
  const node = document.createElement(tag);
  node.className = `nin-replay-${name}`;
  parent.append(node);
  return node;
}

function newReplay(key) {
  const root = document.createElement("div");
  root.className = "nin-replay";
  const row = element(root, "div", "row");
  const play = element(row, "button", "play");
  play.type = "button";
  const slider = element(row, "input", "slider");
  slider.type = "range";
  slider.min = "0";
  slider.step = "1";
  slider.setAttribute("aria-label", "Moment of the training");
  const said = element(root, "div", "said");
  const moment = element(said, "span", "moment");
  const accuracy = element(said, "span", "accuracy");
  const loss = element(said, "span", "loss");
  const curve = document.createElementNS(SVG, "svg");
  curve.setAttribute("class", "nin-replay-curve");
  curve.setAttribute("role", "img");
  curve.setAttribute("aria-label", "Test accuracy and training loss through the training");
  root.append(curve);
  const replay = {
    key, root, play, slider, moment, accuracy, loss, curve, at: 0, timer: null, data: null,
  };
  slider.addEventListener("input", () => {
    halt(replay);
    show(replay, Number(slider.value));
  });
  play.addEventListener("click", () => (replay.timer ? halt(replay) : start(replay)));
  replay.observer = new ResizeObserver(() => replay.data && draw(replay));
  replay.observer.observe(curve);
  halt(replay);
  replays.set(key, replay);
  return replay;
}

function dispose(replay) {
  halt(replay);
  replay.observer.disconnect();
  replay.root.ninMoves?.disconnect();
  if (replays.get(replay.key) === replay) replays.delete(replay.key);
}

function start(replay) {
  const last = () => replay.data.moments.length - 1;
  if (replay.at >= last()) show(replay, 0);
  replay.timer = setInterval(() => {
    show(replay, replay.at + 1);
    if (replay.at >= last()) halt(replay);
  }, PAUSE);
  replay.play.innerHTML = HALT;
  replay.play.setAttribute("aria-label", "Pause");
}

function halt(replay) {
  clearInterval(replay.timer);
  replay.timer = null;
  replay.play.innerHTML = PLAY;
  replay.play.setAttribute("aria-label", "Play");
}

function show(replay, moment) {
  const { data, slider } = replay;
  const last = data.moments.length - 1;
  replay.at = Math.max(0, Math.min(moment, last));
  const now = data.moments[replay.at];
  slider.value = String(replay.at);
  slider.style.setProperty("--nin-replay-at", `${(100 * replay.at) / Math.max(1, last)}%`);
  slider.setAttribute("aria-valuetext", `${now.title}, ${now.accuracy}`);
  replay.moment.textContent = now.title;
  replay.accuracy.textContent = now.accuracy;
  replay.loss.textContent = now.loss;
  turn(replay);
  draw(replay);
}

/** Have the film show this moment, as soon as the film is there. */
function turn(replay) {
  cancelAnimationFrame(replay.waiting);
  const film = window.ninSprites?.get(replay.data.film);
  // The newest stays the newest when moments are added before this is called again.
  const newest = replay.at === replay.data.moments.length - 1;
  if (film) film.turn(newest ? Infinity : replay.at);
  else if (replay.root.isConnected) replay.waiting = requestAnimationFrame(() => turn(replay));
}

/** Test accuracy (left, 0 to 100 %) and training loss (right) over the steps of the run. */
function draw({ curve, data, at }) {
  curve.style.display = data.curves.accuracy.length + data.curves.loss.length ? "" : "none";
  const [width, height] = [curve.clientWidth, curve.clientHeight];
  if (!width || !height) return;
  const { accuracy, loss, steps, end } = data.curves;
  const [left, right, top, bottom] = [42, width - 34, 8, height - 18];
  const x = (step) => left + ((right - left) * step) / Math.max(1, steps);
  const most = Math.max(...loss.map((point) => point[1]), 0) || 1;
  const y = (share) => bottom - (bottom - top) * share;
  const parts = [];
  const add = (tag, attributes, text = "") => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    parts.push(node);
  };
  for (const share of [0, 0.5, 1]) {
    const line = { x1: left, x2: right, y1: y(share), y2: y(share) };
    add("line", { ...line, style: "stroke: var(--st-border-color)" });
    add("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`);
    if (loss.length) add("text", { x: right + 6, y: y(share) + 4 }, (most * share).toFixed(1));
  }
  add("text", { x: left, y: height - 3 }, "step 0");
  add("text", { x: right, y: height - 3, "text-anchor": "end" }, end);
  const path = (points, value) =>
    points.map((point) => `${x(point[0])},${y(value(point[1]))}`).join(" ");
  const stroke = (name) => ({ fill: "none", style: `stroke: ${data.colors[name]}` });
  add("polyline", { points: path(loss, (v) => v / most), "stroke-width": 1.2, ...stroke("loss") });
  add("polyline", { points: path(accuracy, (v) => v), "stroke-width": 2, ...stroke("accuracy") });
  if (accuracy.length === 1) {
    const [[step, share]] = accuracy; // a line through one point shows nothing
    add("circle", { cx: x(step), cy: y(share), r: 3, style: `fill: ${data.colors.accuracy}` });
  }
  const here = x(data.moments[at].step);
  const mark = { x1: here, x2: here, y1: top - 4, y2: bottom, "stroke-width": 2 };
  add("line", { ...mark, class: "nin-replay-here", style: "stroke: var(--st-primary-color)" });
  curve.replaceChildren(...parts);
}
