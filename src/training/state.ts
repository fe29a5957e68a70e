/**
 * The state of a training run on disk (Node only), from which the run goes on as if it had not stopped. One
 * safetensors file: what it is in the metadata, the loss history and the trainer's tensors, and as its last
 * tensor the SHA-256 of all bytes before. It is written beside the older one, flushed and renamed over it, so
 * that at every moment one whole state is there.
 */
import { createHash } from "node:crypto";
import type { ByteSource } from "../checkpoint/byte-source.js";
import { FileSource } from "../checkpoint/file-source.js";
import { quote } from "../checkpoint/json.js";
import { buildSafetensorsHeader, SafetensorsFile } from "../checkpoint/safetensors.js";
import { type TensorToWrite, writeSafetensors } from "../checkpoint/safetensors-write.js";
import { errorCode, hashRange, reportFullDisk } from "../container/disk.js";
import { canonicalJson, JsonField } from "../container/json.js";
import { CorruptFileError, InputError, UsageError } from "../errors.js";
import { f32ToBytes } from "../tensor/dtype.js";
import type { Measurement } from "./early-stop.js";

/** One f32 tensor of the trainer: a parameter or a moment of Adam. */
export interface StateTensor {
  /** Any but "history.losses", "history.held_out" and "sha256". */
  readonly name: string;
  /** Values. */
  readonly length: number;
  /** Its values now; called once when a state is written. */
  read(): Float32Array | Promise<Float32Array>;
  /** Sets its values; called once when a state is read. The array is the callee's. */
  write(values: Float32Array): void | Promise<void>;
}

export interface TrainingState {
  /** Steps that are finished, and so the number of the next. */
  readonly step: number;
  /** Loss of each step so far, in nats. */
  readonly losses: readonly number[];
  /** Every measurement on the held-out examples; `EarlyStop` finds the best again from them. */
  readonly heldOut: readonly Measurement[];
}

/** What a state belongs to: hashes or names that the trainer makes. */
export interface StateIdentity {
  /** Of the model that is trained. */
  readonly model: string;
  /** Of every option and of the data: what changes the result. */
  readonly options: string;
}

const METADATA = "pocketllm_training_state";
const VERSION = 1;
const LOSSES = "history.losses";
const HELD_OUT = "history.held_out";
const HASH = "sha256";
const HASH_BYTES = 32;

/**
 * Writes a state to `path`, replacing an older one only when the new one is complete and flushed. Holds one
 * tensor at a time. InputError when the disk is full; the older state stays then.
 */
export async function writeTrainingState(
  path: string,
  identity: StateIdentity,
  state: TrainingState,
  tensors: readonly StateTensor[],
): Promise<void> {
  const { model, options } = identity;
  const metadata = { [METADATA]: canonicalJson({ version: VERSION, model, options, step: state.step }) };
  const hash = createHash("sha256");
  const hashed = (bytes: Uint8Array): Uint8Array => {
    hash.update(bytes);
    return bytes;
  };
  const measured = state.heldOut.flatMap(({ step, loss }) => [step, loss]);
  const entries: TensorToWrite[] = [
    {
      name: LOSSES,
      dtype: "F64",
      shape: [state.losses.length],
      data: () => hashed(f64ToBytes(state.losses)),
    },
    {
      name: HELD_OUT,
      dtype: "F64",
      shape: [state.heldOut.length, 2],
      data: () => hashed(f64ToBytes(measured)),
    },
    ...tensors.map(
      (tensor): TensorToWrite => ({
        name: tensor.name,
        dtype: "F32",
        shape: [tensor.length],
        data: async () => hashed(f32ToBytes(await tensor.read(), "F32")),
      }),
    ),
    // Written last, when everything before has been hashed.
    { name: HASH, dtype: "U8", shape: [HASH_BYTES], data: () => new Uint8Array(hash.digest()) },
  ];
  hashed(buildSafetensorsHeader(entries, metadata));
  await reportFullDisk(path, () => writeSafetensors({ path, tensors: entries, metadata }));
}

/**
 * Reads a state and hands every tensor its values; nothing is handed out before the whole file's hash is
 * checked. Null when there is no file. UsageError when it belongs to another model or other options;
 * CorruptFileError when it is cut short, damaged, no training state, or has other tensors. All one line.
 */
