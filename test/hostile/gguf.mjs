// Builds GGUF files from parts, right or wrong ones: for hostile files and for tests of the reader.

/** Numbers of metadata value types, as in the GGUF specification. */
export const VALUE = { u8: 0, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 };
/** Numbers of tensor types in ggml. */
export const TENSOR = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q4_K: 12,
  Q6_K: 14,
  IQ2_XXS: 16,
  BF16: 30,
};

class Writer {
  parts = [];
  length = 0;
  bytes(bytes) {
    this.parts.push(bytes);
    this.length += bytes.length;
    return this;
  }
  number(bytes, set) {
    const buffer = Buffer.alloc(bytes);
    set(buffer);
    return this.bytes(buffer);
  }
  u32(value) {
    return this.number(4, (b) => b.writeUInt32LE(value));
  }
  u64(value) {
    return this.number(8, (b) => b.writeBigUInt64LE(BigInt(value)));
  }
  string(text) {
    const bytes = Buffer.from(text);
    return this.u64(bytes.length).bytes(bytes);
  }
  scalar(type, value) {
    switch (type) {
      case VALUE.u8:
      case VALUE.bool:
        return this.number(1, (b) => b.writeUInt8(Number(value)));
      case VALUE.u32:
        return this.u32(value);
      case VALUE.i32:
        return this.number(4, (b) => b.writeInt32LE(value));
      case VALUE.f32:
        return this.number(4, (b) => b.writeFloatLE(value));
      case VALUE.u64:
        return this.u64(value);
      case VALUE.string:
        return this.string(value);
      default:
        throw new Error(`type ${type}`);
    }
  }
  pad(alignment) {
    return this.bytes(Buffer.alloc((alignment - (this.length % alignment)) % alignment));
  }
}

/** The type that a value is written as: numbers become u32 when whole, f32 otherwise; `{ type, value }` chooses. */
function typed(value) {
  if (Array.isArray(value)) return { type: VALUE.array, value };
  if (value !== null && typeof value === "object") return value;
  if (typeof value === "string") return { type: VALUE.string, value };
  if (typeof value === "boolean") return { type: VALUE.bool, value };
  return { type: Number.isInteger(value) && value >= 0 ? VALUE.u32 : VALUE.f32, value };
}

/**
 * `metadata`: [key, value] pairs; an array may be `{ items, itemType }`, `{ raw }` writes bytes after the key.
 * `tensors`: { name, dims (GGUF order, fastest first), type, data, offset (by default behind the one before) }.
 * `tensorCount`, `keyCount`, `version`, `alignment`: to lie about.
 */
export function buildGguf({ metadata, tensors, version = 3, alignment = 32, tensorCount, keyCount }) {
  const out = new Writer().bytes(Buffer.from("GGUF")).u32(version);
  out.u64(tensorCount ?? tensors.length).u64(keyCount ?? metadata.length);
  for (const [key, value] of metadata) {
    out.string(key);
    if (value?.raw) {
      out.bytes(value.raw);
      continue;
    }
    const { type, value: v } = value?.items ? { type: VALUE.array, value } : typed(value);
    out.u32(type);
    if (type !== VALUE.array) {
      out.scalar(type, v);
      continue;
    }
    const items = v.items ?? v;
    const itemType = v.itemType ?? typed(items[0] ?? 0).type;
    out.u32(itemType).u64(items.length);
    for (const item of items) out.scalar(itemType, item);
  }
  let offset = 0;
  const placed = tensors.map((tensor) => {
    const at = tensor.offset ?? offset;
    offset = Math.ceil((at + tensor.data.length) / alignment) * alignment;
    return { ...tensor, at };
  });
  for (const { name, dims, type, at } of placed) {
    out.string(name).u32(dims.length);
    for (const size of dims) out.u64(size);
    out.u32(type).u64(at);
  }
  out.pad(alignment);
  for (const { data } of placed) out.bytes(data).pad(alignment);
  return Buffer.concat(out.parts);
}

/** Metadata of a tiny model: 1 layer, 4 heads of 8 over 32, 2 K/V heads, 64 inner, 40 tokens. */
export function tinyMetadata(architecture = "llama") {
  const a = architecture;
  return [
    ["general.architecture", a],
    [`${a}.block_count`, 1],
    [`${a}.context_length`, 64],
    [`${a}.embedding_length`, 32],
    [`${a}.feed_forward_length`, 64],
    [`${a}.attention.head_count`, 4],
    [`${a}.attention.head_count_kv`, 2],
    [`${a}.attention.layer_norm_rms_epsilon`, { type: VALUE.f32, value: 1e-5 }],
    [`${a}.rope.freq_base`, { type: VALUE.f32, value: 10000 }],
    [`${a}.rope.dimension_count`, 8],
  ];
}

/** The F32 tensors of that model, value i of each being (i % 97) / 97 - 0.5; vocabulary of 40 tokens. */
export function tinyTensors() {
  const f32 = (name, ...shape) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = Buffer.from(Float32Array.from({ length: count }, (_, i) => (i % 97) / 97 - 0.5).buffer);
    return { name, dims: shape.reverse(), type: TENSOR.F32, data };
  };
  return [
    f32("token_embd.weight", 40, 32),
    f32("blk.0.attn_norm.weight", 32),
    f32("blk.0.attn_q.weight", 32, 32),
    f32("blk.0.attn_k.weight", 16, 32),
    f32("blk.0.attn_v.weight", 16, 32),
    f32("blk.0.attn_output.weight", 32, 32),
    f32("blk.0.ffn_norm.weight", 32),
    f32("blk.0.ffn_gate.weight", 64, 32),
    f32("blk.0.ffn_up.weight", 64, 32),
    f32("blk.0.ffn_down.weight", 32, 64),
    f32("output_norm.weight", 32),
  ];
}
