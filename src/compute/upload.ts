/** Numbers to a backend in one call. */
import type { Backend, Buffer } from "./backend.js";

/** A new buffer that holds a copy of `data`; the caller frees it. */
export function upload(backend: Backend, data: Float32Array): Buffer {
  const buffer = backend.allocate(data.length);
  backend.write(buffer, data);
  return buffer;
}