export async function readTrainingState(
  path: string,
  identity: StateIdentity,
  tensors: readonly StateTensor[],
): Promise<TrainingState | null> {
  const source = await openIfThere(path);
  if (source === null) return null;
  try {
    const file = await openWhole(source);
    const step = checkIdentity(file, identity);
    checkTensors(file, tensors);
    const losses = bytesToF64(await file.readBytes(LOSSES));
    const pairs = bytesToF64(await file.readBytes(HELD_OUT));
    const heldOut: Measurement[] = [];
    for (let i = 0; i < pairs.length; i += 2) heldOut.push({ step: pairs[i], loss: pairs[i + 1] });
    for (const tensor of tensors) await tensor.write(await file.readF32(tensor.name));
    return { step, losses, heldOut };
  } finally {
    await source.close();
  }
}

async function openIfThere(path: string): Promise<FileSource | null> {
  try {
    return await FileSource.open(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    if (error instanceof InputError || errorCode(error) === undefined) throw error;
    throw new InputError(`cannot read ${path}: ${(error as Error).message}`);
  }
}

/** The file, when its header is sound, it is a training state and its bytes match its hash. */
async function openWhole(source: FileSource): Promise<SafetensorsFile> {
  let file: SafetensorsFile;
  try {
    file = await SafetensorsFile.open(source);
  } catch (error) {
    if (error instanceof CorruptFileError) throw damaged(source);
    throw error;
  }
  if (!file.header.metadata.has(METADATA)) {
    throw new CorruptFileError(`${source.name} is not a training state: move it elsewhere to start again`);
  }
  const stored = file.tensors.get(HASH);
  const end = source.size - HASH_BYTES;
  if (stored?.dtype !== "U8" || stored.offset !== end || stored.byteLength !== HASH_BYTES)
    throw damaged(source);
  const found = Buffer.from(await source.read(end, HASH_BYTES)).toString("hex");
  if ((await hashRange(source, 0, end)) !== found) throw damaged(source);
  return file;
}

function damaged({ name }: ByteSource): CorruptFileError {
  return new CorruptFileError(`${name} is damaged or cut short: delete it to start the training again`);
}

/** The number of finished steps. */
function checkIdentity({ source, header }: SafetensorsFile, identity: StateIdentity): number {
  const metadata = header.metadata.get(METADATA) ?? "";
  const about = new JsonField(parse(metadata, source), `${source.name}:`);
  const version = about.get("version").integer(1, Number.MAX_SAFE_INTEGER);
  if (version !== VERSION)
    throw new InputError(`${source.name} has the version ${version} of training states, not ${VERSION}`);
  const refuse = (what: string, how: string): never => {
    throw new UsageError(
      `${source.name} was made with ${what}: resume with ${how}, or delete it to start again`,
    );
  };
  if (about.get("model").string() !== identity.model) refuse("another model", "that one");
  if (about.get("options").string() !== identity.options) refuse("other options or data", "those");
  return about.get("step").integer(0, Number.MAX_SAFE_INTEGER);
}

function parse(json: string, source: ByteSource): unknown {
  try {
    return JSON.parse(json);
  } catch {
    throw damaged(source);
  }
}

/** Names, types and lengths of all tensors, before any is read. */
function checkTensors(file: SafetensorsFile, tensors: readonly StateTensor[]): void {
  const { name: path } = file.source;
  const expected = new Map(tensors.map(({ name, length }) => [name, length]));
  for (const [name, length] of expected) {
    const { dtype, shape } = file.tensor(name);
    if (dtype !== "F32" || shape.length !== 1 || shape[0] !== length)
      throw new CorruptFileError(
        `${path}: tensor ${quote(name)} is ${dtype} [${shape.join(", ")}] where the run has F32 [${length}]`,
      );
  }
  const losses = file.tensor(LOSSES);
  const heldOut = file.tensor(HELD_OUT);
  if (losses.dtype !== "F64" || heldOut.dtype !== "F64" || heldOut.shape[1] !== 2)
    throw new CorruptFileError(
      `${path}: has no readable loss history: delete it to start the training again`,
    );
  const known = new Set([...expected.keys(), LOSSES, HELD_OUT, HASH]);
  for (const name of file.tensors.keys())
    if (!known.has(name)) throw new CorruptFileError(`${path}: the run has no tensor ${quote(name)}`);
}

/** Little-endian on every machine. */
function f64ToBytes(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(8 * values.length);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setFloat64(8 * i, value, true);
  return bytes;
}

function bytesToF64(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 8 }, (_, i) => view.getFloat64(8 * i, true));
}
