// A Plotly chart whose node is kept and updated in place. Python's half is plot.py.

const charts = (window.ninPlots ??= new Map()); // key -> chart; outlives Streamlit's remounts

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const chart = charts.get(data.key) ?? newChart(data.key);
  // A remount brings a new parent: move the node there, zoom and all, rather than draw it again.
  settle(chart.node, parentElement, data.key);
  chart.node.style.height = `${data.height}px`;
  chart.send = data.clicks ? (point) => setTriggerValue("click", point) : null;
  // The same data again is a remount or another theme: the chart may show newer ones by now.
  chart.show(chart.given === data ? chart.data : data);
  chart.given = data;
  return () => whenGone(chart.node, () => dispose(chart));
}

const CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  scrollZoom: false,
  responsive: false, // the ResizeObserver does it, in turn with the updates
  plotlyServerURL: "", // nothing leaves for anybody's cloud
  modeBarButtonsToRemove: [
    "sendChartToCloud",
    "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "toggleSpikelines",
    "hoverClosestCartesian", "hoverCompareCartesian",
  ],
};

function newChart(key) {
  const node = document.createElement("div");
  node.className = "nin-plot";
  const chart = { key, node, width: 0, drawn: null, blocks: new Map(), busy: false, again: false };
  chart.show = (data) => {
    chart.data = data;
    chart.overtake?.();
    draw(chart);
  };
  // It tells the width after a layout; asking the node would force one in every update.
  chart.observer = new ResizeObserver((entries) => {
    chart.width = Math.floor(entries.at(-1).contentRect.width);
    draw(chart);
  });
  chart.observer.observe(node);
  charts.set(key, chart);
  return chart;
}

function dispose(chart) {
  chart.observer.disconnect();
  chart.node.ninMoves?.disconnect();
  if (chart.drawn) window.Plotly.purge(chart.node);
  if (charts.get(chart.key) === chart) charts.delete(chart.key);
}

/** Bring the chart up to date: one update at a time, and always with the newest data. */
async function draw(chart) {
  chart.again = true;
  if (chart.busy) return;
  chart.busy = true;
  while (chart.again) {
    chart.again = false;
    try {
      await update(chart);
    } catch (error) {
      console.error(error);
      const unloaded = error instanceof LoadError;
      if (!chart.drawn) note(chart, unloaded ? error.message : "This chart cannot be drawn.");
      if (unloaded) setTimeout(() => chart.node.isConnected && draw(chart), RETRY + 1000);
    }
  }
  chart.busy = false;
}

async function update(chart) {
  const Plotly = await loadPlotly(chart.data.plotly);
  const blocks = await collect(chart);
  const { data, node, width } = chart;
  // Not laid out, as in a hidden tab: the ResizeObserver calls again when it is.
  if (!width || !node.isConnected) return;

  const theme = themeOf(node.parentElement);
  const look = ["text-color", "background-color", "font", "chart-categorical-colors"]
    .map(theme.read).join();
  const drawn = chart.drawn;
  if (drawn && drawn.data === data && drawn.width === width && drawn.look === look) return;

  const figure = themed(data.figure, theme);
  for (const { arrays, traces } of blocks.reverse()) {
    for (const trace of traces) {
      for (const axis of ["x", "y"]) {
        const head = arrays[`${trace}.${axis}`];
        if (head) figure.data[trace][axis] = join(head, figure.data[trace][axis]);
      }
    }
  }
  const layout = {
    // a constant: whatever the user has zoomed or hidden stays so
    uirevision: "kept",
    ...figure.layout,
    template: template(theme),
    width,
    height: data.height,
  };
  // A finger that drags over a chart means to scroll the page.
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode ??= false;

  node.querySelector(".nin-plot-note")?.remove();
  await Plotly.react(node, figure.data, layout, CONFIG);
  if (!drawn) {
    node.on("plotly_click", ({ points }) => chart.send?.(plainPoint(points[0])));
    node.setAttribute("role", "figure");
  }
  node.setAttribute("aria-label", described(data.figure.layout));
  chart.drawn = { data, width, look };
}

/** What a chart is of, in words: its title, or else its axes'. */
function described(layout) {
  const text = (of) => of?.title?.text ?? of?.title;
  const up = Object.keys(layout).filter((name) => name.startsWith("yaxis"));
  const axes = up.map((name) => text(layout[name])).filter(Boolean).join(", ");
  const across = text(layout.xaxis);
  return text(layout) || (axes ? `Chart of ${axes}${across ? ` by ${across}` : ""}` : "Chart");
}

/** The blocks of the newest data, waiting for parcels that are still on their way. */
async function collect(chart) {
  for (;;) {
    const { data } = chart;
    const arrived = Promise.all(
      data.blocks.map(async ({ parcel: id, traces }) => {
        if (!chart.blocks.has(id)) chart.blocks.set(id, await parcel(id));
        return { arrays: chart.blocks.get(id), traces };
      }),
    );
    // A parcel that never comes (Streamlit may drop one that the next tick replaces) must not hold
    // up the data that follow.
    const overtaken = new Promise((resolve) => (chart.overtake = resolve));
    const blocks = await Promise.race([arrived, overtaken]);
    if (data !== chart.data) continue;
    const wanted = new Set(data.blocks.map((block) => block.parcel));
    for (const id of chart.blocks.keys()) if (!wanted.has(id)) chart.blocks.delete(id);
    return blocks;
  }
}

