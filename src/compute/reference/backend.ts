/**
 * The reference backend: each operation of `Backend` written as its formula, accumulated in float64, results
 * rounded to f32. It defines what the other backends must compute and runs tests; it is not meant to be fast.
 */
import type {
  AttendEachOptions,
  AttentionOptions,
  Backend,
  Buffer,
  ByteBuffer,
  MatmulOptions,
  PackedRowsOptions,
  RopeOptions,
  TokenProducts,
  TokenProductsOptions,
  TrellisCodesOptions,
  TrellisWeights,
} from "../backend.js";
import {
  checkAttendEach,
  checkAttention,
  checkIds,
  checkLength,
  checkMatmul,
  checkPackedRows,
  checkRange,
  checkRope,
  checkRotation,
  checkTokenProducts,
  trellisShape,
} from "../checks.js";
import { packedCapacity } from "../kv-format.js";
import { lanesOfStored } from "../trellis-lanes.js";
import { packRow, unpackRow } from "./kv-format.js";
import { decodeRow, type TrellisContents } from "./trellis.js";

class ReferenceBuffer implements Buffer {
  constructor(readonly data: Float32Array) {}
  get length(): number {
    return this.data.length;
  }
}

class ReferenceByteBuffer implements ByteBuffer {
  constructor(readonly data: Uint8Array) {}
  get byteLength(): number {
    return this.data.length;
  }
}

export function floats(buffer: Buffer): Float32Array {
  if (buffer instanceof ReferenceBuffer) return buffer.data;
  throw new TypeError("the buffer belongs to another backend");
}

function bytes(buffer: ByteBuffer): Uint8Array {
  if (buffer instanceof ReferenceByteBuffer) return buffer.data;
  throw new TypeError("the buffer belongs to another backend");
}

