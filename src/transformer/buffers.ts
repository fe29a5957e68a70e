/** Buffers that live and die together: a half-finished allocation can be given back as one. */
import type { Backend, Buffer, ByteBuffer } from "../compute/backend.js";

export class BufferGroup {
  readonly #backend: Backend;
  readonly #owned: (Buffer | ByteBuffer)[] = [];

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Zeroed storage of `length` f32 elements. */
  allocate(length: number): Buffer {
    const buffer = this.#backend.allocate(length);
    this.#owned.push(buffer);
    return buffer;
  }

  allocateBytes(byteLength: number): ByteBuffer {
    const buffer = this.#backend.allocateBytes(byteLength);
    this.#owned.push(buffer);
    return buffer;
  }

  /** Storage that holds a copy of `data`. */
  upload(data: Float32Array): Buffer {
    const buffer = this.allocate(data.length);
    this.#backend.write(buffer, data);
    return buffer;
  }

  /** Frees everything allocated so far. */
  free(): void {
    for (const buffer of this.#owned.splice(0)) this.#backend.free(buffer);
  }
}

/** Runs `build` on a new group; when it throws, nothing stays allocated. */
export function allocateTogether<T>(backend: Backend, build: (group: BufferGroup) => T): T {
  const group = new BufferGroup(backend);
  try {
    return build(group);
  } catch (error) {
    group.free();
    throw error;
  }
}
