// Put in front of the scripts that draw. What they share: parcels, numbers, colours, clean-up.

const NUMBERS = {
  i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array,
  i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array,
};

/** The parcels on this page by their names, and who waits for one. */
function parcels() {
  return (window.ninParcels ??= { arrived: new Map(), awaited: new Map() });
}

/** The arrays of parcel `id`, as soon as they have arrived. */
async function parcel(id) {
  const store = parcels();
  if (!store.arrived.has(id)) {
    await new Promise((resolve) => {
      if (!store.awaited.has(id)) store.awaited.set(id, []);
      store.awaited.get(id).push(resolve);
    });
  }
  return store.arrived.get(id).arrays;
}

const NOT_A_NUMBER = -32768; // as in sprite.py

/** A number of `sprite.quantise` as text, in the digits that were sent. */
function quantised(value, decimals) {
  if (value === NOT_A_NUMBER) return "not a number";
  // Never more digits than were sent: outside the usual range all values share one power of ten.
  const text = decimals >= 0 && decimals <= 8
    ? (value * 10 ** -decimals).toFixed(decimals)
    : `${(value / 1000).toFixed(3)}e${3 - decimals}`;
  return text.replaceAll("-", "−");
}

/** The version that a feed is at (see follow.py); null where it does not answer. */
async function versionAt(url) {
  try {
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    return response.ok ? (await response.json()).version : null;
  } catch (error) {
    return null;
  }
}

/** A reader of Streamlit's theme variables as they apply to `element` now. */
function themeOf(element) {
  const style = getComputedStyle(element);
  const read = (name) => style.getPropertyValue(`--st-${name}`).trim();
  return {
    read,
    list: (name) => read(name).split(",").map((part) => part.trim()).filter(Boolean),
  };
}

/** [red, green, blue] of any CSS colour. */
function rgb(color) {
  const context = (rgb.context ??= document.createElement("canvas").getContext("2d", {
    willReadFrequently: true,
  }));
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/**
 * Put `node` into `parent`, and into the parent's successor when Streamlit remounts the component.
 *
 * A remounted component's script runs a little after the browser has painted it, empty. A mutation
 * is told before, and the successor is known by the class that Streamlit makes of the key.
 */
function settle(node, parent, key) {
  if (node.parentElement === parent) return;
  parent.append(node);
  node.ninMoves?.disconnect();
  const place = `.st-key-${key.replace(/[^\w-]/g, "-")} [data-testid="stBidiComponentRegular"]`;
  node.ninMoves = new MutationObserver(() => {
    if (node.isConnected) return;
    const successor = document.querySelector(place);
    if (successor) settle(node, successor, key);
    else node.ninMoves.observe(document.body, { childList: true, subtree: true }); // not there yet
  });
  // The children of every ancestor, not the whole tree: what a chart draws must not call this.
  for (let at = parent; at; at = at.parentElement) node.ninMoves.observe(at, { childList: true });
}

/** Run `dispose` once `node` has been off the page for a few seconds: a remount puts it back. */
function whenGone(node, dispose) {
  setTimeout(() => {
    if (!node.isConnected) dispose();
  }, 4000);
}
