/** Runs the built command as a user would, for tests. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { hostileModule } from "../checkpoint/test-data.test.util.js";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function start(args: readonly string[]): { child: ChildProcess; finished: Promise<Finished> } {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (piece) => (text.stdout += piece));
  child.stderr.on("data", (piece) => (text.stderr += piece));
  const finished = new Promise<Finished>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, ...text }));
  });
  return { child, finished };
}

export function run(...args: readonly string[]): Promise<Finished> {
  return start(args).finished;
}

/** Runs a command that must succeed; what it printed on stderr is the failure's message. */
export async function succeed(...args: readonly string[]): Promise<Finished> {
  const finished = await run(...args);
  assert.equal(finished.code, 0, `${args[0]}: ${finished.signal ?? ""} ${finished.stderr}`);
  return finished;
}

/** The error lines that a failed command printed: everything that is not progress. */
export function errorLines({ stderr }: Finished): string[] {
  return stderr.split("\n").filter((line) => /^(pocketllm|error): /.test(line));
}

/** Fails unless the command was refused in one line like `message`, and left nothing at `out`. */
export function assertRefused(finished: Finished, message: RegExp, out: string): void {
  const { code, stderr } = finished;
  assert.ok(code === 1 || code === 2, `${code}: ${stderr}`);
  assert.equal(errorLines(finished).length, 1, stderr);
  assert.match(stderr, message);
  assert.ok(!existsSync(out), "something that looks whole was left");
}

/** SHA-256 of every file below a folder, by relative path. */
export function folderHashes(folder: string): Record<string, string> {
  const hashes: Record<string, string> = {};
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    hashes[path.slice(folder.length + 1)] = createHash("sha256").update(readFileSync(path)).digest("hex");
  }
  return hashes;
}

/** Writes a tiny Llama with random weights, of 3 layers unless `options` (test/hostile/tiny-llama.mjs) say else. */
export async function makeTinyModel(dir: string, options: object = {}): Promise<void> {
  const { makeTinyLlama } = await hostileModule<{
    makeTinyLlama(dir: string, options: object): Promise<unknown>;
  }>("tiny-llama.mjs");
  await makeTinyLlama(dir, { layers: 3, hidden: 64, intermediate: 160, tied: true, ...options });
}

const WORDS = ["river", "stone", "lamp", "green", "walks", "under", "seven", "the", "a", "and"];

/** Three words, the same for the same `i`: text for tests. */
export function words(i: number): string {
  return `${WORDS[i % 10]} ${WORDS[(i * 7 + 3) % 10]} ${WORDS[(i * i) % 10]}`;
}
