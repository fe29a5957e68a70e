/**
 * Row orders of the q and k projections. Hugging Face rotates element i of a head with element i + size / 2
 * (rotate-half); Meta's code, llama2.c and llama.cpp's "llama" rotate neighbours 2i and 2i + 1 (interleaved),
 * and their files have the rows in that order.
 */

/**
 * Reorders rows from interleaved to rotate-half, in place: in each head of `headSize` rows, row 2i + s goes to
 * row s headSize / 2 + i. `values` is [heads * headSize, columns]; for a bias, columns = 1.
 */
export function interleavedToHalves(values: Float32Array, headSize: number, columns: number): void {
  const headLength = headSize * columns;
  const head = new Float32Array(headLength);
  for (let start = 0; start < values.length; start += headLength) {
    head.set(values.subarray(start, start + headLength));
    for (let row = 0; row < headSize; row++) {
      const to = (row % 2) * (headSize / 2) + (row >> 1);
      values.set(head.subarray(row * columns, (row + 1) * columns), start + to * columns);
    }
  }
}