export class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly threads = 1;

  allocate(length: number): Buffer {
    return new ReferenceBuffer(new Float32Array(length));
  }

  allocateBytes(byteLength: number): ByteBuffer {
    return new ReferenceByteBuffer(new Uint8Array(byteLength));
  }

  free(): void {}

  write(buffer: Buffer, data: Float32Array, offset = 0): void {
    checkRange("write", buffer.length, offset, data.length);
    floats(buffer).set(data, offset);
  }

  writeBytes(buffer: ByteBuffer, data: Uint8Array, offset = 0): void {
    checkRange("writeBytes", buffer.byteLength, offset, data.length);
    bytes(buffer).set(data, offset);
  }

  async read(buffer: Buffer, offset = 0, length = buffer.length - offset): Promise<Float32Array> {
    checkRange("read", buffer.length, offset, length);
    return floats(buffer).slice(offset, offset + length);
  }

  async readInto(buffer: Buffer, target: Float32Array, offset = 0): Promise<void> {
    checkRange("readInto", buffer.length, offset, target.length);
    target.set(floats(buffer).subarray(offset, offset + target.length));
  }

  matmul(options: MatmulOptions): void {
    checkMatmul(options);
    const { tokens, inputs, outputs } = options;
    const [x, weight, y] = [floats(options.x), floats(options.weight), floats(options.y)];
    const bias = options.bias && floats(options.bias);
    for (let t = 0; t < tokens; t++) {
      for (let o = 0; o < outputs; o++) {
        let sum = bias ? bias[o] : 0;
        for (let i = 0; i < inputs; i++) sum += x[t * inputs + i] * weight[o * inputs + i];
        y[t * outputs + o] = sum;
      }
    }
  }

  gather(table: Buffer, ids: Int32Array, columns: number, y: Buffer): void {
    checkIds(ids, Math.floor(table.length / columns));
    checkLength("gather y", y, ids.length * columns);
    ids.forEach((id, i) => {
      floats(y).set(floats(table).subarray(id * columns, (id + 1) * columns), i * columns);
    });
  }

  rmsNorm(x: Buffer, weight: Buffer, y: Buffer, rows: number, columns: number, epsilon: number): void {
    checkLength("rmsNorm x", x, rows * columns);
    checkLength("rmsNorm weight", weight, columns);
    checkLength("rmsNorm y", y, rows * columns);
    const [from, gain, to] = [floats(x), floats(weight), floats(y)];
    for (let r = 0; r < rows; r++) {
      let squares = 0;
      for (let c = 0; c < columns; c++) squares += from[r * columns + c] ** 2;
      const scale = 1 / Math.sqrt(squares / columns + epsilon);
      for (let c = 0; c < columns; c++) to[r * columns + c] = from[r * columns + c] * scale * gain[c];
    }
  }

  rope(options: RopeOptions): void {
    checkRope(options);
    const { tokens, position, heads, headSize } = options;
    const [x, cosines, sines] = [floats(options.x), floats(options.cosines), floats(options.sines)];
    const half = headSize / 2;
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const base = (t * heads + h) * headSize;
        for (let i = 0; i < half; i++) {
          const cosine = cosines[(position + t) * half + i];
          const sine = sines[(position + t) * half + i];
          const [a, b] = [x[base + i], x[base + half + i]];
          x[base + i] = a * cosine - b * sine;
          x[base + half + i] = b * cosine + a * sine;
        }
      }
    }
  }

  attention(options: AttentionOptions): void {
    checkAttention(options);
    const { tokens, position, heads, kvHeads, headSize, scale, window } = options;
    const [query, y] = [options.query, options.y].map(floats);
    const [keys, values] = [options.keys, options.values].map((cache) =>
      this.#cached(cache, options, position + tokens),
    );
    for (let t = 0; t < tokens; t++) {
      const last = position + t;
      const first = window === null ? 0 : Math.max(0, last - window + 1);
      for (let h = 0; h < heads; h++) {
        const q = (t * heads + h) * headSize;
        const kv = Math.floor((h * kvHeads) / heads) * headSize;
        const scores = new Float64Array(last - first + 1);
        for (let p = first; p <= last; p++) {
          let dot = 0;
          for (let i = 0; i < headSize; i++) dot += query[q + i] * keys[p * kvHeads * headSize + kv + i];
          scores[p - first] = dot * scale;
        }
        const weights = softmaxRow(scores);
        for (let i = 0; i < headSize; i++) {
          let sum = 0;
          for (let p = first; p <= last; p++)
            sum += weights[p - first] * values[p * kvHeads * headSize + kv + i];
          y[q + i] = sum;
        }
      }
    }
  }

  attendEach(options: AttendEachOptions): void {
    checkAttendEach(options);
    const { sequences, heads, kvHeads, headSize, scale, window } = options;
    const shape = { heads, kvHeads, headSize };
    const row = (buffer: Buffer, i: number, columns: number) =>
      new ReferenceBuffer(floats(buffer).subarray(i * columns, (i + 1) * columns));
    for (const [i, { position, ...cache }] of sequences.entries()) {
      for (const [x, to] of [
        [row(options.key, i, kvHeads * headSize), cache.keys],
        [row(options.value, i, kvHeads * headSize), cache.values],
      ] as const) {
        if (to instanceof ReferenceByteBuffer && cache.packed)
          this.packRows({ x, cache: to, format: cache.packed, tokens: 1, position, ...shape });
        else if (to instanceof ReferenceBuffer) this.copy(x, 0, to, position * x.length, x.length);
      }
      const [query, y] = [options.query, options.y].map((b) => row(b, i, heads * headSize));
      this.attention({ query, y, ...cache, tokens: 1, position, ...shape, scale, window });
    }
  }

  packRows(options: PackedRowsOptions): void {
    const { x, cache, format, headSize } = options;
    for (const [at, row] of packedRows(options))
      packRow(floats(x).subarray(at, at + headSize), format, bytes(cache), row);
  }

  unpackRows(options: PackedRowsOptions): void {
    const { x, cache, format, headSize } = options;
    for (const [at, row] of packedRows(options))
      floats(x).set(unpackRow(bytes(cache), format, headSize, row), at);
  }

  siluMultiply(gate: Buffer, up: Buffer, length: number): void {
    checkLength("siluMultiply gate", gate, length);
    checkLength("siluMultiply up", up, length);
    const [g, u] = [floats(gate), floats(up)];
    for (let i = 0; i < length; i++) g[i] = (g[i] / (1 + Math.exp(-g[i]))) * u[i];
  }

  add(y: Buffer, x: Buffer, length: number): void {
    checkLength("add y", y, length);
    checkLength("add x", x, length);
    const [to, from] = [floats(y), floats(x)];
    for (let i = 0; i < length; i++) to[i] += from[i];
  }

  softmax(x: Buffer, rows: number, columns: number): void {
    checkLength("softmax x", x, rows * columns);
    for (let r = 0; r < rows; r++) {
      const row = floats(x).subarray(r * columns, (r + 1) * columns);
      row.set(softmaxRow(Float64Array.from(row)));
    }
  }

  copy(x: Buffer, xOffset: number, y: Buffer, yOffset: number, length: number): void {
    checkRange("copy x", x.length, xOffset, length);
    checkRange("copy y", y.length, yOffset, length);
    floats(y).set(floats(x).slice(xOffset, xOffset + length), yOffset);
  }

  rotate(options: Parameters<Backend["rotate"]>[0]): void {
    const { m, rows, columns, inverse } = options;
    checkRotation(options);
    const [x, y, signs, q] = [options.x, options.y, options.signs, options.q].map(floats);
    const order = columns / m;
    const norm = 1 / Math.sqrt(order);
    for (let r = 0; r < rows; r++) {
      const row = Float64Array.from(x.subarray(r * columns, (r + 1) * columns));
      if (!inverse) for (let c = 0; c < columns; c++) row[c] *= signs[c];
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < order; j++) {
          // (Q ⊗ H) or its transpose; H is symmetric, H[j][l] = (-1)^popcount(j & l) / sqrt(order).
          let sum = 0;
          for (let k = 0; k < m; k++) {
            let inner = 0;
            for (let l = 0; l < order; l++) inner += isOdd(j & l) ? -row[k * order + l] : row[k * order + l];
            sum += inner * norm * (inverse ? q[k * m + i] : q[i * m + k]);
          }
          y[r * columns + i * order + j] = inverse ? sum * signs[i * order + j] : sum;
        }
      }
    }
  }

  trellisMatmul(x: Buffer, weight: TrellisWeights, y: Buffer, tokens: number): void {
    const { rows, columns } = weight;
    trellisShape(weight);
    checkLength("trellisMatmul x", x, tokens * columns);
    checkLength("trellisMatmul y", y, tokens * rows);
    const contents = this.#contents(weight);
    const [from, to] = [floats(x), floats(y)];
    for (let r = 0; r < rows; r++) {
      const row = decodeRow(weight, contents, r);
      for (let t = 0; t < tokens; t++) {
        let sum = 0;
        for (let c = 0; c < columns; c++) sum += row[c] * from[t * columns + c];
        to[t * rows + r] = sum;
      }
    }
  }

  tokenProducts(options: TokenProductsOptions): TokenProducts {
    checkTokenProducts(options);
    const { x, norm, up, rotation, products, accumulate } = options;
    const { columns } = products[0].weight;
    const run = () => {
      const input = this.allocate(columns);
      this.copy(x, 0, input, 0, columns);
      if (norm) this.rmsNorm(input, norm.weight, input, 1, columns, norm.epsilon);
      if (up) this.siluMultiply(input, up, columns);
      this.rotate({ ...rotation, x: input, y: input, rows: 1, columns });
      for (const { weight, bias, y, start = 0 } of products) {
        const { rows } = weight;
        const product = this.allocate(rows);
        this.trellisMatmul(input, weight, product, 1);
        if (bias) this.add(product, bias, rows);
        if (accumulate) {
          const before = this.allocate(rows);
          this.copy(y, start, before, 0, rows);
          this.add(product, before, rows);
        }
        this.copy(product, 0, y, start, rows);
      }
    };
    return { run, free: () => {} };
  }

  trellisCodes(options: TrellisCodesOptions): ByteBuffer {
    const streams = lanesOfStored(options);
    const buffer = this.allocateBytes(streams.length);
    this.writeBytes(buffer, streams);
    return buffer;
  }

  trellisGather(weight: TrellisWeights, ids: Int32Array, y: Buffer): void {
    trellisShape(weight);
    checkIds(ids, weight.rows);
    checkLength("trellisGather y", y, ids.length * weight.columns);
    const contents = this.#contents(weight);
    ids.forEach((id, i) => {
      floats(y).set(decodeRow(weight, contents, id), i * weight.columns);
    });
  }

  async close(): Promise<void> {}

  /** Keys or values of `positions` positions, [positions, kvHeads * headSize]. */
  #cached(
    cache: Buffer | ByteBuffer,
    { packed, kvHeads, headSize }: Pick<AttentionOptions, "packed" | "kvHeads" | "headSize">,
    positions: number,
  ): Float32Array {
    if (!packed) return floats(cache as Buffer);
    const x = new ReferenceBuffer(new Float32Array(positions * kvHeads * headSize));
    const rows = { tokens: positions, position: 0, kvHeads, headSize };
    this.unpackRows({ x, cache: cache as ByteBuffer, format: packed, ...rows });
    return floats(x);
  }

  #contents({ codes, tables, scales, maps }: TrellisWeights): TrellisContents {
    return { codes: bytes(codes), tables: floats(tables), scales: floats(scales), maps: bytes(maps) };
  }
}

/** Of each head of each token: where its numbers are in x, and its row in the cache. */
function* packedRows(options: PackedRowsOptions): Generator<[at: number, row: number]> {
  checkPackedRows(options);
  const { from = 0, cache, format, tokens, position, kvHeads, headSize } = options;
  const capacity = packedCapacity(cache.byteLength, format, kvHeads, headSize);
  for (let t = 0; t < tokens; t++)
    for (let h = 0; h < kvHeads; h++)
      yield [((from + t) * kvHeads + h) * headSize, h * capacity + position + t];
}

function softmaxRow(scores: Float64Array): Float64Array {
  const largest = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = scores.map((s) => Math.exp(s - largest));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

function isOdd(bits: number): boolean {
  let parity = bits;
  for (let shift = 16; shift >= 1; shift >>= 1) parity ^= parity >> shift;
  return (parity & 1) === 1;
}
