/**
 * The log of a training run: a file of JSON lines, one a step (Node only). Lines are only ever added; a resumed
 * run first takes away those of steps that it will do again, so that its log is that of a run without a stop.
 */
import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { isObject } from "../checkpoint/json.js";
import { errorCode, reportFullDisk } from "../container/disk.js";
import { InputError } from "../errors.js";

export interface LogEntry {
  /** From 0. */
  readonly step: number;
  /** Mean nats of a scored token. */
  readonly loss: number;
  readonly learningRate: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly tokensPerSecond: number;
  /** Mean nats on the held-out examples after the step, where it was measured. */
  readonly heldOut?: number | undefined;
}

/** A million steps; longer than any run here. */
const MAX_LOG_BYTES = 256 * 2 ** 20;
const NUMBERS = ["step", "loss", "learningRate", "gradientNorm", "tokensPerSecond"] as const;

export class TrainingLog {
  readonly #path: string;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  /**
   * Opens or begins the log of a run that goes on with `step` (0: begins): lines of that step and later are
   * cut off, and so is a last line that a crash left unfinished. InputError, with the file untouched, when it
   * holds anything but a training log, or cannot be opened.
   */
  static async open(path: string, step: number): Promise<TrainingLog> {
    const keep = await keptBytes(path, step);
    let file: FileHandle;
    try {
      file = await open(path, "a");
    } catch (error) {
      throw new InputError(`cannot write ${path}: ${(error as Error).message}`);
    }
    await file.truncate(keep);
    return new TrainingLog(path, file);
  }

  /** Adds a line. RangeError when a number is not finite: JSON has no word for it. */
  async append(entry: LogEntry): Promise<void> {
    const { step, loss, learningRate, gradientNorm, tokensPerSecond, heldOut } = entry;
    const line = { step, loss, learningRate, gradientNorm, tokensPerSecond, heldOut };
    for (const [key, value] of Object.entries(line))
      if (value !== undefined && !Number.isFinite(value))
        throw new RangeError(`${key} is ${value} at step ${step}: it cannot be logged`);
    await reportFullDisk(this.#path, () => this.#file.appendFile(`${JSON.stringify(line)}\n`));
  }

  /** Waits until the lines are on the disk: before a state is written, so that it is never ahead of its log. */
  async flush(): Promise<void> {
    await reportFullDisk(this.#path, () => this.#file.datasync());
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** How long the part of the log is that stays. */
async function keptBytes(path: string, step: number): Promise<number> {
  let bytes: Buffer;
  try {
    const stats = await stat(path);
    if (!stats.isFile()) throw new InputError(`${path}: is not a regular file`);
    if (stats.size > MAX_LOG_BYTES) throw notALog(path, "is too long for one");
    bytes = await readFile(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return 0;
    if (error instanceof InputError || errorCode(error) === undefined) throw error;
    throw new InputError(`cannot read ${path}: ${(error as Error).message}`);
  }
  let keep = 0;
  let previous = -1;
  for (let start = 0, line = 1; start < bytes.length; line++) {
    const end = bytes.indexOf(10, start);
    const found = loggedStep(bytes.toString("utf8", start, end < 0 ? undefined : end));
    // What a crash cut off begins as every line does; anything else is some other file, and not ours to cut.
    if (end < 0 && (found !== null || isBeginning(bytes.toString("latin1", start)))) break;
    if (found === null || found <= previous) throw notALog(path, `line ${line} is none of one`);
    previous = found;
    start = end + 1;
    if (found < step) keep = start;
  }
  return keep;
}

function loggedStep(line: string): number | null {
  try {
    const value: unknown = JSON.parse(line);
    if (!isObject(value) || NUMBERS.some((key) => typeof value[key] !== "number")) return null;
    return Number.isSafeInteger(value["step"]) ? (value["step"] as number) : null;
  } catch {
    return null;
  }
}

function isBeginning(text: string): boolean {
  const opening = '{"step":';
  return opening.startsWith(text.slice(0, opening.length));
}

function notALog(path: string, why: string): InputError {
  return new InputError(
    `${path} is not the log of a training run (${why}): name another file, or move it away`,
  );
}
