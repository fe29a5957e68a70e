/**
 * The Checkpoint that all formats open to: tensors that load as f32 when asked for, checked to be finite.
 * What differs between formats comes in as functions.
 */
import { CorruptFileError } from "../errors.js";
import type { Checkpoint, TensorInfo, TokenizerFiles } from "./checkpoint.js";
import type { ModelConfig } from "./config.js";
import { quote } from "./json.js";

/** SHA-256 (hex) over the weight files. */
export type Hasher = (signal?: AbortSignal) => Promise<string>;

export interface DenseCheckpointOptions {
  readonly source: string;
  readonly format: Checkpoint["format"];
  readonly config: ModelConfig;
  readonly huggingFaceConfig: Readonly<Record<string, unknown>>;
  readonly generationConfig: Readonly<Record<string, unknown>> | null;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** One tensor in Hugging Face's layout, f32; values unchecked. The array becomes the caller's. */
  readonly load: (name: string) => Promise<Float32Array>;
  readonly tokenizer: () => Promise<TokenizerFiles | null>;
  readonly hash: Hasher;
  readonly close: () => Promise<void>;
}

export class DenseCheckpoint implements Checkpoint {
  readonly source: string;
  readonly format: Checkpoint["format"];
  readonly config: ModelConfig;
  readonly huggingFaceConfig: Readonly<Record<string, unknown>>;
  readonly generationConfig: Readonly<Record<string, unknown>> | null;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly bytes16: number;
  readonly tokenizer: () => Promise<TokenizerFiles | null>;
  readonly close: () => Promise<void>;
  readonly #load: DenseCheckpointOptions["load"];
  readonly #hash: Hasher;
  #hashed: string | undefined;

  constructor(options: DenseCheckpointOptions) {
    this.source = options.source;
    this.format = options.format;
    this.config = options.config;
    this.huggingFaceConfig = options.huggingFaceConfig;
    this.generationConfig = options.generationConfig;
    this.tensors = options.tensors;
    this.tokenizer = options.tokenizer;
    this.close = options.close;
    this.#load = options.load;
    this.#hash = options.hash;
    let bytes16 = 0;
    for (const { shape } of options.tensors.values()) bytes16 += 2 * elements(shape);
    this.bytes16 = bytes16;
  }

  async read(name: string): Promise<Float32Array> {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new RangeError(`${this.source}: the model has no tensor ${quote(name)}`);
    const values = await this.#load(name);
    checkFinite(values, tensor, this.source);
    return values;
  }

  async hash(signal?: AbortSignal): Promise<string> {
    return (this.#hashed ??= await this.#hash(signal));
  }
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Throws CorruptFileError naming the first element that is not finite. */
export function checkFinite(values: Float32Array, tensor: TensorInfo, file: string): void {
  // x * 0 is 0 for finite x and NaN otherwise: one branch at the end instead of one for each element.
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * 0;
  if (sum === 0) return;
  const at = values.findIndex((value) => !Number.isFinite(value));
  let rest = at;
  const index = [...tensor.shape]
    .reverse()
    .map((size) => {
      const i = rest % size;
      rest = (rest - i) / size;
      return i;
    })
    .reverse();
  throw new CorruptFileError(
    `${file}: tensor ${quote(tensor.name)} holds ${values[at]} at [${index.join(", ")}]; the weights are damaged: get the model again`,
  );
}
