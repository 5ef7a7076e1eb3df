// The arithmetic of nin_core/receptive_field.py. A browser test compares the two.

/** One side's field: first and last pixel of the whole and of what is seen. */
function receptiveField(steps, size, cell) {
  let [first, last, seenFirst, seenLast] = [cell, cell, cell, cell];
  for (let index = steps.length - 1; index >= 0; index--) {
    const [kernel, stride, padding] = steps[index];
    const border = (index ? steps[index - 1][3] : size) - 1;
    first = first * stride - padding;
    last = last * stride - padding + kernel - 1;
    seenFirst = Math.max(seenFirst * stride - padding, 0);
    seenLast = Math.min(seenLast * stride - padding + kernel - 1, border);
  }
  return { first, last, seenFirst, seenLast };
}
