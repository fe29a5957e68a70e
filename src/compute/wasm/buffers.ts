/** Buffers of the WASM backend: addresses in its runtime's memory, which kernels and encoders may use. */
import type { Buffer, ByteBuffer } from "../backend.js";

export class WasmBuffer implements Buffer {
  constructor(
    readonly owner: object,
    readonly pointer: number,
    readonly length: number,
  ) {}
}

export class WasmByteBuffer implements ByteBuffer {
  constructor(
    readonly owner: object,
    readonly pointer: number,
    readonly byteLength: number,
  ) {}
}

/** The buffer's address. Throws TypeError if `owner` did not make it: its address would mean something else. */
export function addressOf(owner: object, buffer: Buffer | ByteBuffer): number {
  if ((buffer instanceof WasmBuffer || buffer instanceof WasmByteBuffer) && buffer.owner === owner)
    return buffer.pointer;
  throw new TypeError("the buffer belongs to another backend");
}
