/**
 * Writes a PocketLLM folder, layer by layer, so that a run killed at any moment can go on (Node only).
 *
 * `<out>.partial/journal/` keeps every finished layer; `finish` builds the folder in `<out>.partial/model/`,
 * the manifest last, and renames it to `<out>`: a folder of the final name is always whole. What is written
 * depends only on what was put, never on the time, the machine or how often the run was interrupted.
 */
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { syncFolder } from "../checkpoint/safetensors-write.js";
import type { JsonValue, StoredTensor } from "../codec/coded.js";
import { InputError, UsageError } from "../errors.js";
import { f32ToBytes, numberToBf16, numberToF16 } from "../tensor/dtype.js";
import { buildFolder, type FinishOptions } from "./build.js";
import { exists, reportFullDisk, withoutSlash } from "./disk.js";
import { type Entry, Journal } from "./journal.js";
import { type CodedLayer, checkLayer, isName, matricesOf } from "./layer.js";
import type { LayerEntry } from "./manifest.js";
import { describeLayer, restoreLayer } from "./restore.js";

/** The folder that holds the work of a FolderWriter for `out` until `finish`. */
export function unfinishedFolder(out: string): string {
  return `${withoutSlash(out)}.partial`;
}

export class FolderWriter {
  /** The folder that `finish` makes, as the user named it. */
  readonly out: string;
  readonly #target: string;
  readonly #journal: Journal;

  private constructor(out: string, target: string, journal: Journal) {
    this.out = out;
    this.#target = target;
    this.#journal = journal;
  }

  /** The folder that holds the work until `finish`. */
  get partial(): string {
    return unfinishedFolder(this.out);
  }

  /**
   * Begins a folder or, with `resume`, goes on with one. `fingerprint` is a hash of the source model and of
   * every option that changes the result. UsageError when `out` exists, when unfinished work exists and
   * `resume` is false, or when that work has another fingerprint.
   */
  static async open(
    out: string,
    { resume, fingerprint }: { readonly resume: boolean; readonly fingerprint: string },
  ): Promise<FolderWriter> {
    await FolderWriter.check(out, resume);
    const target = resolve(out);
    return await reportFullDisk(unfinishedFolder(out), async () => {
      const journal = await Journal.open(join(unfinishedFolder(target), "journal"), fingerprint);
      return new FolderWriter(withoutSlash(out), target, journal);
    });
  }

  /** What `open` refuses of `out`, to be known before the source is read: UsageError. */
  static async check(out: string, resume: boolean): Promise<void> {
    const target = resolve(out);
    const name = withoutSlash(out);
    if (await exists(target))
      throw new UsageError(
        `${name} exists already${resume ? ", so there is nothing to resume" : ""}: choose another --out, or delete it`,
      );
    if (!resume && (await exists(unfinishedFolder(target))))
      throw new UsageError(
        `${unfinishedFolder(out)} holds an unfinished run: run with --resume to go on with it, or delete it`,
      );
  }

  /** Whether a coded layer or a plain tensor of this name is finished. */
  has(name: string): boolean {
    return this.#journal.get("coded", name) !== undefined || this.#journal.get("plain", name) !== undefined;
  }

  /** Keeps a coded layer; `layer` is the tensor's name without ".weight". */
  async putCoded(layer: string, coded: CodedLayer): Promise<void> {
    checkLayer(layer, coded);
    const tensors = matricesOf(coded).flatMap((matrix) => [...matrix.tensors.values()]);
    await this.#put("coded", layer, describeLayer(coded) as unknown as JsonValue, tensors);
  }

  /**
   * Keeps a tensor as it is, in F16 where that holds every value without overflow, else in BF16. InputError
   * when a value is not finite or fits neither.
   */
  async putPlain(name: string, values: Float32Array, shape: readonly number[]): Promise<void> {
    if (!isName(name)) throw new InputError(`tensor name ${JSON.stringify(name)} cannot be stored`);
    if (shape.reduce((product, n) => product * n, 1) !== values.length)
      throw new RangeError(`${name}: ${values.length} values for shape [${shape.join(", ")}]`);
    const dtype = sixteenBitType(name, values);
    await this.#put("plain", name, null, [{ dtype, shape, data: f32ToBytes(values, dtype) }]);
  }

  /** A finished coded layer, read back. Throws RangeError when there is none. */
  async getCoded(layer: string): Promise<CodedLayer> {
    const entry = this.#journal.get("coded", layer);
    if (!entry) throw new RangeError(`${layer} is not in the journal`);
    return restoreLayer(entry.description as unknown as LayerEntry, await this.#journal.read(entry));
  }

  /** Small state of the run, such as measured errors, for a resumed run. Not part of the folder. */
  async putNote(key: string, value: JsonValue): Promise<void> {
    if (!isName(key)) throw new RangeError(`note ${JSON.stringify(key)} cannot be stored`);
    await this.#put("note", key, value, []);
  }

  getNote(key: string): JsonValue | undefined {
    return this.#journal.get("note", key)?.description;
  }

  async #put(
    kind: Entry["kind"],
    name: string,
    description: JsonValue,
    tensors: readonly StoredTensor[],
  ): Promise<void> {
    await reportFullDisk(this.partial, () => this.#journal.put(kind, name, description, tensors));
  }

  /**
   * Makes the folder of everything that was put, under its final name, and deletes the journal. When it
   * throws, the journal is kept and `finish` can be called again. Returns the bytes of all weight files.
   */
  async finish(options: FinishOptions): Promise<{ weightBytes: number }> {
    const target = this.#target;
    const work = unfinishedFolder(target);
    const model = join(work, "model");
    return await reportFullDisk(this.partial, async () => {
      await rm(model, { recursive: true, force: true });
      await mkdir(model);
      let weightBytes: number;
      try {
        weightBytes = await buildFolder(model, this.#journal, options);
      } catch (error) {
        // A full disk has room again for what the user does next.
        await rm(model, { recursive: true, force: true });
        throw error;
      }
      if (await exists(target))
        throw new UsageError(`${this.out} was created meanwhile: delete it and run with --resume`);
      await rename(model, target);
      await syncFolder(dirname(target));
      await rm(work, { recursive: true, force: true });
      return { weightBytes };
    });
  }
}

function sixteenBitType(name: string, values: Float32Array): "F16" | "BF16" {
  let fits = true;
  for (const value of values) {
    if (!Number.isFinite(value)) throw new InputError(`${name} holds a value that is not finite`);
    if (Math.abs(value) < 65504) continue;
    fits &&= (numberToF16(value) & 0x7fff) < 0x7c00;
    if ((numberToBf16(value) & 0x7fff) >= 0x7f80)
      throw new InputError(`${name} holds ${value}, which no 16-bit float can`);
  }
  return fits ? "F16" : "BF16";
}