function join(head, tail) {
  const whole = new Float64Array(head.length + tail.length);
  whole.set(head);
  whole.set(tail, head.length);
  return whole;
}

// --- plotly.js ------------------------------------------------------------------------------

const RETRY = 5000; // milliseconds
class LoadError extends Error {}

/** plotly.js from this server, loaded once for all charts; a failure is tried again later. */
function loadPlotly(url) {
  window.ninPlotlyLoading ??= new Promise((resolve, reject) => {
    if (window.Plotly) return resolve(window.Plotly);
    const script = document.createElement("script");
    const fail = () => {
      setTimeout(() => (window.ninPlotlyLoading = undefined), RETRY);
      reject(new LoadError("Charts cannot be shown because plotly.js could not be loaded."));
    };
    script.src = url;
    script.onload = () => (window.Plotly ? resolve(window.Plotly) : fail());
    script.onerror = fail;
    document.head.append(script);
  });
  return window.ninPlotlyLoading;
}

function note(chart, text) {
  const p = chart.node.querySelector(".nin-plot-note") ?? document.createElement("p");
  p.className = "nin-plot-note";
  p.setAttribute("role", "status");
  p.textContent = text;
  chart.node.append(p);
}

// --- figures --------------------------------------------------------------------------------

/** A copy of `value` with packed arrays unpacked and `var(--st-…)` colours looked up. */
function themed(value, theme) {
  if (typeof value === "string") {
    const variable = /^var\(--st-([\w-]+)\)$/.exec(value);
    return variable ? theme.read(variable[1]) : value;
  }
  if (Array.isArray(value)) return value.map((item) => themed(item, theme));
  if (value === null || typeof value !== "object") return value;
  if (value.bdata !== undefined) return unpack(value);
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, theme)]));
}

function unpack({ dtype, bdata, shape }) {
  const bytes = Uint8Array.from(atob(bdata), (letter) => letter.charCodeAt(0));
  const flat = new NUMBERS[dtype](bytes.buffer);
  const sides = shape ? shape.split(",").map(Number) : [flat.length];
  const cut = (start, length, [side, ...rest]) => {
    if (!rest.length) return flat.subarray(start, start + length);
    const step = length / side;
    return Array.from({ length: side }, (_, i) => cut(start + i * step, step, rest));
  };
  return cut(0, flat.length, sides);
}

/** Plotly's defaults in Streamlit's colours; whatever the figure sets itself goes first. */
function template(theme) {
  const text = theme.read("text-color");
  const muted = theme.read("gray-text-color");
  const line = theme.read("border-color");
  const font = theme.read("font");
  const axis = {
    automargin: true,
    gridcolor: theme.read("border-color-light"),
    linecolor: line,
    tickcolor: line,
    zerolinecolor: line,
    zerolinewidth: 1,
    tickfont: { color: muted, size: 12 },
    title: { font: { color: muted, size: 12 }, standoff: 8 },
  };
  const scale = (colors) => colors.map((color, i) => [i / (colors.length - 1), color]);
  const bars = { outlinewidth: 0, thickness: 12, tickfont: { color: muted, size: 11 } };
  const sequential = scale(theme.list("chart-sequential-colors"));
  return {
    layout: {
      font: { family: font, color: text, size: 13 },
      title: { font: { size: 15, color: theme.read("heading-color") }, x: 0, xanchor: "left" },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      colorway: theme.list("chart-categorical-colors"),
      colorscale: { sequential, sequentialminus: sequential },
      coloraxis: { colorbar: bars },
      margin: { l: 56, r: 12, t: 32, b: 44 },
      xaxis: axis,
      yaxis: axis,
      legend: {
        orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom",
        font: { color: text, size: 12 }, bgcolor: "rgba(0,0,0,0)",
      },
      hoverlabel: {
        bgcolor: theme.read("background-color"),
        bordercolor: line,
        font: { family: font, color: text, size: 12 },
      },
      modebar: {
        bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: theme.read("primary-color"),
      },
      annotationdefaults: { font: { color: muted, size: 12 } },
      shapedefaults: { line: { color: muted, width: 1 } },
    },
    data: {
      heatmap: [{ colorscale: sequential, colorbar: bars }],
      bar: [{ marker: { line: { width: 0 } } }],
    },
  };
}

/** What Python is told about a clicked point: numbers, texts and plain lists. */
function plainPoint(point) {
  const plain = (value) => {
    if (ArrayBuffer.isView(value) || Array.isArray(value)) return Array.from(value, plain);
    return ["number", "string", "boolean"].includes(typeof value) ? value : null;
  };
  const told = {
    curve: point.curveNumber,
    name: point.data.name ?? null,
    index: plain(point.pointNumber ?? point.pointIndex ?? null),
  };
  for (const field of ["x", "y", "z", "text", "label", "value", "customdata"]) {
    if (point[field] !== undefined) told[field] = plain(point[field]);
  }
  return told;
}
