/** Buffers of a backend in one call: filled, or large enough. */
import type { Backend, Buffer } from "./backend.js";

/** A new buffer that holds a copy of `data`; the caller frees it. */
export function upload(backend: Backend, data: Float32Array): Buffer {
  const buffer = backend.allocate(data.length);
  backend.write(buffer, data);
  return buffer;
}

/** `buffer` where it holds `length` floats, else a larger one in its place. */
export function grown(backend: Backend, buffer: Buffer | undefined, length: number): Buffer {
  if (buffer && buffer.length >= length) return buffer;
  if (buffer) backend.free(buffer);
  return backend.allocate(length);
}
