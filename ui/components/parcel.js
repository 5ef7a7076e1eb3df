// Receives one parcel (see wire.py) and keeps its arrays for the component that asks for them.
// shared.js, which stands in front, holds the other half: `parcel(id)`.

export default function ({ data, parentElement }) {
  if (!data) return;
  const store = parcels();
  const length = new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + length)));
  parentElement.ninParcel = header.id;

  if (!store.arrived.has(header.id)) {
    const arrays = {};
    for (const { name, dtype, length: count, offset } of header.arrays) {
      const Type = NUMBERS[dtype];
      const start = 4 + length + offset;
      // slice copies, so the typed array may start anywhere in the message
      arrays[name] = new Type(data.slice(start, start + count * Type.BYTES_PER_ELEMENT).buffer);
    }
    store.arrived.set(header.id, { arrays, host: parentElement });
  } else {
    store.arrived.get(header.id).host = parentElement;
  }
  store.awaited.get(header.id)?.forEach((resolve) => resolve());
  store.awaited.delete(header.id);

  // Forget parcels whose element has left the page or carries another parcel by now. Not at once:
  // while Streamlit moves elements about, both halves are off the page for a moment.
  setTimeout(() => {
    for (const [id, { host }] of store.arrived) {
      if (!host.isConnected || host.ninParcel !== id) store.arrived.delete(id);
    }
  }, 5000);
}
