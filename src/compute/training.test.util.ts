/** What the tests of training's operations share. */
import type { Backend, Buffer } from "./backend.js";
import type { TrainingBackend } from "./training.js";

export interface Machine {
  readonly backend: Backend;
  readonly training: TrainingBackend;
}

/** Uniform numbers in [-size, size), the same on every run. */
export function numbers(count: number, seed: number, size = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return size * (state / 2 ** 31 - 1);
  });
}

export function upload({ backend }: Machine, data: Float32Array): Buffer {
  const buffer = backend.allocate(data.length);
  backend.write(buffer, data);
  return buffer;
}

export function read({ backend }: Machine, buffers: readonly Buffer[]): Promise<Float32Array[]> {
  return Promise.all(buffers.map((buffer) => backend.read(buffer)));
}

export function largest(values: Iterable<number>): number {
  let result = 1e-30;
  for (const value of values) result = Math.max(result, Math.abs(value));
  return result;
}
