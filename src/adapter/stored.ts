/**
 * The tensors of an adapter's file: PEFT's names and F32, F16 or BF16, or the packed form. Checked against the
 * model by names, types and shapes before any number is read. Free of Node.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import { quote } from "../checkpoint/json.js";
import type { SafetensorsEntry } from "../checkpoint/safetensors.js";
import type { LowRankPair } from "../compute/adapted-linear.js";
import { CorruptFileError, InputError } from "../errors.js";
import { bytesToF32, type DType, f32ToBytes } from "../tensor/dtype.js";
import { type Adapter, adaptableMatrices } from "./adapter.js";
import { packedColumns, packMatrix, unpackMatrix } from "./packed.js";
import { type AdapterBits, type AdapterConfig, adapterScale } from "./peft-config.js";

const PREFIX = "base_model.model.";
const SIDES = ["A", "B"] as const;

/** What is known of a stored tensor without reading it. */
export type StoredAs = Pick<SafetensorsEntry, "dtype" | "shape">;

/** What an adapter's file holds, found right. */
export interface AdapterLayout {
  readonly config: AdapterConfig;
  /** Shapes of A [rank, inputs] and B [outputs, rank] by name of the matrix. */
  readonly matrices: ReadonlyMap<
    string,
    { readonly A: readonly [number, number]; readonly B: readonly [number, number] }
  >;
  readonly tensors: ReadonlyMap<string, StoredAs>;
  /** For messages. */
  readonly file: string;
}

/** One of an adapter's matrices and the tensors that hold it. */
export interface StoredMatrix {
  /** "model.layers.0.self_attn.q_proj.lora_A" */
  readonly name: string;
  readonly shape: readonly [rows: number, columns: number];
  readonly tensors: readonly string[];
}

export function storedMatrices({ config, matrices }: AdapterLayout): StoredMatrix[] {
  return [...matrices].flatMap(([matrix, shapes]) =>
    SIDES.map((side) => ({
      name: `${matrix}.lora_${side}`,
      shape: shapes[side],
      tensors: suffixesOf(config.bits).map((suffix) => tensorName(matrix, side, suffix)),
    })),
  );
}

function suffixesOf(bits: AdapterBits): readonly Suffix[] {
  return bits === 16 ? ["weight"] : ["codes", "scales"];
}

type Suffix = "weight" | "codes" | "scales";

function tensorName(matrix: string, side: "A" | "B", suffix: Suffix): string {
  return `${PREFIX}${matrix}.lora_${side}.${suffix}`;
}

/**
 * CorruptFileError or InputError, one line naming the tensor, unless `tensors` are exactly pairs for matrices of
 * the model, of its shapes and of the configuration's rank.
 */
export function adapterLayout(
  config: AdapterConfig,
  tensors: ReadonlyMap<string, StoredAs>,
  model: ModelConfig,
  file: string,
): AdapterLayout {
  const { rank, bits } = config;
  const matrices = new Map<string, { A: [number, number]; B: [number, number] }>();
  const used = new Set<string>();
  for (const [name, [outputs, inputs]] of adaptableMatrices(model)) {
    const shapes = { A: [rank, inputs] as [number, number], B: [outputs, rank] as [number, number] };
    const names = SIDES.flatMap((side) => suffixesOf(bits).map((suffix) => tensorName(name, side, suffix)));
    const there = names.filter((tensor) => tensors.has(tensor));
    if (there.length === 0) continue;
    if (there.length < names.length) {
      const missing = names.find((tensor) => !tensors.has(tensor))!;
      throw new CorruptFileError(`${file}: has no tensor ${quote(missing)}, but others of that matrix`);
    }
    for (const side of SIDES) {
      const [rows, columns] = shapes[side];
      if (bits === 16) {
        checkTensor(
          tensors,
          tensorName(name, side, "weight"),
          [
            ["F32", "F16", "BF16"],
            [rows, columns],
          ],
          file,
        );
        continue;
      }
      const codes = tensorName(name, side, "codes");
      checkTensor(tensors, codes, [["U8"], [rows, packedColumns(columns, bits)]], file);
      checkTensor(tensors, tensorName(name, side, "scales"), [["F16"], [rows]], file);
    }
    for (const tensor of names) used.add(tensor);
    matrices.set(name, shapes);
  }
  for (const name of tensors.keys())
    if (!used.has(name))
      throw new InputError(
        `${file}: tensor ${quote(name)} is no part of a LoRA adapter of this model (${model.architecture}, ${model.layers} layers)`,
      );
  if (matrices.size === 0) throw new CorruptFileError(`${file}: has no tensors`);
  return { config, matrices, tensors, file };
}

