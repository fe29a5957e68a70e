/** Coding of one matrix by the method "meta": train, round what is stored to half precision, index, measure. */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import type { OnProgress } from "../../progress.js";
import { Random } from "../../random.js";
import { bytesToF32, f32ToBytes } from "../../tensor/dtype.js";
import { packBits } from "../bits.js";
import type { CodedMatrix, StoredTensor } from "../coded.js";
import { decodeMeta, metaTensors } from "./decode.js";
import { groupSubVectors } from "./groups.js";
import { toStored } from "./network.js";
import { type MetaOptions, resolveMetaOptions, statisticsCount } from "./options.js";
import { measureStatistics, normaliseWeights, type Statistics } from "./statistics.js";
import { Trainer } from "./train.js";

export interface EncodeMetaOptions {
  /** [rows, columns], finite */
  readonly weights: Float32Array;
  readonly rows: number;
  readonly columns: number;
  /** Defaults: META_DEFAULTS, the paper's. */
  readonly options?: Partial<MetaOptions> | undefined;
  /** Default 0. The same seed, weights and options give the same bytes, on any number of threads. */
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Stage "meta", in epochs. */
  readonly onProgress?: OnProgress | undefined;
}

export interface EncodedMeta {
  readonly coded: CodedMatrix;
  /** |W - decoded W|² / |W|², of what decodeMeta returns. */
  readonly squaredError: number;
}

/** Throws InputError for impossible options, weights that are not finite, and training that diverges. */
export async function encodeMeta(runtime: WasmRuntime, input: EncodeMetaOptions): Promise<EncodedMeta> {
  const { weights, rows, columns, signal } = input;
  const options = resolveMetaOptions(rows, columns, input.options);
  const { d, k } = options;
  if (weights.length !== rows * columns)
    throw new InputError(`meta: ${weights.length} weights for a ${rows} x ${columns} matrix`);
  const groups = groupSubVectors(rows, columns / d, options.rln);
  const statistics = measureStatistics(weights, options, statisticsCount(rows, columns, options), groups);
  if (!statistics.pairs.every(Number.isFinite))
    throw new InputError("meta: weights are not finite, or their means are beyond half precision");
  const random = new Random(input.seed ?? 0);
  const set = {
    vectors: normaliseWeights(weights, d, statistics),
    importance: importanceOf(statistics),
    groups,
  };
  const trainer = new Trainer(runtime, set, options, random);
  try {
    const onEpoch = (epoch: number, mse: number) =>
      input.onProgress?.({
        stage: "meta",
        done: epoch + 1,
        total: options.epochs,
        detail: `error ${mse.toFixed(4)}`,
      });
    const best = await trainer.train(random, onEpoch, signal);
    const codebook = f32ToBytes(best.codebook, "F16");
    const decoder = f32ToBytes(toStored(options, best.decoder), "F16");
    trainer.setModel({ ...best, codebook: bytesToF32(codebook, "F16") });
    const codes = packBits(trainer.encodeAll().codes, Math.log2(k));
    const data = { codes, codebook, decoder, statistics: f32ToBytes(statistics.pairs, "F16") };
    const tensors = new Map<string, StoredTensor>(
      Object.entries(metaTensors(rows, columns, options)).map(([suffix, tensor]) => [
        suffix,
        { ...tensor, data: data[suffix as keyof typeof data] },
      ]),
    );
    const { hidden, blocks, rln, groupScale } = options;
    const parameters = { d, k, hidden, blocks, rln, groupScale };
    const coded: CodedMatrix = { method: "meta", rows, columns, parameters, tensors };
    return { coded, squaredError: relativeError(weights, decodeMeta(coded)) };
  } finally {
    trainer.free();
  }
}

/** Per sub-vector: its group's variance over the mean variance, so that the loss is the error of the weights. */
function importanceOf({ pairs, pairOf }: Statistics): Float32Array {
  const out = Float32Array.from(pairOf, (pair) => pairs[2 * pair + 1] ** -2);
  let sum = 0;
  for (const value of out) sum += value;
  return sum > 0 ? out.map((value) => (value * out.length) / sum) : out;
}

/** |a - b|² / |a|²; 0 for two zero matrices. */
export function relativeError(a: Float32Array, b: Float32Array): number {
  let error = 0;
  let total = 0;
  for (let i = 0; i < a.length; i++) {
    error += (a[i] - b[i]) ** 2;
    total += a[i] ** 2;
  }
  return total > 0 ? error / total : error;
}
