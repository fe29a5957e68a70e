/**
 * A file that arrives once, from its beginning to its end, as a ByteSource: a weight file of a web server is
 * read tensor by tensor while it is downloaded, whether or not the server knows ranges. Reads in the order of
 * the file hold nothing else in memory; what a read passes over is kept until it is asked for. A byte can be
 * read once.
 */
import { type ByteSource, checkRange } from "../checkpoint/byte-source.js";
import { CorruptFileError, InputError } from "../errors.js";

/** Bytes that were passed over, from `offset` of the file on; `left` of them were not read yet. */
interface Kept {
  readonly offset: number;
  readonly bytes: Uint8Array;
  left: number;
}

export class StreamedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #open: () => Promise<ReadableStream<Uint8Array>>;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** The part of the last piece that was not taken yet. */
  #piece: Uint8Array = new Uint8Array(0);
  /** Bytes taken from the stream. */
  #position = 0;
  readonly #kept: Kept[] = [];
  #last: Promise<unknown> = Promise.resolve();

  /** `size` is what the manifest says; `open` starts the stream, with the first read. */
  constructor(name: string, size: number, open: () => Promise<ReadableStream<Uint8Array>>) {
    this.name = name;
    this.size = size;
    this.#open = open;
  }

  /** As every source; CorruptFileError when the stream ends before `size` bytes. */
  read(offset: number, length: number): Promise<Uint8Array> {
    // One after the other: a stream has one position.
    const result = this.#last.then(() => this.#read(offset, length));
    this.#last = result.catch(() => {});
    return result;
  }

  async close(): Promise<void> {
    await this.#reader?.cancel().catch(() => {});
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this.name, this.size, offset, length);
    if (length === 0) return new Uint8Array(0);
    if (offset < this.#position) return this.#fromKept(offset, length);
    if (offset > this.#position) {
      const start = this.#position;
      const bytes = await this.#take(offset - start);
      this.#kept.push({ offset: start, bytes, left: bytes.length });
    }
    return await this.#take(length);
  }

  #fromKept(offset: number, length: number): Uint8Array {
    const index = this.#kept.findIndex(
      (kept) => offset >= kept.offset && offset + length <= kept.offset + kept.bytes.length,
    );
    const kept = this.#kept[index];
    if (!kept) throw new Error(`${this.name}: bytes from ${offset} were read before`);
    kept.left -= length;
    if (kept.left <= 0) this.#kept.splice(index, 1);
    return kept.bytes.slice(offset - kept.offset, offset - kept.offset + length);
  }

  /** The next `length` bytes of the stream. */
  async #take(length: number): Promise<Uint8Array> {
    this.#reader ??= (await this.#open()).getReader();
    const out = this.#allocate(length);
    for (let done = 0; done < length; ) {
      if (this.#piece.length === 0) {
        const { value, done: ended } = await this.#reader.read();
        if (ended)
          throw new CorruptFileError(
            `${this.name}: the download ended after ${this.#position + done} of ${this.size} bytes; load it again`,
          );
        this.#piece = value;
      }
      const part = this.#piece.subarray(0, length - done);
      out.set(part, done);
      done += part.length;
      this.#piece = this.#piece.subarray(part.length);
    }
    this.#position += length;
    return out;
  }

  /** The manifest's sizes are bounded, but nobody has seen yet that the file has them. */
  #allocate(length: number): Uint8Array {
    try {
      return new Uint8Array(length);
    } catch (error) {
      throw new InputError(`${this.name}: ${length} bytes at once do not fit into memory`, { cause: error });
    }
  }
}