function checkTensor(
  tensors: ReadonlyMap<string, StoredAs>,
  name: string,
  [dtypes, expected]: readonly [readonly DType[], readonly number[]],
  file: string,
): void {
  const { dtype, shape } = tensors.get(name)!;
  if (!dtypes.includes(dtype))
    throw new CorruptFileError(
      `${file}: tensor ${quote(name)} holds ${dtype}, expected ${dtypes.join(" or ")}`,
    );
  if (shape.length !== expected.length || shape.some((size, i) => size !== expected[i]))
    throw new CorruptFileError(
      `${file}: tensor ${quote(name)} has the shape [${shape.join(", ")}] where model and rank ask for [${expected.join(", ")}]: it is another model's adapter, or damaged`,
    );
}

/** Reads every number; `read` gives a tensor's bytes. CorruptFileError for one that is not finite. */
export async function readAdapter(
  { config, matrices, tensors, file }: AdapterLayout,
  read: (name: string) => Promise<Uint8Array>,
): Promise<Adapter> {
  const floats = async (name: string): Promise<Float32Array> => {
    const values = bytesToF32(await read(name), tensors.get(name)!.dtype);
    if (!values.every(Number.isFinite))
      throw new CorruptFileError(`${file}: tensor ${quote(name)} holds a value that is not finite`);
    return values;
  };
  const { bits, rank } = config;
  const pairs = new Map<string, LowRankPair>();
  for (const [name, shapes] of matrices) {
    const matrix = async (side: "A" | "B"): Promise<Float32Array> => {
      if (bits === 16) return await floats(tensorName(name, side, "weight"));
      const codes = await read(tensorName(name, side, "codes"));
      const scales = await floats(tensorName(name, side, "scales"));
      return unpackMatrix({ codes, scales }, shapes[side][1], bits);
    };
    pairs.set(name, { rank, a: await matrix("A"), b: await matrix("B") });
  }
  return { rank, scale: adapterScale(config), pairs };
}

export interface AdapterTensor extends SafetensorsEntry {
  readonly data: Uint8Array;
}

/** The tensors to store, in the order of the adapter's matrices. */
export function adapterTensors(pairs: Adapter["pairs"], bits: AdapterBits): AdapterTensor[] {
  return [...pairs].flatMap(([name, { rank, a, b }]) =>
    SIDES.flatMap((side): AdapterTensor[] => {
      const values = side === "A" ? a : b;
      const columns = side === "A" ? a.length / rank : rank;
      const rows = values.length / columns;
      if (bits === 16) {
        const data = f32ToBytes(values, "F16");
        return [{ name: tensorName(name, side, "weight"), dtype: "F16", shape: [rows, columns], data }];
      }
      const { codes, scales } = packMatrix(values, columns, bits);
      const shape = [rows, packedColumns(columns, bits)];
      return [
        { name: tensorName(name, side, "codes"), dtype: "U8", shape, data: codes },
        {
          name: tensorName(name, side, "scales"),
          dtype: "F16",
          shape: [rows],
          data: f32ToBytes(scales, "F16"),
        },
      ];
    }),
  );
}
