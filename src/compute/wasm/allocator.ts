/**
 * Address bookkeeping for one linear memory: best-fit free list, sorted by address, neighbours merged when a
 * block is freed. It hands out addresses only; growing and zeroing the memory is the runtime's business.
 */

/** All blocks start and end at multiples of this: one cache line, so that threads never share one. */
export const GRANULE = 64;

interface Range {
  start: number;
  end: number;
}

export class Allocator {
  /** Free ranges by address; no two touch. */
  readonly #free: Range[] = [];
  readonly #sizes = new Map<number, number>();
  #end: number;
  bytesInUse = 0;

  /** Manages addresses from `start` (rounded up) to `end`. */
  constructor(start: number, end: number) {
    const first = roundUp(start, GRANULE);
    this.#end = end;
    if (first < end) this.#free.push({ start: first, end });
  }

  /** The address of a free block, or undefined if no free range is long enough. `align` is a power of two. */
  allocate(bytes: number, align: number): number | undefined {
    const size = Math.max(GRANULE, roundUp(bytes, GRANULE));
    let best = -1;
    for (let i = 0; i < this.#free.length; i++) {
      const { start, end } = this.#free[i];
      if (end - roundUp(start, align) < size) continue;
      if (best < 0 || end - start < this.#free[best].end - this.#free[best].start) best = i;
    }
    if (best < 0) return undefined;
    const { start, end } = this.#free[best];
    const pointer = roundUp(start, align);
    const rest: Range[] = [];
    if (pointer > start) rest.push({ start, end: pointer });
    if (pointer + size < end) rest.push({ start: pointer + size, end });
    this.#free.splice(best, 1, ...rest);
    this.#sizes.set(pointer, size);
    this.bytesInUse += size;
    return pointer;
  }

  /** Gives a block back and returns its size in bytes. */
  free(pointer: number): number {
    const size = this.#sizes.get(pointer);
    if (size === undefined) throw new Error(`free: ${pointer} is not an allocated block`);
    this.#sizes.delete(pointer);
    this.bytesInUse -= size;
    this.#release(pointer, pointer + size);
    return size;
  }

  /** How many bytes the memory must grow by so that `bytes` at `align` would fit at its end. */
  shortfall(bytes: number, align: number): number {
    const last = this.#free.at(-1);
    const tail = last && last.end === this.#end ? last.start : this.#end;
    return Math.max(0, roundUp(tail, align) + Math.max(GRANULE, roundUp(bytes, GRANULE)) - this.#end);
  }

  /** The memory has grown to `end`. */
  extend(end: number): void {
    const start = this.#end;
    this.#end = end;
    this.#release(start, end);
  }

  #release(start: number, end: number): void {
    const free = this.#free;
    let low = 0;
    let high = free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (free[middle].start < start) low = middle + 1;
      else high = middle;
    }
    const before = free[low - 1];
    const after = free[low];
    const joinsBefore = before !== undefined && before.end === start;
    const joinsAfter = after !== undefined && after.start === end;
    if (joinsBefore && joinsAfter) {
      before.end = after.end;
      free.splice(low, 1);
    } else if (joinsBefore) before.end = end;
    else if (joinsAfter) after.start = start;
    else free.splice(low, 0, { start, end });
  }
}

/** Not with bit operations: addresses reach 4 GiB. */
function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
