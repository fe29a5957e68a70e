/**
 * `compress`: from a checkpoint and a target to a PocketLLM folder. Everything that can be checked is checked
 * first; then matrices are coded one layer at a time into the folder's journal, and the folder is assembled.
 */
import { createHash } from "node:crypto";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { JsonValue } from "../codec/coded.js";
import { createTrainingBackend, type WasmBackend } from "../compute/index.js";
import { FolderWriter } from "../container/writer.js";
import { codeCalibrated } from "./calibrated.js";
import type { MatrixCodec } from "./codec.js";
import { Coder } from "./coder.js";
import { codeWithoutData } from "./data-free.js";
import { openSource } from "./merged.js";
import { metaCodec } from "./meta-codec.js";
import { type CompressOptions, resolveOptions } from "./options.js";
import type { Sensitivities } from "./plan.js";
import { type Planning, planFor, readCalibration, storedOrder } from "./prepare.js";
import { describe } from "./provenance.js";
import { measureSensitivities } from "./sensitivity.js";
import { trellisCodec } from "./trellis-codec.js";

export interface CompressReport {
  /** bytes16 / weightBytes */
  readonly ratio: number;
  /** Bytes of every weight file of the folder. */
  readonly weightBytes: number;
  /** Bytes of the model as 16-bit safetensors. */
  readonly bytes16: number;
  /** Bits of the weight files a parameter, everything in them counted. */
  readonly bitsPerWeight: number;
  /** Tokens of calibration text that were used. */
  readonly calibrationTokens: number;
  /**
   * Mean KL(original ‖ compressed) in nats on calibration text that was held out, which measures nothing but the
   * same kind of text; null without such text.
   */
  readonly divergence: number | null;
  readonly seconds: number;
}

/**
 * Compresses `source` into the folder `out`. InputError (one line for the user) for anything wrong with the
 * source, the options or the disk; what was finished by then is kept for `resume`.
 */
export async function compress(options: CompressOptions): Promise<CompressReport> {
  const started = performance.now();
  await FolderWriter.check(options.out, options.resume ?? false);
  const checkpoint = await openSource(options);
  try {
    const result = resolveOptions(options, checkpoint.config);
    const run = { checkpoint, options, result };
    const report =
      result.method === "trellis" ? await runWith(run, trellisCodec) : await runWith(run, metaCodec);
    return { ...report, seconds: (performance.now() - started) / 1000 };
  } finally {
    await checkpoint.close();
  }
}

const SENSITIVITIES_NOTE = "sensitivities";

interface Run extends Planning {
  readonly options: CompressOptions;
}

async function runWith<Code>(
  run: Run,
  createCodec: (runtime: Awaited<ReturnType<typeof createTrainingBackend>>["runtime"]) => MatrixCodec<Code>,
): Promise<Omit<CompressReport, "seconds">> {
  const { checkpoint, options, result } = run;
  const { signal, onProgress } = options;
  const { without } = result;
  const backend = await createTrainingBackend({ threads: options.threads });
  // With what training for the coded embedding has changed.
  let source: Checkpoint = checkpoint;
  try {
    const codec = createCodec(backend.runtime);
    // Refuses a target out of reach before any work; measured sensitivities may change who gets the bits.
    const fixedPlan = planFor(run, codec);
    // Read before any work even where no text needs it: a tokenizer that is damaged is found now.
    const tokenizerFiles = await checkpoint.tokenizer();
    const { files, windows, heldOut } = await readCalibration(run, tokenizerFiles);
    const provenance = await describe(run, files, backend.runtime.arithmetic);
    const writer = await FolderWriter.open(options.out, {
      resume: options.resume ?? false,
      fingerprint: createHash("sha256").update(JSON.stringify(provenance)).digest("hex"),
    });
    const sensitivities =
      windows.length > 0 ? await sensitivitiesOf(run, backend, writer, windows) : undefined;
    const plan = sensitivities ? planFor(run, codec, sensitivities) : fixedPlan;
    const total = plan.matrices.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    const coder = new Coder({
      codec,
      writer,
      seed: result.seed,
      sensitivities,
      without,
      signal,
      onCoded: (done, { name }) => onProgress?.({ stage: "coding", done, total, detail: name }),
    });
    let divergence: number | null = null;
    const { absorb } = options;
    if (windows.length > 0)
      divergence = await codeCalibrated({
        backend,
        checkpoint,
        plan,
        coder,
        without,
        windows,
        heldOut,
        absorb: absorb && (async (embedding) => (source = await absorb.run(checkpoint, embedding))),
        signal,
        onProgress,
      });
    else
      await codeWithoutData({ checkpoint, plan, coder, concurrency: codec.concurrent ? backend.threads : 1 });

    const coded = new Set(plan.matrices.map(({ name }) => `${name}.weight`));
    for (const { name, shape } of checkpoint.tensors.values())
      if (!coded.has(name) && !writer.has(name)) await writer.putPlain(name, await source.read(name), shape);
    const errors: Record<string, JsonValue> = {};
    for (const matrix of plan.matrices) errors[matrix.name] = coder.errors(matrix);
    const { weightBytes } = await writer.finish({
      config: checkpoint.huggingFaceConfig,
      tokenizerFiles,
      generationConfig: checkpoint.generationConfig,
      provenance: { ...provenance, measured: { errors, ...(divergence !== null && { divergence }) } },
      order: storedOrder(checkpoint, coded),
      signal,
      onProgress,
    });
    return {
      ratio: checkpoint.bytes16 / weightBytes,
      weightBytes,
      bytes16: checkpoint.bytes16,
      bitsPerWeight: (16 * weightBytes) / checkpoint.bytes16,
      calibrationTokens: windows.length * (windows[0]?.length ?? 0),
      divergence,
    };
  } finally {
    await backend.close();
    if (source !== checkpoint) await source.close();
  }
}

/** Measured once: an interrupted run finds them in the journal. */
async function sensitivitiesOf(
  { checkpoint, options: { signal, onProgress }, result: { seed } }: Run,
  backend: WasmBackend,
  writer: FolderWriter,
  windows: readonly Int32Array[],
): Promise<Sensitivities | undefined> {
  const kept = writer.getNote(SENSITIVITIES_NOTE);
  if (kept !== undefined) return (kept as Sensitivities | null) ?? undefined;
  const measured = await measureSensitivities({ backend, checkpoint, windows, seed, signal, onProgress });
  await writer.putNote(SENSITIVITIES_NOTE, measured as JsonValue);
  return measured ?? undefined;
}
