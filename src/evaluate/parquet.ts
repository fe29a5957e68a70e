/**
 * Rows of a parquet file from outside, by hyparquet, in a thread of its own: damaged files make the library run for
 * ever or fill the memory, and a thread can be ended.
 */
import { Worker } from "node:worker_threads";
import { CorruptFileError, InputError } from "../errors.js";
import type { ParquetAnswer, ParquetQuestion } from "./parquet-worker.js";

export type ParquetRow = Readonly<Record<string, unknown>>;

/** All of HellaSwag takes less than two. */
const MAX_SECONDS = 60;
/** Of JavaScript objects: Node's own limit on small machines. */
const MAX_MEGABYTES = 1536;

/**
 * `columns` are top-level names; nested ones come as objects and arrays. InputError naming `where` for a column
 * that is not there, CorruptFileError for a file that cannot be read, claims too much or takes longer than `seconds`.
 */
export async function readParquet(
  bytes: Uint8Array<ArrayBuffer>,
  columns: readonly string[],
  where: string,
  seconds = MAX_SECONDS,
): Promise<readonly ParquetRow[]> {
  const question: ParquetQuestion = { bytes, columns, where };
  const worker = new Worker(new URL("./parquet-worker.js", import.meta.url), {
    workerData: question,
    resourceLimits: { maxOldGenerationSizeMb: MAX_MEGABYTES },
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    const answer = await new Promise<ParquetAnswer>((resolve) => {
      const damaged = (what: string) =>
        resolve({ error: `${where}: ${what}: it is damaged or made to harm` });
      timer = setTimeout(() => damaged(`takes longer than ${seconds} s to read`), 1000 * seconds);
      worker.once("message", resolve);
      worker.once("error", () => damaged("cannot be read as parquet"));
      worker.once("exit", () => damaged("takes too much memory to read"));
    });
    if ("error" in answer)
      throw answer.missing ? new InputError(answer.error) : new CorruptFileError(answer.error);
    return answer.rows;
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}
